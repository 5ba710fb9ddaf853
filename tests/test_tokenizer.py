"""The tokenizer's architecture, its tables, its encoding and its files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from laps.errors import InputError, ModelMismatchError
from laps.tokenizer import LearningSettings, MotionTokenizer, TokenizerConfig, load, save
from laps.tokenizer import classes as displacement_classes
from laps.tokenizer.model import ENCODE_BATCH, DisplacementHead, Whitening

torch.set_num_threads(1)


def tiny(**changes: object) -> TokenizerConfig:
    values = {"points": 12, "width": 32, "heads": 4, "head_width": 16, "precision": "float32", **changes}
    return TokenizerConfig.small("test/v1", **values)


def made(config: TokenizerConfig, seed: int = 0) -> MotionTokenizer:
    """An untrained tokenizer whose latents are spread over the codebook."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = MotionTokenizer(config)
        with torch.no_grad():
            tokenizer.train().latents(torch.from_numpy(velocities(config, 64)))
            tokenizer.whitening.covariance.mul_(0.3)
    return tokenizer.freeze()


def velocities(config: TokenizerConfig, windows: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 3, (windows, config.steps, config.points, 2)).astype(np.float32)


# -- settings -----------------------------------------------------------------------------------------------------


def test_the_full_preset_has_the_papers_size() -> None:
    config = TokenizerConfig.full("x")
    assert (config.width, config.heads, config.encoder_layers, config.decoder_layers) == (768, 8, 2, 1)
    assert (config.points, config.steps, config.code_count, config.class_count) == (400, 15, 1920, 225)
    assert config.decoding == "token"


def test_settings_survive_json() -> None:
    config = tiny(decoding="window", learning=LearningSettings(max_steps=7))
    assert TokenizerConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 30},
        {"classes_per_axis": 14},
        {"levels": (8, 2)},
        {"levels": (64, 64, 64)},
        {"points": 0},
        {"precision": "float16"},
        {"decoding": "both"},
        {"class_reach_px": 0.0},
        {"noise_px": -1.0},
    ],
)
def test_settings_that_make_no_tokenizer_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        tiny(**wrong)


def test_unknown_settings_are_refused() -> None:
    values = json.loads(tiny().to_json())
    values["colour"] = "red"
    with pytest.raises(InputError, match="settings cannot be read"):
        TokenizerConfig.from_json(json.dumps(values))


# -- displacement classes ---------------------------------------------------------------------------------------


@given(per_axis=st.sampled_from([3, 7, 15]), scale=st.floats(0.1, 2), reach=st.floats(5, 40))
@settings(max_examples=30, deadline=None)
def test_every_class_holds_its_own_centre(per_axis: int, scale: float, reach: float) -> None:
    centres = displacement_classes.centres_px(per_axis, scale, reach)
    edges = displacement_classes.edges_px(per_axis, scale, reach)
    grid = displacement_classes.grid_px(centres)
    assert torch.equal(displacement_classes.classify(grid, edges), torch.arange(per_axis**2))
    assert centres[-1] == pytest.approx(reach)
    assert torch.allclose(centres, -centres.flip(0))


def test_displacements_beyond_the_reach_belong_to_the_outermost_class() -> None:
    edges = displacement_classes.edges_px(15, 0.5, 20.0)
    far = torch.tensor([[1000.0, -1000.0], [0.0, 0.1]])
    assert displacement_classes.classify(far, edges).tolist() == [14 * 15, 7 * 15 + 7]


def test_weights_grow_with_displacement() -> None:
    centres = displacement_classes.centres_px(15, 0.5, 20.0)
    weights = displacement_classes.class_weights(centres, 0.005, 0.5)
    order = displacement_classes.grid_px(centres).norm(dim=-1).argsort()
    assert (weights[order].diff() > -1e-6).all()
    assert weights.min() == pytest.approx(0.005)
    assert weights.max() == 1


# -- architecture -----------------------------------------------------------------------------------------------


def test_the_factorised_head_equals_the_plain_one() -> None:
    torch.manual_seed(0)
    head = DisplacementHead(width=24, points=10, hidden=16, class_count=49)
    tokens = torch.randn(3, 5, 24)
    # Side by side, through both layers, and the score layer as two: what the factorised form saves.
    pairs = torch.cat([tokens[:, :, None].expand(-1, -1, 10, -1), head.embedding.expand(3, 5, -1, -1)], dim=-1)
    hidden = F.relu(head.first(pairs))
    second, out = torch.randn(20, 16), torch.randn(49, 20)
    with torch.no_grad():
        head.scores.weight.copy_(out @ second)
        head.scores.bias.copy_(out @ torch.ones(20))
    plain = (hidden @ second.T + 1) @ out.T
    scale = plain.abs().max()
    assert (head(tokens) - plain).abs().max() / scale < 1e-5
    some = torch.tensor([7, 1])
    assert torch.allclose(head(tokens, some), head(tokens)[:, :, some], atol=1e-5)


def test_the_encoder_is_causal() -> None:
    tokenizer = made(tiny())
    before = torch.from_numpy(velocities(tokenizer.config, 2))
    after = before.clone()
    after[:, 9:] += 1
    one, other = tokenizer.latents(before), tokenizer.latents(after)
    assert torch.allclose(one[:, :9], other[:, :9], atol=1e-5)
    assert not torch.allclose(one[:, 9:], other[:, 9:], atol=1e-2)


@pytest.mark.parametrize("decoding", ["token", "window"])
def test_what_a_position_is_decoded_from(decoding: str) -> None:
    tokenizer = made(tiny(decoding=decoding))
    positions = torch.from_numpy(tokenizer.code_positions())[torch.arange(0, 1500, 100)][None]
    changed = positions.clone()
    changed[:, 5] = -changed[:, 5] + 0.25
    moved = (tokenizer.decode(positions) - tokenizer.decode(changed)).abs().amax(dim=(0, 2, 3)) > 1e-5
    expected = [step == 5 if decoding == "token" else step >= 5 for step in range(15)]
    assert moved.tolist() == expected


def test_whitened_latents_fill_the_box_whatever_the_encoder_gives() -> None:
    torch.manual_seed(0)
    whitening = Whitening(3).train()
    weights = torch.rand(40, 15)
    # Shrunk, shifted, and nearly on a line: what a collapsing encoder does.
    x = 5 + 0.1 * (torch.randn(40, 15, 1) + 0.1 * torch.randn(40, 15, 3))
    weights[:20] = 0
    x[:20] = 0
    z = whitening(x, weights).flatten(0, 1)
    share = (weights / weights.sum()).flatten()[:, None]
    assert torch.allclose((share * z).sum(0), torch.zeros(3), atol=1e-3)
    covariance = (share * z).T @ z
    assert (covariance.diagonal() > 0.7).all()
    assert (covariance - covariance.diagonal().diag()).abs().max() < 0.2
    # The first batch sets the running averages.
    assert torch.allclose(whitening.eval()(x).flatten(0, 1), z, atol=1e-2)


def test_bounded_latents_round_to_the_quantized_positions() -> None:
    tokenizer = made(tiny())
    latents = 3 * torch.randn(50, 15, 4)
    positions, codes = tokenizer.quantize(latents)
    half = torch.tensor([level // 2 for level in tokenizer.config.levels])
    assert torch.allclose((tokenizer.bounded(latents) * half).round() / half, positions)
    assert torch.allclose(torch.from_numpy(tokenizer.code_positions())[codes], positions)


# -- loss -------------------------------------------------------------------------------------------------------


def test_a_draw_of_points_gives_the_full_loss_on_average() -> None:
    tokenizer = made(tiny())
    batch = torch.from_numpy(velocities(tokenizer.config, 4))
    visible = torch.from_numpy(np.random.default_rng(1).random(batch.shape[:-1]) < 0.7)
    full = tokenizer.loss(batch, visible)[0]
    parts = [tokenizer.loss(batch, visible, part)[0] for part in torch.randperm(12).split(3)]
    assert torch.stack(parts).mean() == pytest.approx(float(full), rel=1e-5)


def test_points_that_were_not_seen_do_not_count() -> None:
    tokenizer = made(tiny())
    batch = torch.from_numpy(velocities(tokenizer.config, 4))
    visible = torch.zeros(batch.shape[:-1], dtype=torch.bool)
    assert tokenizer.loss(batch, visible)[0] == 0
    visible[:, :, :6] = True
    first, second = (tokenizer.loss(batch, visible, torch.arange(a, a + 6))[0] for a in (0, 6))
    assert first > 0
    assert second == 0


# -- tables -----------------------------------------------------------------------------------------------------


def test_the_tables_agree_with_the_encoding() -> None:
    tokenizer = made(tiny())
    codes, latents = tokenizer.encode(velocities(tokenizer.config, 20))
    assert len(np.unique(codes)) > 100
    vectors = tokenizer.code_vectors()
    assert vectors.shape == (1920, 32)
    positions = tokenizer.quantize(tokenizer.latents(torch.from_numpy(velocities(tokenizer.config, 20))))[0]
    np.testing.assert_allclose(tokenizer.from_latent(positions).numpy(), vectors[codes], atol=1e-5)
    metric = tokenizer.latent_metric()
    apart = (tokenizer.code_positions()[codes[:, 1:]] - tokenizer.code_positions()[codes[:, :-1]]).astype(np.float64)
    expected = np.linalg.norm(vectors[codes[:, 1:]] - vectors[codes[:, :-1]], axis=-1)
    np.testing.assert_allclose(np.sqrt(np.einsum("...a,ab,...b", apart, metric, apart)), expected, atol=1e-5)
    assert np.abs(latents).max() <= 1.01


def test_decoded_motion_is_what_the_decoder_expects() -> None:
    tokenizer = made(tiny())
    codes, _ = tokenizer.encode(velocities(tokenizer.config, 6))
    table = tokenizer.decoded_motion()
    assert table.shape == (1920, 12, 2)
    np.testing.assert_allclose(tokenizer.decode_codes(codes, 4), table[codes[:, -4:]], atol=1e-4)


def test_expected_motion_divides_the_loss_weights_out() -> None:
    tokenizer = made(tiny())
    probabilities = torch.rand(225).softmax(0)
    weighted = (probabilities * tokenizer.class_weights).log()
    expected = (probabilities[:, None] * tokenizer.class_grid_px).sum(0)
    assert torch.allclose(tokenizer.expected_motion(weighted), expected, atol=1e-5)


def test_a_decoder_over_the_window_has_no_table_of_motion() -> None:
    tokenizer = made(tiny(decoding="window"))
    with pytest.raises(InputError, match="decoding='token'"):
        tokenizer.decoded_motion()
    codes = np.random.default_rng(0).integers(0, 1920, (6, 15))
    alone = tokenizer.decode_codes(codes, 15)
    assert np.array_equal(tokenizer.decode_codes(codes, 4), alone[:, -4:])


# -- encoding ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_codes_do_not_depend_on_the_batch(precision: str) -> None:
    config = TokenizerConfig.small("x", precision=precision, points=100)
    tokenizer = made(config)
    windows = velocities(config, ENCODE_BATCH + 40)
    codes, latents = tokenizer.encode(windows)
    for part in (slice(0, 1), slice(3, 90), slice(200, None)):
        some_codes, some_latents = tokenizer.encode(windows[part])
        assert np.array_equal(some_codes, codes[part])
        assert np.array_equal(some_latents, latents[part])


@pytest.mark.parametrize("points", [1, 6])
def test_any_number_of_points_works(points: int) -> None:
    tokenizer = made(tiny(points=points, steps=7))
    codes, latents = tokenizer.encode(velocities(tokenizer.config, 3))
    assert codes.shape == (3, 7)
    assert latents.shape == (3, 7, 4)
    assert tokenizer.decoded_motion().shape == (1920, points, 2)


def test_no_windows_give_no_codes() -> None:
    codes, latents = made(tiny()).encode(np.zeros((0, 15, 12, 2), np.float32))
    assert codes.shape == (0, 15)
    assert latents.shape == (0, 15, 4)


def test_what_cannot_be_encoded_is_refused() -> None:
    tokenizer = made(tiny())
    with pytest.raises(ModelMismatchError, match=r"\[15, 12, 2\]"):
        tokenizer.encode(np.zeros((1, 15, 13, 2), np.float32))
    broken = np.zeros((1, 15, 12, 2), np.float32)
    broken[0, 3, 4, 1] = np.nan
    with pytest.raises(InputError, match="not finite"):
        tokenizer.encode(broken)
    with pytest.raises(InputError, match="no id"):
        MotionTokenizer(tiny()).encode(np.zeros((1, 15, 12, 2), np.float32))


# -- files ------------------------------------------------------------------------------------------------------


def test_a_saved_tokenizer_is_the_same_tokenizer(tmp_path: Path) -> None:
    tokenizer = made(tiny())
    tokenizer_id = save(tokenizer, tmp_path / "model", training={"seed": 0})
    again = load(tmp_path / "model")
    assert tokenizer_id == tokenizer.tokenizer_id == again.tokenizer_id
    assert tokenizer_id[0] == "t" and len(tokenizer_id) == 13
    assert again.config == tokenizer.config
    windows = velocities(tokenizer.config, 30)
    assert np.array_equal(again.encode(windows)[0], tokenizer.encode(windows)[0])
    assert np.array_equal(again.decoded_motion(), tokenizer.decoded_motion())


def test_the_id_follows_weights_and_settings_but_not_the_report(tmp_path: Path) -> None:
    config = tiny()
    tokenizer = made(config)
    other_settings = MotionTokenizer(dataclasses.replace(config, tracker_id="test/v2"))
    other_settings.load_state_dict(tokenizer.state_dict())
    ids = {tokenizer.tokenizer_id, made(config, seed=1).tokenizer_id, other_settings.freeze().tokenizer_id}
    assert len(ids) == 3
    assert save(tokenizer, tmp_path) == save(tokenizer, tmp_path, training={"loss": 1.0})


def test_files_that_were_changed_are_noticed(tmp_path: Path) -> None:
    save(made(tiny()), tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace("test/v1", "test/v2"))
    with pytest.raises(ModelMismatchError, match="changed after saving"):
        load(tmp_path)
    save(made(tiny()), tmp_path)
    weights = tmp_path / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ModelMismatchError, match="changed after saving"):
        load(tmp_path)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "weights.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path)
