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
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from laps.errors import InputError, MediaError, StoreError, UnreachableError
from laps.timegrid import CameraHour, from_datetime
from resources.freshness import touched_hours
from resources.recordings import Landed, Recordings

FOLDER = "landing"
# What was refused (a file that may not be read, a folder that is no camera's name) is tried again so often.
_RETRY_S = 600.0
# So many files one after another that cannot be reached are a network that is down, and no bad files.
_UNREACHABLE = 3
# Listing that takes longer is told: Dagster ends a sensor after 60 s.
_SLOW_LISTING_S = 10.0
# What was registered is put on record so often: a tick that is ended from outside has not worked for nothing.
_SAVE_S = 5.0


@dataclass
class Known:
    """A file as it was when it was offered to the register.

    Attributes:
        marker: its change marker.
        recording: its row's id where it can be used, else None.
        start_ns, stop_ns: what it covers as its container claims, where it can be used.
        tried_s: when it was refused, seconds since the epoch; 0 where it was registered or quarantined.
    """

    marker: str
    recording: str | None = None
    start_ns: int = 0
    stop_ns: int = 0
    tried_s: float = 0.0


@dataclass
class Seen:
    """What lies in the store.

    Attributes:
        files: what was offered, by uri.
        growing: marker of each file that is not yet stable, and since when it is so, seconds since the epoch.
        hours: keys of the hours that wait, and when something was last registered in them, seconds since the epoch.
    """

    files: dict[str, Known] = field(default_factory=dict)
    growing: dict[str, tuple[str, float]] = field(default_factory=dict)
    hours: dict[str, float] = field(default_factory=dict)


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
    listing_s: float = 0.0

    def __str__(self) -> str:
        if self.missing:
            return "the landing zone is empty, and it held files before: is a share not mounted? Nothing is changed"
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

        Args:
            known_digest: of the listing after which nothing was left to do; when it is the same, nothing is read.

        Raises:
            StoreError: the store cannot be written, or the landing zone cannot be listed.
            UnreachableError: its files cannot be reached. What was registered until then is on record.
        """
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

    def ready_hours(self, present_ns: int, at_most: int) -> dict[CameraHour, str]:
        """The first hours that are over and quiet, and for each a digest of the recordings that touch it."""
        latest_s = time.time() - self.quiet_s
        hours = [CameraHour.parse(key) for key, since_s in self.seen.hours.items() if since_s <= latest_s]
        ready = sorted(hour for hour in hours if hour.stop_ns <= present_ns)[:at_most]
        touching = self._touching(ready)
        return {hour: _digest(f"{known.recording} {known.start_ns}" for known in touching[hour]) for hour in ready}

    def registrations(self, hours: Iterable[CameraHour]) -> dict[CameraHour, list[str]]:
        """Paths of the register's rows for the recordings of the landing zone that touch each hour."""
        return {
            hour: [self.recordings.row_path(hour.camera, str(known.recording)) for known in found]
            for hour, found in self._touching(hours).items()
        }

    def done_with(self, hours: Iterable[CameraHour]) -> None:
        """Take hours off the list of those that wait."""
        if gone := {hour.key for hour in hours} & self.seen.hours.keys():
            for key in gone:
                del self.seen.hours[key]
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
            known = Known(landed.marker, row["recording_id"], start_ns, stop_ns)
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
            )
        except (ValueError, TypeError, KeyError, EOFError, gzip.BadGzipFile) as error:
            raise StoreError(
                f"is no record of what was seen in the landing zone: {error}",
                where=self.store.url(self.path),
                fix="Delete it: the files are looked at again, and the register keeps its rows.",
            ) from error


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(parts)).encode("utf-8", "surrogateescape")).hexdigest()[:16]
