"""Watching the landing zone: each file is offered once for each of its states, and the hours it touches wait."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import resources.landing
from laps.errors import StoreError, UnreachableError
from laps.timegrid import HOUR_NS, CameraHour, parse_utc
from resources.landing import LandingZone, Look
from resources.recordings import Recordings
from resources.store import Store
from tests.s3 import S3, s3, s3_server
from tests.videos import write_video

__all__ = ["s3", "s3_server"]

FIVE = parse_utc("2026-01-05T05:00:00Z")
LATER = parse_utc("2026-01-06T00:00:00Z")


@pytest.fixture
def landing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")
    folder = tmp_path / "landing"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "a.mp4", seconds=2, fps=10, width=64, height=48)


def zone(landing: Path, **options: float) -> LandingZone:
    """A new process's view: what it knows it has from the store."""
    store = Store(str(landing.with_name("store")))
    return LandingZone(Recordings(store, str(landing)), **{"stable_s": 0.0, "quiet_s": 0.0, **options})


def land(video: Path, landing: Path, name: str) -> Path:
    target = landing / name
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(video, target))


def hours(*texts: str) -> list[CameraHour]:
    return [CameraHour.parse(f"cam1|2026-01-05-{text}") for text in texts]


def ready(looked: LandingZone) -> list[CameraHour]:
    return list(looked.ready_hours(LATER, 100))


def test_a_file_is_offered_once_whoever_looks(landing: Path, video: Path) -> None:
    land(video, landing, "cam1/20260105T051000Z.mp4")
    land(video, landing, "cam2/20260105T051000Z.mp4")
    look = zone(landing).look()
    assert (look.files, len(look.registered)) == (2, 2)
    again = zone(landing).look()
    assert (again.registered, again.left, again.digest) == ([], 0, look.digest)
    register = Recordings(Store(str(landing.with_name("store"))))
    before = [register.of_camera(camera) for camera in ("cam1", "cam2")]
    # Without its memory it looks at everything again, and no row is written a second time.
    forgetful = zone(landing)
    forgetful.store.delete(forgetful.path)
    assert len(forgetful.look().registered) == 2
    assert [register.of_camera(camera) for camera in ("cam1", "cam2")] == before


def test_the_hours_of_a_file_wait_with_the_one_after(landing: Path, video: Path) -> None:
    land(video, landing, "cam1/20260105T051000Z.mp4")
    looked = zone(landing)
    looked.look()
    assert ready(looked) == hours("05:00", "06:00")
    assert list(looked.ready_hours(FIVE + HOUR_NS, 100)) == hours("05:00"), "an hour that is not over waits"
    assert not zone(landing, quiet_s=600.0).ready_hours(LATER, 100), "more files of the hour may come"
    looked.done_with(hours("05:00"))
    assert ready(zone(landing)) == hours("06:00")


def test_an_hour_has_another_state_for_each_change_of_its_recordings(landing: Path, video: Path) -> None:
    file = land(video, landing, "cam1/20260105T051000Z.mp4")
    (five,) = hours("05:00")

    def state() -> str:
        looked = zone(landing)
        looked.look()
        return looked.ready_hours(LATER, 100)[five]

    states = [state(), state()]
    assert states[0] == states[1]
    late = land(video, landing, "cam1/20260105T052000Z.mp4")
    states.append(state())
    file.with_name(f"{file.name}.json").write_text(json.dumps({"start": "2026-01-05T05:30:00Z"}))
    states.append(state())
    os.utime(late, (1, 1))
    states.append(state())
    assert len(set(states)) == 4
    land(video, landing, "cam1/20260105T081000Z.mp4")
    assert state() == states[-1], "another hour's file changes nothing here"


def test_a_start_that_is_corrected_touches_the_hour_that_it_leaves(landing: Path, video: Path) -> None:
    file = land(video, landing, "cam1/20260105T051000Z.mp4")
    looked = zone(landing)
    looked.look()
    looked.done_with(ready(looked))
    file.with_name(f"{file.name}.json").write_text(json.dumps({"start": "2026-01-05T09:30:00Z"}))
    looked = zone(landing)
    looked.look()
    assert ready(looked) == hours("05:00", "06:00", "09:00", "10:00")
    left, entered = looked.registrations(hours("05:00", "09:00")).values()
    assert left == entered and len(left) == 1, "both are made from the row that changed"
    looked.done_with(ready(looked))
    assert zone(landing).registrations(hours("05:00"))[hours("05:00")[0]] == []


def test_a_file_that_fills_the_preroll_touches_the_hour_after_itself(landing: Path, video: Path) -> None:
    land(video, landing, "cam1/20260105T055957Z.mp4")
    looked = zone(landing)
    looked.look()
    assert ready(looked) == hours("05:00", "06:00", "07:00")
    assert all(looked.registrations(hours("05:00", "06:00")).values())


def test_a_file_that_is_being_written_is_left_until_it_is_stable(
    landing: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_800_000_000.0]
    monkeypatch.setattr(resources.landing.time, "time", lambda: now[0])
    file = land(video, landing, "cam1/20260105T051000Z.mp4")
    whole = file.read_bytes()
    for size in (1000, 2000, 3000):
        file.write_bytes(whole[:size])
        look = zone(landing, stable_s=30.0).look()
        assert (look.left, look.registered, look.quarantined) == (1, [], {})
        now[0] += 40
    file.write_bytes(whole)
    assert zone(landing, stable_s=30.0).look().left == 1
    now[0] += 20
    assert zone(landing, stable_s=30.0).look().left == 1, "the same, but not for long enough"
    now[0] += 20
    assert zone(landing, stable_s=30.0).look().registered == [str(file)]


def test_one_bad_file_stops_no_other(landing: Path, video: Path) -> None:
    (landing / "cam1").mkdir()
    (landing / "cam1" / "a_20260105T040000Z.mp4").write_text("this is no video")
    land(video, landing, "No Camera/20260105T051000Z.mp4")
    land(video, landing, "20260105T051000Z.mp4")
    (landing / "cam1" / "b_20260105T043000Z.mp4").symlink_to(landing / "nowhere.mp4")
    good = land(video, landing, "cam1/z_20260105T051000Z.mp4")
    look = zone(landing).look()
    assert look.registered == [str(good)]
    assert list(look.quarantined) == [str(landing / "cam1" / "a_20260105T040000Z.mp4")]
    assert all(look.quarantined.values())
    assert any("cannot be a camera's name" in reason for reason in look.refused.values())
    assert any("lies in no camera's folder" in reason for reason in look.refused.values())
    assert zone(landing).look().registered == []


def test_what_was_refused_is_tried_again_later(landing: Path, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    land(video, landing, "20260105T051000Z.mp4")
    assert len(zone(landing).look().refused) == 1
    assert not zone(landing).is_idle
    assert zone(landing).look().refused == {}
    monkeypatch.setattr(resources.landing, "_RETRY_S", -1.0)
    assert len(zone(landing).look().refused) == 1


def test_a_look_ends_with_its_budget_and_the_next_goes_on(landing: Path, video: Path) -> None:
    for minute in range(10, 14):
        land(video, landing, f"cam1/20260105T05{minute}00Z.mp4")
    first = zone(landing, budget_s=-1.0).look()
    assert (len(first.registered), first.left) == (1, 3), "one file is always opened, or a slow listing would stop all"
    second = zone(landing).look()
    assert (len(second.registered), second.left) == (3, 0)


def test_vanished_files_are_told_and_come_back_as_new(landing: Path, video: Path) -> None:
    kept = land(video, landing, "cam1/20260105T051000Z.mp4")
    gone = land(video, landing, "cam1/20260105T052000Z.mp4")
    zone(landing).look()
    away = gone.rename(landing.with_name("away.mp4"))
    assert zone(landing).look().vanished == [str(gone)]
    assert zone(landing).look().vanished == []
    away.rename(gone)
    assert zone(landing).look().registered == [str(gone)]
    # A share that is not mounted is no reason to forget everything.
    landing.rename(landing.with_name("unmounted"))
    landing.mkdir()
    look = zone(landing).look()
    assert look.missing and not look.vanished and "not mounted" in str(look)
    assert set(zone(landing).seen.files) == {str(kept), str(gone)}


def test_a_file_that_a_person_quarantined_stays_so_whatever_is_forgotten(landing: Path, video: Path) -> None:
    file = land(video, landing, "cam1/20260105T051000Z.mp4")
    looked = zone(landing)
    looked.look()
    looked.recordings.quarantine(str(file), "cam1", "it ends the decoder")
    looked.done_with(ready(looked))
    assert zone(landing).look().registered == []
    looked.store.delete(looked.path)
    look = zone(landing).look()
    assert (look.registered, look.quarantined) == ([], {str(file): "it ends the decoder"})
    assert ready(zone(landing)) == []
    os.utime(file, (5, 5))
    assert zone(landing).look().registered == [str(file)]
    assert ready(zone(landing)) == hours("05:00", "06:00")


def test_files_that_nobody_registered_are_found_by_one_listing(
    landing: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = (parse_utc("2026-01-05T00:00:00Z"), parse_utc("2026-01-06T00:00:00Z"))
    inside, outside = (parse_utc(f"2026-01-{day}T05:00:00Z") / 1e9 for day in ("05", "04"))

    def place(name: str, modified_s: float) -> str:
        file = land(video, landing, name)
        os.utime(file, (modified_s, modified_s))
        return str(file)

    place("cam1/20260105T051000Z.mp4", inside)
    zone(landing).look()
    left = [
        place("cam1/20260105T052000Z.mp4", outside),
        place("cam1/no_stamp.mp4", inside),
        place("cam2/no_stamp.mp4", inside),
        place("in_no_folder.mp4", inside),
    ]
    place("cam1/no_stamp_of_the_day_before.mp4", outside)
    land(video, landing, "cam1/20260105T235900Z.mp4")  # changed a moment ago: it is still written
    listed: list[str] = []
    really = Store.listing

    def listing(self: Store, folder: str) -> dict[str, dict[str, Any]]:
        listed.extend([self.root] if self.root == str(landing) else [])
        return really(self, folder)

    monkeypatch.setattr(Store, "listing", listing)
    assert sorted(zone(landing).not_registered(*day)) == sorted(left)
    assert listed == [str(landing)]
    zone(landing).look()
    assert zone(landing).not_registered(*day) == [str(landing / "in_no_folder.mp4")]
    landing.rename(landing.with_name("unmounted"))
    with pytest.raises(StoreError, match="is empty, and it held files before"):
        zone(landing).not_registered(*day)


def test_a_network_that_is_down_ends_the_look_and_a_single_file_does_not(
    landing: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [land(video, landing, f"cam1/20260105T05{minute}00Z.mp4") for minute in range(10, 16)]
    down = {str(files[0])}
    register = Recordings.register

    def unreachable(self: Recordings, uri: str, camera: str, **more: Any) -> dict[str, object]:
        if uri in down:
            raise UnreachableError("no route to host", where=uri)
        return register(self, uri, camera, **more)

    monkeypatch.setattr(Recordings, "register", unreachable)
    look = zone(landing).look()
    assert (list(look.refused), len(look.registered)) == ([str(files[0])], 5)
    down.update(map(str, files))
    for file in files:
        os.utime(file, (5, 5))
    with pytest.raises(UnreachableError):
        zone(landing).look()


def test_objects_appear_whole_and_are_listed_and_nothing_more(
    s3: S3, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")
    store = Store(f"{s3.url}/store")
    recordings = Recordings(store, f"{s3.url}/landing")

    def look(known_digest: str = "") -> Look:
        return LandingZone(Recordings(store, f"{s3.url}/landing"), stable_s=30.0).look(known_digest)

    def put(name: str, content: bytes) -> None:
        Store(recordings.landing).write_bytes(f"cam1/{name}", content)

    put("20260105T051000Z.mp4", video.read_bytes())

    def asked_for_sidecars() -> list[str]:
        return [
            r.method for r in s3.proxy.requests if r.path.split("?")[0].endswith(".json") and "landing/cam1" in r.path
        ]

    first = look()
    assert first.registered == [f"{recordings.landing}/cam1/20260105T051000Z.mp4"]
    s3.proxy.reset()
    assert look(first.digest).registered == []
    assert {request.method for request in s3.proxy.requests} <= {"GET", "HEAD"}
    assert not any("mp4" in request.path for request in s3.proxy.requests), "listed, and not opened"
    # Where the listing shows no sidecar none is looked for, and one that it shows is one request.
    put("20260105T052000Z.mp4", video.read_bytes())
    s3.proxy.reset()
    assert len(look(first.digest).registered) == 1 and asked_for_sidecars() == []
    put("20260105T051000Z.mp4.json", json.dumps({"start": "2026-01-05T07:10:00Z"}).encode())
    s3.proxy.reset()
    assert len(look(first.digest).registered) == 1 and asked_for_sidecars() == ["GET"]
    (row,) = [r for r in recordings.of_camera("cam1") if r["status"] == "ok" and "T051000Z" in r["uri"]]
    assert (row["start_time"].hour, row["start_source"]) == (7, "sidecar")


def test_a_damaged_memory_says_what_to_do(landing: Path) -> None:
    looked = zone(landing)
    looked.store.write_bytes(looked.path, b"what is this")
    with pytest.raises(StoreError, match="Delete it"):
        looked.look()
