"""Training: it learns, does not collapse, repeats itself, ends when it should, and says when something is wrong."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laps.errors import InputError, ModelMismatchError
from laps.motion import mean_speed, without_common_mode
from laps.timegrid import SampleGrid
from laps.tokenizer import LearningSettings, TokenizerConfig, TrainingProgress, from_tracks, load, save, train
from laps.tokenizer.data import gather
from laps.tokenizer.training import code_perplexity, level_unevenness, measure
from laps.tracks import TrackWindows

torch.set_num_threads(1)
SIDE = 5
POINTS = SIDE * SIDE


def config(**learning: object) -> TokenizerConfig:
    values = {"max_steps": 60, "batch_windows": 16, "learning_rate": 5e-3, "warmup_steps": 5, **learning}
    return TokenizerConfig.small(
        "test/v1",
        points=POINTS,
        width=32,
        heads=4,
        head_width=32,
        precision="float32",
        learning=LearningSettings(**values),
    )


def moving_blob(windows: int, seed: int = 0, noise: float = 0.03) -> np.ndarray:
    """Windows over a stream in which a blob makes a stroke in one of many places, rests, and so on."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), -1).reshape(-1, 2)
    stream = np.zeros((4 * windows + 15, POINTS, 2), np.float32)
    place = 0
    while place < len(stream):
        length, rest = int(rng.integers(4, 12)), int(rng.integers(2, 12))
        near = np.exp(-((grid - rng.uniform(0, SIDE - 1, 2)) ** 2).sum(-1) / 2)
        speed = rng.uniform(1, 12) * np.sin(np.linspace(0, np.pi, length + 2)[1:-1])
        angle = rng.uniform(0, 2 * np.pi)
        field = speed[:, None, None] * near[:, None] * np.array([np.cos(angle), np.sin(angle)])
        part = stream[place : place + length]
        part += field[: len(part)]
        place += length + rest
    stream += rng.normal(0, noise, stream.shape)
    return np.stack([stream[4 * w : 4 * w + 15] for w in range(windows)])


def test_it_learns_what_moves_and_keeps_its_codebook_in_use() -> None:
    seen: list[TrainingProgress] = []
    trained = train(moving_blob(600), config(max_steps=250, learning_rate=2e-3), progress=seen.append)
    assert trained.quality.held_out
    assert trained.quality.windows == 48
    assert trained.ended_by == "max_steps"
    assert trained.warnings == []
    assert seen[-1].loss < 0.8 * seen[0].loss
    tokenizer = trained.tokenizer
    assert not tokenizer.training
    fresh = moving_blob(600, seed=1)
    quality = measure(tokenizer, gather(fresh, tokenizer.config), np.arange(600), held_out=True)
    assert quality.moving_perplexity > 100
    assert quality.rest_perplexity < 10
    assert quality.moving_accuracy > 1.5 * quality.commonest_class_share
    # What the codes decode to follows the motion that they were given for.
    speeds = [mean_speed(tokenizer.decoded_motion())[tokenizer.encode(fresh)[0]], mean_speed(fresh)]
    assert np.corrcoef(*[np.log(0.1 + speed.ravel()) for speed in speeds])[0, 1] > 0.8


def test_the_same_seed_gives_the_same_tokenizer() -> None:
    windows = moving_blob(60)
    settings = config(max_steps=12)
    first = train(windows, settings, seed=5)
    torch.rand(1)
    state = torch.get_rng_state()
    second = train(windows, settings, seed=5)
    assert first.tokenizer.tokenizer_id == second.tokenizer.tokenizer_id
    assert train(windows, settings, seed=6).tokenizer.tokenizer_id != first.tokenizer.tokenizer_id
    assert torch.equal(torch.get_rng_state(), state)


def test_the_source_may_come_in_batches() -> None:
    windows = moving_blob(60)
    settings = config(max_steps=8)

    def batches() -> Iterator[np.ndarray]:
        yield windows[:7]
        yield windows[7:50]
        yield windows[50:]

    assert train(batches(), settings).tokenizer.tokenizer_id == train(windows, settings).tokenizer.tokenizer_id


def test_it_trains_on_few_windows_of_few_points() -> None:
    small = dataclasses.replace(config(max_steps=6), points=6, decoding="window")
    trained = train(moving_blob(5)[:, :, :6], small)
    assert not trained.quality.held_out
    assert trained.windows_used == 5


def test_it_ends_at_a_plateau_with_a_closing_of_falling_rates() -> None:
    settings = config(max_steps=500, evaluate_every=5, patience=2, min_improvement=0.9)
    trained = train(moving_blob(60), settings)
    assert trained.ended_by == "plateau"
    # First look at step 5, stale at 10 and 15, then 30% of the whole.
    assert trained.history[-1]["step"] == 21


def test_it_ends_in_time() -> None:
    seen: list[TrainingProgress] = []
    trained = train(moving_blob(60), config(max_steps=100_000), max_minutes=1 / 60, progress=seen.append)
    assert trained.ended_by == "time"
    assert seen[-1].elapsed_s < 2
    assert seen[-1].eta_s == 0
    assert all(state.eta_s <= 1 for state in seen)


def test_a_collapsing_codebook_is_noticed_early() -> None:
    seen: list[TrainingProgress] = []
    still = np.zeros((60, 15, POINTS, 2), np.float32)
    trained = train(still, config(max_steps=40, collapse_after=20, evaluate_every=20), progress=seen.append)
    assert [state.step for state in seen if state.warning] == [20, 40]
    assert "collapsing" in trained.warnings[0]
    assert trained.quality.moving_windows == 0
    assert trained.quality.moving_accuracy is None
    assert trained.quality.rest_change_share is not None


def test_points_that_were_not_seen_teach_nothing() -> None:
    windows = moving_blob(60)
    visible = np.ones(windows.shape[:-1], bool)
    visible[:, :, :5] = False
    hidden = windows.copy()
    hidden[:, :, :5] = np.nan
    trained = train(hidden, config(max_steps=10), visible=visible)
    assert np.isfinite([row["loss"] for row in trained.history]).all()
    with pytest.raises(InputError, match="window 0 of the training set"):
        train(hidden, config(max_steps=1))


def test_the_report_can_be_saved(tmp_path: Path) -> None:
    trained = train(moving_blob(60), config(max_steps=20))
    save(trained.tokenizer, tmp_path, training=trained.report())
    report = json.loads((tmp_path / "training.json").read_text())
    assert report["tokenizer_id"] == load(tmp_path).tokenizer_id
    assert [row["step"] for row in report["history"]] == [10, 20]
    assert report["quality"]["perplexity"] == trained.quality.perplexity


# -- the sample -------------------------------------------------------------------------------------------------


def numbered(count: int) -> np.ndarray:
    """Windows whose every value is the window's number."""
    values = np.zeros((count, 15, POINTS, 2), np.float32)
    values += np.arange(count)[:, None, None, None]
    return values


@given(count=st.integers(1, 400), limit=st.integers(24, 120), cuts=st.lists(st.integers(0, 400), max_size=5))
@settings(max_examples=25, deadline=None)
def test_a_long_source_is_thinned_evenly_into_bounded_memory(count: int, limit: int, cuts: list[int]) -> None:
    values = numbered(count)
    places = sorted({0, count, *(cut for cut in cuts if cut < count)})
    batches = (values[a:b] for a, b in pairwise(places))
    data = gather(batches, config(), max_windows=limit)
    kept = data.velocities[:, 0, 0, 0].astype(int)
    assert data.seen == count
    assert len(data.velocities) <= limit
    if count <= limit:
        assert kept.tolist() == list(range(count))
    blocks = np.unique(kept // 24)
    spacing = int(np.diff(blocks).min()) if len(blocks) > 1 else 64
    assert blocks.tolist() == [block for block in range(-(-count // 24)) if block % spacing == 0]
    assert kept.tolist() == [window for window in range(count) if window // 24 % spacing == 0]


@given(count=st.integers(1, 700))
@settings(max_examples=30, deadline=None)
def test_held_out_windows_do_not_overlap_those_learned_from(count: int) -> None:
    data = gather(np.zeros((count, 15, POINTS, 2), np.float16), config())
    learn, held_out = data.split()
    assert len(learn) and len(held_out)
    if count >= 8:
        assert np.abs(learn[:, None] - held_out[None]).min() > 3
        assert 0.05 < len(held_out) / count < 0.2


def test_visibility_and_motion_are_kept() -> None:
    values = np.zeros((3, 15, POINTS, 2), np.float32)
    values[1, :, :10] = [3.0, 4.0]
    visible = np.ones(values.shape[:-1], bool)
    visible[1, :, 5:10] = False
    data = gather(values, config(), visible=visible)
    found, mask = data.batch(np.array([1, 2]), torch.device("cpu"))
    assert np.array_equal(found.numpy(), values[1:])
    assert np.array_equal(mask.numpy(), visible[1:])
    np.testing.assert_allclose(data.motion, [0, 5 / (POINTS - 5), 0])


def test_windows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ModelMismatchError, match="shape"):
        gather(np.zeros((4, 15, POINTS + 1, 2)), config())
    with pytest.raises(InputError, match="no windows"):
        gather(iter([]), config())


def test_tracks_become_training_windows() -> None:
    rng = np.random.default_rng(0)
    tracks = TrackWindows(
        end_samples=np.array([15, 19]),
        displacements=rng.integers(-99, 99, (2, 15, POINTS, 2)).astype(np.int16),
        visible=rng.random((2, 16, POINTS)) < 0.8,
        frame_times_ns=np.tile(np.arange(16) * 100_000_000, (2, 1)),
        image_width_px=320,
        image_height_px=320,
        tracker_id="test/v1",
    )
    seen = tracks.visible[:, 1:] & tracks.visible[:, :-1]
    for remove in (False, True):
        settings = dataclasses.replace(config(), remove_common_mode=remove)
        (velocities, visible), *rest = from_tracks([tracks], SampleGrid(), settings)
        assert rest == []
        assert np.array_equal(visible, seen)
        raw = tracks.velocities(SampleGrid())
        assert np.array_equal(velocities, without_common_mode(raw, seen) if remove else raw)


# -- figures ----------------------------------------------------------------------------------------------------


def test_perplexity_counts_codes_in_even_use() -> None:
    assert code_perplexity(np.array([5, 5, 0, 5, 5])) == pytest.approx(4)
    assert code_perplexity(np.array([9, 0])) == pytest.approx(1)
    assert code_perplexity(np.zeros(3, int)) == 0


def test_even_use_of_the_levels_is_rewarded_and_pulls_latents_apart() -> None:
    levels = (5, 3)
    even = torch.cartesian_prod(torch.linspace(-1, 1, 5), torch.linspace(-1, 1, 3))
    one_level = torch.zeros(15, 2)
    assert float(level_unevenness(even, levels)) < 0.1
    assert 0.6 < float(level_unevenness(one_level, levels)) <= np.log([5, 3]).mean()
    latents = torch.nn.Parameter(0.2 * torch.randn(64, 2, generator=torch.Generator().manual_seed(0)))
    optimizer = torch.optim.Adam([latents], 0.05)
    begin = float(level_unevenness(latents.tanh().detach(), levels))
    for _ in range(40):
        optimizer.zero_grad()
        level_unevenness(latents.tanh(), levels).backward()
        optimizer.step()
    assert float(level_unevenness(latents.tanh().detach(), levels)) < begin / 4
    assert len(torch.unique((latents.tanh() * 2).round()[:, 0])) == 5


def test_quality_counts_moving_points_and_resting_changes() -> None:
    windows = moving_blob(60)
    trained = train(windows, config(max_steps=10))
    data = gather(windows, trained.tokenizer.config)
    index = np.arange(20)
    quality = measure(trained.tokenizer, data, index, held_out=False)
    codes, _ = trained.tokenizer.encode(data.velocities[index].astype(np.float32))
    speed = np.hypot(*np.moveaxis(data.velocities[index].astype(np.float32), -1, 0))
    moving = codes[(speed > 0.5).mean(axis=(1, 2)) >= 0.02]
    assert quality.tokens == moving.size
    assert quality.codes_used == len(np.unique(moving))
    resting = (speed > 0.5).mean(axis=-1) < 0.02
    pairs = resting[:, 1:] & resting[:, :-1]
    assert quality.rest_change_share == pytest.approx((codes[:, 1:] != codes[:, :-1])[pairs].mean())
