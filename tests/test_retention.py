"""How long tables are kept: what is removed, what stays, and that what went is not missing."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from laps.errors import InputError, StoreError
from laps.tables import (
    CLIPS,
    CLUSTER_ASSIGNMENTS,
    KEYFRAMES,
    KEYPOINT_TRACKS,
    LATENT_STREAM,
    RAW_VIDEO,
    SEGMENTS,
    TABLES,
)
from laps.timegrid import HOUR_NS, NS_PER_S, CameraHour, now_ns
from laps_dagster.coverage import hour_states
from laps_dagster.retention import apply_retention
from laps_dagster.stages import OBSERVE, SEGMENT, OutOfDate
from resources.configured import default_resources
from resources.forget import plan
from resources.forgotten import Forgotten
from resources.freshness import registrations
from resources.hour_files import clip_folder
from resources.models import CALIBRATION, CLUSTER_MODEL, TOKENIZER, ModelRegistry
from resources.recordings import Recordings
from resources.reporting import missing_hours, survey
from resources.retention import KEPT, RETENTION, Retention, apply, over_age, set_days
from resources.settings import store_settings
from resources.store import Store, rows_table
from tests.test_forget import rows_of
from tests.videos import write_video

DAY = 24 * HOUR_NS
AGES = (40, 20, 1)


def hour_of_age(days: int) -> CameraHour:
    """An hour that ended so many days ago, and some hours."""
    return CameraHour.of("a", now_ns() - days * DAY - 3 * HOUR_NS)


HOURS = [hour_of_age(days) for days in AGES]
OLD, MIDDLE, NEW = HOURS


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Hours of three ages, with rows in every table, made in order after their recordings and models."""
    monkeypatch.setenv("LAPS_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2020-01-01T00:00:00Z")
    store = Store()
    store_settings(store)
    registry = ModelRegistry(store)
    draft = registry.open_draft("made by a test")
    for slot, model_id, camera in (
        (TOKENIZER, "t1", None),
        (CALIBRATION, "c1", "a"),
        ("embedder", "e1", None),
        ("encoder", "v1", None),
        (CLUSTER_MODEL, "k1", None),
    ):
        registry.fill(draft, slot, model_id, camera)
    for place, hour in enumerate(HOURS):
        video = write_video(tmp_path / f"{place}.mp4", seconds=4, fps=5, width=64, height=48)
        Recordings(store).register(str(video), "a", hour.hour_ns)
    release = registry.release(draft.name)
    ids = {"tokenizer_id": "t1", "calibration_id": "c1", "embedder_id": "e1", "encoder_id": "v1"}
    for number, table in enumerate(table for table in TABLES.values() if table.partitioned == "camera_hour"):
        for hour in (*HOURS, *(hour.next for hour in HOURS)):
            rows = [row | {name: ids[name] for name in ids if name in row} for row in rows_of(table, "a", hour.hour_ns)]
            rows = [row | {"cluster_model_id": "k1"} if "cluster_model_id" in row else row for row in rows]
            path = store.partition_path(table, hour, release.model_of(table))
            store.write_table(table, path, rows_table(table, rows))
            written_s = time.time() + 10 * number  # each after those that it is made from
            os.utime(store.full_path(path), (written_s, written_s))
    return store


def tables_of(store: Store, hour: CameraHour) -> set[str]:
    release = ModelRegistry(store).release("r1")
    hour_tables = [table for table in TABLES.values() if table.partitioned == "camera_hour"]
    return {table.name for table in hour_tables if store.has_partition(table, hour, release.model_of(table))}


def due(store: Store) -> list[CameraHour]:
    stale = OutOfDate(store, "r1", registrations(Recordings(store), ["a"]))
    return sorted({hour for stage in (OBSERVE, SEGMENT) for hour in stale.hours(stage, HOURS)})


def test_each_table_goes_at_its_own_age_and_nothing_else_does(store):
    every = tables_of(store, NEW)
    set_days(store, "keypoint_tracks", 10)
    set_days(store, "keyframes", 30)
    set_days(store, "clips", 0)
    before = store.files("")
    assert {one.table: one.hours for one in apply(store, dry_run=True)} == {
        "keypoint_tracks": 4, "keyframes": 2, "clips": 6
    }  # fmt: skip
    assert store.files("") == before
    apply(store)
    assert tables_of(store, OLD) == every - {"keypoint_tracks", "keyframes", "clips"}
    assert tables_of(store, MIDDLE) == every - {"keypoint_tracks", "clips"}
    assert tables_of(store, NEW) == every - {"clips"}
    assert apply(store) == []


def test_only_days_that_may_be_over_age_are_listed_and_none_is_left_empty(store, monkeypatch):
    """Millions of clips lie in the others."""
    set_days(store, "keyframes", 30)
    set_days(store, "clips", 30)
    listed = []
    really = Store.listing
    monkeypatch.setattr(Store, "listing", lambda self, folder: listed.append(folder) or really(self, folder))
    assert {one.table: one.hours for one in apply(store)} == {"keyframes": 2, "clips": 2}
    days = {hour.date for hour in (OLD, OLD.next)}
    assert listed and {folder.partition("date=")[2] for folder in listed if "compacted" not in folder} == days
    left = {path.name.removeprefix("date=") for path in Path(store.root, "keyframes").rglob("date=*")}
    assert left == {hour.date for hour in (MIDDLE, MIDDLE.next, NEW, NEW.next)}
    assert all(any(path.iterdir()) for path in Path(store.root, "clips").rglob("date=*"))


def test_copies_of_other_tables_stay(store):
    copy = f"compacted/segments/release=r1/camera=a/month={OLD.date[:7]}/x.parquet"
    store.write_bytes(copy, b"rows")
    set_days(store, "keyframes", 30)
    assert apply(store)[0].hours == 2
    assert store.exists(copy)
    set_days(store, "segments", 30)
    apply(store)
    assert not store.exists(copy)


def test_what_belongs_to_primitives_goes_with_them(store):
    every = tables_of(store, NEW)
    set_days(store, "segments", 30)
    set_days(store, "visual_features", 50)
    apply(store)
    assert tables_of(store, OLD) == {"raw_video", "keypoint_tracks", "keyframes", "latent_stream"}
    assert tables_of(store, MIDDLE) == every
    assert missing_hours(store, ModelRegistry(store).release("r1")) == []


def test_clips_go_with_their_files_and_copies_with_the_months(store):
    # Where clips are, and where earlier versions kept them.
    folders = [clip_folder(OLD, "r1"), store.partition_path(CLIPS, OLD, "r1").rpartition("/")[0]]
    copies = [f"compacted/clips/release=r1/camera={one}/month={OLD.date[:7]}/1.parquet" for one in "ab"]
    for path in (*(f"{folder}/x.mp4" for folder in folders), *copies):
        store.write_bytes(path, b"")
    set_days(store, "clips", 30)
    apply(store)
    assert [store.files(folder) for folder in folders] == [[], []]
    assert [store.exists(path) for path in copies] == [False, True]


def test_what_went_for_its_age_is_neither_missing_nor_out_of_date(store):
    assert due(store) == [] and all(state.complete for state in hour_states(store, HOURS, "r1"))
    set_days(store, "keypoint_tracks", 10)
    set_days(store, "segments", 30)
    apply(store)
    assert due(store) == []
    states = hour_states(store, HOURS, "r1")
    assert [(state.lacking, state.stale, state.removed) for state in states] == [
        ([], False, ["tracked", "clustered"]),
        ([], False, ["tracked"]),
        ([], False, []),
    ]
    # What can be made is still seen to be missing; what needs what went is not.
    store.delete(store.partition_path(LATENT_STREAM, MIDDLE, "t1"))
    assert due(store) == []
    store.delete(store.partition_path(CLUSTER_ASSIGNMENTS, NEW, "r1"))
    assert due(store) == [NEW]
    # Allowed for longer, they are missing again, and made again where the video is there.
    set_days(store, "keypoint_tracks", None)
    assert MIDDLE in due(store) and OLD in due(store)


def test_an_hour_without_features_is_counted_in_the_report_and_not_called_incomplete(store):
    release = ModelRegistry(store).release("r1")
    assert not survey(store, release).left_out
    store.delete(store.partition_path(TABLES["visual_features"], OLD, "r1"))
    assert set(survey(store, release).left_out) == {OLD.key}
    set_days(store, "visual_features", 30)
    set_days(store, "segment_embeddings", 30)
    apply(store)
    surveyed = survey(store, release)
    assert not surveyed.left_out and len(surveyed.hours) == 6
    (old,) = [one for one in surveyed.hours if one.hour == OLD]
    assert len(old.labels) == 10 and len(old.seen) == 0 and not old.embedded


def test_forgetting_says_what_age_keeps_from_coming_back(store, monkeypatch):
    time_ = Forgotten("a", MIDDLE.start_ns + 1000, MIDDLE.start_ns + 2000)
    for table in ("keypoint_tracks", "keyframes", "latent_stream"):
        set_days(store, table, 10)
        assert plan(store, time_).lost[MIDDLE] == f"{table} of that age are not kept (laps retention)"
        assert plan(store, Forgotten("a", NEW.start_ns + 1000, NEW.start_ns + 2000)).lost == {}
        set_days(store, table, None)
    # Primitives are made from the hour before as well, and tracks are not.
    tomorrow_s = (MIDDLE.start_ns + DAY) / NS_PER_S
    for table, lost in (("keypoint_tracks", set()), ("keyframes", {MIDDLE}), ("latent_stream", {MIDDLE})):
        kept = Retention({table: 1}, now_s=tomorrow_s)
        monkeypatch.setattr(Retention, "of", lambda _, kept=kept: kept)
        assert set(plan(store, time_).lost) == lost


def test_the_job_applies_what_is_set(store):
    set_days(store, "keyframes", 30)
    assert apply_retention.execute_in_process(resources=default_resources()).success
    assert not store.has_partition(KEYFRAMES, OLD) and store.has_partition(KEYFRAMES, NEW)


def test_days_are_kept_and_refused_where_they_make_no_sense(tmp_path):
    store = Store(str(tmp_path))
    assert list(over_age(store, Retention.of(store))) == []
    set_days(store, "keyframes", 30)
    set_days(store, "clips", 90)
    set_days(store, "keyframes", None)
    assert Retention.of(store).days == {"clips": 90}
    with pytest.raises(InputError, match="no days to set for 'raw_video'"):
        set_days(store, "raw_video", 3)
    with pytest.raises(InputError, match="no number of days"):
        set_days(store, "clips", -1)
    assert Retention({"segments": 10}).days_of(CLIPS) == 10 and Retention({"segments": 10}).days_of(KEYFRAMES) is None
    assert {SEGMENTS, CLIPS, KEYPOINT_TRACKS} <= KEPT.keys() and RAW_VIDEO not in KEPT
    store.write_bytes(RETENTION, json.dumps({"days": {"clips": "many"}}).encode())
    with pytest.raises(StoreError, match="laps retention set"):
        Retention.of(store)


def test_the_command_shows_sets_and_applies(store, laps_command):
    assert laps_command("retention", "set", "keyframes", "30")[0] == 0
    code, out, _ = laps_command("retention")
    assert code == 0 and "keyframes             30 days" in out and "clips                 kept for ever" in out
    code, out, _ = laps_command("retention", "apply", "--dry-run")
    assert code == 0 and out == "would remove  keyframes: 2 hours, 2 files\n"
    assert laps_command("retention", "apply")[1] == "removed  keyframes: 2 hours, 2 files\n"
    assert laps_command("retention", "apply")[1] == "nothing is over age\n"
    assert laps_command("retention", "set", "keyframes", "soon")[0] == 2
    assert laps_command("retention", "set", "keyframes", "forever")[0] == 0
