"""Times that were forgotten: no frame of them is used or shown by a sample, and no clip holds one."""

from __future__ import annotations

import io
from pathlib import Path

import av
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laps.clip_set import cut_primitives
from laps.clips import MAX_LEAD_IN_S, ClipCutter
from laps.errors import InputError
from laps.forgotten import REACHES_BACK_NS, Forgotten, outside
from laps.recordings import describe_range
from laps.sampling import covered, pieces_of, sample_frames
from laps.tables import RAW_VIDEO
from laps.timegrid import HOUR_NS, NS_PER_S, SampleGrid, from_datetime, to_datetime
from tests.test_recordings import FIVE, open_file, register
from tests.videos import write_video

GRID = SampleGrid()
TENTH = NS_PER_S // 10
RATES = {"fast": 30, "slow": 1}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict]]:
    """Two recordings that overlap from 8 to 12 s, at a usual and a very slow rate."""
    folder = tmp_path_factory.mktemp("forgotten")

    def made(name: str, fps: int, start_s: int) -> dict:
        path = write_video(folder / f"{name}{start_s}.mp4", seconds=12, fps=fps, width=64, height=48)
        return register(path, FIVE + start_s * NS_PER_S)

    return {name: [made(name, fps, start_s) for start_s in (0, 8)] for name, fps in RATES.items()}


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(list(RATES)),
    st.lists(st.tuples(st.integers(-30, 220), st.integers(1, 60)), min_size=1, max_size=3),
    st.integers(-20, 200),
)
def test_no_sample_of_a_forgotten_time_shows_a_frame_and_none_shows_a_frame_of_it(recordings, rate, times, split):
    forgotten = [
        Forgotten("cam1", FIVE + start * TENTH, FIVE + (start + length) * TENTH, "asked") for start, length in times
    ]
    spans = [(one.start_ns, one.stop_ns) for one in forgotten]
    start_ns, stop_ns = FIVE - 2 * NS_PER_S, FIVE + 22 * NS_PER_S

    def described(start: int, stop: int) -> list[dict]:
        return describe_range("cam1", start, stop, GRID, recordings[rate], open_file, forgotten=forgotten)

    rows = described(start_ns, stop_ns)
    RAW_VIDEO.validate(pa.Table.from_pylist(rows, schema=RAW_VIDEO.schema()))
    tiles = sorted((r for r in rows if r["used"] or r["status"] in ("gap", "forgotten")), key=lambda r: r["start_time"])
    edges = [to_datetime(start_ns), *(row["end_time"] for row in tiles)]
    assert [row["start_time"] for row in tiles] == edges[:-1] and edges[-1] == to_datetime(stop_ns)
    first, stop = (time_ns // GRID.step_ns for time_ns in (start_ns + 2 * NS_PER_S, stop_ns))
    shown = {
        sample.index: sample.frame.time_ns
        for sample in sample_frames(pieces_of(rows), open_file, GRID, first, stop)
        if sample.frame is not None
    }
    for sample, frame_ns in shown.items():
        for start, end in spans:
            assert not start <= GRID.time_ns(sample) < end
            assert not start <= frame_ns < end
    if rate == "fast":
        assert [n in shown for n in range(first, stop)] == covered(rows, GRID, first, stop).tolist()
    # What neighbouring ranges use is what one uses that holds both.
    middle = FIVE + split * TENTH
    parts = [row for part in (described(start_ns, middle), described(middle, stop_ns)) for row in part]
    pieces = pieces_of(sorted(parts, key=lambda row: row["start_time"]))
    assert shown == {
        sample.index: sample.frame.time_ns
        for sample in sample_frames(pieces, open_file, GRID, first, stop)
        if sample.frame is not None
    }


def test_a_row_says_what_was_forgotten_and_why(recordings):
    one = Forgotten("cam1", FIVE + 2 * NS_PER_S, FIVE + 4 * NS_PER_S, "a request of 3 March")
    rows = describe_range("cam1", FIVE, FIVE + 6 * NS_PER_S, GRID, recordings["fast"], open_file, forgotten=[one])
    assert [row["status"] for row in rows] == ["ok", "forgotten", "ok"]
    assert rows[1]["end_time"] == to_datetime(one.stop_ns)
    assert "a request of 3 March" in rows[1]["reason"] and "laps forget" in rows[1]["reason"]
    other = describe_range(
        "cam1",
        FIVE,
        FIVE + 6 * NS_PER_S,
        GRID,
        recordings["fast"],
        open_file,
        forgotten=[Forgotten("cam2", 0, FIVE * 2)],
    )
    assert [row["status"] for row in other] == ["ok"], "another camera's"


def test_a_time_is_a_range():
    with pytest.raises(InputError, match="not after it starts"):
        Forgotten("cam1", FIVE, FIVE)
    with pytest.raises(InputError, match="camera's name"):
        Forgotten("../x", FIVE, FIVE + 1000)


def test_the_hour_after_is_touched_where_it_reaches_back():
    hours = Forgotten("cam1", FIVE, FIVE + HOUR_NS).hours()
    assert [hour.hour_ns for hour in hours] == [FIVE, FIVE + HOUR_NS]
    early = Forgotten("cam1", FIVE, FIVE + HOUR_NS - REACHES_BACK_NS)
    assert [hour.hour_ns for hour in early.hours()] == [FIVE]
    assert REACHES_BACK_NS > (MAX_LEAD_IN_S + 2) * NS_PER_S


@given(
    st.tuples(st.integers(0, 40), st.integers(0, 40)),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=4),
)
def test_outside_is_what_lies_in_no_range(span, ranges):
    left = list(outside(span, [(start, stop) for start, stop in ranges if start < stop]))
    assert {n for start, stop in left for n in range(start, stop)} == {
        n for n in range(*span) if not any(start <= n < stop for start, stop in ranges)
    }


@pytest.fixture(scope="module")
def with_b_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds with a keyframe every five and pictures that refer to later ones."""
    return write_video(
        tmp_path_factory.mktemp("clips") / "b.mp4", seconds=10, fps=30, gop=150, codec_options={"bf": "3"}
    )


def held(content: bytes, lead_in_s: float) -> list[float]:
    """Times of all pictures in an mp4, shown or hidden, seconds from the first one shown."""
    with av.open(io.BytesIO(content), "r", options={"ignore_editlist": "1"}) as container:
        stream = container.streams.video[0]
        times = sorted(float(packet.pts * stream.time_base) for packet in container.demux(stream) if packet.size)
    return [time_s - times[0] - lead_in_s for time_s in times]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 9000), st.integers(100, 3000), st.sampled_from(["before", "after"]))
def test_no_clip_holds_a_hidden_picture_of_a_forgotten_time(with_b_frames, start_ms, length_ms, side):
    """The clip lies right beside the time: what a copy hides before its first or after its last picture is in it."""
    start_ns = FIVE + start_ms * 1_000_000
    end_ns = min(start_ns + length_ms * 1_000_000, FIVE + 10 * NS_PER_S)
    kept_out = (FIVE - NS_PER_S, start_ns) if side == "before" else (end_ns, FIVE + 11 * NS_PER_S)
    out = io.BytesIO()
    with (
        with_b_frames.open("rb") as file,
        ClipCutter(file, name="b", recording_start_ns=FIVE) as cutter,
    ):
        info = cutter.cut(out, start_ns=start_ns, end_ns=end_ns, kept_out=[kept_out])
    for time_s in held(out.getvalue(), info.lead_in_s):
        time_ns = info.first_frame_time_ns + round(time_s * NS_PER_S)
        assert not kept_out[0] + 1000 <= time_ns < kept_out[1] - 1000


def test_what_a_copy_hides_is_there_without_the_time(with_b_frames):
    out = io.BytesIO()
    with with_b_frames.open("rb") as file, ClipCutter(file, name="b", recording_start_ns=FIVE) as cutter:
        info = cutter.cut(out, start_ns=FIVE + 3 * NS_PER_S, end_ns=FIVE + 4 * NS_PER_S)
    assert not info.reencoded and min(held(out.getvalue(), info.lead_in_s)) < -2.9
    # So the test above looks at something.


def test_a_primitive_at_the_edge_of_a_forgotten_time_is_cut_from_what_is_left(with_b_frames):
    pieces = pieces_of(
        describe_range("cam1", FIVE, FIVE + 10 * NS_PER_S, GRID, [register(with_b_frames, FIVE)], open_file)
    )
    time = Forgotten("cam1", FIVE + 2 * NS_PER_S, FIVE + 4 * NS_PER_S)
    primitives = [
        {"segment_id": name, "start_time": to_datetime(FIVE + start), "end_time": to_datetime(FIVE + stop)}
        for name, start, stop in (("edge", 39 * TENTH, 50 * TENTH), ("inside", 25 * TENTH, 30 * TENTH))
    ]
    clips = {clip.segment_id: clip for clip in cut_primitives(primitives, pieces, open_file, forgotten=[time])}
    assert clips["inside"].content is None and "forgotten" in (clips["inside"].reason or "")
    info = clips["edge"].info
    assert info is not None and info.first_frame_time_ns >= from_datetime(to_datetime(time.stop_ns)) - 1000
