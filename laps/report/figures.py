"""What the report shows, read from the catalog's views: plain rows and numbers, no markup.

Ranges of ``raw_video`` are clipped to their own hour, because an hour also lists the pre-roll before it.
Times are integer nanoseconds since the epoch (UTC).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import accumulate
from typing import Any

import duckdb
import numpy as np

from laps.errors import InputError
from laps.timegrid import HOUR_NS, NS_PER_S

ENERGY_COLUMNS = {
    "decoded_motion": "decoded_motion_energy",
    "latent_action": "latent_action_energy",
    "velocity": "velocity_energy",
    "prequantized": "prequantized_energy",
}

CODE_HOURS = 400
"""Camera hours whose codes are counted: latent streams have no copies, and each hour is a file to open."""

# Lengths of a strip of the energy plot: the shortest that needs few enough strips is taken.
STRIP_LENGTHS_S = (60, 120, 300, 600, 900, 1800, 3600)

_CLIPPED = """
    SELECT camera, date, hour, status, used, reason, uri, recording_id,
           greatest(start_time, hour_start) AS start_time,
           least(end_time, hour_start + INTERVAL 1 HOUR) AS end_time
    FROM (SELECT *, CAST(date + to_hours(hour) AS TIMESTAMP WITH TIME ZONE) AS hour_start FROM raw_video)
    WHERE end_time > hour_start AND start_time < hour_start + INTERVAL 1 HOUR
"""


@dataclass(frozen=True)
class CameraFigures:
    """A camera: seconds of footage, primitives, share of the footage that lies in primitives."""

    camera: str
    footage_s: float
    hours: int
    primitives: int
    active_s: float
    median_duration_s: float | None


@dataclass(frozen=True)
class HourFigures:
    """A camera hour that was processed: seconds of footage, problems, primitives, and whether it was cut."""

    camera: str
    hour_ns: int
    footage_s: float
    problems: tuple[str, ...]
    primitives: int
    cut: bool


@dataclass(frozen=True)
class Problem:
    """A range of video that was not used, or is missing."""

    camera: str
    status: str
    start_ns: int
    stop_ns: int
    reason: str | None
    uri: str | None


@dataclass(frozen=True)
class Primitive:
    """A primitive as the page draws it."""

    segment_id: str
    camera: str
    start_ns: int
    stop_ns: int
    duration_s: float
    cluster_id: int | None
    distance: float | None = None
    action_name: str | None = None


@dataclass(frozen=True)
class ClusterFigures:
    """A cluster: its size, durations (seconds) and coherence."""

    cluster_id: int
    size: int
    durations_s: np.ndarray
    icss: float | None
    ci_low: float | None
    ci_high: float | None
    baseline: float | None
    encoder_id: str | None
    action_name: str | None = None


@dataclass
class Strip:
    """A piece of a camera's time: its energy (NaN where there is none) and its primitives."""

    camera: str
    start_ns: int
    stop_ns: int
    times_ns: np.ndarray
    values: np.ndarray
    primitives: list[Primitive] = field(default_factory=list)


@dataclass(frozen=True)
class CodeFigures:
    """Use of the codebook: samples with a code, different codes, perplexity, counts in falling order.

    Attributes:
        since: first UTC day of those that were looked at; None where these are all days.
    """

    samples: int
    counts: np.ndarray
    perplexity: float
    null_reasons: dict[str, int]
    since: date | None


@dataclass(frozen=True)
class Frame:
    """A keyframe of a primitive."""

    time_ns: int
    jpeg: bytes


def camera_figures(connection: duckdb.DuckDBPyConnection) -> list[CameraFigures]:
    """Every camera that has been processed, by name."""
    found = connection.execute(f"""
        WITH footage AS (
            SELECT camera,
                   coalesce(sum(epoch(end_time) - epoch(start_time)) FILTER (used), 0) AS footage_s,
                   count(DISTINCT (date, hour)) AS hours
            FROM ({_CLIPPED}) GROUP BY camera
        ), cut AS (
            SELECT camera, count(*) AS primitives, sum(duration_s) AS active_s, median(duration_s) AS median_s
            FROM primitives GROUP BY camera
        )
        SELECT camera, coalesce(footage_s, 0), coalesce(hours, 0), coalesce(primitives, 0),
               coalesce(active_s, 0), median_s
        FROM footage FULL JOIN cut USING (camera) ORDER BY camera
    """).fetchall()
    return [CameraFigures(*row) for row in found]


def hour_figures(connection: duckdb.DuckDBPyConnection) -> list[HourFigures]:
    """Every camera hour that has been observed, in order of camera and time."""
    found = connection.execute(f"""
        WITH observed AS (
            SELECT camera, date, hour,
                   coalesce(sum(epoch(end_time) - epoch(start_time)) FILTER (used), 0) AS footage_s,
                   list_sort(list(DISTINCT status) FILTER (status <> 'ok')) AS problems
            FROM ({_CLIPPED}) GROUP BY ALL
        ), cut AS (
            SELECT camera, date, hour, count(*) AS primitives FROM segments GROUP BY ALL
        ), done AS (
            SELECT DISTINCT camera, date, hour FROM partitions WHERE table_name = 'segments'
        )
        SELECT o.camera, epoch_ns(CAST(o.date + to_hours(o.hour) AS TIMESTAMP)), footage_s,
               coalesce(problems, []), coalesce(primitives, 0), done.camera IS NOT NULL
        FROM observed o
        LEFT JOIN cut ON cut.camera = o.camera AND cut.date = o.date AND cut.hour = o.hour
        LEFT JOIN done ON done.camera = o.camera AND done.date = o.date AND done.hour = o.hour
        ORDER BY 1, 2
    """).fetchall()
    return [HourFigures(row[0], row[1], row[2], tuple(row[3]), row[4], row[5]) for row in found]


def quarantined(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Recordings that were not accepted, the newest first."""
    found = connection.execute(
        "SELECT camera, uri, reason, size_bytes, epoch_us(registered_at) * 1000 FROM recordings "
        "WHERE status = 'quarantined' ORDER BY registered_at DESC, uri"
    ).fetchall()
    return [dict(zip(("camera", "uri", "reason", "size_bytes", "registered_ns"), row, strict=True)) for row in found]


def recording_count(connection: duckdb.DuckDBPyConnection) -> int:
    return int(scalar(connection, "SELECT count(*) FROM recordings WHERE status <> 'superseded'"))


def problems(connection: duckdb.DuckDBPyConnection) -> list[Problem]:
    """Ranges of raw_video that are not ok, neighbouring ones of the same kind joined across hours."""
    found = connection.execute(f"""
        SELECT camera, status, epoch_us(start_time) * 1000, epoch_us(end_time) * 1000, reason, uri
        FROM ({_CLIPPED}) WHERE status <> 'ok' ORDER BY camera, status, uri, start_time
    """).fetchall()
    joined: list[Problem] = []
    for row in (Problem(*values) for values in found):
        last = joined[-1] if joined else None
        if (
            last is not None
            and (last.camera, last.status, last.uri) == (row.camera, row.status, row.uri)
            and last.stop_ns >= row.start_ns
        ):
            joined[-1] = Problem(
                last.camera, last.status, last.start_ns, max(last.stop_ns, row.stop_ns), last.reason, last.uri
            )
        else:
            joined.append(row)
    return sorted(joined, key=lambda item: (item.status == "gap", item.camera, item.start_ns))


def clusters(connection: duckdb.DuckDBPyConnection) -> list[ClusterFigures]:
    """The clusters that hold primitives or are scored, by number."""
    found = connection.execute("""
        WITH sizes AS (
            SELECT cluster_id, count(*) AS size FROM primitives WHERE cluster_id IS NOT NULL GROUP BY cluster_id
        )
        SELECT cluster_id, coalesce(size, 0), icss_mean, icss_ci_low, icss_ci_high, baseline_mean, encoder_id,
               action_name
        FROM sizes FULL JOIN clusters USING (cluster_id) LEFT JOIN cluster_names USING (cluster_id) ORDER BY cluster_id
    """).fetchall()
    # As arrays: after years there are tens of millions.
    lengths = connection.execute("""
        SELECT cluster_id, duration_s FROM primitives WHERE cluster_id IS NOT NULL ORDER BY cluster_id
    """).fetchnumpy()
    ids, durations_s = (np.asarray(column) for column in lengths.values())

    def of(number: int) -> np.ndarray:
        return durations_s[np.searchsorted(ids, number) : np.searchsorted(ids, number, side="right")]

    return [ClusterFigures(row[0], row[1], of(row[0]), *row[2:]) for row in found]


def durations(connection: duckdb.DuckDBPyConnection) -> np.ndarray:
    """Lengths of all primitives in seconds."""
    return np.asarray(connection.execute("SELECT duration_s FROM primitives").fetchnumpy()["duration_s"])


def end_reasons(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """How many primitives ended for which reason."""
    return dict(connection.execute("SELECT end_reason, count(*) FROM segments GROUP BY 1 ORDER BY 1").fetchall())


def primitives_by_id(connection: duckdb.DuckDBPyConnection, ids: Sequence[str]) -> dict[str, Primitive]:
    """The primitives with these ids, as far as the catalog has them."""
    found: dict[str, Primitive] = {}
    for start in range(0, len(ids), 5000):
        for item in _primitives(connection, "segment_id IN (SELECT unnest(?))", [list(ids[start : start + 5000])]):
            found[item.segment_id] = item
    return found


def nearest_primitives(connection: duckdb.DuckDBPyConnection, each: int) -> dict[int, list[Primitive]]:
    """For each cluster the primitives nearest to its centroid."""
    chosen: dict[int, list[Primitive]] = {}
    for item in _primitives(
        connection,
        "cluster_id IS NOT NULL QUALIFY row_number() OVER "
        "(PARTITION BY cluster_id ORDER BY centroid_distance, segment_id) <= ?",
        [each],
        order="cluster_id, centroid_distance, segment_id",
    ):
        if item.cluster_id is not None:
            chosen.setdefault(item.cluster_id, []).append(item)
    return chosen


def frames_of(connection: duckdb.DuckDBPyConnection, chosen: Sequence[Primitive], each: int) -> dict[str, list[Frame]]:
    """Up to ``each`` keyframes of every primitive, spread over its length, by segment id.

    Only pictures that are shown are read: their times first, then those samples.
    """
    wanted: dict[str, list[int]] = {}
    margin_ns = NS_PER_S // 4
    for camera in sorted({item.camera for item in chosen}):
        mine = [item for item in chosen if item.camera == camera]
        hours = sorted({ns // HOUR_NS for item in mine for ns in (item.start_ns - margin_ns, item.stop_ns)})
        found = connection.execute(
            "SELECT sample, epoch_us(time) * 1000 FROM keyframes WHERE camera = ? "
            f"AND {_in_hours(hours)} ORDER BY time",
            [camera],
        ).fetchnumpy()
        samples, times = (np.asarray(column, np.int64) for column in found.values())
        for item in mine:
            inside = np.flatnonzero((times >= item.start_ns - margin_ns) & (times < item.stop_ns + margin_ns))
            if inside.size:
                steps = (np.arange(each) + 0.5) / each
                targets = item.start_ns + steps * (item.stop_ns - item.start_ns)
                nearest = np.abs(times[inside][None] - targets[:, None]).argmin(axis=1)
                wanted[item.segment_id] = sorted({int(samples[inside[place]]) for place in nearest})
    pictures: dict[tuple[str, int], Frame] = {}
    for camera in sorted({item.camera for item in chosen}):
        of_camera = [item for item in chosen if item.camera == camera]
        numbers = sorted({sample for item in of_camera for sample in wanted.get(item.segment_id, ())})
        hours = sorted({ns // HOUR_NS for item in of_camera for ns in (item.start_ns - margin_ns, item.stop_ns)})
        if numbers:
            listed = ", ".join(map(str, numbers))
            for sample, time_ns, jpeg in connection.execute(
                "SELECT sample, epoch_us(time) * 1000, jpeg FROM keyframes WHERE camera = ? "
                f"AND {_in_hours(hours)} AND sample IN ({listed})",
                [camera],
            ).fetchall():
                pictures[camera, sample] = Frame(time_ns, jpeg)
    return {
        item.segment_id: [
            pictures[item.camera, sample]
            for sample in wanted.get(item.segment_id, ())
            if (item.camera, sample) in pictures
        ]
        for item in chosen
    }


def code_figures(connection: duckdb.DuckDBPyConnection, *, most_hours: int = CODE_HOURS) -> CodeFigures:
    """How the latent stream uses the codebook; perplexity is exp of the entropy of the codes' shares.

    Args:
        connection: the catalog.
        most_hours: camera hours to look at; of more, the last days.
    """
    days = _last_days(connection, "latent_stream", most_hours)
    # As literals: only they keep the files of other days closed.
    looked = "true" if days is None else "date IN ({})".format(", ".join(f"DATE '{day}'" for day in days))
    counts = np.array(
        [
            row[0]
            for row in connection.execute(
                f"SELECT count(*) AS n FROM latent_stream WHERE code IS NOT NULL AND {looked} "
                "GROUP BY code ORDER BY n DESC"
            ).fetchall()
        ],
        np.int64,
    )
    reasons = connection.execute(
        f"SELECT null_reason, count(*) FROM latent_stream WHERE code IS NULL AND {looked} GROUP BY 1 ORDER BY 2 DESC"
    ).fetchall()
    shares = counts / max(1, counts.sum())
    perplexity = float(np.exp(-(shares * np.log(shares)).sum())) if counts.size else 0.0
    nulls = {row[0] or "unknown": row[1] for row in reasons}
    return CodeFigures(int(counts.sum()), counts, perplexity, nulls, min(days) if days else None)


def _last_days(connection: duckdb.DuckDBPyConnection, table: str, most_hours: int) -> list[date] | None:
    """The last days that hold so many camera hours of a table, one at least; None where these are all."""
    found = connection.execute(
        "SELECT date, count(*) FROM partitions WHERE table_name = ? AND date IS NOT NULL GROUP BY 1 ORDER BY 1 DESC",
        [table],
    ).fetchall()
    totals = list(accumulate(count for _, count in found))
    if not totals or totals[-1] <= most_hours:
        return None
    return [day for (day, _), total in zip(found, totals, strict=True) if total <= most_hours] or [found[0][0]]


def strips(
    connection: duckdb.DuckDBPyConnection,
    energy: Mapping[str, tuple[np.ndarray, np.ndarray]] | None,
    forms: Mapping[str, str],
    max_strips: int = 20,
) -> tuple[list[Strip], int]:
    """The energy of every camera in strips of equal length, and how many older strips were left out.

    Args:
        connection: the catalog.
        energy: for a camera the times (int64 nanoseconds or datetime64) and values (NaN: none) that were cut by;
            cameras that it lacks fall back to the stored energy of their form.
        forms: energy form of each camera.
        max_strips: how many strips to show, all cameras together.
    """
    spans = _footage(connection)
    if not spans:
        return [], 0
    each = max(2, max_strips // len(spans))
    length_ns, starts = _strip_starts(spans, each)
    left_out = sum(max(0, len(mine) - each) for mine in starts.values())
    made = []
    for camera, mine in starts.items():
        mine = mine[-each:]
        given = (energy or {}).get(camera)
        if given is not None:
            times, values = _as_ns(given[0]), np.asarray(given[1], np.float64)
            if times.shape != values.shape:
                raise InputError(f"{times.size} times and {values.size} values of energy", where=f"camera {camera}")
        else:
            times, values = _stored_energy(connection, camera, forms.get(camera, ""), mine, length_ns)
        inside = _primitives(
            connection,
            "camera = ? AND epoch_us(end_time) * 1000 > ? AND epoch_us(start_time) * 1000 < ?",
            [camera, mine[0], mine[-1] + length_ns],
        )
        for start in mine:
            stop = start + length_ns
            first, last = np.searchsorted(times, (start, stop))
            made.append(
                Strip(
                    camera,
                    start,
                    stop,
                    times[first:last],
                    values[first:last],
                    [item for item in inside if item.start_ns < stop and item.stop_ns > start],
                )
            )
    return made, left_out


def closer(mine: Sequence[Strip], length_s: int = 60, count: int = 2) -> list[Strip]:
    """The busiest stretch of one camera's strips, in ``count`` neighbouring strips of ``length_s`` seconds."""
    length_ns = length_s * NS_PER_S
    best, most = mine[-1].start_ns, -1
    for strip in mine:
        starts = np.array([item.start_ns for item in strip.primitives], np.int64)
        for start in range(strip.start_ns, strip.stop_ns - count * length_ns + 1, length_ns):
            inside = int(((starts >= start) & (starts < start + count * length_ns)).sum())
            if inside > most:
                best, most = start, inside
    strip = next(item for item in mine if item.start_ns <= best < item.stop_ns)
    parts = []
    for start in range(best, best + count * length_ns, length_ns):
        stop = start + length_ns
        first, last = np.searchsorted(strip.times_ns, (start, stop))
        inside_it = [item for item in strip.primitives if item.start_ns < stop and item.stop_ns > start]
        parts.append(Strip(strip.camera, start, stop, strip.times_ns[first:last], strip.values[first:last], inside_it))
    return parts


def _footage(connection: duckdb.DuckDBPyConnection) -> dict[str, list[tuple[int, int]]]:
    found = connection.execute(
        f"SELECT camera, epoch_us(start_time) * 1000, epoch_us(end_time) * 1000 FROM ({_CLIPPED}) "
        "WHERE used ORDER BY 1, 2"
    ).fetchall()
    spans: dict[str, list[tuple[int, int]]] = {}
    for camera, start, stop in found:
        spans.setdefault(camera, []).append((start, stop))
    return spans


def _strip_starts(spans: Mapping[str, list[tuple[int, int]]], each: int) -> tuple[int, dict[str, list[int]]]:
    for length_s in STRIP_LENGTHS_S:
        length_ns = length_s * NS_PER_S
        starts = {
            camera: sorted(
                {
                    place * length_ns
                    for start, stop in mine
                    for place in range(start // length_ns, -(-stop // length_ns))
                }
            )
            for camera, mine in spans.items()
        }
        if all(len(mine) <= each for mine in starts.values()):
            break
    return length_ns, starts


def _stored_energy(
    connection: duckdb.DuckDBPyConnection, camera: str, form: str, starts: list[int], length_ns: int
) -> tuple[np.ndarray, np.ndarray]:
    column = ENERGY_COLUMNS.get(form, ENERGY_COLUMNS["decoded_motion"])
    hours = sorted({start // HOUR_NS for start in starts})
    found = connection.execute(
        f"SELECT epoch_us(time) * 1000 AS t, CAST({column} AS DOUBLE) AS e FROM latent_stream "
        f"WHERE camera = ? AND {_in_hours(hours)} AND epoch_us(time) * 1000 < ? ORDER BY time",
        [camera, starts[-1] + length_ns],
    ).fetchnumpy()
    values = found["e"]
    filled = values.filled(np.nan) if isinstance(values, np.ma.MaskedArray) else values
    return np.asarray(found["t"], np.int64), np.asarray(filled, np.float64)


def _in_hours(hours: Sequence[int]) -> str:
    """A condition on the partition columns, as literals: only they keep other hours' files closed."""
    stamps = [np.datetime64(hour * 3600, "s") for hour in hours]
    dates = ", ".join(sorted({f"DATE '{str(stamp)[:10]}'" for stamp in stamps}))
    clock = ", ".join(sorted({str(int(str(stamp)[11:13])) for stamp in stamps}))
    return f"date IN ({dates}) AND hour IN ({clock})" if stamps else "false"


def _primitives(
    connection: duckdb.DuckDBPyConnection, condition: str, values: list[Any], order: str = "start_time"
) -> list[Primitive]:
    return [
        Primitive(*row)
        for row in connection.execute(
            "SELECT segment_id, camera, epoch_us(start_time) * 1000, epoch_us(end_time) * 1000, duration_s, "
            f"cluster_id, centroid_distance, action_name FROM primitives WHERE {condition} ORDER BY {order}",
            values,
        ).fetchall()
    ]


def _as_ns(times: np.ndarray) -> np.ndarray:
    times = np.asarray(times)
    if np.issubdtype(times.dtype, np.datetime64):
        return times.astype("datetime64[ns]").astype(np.int64)
    return times.astype(np.int64)


def scalar(connection: duckdb.DuckDBPyConnection, query: str) -> Any:
    """The one value of a query."""
    row = connection.execute(query).fetchone()
    return row[0] if row else None
