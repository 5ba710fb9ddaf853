"""The latent stream: owners of samples, energies within windows, reasons for nulls, and independence of splits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laps.errors import InputError, ModelMismatchError
from laps.latent import ENERGIES, LatentStream, encode_stream
from laps.motion import mean_speed, without_common_mode
from laps.tables import LATENT_STREAM
from laps.timegrid import SampleGrid
from laps.tokenizer import MotionTokenizer, TokenizerConfig
from laps.tokenizer.model import ENCODE_BATCH
from laps.tracks import TrackWindows

torch.set_num_threads(1)
GRID = SampleGrid()
POINTS = 9
# The absolute start of an hour; a batch border lies between windows 40 and 41 after it.
FIRST = 4 * (ENCODE_BATCH * 1_000_000 - 40)


def made(**changes: object) -> MotionTokenizer:
    config = TokenizerConfig.small(
        "test/v1",
        **{"points": POINTS, "width": 32, "heads": 4, "head_width": 16, "precision": "float32", **changes},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = MotionTokenizer(config)
        with torch.no_grad():
            tokenizer.train().latents(torch.randn(64, config.steps, config.points, 2) * 3)
            tokenizer.whitening.covariance.mul_(0.3)
    return tokenizer.freeze()


TOKENIZER = made()


def tracks(ends: list[int], *, visible: float = 0.9, tracker_id: str = "test/v1", points: int = POINTS) -> TrackWindows:
    """Windows whose content depends on their end alone."""
    rngs = [np.random.default_rng(end) for end in ends]
    moves = [np.rint(rng.normal(0, 100, (15, points, 2))).astype(np.int16) for rng in rngs]
    seen = [rng.random((16, points)) < visible for rng in rngs]
    times = [(np.arange(end - 15, end + 1) * GRID.step_ns) for end in ends]
    return TrackWindows(
        end_samples=np.array(ends, dtype=np.int64),
        displacements=np.array(moves, dtype=np.int16).reshape(-1, 15, points, 2),
        visible=np.array(seen, dtype=bool).reshape(-1, 16, points),
        frame_times_ns=np.array(times, dtype=np.int64).reshape(-1, 16),
        image_width_px=320,
        image_height_px=320,
        tracker_id=tracker_id,
    )


def encode(
    batches: list[TrackWindows],
    first: int,
    stop: int,
    *,
    covered: np.ndarray | None = None,
    tokenizer: MotionTokenizer = TOKENIZER,
    **options: float,
) -> LatentStream:
    covered = np.ones(stop - first, bool) if covered is None else covered
    return encode_stream(batches, tokenizer, GRID, first=first, stop=stop, covered=covered, **options)


def assert_same(one: LatentStream, other: LatentStream) -> None:
    assert one.first == other.first
    assert one.null_reason == other.null_reason
    assert one.tokenizer_id == other.tokenizer_id
    for name in ("code", *ENERGIES):
        first, second = getattr(one, name), getattr(other, name)
        assert first.dtype == second.dtype
        assert np.array_equal(first, second, equal_nan=name != "code"), name


# -- what a sample gets -----------------------------------------------------------------------------------------


def test_each_sample_takes_the_values_of_the_window_that_owns_it() -> None:
    ends = list(GRID.window_ends(FIRST, FIRST + 24))
    windows = tracks(ends, visible=1.0)
    stream = encode([windows], FIRST, FIRST + 24)
    velocities = without_common_mode(windows.velocities(GRID))
    codes, latents = TOKENIZER.encode(velocities)
    vectors, decoded = TOKENIZER.code_vectors(), TOKENIZER.decoded_motion()
    z = TOKENIZER.from_latent(torch.from_numpy(latents)).numpy()
    assert stream.null_reason == [None] * 24
    for w, end in enumerate(ends):
        for step in range(11, 15):
            place = end - 14 + step - FIRST
            assert stream.code[place] == codes[w, step]
            jump = np.linalg.norm(vectors[codes[w, step]] - vectors[codes[w, step - 1]])
            assert stream.latent_action_energy[place] == pytest.approx(jump, abs=1e-5)
            before_rounding = np.linalg.norm(z[w, step] - z[w, step - 1])
            assert stream.prequantized_energy[place] == pytest.approx(before_rounding, abs=1e-5)
            for energy, field in (
                (stream.decoded_motion_energy, decoded[codes[w, step]]),
                (stream.velocity_energy, velocities[w, step]),
            ):
                assert energy[place] == pytest.approx(np.hypot(*field.T).mean(), rel=1e-4)


def test_nulls_say_why() -> None:
    ends = list(GRID.window_ends(FIRST, FIRST + 40))
    covered = np.ones(40, bool)
    covered[:6] = False
    good, lost = tracks(ends[4:7]), tracks(ends[7:8], visible=0.3)
    stream = encode([good, lost], FIRST, FIRST + 40, covered=covered)
    expected = [*["no_footage"] * 6, *["window_start"] * 10, *[None] * 12, *["lost_tracks"] * 4, *["window_start"] * 8]
    assert stream.null_reason == expected
    null = np.array([reason is not None for reason in expected])
    assert ((stream.code < 0) == null).all()
    for name in ENERGIES:
        assert (np.isnan(getattr(stream, name)) == null).all()
    assert encode([good, lost], FIRST, FIRST + 40, min_visible_share=0.0).null_reason[28:32] == [None] * 4


def test_windows_of_other_samples_are_passed_over() -> None:
    ends = list(GRID.window_ends(FIRST, FIRST + 40))
    stream = encode([tracks(ends)], FIRST + 10, FIRST + 20)
    assert_same(stream, encode([tracks(ends)], FIRST, FIRST + 40).slice(FIRST + 10, FIRST + 20))


@pytest.mark.parametrize("decoding", ["token", "window"])
def test_decoded_energy_with_either_decoder(decoding: str) -> None:
    tokenizer = made(decoding=decoding)
    ends = list(GRID.window_ends(FIRST, FIRST + 12))
    stream = encode([tracks(ends)], FIRST, FIRST + 12, tokenizer=tokenizer)
    windows = tracks(ends)
    codes, _ = tokenizer.encode(without_common_mode(windows.velocities(GRID), windows.step_visible()))
    expected = mean_speed(tokenizer.decode_codes(codes, 4)).ravel()
    np.testing.assert_allclose(stream.decoded_motion_energy, expected, rtol=1e-4)


# -- splits -----------------------------------------------------------------------------------------------------


@st.composite
def split_streams(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    """Window numbers with gaps, where to cut them into batches, and at which window to split the stream."""
    numbers = sorted(draw(st.sets(st.integers(0, 89), min_size=1, max_size=70)))
    cuts = sorted(draw(st.sets(st.integers(0, len(numbers)), max_size=6)) | {0, len(numbers)})
    return numbers, cuts, draw(st.integers(0, 90))


@given(case=split_streams())
@settings(max_examples=25, deadline=None)
def test_no_split_changes_a_bit(case: tuple[list[int], list[int], int]) -> None:
    numbers, cuts, split = case
    everything = tracks([FIRST + 4 * number + 3 for number in numbers])
    stop = FIRST + 4 * 90
    whole = encode([everything], FIRST, stop)
    batches = [everything[slice(a, b)] for a, b in pairwise(cuts)]
    assert_same(encode(batches, FIRST, stop), whole)
    border = FIRST + 4 * split
    parts = [encode(batches, a, b) for a, b in ((FIRST, border), (border, stop)) if a < b]
    assert_same(LatentStream.concat(parts), whole)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_two_hours_equal_one_pass_with_a_wider_tokenizer(precision: str) -> None:
    tokenizer = made(precision=precision, width=128, points=400)
    ends = list(GRID.window_ends(FIRST, FIRST + 4 * 300))
    windows = tracks(ends, points=400)
    whole = encode([windows], FIRST, FIRST + 4 * 300, tokenizer=tokenizer)
    border = 130
    parts = [
        encode([windows[:border]], FIRST, FIRST + 4 * border, tokenizer=tokenizer),
        encode([windows[border:]], FIRST + 4 * border, FIRST + 4 * 300, tokenizer=tokenizer),
    ]
    assert_same(LatentStream.concat(parts), whole)


def test_windows_are_taken_one_batch_at_a_time() -> None:
    taken = []

    def batches() -> Iterator[TrackWindows]:
        for number in range(3):
            taken.append(number)
            yield tracks([FIRST + 4 * number + 3])

    stream = encode_stream(batches(), TOKENIZER, GRID, first=FIRST, stop=FIRST + 12, covered=np.ones(12, bool))
    assert taken == [0, 1, 2]
    assert (stream.code >= 0).all()


# -- mismatches -------------------------------------------------------------------------------------------------


def test_what_does_not_belong_together_is_refused() -> None:
    end = FIRST + 3
    with pytest.raises(ModelMismatchError, match="other/v1"):
        encode([tracks([end], tracker_id="other/v1")], FIRST, FIRST + 4)
    with pytest.raises(ModelMismatchError, match="shape"):
        encode([tracks([end], points=4)], FIRST, FIRST + 4)
    for grid in (SampleGrid(rate_hz=20), SampleGrid(window=12)):
        with pytest.raises(ModelMismatchError, match="Hz"):
            encode_stream([], TOKENIZER, grid, first=0, stop=4, covered=np.ones(4, bool))
    with pytest.raises(InputError, match="order"):
        encode([tracks([end + 4]), tracks([end])], FIRST, FIRST + 8)
    with pytest.raises(InputError, match="off the grid"):
        encode([tracks([end + 1])], FIRST, FIRST + 8)
    with pytest.raises(InputError, match="coverage"):
        encode([], FIRST, FIRST + 8, covered=np.ones(4, bool))


# -- tables -----------------------------------------------------------------------------------------------------


def stream_with_nulls() -> LatentStream:
    return encode([tracks([FIRST + 7, FIRST + 11])], FIRST, FIRST + 16, covered=np.arange(16) >= 2)


def test_a_stream_survives_its_table() -> None:
    stream = stream_with_nulls()
    rows = LATENT_STREAM.validate(stream.to_table("cam1", GRID))
    assert rows["code"].null_count == 8
    assert rows["latent_action_energy"].null_count == 8
    assert rows["time"][0].value == FIRST * 100_000
    assert_same(LatentStream.from_table(rows), stream)
    assert_same(LatentStream.from_table(rows.take(pa.array(np.arange(16)[::-1]))), stream)


def test_tables_that_hold_no_stream_are_refused() -> None:
    rows = stream_with_nulls().to_table("cam1", GRID)
    with pytest.raises(InputError, match="missing or repeated"):
        LatentStream.from_table(rows.filter(pa.compute.not_equal(rows["sample"], FIRST + 5)))
    with pytest.raises(InputError, match="no rows"):
        LatentStream.from_table(rows.slice(0, 0))
    other = rows.set_column(
        rows.column_names.index("tokenizer_id"), rows.schema.field("tokenizer_id"), pa.array(["t0"] * 16)
    )
    with pytest.raises(ModelMismatchError, match="several tokenizers"):
        LatentStream.from_table(pa.concat_tables([rows, other]))


def test_streams_are_joined_only_where_they_meet() -> None:
    stream = stream_with_nulls()
    parts = [stream.slice(FIRST, FIRST + 5), stream.slice(FIRST + 5, FIRST + 16)]
    assert_same(LatentStream.concat(parts), stream)
    with pytest.raises(InputError, match="ends at sample"):
        LatentStream.concat([parts[1], parts[0]])
    parts[1].tokenizer_id = "t0"
    with pytest.raises(ModelMismatchError):
        LatentStream.concat(parts)
    with pytest.raises(InputError, match="no latent streams"):
        LatentStream.concat([])
    with pytest.raises(InputError, match="not inside"):
        stream.slice(FIRST - 1, FIRST)
