"""The absolute sampling grid, and the only place where times are computed.

Times are UTC, held as integer nanoseconds since the Unix epoch (``*_ns``). Sample ``n`` stands at ``n / rate_hz``
seconds since the epoch, so a sample has the same number whatever file, hour or run it is computed in.
Ranges are half-open: ``start <= t < stop``.

Windows (paper section 3.1: a sliding window of tracks) hold ``window`` samples; a new one ends every ``stride``
samples, at the samples congruent to ``stride - 1`` modulo ``stride``. A window *owns* its last ``stride``
samples: each sample's code and energy come from exactly one window, and an hour holds whole windows only.
The value at sample ``n`` describes the motion in ``(t_{n-1}, t_n]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from laps.errors import InputError

NS_PER_S = 1_000_000_000
HOUR_NS = 3600 * NS_PER_S
HOUR_KEY_FORMAT = "%Y-%m-%d-%H:%M"
CLOSES = "closes what was open before"
"""What is said of an hour without footage that has to be made: see :func:`hours_to_close`."""

_CAMERA = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@dataclass(frozen=True)
class SampleGrid:
    """Sampling rate and window geometry.

    Attributes:
        rate_hz: samples a second; 3600 * rate_hz must be a multiple of ``stride``.
        window: samples in a window (T in the paper; 16 in the reference implementation).
        stride: samples between window ends, and samples that a window owns.
        max_age_s: a sample is missing when the newest frame at or before it is older than this.
    """

    rate_hz: int = 10
    window: int = 16
    stride: int = 4
    max_age_s: float = 0.25

    def __post_init__(self) -> None:
        if self.rate_hz < 1 or NS_PER_S % self.rate_hz:
            raise InputError(
                f"a sampling rate of {self.rate_hz} Hz has no whole number of nanoseconds between samples",
                fix="Choose a divisor of 1,000,000,000, for example 5, 8, 10, 16, 20 or 25.",
            )
        if not 0 < self.stride < self.window:
            raise InputError(f"the stride must lie in 1..{self.window - 1} samples, not {self.stride}")
        if (3600 * self.rate_hz) % self.stride:
            raise InputError(f"an hour of {3600 * self.rate_hz} samples is no multiple of {self.stride}")

    @property
    def step_ns(self) -> int:
        return NS_PER_S // self.rate_hz

    @property
    def step_s(self) -> float:
        return 1.0 / self.rate_hz

    @property
    def samples_per_hour(self) -> int:
        return 3600 * self.rate_hz

    @property
    def preroll(self) -> int:
        """Samples before an hour's first that the hour's first window reaches back to."""
        return self.window - self.stride

    @property
    def max_age_ns(self) -> int:
        return round(self.max_age_s * NS_PER_S)

    def time_ns(self, sample: int) -> int:
        return sample * self.step_ns

    def first_sample_at_or_after(self, time_ns: int) -> int:
        return -((-time_ns) // self.step_ns)

    def last_sample_at_or_before(self, time_ns: int) -> int:
        return time_ns // self.step_ns

    def hour_samples(self, hour_ns: int) -> tuple[int, int]:
        """First sample of the hour, and the first of the next."""
        first = hour_ns // self.step_ns
        return first, first + self.samples_per_hour

    def window_ends(self, first: int, stop: int) -> range:
        """Last samples of the windows whose owned samples all lie in ``[first, stop)``."""
        end = first + self.stride - 1
        end += (self.stride - 1 - end) % self.stride
        return range(end, stop, self.stride)


@dataclass(frozen=True, order=True)
class CameraHour:
    """One partition: a camera and a UTC hour."""

    camera: str
    hour_ns: int

    def __post_init__(self) -> None:
        check_camera(self.camera)
        if self.hour_ns % HOUR_NS:
            raise InputError(f"{format_utc(self.hour_ns)} is not the start of an hour")

    @property
    def start_ns(self) -> int:
        return self.hour_ns

    @property
    def stop_ns(self) -> int:
        return self.hour_ns + HOUR_NS

    @property
    def date(self) -> str:
        return to_datetime(self.hour_ns).strftime("%Y-%m-%d")

    @property
    def hour(self) -> str:
        return to_datetime(self.hour_ns).strftime("%H")

    @property
    def hour_key(self) -> str:
        return to_datetime(self.hour_ns).strftime(HOUR_KEY_FORMAT)

    @property
    def key(self) -> str:
        """The partition key that Dagster shows, for example ``cam1|2026-11-21-05:00``."""
        return f"{self.camera}|{self.hour_key}"

    @property
    def previous(self) -> CameraHour:
        return CameraHour(self.camera, self.hour_ns - HOUR_NS)

    @property
    def next(self) -> CameraHour:
        return CameraHour(self.camera, self.hour_ns + HOUR_NS)

    @classmethod
    def of(cls, camera: str, time_ns: int) -> CameraHour:
        """The hour that holds a time."""
        return cls(camera, time_ns - time_ns % HOUR_NS)

    @classmethod
    def parse(cls, key: str) -> CameraHour:
        """Inverse of :attr:`key`."""
        camera, separator, hour = key.partition("|")
        if not separator:
            raise InputError(f"{key!r} is no camera hour", fix="Write camera|YYYY-MM-DD-HH:00.")
        return cls(camera, parse_hour(hour))

    def __str__(self) -> str:
        return self.key


def check_camera(name: str) -> str:
    """Return the name when it can be a camera's; it becomes a folder and part of a partition key."""
    if not _CAMERA.fullmatch(name):
        raise InputError(
            f"{name!r} cannot be a camera's name",
            fix="Use 1 to 63 lower-case letters, digits, '_' or '-', beginning with a letter or digit.",
        )
    return name


def to_datetime(time_ns: int) -> datetime:
    """An aware UTC datetime, rounded down to microseconds."""
    return datetime.fromtimestamp(time_ns // NS_PER_S, UTC) + timedelta(microseconds=time_ns % NS_PER_S // 1000)


def from_datetime(when: datetime) -> int:
    """Nanoseconds since the epoch of an aware datetime."""
    if when.tzinfo is None:
        raise InputError(f"the time {when.isoformat()} has no zone", fix="Add one: a trailing Z means UTC.")
    delta = when.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * NS_PER_S + delta.microseconds * 1000


def stamp_ns(value: datetime | int) -> int:
    """Nanoseconds of a row's timestamp: a datetime with zone, or microseconds as Arrow stores them."""
    return value * 1000 if isinstance(value, int) else from_datetime(value)


def now_ns() -> int:
    """The present, in nanoseconds since the epoch."""
    return from_datetime(datetime.now(UTC))


def parse_utc(text: str) -> int:
    """Nanoseconds of an ISO 8601 time that names its zone (``2026-11-21T05:00:00Z``, ``…+02:00``)."""
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise InputError(
            f"{text!r} is not a time",
            fix="Write it as ISO 8601 with a zone, for example 2026-11-21T05:00:00Z.",
        ) from error
    return from_datetime(when)


def parse_hour(text: str) -> int:
    """Nanoseconds of an hour, from a partition key's form or any ISO time with a zone that is a full hour."""
    try:
        return from_datetime(datetime.strptime(text, HOUR_KEY_FORMAT).replace(tzinfo=UTC))
    except ValueError:
        time_ns = parse_utc(text)
    if time_ns % HOUR_NS:
        raise InputError(f"{text!r} is not the start of an hour", fix="Hours are UTC, for example 2026-11-21T05:00Z.")
    return time_ns


def format_utc(time_ns: int) -> str:
    """ISO 8601 in UTC with a trailing Z; fractions only where there are any."""
    return to_datetime(time_ns).isoformat().replace("+00:00", "Z")


def hours_between(camera: str, start_ns: int, stop_ns: int) -> Iterator[CameraHour]:
    """The hours of a camera that touch ``[start_ns, stop_ns)``."""
    hour_ns = start_ns - start_ns % HOUR_NS
    while hour_ns < stop_ns:
        yield CameraHour(camera, hour_ns)
        hour_ns += HOUR_NS


def hours_to_close(hours: Iterable[CameraHour]) -> list[CameraHour]:
    """The hours and, for each, the hour after: a primitive that is open is decided by what follows."""
    hours = set(hours)
    return sorted({*hours, *(hour.next for hour in hours)})
