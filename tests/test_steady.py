"""What changes while an hour is made from it: the hour is made again, and nothing that is out of date takes a place."""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import assets.retries
import laps.observe
import laps.recordings
from assets.retries import Steady
from laps import tables
from laps.cameras import Camera
from laps.errors import ChangedError
from laps.timegrid import CameraHour, to_datetime
from laps_dagster.cli.backfill import register_cameras
from laps_dagster.runs import Task, execute
from resources.cameras import Cameras
from resources.recordings import Recordings
from resources.store import Store
from tests.videos import write_video

HOUR = CameraHour.parse("cam1|2026-01-05-09:00")
GREY = (0.0, 0.0, 1.0, 0.5)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("LAPS_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")
    monkeypatch.setattr(assets.retries, "FIRST_WAIT_S", 0.0)
    store = Store()
    video = write_video(tmp_path / "a_20260105T090000Z.mp4", seconds=4)
    shutil.copyfile(video, tmp_path / "b_20260105T090100Z.mp4")
    Recordings(store).register(str(video), HOUR.camera)
    register_cameras([HOUR.camera])
    return store


def meanwhile(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, change: Any) -> list[bool]:
    """Something happens while a function is called for the first time; returns a list that grows with each call."""
    real, calls = getattr(module, name), list[bool]()

    def call(*args: Any, **kwargs: Any) -> Any:
        found = real(*args, **kwargs)
        calls.append(True)
        if len(calls) == 1:
            change()
        return found

    monkeypatch.setattr(module, name, call)
    return calls


@pytest.mark.parametrize(("module", "name"), [("laps.recordings", "describe_hour"), ("assets.raw_video", "publish")])
def test_a_recording_that_is_registered_while_its_hour_is_described_or_published_is_used(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    late = tmp_path / "b_20260105T090100Z.mp4"
    calls = meanwhile(
        monkeypatch, import_module(module), name, lambda: Recordings(store).register(str(late), HOUR.camera)
    )
    outcome = execute(Task("track", HOUR.key))
    assert outcome.ok, outcome.error
    assert len(calls) == 2
    used = [row["uri"] for row in store.read_partition(tables.RAW_VIDEO, HOUR).to_pylist() if row["used"]]
    assert str(late) in used


def test_a_recording_of_the_next_hour_makes_nobody_wait(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = Path(shutil.copyfile(tmp_path / "b_20260105T090100Z.mp4", tmp_path / "c_20260105T100100Z.mp4"))
    calls = meanwhile(
        monkeypatch, laps.recordings, "describe_hour", lambda: Recordings(store).register(str(later), HOUR.camera)
    )
    assert execute(Task("track", HOUR.key)).ok
    assert len(calls) == 1


def test_keyframes_that_were_published_without_a_region_are_taken_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody tries again, the hour is missing, and not up to date without the region."""
    seen: list[str] = []

    class Changing(Cameras):
        def read(self, camera: str) -> Camera:
            seen.append(camera)
            return Camera(camera, blur_regions=(GREY,) if len(seen) > 2 else ())

    monkeypatch.setattr(import_module("assets.keypoint_tracks"), "Cameras", Changing)
    monkeypatch.setattr(assets.retries, "MOST_RETRIES", 0)
    outcome = execute(Task("track", HOUR.key))
    assert not outcome.ok and "the regions to blur changed" in outcome.error
    assert not store.has_partition(tables.KEYFRAMES, HOUR)


def test_a_region_that_nobody_may_see_counts_from_when_it_is_set(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    grey = Camera(HOUR.camera, blur_regions=(GREY,))
    calls = meanwhile(monkeypatch, laps.observe, "observe", lambda: Cameras(store).write(grey))
    outcome = execute(Task("track", HOUR.key))
    assert outcome.ok, outcome.error
    assert len(calls) == 2
    assert outcome.metadata["keyframes"]["blurred_regions"] == [list(GREY)]


def test_what_goes_on_changing_is_not_published(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets.retries, "MOST_RETRIES", 1)
    monkeypatch.setattr(Recordings, "marks", lambda *_: {"a file": str(object())})
    row = {
        "camera": HOUR.camera,
        "status": "ok",
        "start_time": to_datetime(HOUR.start_ns),
        "end_time": to_datetime(HOUR.stop_ns),
    }
    monkeypatch.setattr(Recordings, "of_camera", lambda *_, **__: [{**row, "recording_id": object()}])
    monkeypatch.setattr(laps.recordings, "describe_hour", lambda *_, **__: [])
    outcome = execute(Task("track", HOUR.key))
    assert not outcome.ok and f"{HOUR.key}: its recordings changed while the hour was being made" in outcome.error
    assert not store.has_partition(tables.RAW_VIDEO, HOUR)


def test_a_step_looks_again_before_and_after_it_publishes() -> None:
    values = iter([1, 1, 2])
    taken_back: list[bool] = []
    steady = Steady(lambda: next(values), "the value", HOUR)
    steady.check(lambda: taken_back.append(True))
    assert not taken_back
    with pytest.raises(ChangedError, match="the value changed while the hour was being made"):
        steady.check(lambda: taken_back.append(True))
    assert taken_back
