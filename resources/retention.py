"""How long each table is kept: days by table, in one small file of the store, and removing what is older.

An hour of a table is *over age* when the hour ended more than so many days ago. What is over age is removed by
:func:`apply`, and not made again: it is not missing. That follows from the days and the time alone, so there is no
second record that could disagree with the files. Whoever allows more days later has hours that are missing again: they
are made again where the video is still there.

Tables with a row for each primitive belong to ``segments``: they are kept no longer than those, and go with them.
``raw_video`` and ``recordings`` stay: they hold no pictures, and say what was filmed when.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from laps import tables
from laps.compaction import COPIES
from laps.errors import InputError, StoreError
from laps.tables import Table
from laps.timegrid import NS_PER_S, CameraHour
from resources.hour_files import copies_of, days_of, hour_of, month_of, roots_of
from resources.publishing import QUARANTINE
from resources.store import PART, Store

RETENTION = "retention.json"
DAY_S = 86_400
MOST_DAYS = 36_500

# Tables whose days can be set, and those that go with them because their rows belong to theirs.
KEPT: dict[Table, tuple[Table, ...]] = {
    tables.KEYPOINT_TRACKS: (),
    tables.KEYFRAMES: (),
    tables.LATENT_STREAM: (),
    tables.SEGMENTS: (
        tables.CLIPS,
        tables.SEGMENT_EMBEDDINGS,
        tables.VISUAL_FEATURES,
        tables.CLUSTER_ASSIGNMENTS,
    ),
    tables.CLIPS: (),
    tables.SEGMENT_EMBEDDINGS: (),
    tables.VISUAL_FEATURES: (),
}
# Of these there are compacted copies.
_COPIED = {table for copy in COPIES.values() for table in copy.tables}
_BELONGS_TO = {table: owner for owner, others in KEPT.items() for table in others}


@dataclass(frozen=True)
class Removed:
    """What was over age of a table.

    Attributes:
        table: its name.
        hours: camera hours.
        files: files removed, clips among them.
    """

    table: str
    hours: int
    files: int


@dataclass
class Retention:
    """For how many days tables are kept.

    Attributes:
        days: days by the table's name; a table that is not in it is kept for ever.
        now_s: the present, seconds since the epoch.
    """

    days: dict[str, int] = field(default_factory=dict)
    now_s: float = field(default_factory=time.time)

    @classmethod
    def of(cls, store: Store) -> Retention:
        """What is set in a store; StoreError where its file is damaged."""
        if not store.exists(RETENTION):
            return cls()
        content = store.read_json(RETENTION)
        try:
            return cls({_table(name).name: _checked(days) for name, days in content["days"].items()})
        except (KeyError, TypeError, AttributeError, InputError) as error:
            raise StoreError(
                f"does not say how long tables are kept: {error}",
                where=store.url(RETENTION),
                fix="Delete it, and set the days again (laps retention set TABLE DAYS).",
            ) from error

    def days_of(self, table: Table) -> int | None:
        """For how many days a table is kept; None: for ever."""
        owner = _BELONGS_TO.get(table)
        said = [self.days[one.name] for one in (table, owner) if one is not None and one.name in self.days]
        return min(said, default=None)

    def is_over_age(self, table: Table, hour: CameraHour) -> bool:
        """Whether an hour of a table is older than it is kept: then it is removed, and not made again."""
        days = self.days_of(table)
        return days is not None and hour.stop_ns / NS_PER_S + days * DAY_S <= self.now_s


def set_days(store: Store, table_name: str, days: int | None) -> Retention:
    """Set for how many days a table is kept, or that it is kept for ever (None); nothing is removed yet.

    Of two calls at the same moment one may be lost: all tables stand in one file.
    """
    table = _table(table_name)
    kept = Retention.of(store)
    if days is None:
        kept.days.pop(table.name, None)
    else:
        kept.days[table.name] = _checked(days)
    store.write_json(RETENTION, {"days": kept.days})
    return kept


def over_age(store: Store, kept: Retention) -> Iterator[tuple[Table, dict[CameraHour, list[str]]]]:
    """Of each table the files that are over age, by hour; of every tokenizer and release."""
    for table in (*KEPT, tables.CLUSTER_ASSIGNMENTS):
        if kept.days_of(table) is None:
            continue
        found: dict[CameraHour, list[str]] = {}
        # What was set aside holds the same people as what was published.
        roots = (*roots_of(table), f"{QUARANTINE}/{table.name}")
        days = (folder for root in roots for folder, first in days_of(store, root) if kept.is_over_age(table, first))
        for path in (path for day in days for path in sorted(store.listing(day))):
            hour = hour_of(path)
            if hour is not None and kept.is_over_age(table, hour):
                found.setdefault(hour, []).append(path)
        if found:
            yield table, found


def apply(store: Store, *, dry_run: bool = False) -> list[Removed]:
    """Remove what is over age; gives what was (or would be) removed of each table.

    Compacted copies of the months that hold removed hours go too: until they are made again the tables are read.
    """
    kept = Retention.of(store)
    removed = []
    months: set[tuple[str, str]] = set()
    for table, by_hour in over_age(store, kept):
        files = [path for paths in by_hour.values() for path in paths]
        removed.append(Removed(table.name, len(by_hour), len(files)))
        if table in _COPIED:
            months |= {month_of(hour) for hour in by_hour}
        if not dry_run:
            # The table's own file last: as long as it is there, so are the clips that it names.
            parts = {path for path in files if path.endswith(f"/{PART}")}
            store.delete_files([path for path in files if path not in parts])
            store.delete_files(sorted(parts))
            store.remove_empty_folders({path.rpartition("/")[0] for path in files})
    if months and not dry_run:
        store.delete_files(list(copies_of(store, months)))
    return removed


def _table(name: str) -> Table:
    for table in KEPT:
        if table.name == name:
            return table
    raise InputError(
        f"there are no days to set for {name!r}",
        fix=f"Tables: {', '.join(table.name for table in KEPT)}. cluster_assignments go with segments; raw_video and "
        "recordings stay, for they hold no pictures and say what was filmed when.",
    )


def _checked(days: int) -> int:
    if not isinstance(days, int) or isinstance(days, bool) or not 0 <= days <= MOST_DAYS:
        raise InputError(f"{days!r} is no number of days", fix=f"Give 0 to {MOST_DAYS}.")
    return days
