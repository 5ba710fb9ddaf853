"""The catalog over a small made-up store: views, types, comments, safety, errors, and output formats."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from laps import catalog
from laps.errors import InputError, StoreError
from laps.tables import (
    CLIPS,
    CLUSTER_ASSIGNMENTS,
    CLUSTERS,
    KEYFRAMES,
    LATENT_STREAM,
    RAW_VIDEO,
    RECORDINGS,
    SEGMENT_EMBEDDINGS,
    SEGMENTS,
    TABLES,
    VISUAL_FEATURES,
)
from laps.timegrid import HOUR_NS, CameraHour, SampleGrid, parse_utc, to_datetime
from resources.catalog import connect, open_catalog, render, run_query
from resources.compaction import compact
from resources.models import ModelRegistry, Release
from resources.store import Store, rows_table

GRID = SampleGrid()
FIVE = parse_utc("2026-11-21T05:00:00Z")
TOKENIZER, RELEASE = "t0123456789ab", "r1"
IDS = {"calibration": "c0123456789ab", "embedder": "e0123456789ab", "clusters": "k0123456789ab"}
ENCODER = "weight_free:hog-colour/v1"


@dataclass
class Made:
    """A made-up store, and what was put into it."""

    store: Store
    segments: list[dict[str, Any]] = field(default_factory=list)
    points: list[tuple[str, int, float, float]] = field(default_factory=list)


def make_store(
    root: Path | str,
    *,
    cameras: tuple[str, ...] = ("01", "bench-2"),
    hours: int = 2,
    footage_s: int = 180,
    clusters: int = 4,
    encoder: str = ENCODER,
) -> Made:
    """Footage around each hour's end and the next one's beginning, an hour without any, and a bad recording."""
    rng = np.random.default_rng(7)
    made = Made(Store(str(root)))
    pictures = [_picture(rng, cluster, phase) for cluster in range(clusters) for phase in range(8)]
    for place, camera in enumerate(cameras):
        for number in range(hours + 1):
            hour = CameraHour(camera, FIVE + number * HOUR_NS)
            # The last hour has no footage; the others alternate between their end and their beginning.
            first = 0 if number % 2 or footage_s >= 3600 else 3600 - footage_s
            span = (first, first + min(footage_s, 3600)) if number < hours else None
            _fill_hour(made, hour, span, rng, pictures, clusters, place)
    _write_recordings(made.store, cameras, hours)
    _write_clusters(made, clusters, encoder)
    return made


def _picture(rng: np.random.Generator, cluster: int, phase: int) -> bytes:
    image = np.full((224, 398, 3), (196, 205, 210), np.uint8)
    image[150:] = (120, 140, 158)
    image = cv2.add(image, rng.integers(0, 12, image.shape, dtype=np.uint8))
    tip = (60 + 35 * phase, 60 + 18 * ((cluster * 3 + phase * (1 + cluster % 3)) % 6))
    cv2.line(image, (40 + 70 * (cluster % 4), 224), tip, (70, 90, 170), 22, cv2.LINE_AA)
    cv2.circle(image, tip, 20, (90, 130, 200), -1, cv2.LINE_AA)
    cv2.rectangle(image, (250, 120), (330, 180), (60, 60 + 30 * cluster, 90), -1)
    return bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1])


def _fill_hour(
    made: Made,
    hour: CameraHour,
    span: tuple[int, int] | None,
    rng: np.random.Generator,
    pictures: list[bytes],
    clusters: int,
    place: int,
) -> None:
    store, camera = made.store, hour.camera
    first, stop = GRID.hour_samples(hour.hour_ns)
    preroll_ns = hour.hour_ns - 1_450_000_000

    def at(second: float) -> datetime:
        return to_datetime(hour.hour_ns) + timedelta(seconds=second)

    def raw(start: datetime, end: datetime, status: str) -> dict[str, Any]:
        footage = status == "ok"
        return {
            "camera": camera,
            "start_time": start,
            "end_time": end,
            "status": status,
            "used": footage,
            "reason": None if footage else "no footage",
            "recording_id": f"rec-{camera}" if footage else "",
            "uri": f"/landing/{camera}/a.mp4" if footage else None,
            "frame_count": int((end - start).total_seconds() * 30) if footage else None,
            "measured_fps": 30.0 if footage else None,
            "width_px": 1280 if footage else None,
            "height_px": 720 if footage else None,
        }

    rows = []
    lead_in = to_datetime(preroll_ns)
    if span is None:
        rows.append(raw(lead_in, at(3600), "gap"))
    else:
        # Footage that begins with the hour reaches back into the pre-roll.
        start = lead_in if span[0] == 0 else at(span[0])
        if span[0] > 0:
            rows.append(raw(lead_in, start, "gap"))
        rows.append(raw(start, at(span[1]), "ok"))
        if span[1] < 3600:
            rows.append(raw(at(span[1]), at(3600), "gap"))
    store.write_partition(RAW_VIDEO, hour, rows_table(RAW_VIDEO, rows))

    n = stop - first
    covered = np.zeros(n, bool)
    energy = rng.gamma(4, 0.05, n)
    segments, frames = [], []
    if span is not None:
        covered[span[0] * 10 + 15 : span[1] * 10] = True
        cursor = span[0] * 10 + 30
        while True:
            start_sample = cursor + int(rng.integers(4, 25))
            length = int(rng.gamma(6, 4)) + 6
            if start_sample + length + 5 > span[1] * 10:
                break
            cluster = int(rng.choice(clusters, p=_shares(clusters)))
            shape = np.sin(np.linspace(0.15, np.pi - 0.15, length)) ** 0.6
            energy[start_sample : start_sample + length] += shape * rng.uniform(1.2, 3.2)
            segments.append((start_sample, length, cluster))
            cursor = start_sample + length
        for tick in range(span[0] * 2, span[1] * 2):
            sample = tick * 5
            inside = [item for item in segments if item[0] <= sample < item[0] + item[1]]
            cluster, phase = (inside[0][2], (sample - inside[0][0]) * 8 // inside[0][1]) if inside else (0, 0)
            frames.append((first + sample, pictures[cluster * 8 + phase]))
    codes = rng.zipf(1.4, n) % 1920
    tokens = pa.array(np.where(covered, codes, 0).astype(np.uint16), mask=~covered)

    def floats(values: np.ndarray) -> pa.Array:
        return pa.array(values.astype(np.float32), mask=~covered)

    samples = np.arange(first, stop)
    times = pa.array(samples * GRID.step_ns // 1000, pa.timestamp("us", tz="UTC"))
    stream = pa.table(
        {
            "camera": pa.array([camera] * n),
            "sample": samples,
            "time": times,
            "code": tokens,
            "latent_action_energy": floats(energy * 2),
            "decoded_motion_energy": floats(energy),
            "velocity_energy": floats(energy * 1.1),
            "prequantized_energy": floats(energy * 3),
            "null_reason": pa.array(np.where(covered, None, "no_footage"), pa.string()),
            "tokenizer_id": pa.array([TOKENIZER] * n),
        }
    ).select(LATENT_STREAM.column_names)
    store.write_partition(LATENT_STREAM, hour, stream, TOKENIZER)

    pictures_table = pa.table(
        {
            "camera": pa.array([camera] * len(frames), pa.string()),
            "sample": pa.array([sample for sample, _ in frames], pa.int64()),
            "time": pa.array([to_datetime(sample * GRID.step_ns) for sample, _ in frames], times.type),
            "frame_time": pa.array([to_datetime(sample * GRID.step_ns) for sample, _ in frames], times.type),
            "width_px": pa.array([398] * len(frames), pa.int32()),
            "height_px": pa.array([224] * len(frames), pa.int32()),
            "jpeg": pa.array([jpeg for _, jpeg in frames], pa.binary()),
        }
    )
    store.write_partition(KEYFRAMES, hour, pictures_table)

    segment_rows, assigned, clips, embeddings, features = [], [], [], [], []
    for start_sample, length, cluster in segments:
        segment_id = hashlib.sha256(f"{camera}{first + start_sample}".encode()).hexdigest()[:16]
        of = {"segment_id": segment_id, "camera": camera, "release": RELEASE}
        values = energy[start_sample : start_sample + length]
        segment_rows.append(
            of
            | {
                "start_time": at(start_sample / 10 - 0.05),
                "end_time": at((start_sample + length) / 10 - 0.05),
                "duration_s": length / 10,
                "start_sample": first + start_sample,
                "end_sample": first + start_sample + length,
                "decided_sample": first + start_sample + length + 2,
                "end_reason": "rest",
                "codes": codes[start_sample : start_sample + length].tolist(),
                "energy_form": "decoded_motion",
                "energy_mean": float(values.mean()),
                "energy_peak": float(values.max()),
                "confidence": float(np.log(values / 0.8).mean()),
                "tokenizer_id": TOKENIZER,
                "calibration_id": IDS["calibration"],
            }
        )
        distance = float(rng.beta(2, 12))
        assigned.append(
            of | {"cluster_id": cluster, "centroid_distance": distance, "cluster_model_id": IDS["clusters"]}
        )
        failed = rng.random() < 0.02
        clips.append(
            of
            | {
                "status": "failed" if failed else "ok",
                "reason": "the recording is gone" if failed else None,
                "clip_path": None if failed else f"clips/files/{segment_id}.mp4",
                "frame_count": None if failed else length * 3,
            }
        )
        embedding = rng.normal(size=8).astype(np.float32)
        embeddings.append(of | {"embedding": embedding, "embedder_id": IDS["embedder"], "tokenizer_id": TOKENIZER})
        features.append(
            of
            | {
                "status": "ok",
                "feature": embedding,
                "frames_used": max(1, length // 5),
                "encoder_id": ENCODER,
            }
        )
        angle = 2 * np.pi * cluster / clusters + 0.3 * place
        x, y = np.array([np.cos(angle), np.sin(angle)]) * 4 + rng.normal(scale=0.8, size=2)
        made.points.append((segment_id, cluster, float(x), float(y)))
    made.segments.extend(
        row | {"cluster_id": item["cluster_id"], "clip_path": clip["clip_path"]}
        for row, item, clip in zip(segment_rows, assigned, clips, strict=True)
    )
    for table, rows in (
        (SEGMENTS, segment_rows),
        (CLUSTER_ASSIGNMENTS, assigned),
        (CLIPS, clips),
        (SEGMENT_EMBEDDINGS, embeddings),
        (VISUAL_FEATURES, features),
    ):
        store.write_partition(table, hour, rows_table(table, rows), RELEASE)


def _shares(clusters: int) -> np.ndarray:
    weights = 1 / np.arange(1, clusters + 1) ** 0.5
    return weights / weights.sum()


def _write_recordings(store: Store, cameras: tuple[str, ...], hours: int) -> None:
    for camera in cameras:
        row = {
            "recording_id": f"rec-{camera}",
            "camera": camera,
            "uri": f"/landing/{camera}/a.mp4",
            "status": "ok",
            "start_time": to_datetime(FIVE),
            "start_source": "sidecar",
            "end_time": to_datetime(FIVE + hours * HOUR_NS),
            "size_bytes": 123_456_789,
            "etag": "1",
            "registered_at": datetime(2026, 11, 22, tzinfo=UTC),
            "codec": "h264",
        }
        store.write_table(RECORDINGS, f"recordings/camera={camera}/rec-{camera}.parquet", rows_table(RECORDINGS, [row]))
    bad = {
        "recording_id": "rec-bad",
        "camera": "01",
        "uri": "/landing/01/<notes>.mp4",
        "status": "quarantined",
        "reason": "no video stream: this is a text file",
        "size_bytes": 321,
        "etag": "2",
        "registered_at": datetime(2026, 11, 22, 1, tzinfo=UTC),
    }
    store.write_table(RECORDINGS, "recordings/camera=01/rec-bad.parquet", rows_table(RECORDINGS, [bad]))


def _write_clusters(made: Made, clusters: int, encoder: str) -> None:
    rows = []
    for cluster in range(clusters):
        durations = [row["duration_s"] for row in made.segments if row["cluster_id"] == cluster]
        mean = 0.62 + 0.05 * (cluster % 5)
        rows.append(
            {
                "cluster_id": cluster,
                "segment_count": len(durations),
                "median_duration_s": float(np.median(durations)) if durations else None,
                "icss_mean": mean,
                "icss_std": 0.11,
                "icss_ci_low": mean - 0.03,
                "icss_ci_high": mean + 0.03,
                "pair_count": 1000,
                "baseline_mean": 0.6,
                "baseline_std": 0.004,
                "encoder_id": encoder,
                "cluster_model_id": IDS["clusters"],
                "release": RELEASE,
            }
        )
    made.store.write_table(CLUSTERS, f"clusters/release={RELEASE}/part-0.parquet", rows_table(CLUSTERS, rows))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_store(tmp_path_factory.mktemp("catalog") / "it's a store")


@pytest.fixture(scope="module")
def connection(made: Made) -> duckdb.DuckDBPyConnection:
    return connect(made.store, release=RELEASE, tokenizer=TOKENIZER)


def rows(connection: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    return run_query(connection, sql).to_pylist()


# --- views -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["count(*)", "camera, cluster_id, max(duration_s)"])
@pytest.mark.parametrize("compacted", [False, True])
def test_what_is_known_of_clusters_is_read_only_where_it_is_asked_for(made, tmp_path, asked, compacted):
    """To join it to a million rows costs more than most questions that count; and it may be damaged."""
    store = Store(str(shutil.copytree(made.store.root, tmp_path / "copy")))
    models = {"release": RELEASE, "tokenizer": TOKENIZER, "cluster_model": IDS["clusters"]}
    if compacted:
        compact(store, Release(RELEASE, "current", tokenizer=TOKENIZER, cluster_model=IDS["clusters"]))
    query = f"SELECT {asked} FROM primitives GROUP BY ALL ORDER BY ALL"
    before = rows(connect(store, **models), query)
    store.write_bytes(f"clusters/release={RELEASE}/part-0.parquet", b"no Parquet")
    assert rows(connect(store, **models), query) == before
    with pytest.raises(StoreError, match="clusters/release="):
        rows(connect(store, **models), query.replace(" FROM", ", any_value(cluster_icss) FROM"))


def test_every_table_has_a_view_with_declared_columns_types_and_comments(connection):
    described = rows(
        connection,
        "SELECT c.table_name, c.column_name, c.data_type, c.comment FROM duckdb_columns() c "
        "WHERE NOT internal ORDER BY c.table_name, c.column_index",
    )
    for table in (*TABLES.values(), catalog.PRIMITIVES, catalog.PARTITIONS):
        mine = [row for row in described if row["table_name"] == table.name]
        columns = catalog.view_columns(table)
        assert [row["column_name"] for row in mine] == [column.name for column in columns]
        assert [row["data_type"] for row in mine] == [catalog.sql_type(column) for column in columns]
        for row, column in zip(mine, columns, strict=True):
            assert column.description in row["comment"]
            if column.unit:
                assert f"Unit: {column.unit}." in row["comment"]
    comments = {
        row["view_name"]: row["comment"]
        for row in rows(connection, "SELECT view_name, comment FROM duckdb_views() WHERE NOT internal")
    }
    assert comments["segments"] == SEGMENTS.description
    assert comments["primitives"] == catalog.PRIMITIVES.description


def test_rows_are_those_that_were_written(made, connection):
    found = rows(connection, "SELECT * FROM segments ORDER BY segment_id")
    wanted = sorted(made.segments, key=lambda row: row["segment_id"])
    assert len(found) == len(wanted) > 50
    for have, want in zip(found, wanted, strict=True):
        for name in ("segment_id", "camera", "start_time", "end_time", "codes", "duration_s", "release"):
            assert have[name] == want[name]
        assert have["date"] == want["start_time"].date()
        assert have["hour"] == want["start_time"].hour


def test_a_camera_named_01_stays_text(connection):
    assert rows(connection, "SELECT DISTINCT camera FROM segments ORDER BY 1") == [
        {"camera": "01"},
        {"camera": "bench-2"},
    ]
    assert rows(connection, "SELECT count(*) AS n FROM recordings WHERE camera = '01'") == [{"n": 2}]


@pytest.mark.parametrize("condition", ["camera = '01'", "hour = 5", "date = '2026-11-21' AND hour = 6", "hour = 7"])
def test_filters_on_partition_columns_give_the_same_as_on_the_rows(made, connection, condition):
    found = rows(connection, f"SELECT segment_id FROM primitives WHERE {condition}")

    def wanted(row: dict[str, Any]) -> bool:
        hour = row["start_time"].hour
        return {
            "camera = '01'": row["camera"] == "01",
            "hour = 5": hour == 5,
            "date = '2026-11-21' AND hour = 6": hour == 6,
            "hour = 7": hour == 7,
        }[condition]

    expected = {row["segment_id"] for row in made.segments if wanted(row)}
    assert {row["segment_id"] for row in found} == expected
    assert len(found) == len(expected)


def test_primitives_join_everything_once(made, connection):
    found = rows(connection, "SELECT * FROM primitives")
    by_id = {row["segment_id"]: row for row in made.segments}
    assert len(found) == len(by_id)
    for row in found:
        want = by_id[row["segment_id"]]
        assert row["cluster_id"] == want["cluster_id"]
        assert row["codes"] == want["codes"]
        assert row["cluster_icss"] == pytest.approx(0.62 + 0.05 * (row["cluster_id"] % 5))
        assert row["icss_baseline"] == 0.6
        assert row["encoder_id"] == ENCODER
        assert row["tokenizer_id"] == TOKENIZER
        assert row["cluster_model_id"] == IDS["clusters"]
        clip = want["clip_path"]
        assert row["clip"] == (None if clip is None else made.store.url(clip))
    assert any(row["clip"] is None for row in found)


def test_primitives_remain_without_cluster_or_clip(tmp_path):
    made = make_store(tmp_path / "s", cameras=("a",), hours=1, footage_s=60)
    for table in ("clips", "cluster_assignments", "clusters"):
        made.store.delete(table)
    found = rows(connect(made.store, release=RELEASE, tokenizer=TOKENIZER), "SELECT * FROM primitives")
    assert len(found) == len(made.segments)
    assert {(row["clip"], row["cluster_id"], row["encoder_id"]) for row in found} == {(None, None, None)}


def test_partitions_tell_processed_and_empty_from_not_processed(connection):
    (row,) = rows(connection, "SELECT * FROM partitions WHERE table_name = 'segments' AND camera = '01' AND hour = 7")
    assert row["model"] == RELEASE
    assert row["path"].endswith("segments/release=r1/camera=01/date=2026-11-21/hour=07/part-0.parquet")
    assert rows(connection, "SELECT * FROM segments WHERE hour = 7") == []


def test_summary_counts_rows_and_hours(made, connection):
    summary = {row["table"]: row for row in catalog.catalog_summary(connection).to_pylist()}
    assert list(summary) == [*TABLES, "primitives"]
    assert summary["segments"]["rows"] == summary["primitives"]["rows"] == len(made.segments)
    assert summary["latent_stream"]["rows"] == 6 * 36_000
    assert summary["segments"]["camera_hours"] == 6
    assert summary["segments"]["cameras"] == 2
    assert summary["segments"]["first_hour"] == to_datetime(FIVE)
    assert summary["segments"]["last_hour"] == to_datetime(FIVE + 2 * HOUR_NS)
    assert summary["keypoint_tracks"] == {
        "table": "keypoint_tracks", "rows": 0, "camera_hours": 0, "cameras": 0, "first_hour": None, "last_hour": None,
    }  # fmt: skip
    assert "segments" in str(render(catalog.catalog_summary(connection)))
    quick = {row["table"]: row for row in catalog.catalog_summary(connection, most_files=5).to_pylist()}
    assert quick["latent_stream"] == summary["latent_stream"] | {"rows": None}, "its six files stay closed"
    assert quick["segments"] == summary["segments"], "it is of those that are copied"


def test_an_empty_store_has_every_view_with_the_same_types(tmp_path, connection):
    empty = open_catalog(Store(str(tmp_path / "nothing")))
    query = "SELECT table_name, column_name, data_type, comment FROM duckdb_columns() WHERE NOT internal ORDER BY ALL"
    assert rows(empty, query) == rows(connection, query)
    assert rows(empty, "SELECT count(*) AS n FROM primitives") == [{"n": 0}]
    assert all(row["rows"] == 0 for row in catalog.catalog_summary(empty).to_pylist())


def test_only_the_chosen_release_is_shown(tmp_path):
    made = make_store(tmp_path / "s", cameras=("a",), hours=1, footage_s=60)
    store = made.store
    registry = ModelRegistry(store)
    draft = registry.open_draft("first")
    assert draft.name == RELEASE
    assert rows(open_catalog(store), "SELECT count(*) AS n FROM primitives") == [{"n": 0}]
    assert rows(open_catalog(store, RELEASE), "SELECT count(*) AS n FROM segments") == [{"n": len(made.segments)}]
    for slot, model in (
        ("tokenizer", TOKENIZER),
        ("embedder", "e"),
        ("encoder", "v"),
        ("cluster_model", "k"),
    ):
        registry.fill(draft, slot, model)
    registry.fill(draft, "calibration", "c", camera="a")
    # What promotion compares: the ids that the models themselves were made with.
    store.write_json("models/calibration/c/calibration.json", {"tokenizer_id": TOKENIZER})
    store.write_json("models/cluster_model/k/clusters.json", {"tokenizer_id": TOKENIZER, "embedder_id": "e"})
    for model in (f"tokenizer/{TOKENIZER}", "embedder/e", "calibration/c", "cluster_model/k"):
        store.write_bytes(f"models/{model}/complete", b"")
    registry.promote(RELEASE)
    current = open_catalog(store)
    assert rows(current, "SELECT count(*) AS n FROM primitives") == [{"n": len(made.segments)}]
    assert rows(current, "SELECT count(*) AS n FROM latent_stream") == [{"n": 72_000}]
    other = CameraHour("a", FIVE)
    store.write_partition(SEGMENTS, other, rows_table(SEGMENTS, []), "r2")
    assert rows(open_catalog(store), "SELECT DISTINCT model FROM partitions WHERE table_name = 'segments'") == [
        {"model": RELEASE}
    ]
    with pytest.raises(InputError, match="r9"):
        open_catalog(store, "r9")


def test_columns_that_older_files_lack_are_null(tmp_path):
    made = make_store(tmp_path / "s", cameras=("a",), hours=2, footage_s=60)
    store = made.store
    paths = [Path(store.full_path(path)) for path in store.files("segments")]
    old = pq.read_table(paths[0], partitioning=None)
    assert old.num_rows
    pq.write_table(old.drop_columns(["confidence"]), paths[0])
    connection = connect(store, release=RELEASE, tokenizer=TOKENIZER)
    (row,) = rows(
        connection,
        "SELECT count(*) FILTER (confidence IS NULL AND hour = 5) AS old, count(confidence) AS new FROM primitives",
    )
    assert row["old"] == old.num_rows
    assert row["new"] == len(made.segments) - old.num_rows
    for path in paths:
        pq.write_table(pq.read_table(path, partitioning=None).select(["segment_id", "camera", "codes"]), path)
    connection = connect(store, release=RELEASE, tokenizer=TOKENIZER)
    found = rows(connection, "SELECT segment_id, confidence, start_time, hour FROM segments")
    assert len(found) == len(made.segments)
    assert {(row["confidence"], row["start_time"]) for row in found} == {(None, None)}
    assert connection.sql("SELECT start_time FROM segments").types == ["TIMESTAMP WITH TIME ZONE"]


def test_a_store_that_is_no_local_folder_reads_through_fsspec(made):
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in made.store.files(""):
        memory.pipe_file(f"/bucket/prefix/{path}", made.store.read_bytes(path))
    memory.pipe_file("/bucket/other.parquet", made.store.read_bytes(made.store.files("segments")[0]))
    try:
        remote = connect(Store("memory://bucket/prefix"), release=RELEASE, tokenizer=TOKENIZER)
        local = connect(made.store, release=RELEASE, tokenizer=TOKENIZER)
        query = "SELECT * EXCLUDE (clip) FROM primitives ORDER BY segment_id"
        assert run_query(remote, query) == run_query(local, query)
        (row,) = rows(remote, "SELECT clip FROM primitives WHERE clip IS NOT NULL LIMIT 1")
        assert row["clip"].startswith("memory://bucket/prefix/clips/")
        for sql in (
            "SELECT * FROM 'memory://bucket/other.parquet'",
            "SELECT * FROM 'memory://bucket/prefix/../other.parquet'",
            "SELECT * FROM read_parquet('memory://bucket/other.parquet')",
        ):
            with pytest.raises((InputError, StoreError)):
                run_query(remote, sql)
        with pytest.raises(duckdb.Error, match="does not write"):
            remote.execute("COPY (SELECT 1) TO 'memory://bucket/prefix/new.parquet'")
        with pytest.raises(duckdb.Error):
            remote.execute(f"SELECT * FROM read_parquet('{made.store.url('segments')}/**/*.parquet')")
        victim = made.store.files("segments")[0]
        memory.rm_file(f"/bucket/prefix/{victim}")
        with pytest.raises(StoreError, match="vanished") as caught:
            run_query(remote, "SELECT sum(duration_s) FROM segments")
        assert caught.value.where == f"memory://bucket/prefix/{victim}"
    finally:
        memory.rm("/bucket", recursive=True)


# --- for reading only ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 AS one",
        "SELECT 1; -- a comment",
        "FROM segments SELECT count(*)",
        "WITH s AS (SELECT * FROM segments) SELECT count(*) FROM s",
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT * FROM r",
        "DESCRIBE segments",
        "SHOW TABLES",
        "SUMMARIZE SELECT duration_s FROM segments",
        "VALUES (1), (2)",
        "SELECT unnest(codes) FROM segments LIMIT 3",
        "SELECT * FROM range(3)",
        "SELECT 'COPY; DROP TABLE x' AS text",
        "EXPLAIN SELECT * FROM primitives",
        "explain analyze select count(*) from segments",
        "EXPLAIN (FORMAT json) SELECT 1",
        "/* why */ EXPLAIN -- this\n ANALYZE /* one */ (SELECT 1)",
    ],
)
def test_queries_are_admitted(connection, sql):
    assert run_query(connection, sql).num_rows > 0


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("", "one query at a time, not 0"),
        ("SELECT 1; SELECT 2", "one query at a time, not 2"),
        ("SELEC 1", "syntax error"),
        ("CREATE TABLE t (a INT)", "CREATE"),
        ("INSERT INTO partitions (path) VALUES ('x')", "INSERT"),
        ("DELETE FROM partitions", "DELETE"),
        ("UPDATE partitions SET camera = 'x'", "UPDATE"),
        ("DROP VIEW segments", "DROP"),
        ("COPY (SELECT 1) TO '{root}/new.parquet'", "COPY"),
        ("ATTACH '{root}/new.db'", "ATTACH"),
        ("PRAGMA database_list", "PRAGMA"),
        ("SET threads = 1", "SET"),
        ("CALL enable_logging()", "CALL"),
        ("INSTALL httpfs", "LOAD"),
        ("LOAD httpfs", "LOAD"),
        ("EXPORT DATABASE '{root}/new'", "EXPORT"),
        ("PREPARE p AS SELECT 1", "PREPARE"),
        # What DuckDB calls a SELECT or an EXPLAIN, and yet writes.
        ("WITH x AS (COPY (SELECT 1) TO '{root}/new.parquet') SELECT 1", "COPY"),
        ("SELECT * FROM (WITH x AS (COPY (SELECT 1) TO '{root}/new.parquet') SELECT 1)", "COPY"),
        ("WITH x AS (INSERT INTO partitions (path) VALUES ('x') RETURNING path) FROM x", "INSERT"),
        ("EXPLAIN ANALYZE COPY (SELECT 1) TO '{root}/new.parquet'", "COPY"),
        ("/**/ EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{root}/new.parquet'", "COPY|EXPLAIN"),
        ("EXPLAIN ANALYZE WITH x AS (COPY (SELECT 1) TO '{root}/new.parquet') SELECT 1", "COPY"),
        ("EXPLAIN ANALYZE DROP VIEW segments", "DROP"),
        ("FROM query('WITH x AS (COPY (SELECT 1) TO ''{root}/new.parquet'') SELECT 1')", "query"),
        ("SELECT * FROM read_csv('/etc/passwd')", "read_csv"),
        ("SELECT * FROM read_text('/etc/passwd')", "read_text"),
        ("SELECT * FROM glob('/etc/*')", "glob"),
        ("SELECT * FROM read_parquet('{outside}')", "only the store can be read"),
        ("SELECT * FROM '{outside}'", "only the store can be read"),
        ("SELECT * FROM '{root}/../outside.parquet'", "only the store can be read"),
        ("SELECT * FROM 'https://example.com/x.parquet'", "only the store can be read"),
    ],
)
def test_everything_else_is_refused(made, connection, sql, says):
    root = Path(made.store.root)
    outside = root.parent / "outside.parquet"
    pq.write_table(pa.table({"a": [1]}), outside)
    before = sorted(root.rglob("*"))
    text = sql.replace("{root}", str(root).replace("'", "''")).replace("{outside}", str(outside).replace("'", "''"))
    with pytest.raises(InputError, match=says):
        run_query(connection, text)
    assert sorted(root.rglob("*")) == before
    assert rows(connection, "SELECT count(*) AS n FROM segments") == [{"n": len(made.segments)}]


def test_the_connection_itself_is_confined(connection):
    for sql in (
        "SELECT * FROM read_csv('/etc/passwd')",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "LOAD httpfs",
        "INSTALL httpfs",
        "COPY (SELECT 1) TO '/tmp/new.csv'",
        "ATTACH '/tmp/new.db'",
    ):
        with pytest.raises(duckdb.Error):
            connection.execute(sql)


def test_two_readers_and_a_writer_do_not_meet(tmp_path):
    made = make_store(tmp_path / "s", cameras=("a",), hours=1, footage_s=60)
    connection = connect(made.store, release=RELEASE, tokenizer=TOKENIZER)
    unfinished = connection.execute("SELECT * FROM latent_stream")
    unfinished.fetchmany(1)
    hour = CameraHour("a", FIVE)
    kept = made.store.read_partition(SEGMENTS, hour, RELEASE).slice(0, 3)
    made.store.write_partition(SEGMENTS, hour, kept, RELEASE)
    second = connect(made.store, release=RELEASE, tokenizer=TOKENIZER)
    assert rows(second, "SELECT count(*) AS n FROM segments") == [{"n": 3}]
    assert len(rows(second, "SELECT * FROM segments")) == 3


# --- errors ----------------------------------------------------------------------------------------------------


def test_a_wrong_column_gets_the_columns_of_the_view(connection):
    with pytest.raises(InputError) as caught:
        run_query(connection, "SELECT clusterid FROM primitives")
    assert 'Referenced column "clusterid" not found' in str(caught.value)
    assert "Columns of primitives: segment_id, camera, start_time" in str(caught.value)


def test_a_wrong_table_gets_the_list_of_views(connection):
    with pytest.raises(InputError) as caught:
        run_query(connection, "SELECT * FROM primitive")
    assert "primitive does not exist" in str(caught.value)
    for name in ("primitives", *TABLES):
        assert name in str(caught.value)


def test_a_wrong_value_is_an_input_error(connection):
    with pytest.raises(InputError, match="Conversion Error"):
        run_query(connection, "SELECT * FROM segments WHERE start_time > 'yesterday'")


def test_a_truncated_file_is_named_and_the_other_tables_are_readable(tmp_path):
    made = make_store(tmp_path / "s", cameras=("a",), hours=1, footage_s=60)
    broken = Path(made.store.full_path(made.store.files("clips")[0]))
    broken.write_bytes(broken.read_bytes()[:200])
    connection = connect(made.store, release=RELEASE, tokenizer=TOKENIZER)
    assert rows(connection, "SELECT count(*) AS n FROM segments") == [{"n": len(made.segments)}]
    for sql in (
        "SELECT * FROM clips",
        "SELECT count(*) FROM clips",
        "SELECT status FROM clips WHERE camera = 'a' AND hour = 5 AND status = 'ok'",
        "SELECT c.clip_path FROM segments JOIN clips c USING (segment_id)",
        "SELECT clip FROM primitives WHERE clip LIKE '%mp4'",
    ):
        with pytest.raises(StoreError, match="Materialize this partition again") as caught:
            run_query(connection, sql)
        assert caught.value.where == str(broken)
    assert rows(connection, "SELECT status FROM clips WHERE hour = 6") == []  # of the hours that are whole
    summary = {row["table"]: row["rows"] for row in catalog.catalog_summary(connection).to_pylist()}
    assert summary["clips"] is None
    assert summary["segments"] == len(made.segments)


def test_a_file_that_vanishes_or_breaks_after_opening_is_named(tmp_path):
    made = make_store(tmp_path / "s", cameras=("a",), hours=1, footage_s=60)
    connection = connect(made.store, release=RELEASE, tokenizer=TOKENIZER)
    victim = Path(made.store.full_path(made.store.files("segments")[0]))
    content = victim.read_bytes()
    victim.unlink()
    with pytest.raises(StoreError, match="vanished") as caught:
        run_query(connection, "SELECT sum(duration_s) FROM segments")
    assert caught.value.where == str(victim)
    assert rows(connection, "SELECT count(*) AS n FROM recordings") == [{"n": 2}]
    victim.write_bytes(content[: len(content) // 2])
    with pytest.raises(StoreError, match="no readable Parquet") as caught:
        run_query(connection, "SELECT sum(duration_s) FROM segments")
    assert caught.value.where == str(victim)


# --- output ----------------------------------------------------------------------------------------------------

EVERYTHING = """
    SELECT segment_id, camera, start_time, duration_s, codes, cluster_id, clip, clip IS NULL AS no_clip, date
    FROM primitives ORDER BY segment_id
"""


def test_json_round_trip(made, connection):
    result = run_query(connection, EVERYTHING)
    back = json.loads(render(result, "json"))
    assert len(back) == len(made.segments)
    for row, want in zip(back, result.to_pylist(), strict=True):
        assert row["start_time"].endswith("Z")
        assert datetime.fromisoformat(row["start_time"]) == want["start_time"]
        assert row["date"] == "2026-11-21"
        for name in ("codes", "duration_s", "camera", "clip", "no_clip", "cluster_id"):
            assert row[name] == want[name]
    assert json.loads(render(run_query(connection, "SELECT 1 WHERE false"), "json")) == []
    odd = run_query(connection, "SELECT 'nan'::DOUBLE AS x, sum(1) AS n, 'a'::BLOB AS b, 1 AS a, 2 AS a")
    assert json.loads(render(odd, "json")) == [{"x": None, "n": 1, "b": "YQ==", "a": 1, "a_2": 2}]


def test_csv_round_trip(connection):
    result = run_query(connection, EVERYTHING)
    back = list(csv.DictReader(io.StringIO(str(render(result, "csv")))))
    assert len(back) == result.num_rows
    for row, want in zip(back, result.to_pylist(), strict=True):
        assert row["camera"] == want["camera"]
        assert datetime.fromisoformat(row["start_time"]) == want["start_time"]
        assert float(row["duration_s"]) == want["duration_s"]
        assert json.loads(row["codes"]) == want["codes"]
        assert row["clip"] == (want["clip"] or "")
        assert row["no_clip"] == str(want["clip"] is None).lower()


def test_parquet_round_trip(connection):
    result = run_query(connection, EVERYTHING)
    content = render(result, "parquet")
    assert isinstance(content, bytes)
    back = pq.read_table(io.BytesIO(content))
    assert back == result
    assert back.schema.field("start_time").type == pa.timestamp("us", tz="UTC")
    with pytest.raises(InputError, match="CAST"):
        render(run_query(connection, "SELECT INTERVAL 1 DAY AS i"), "parquet")


def test_the_table_is_aligned_and_says_what_it_leaves_out(connection):
    text = str(render(run_query(connection, EVERYTHING), "table", max_rows=5))
    lines = text.splitlines()
    assert len(lines) == 2 + 5 + 1
    assert lines[0].split()[:3] == ["segment_id", "camera", "start_time"]
    assert lines[2].index("2026-11-21T0") == lines[0].index("start_time")
    assert "values]" in lines[2]
    assert "5 shown" in lines[-1]
    assert "(1 row)" in str(render(run_query(connection, "SELECT NULL AS a, 'x'::BLOB AS b, true AS c")))
    assert "READ_PARQUET" in str(render(run_query(connection, "EXPLAIN SELECT * FROM recordings")))
    with pytest.raises(InputError, match="xml"):
        render(run_query(connection, "SELECT 1"), "xml")


def test_times_are_utc_whatever_the_zone_of_the_machine(connection, monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    text = str(render(run_query(connection, "SELECT min(start_time) AS t FROM segments"), "csv"))
    assert text.splitlines()[1].startswith("2026-11-21T05:5")
    assert rows(connection, "SELECT TIMESTAMP '2026-11-21 05:00:00' = TIMESTAMPTZ '2026-11-21T05:00:00Z' AS same") == [
        {"same": True}
    ]
