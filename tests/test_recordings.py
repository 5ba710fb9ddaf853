"""Start times, quarantine, and which file covers which part of an hour."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pytest

from laps.errors import InputError, MediaError
from laps.recordings import (
    Sidecar,
    check_length,
    describe_hour,
    describe_range,
    registration_row,
    resolve_start,
    sidecar_name,
    sidecar_names,
)
from laps.sampling import covered, pieces_of
from laps.tables import RAW_VIDEO, RECORDINGS
from laps.timegrid import HOUR_NS, CameraHour, SampleGrid, from_datetime, parse_utc, to_datetime
from laps.video import VideoInfo
from tests.videos import write_video

S = 1_000_000_000
GRID = SampleGrid()
FIVE = parse_utc("2026-11-21T05:00:00Z")
SIX = FIVE + HOUR_NS
NOW = parse_utc("2026-11-23T00:00:00Z")
INFO = VideoInfo("mp4", "h264", "yuv420p", 128, 96, 0, 30.0, 2.0, 0.0, None)


def register(path: Path, start_ns: int | None, camera: str = "cam1", **more) -> dict:
    with path.open("rb") as file:
        return registration_row(
            file,
            camera=camera,
            uri=str(path),
            size_bytes=path.stat().st_size,
            modified_ns=more.pop("modified_ns", 1),
            etag=None,
            registered_ns=more.pop("registered_ns", NOW),
            option_ns=start_ns,
            sidecar=more.pop("sidecar", None),
            **more,
        )


def open_file(uri: str):
    return Path(uri).open("rb")


def describe(recordings: list[dict], hour_ns: int = FIVE, camera: str = "cam1", grid: SampleGrid = GRID) -> list[dict]:
    rows = describe_hour(CameraHour(camera, hour_ns), grid, recordings, open_file)
    RAW_VIDEO.validate(pa.Table.from_pylist(rows, schema=RAW_VIDEO.schema()))
    tiles = sorted((r for r in rows if r["used"] or r["status"] == "gap"), key=lambda row: row["start_time"])
    ends = [to_datetime(hour_ns) - timedelta(seconds=1.2 + grid.max_age_s), *(row["end_time"] for row in tiles)]
    assert [row["start_time"] for row in tiles] == ends[:-1]
    assert ends[-1] == to_datetime(hour_ns + HOUR_NS)
    return rows


def seconds(row: dict, origin_ns: int = FIVE) -> tuple[float, float]:
    return tuple(round((from_datetime(row[name]) - origin_ns) / S, 3) for name in ("start_time", "end_time"))


def summary(rows: list[dict], origin_ns: int = FIVE) -> list[tuple]:
    return [(row["status"], row["used"], *seconds(row, origin_ns)) for row in rows]


@pytest.fixture
def video(tmp_path):
    def make(name: str, **how) -> Path:
        return write_video(tmp_path / name, **{"width": 64, "height": 48, **how})

    return make


# -- start times ---------------------------------------------------------------------------------------------


def test_the_four_ways_in_their_order():
    info = VideoInfo(**{**INFO.__dict__, "creation_time_ns": 4 * S})
    name = "/landing/cam1/cam1_19700101T000003Z.mp4"
    sidecar = Sidecar(f"{name}.json", json.dumps({"start": "1970-01-01T00:00:02Z"}).encode())
    assert resolve_start(name, option_ns=1 * S, sidecar=sidecar, info=info) == (1 * S, "option")
    assert resolve_start(name, option_ns=None, sidecar=sidecar, info=info) == (2 * S, "sidecar")
    assert resolve_start(name, option_ns=None, sidecar=None, info=info) == (3 * S, "file_name")
    assert resolve_start("a.mp4", option_ns=None, sidecar=None, info=info) == (4 * S, "container")


@pytest.mark.parametrize(
    "name",
    [
        "cam1_20261121T050000Z.mp4",
        "20261121T050000Z.mp4",
        "x-2026-11-21T05-00-00Z.mkv",
        "2026-11-21_05-00-00Z.ts",
        "2026-11-21T05:00:00Z_front.mp4",
        "cam1_20261121_050000Z.mp4",
        "cam1_20261121T050000Z_20261121T060000Z.mp4",
        "s3://bucket/20200101T000000Z/cam1_20261121T050000Z.mp4",
    ],
)
def test_utc_stamps_in_file_names(name):
    assert resolve_start(name, option_ns=None, sidecar=None, info=INFO) == (FIVE, "file_name")


def test_a_stamp_may_have_a_fraction():
    start_ns, _ = resolve_start("cam1_20261121T050000.25Z.mp4", option_ns=None, sidecar=None, info=INFO)
    assert start_ns == FIVE + S // 4


@pytest.mark.parametrize(
    "name", ["cam1_20261121T050000.mp4", "cam1_20261321T050000Z.mp4", "1234520261121T050000Z.mp4", "cam1.mp4"]
)
def test_without_a_start_the_error_names_the_four_ways(name):
    with pytest.raises(InputError) as caught:
        resolve_start(name, option_ns=None, sidecar=None, info=INFO)
    for way in ("--start", f"{name}.json", "file name", "creation time in the container"):
        assert way in str(caught.value)
    assert ("does not end in Z" in str(caught.value)) == ("1121T050000.mp4" in name)


BAD_SIDECARS = [
    b"{", b'{"start": 5}', b'{"start": "2026-11-21T05:00:00"}', b'{"start": "yesterday"}', b'{"start": ""}',
    b'{"start": "0001-01-01T00:00:00+05:00"}', '{"start": "caf\u00e9"}'.encode("latin-1"), b"\xff\xfe\x00",
]  # fmt: skip


@pytest.mark.parametrize("content", [*BAD_SIDECARS, b"[]", b"{}"])
def test_a_sidecar_that_cannot_be_used_is_an_error_and_not_passed_over(content):
    name = "cam1_20261121T050000Z.mp4"
    with pytest.raises(InputError, match=r"^cam1_20261121T050000Z\.mp4\.json: .*sidecar"):
        resolve_start(name, option_ns=None, sidecar=Sidecar(f"{name}.json", content), info=INFO)


@pytest.mark.parametrize("content", BAD_SIDECARS)
def test_errors_name_the_sidecar_that_was_read(content):
    with pytest.raises(InputError, match=r"^a/20261121T050000Z\.json: .*sidecar"):
        resolve_start(
            "a/20261121T050000Z.mp4",
            option_ns=None,
            sidecar=Sidecar("a/20261121T050000Z.json", content),
            info=INFO,
        )


@pytest.mark.parametrize("content", [b"{}", b"[1, 2]", b'{"fps": 30}'])
def test_a_json_file_about_something_else_is_passed_over(content):
    name = "20261121T050000Z.mp4"
    unrelated = Sidecar("20261121T050000Z.json", content)
    assert not unrelated.concerns(name)
    assert resolve_start(name, option_ns=None, sidecar=unrelated, info=INFO) == (FIVE, "file_name")


def test_a_start_without_zone_is_an_error():
    with pytest.raises(InputError, match="zone"):
        parse_utc("2026-11-21T05:00:00")


def test_names_of_sidecars():
    assert sidecar_name("cam1_0500.mp4") == "cam1_0500.mp4.json"
    assert sidecar_names("a/cam1_0500.mp4") == ("a/cam1_0500.mp4.json", "a/cam1_0500.json")
    assert sidecar_names("a.b/cam1") == ("a.b/cam1.json", "a.b/cam1.json")


# -- registration --------------------------------------------------------------------------------------------


def test_a_good_file_becomes_a_row_of_the_table(video):
    path = video("cam1_20261121T050000Z.mp4", rotation=90, start_pts_s=1.5)
    row = register(path, None)
    RECORDINGS.validate(pa.Table.from_pylist([row], schema=RECORDINGS.schema()))
    assert (row["status"], row["reason"], row["start_source"]) == ("ok", None, "file_name")
    assert (row["start_time"], row["end_time"]) == (to_datetime(FIVE), to_datetime(FIVE + 2 * S))
    assert (row["width_px"], row["height_px"], row["rotation_deg"], row["pts_offset_s"]) == (48, 64, 90, 1.5)


def test_the_id_changes_with_the_content_and_nothing_else(video):
    path = video("a.mp4")
    same = {register(path, start)["recording_id"] for start in (FIVE, SIX)}
    assert len(same) == 1
    assert register(path, FIVE, modified_ns=2)["recording_id"] not in same
    assert register(path, FIVE, camera="cam2")["recording_id"] not in same


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"only text\n" * 300, "no video file"), ("cut", "cut off"), ("sound", "no video stream")],
)
def test_bad_media_is_quarantined_with_its_reason(video, tmp_path, content, reason):
    path = tmp_path / "bad.mp4"
    if content == "cut":
        whole = video("whole.mp4").read_bytes()
        content = whole[: len(whole) // 2]
    if content == "sound":
        import av

        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=48_000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.rate = 48_000
            container.mux([*stream.encode(frame), *stream.encode(None)])
    else:
        path.write_bytes(content)
    row = register(path, FIVE)
    RECORDINGS.validate(pa.Table.from_pylist([row], schema=RECORDINGS.schema()))
    assert row["status"] == "quarantined"
    assert reason in row["reason"]
    assert str(path) not in row["reason"], "the uri stands in its own column"
    # The start is known, so the hour tells of it.
    (corrupt,) = (r for r in describe([row]) if r["recording_id"])
    assert (corrupt["status"], corrupt["reason"]) == ("corrupt", f"{path}: {row['reason']}")
    assert {r["status"] for r in describe([row], SIX)} == {"gap"}


def test_starts_that_cannot_be_are_quarantined(video):
    path = video("a.mp4")
    no_start = register(path, None)
    assert no_start["status"] == "quarantined"
    assert "--start" in no_start["reason"]
    assert (no_start["start_time"], no_start["codec"]) == (None, "h264")
    future = register(path, NOW + S)
    assert "in the future" in future["reason"]
    # Begins in the past and would end in the future: the start must be wrong.
    unfinished = register(path, NOW - S)
    assert "would end at 2026-11-23T00:00:01Z, which is in the future" in unfinished["reason"]
    assert unfinished["status"] == "quarantined"
    assert register(path, NOW - 2 * S)["status"] == "ok"
    early = register(path, FIVE, first_hour_ns=SIX, first_hour_file="/store/settings.json")
    assert "write an earlier first_hour into /store/settings.json" in early["reason"]
    assert {row["status"] for row in (future, early)} == {"quarantined"}
    assert {r["status"] for r in describe([no_start])} == {"gap"}


@pytest.mark.parametrize("camera", ["a/b", "..", "", "Cam", "a|b"])
def test_a_camera_that_cannot_be_a_folder_is_an_error(camera):
    with pytest.raises(InputError, match="camera"):
        registration_row(
            io.BytesIO(b""),
            camera=camera,
            uri="x",
            size_bytes=0,
            modified_ns=0,
            etag=None,
            registered_ns=NOW,
        )


def test_a_recording_shorter_than_a_window_is_too_short():
    with pytest.raises(MediaError, match=r"^a: too short: 0\.50 s, a window needs at least 1\.6 s"):
        check_length(0.5, GRID, name="a")
    with pytest.raises(MediaError):
        check_length(1.5, GRID, name="a")
    check_length(1.6, GRID, name="a")
    check_length(0.8, SampleGrid(rate_hz=20), name="a")


def test_one_frame_is_a_recording(video):
    row = register(video("one.mp4", seconds=1 / 30), FIVE)
    assert row["status"] == "ok"
    rows = describe([row])
    assert [r["frame_count"] for r in rows if r["used"]] == [1]


# -- hours ---------------------------------------------------------------------------------------------------


def test_an_hour_without_recordings_is_one_gap(video):
    other = register(video("other.mp4"), FIVE, camera="cam2")
    assert summary(describe([])) == [("gap", False, -1.45, 3600.0)]
    assert summary(describe([other])) == [("gap", False, -1.45, 3600.0)]
    assert describe([other])[0]["recording_id"] == ""


def test_a_recording_across_the_hour_is_split_between_its_hours(video):
    row = register(video("a.mp4", seconds=6, start_pts_s=9.0), SIX - 3 * S)
    before, after = describe([row], FIVE), describe([row], SIX)
    assert summary(before) == [("gap", False, -1.45, 3597.0), ("ok", True, 3597.0, 3600.0)]
    assert summary(after, SIX) == [("ok", True, -1.45, 3.0), ("gap", False, 3.0, 3600.0)]
    used = before[1]
    assert (used["frame_count"], used["variable_rate"]) == (90, False)
    assert used["measured_fps"] == pytest.approx(30)
    assert (used["recording_start_ns"], used["pts_offset_s"]) == (SIX - 3 * S, 9.0)


def test_neighbours_within_a_frame_leave_no_gap(video):
    first = register(video("a.mp4", seconds=2), FIVE)
    for distance_s in (0, 0.02, 0.2):
        second = register(video("b.mp4", seconds=2), FIVE + 2 * S + round(distance_s * S))
        rows = describe([second, first])
        assert [r["status"] for r in rows] == ["gap", "ok", "ok", "gap"]
        assert rows[1]["end_time"] == rows[2]["start_time"]
    apart = register(video("b.mp4", seconds=2), FIVE + 3 * S)
    assert summary(describe([first, apart]))[1:4] == [
        ("ok", True, 0.0, 2.0),
        ("gap", False, 2.0, 3.0),
        ("ok", True, 3.0, 5.0),
    ]


def test_a_neighbour_beyond_the_hour_is_seen_from_its_hour(video):
    first = register(video("a.mp4", seconds=2), SIX - 2 * S)
    second = register(video("b.mp4", seconds=2), SIX + S // 50)
    assert summary(describe([first, second]), SIX)[-1] == ("ok", True, -2.0, 0.0)
    rows = summary(describe([first, second], SIX), SIX)
    assert rows[:2] == [("ok", True, -1.45, 0.02), ("ok", True, 0.02, 2.02)]


def test_a_seam_at_the_edge_of_the_range_is_no_gap(video):
    first = register(video("a.mp4", seconds=2), SIX - round(1.46 * S) - 59 * S // 30)
    second = register(video("b.mp4", seconds=4), SIX - round(1.44 * S))
    assert summary(describe([first, second], SIX), SIX)[0] == ("ok", True, -1.45, 2.56)


def test_the_earlier_start_keeps_an_overlap(video):
    early = register(video("early.mp4", seconds=4), FIVE)
    late = register(video("late.mp4", seconds=4), FIVE + 2 * S, registered_ns=NOW - 100 * S)
    rows = describe([late, early])
    assert [(r["status"], r["used"], *seconds(r)) for r in rows if r["recording_id"]] == [
        ("ok", True, 0.0, 4.0),
        ("overlap", False, 2.0, 4.0),
        ("ok", True, 4.0, 6.0),
    ]
    overlap = rows[2]
    assert overlap["uri"] == late["uri"]
    assert overlap["reason"] == f"{early['uri']} covers this time and is used instead, because it starts earlier"


def test_a_twin_and_a_file_inside_another_are_not_used(video):
    outer = register(video("outer.mp4", seconds=6), FIVE)
    inner = register(video("inner.mp4", seconds=2), FIVE + 2 * S)
    twin = register(video("twin.mp4", seconds=6), FIVE, registered_ns=NOW + S)
    rows = describe([twin, inner, outer])
    assert [r["uri"] for r in rows if r["used"]] == [outer["uri"]]
    assert sorted((r["uri"], *seconds(r)) for r in rows if r["status"] == "overlap") == [
        (inner["uri"], 2.0, 4.0),
        (twin["uri"], 0.0, 6.0),
    ]


def test_the_reason_for_an_overlap_says_which_part_of_the_rule_decided(video):
    names = ["b.mp4", "a.mp4", "c.mp4"]
    first, last, same = (register(video(name), FIVE, registered_ns=NOW + (name == "a.mp4") * S) for name in names)
    rows = describe([last, same, first])
    assert [r["uri"] for r in rows if r["used"]] == [first["uri"]]
    reasons = {r["uri"]: r["reason"] for r in rows if r["status"] == "overlap"}
    assert set(reasons) == {last["uri"], same["uri"]}
    by_registration = "starts at the same time and was registered earlier"
    by_name = "starts at the same time and its name sorts first"
    used = f"{first['uri']} covers this time and is used instead, because it"
    assert reasons[same["uri"]] == f"{used} {by_name}"
    assert reasons[last["uri"]].split("; ") == [
        f"{used} {by_registration}",
        f"{same['uri']} covers this time and is used instead, because it {by_registration}",
    ]


def test_a_late_file_that_starts_earlier_takes_the_overlap_over(video):
    before = register(video("before.mp4", seconds=4), FIVE + 2 * S)
    late = register(video("late.mp4", seconds=4), FIVE, registered_ns=NOW + S)
    rows = describe([before, late])
    assert [(r["uri"], *seconds(r)) for r in rows if r["used"]] == [
        (late["uri"], 0.0, 4.0),
        (before["uri"], 4.0, 6.0),
    ]


def test_another_recording_fills_a_hole(video):
    hole = [i / 30 for i in range(180) if not 60 <= i < 120]
    first = register(video("hole.mp4", pts_s=hole), FIVE)
    second = register(video("whole.mp4", seconds=6), FIVE + S // 100)
    rows = describe([first, second])
    used = [(Path(r["uri"]).name, *seconds(r)) for r in rows if r["used"]]
    assert used == [
        ("hole.mp4", 0.0, 1.977),
        ("whole.mp4", 1.977, 4.0),
        ("hole.mp4", 4.0, 5.977),
        ("whole.mp4", 5.977, 6.01),
    ]
    assert [r["status"] for r in rows].count("gap") == 2


def test_frames_far_apart_leave_a_gap(video):
    pts = [i / 30 for i in range(30)] + [3 + i / 30 for i in range(30)] + [4.2 + i / 30 for i in range(30)]
    row = register(video("a.mp4", pts_s=pts), FIVE)
    rows = describe([row])
    assert summary(rows)[1:-1] == [
        ("ok", True, 0.0, 1.024),  # the last frame stands for one mean frame interval
        ("gap", False, 1.024, 3.0),
        ("ok", True, 3.0, 5.224),
    ]
    assert "no frame for 2.033 s" in rows[2]["reason"]
    assert rows[3]["max_interval_s"] == pytest.approx(0.2333, abs=1e-3)
    assert rows[3]["variable_rate"]


def test_a_slow_camera_has_no_gaps(video):
    row = register(video("slow.mp4", fps=2, seconds=10), FIVE)
    rows = describe([row])
    assert summary(rows)[1:-1] == [("ok", True, 0.0, 10.0)]
    assert covered(rows, GRID, FIVE // GRID.step_ns, FIVE // GRID.step_ns + 110).tolist() == [True] * 100 + [False] * 10


def test_a_file_whose_frames_lie_before_its_start_is_told(video, tmp_path):
    """The first packet's time is damaged, and all the others come before it."""
    good = video("good.ts", seconds=4, fps=25)
    broken = tmp_path / "broken.ts"
    with av.open(str(good)) as source, av.open(str(broken), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(source.streams.video[0])):
            if packet.size:
                if number == 0:
                    packet.pts += round(30 / packet.time_base)
                packet.stream = stream
                target.mux(packet)
    row = register(broken, FIVE + 930 * S)
    assert row["status"] == "ok"
    rows = describe([row])
    (told,) = (one for one in rows if one["uri"] == row["uri"])
    assert (told["status"], told["used"]) == ("corrupt", False) and "timestamps are damaged" in told["reason"]
    assert seconds(told)[0] == 930


def test_a_slow_cameras_last_frame_before_a_range_is_shown_until_its_next_file(video):
    slow = register(video("slow.mp4", fps=0.5, seconds=10), FIVE - 10_450_000_000)
    following = register(video("next.mp4", fps=0.5, seconds=10), FIVE - 950_000_000)
    rows = describe([slow, following])
    assert [seconds(row) for row in rows if row["used"]] == [(-1.45, -0.95), (-0.95, 9.05)]


@pytest.mark.parametrize("seconds_before", [3000, 600, 30, 1])
def test_a_frame_whose_header_claims_hours_for_it_is_shown_as_long_as_any_other(video, tmp_path, seconds_before):
    """A damaged header made its file's only frame last until the next file, in every hour between."""
    broken = tmp_path / "broken.mp4"
    with av.open(str(broken), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
        for packet in (*stream.encode(frame), *stream.encode(None)):
            packet.duration = round(3 * 3600 / packet.time_base)
            container.mux(packet)
    alone = register(broken, FIVE - seconds_before * S)
    assert alone["nominal_fps"] < 1e-3
    alone["end_time"] = alone["start_time"]
    good = register(video("good.mp4", seconds=4, fps=25), FIVE)
    rows = describe([alone, good])
    used = [row for row in rows if row["used"] and row["uri"] == good["uri"]]
    assert [seconds(row) for row in used] == [(0, 4)]
    if seconds_before > 1:
        assert not any(row["used"] and row["uri"] == alone["uri"] for row in rows)
    shown = describe([alone, good], hour_ns=FIVE - HOUR_NS)
    assert [row["end_time"] - row["start_time"] for row in shown if row["used"]] == [timedelta(seconds=0.04)]


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv"])
def test_a_truncated_file_is_used_as_far_as_it_goes(video, name):
    how = {"container_options": {"movflags": "faststart"}} if name.endswith("mp4") else {}
    path = video(name, seconds=8, **how)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    row = register(path, FIVE)
    rows = describe([row])
    assert [r["status"] for r in rows] == ["gap", "truncated", "gap"]
    assert rows[1]["used"]
    start, end = seconds(rows[1])
    assert (start, rows[1]["frame_count"]) == (0.0, pytest.approx(end * 30, abs=3))
    assert "ends after" in rows[1]["reason"]
    assert "8.000 s" in rows[1]["reason"]
    assert rows[2]["reason"] == rows[1]["reason"]


def test_an_hour_lost_by_truncation_says_why(video):
    path = video("cut.mp4", seconds=8, container_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    row = register(path, SIX - 4 * S)
    rows = describe([row], SIX)
    assert [r["status"] for r in rows] == ["gap"]
    assert "although its container claims" in rows[0]["reason"]


def test_a_file_that_is_gone_or_changed_to_rubbish_harms_no_neighbour(video):
    good = register(video("good.mp4"), FIVE)
    gone, broken = video("gone.mp4"), video("broken.mp4")
    rows_of = [register(gone, FIVE + 10 * S), register(broken, FIVE + 20 * S), good]
    gone.unlink()
    broken.write_bytes(b"rubbish" * 100)
    rows = describe(rows_of)
    corrupt = [(Path(r["uri"]).name, r["used"], *seconds(r)) for r in rows if r["status"] == "corrupt"]
    assert corrupt == [("gone.mp4", False, 10.0, 12.0), ("broken.mp4", False, 20.0, 22.0)]
    assert [r["uri"] for r in rows if r["used"]] == [good["uri"]]


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), IsADirectoryError(21, "Is a directory"), OSError(40, "Loop")]
)
def test_a_local_file_that_cannot_be_opened_harms_no_neighbour(video, error):
    good, bad = register(video("good.mp4"), FIVE), register(video("bad.mp4"), FIVE + 10 * S)

    def forbidden(uri: str):
        if uri == bad["uri"]:
            raise error
        return open_file(uri)

    rows = describe_hour(CameraHour("cam1", FIVE), GRID, [good, bad], forbidden)
    (corrupt,) = (r for r in rows if r["status"] == "corrupt")
    assert (corrupt["uri"], *seconds(corrupt)) == (bad["uri"], 10.0, 12.0)
    assert error.strerror in corrupt["reason"] and "Make it readable" in corrupt["reason"]
    assert [r["uri"] for r in rows if r["used"]] == [good["uri"]]
    # A network that is down must not be stored as corrupt footage.
    remote = {**bad, "uri": "s3://bucket/bad.mp4"}
    bad["uri"] = remote["uri"]
    with pytest.raises(type(error)):
        describe_hour(CameraHour("cam1", FIVE), GRID, [good, remote], forbidden)


def test_superseded_rows_are_passed_over(video):
    row = register(video("a.mp4"), FIVE)
    moved = {**row, "status": "superseded", "reason": "superseded by another"}
    assert summary(describe([moved, register(Path(row["uri"]), SIX)])) == [("gap", False, -1.45, 3600.0)]
    other = {**moved, "start_time": to_datetime(FIVE + S), "end_time": to_datetime(FIVE + 3 * S)}
    assert summary(describe([other, row]))[1] == ("ok", True, 0.0, 2.0)


def test_files_without_timestamps_say_so(video):
    row = register(video("a.avi"), FIVE)
    used = next(r for r in describe([row]) if r["used"])
    assert "counting" in used["reason"]


def test_rows_survive_the_table_that_stores_them(video):
    rows = describe([register(video("a.mp4", seconds=6), SIX - 3 * S)], SIX)
    stored = pa.Table.from_pylist(rows, schema=RAW_VIDEO.schema()).to_pylist()
    assert pieces_of(stored) == pieces_of(rows)
    assert stored == rows


def test_any_range_uses_the_same_frames(video):
    """What is used at an instant does not depend on which range is described."""
    rng = np.random.default_rng(3)
    recordings = []
    for i in range(5):
        kept = np.sort(rng.choice(90, size=70, replace=False)) / 30 + (np.arange(70) > 40)
        start = FIVE + int(rng.integers(0, 10 * S))
        recordings.append(register(video(f"{i}.mp4", pts_s=[float(t) for t in kept - kept[0]]), start))
    one = describe_range("cam1", FIVE, FIVE + 20 * S, GRID, recordings, open_file)
    first, stop = FIVE // GRID.step_ns, (FIVE + 20 * S) // GRID.step_ns
    whole = covered(one, GRID, first, stop)
    assert 0.3 < whole.mean() < 1
    for start_s in range(2, 18, 3):
        a = FIVE + start_s * S
        rows = describe_range("cam1", a - 250_000_000, a + 3 * S, GRID, recordings, open_file)
        n = a // GRID.step_ns
        assert covered(rows, GRID, n, n + 30).tolist() == whole[n - first : n + 30 - first].tolist()
