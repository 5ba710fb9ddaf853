"""What nobody may see is nowhere to be seen, and what was forgotten does not come back: through Dagster."""

from __future__ import annotations

import base64
import io
import re
import tarfile
from pathlib import Path
from typing import BinaryIO

import av
import cv2
import dagster as dg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.clips import clips
from assets.partitions import multi_partition_key
from laps.cameras import Camera
from laps.clips import cut_clip
from laps.keyframes import make_keyframe, read_picture
from laps.regions import cover
from laps.tables import CLIPS, KEYFRAMES, KEYPOINT_TRACKS, RAW_VIDEO
from laps.timegrid import NS_PER_S, CameraHour, SampleGrid, from_datetime, parse_utc
from laps.video import decode
from laps_dagster.cli.backfill import register_cameras
from laps_dagster.coverage import hour_states
from laps_dagster.instance import open_instance
from laps_dagster.runs import Task, execute
from laps_dagster.stages import SEGMENT, TRACK, OutOfDate
from resources.cameras import Cameras
from resources.configured import default_resources
from resources.curation import Selection, choose
from resources.datasets import Format, write_dataset
from resources.freshness import registrations
from resources.recordings import Recordings
from resources.reporting import render_report
from resources.store import Store
from tests.export_store import ExportStore
from tests.videos import write_video

HOUR = CameraHour.parse("a|2026-11-21-05:00")
# Somewhat more than what is looked at: compression carries what is beside a region a few pixels into it.
STRIP = (0.0, 0.0, 1.0, 0.4)
FIVE = parse_utc("2026-11-21T05:00:00Z")
# What compression makes of an even grey.
NOISE = 12


def is_grey(picture: np.ndarray) -> bool:
    """Whether nothing can be seen in the upper quarter of a picture."""
    strip = picture[: int(0.25 * picture.shape[0])].astype(int)
    return bool((abs(strip - 128) <= NOISE).all())


def pictures(mp4: bytes) -> list[np.ndarray]:
    """All pictures in an mp4, also hidden ones."""
    with av.open(io.BytesIO(mp4), "r", options={"ignore_editlist": "1"}) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def due(store: Store, stage, hours: list[CameraHour], release: str = "") -> list[CameraHour]:
    registered = registrations(Recordings(store), {hour.camera for hour in hours})
    return OutOfDate(store, release, registered).hours(stage, hours)


def gone(uri: str) -> BinaryIO:
    raise FileNotFoundError(uri)


def cut_clips() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("cameras", ["a", "b"])
        key = multi_partition_key(HOUR)
        assert dg.materialize([clips], instance=instance, partition_key=key, resources=default_resources()).success


def test_a_blurred_region_is_grey_wherever_pictures_are_stored(fresh: ExportStore, monkeypatch, tmp_path):
    store, release = fresh.store, fresh.release
    monkeypatch.setenv("LAPS_STORE", store.root)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")
    register_cameras(["a", "b"])
    assert not any(is_grey(one) for one in pictures(store.read_bytes(store.files("clip_files", ".mp4")[0])))
    Cameras(store).write(Camera("a", blur_regions=(STRIP,)))
    assert execute(Task("track", HOUR.key)).ok
    cut_clips()
    kept = [read_picture(jpeg) for jpeg in store.read_partition(KEYFRAMES, HOUR)["jpeg"].to_pylist()]
    assert len(kept) >= 20 and all(map(is_grey, kept))
    rows = store.read_partition(CLIPS, HOUR, release.name).to_pylist()
    assert len(rows) == 5 and {row["lead_in_s"] for row in rows} == {0.0}
    for row in rows:
        shown = pictures(store.read_bytes(row["clip_path"]))
        assert len(shown) == row["frame_count"] and all(map(is_grey, shown))
        assert shown[0][50:].std() > 10, "the rest is there"
    chosen = choose(store, release, Selection(cameras=("a",), stop="2026-11-21T06:00:00Z"))
    write_dataset(store, release, chosen, Format("webdataset"), tmp_path / "set", name="set")
    with tarfile.open(tmp_path / "set" / "train-000000.tar") as shard:
        exported = [shard.extractfile(one).read() for one in shard.getmembers() if one.name.endswith(".mp4")]
    assert len(exported) == 5 and all(is_grey(one) for mp4 in exported for one in pictures(mp4))
    monkeypatch.setattr("resources.reporting._map_points", lambda *_: [])
    monkeypatch.setattr("resources.reporting._settings", lambda *_: {})
    page = render_report(store, release)
    jpegs = [base64.b64decode(text) for text in re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", page)]
    assert jpegs and all(is_grey(cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_COLOR)) for one in jpegs)
    # Cut again when the video is gone, what was cut stays; but not what was cut with other regions.
    monkeypatch.setattr("assets.clips.open_uri", gone)
    mp4s = store.files("clip_files", ".mp4")
    cut_clips()
    assert (
        store.read_partition(CLIPS, HOUR, release.name).to_pylist() == rows
        and store.files("clip_files", ".mp4") == mp4s
    )
    # Hours that were made with other regions are to be made again, the pictures from the video.
    assert due(store, TRACK, [HOUR]) == []
    Cameras(store).write(Camera("a"))
    assert due(store, TRACK, [HOUR]) == [HOUR] and HOUR in due(store, SEGMENT, [HOUR], release.name)
    cut_clips()
    assert {row["status"] for row in store.read_partition(CLIPS, HOUR, release.name).to_pylist()} == {"failed"}
    assert not set(store.files("clip_files", ".mp4")) & {row["clip_path"] for row in rows}


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_what_is_stored_depends_on_nothing_in_a_region(data):
    """Two scenes that differ in the region alone give the same keyframe and the same clip, byte by byte."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    left, top = data.draw(st.tuples(*[st.floats(0, 0.8)] * 2))
    region = (left, top, data.draw(st.floats(left + 0.1, 1)), data.draw(st.floats(top + 0.1, 1)))
    width, height = data.draw(st.sampled_from([(96, 64), (64, 96), (288, 192)]))
    # Brightness and the two colours, which are stored for two by two pixels: such a pair belongs to the region where a
    # part of it does.
    one = [rng.integers(16, 236, (height // n, width // n), dtype=np.uint8) for n in (1, 2, 2)]
    other = [plane.copy() for plane in one]
    for plane, n in zip(other, (1, 2, 2), strict=True):
        rows = slice(int(region[1] * height) // 2 * 2 // n, -(-int(np.ceil(region[3] * height)) // 2) * 2 // n)
        columns = slice(int(region[0] * width) // 2 * 2 // n, -(-int(np.ceil(region[2] * width)) // 2) * 2 // n)
        plane[rows, columns] = 251 - plane[rows, columns]
    stored = []
    for planes in (one, other):
        video = io.BytesIO()
        # Without loss, so that the recording itself carries nothing over the region's edges.
        with av.open(video, "w", format="matroska") as container:
            stream = container.add_stream("ffv1", rate=10)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            content = np.concatenate([plane.reshape(-1) for plane in planes]).reshape(-1, width)
            for index in range(2):
                frame = av.VideoFrame.from_ndarray(content, format="yuv420p")
                frame.pts = index
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        frame = next(decode(video, name="v", recording_start_ns=FIVE, from_ns=FIVE, to_ns=FIVE + NS_PER_S))
        out = io.BytesIO()
        cut_clip(
            video,
            out,
            name="v",
            recording_start_ns=FIVE,
            start_ns=FIVE,
            end_ns=FIVE + NS_PER_S // 4,
            covered=[region],
        )
        stored.append((make_keyframe(0, frame, short_side_px=48, covered=[region]).jpeg, out.getvalue()))
    assert stored[0] == stored[1]


def test_a_picture_without_regions_is_as_it_was():
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert cover(picture, []) is picture
    assert (cover(picture, [(0, 0, 1, 1)]) == 128).all() and picture[0, 0, 1] == 1


@pytest.fixture
def two_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Forty seconds across an hour, tracked."""
    for name, value in (("LAPS_STORE", "store"), ("DAGSTER_HOME", "dagster"), ("LAPS_LANDING", "landing")):
        monkeypatch.setenv(name, str(tmp_path / value))
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")
    store = Store()
    video = write_video(tmp_path / "v_20260105T085940Z.mp4", seconds=40.0, fps=10, width=96, height=64)
    Recordings(store).register(str(video), "cam1")
    register_cameras(["cam1"])
    for hour in ("08", "09"):
        assert execute(Task("track", f"cam1|2026-01-05-{hour}:00")).ok
    return store


def test_what_was_forgotten_does_not_come_back_and_the_rest_does(two_hours: Store, laps_command):
    store, grid = two_hours, SampleGrid()
    hours = [CameraHour.parse(f"cam1|2026-01-05-{hour}:00") for hour in ("08", "09")]
    start_ns, stop_ns = parse_utc("2026-01-05T08:59:50Z"), parse_utc("2026-01-05T08:59:59.500Z")
    before = {hour: store.read_partition(KEYFRAMES, hour).to_pylist() for hour in hours}
    options = ["forget", "--camera", "cam1", "--from", "2026-01-05T08:59:50Z", "--to", "2026-01-05T08:59:59.500Z"]
    code, out, err = laps_command(*options, "--reason", "asked for", "--yes")
    assert code == 0, err
    assert f"keyframes: {sum(map(len, before.values()))} rows, 2 files removed" in out
    assert "removed  2 runs" in out and "v_20260105T085940Z.mp4" in out
    with open_instance() as instance:
        assert not instance.get_runs()
        assert not instance.get_materialized_partitions(dg.AssetKey("keyframes"))
    assert due(store, TRACK, hours) == hours
    assert all(state.lacking for state in hour_states(store, hours))
    for hour in hours:
        assert execute(Task("track", hour.key)).ok
    assert due(store, TRACK, hours) == []
    after = {hour: store.read_partition(KEYFRAMES, hour).to_pylist() for hour in hours}
    for hour in hours:
        kept = [row for row in before[hour] if not start_ns <= from_datetime(row["time"]) < stop_ns]
        assert [row["sample"] for row in after[hour]] == [row["sample"] for row in kept]
        assert [row["jpeg"] for row in after[hour]] == [row["jpeg"] for row in kept]
        tracks = store.read_partition(KEYPOINT_TRACKS, hour, columns=["end_sample", "frame_times_ns"]).to_pylist()
        assert len(tracks) > 10
        for row in tracks:
            first_ns = grid.time_ns(row["end_sample"] - grid.window + 1)
            assert grid.time_ns(row["end_sample"]) < start_ns or first_ns >= stop_ns
            assert not any(start_ns <= time_ns < stop_ns for time_ns in row["frame_times_ns"])
    reasons = [row["reason"] for row in store.read_partition(RAW_VIDEO, hours[0]).to_pylist() if not row["used"]]
    assert any("asked for" in (reason or "") for reason in reasons)
    # The same file, offered again under another name: its footage is not used either.
    again = Path(Recordings(store).of_camera("cam1")[0]["uri"])
    again.with_name("again_20260105T085940Z.mp4").write_bytes(again.read_bytes())
    Recordings(store).register(str(again.with_name("again_20260105T085940Z.mp4")), "cam1")
    again.unlink()
    assert due(store, TRACK, hours) == hours
