"""Watching the landing zone: which files are new, changed or gone, and which hours they touch.

What was seen lies in the store, in one small file for each landing zone, so that a restart, another daemon or a new
Dagster instance goes on from there. Losing it costs time only: files are looked at again, and the register keeps the
rows that it has. The file holds the recordings that were offered, and the hours that wait to be processed; an hour
waits until it is over and nothing was registered in it for a while, because an hour is observed as a whole.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from laps.errors import InputError, MediaError, StoreError, UnreachableError
from laps.timegrid import NS_PER_S, CameraHour, from_datetime, now_ns
from resources.freshness import touched_hours
from resources.recordings import Landed, Recordings

FOLDER = "landing"
_EMPTY = "is empty, and it held files before"
# What changed later may still be on its way into the register.
_SETTLING_NS = 3600 * NS_PER_S
# What was refused (a file that may not be read, a folder that is no camera's name) is tried again so often.
_RETRY_S = 600.0
# So many files one after another that cannot be reached are a network that is down, and no bad files.
_UNREACHABLE = 3
# Listing that takes longer is told: Dagster ends a sensor after 60 s.
_SLOW_LISTING_S = 10.0
# What was registered is put on record so often: a tick that is ended from outside has not worked for nothing.
_SAVE_S = 5.0
# Whose turn it is to look, by store and record.
_TURNS: dict[tuple[str, str], threading.Lock] = {}


@dataclass
class Known:
    """A file as it was when it was offered to the register.

    Attributes:
        marker: its change marker.
        recording: its row's id where it can be used, else None.
        start_ns, stop_ns: what it covers as its container claims, where it can be used.
        registered_ns: when its row was made, nanoseconds since the epoch: a start that is corrected there and back
            gives another row. 0 in records of earlier versions.
        tried_s: when it was refused, seconds since the epoch; 0 where it was registered or quarantined.
    """

    marker: str
    recording: str | None = None
    start_ns: int = 0
    stop_ns: int = 0
    registered_ns: int = 0
    tried_s: float = 0.0


@dataclass
class Seen:
    """What lies in the store.

    Attributes:
        files: what was offered, by uri.
        growing: marker of each file that is not yet stable, and since when it is so, seconds since the epoch.
        hours: keys of the hours that wait, and when something was last registered in them, seconds since the epoch.
        moved: for those among them that a recording touched before it was offered again, the paths of its rows: what
            it shows may have gone to other hours, and these are made from the row all the same.
    """

    files: dict[str, Known] = field(default_factory=dict)
    growing: dict[str, tuple[str, float]] = field(default_factory=dict)
    hours: dict[str, float] = field(default_factory=dict)
    moved: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Look:
    """What one look at the landing zone found.

    Attributes:
        digest: of the listing: the same as long as nothing changes.
        files: videos in the landing zone.
        registered: uris that can be used.
        quarantined, refused: reasons, by uri.
        vanished: uris that were there before.
        left: files that are still being written, or for which there was no time.
        missing: whether the landing zone is empty although it held files before.
        under_way: whether another look of this process goes on, for which nothing was looked at.
        listing_s: seconds that listing it took.
    """

    digest: str
    files: int
    registered: list[str] = field(default_factory=list)
    quarantined: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    vanished: list[str] = field(default_factory=list)
    left: int = 0
    missing: bool = False
    under_way: bool = False
    listing_s: float = 0.0

    def __str__(self) -> str:
        if self.under_way:
            return "an earlier look goes on: it has a large landing zone, or a file that takes long to look at"
        if self.missing:
            return f"the landing zone {_EMPTY}: is a share not mounted? Nothing is changed"
        said = [
            f"{count} {what}"
            for count, what in (
                (len(self.registered), "registered"),
                (len(self.quarantined), "quarantined"),
                (len(self.refused), "refused"),
                (len(self.vanished), "vanished"),
                (self.left, "left for later (still being written, or no time)"),
            )
            if count
        ]
        slow = f" (listing them took {self.listing_s:.0f} s)" if self.listing_s > _SLOW_LISTING_S else ""
        return f"{self.files} files{slow}: {', '.join(said) or 'nothing new'}"


class LandingZone:
    """The landing zone of a register, with the memory of what was seen in it.

    Args:
        recordings: the register.
        stable_s: a file on a disk is offered when two looks that are so far apart find the same size and time. In
            object storage a file appears whole and is taken at once.
        quiet_s: an hour is given out when nothing was registered in it for so long.
        budget_s: no further file is opened after so long, seconds of one look after its listing.
    """

    def __init__(
        self, recordings: Recordings, *, stable_s: float = 30.0, quiet_s: float = 300.0, budget_s: float = 20.0
    ) -> None:
        self.recordings = recordings
        self.store = recordings.store
        self.stable_s = 0.0 if "://" in recordings.landing else stable_s
        self.quiet_s = quiet_s
        self.budget_s = budget_s
        name = hashlib.sha256(recordings.landing.encode()).hexdigest()[:16]
        self.path = f"{FOLDER}/{name}.json.gz"
        self._seen: Seen | None = None

    @property
    def seen(self) -> Seen:
        """What was seen so far, read once."""
        if self._seen is None:
            self._seen = self._read()
        return self._seen

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left to do until the landing zone changes."""
        refused = any(known.tried_s for known in self.seen.files.values())
        return not (self.seen.growing or self.seen.hours or refused)

    def look(self, known_digest: str = "") -> Look:
        """List the landing zone and register what is new or changed and stable.

        One look at a time: a tick of the sensor that was ended goes on in its thread, and those that came after it
        would wait behind the same file until the server of the definitions has no thread left to answer with.

        Args:
            known_digest: of the listing after which nothing was left to do; when it is the same, nothing is read.

        Raises:
            StoreError: the store cannot be written, or the landing zone cannot be listed.
            UnreachableError: its files cannot be reached. What was registered until then is on record.
        """
        turn = _TURNS.setdefault((self.store.root, self.path), threading.Lock())
        if not turn.acquire(blocking=False):
            return Look("", 0, under_way=True)
        try:
            return self._look(known_digest)
        finally:
            turn.release()

    def _look(self, known_digest: str) -> Look:
        listing_began = time.monotonic()
        listed = {landed.uri: landed for landed in self.recordings.listed()}
        look = Look(digest=_digest(f"{uri} {landed.marker}" for uri, landed in listed.items()), files=len(listed))
        look.listing_s = time.monotonic() - listing_began
        if look.digest == known_digest:
            return look
        seen = self.seen
        if seen.files and not listed:
            look.missing = True
            return look
        look.vanished = sorted(seen.files.keys() - listed.keys())
        for uri in look.vanished:
            del seen.files[uri]
        now_s = time.time()
        fresh = [landed for uri, landed in listed.items() if self._is_new(seen.files.get(uri), landed, now_s)]
        seen.growing = {landed.uri: self._since(landed, now_s) for landed in fresh}
        # Time is counted from here, and one file is always opened: one that takes long to list still gets on.
        began = saved = time.monotonic()
        opened = unreachable = 0
        for landed in fresh:
            is_growing = now_s - seen.growing[landed.uri][1] < self.stable_s
            if is_growing or (opened and time.monotonic() - began > self.budget_s):
                look.left += 1
                continue
            opened += 1
            try:
                self._offer(landed, look)
                unreachable = 0
            except (InputError, MediaError, UnreachableError) as error:
                unreachable = unreachable + 1 if isinstance(error, UnreachableError) else 0
                look.refused[landed.uri] = str(error)
                seen.files[landed.uri] = Known(landed.marker, tried_s=now_s)
                if unreachable == _UNREACHABLE:
                    self.save()
                    raise
            del seen.growing[landed.uri]
            if time.monotonic() - saved > _SAVE_S:
                self.save()
                saved = time.monotonic()
        if fresh or look.vanished:
            self.save()
        return look

    def not_registered(self, start_ns: int, stop_ns: int) -> list[str]:
        """Uris of files that are in no row of the register; the landing zone is listed once, and no file is opened.

        Only those of ``[start_ns, stop_ns)``: by the UTC stamp in their names, or by when they last changed. Those that
        changed within the last hour may still be written, or wait for their turn.

        Raises:
            StoreError: the landing zone cannot be listed, or is empty of a sudden.
        """
        from laps.recordings import name_start

        settled_ns = now_ns() - _SETTLING_NS
        listed = list(self.recordings.listed())
        if not listed and self.seen.files:
            raise StoreError(_EMPTY, where=self.recordings.landing, fix="Is a share not mounted?")
        found = []
        known: dict[str, set[str]] = {}
        for landed in listed:
            times = (name_start(landed.uri)[0], landed.modified_ns)
            is_of_time = any(time_ns is not None and start_ns <= time_ns < stop_ns for time_ns in times)
            if not is_of_time or (landed.modified_ns or 0) > settled_ns:
                continue
            if landed.camera not in known:
                known[landed.camera] = self.recordings.uris(landed.camera) if landed.camera else set()
            if landed.uri not in known[landed.camera]:
                found.append(landed.uri)
        return found

    def ready_hours(self, present_ns: int, at_most: int, besides: Collection[CameraHour] = ()) -> dict[CameraHour, str]:
        """The first hours that are over and quiet, and for each a digest of the rows of recordings that touch it.

        Args:
            present_ns: the present, nanoseconds since the epoch.
            at_most: so many hours.
            besides: hours that nothing can be done for yet; others do not wait behind them.
        """
        latest_s = time.time() - self.quiet_s
        hours = [CameraHour.parse(key) for key, since_s in self.seen.hours.items() if since_s <= latest_s]
        ready = sorted(hour for hour in hours if hour.stop_ns <= present_ns and hour not in besides)[:at_most]
        touching = self._touching(ready)
        return {
            hour: _digest(f"{known.recording} {known.start_ns} {known.registered_ns}" for known in touching[hour])
            for hour in ready
        }

    def registrations(self, hours: Iterable[CameraHour]) -> dict[CameraHour, list[str]]:
        """Paths of the register's rows for the recordings of the landing zone that touch each hour, or touched it."""
        return {
            hour: [
                *(self.recordings.row_path(hour.camera, str(known.recording)) for known in found),
                *self.seen.moved.get(hour.key, []),
            ]
            for hour, found in self._touching(hours).items()
        }

    def done_with(self, hours: Iterable[CameraHour]) -> None:
        """Take hours off the list of those that wait."""
        if gone := {hour.key for hour in hours} & self.seen.hours.keys():
            for key in gone:
                del self.seen.hours[key]
                self.seen.moved.pop(key, None)
            self.save()

    def save(self) -> None:
        """Put on record what was seen."""
        content = json.dumps(asdict(self.seen), separators=(",", ":")).encode()
        self.store.write_bytes(self.path, gzip.compress(content, 1, mtime=0))

    def _is_new(self, known: Known | None, landed: Landed, now_s: float) -> bool:
        if known is None or known.marker != landed.marker:
            return True
        return known.tried_s > 0 and now_s - known.tried_s > _RETRY_S

    def _since(self, landed: Landed, now_s: float) -> tuple[str, float]:
        """The file's marker, and since when it has not changed."""
        marker, since_s = self.seen.growing.get(landed.uri, ("", now_s))
        return (landed.marker, since_s if marker == landed.marker else now_s)

    def _offer(self, landed: Landed, look: Look) -> None:
        """Register a file, and let the hours wait that it touches or touched."""
        before = self.seen.files.get(landed.uri)
        row = self.recordings.register_landed(landed)
        known = Known(landed.marker)
        if row["status"] == "ok":
            start_ns, stop_ns = from_datetime(row["start_time"]), from_datetime(row["end_time"])
            known = Known(landed.marker, row["recording_id"], start_ns, stop_ns, from_datetime(row["registered_at"]))
            look.registered.append(landed.uri)
        else:
            look.quarantined[landed.uri] = row["reason"]
        self.seen.files[landed.uri] = known
        now_s = time.time()
        for one in (before, known):
            if one is not None and one.recording is not None:
                hours = list(touched_hours(landed.camera, one.start_ns, one.stop_ns))
                # The hour after closes what is open.
                for hour in {*hours, *(hour.next for hour in hours)}:
                    self.seen.hours[hour.key] = now_s
                if one is before:
                    row_path = self.recordings.row_path(landed.camera, one.recording)
                    for hour in hours:
                        self.seen.moved[hour.key] = sorted({row_path, *self.seen.moved.get(hour.key, [])})

    def _touching(self, hours: Iterable[CameraHour]) -> dict[CameraHour, list[Known]]:
        wanted = set(hours)
        touching: dict[CameraHour, list[Known]] = defaultdict(list)
        cameras = {hour.camera for hour in wanted}
        for uri, known in sorted(self.seen.files.items()):
            camera = self.recordings.camera_of(uri)
            if known.recording is not None and camera in cameras:
                for hour in touched_hours(camera, known.start_ns, known.stop_ns):
                    if hour in wanted:
                        touching[hour].append(known)
        return {hour: touching[hour] for hour in wanted}

    def _read(self) -> Seen:
        if not self.store.exists(self.path):
            return Seen()
        try:
            content: Mapping[str, Any] = json.loads(gzip.decompress(self.store.read_bytes(self.path)))
            return Seen(
                files={uri: Known(**known) for uri, known in content["files"].items()},
                growing={uri: (str(marker), float(since_s)) for uri, (marker, since_s) in content["growing"].items()},
                hours=dict(content["hours"]),
                moved=dict(content.get("moved", {})),
            )
        except (ValueError, TypeError, KeyError, EOFError, gzip.BadGzipFile) as error:
            raise StoreError(
                f"is no record of what was seen in the landing zone: {error}",
                where=self.store.url(self.path),
                fix="Delete it: the files are looked at again, and the register keeps its rows.",
            ) from error


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(parts)).encode("utf-8", "surrogateescape")).hexdigest()[:16]
