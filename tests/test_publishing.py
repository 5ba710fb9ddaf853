"""An hour is published when its rows add up; otherwise it counts as not made, wherever that is asked."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from assets.checks import table_checks
from assets.partitions import CAMERAS, camera_hours, multi_partition_key
from laps.consistency import RULES
from laps.errors import SchemaError
from laps.forgotten import Forgotten
from laps.tables import KEYPOINT_TRACKS, LATENT_STREAM, RAW_VIDEO, TABLES
from laps.timegrid import CameraHour, SampleGrid, to_datetime
from laps_dagster.coverage import hour_states
from laps_dagster.stages import TRACK, OutOfDate
from resources.catalog import open_catalog
from resources.configured import StoreResource
from resources.forget import plan, remove
from resources.publishing import QUARANTINE, publish
from resources.release import ReleaseResource
from resources.retention import apply, set_days
from resources.settings import store_settings
from resources.store import Store, rows_table

HOUR = CameraHour.parse("cam1|2026-01-05-08:00")
GRID = SampleGrid()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")
    store = Store(str(tmp_path / "store"))
    store_settings(store)
    return store


def ranges(*spans_s: tuple[int, int]) -> pa.Table:
    """Rows of raw_video: used ranges of the hour, in seconds from its start."""
    return rows_table(
        RAW_VIDEO,
        [
            {
                "camera": HOUR.camera,
                "start_time": to_datetime(HOUR.start_ns + start * 10**9),
                "end_time": to_datetime(HOUR.start_ns + stop * 10**9),
                "status": "ok",
                "used": True,
                "recording_id": "r",
            }
            for start, stop in spans_s
        ],
    )


GOOD, OVERLAPPING = ranges((0, 60), (60, 120)), ranges((0, 60), (30, 120))


def test_rows_that_do_not_add_up_are_not_published_and_kept_with_the_reason(store: Store) -> None:
    path = store.partition_path(RAW_VIDEO, HOUR)
    with pytest.raises(SchemaError, match=r"cam1\|2026-01-05-08:00: the rows of raw_video do not add up: used ranges"):
        publish(store, RAW_VIDEO, HOUR, OVERLAPPING)
    assert not store.has_partition(RAW_VIDEO, HOUR)
    assert store.read_table(RAW_VIDEO, f"{QUARANTINE}/{path}").equals(OVERLAPPING)
    said = store.read_json(f"{QUARANTINE}/{path.rpartition('/')[0]}/reason.json")
    assert "used ranges overlap" in said["problems"][0] and said["set_aside_at"].endswith("Z")


def test_what_was_there_before_stays(store: Store) -> None:
    publish(store, RAW_VIDEO, HOUR, GOOD)
    before = store.read_bytes(store.partition_path(RAW_VIDEO, HOUR))
    with pytest.raises(SchemaError):
        publish(store, RAW_VIDEO, HOUR, OVERLAPPING)
    assert store.read_bytes(store.partition_path(RAW_VIDEO, HOUR)) == before


def test_codes_need_windows_that_they_come_from(store: Store) -> None:
    first, _ = GRID.hour_samples(HOUR.hour_ns)
    codes = rows_table(
        LATENT_STREAM,
        [
            {
                "camera": HOUR.camera,
                "sample": first + place,
                "time": to_datetime(GRID.time_ns(first + place)),
                "code": 7,
                "tokenizer_id": "t1",
            }
            for place in range(8)
        ],
    )
    window = {
        "camera": HOUR.camera,
        "end_sample": first + 3,
        "end_time": to_datetime(GRID.time_ns(first + 3)),
        "tracker_id": "flow",
        "image_width_px": 64,
        "image_height_px": 64,
        "frame_times_ns": [],
        "displacements": b"",
        "visible": b"",
        "visible_share": 1.0,
    }
    publish(store, KEYPOINT_TRACKS, HOUR, rows_table(KEYPOINT_TRACKS, [window]))
    publish(store, LATENT_STREAM, HOUR, codes.slice(0, 4), "t1")
    with pytest.raises(SchemaError, match=f"4 codes belong to no window of keypoint_tracks, the first at {first + 4}"):
        publish(store, LATENT_STREAM, HOUR, codes, "t1")


def checked(store: Store, name: str) -> dg.AssetCheckEvaluation:
    """The evaluation of a table's check for the hour, after a run that writes nothing."""
    (check,) = [one for one in table_checks if next(iter(one.check_keys)).name == f"{name}_adds_up"]

    @dg.asset(name=name, partitions_def=camera_hours)
    def table() -> None: ...

    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(CAMERAS, [HOUR.camera])
        result = dg.materialize(
            [table, check],
            instance=instance,
            partition_key=multi_partition_key(HOUR),
            resources={"store": StoreResource(root=store.root), "release": ReleaseResource()},
            raise_on_error=False,
        )
        (evaluation,) = result.get_asset_check_evaluations()
        return evaluation


def test_an_hour_whose_check_fails_counts_as_not_made(store: Store) -> None:
    publish(store, RAW_VIDEO, HOUR, GOOD)
    assert checked(store, "raw_video").passed and store.has_partition(RAW_VIDEO, HOUR)
    store.write_partition(RAW_VIDEO, HOUR, OVERLAPPING)  # past the door, as a restored backup
    evaluation = checked(store, "raw_video")
    assert not evaluation.passed and evaluation.blocking
    assert "used ranges overlap" in (evaluation.description or "")
    # Not done for `laps status`, not done for --only missing and the night, not shown by the catalog.
    (state,) = hour_states(store, [HOUR])
    assert "described" in state.lacking and not state.complete
    assert OutOfDate(store, "", {}).hours(TRACK, [HOUR]) == [HOUR]
    connection = open_catalog(store)
    assert connection.execute("select count(*) from raw_video").fetchall() == [(0,)]
    connection.close()
    assert store.exists(f"{QUARANTINE}/{store.partition_path(RAW_VIDEO, HOUR)}")


def test_forgetting_and_retention_reach_what_was_set_aside(store: Store) -> None:
    for table in ("keyframes", "raw_video"):
        for camera in ("cam1", "cam2"):
            hour = CameraHour(camera, HOUR.hour_ns)
            store.write_bytes(f"{QUARANTINE}/{store.partition_path(TABLES[table], hour)}", b"rows")
    set_days(store, "keyframes", 1)
    apply(store)
    assert [path.split("/")[1:3] for path in store.files(QUARANTINE)] == [
        ["raw_video", "camera=cam1"],
        ["raw_video", "camera=cam2"],
    ]
    list(remove(store, plan(store, Forgotten("cam1", HOUR.start_ns, HOUR.stop_ns))))
    assert [path.split("/")[2] for path in store.files(QUARANTINE)] == ["camera=cam2"]


def test_every_table_of_hours_has_a_rule() -> None:
    assert set(RULES) == {table for table in TABLES.values() if table.partitioned == "camera_hour"}
