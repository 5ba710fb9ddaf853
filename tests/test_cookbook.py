"""The cookbook: every query in it runs, and most answers are computed again in Python from the same primitives."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pytest

from bench.catalog.cookbook import COOKBOOK, queries
from laps.cameras import Camera, parse_shift
from laps.tables import CLUSTERS, RAW_VIDEO, RECORDINGS
from laps.timegrid import CameraHour, to_datetime
from resources.cameras import Cameras
from resources.catalog import connect, run_query
from resources.store import Store, rows_table
from tests.catalogs import RELEASE, TOKENIZER, Primitive, write_primitives

QUERIES = queries(COOKBOOK.read_text("utf-8"))
BERLIN = ZoneInfo("Europe/Berlin")
SHIFTS = ("early=06:00-14:00", "night=22:00-06:00")
WEEKS = 3
# Hours in UTC. In winter, 08:00 lies in the early shift of Berlin, 21:00 begins the night shift, 14:00 is in none.
FIRST_HOURS = [datetime(2026, 2, 2 + 7 * week, hour, tzinfo=UTC) for week in range(WEEKS) for hour in (8, 21)]
FIRST_HOURS.append(datetime(2026, 2, 3, 14, tzinfo=UTC))

Row = tuple[Any, ...]


def made_primitives() -> list[Primitive]:
    rng = np.random.default_rng(3)
    primitives = []
    for camera, cycle in (("a", (0, 1, 0, 2)), ("b", (1, 2))):
        for hour in FIRST_HOURS:
            week = (hour - FIRST_HOURS[0]).days // 7
            at = hour + timedelta(seconds=int(rng.integers(1, 30)))
            for number in range(24):
                cluster = cycle[number % len(cycle)]
                # Later weeks are slower.
                duration_s = round((1 + cluster) * (1 + 0.2 * week) + float(rng.integers(0, 8)) / 10, 1)
                angle = cluster + float(rng.normal(0, 0.1))
                primitives.append(
                    Primitive(
                        camera, at, duration_s, cluster,
                        distance=float(np.float32(rng.random())),
                        embedding=(float(np.cos(angle)), float(np.sin(angle))),
                        end_reason="gap" if number % 7 == 0 else "rest",
                    )
                )  # fmt: skip
                at += timedelta(seconds=duration_s + float(rng.integers(2, 60)) / 2)
    return primitives


PRIMITIVES = made_primitives()
CAMERAS = sorted({primitive.camera for primitive in PRIMITIVES})


def hours_with_footage() -> list[CameraHour]:
    """The processed ones, and one that is not cut yet."""
    return [*sorted({primitive.hour for primitive in PRIMITIVES}), CameraHour.parse("b|2026-02-20-10:00")]


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    store = Store(str(tmp_path_factory.mktemp("cookbook") / "store"))
    write_primitives(store, PRIMITIVES)
    for camera in CAMERAS:
        shifts = tuple(parse_shift(text) for text in SHIFTS)
        Cameras(store).write(Camera(camera, time_zone="Europe/Berlin", shifts=shifts))
    for hour in hours_with_footage():
        start = to_datetime(hour.hour_ns)
        cuts = [start - timedelta(seconds=1.45), start + timedelta(minutes=45), start + timedelta(hours=1)]
        rows = [
            {"camera": hour.camera, "start_time": begin, "end_time": end, "status": status, "used": status == "ok",
             "recording_id": "rec" if status == "ok" else ""}
            for (begin, end), status in zip(pairwise(cuts), ("ok", "gap"), strict=True)
        ]  # fmt: skip
        store.write_partition(RAW_VIDEO, hour, rows_table(RAW_VIDEO, rows))
    recordings = [
        {"recording_id": name, "camera": "a", "uri": f"/landing/{name}.mp4", "status": status, "reason": reason,
         "size_bytes": 1, "etag": "1", "registered_at": FIRST_HOURS[0]}
        for name, status, reason in (("good", "ok", None), ("bad", "quarantined", "no video stream"))
    ]  # fmt: skip
    store.write_table(RECORDINGS, "recordings/camera=a/all.parquet", rows_table(RECORDINGS, recordings))
    clusters = [
        {
            "cluster_id": cluster,
            "segment_count": count,
            "icss_mean": 0.6 + cluster / 10,
            "icss_ci_low": 0.55 + cluster / 10,
            "icss_ci_high": 0.65 + cluster / 10,
            "pair_count": 10,
            "baseline_mean": 0.6,
            "encoder_id": "weight_free:test",
            "cluster_model_id": "k1",
            "release": RELEASE,
        }
        for cluster, count in Counter(primitive.cluster for primitive in PRIMITIVES).items()
    ]
    store.write_table(CLUSTERS, f"clusters/release={RELEASE}/part-0.parquet", rows_table(CLUSTERS, clusters))
    return connect(store, release=RELEASE, tokenizer=TOKENIZER)


# --- the answers in Python -------------------------------------------------------------------------------------


def shift(primitive: Primitive) -> tuple[str | None, date | None]:
    local = primitive.start.astimezone(BERLIN)
    if 6 <= local.hour < 14:
        return "early", local.date()
    if local.hour >= 22 or local.hour < 6:
        return "night", local.date() - timedelta(days=local.hour < 6)
    return None, None


def grouped(
    key: Callable[[Primitive], Any], primitives: Iterable[Primitive] = PRIMITIVES
) -> dict[Any, list[Primitive]]:
    groups = defaultdict(list)
    for primitive in sorted(primitives, key=lambda primitive: primitive.start):
        groups[key(primitive)].append(primitive)
    return groups


def seconds(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds()


def quantile(values: Iterable[float], share: float) -> float:
    return float(np.quantile(list(values), share))


IN_SHIFT = [primitive for primitive in PRIMITIVES if shift(primitive)[0]]
OF_A_SHIFT = grouped(lambda p: (p.camera, *shift(p)), IN_SHIFT)
ALL_RUNS = grouped(lambda p: (p.camera, *shift(p)))


def most_frequent() -> list[Row]:
    counts: dict[Any, Counter[int]] = defaultdict(Counter)
    for primitive in IN_SHIFT:
        counts[primitive.camera, shift(primitive)[0]][primitive.cluster] += 1
    return [
        (*key, cluster, times)
        for key in sorted(counts)
        for cluster, times in sorted(counts[key].items(), key=lambda item: (-item[1], item[0]))[:3]
    ]


def done_in_each_shift() -> list[Row]:
    rows = []
    for (camera, name, day), found in OF_A_SHIFT.items():
        local = [primitive.start.astimezone(BERLIN).replace(tzinfo=None) for primitive in found]
        active_min = sum(primitive.duration_s for primitive in found) / 60
        rows.append((camera, day, name, len(found), active_min, local[0], local[-1]))
    return sorted(rows, key=lambda row: (row[0], row[1], row[5]))


def longest_pauses() -> list[Row]:
    rows = [
        (camera, day, name, one.end, seconds(one.end, following.start))
        for (camera, name, day), found in OF_A_SHIFT.items()
        for one, following in pairwise(found)
    ]
    return sorted(rows, key=lambda row: (-row[4], row[0], row[3]))[:10]


def durations_of_clusters() -> list[Row]:
    groups = grouped(lambda p: p.cluster)
    durations = {cluster: [p.duration_s for p in groups[cluster]] for cluster in sorted(groups)}
    return [
        (cluster, len(values), *(quantile(values, share) for share in (0.1, 0.5, 0.9)))
        for cluster, values in durations.items()
    ]


def drift() -> list[Row]:
    def week(primitive: Primitive) -> date:
        local = primitive.start.astimezone(BERLIN).date()
        return local - timedelta(days=local.weekday())

    groups = grouped(lambda p: (p.camera, p.cluster, week(p)))
    medians = {key: quantile((p.duration_s for p in groups[key]), 0.5) for key in sorted(groups)}
    first: dict[Any, float] = {}
    for (camera, cluster, _), median in medians.items():
        first.setdefault((camera, cluster), median)
    return [(*key, len(groups[key]), median, median / first[key[:2]] - 1) for key, median in medians.items()]


def followers() -> list[Row]:
    counts = Counter(
        (key[0], one.cluster, following.cluster) for key, run in ALL_RUNS.items() for one, following in pairwise(run)
    )
    totals = Counter[Any]()
    for (camera, cluster, _), times in counts.items():
        totals[camera, cluster] += times
    rows = [(*key, times, times / totals[key[:2]]) for key, times in counts.items()]
    return sorted(rows, key=lambda row: (row[0], row[1], -row[3], row[2]))


def sequences_of_four() -> list[Row]:
    found = defaultdict(list)
    for (camera, *_), run in ALL_RUNS.items():
        for place in range(len(run) - 3):
            four = run[place : place + 4]
            name = " > ".join(str(primitive.cluster) for primitive in four)
            found[camera, name].append(seconds(four[0].start, max(primitive.end for primitive in four)))
    rows = [(*key, len(values), quantile(values, 0.5)) for key, values in found.items()]
    return sorted(rows, key=lambda row: (-row[2], row[0], row[1]))[:20]


def repeats() -> list[Row]:
    between = defaultdict(list)
    for key, run in grouped(lambda p: (p.camera, p.cluster, *shift(p))).items():
        between[key[:2]] += [seconds(one.start, following.start) for one, following in pairwise(run)]
    return [
        (*key, len(between[key]), *(quantile(between[key], share) for share in (0.5, 0.9))) for key in sorted(between)
    ]


def typical() -> list[Row]:
    groups = grouped(lambda p: p.cluster)
    nearest = {cluster: min(groups[cluster], key=lambda p: p.distance) for cluster in sorted(groups)}
    return [(cluster, p.id, p.distance) for cluster, p in nearest.items()]


def far_from_the_centre() -> list[Row]:
    rows = []
    for cluster, found in sorted(grouped(lambda p: p.cluster).items()):
        ranked = sorted(found, key=lambda p: p.distance)
        far = [p for rank, p in enumerate(ranked) if rank / (len(ranked) - 1) >= 0.95]
        rows += [(p.id, p.camera, p.start, cluster, p.distance) for p in reversed(far)]
    return rows


def neighbours() -> list[Row]:
    one = min(PRIMITIVES, key=lambda p: p.id)
    rows = [(p.id, p.camera, float(np.dot(p.embedding, one.embedding))) for p in PRIMITIVES]
    return sorted(rows, key=lambda row: (-row[2], row[0]))[:6]


def mix() -> list[Row]:
    counts, totals = Counter((p.cluster, p.camera) for p in PRIMITIVES), Counter(p.camera for p in PRIMITIVES)
    return [(*key, counts[key], counts[key] / totals[key[1]]) for key in sorted(counts)]


def seen_at_once() -> list[Row]:
    by_camera = grouped(lambda p: p.camera)
    rows = [
        (a.id, b.id, "a", "b", max(a.start, b.start), seconds(max(a.start, b.start), min(a.end, b.end)))
        for a in by_camera["a"]
        for b in by_camera["b"]
        if a.start < b.end and b.start < a.end
    ]
    return sorted(rows, key=lambda row: (row[4], row[0], row[1]))


def coverage() -> list[Row]:
    counts = Counter(primitive.hour for primitive in PRIMITIVES)
    return [
        (hour.camera, date.fromisoformat(hour.date), int(hour.hour), 45.0, counts.get(hour))
        for hour in sorted(hours_with_footage())
    ]


def ends() -> list[Row]:
    counts, totals = Counter((p.camera, p.end_reason) for p in PRIMITIVES), Counter(p.camera for p in PRIMITIVES)
    return [(*key, counts[key], counts[key] / totals[key[0]]) for key in sorted(counts)]


# Heading -> the answer's first columns.
ANSWERS: dict[str, Callable[[], list[Row]]] = {
    "The most frequent primitives of each shift": most_frequent,
    "How much was done in each shift": done_in_each_shift,
    "The longest pauses within a shift": longest_pauses,
    "How long the primitives of each cluster last": durations_of_clusters,
    "Do durations drift over the weeks?": drift,
    "What follows what": followers,
    "The most frequent sequences of four": sequences_of_four,
    "The time between repeats": repeats,
    "Primitives far from the centre of their cluster": far_from_the_centre,
    "The most typical example of each cluster": typical,
    "The nearest neighbours of a primitive": neighbours,
    "The mix of clusters, camera by camera": mix,
    "Primitives that two cameras saw at once": seen_at_once,
    "What was quarantined, and why": lambda: [("a", "/landing/bad.mp4", "no video stream", FIRST_HOURS[0])],
    "Coverage by camera and hour": coverage,
    "Hours with footage that are not cut yet": lambda: [("b", date(2026, 2, 20), 10)],
    "How primitives ended": ends,
}


def test_the_cookbook_is_read_whole() -> None:
    assert len(QUERIES) == COOKBOOK.read_text("utf-8").count("```sql") >= 15
    assert set(ANSWERS) <= set(QUERIES)
    assert len(ANSWERS) >= len(QUERIES) / 2


@pytest.mark.parametrize("heading", QUERIES)
def test_every_query_runs(connection: duckdb.DuckDBPyConnection, heading: str) -> None:
    found = run_query(connection, QUERIES[heading])
    # No clip of the made catalog failed.
    assert found.num_rows > 0 or heading == "Clips that could not be cut"


@pytest.mark.parametrize("heading", ANSWERS)
def test_the_answer_is_the_one_of_python(connection: duckdb.DuckDBPyConnection, heading: str) -> None:
    expected = ANSWERS[heading]()
    assert expected
    found = run_query(connection, QUERIES[heading])
    names = found.column_names[: len(expected[0])]
    for place, name in enumerate(names):
        have, want = found[name].to_pylist(), [row[place] for row in expected]
        if any(isinstance(value, float) for value in want):
            want = pytest.approx(want, rel=1e-6, abs=1e-6)
        assert have == want, name


def test_durations_fall_into_their_seconds(connection: duckdb.DuckDBPyConnection) -> None:
    found = run_query(connection, QUERIES["A histogram of durations"]).to_pylist()
    counts = Counter((p.cluster, int(p.duration_s)) for p in PRIMITIVES)
    assert {(row["cluster_id"], row["from_s"]): row["times"] for row in found} == counts
    assert all(row["bar"] == "#" * row["times"] for row in found)


def test_coherence_is_told_by_the_interval(connection: duckdb.DuckDBPyConnection) -> None:
    found = run_query(connection, QUERIES["Coherence, beside random pairs"]).to_pylist()
    assert [(row["cluster_id"], row["coherent"]) for row in found] == [(2, True), (1, True), (0, False)]
