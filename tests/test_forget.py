"""Removing what was made of a time: nothing of it stays in any table, and nothing else goes."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dagster._core.utils import make_new_run_id  # not public
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from laps import tables
from laps.errors import InputError, StoreError
from laps.forgotten import REACHES_BACK_NS, Forgotten
from laps.tables import TABLES, Column, Table
from laps.timegrid import HOUR_NS, NS_PER_S, CameraHour, from_datetime, parse_utc, to_datetime
from laps_dagster.instance import open_instance
from laps_dagster.processes import identity, made_here
from resources.catalog import connect, run_query
from resources.compaction import compact
from resources.forget import Plan, plan, remove
from resources.forgotten import ForgottenTimes
from resources.freshness import Freshness
from resources.hour_files import clip_folder
from resources.models import Release
from resources.recordings import Recordings
from resources.retention import apply, set_days
from resources.settings import SETTINGS, store_settings
from resources.store import Store, rows_table
from tests.export_store import ExportStore
from tests.s3 import S3, s3, s3_server
from tests.videos import write_video

__all__ = ["s3", "s3_server"]

FIVE = parse_utc("2026-11-21T05:00:00Z")
MINUTE = 60 * NS_PER_S
CAMERAS = ("a", "b")
HOURS = [FIVE + n * HOUR_NS for n in range(-1, 3)]
MODELS = {"release": ("r1", "r2"), "tokenizer": ("t1", "t2"), None: (None,)}
# These say what people know or decided, and hold nothing of what was filmed.
NOT_FILMED = {"recordings", "cameras", "forgotten", "cluster_names", "clusters", "evaluation"}


def value(column: Column, start_ns: int, end_ns: int, index: int) -> Any:
    """Some value of a column, for a row of a time."""
    given_ = {"start_time": start_ns, "time": start_ns, "frame_time": start_ns, "end_time": end_ns}
    if column.type == "timestamp":
        return to_datetime(given_.get(column.name, end_ns))
    if column.values:
        return column.values[0]
    if column.type.startswith("list"):
        return []
    made = {"string": f"x{index}", "bool": True, "binary": b"x", "float32": 1.0, "float64": 1.0, "uint16": 1}
    return made.get(column.type, index)


def rows_of(table: Table, camera: str, hour_ns: int) -> list[dict[str, Any]]:
    """A row every six minutes, each of a minute; the last one ends in the hour."""
    rows = []
    for index, start_ns in enumerate(range(hour_ns, hour_ns + HOUR_NS, 6 * MINUTE)):
        row = {column.name: value(column, start_ns, start_ns + MINUTE, index) for column in table.columns}
        rows.append(row | {"camera": camera})
    return rows


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Every table of four hours of two cameras, in two releases; read only."""
    store = Store(str(tmp_path_factory.mktemp("filled")))
    for camera in CAMERAS:
        for table in TABLES.values():
            if table.partitioned == "camera_hour":
                for model in MODELS[table.model_level]:
                    for hour_ns in HOURS:
                        rows = rows_table(table, rows_of(table, camera, hour_ns))
                        store.write_partition(table, CameraHour(camera, hour_ns), rows, model)
            elif table.partitioned == "camera" and table.name not in NOT_FILMED:
                rows = [row for hour_ns in HOURS for row in rows_of(table, camera, hour_ns)]
                for place, row in enumerate(rows):
                    row |= {name: place for name in ("window",) if name in row}
                    row |= {name: f"x{place}" for name in ("segment_id",) if name in row}
                store.write_table(table, f"{table.name}/camera={camera}/one.parquet", rows_table(table, rows))
    return store


def copy_of(store: Store, folder: Path) -> Store:
    """The store again, by links: files are replaced or removed, never changed."""
    for path in store.files(""):
        target = folder / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(store.full_path(path.lstrip("/")), target)
    return Store(str(folder))


class Killed(Exception):
    pass


class Dying(Store):
    """A store that writes and deletes so many files, and is killed at the next."""

    def __init__(self, root: str, left: int) -> None:
        super().__init__(root)
        self.left = left

    def _one_less(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1

    def write_table(self, table: Table, path: str, rows: pa.Table) -> int:
        self._one_less()
        return super().write_table(table, path, rows)

    def delete(self, path: str) -> None:
        self._one_less()
        super().delete(path)


def forget(store: Store, time: Forgotten) -> Plan:
    planned = plan(store, time)
    list(remove(store, planned))
    return planned


BEGINS = ("start_time", "frame_time", "time", "first_frame_time", "end_time")
ENDS = ("end_time", "frame_time", "time", "last_frame_time")


def spans(store: Store, camera: str) -> dict[str, set[tuple[str, int, int, int]]]:
    """Of every table with what was filmed: file, time and place of each row of a camera; 0 where it has no time."""
    found: dict[str, set[tuple[str, int, int, int]]] = {}
    for table in TABLES.values():
        if table.name in NOT_FILMED:
            continue
        begins, ends = (next((one for one in names if one in table.column_names), None) for names in (BEGINS, ENDS))
        rows = found.setdefault(table.name, set())
        for path in store.files(table.name, ".parquet"):
            if f"camera={camera}" not in path.split("/"):
                continue
            columns = [one for one in (begins, ends) if one is not None] or ["segment_id"]
            for place, row in enumerate(store.read_table(table, path, list(dict.fromkeys(columns))).to_pylist()):
                begin, end = (from_datetime(row[one]) if one else 0 for one in (begins, ends))
                # A file of imported work is written again without some of its rows: the others change their place.
                rows.add((path, begin, max(end, begin + 1), place if table.partitioned == "camera_hour" else 0))
    return found


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(-40, 100), st.integers(1, 90), st.integers(0, 59))
def test_nothing_of_a_time_stays_and_other_hours_and_cameras_do(tmp_path_factory, filled, start_min, length_min, at_s):
    store = copy_of(filled, tmp_path_factory.mktemp("one"))
    start_ns = FIVE + start_min * MINUTE + at_s * NS_PER_S
    time = Forgotten("a", start_ns, start_ns + length_min * MINUTE)
    before, other = spans(store, "a"), spans(store, "b")
    planned = forget(store, time)
    after = spans(store, "a")
    assert spans(store, "b") == other
    touched = {f"hour={hour.hour}" for hour in time.hours()}
    for name, rows in after.items():
        assert rows <= before[name]
        by_hour = TABLES[name].partitioned == "camera_hour"
        for path, begin, end, _ in rows:
            assert not (by_hour and touched & set(path.split("/"))), name
            assert not time.touches(begin, end), name
        for path, begin, end, _ in before[name] - rows:
            assert touched & set(path.split("/")) if by_hour else time.touches(begin, end), name
    counted = {part.what: part.rows for part in planned.parts}
    for name in ("keyframes", "latent_stream", "clips"):
        assert counted.get(name, 0) == len(before[name]) - len(after[name])
    connection = connect(store, release="r1", tokenizer="t1")
    (row,) = run_query(connection, "SELECT camera, start_time, end_time FROM forgotten").to_pylist()
    assert row == {"camera": "a", "start_time": to_datetime(time.start_ns), "end_time": to_datetime(time.stop_ns)}


def test_a_dry_look_changes_nothing(filled):
    before = filled.modified("")
    assert plan(filled, Forgotten("a", FIVE, FIVE + MINUTE)).parts
    assert filled.modified("") == before


def test_a_removal_that_was_killed_is_finished_by_another(filled, tmp_path):
    time = Forgotten("a", FIVE, FIVE + MINUTE, "asked")
    whole = copy_of(filled, tmp_path / "whole")
    forget(whole, time)

    for left in (1, 2, 8, 15):
        store = copy_of(filled, tmp_path / str(left))
        with pytest.raises(Killed):
            forget(Dying(store.root, left), time)
        assert ForgottenTimes(store).of_camera("a") == [time], "on record before anything goes"
        forget(store, time)
        assert store.files("") == whole.files("")


@pytest.mark.parametrize("began_s", [-180, -110])
def test_a_primitive_that_began_in_the_time_or_close_behind_takes_its_hour_along(filled, tmp_path, began_s):
    """Its clip may hold, hidden, what was filmed up to 15 s before."""
    store = copy_of(filled, tmp_path)
    six = CameraHour("a", FIVE + HOUR_NS)
    long_ago = rows_of(tables.SEGMENTS, "a", six.hour_ns)
    long_ago[0]["start_time"] += timedelta(seconds=began_s)
    store.write_partition(tables.SEGMENTS, six, rows_table(tables.SEGMENTS, long_ago), "r1")
    forget(store, Forgotten("a", FIVE + 50 * MINUTE, FIVE + 58 * MINUTE))
    assert not store.has_partition(tables.SEGMENTS, six, "r1") and not store.has_partition(tables.CLIPS, six, "r1")
    assert store.has_partition(tables.CLIPS, six, "r2"), "where it is another release's, it stays"
    assert store.has_partition(tables.KEYFRAMES, six)


def test_a_clip_that_ends_at_the_time_goes_with_what_it_hides(filled, tmp_path):
    store = copy_of(filled, tmp_path)
    four = CameraHour("a", FIVE - HOUR_NS)
    rows = rows_of(tables.CLIPS, "a", four.hour_ns)
    for row in rows:
        row["clip_path"] = f"clips/release=r1/camera=a/{row['segment_id']}.mp4"
        store.write_bytes(row["clip_path"], b"mp4")
    rows[-1]["last_frame_time"] = to_datetime(FIVE - 33_000_000)
    store.write_partition(tables.CLIPS, four, rows_table(tables.CLIPS, rows), "r1")
    forget(store, Forgotten("a", FIVE, FIVE + MINUTE))
    after = store.read_partition(tables.CLIPS, four, "r1").to_pylist()
    assert [row["status"] for row in after] == ["ok"] * 9 + ["failed"]
    assert [store.exists(row["clip_path"]) for row in rows] == [True] * 9 + [False]


def test_a_removal_killed_anywhere_still_finds_what_lies_in_the_hours_beside_the_time(tmp_path):
    time = Forgotten("a", FIVE, FIVE + 59 * MINUTE)
    four, six = CameraHour("a", FIVE - HOUR_NS), CameraHour("a", FIVE + HOUR_NS)
    ahead = rows_of(tables.CLIPS, "a", four.hour_ns)[-1]
    ahead |= {"last_frame_time": to_datetime(FIVE - 33_000_000), "clip_path": f"{clip_folder(four, 'r1')}/x.mp4"}
    began = rows_of(tables.SEGMENTS, "a", six.hour_ns)[0]
    began["start_time"] -= timedelta(minutes=2)
    clips = rows_of(tables.CLIPS, "a", six.hour_ns)
    made = [(tables.CLIPS, four, [ahead]), (tables.SEGMENTS, six, [began]), (tables.CLIPS, six, clips)]
    for left in range(1, 20):
        store = Store(str(tmp_path / str(left)))
        for table, hour, rows in made:
            store.write_partition(table, hour, rows_table(table, rows), "r1")
        for hour in (four, six):
            store.write_bytes(f"{clip_folder(hour, 'r1')}/x.mp4", b"mp4")
        try:
            forget(Dying(store.root, left), time)
        except Killed:
            forget(store, time)
            assert store.files("", ".mp4") == [] and store.partitions(tables.CLIPS, "r1") == [four]
        else:
            break
    assert left == 7, "the record, the clips with their rows, the primitives, and the record once more"


def test_what_killed_runs_left_goes_too(filled, tmp_path):
    store = copy_of(filled, tmp_path)
    left = f"{store.partition_path(tables.KEYFRAMES, CameraHour('a', FIVE)).rpartition('/')[0]}/.tmp-123"
    store.write_bytes(left, b"half a partition")
    forget(store, Forgotten("a", FIVE, FIVE + MINUTE))
    assert not store.exists(left)


def test_reports_scores_copies_and_data_sets_that_show_the_time_go(filled, tmp_path):
    store = copy_of(filled, tmp_path)
    video = write_video(tmp_path / "v.mp4", seconds=4, fps=5, width=64, height=48)
    recording = Recordings(store).register(str(video), "a", FIVE)["recording_id"]
    score = {column.name: value(column, 0, 0, 0) for column in tables.EVALUATION.columns}
    scores = [score | {"recording_id": recording, "camera": "a"}, score | {"recording_id": None, "camera": None}]
    places = {}
    for release, rows in (("r1", scores), ("r2", scores[1:])):
        places[release] = f"evaluation/release={release}/part-0.parquet"
        store.write_table(tables.EVALUATION, places[release], rows_table(tables.EVALUATION, rows))
    gone = [
        "reports/release=r1/report.html",
        "compacted/primitives/release=r1/camera=a/month=2026-11/manifest.json",
        "compacted/primitives/release=r1/camera=a/month=2026-11/1.parquet",
        "datasets/half/v1/video.mp4",
    ]
    kept = [
        "reports/release=r1/scores.json",
        "compacted/primitives/release=r1/camera=b/month=2026-11/1.parquet",
        "compacted/primitives/release=r1/camera=a/month=2026-10/1.parquet",
    ]
    for path in (*gone, *kept):
        store.write_bytes(path, b"{}")
    day = {"first_start": "2026-11-21T00:00:00Z", "last_end": "2026-11-22T00:00:00Z"}
    for name, contents, shows in (
        ("old", {"cameras": {"a": 3}}, True),
        ("other", {"cameras": {"b": 3}}, False),
        ("shows", {"cameras": {"a": 3}, "filmed": {"a": [["2026-11-21T04:00:00Z", "2026-11-21T05:00:01Z"]]}}, True),
        ("beside", {"cameras": {"a": 3}, "filmed": {"a": [["2026-11-21T04:00:00Z", "2026-11-21T05:00:00Z"]]}}, False),
    ):
        paths = [f"datasets/{name}/v1/train-000000.tar", f"datasets/{name}/v1/dataset_card.json"]
        for path in paths:
            store.write_bytes(path, json.dumps({"contents": day | contents}).encode())
        (gone if shows else kept).extend(paths)
    planned = forget(store, Forgotten("a", FIVE, FIVE + MINUTE))
    assert [path for path in gone if store.exists(path)] == []
    assert [path for path in kept if not store.exists(path)] == []
    assert not store.exists(places["r1"]) and store.exists(places["r2"])
    assert [(held.uri, held.there) for held in planned.held] == [(str(video), True)]
    # What is made from now on is without the time, and stays.
    store.write_bytes(gone[0], b"{}")
    os.utime(store.full_path(ForgottenTimes(store).path(planned.time)), (1, 1))
    before = store.modified("")
    assert forget(store, planned.time).parts == [] and store.modified("") == before, "all is done"


def test_what_was_made_of_all_hours_while_some_of_the_time_was_left_goes(filled, tmp_path):
    """However much later than the record it was written: it was made from what a removal had not reached."""
    time = Forgotten("a", FIVE, FIVE + MINUTE)
    five = CameraHour("a", FIVE)
    late = ["reports/release=r1/report.html", "compacted/segments/release=r1/camera=a/month=2026-11/1.parquet"]

    def make_late(store: Store) -> None:
        for path in late:
            store.write_bytes(path, b"")
            os.utime(store.full_path(path), (2e9, 2e9))

    store = copy_of(filled, tmp_path / "killed")
    with pytest.raises(Killed):
        forget(Dying(store.root, 8), time)
    (row,) = store.read_table(tables.FORGOTTEN, ForgottenTimes(store).path(time)).to_pylist()
    assert row["removed_at"] is None
    make_late(store)
    forget(store, time)
    assert [path for path in late if store.exists(path)] == []
    (row,) = store.read_table(tables.FORGOTTEN, ForgottenTimes(store).path(time)).to_pylist()
    assert row["forgotten_at"] <= row["removed_at"]
    # It was killed when all hours were gone, and what is made of them was not.
    store = copy_of(filled, tmp_path / "hours gone")
    planned = plan(store, time)
    list(zip(planned.parts, remove(store, planned), strict=False))
    make_late(store)
    forget(store, time)
    assert [path for path in late if store.exists(path)] == []
    # A run that was under way wrote the hour once more.
    store.write_partition(tables.KEYFRAMES, five, rows_table(tables.KEYFRAMES, rows_of(tables.KEYFRAMES, "a", FIVE)))
    make_late(store)
    forget(store, time)
    assert [path for path in late if store.exists(path)] == [] and not store.has_partition(tables.KEYFRAMES, five)
    make_late(store)
    assert forget(store, time).parts == [] and all(map(store.exists, late))
    # Of one that was written before all was removed the others are not told apart.
    os.utime(store.full_path(late[0]), (1, 1))
    forget(store, time)
    assert [path for path in late if store.exists(path)] == [] and plan(store, time).parts == []


def test_compacted_copies_hold_nothing_of_the_time_and_the_catalog_is_right(filled, tmp_path):
    store, release = copy_of(filled, tmp_path), Release("r1", "draft", tokenizer="t1")
    time = Forgotten("a", FIVE + 90 * MINUTE, FIVE + 100 * MINUTE)

    def answers() -> dict[str, list[Any]]:
        connection = connect(store, release="r1", tokenizer="t1")
        views = ("primitives", "segments", "clips", "raw_video", "segment_embeddings")
        return {view: run_query(connection, f"SELECT camera, count(*) FROM {view} GROUP BY 1 ORDER BY 1").to_pylist()
                for view in views}  # fmt: skip

    def in_copies() -> list[str]:
        found = []
        for path in store.files("compacted", ".parquet"):
            rows = pq.read_table(store.full_path(path)).to_pylist()
            if any(
                row["camera"] == "a"
                and "end_time" in row
                and time.touches(from_datetime(row["start_time"]), from_datetime(row["end_time"]))
                for row in rows
            ):
                found.append(path)
        return found

    compact(store, release)
    assert len(in_copies()) == 3, "primitives, segments, raw_video"
    forget(store, time)
    assert in_copies() == []
    assert not any("camera=a/month" in path for path in store.files("compacted"))
    want = answers()
    assert want["segments"] == [{"camera": "a", "count_star()": 30}, {"camera": "b", "count_star()": 40}]
    compact(store, release)
    assert in_copies() == [] and answers() == want


def test_the_rest_of_an_hour_whose_video_is_gone_is_said_to_be_lost(filled, tmp_path):
    store = copy_of(filled, tmp_path)
    register = Recordings(store)
    for number, start_ns in enumerate((FIVE, FIVE + 30 * MINUTE)):
        path = write_video(tmp_path / f"{number}.mp4", seconds=60, fps=1, width=64, height=48)
        register.register(str(path), "a", start_ns)
    (tmp_path / "0.mp4").unlink()
    five = CameraHour("a", FIVE)
    assert set(plan(store, Forgotten("a", FIVE + 30 * MINUTE, FIVE + 31 * MINUTE)).lost) == {five}
    assert plan(store, Forgotten("a", FIVE, FIVE + MINUTE)).lost == {}, "all of it is to go"
    assert "0.mp4 is gone" in plan(store, Forgotten("a", FIVE + 1000, FIVE + MINUTE)).lost[five]


def test_a_camera_of_which_nothing_is_known_is_an_error(filled, tmp_path):
    store = copy_of(filled, tmp_path)
    store.write_bytes("reports/release=r1/report.html", b"")
    with pytest.raises(InputError, match="nothing is known of a camera 'c'"):
        plan(store, Forgotten("c", FIVE, FIVE + MINUTE))


def test_a_time_on_record_keeps_when_it_was_forgotten(tmp_path):
    store = Store(str(tmp_path))
    time = Forgotten("a", FIVE, FIVE + MINUTE, "first")
    ForgottenTimes(store).put(time, removed=False)
    path = ForgottenTimes(store).path(time)
    for removed in (False, True):
        ForgottenTimes(store).put(Forgotten("a", FIVE, FIVE + MINUTE), removed=removed)
        before = store.read_bytes(path), store.modified(path)
        ForgottenTimes(store).put(Forgotten("a", FIVE, FIVE + MINUTE), removed=removed)
        assert (store.read_bytes(path), store.modified(path)) == before
        assert ForgottenTimes(store).of_camera("a")[0].reason == "first"
    (first,) = store.read_table(tables.FORGOTTEN, path).to_pylist()
    ForgottenTimes(store).put(Forgotten("a", FIVE, FIVE + MINUTE, "second"), removed=True)
    assert store.read_table(tables.FORGOTTEN, path).to_pylist() == [first | {"reason": "second"}]
    assert ForgottenTimes(store).paths_touching(CameraHour("a", FIVE)) == [path]
    assert ForgottenTimes(store).paths_touching(CameraHour("a", FIVE + HOUR_NS)) == []
    assert REACHES_BACK_NS < HOUR_NS


def test_hours_made_again_during_a_removal_are_made_once_more_and_those_made_after_it_are_not(filled, tmp_path):
    store, five = copy_of(filled, tmp_path), CameraHour("a", FIVE)
    time = Forgotten("a", FIVE, FIVE + MINUTE)

    def make() -> None:
        rows = rows_table(tables.RAW_VIDEO, rows_of(tables.RAW_VIDEO, "a", FIVE))
        store.write_partition(tables.RAW_VIDEO, five, rows)

    def due() -> list[CameraHour]:
        path_of = partial(store.partition_path, tables.RAW_VIDEO)
        return list(Freshness(store).out_of_date([five], path_of, ForgottenTimes(store).paths_touching))

    planned = plan(store, time)
    for place, _ in enumerate(remove(store, planned)):
        if place == len(planned.parts) - 1:
            make()
            assert due() == []
    assert due() == [five]
    make()
    assert due() == []
    ForgottenTimes(store).put(time, removed=True)
    assert due() == []


def test_on_object_storage_as_on_a_disk(s3: S3):
    store = Store(s3.url)
    five, seven = CameraHour("a", FIVE), CameraHour("a", FIVE + 2 * HOUR_NS)
    gone = ["reports/release=r1/report.html", "datasets/x/v1/video.mp4"]
    for hour in (five, seven):
        for table in (tables.RAW_VIDEO, tables.KEYFRAMES):
            store.write_partition(table, hour, rows_table(table, rows_of(table, "a", hour.hour_ns)))
        rows = rows_table(tables.CLIPS, rows_of(tables.CLIPS, "a", hour.hour_ns))
        store.write_partition(tables.CLIPS, hour, rows, "r1")
        # Where clips are, and where earlier versions kept them.
        for folder in (clip_folder(hour, "r1"), store.partition_path(tables.CLIPS, hour, "r1").rpartition("/")[0]):
            store.write_bytes(f"{folder}/x.mp4", b"mp4")
    for path in gone:
        store.write_bytes(path, b"{}")
    before = {path for path in store.files("") if "hour=05" in path or path in gone}
    every = set(store.files(""))
    planned = forget(store, Forgotten("a", FIVE, FIVE + MINUTE))
    assert len(before) == 7 and every - set(store.files("")) == before
    assert [part.rows for part in planned.parts if part.what == "keyframes"] == [10]
    assert plan(store, planned.time).parts == []
    set_days(store, "clips", 0)
    assert [(one.table, one.files) for one in apply(store)] == [("clips", 3)]


def test_the_command_asks_says_and_removes(fresh: ExportStore, laps_command, monkeypatch, tmp_path):
    monkeypatch.setenv("LAPS_STORE", fresh.store.root)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "none"))
    options = ["forget", "--camera", "a", "--from", "2026-11-21T05:00:01Z", "--to", "2026-11-21T05:00:03Z"]
    before = fresh.store.files("")
    code, out, _ = laps_command(*options, "--dry-run")
    assert code == 0 and "clips: 5 rows, 6 files removed" in out and "a-0.mp4" in out
    assert fresh.store.files("") == before
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    code, out, err = laps_command(*options)
    assert code == 1 and "Remove this?" in out and fresh.store.files("") == before
    video = Path(fresh.rows[0]["video"])
    aside = video.rename(tmp_path / "aside.mp4")
    try:
        code, out, err = laps_command(*options)
        assert code == 1 and "cannot be made again" in err and fresh.store.files("") == before
    finally:
        aside.rename(video)
    code, out, err = laps_command(*options, "--yes", "--reason", "asked for")
    assert code == 0, err
    assert "removed  clips: 5 rows, 6 files removed" in out and "backfill --only missing" in out
    assert not (tmp_path / "none").exists()


OPTIONS = ["forget", "--camera", "a", "--from", "2026-11-21T05:00:01Z", "--to", "2026-11-21T05:00:03Z", "--yes"]


@pytest.fixture
def instance(fresh: ExportStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """The instance of the store with primitives at 5 and 6 o'clock."""
    monkeypatch.setenv("LAPS_STORE", fresh.store.root)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    with open_instance() as instance:
        yield instance


STARTED = dg.DagsterRunStatus.STARTED


def add_run(instance: dg.DagsterInstance, job: str, partition: str = "", status: dg.DagsterRunStatus = STARTED) -> str:
    tags = {"dagster/partition": partition} if partition else {}
    return instance.add_run(dg.DagsterRun(job, make_new_run_id(), status=status, tags=tags)).run_id


def test_runs_that_may_write_it_again_are_waited_for(fresh, instance, laps_command, monkeypatch):
    files = fresh.store.files("")
    for job, partition in (
        ("segment", "a|2026-11-21-04:00"),
        ("observe", "a|2026-11-21-05:00"),
        ("segment", "a|2026-11-21-06:00"),
        ("publish", ""),
        ("export", "screws/v1"),
        ("calibrate", "a"),
    ):
        run_id = add_run(instance, job, partition)
        code, _, err = laps_command(*OPTIONS)
        assert code == 1 and f"{job} {partition}".strip() in err and run_id[:8] in err
        assert laps_command(*OPTIONS, "--dry-run")[0] == 0
        instance.delete_run(run_id)
    assert fresh.store.files("") == files
    # Others are none of its business, nor are those whose process is gone.
    others = [add_run(instance, "observe", f"{hour}:00") for hour in ("b|2026-11-21-05", "a|2026-11-21-07")]
    lost = add_run(instance, "compact")
    instance.add_run_tags(lost, made_here(lost))
    monkeypatch.setattr("laps_dagster.processes.is_gone", lambda known: known == identity())
    code, _, err = laps_command(*OPTIONS)
    assert code == 0, err
    assert not instance.get_run_by_id(others[0]).is_finished and instance.get_run_by_id(lost).is_finished


def test_runs_that_begin_while_it_asks_are_waited_for_too(fresh, instance, laps_command, monkeypatch):
    files = fresh.store.files("")

    def answered_late(*_: Any, **__: Any) -> bool:
        add_run(instance, "observe", "a|2026-11-21-05:00")
        return True

    monkeypatch.setattr("click.confirm", answered_late)
    code, _, err = laps_command(*OPTIONS[:-1])
    assert code == 1 and "nothing was removed" in err and "observe a|2026-11-21-05:00" in err
    assert fresh.store.files("") == files


def test_what_was_written_while_it_asks_is_not_overlooked(fresh, instance, laps_command, monkeypatch):
    later = fresh.store.partition_path(tables.KEYFRAMES, CameraHour("a", FIVE))

    def written(*_: Any, **__: Any) -> bool:
        fresh.store.write_table(tables.KEYFRAMES, later, rows_table(tables.KEYFRAMES, []))
        return True

    monkeypatch.setattr("click.confirm", written)
    code, _, err = laps_command(*OPTIONS[:-1])
    assert code == 1 and "it has changed while this was asked" in err and fresh.store.exists(later)


def test_the_rest_of_an_hour_before_a_first_hour_that_was_moved_cannot_be_made_again(
    fresh, instance, laps_command, monkeypatch
):
    monkeypatch.delenv("LAPS_FIRST_HOUR", raising=False)
    moved = store_settings(fresh.store) | {"first_hour": "2026-11-21T07:00:00Z"}
    fresh.store.write_json(SETTINGS, moved)
    code, out, err = laps_command(*OPTIONS[:-1])
    assert code == 1 and "it lies before the store's first hour" in out
    assert "cannot be made again" in err and "nothing was removed" in err


def test_what_runs_printed_goes_with_them(fresh, instance, laps_command):
    ended = add_run(instance, "observe", "a|2026-11-21-05:00", dg.DagsterRunStatus.SUCCESS)
    other = add_run(instance, "observe", "b|2026-11-21-05:00", dg.DagsterRunStatus.SUCCESS)
    printed = [Path(instance.storage_directory(), run_id, "compute_logs") for run_id in (ended, other)]
    for folder in printed:
        folder.mkdir(parents=True)
        (folder / "step.out").write_text("decoding /recordings/a.mp4")
    code, _, err = laps_command(*OPTIONS)
    assert code == 0, err
    assert [folder.exists() for folder in printed] == [False, True]


def test_runs_go_before_files_so_that_a_killed_command_leaves_none(fresh, instance, laps_command, monkeypatch):
    ended = add_run(instance, "observe", "a|2026-11-21-05:00", dg.DagsterRunStatus.SUCCESS)
    other = add_run(instance, "observe", "a|2026-11-21-06:00", dg.DagsterRunStatus.SUCCESS)

    def killed(*_: Any) -> None:
        raise StoreError("cannot be deleted")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "delete_files", killed)
        code, out, err = laps_command(*OPTIONS)
    assert code == 1 and "cannot be deleted" in err and "removed  1 runs" in out
    assert [run.run_id for run in instance.get_runs()] == [other]
    code, out, err = laps_command(*OPTIONS)
    assert code == 0 and ended not in out, err
