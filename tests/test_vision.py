from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from laps.errors import InputError, MissingDependencyError
from laps.timegrid import NS_PER_S
from laps.vision import OpenClipEncoder, WeightFreeEncoder, choose_frames, import_open_clip, pool
from tests.videos import texture

S = NS_PER_S
TINY = "laps-test-tiny"


@given(st.integers(0, 60), st.integers(1, 40 * S), st.integers(0, 20 * S))
@settings(deadline=None, max_examples=50)
def test_frames_lie_inside_and_are_spread_evenly(count: int, length_ns: int, start_ns: int) -> None:
    times = np.arange(count) * S // 2
    chosen = choose_frames(times, start_ns, start_ns + length_ns)
    inside = np.flatnonzero((times >= start_ns) & (times < start_ns + length_ns))
    limit = 8 if length_ns <= 5 * S else 12 if length_ns <= 10 * S else 16
    if inside.size:
        assert len(chosen) == min(limit, inside.size)
        assert set(chosen) <= set(inside)
        steps = np.diff(chosen)
        assert np.all(steps > 0)
        assert steps.size == 0 or steps.max() - steps.min() <= 1
        # Neither end is favoured.
        assert abs((chosen[0] - inside[0]) - (inside[-1] - chosen[-1])) <= 1
    else:
        assert len(chosen) <= 1


def test_a_primitive_without_a_keyframe_takes_the_nearest_close_by() -> None:
    times = np.array([0, S // 2, S])
    assert choose_frames(times, 6 * S // 10, 9 * S // 10).tolist() == [1]
    assert choose_frames(times, 7 * S // 10, 9 * S // 10).tolist() == [2]
    assert choose_frames(times, 16 * S // 10, 18 * S // 10).tolist() == []
    assert choose_frames(np.array([], dtype=np.int64), 0, S).tolist() == []


def test_pooling_weighs_by_the_norms() -> None:
    features = np.eye(3, dtype=np.float32)[:2]
    pooled = pool(features, np.array([3.0, 4.0]))
    np.testing.assert_allclose(pooled, [0.6, 0.8, 0.0], atol=1e-6)
    np.testing.assert_allclose(pool(features, np.zeros(2)), [0.5**0.5, 0.5**0.5, 0], atol=1e-6)
    assert pooled.dtype == np.float32
    with pytest.raises(InputError):
        pool(features[:0], np.zeros(0))


def scene(hue_shift: int, *, offset: int = 0, brightness: float = 1.0, noise: int = 0) -> np.ndarray:
    """A textured table with a bar and a disc; ``hue_shift`` turns the disc's colour, ``offset`` moves it."""
    picture = texture(224, 168)
    cv2.rectangle(picture, (20, 30), (60, 140), (40, 40, 60), -1)
    colour = np.array([(10 + hue_shift) % 180, 230, 220], dtype=np.uint8)
    rgb = cv2.cvtColor(colour[None, None], cv2.COLOR_HSV2RGB)[0, 0]
    cv2.circle(picture, (140 + offset, 80), 40, tuple(int(v) for v in rgb), -1)
    values = picture * brightness + np.random.default_rng(noise).normal(0, 4 if noise else 0.001, picture.shape)
    return np.clip(values, 0, 255).astype(np.uint8)


def test_the_weight_free_descriptor_tells_pictures_apart() -> None:
    encoder = WeightFreeEncoder()
    assert encoder.encoder_id.startswith("weight_free:")
    pictures = [
        scene(0),
        scene(0, noise=1),
        scene(0, offset=2),
        scene(90),
        scene(0, offset=60),
        texture(224, 168, seed=1),
    ]
    found = encoder.encode(pictures)
    np.testing.assert_allclose(np.linalg.norm(found.features, axis=1), 1, atol=1e-5)
    assert found.features.dtype == found.norms.dtype == np.float32
    same, moved_little, other_colour, moved_far, other = (found.features[1:] @ found.features[0]).tolist()
    assert same > 0.97
    assert moved_little > max(other_colour, moved_far)
    assert min(same, moved_little) > max(other_colour, moved_far) > other
    np.testing.assert_array_equal(encoder.encode(pictures[2:3]).features[0], found.features[2])


def test_plain_pictures_have_finite_features_and_less_weight() -> None:
    plain = np.full((90, 160, 3), 128, dtype=np.uint8)
    found = WeightFreeEncoder().encode([plain, scene(0)])
    assert np.isfinite(found.features).all()
    assert found.norms[0] < found.norms[1]
    assert WeightFreeEncoder().encode([]).features.shape[0] == 0


def test_only_pictures_are_encoded() -> None:
    with pytest.raises(InputError, match="uint8"):
        WeightFreeEncoder().encode([np.zeros((10, 10), dtype=np.uint8)])
    with pytest.raises(InputError, match="uint8"):
        WeightFreeEncoder().encode([np.zeros((10, 10, 3), dtype=np.float32)])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a tiny CLIP that open_clip is told about."""
    open_clip = import_open_clip()
    folder = tmp_path_factory.mktemp("open_clip")
    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
    }
    (folder / f"{TINY}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{TINY}.json")
    torch.manual_seed(11)
    model = open_clip.create_model(TINY, pretrained=None)
    path = folder / "weights.pt"
    torch.save(model.state_dict(), path)
    return path


def test_open_clip_loads_a_local_checkpoint_and_encodes_as_the_model_does(checkpoint: Path) -> None:
    encoder = OpenClipEncoder(TINY, checkpoint, device="cpu", batch_size=4)
    assert encoder.encoder_id.startswith(f"open_clip:{TINY}/sha256-")
    pictures = [scene(hue) for hue in range(0, 180, 30)]
    found = encoder.encode(pictures)
    assert found.features.shape == (6, 24)
    np.testing.assert_allclose(np.linalg.norm(found.features, axis=1), 1, atol=1e-5)

    open_clip = import_open_clip()
    model, _, preprocess = open_clip.create_model_and_transforms(TINY, pretrained=str(checkpoint))
    model.eval()
    with torch.no_grad():
        expected = model.encode_image(torch.stack([preprocess(Image.fromarray(picture)) for picture in pictures]))
    np.testing.assert_allclose(found.norms, expected.norm(dim=1).numpy(), rtol=1e-4)
    np.testing.assert_allclose(found.features, (expected / expected.norm(dim=1, keepdim=True)).numpy(), atol=1e-5)
    # Batches are filled up, so that the company does not matter to the bit.
    np.testing.assert_array_equal(encoder.encode(pictures[5:]).features[0], found.features[5])


def test_other_weights_have_another_id(checkpoint: Path, tmp_path: Path) -> None:
    state = torch.load(checkpoint, weights_only=True)
    state["visual.proj"] = state["visual.proj"] + 1
    torch.save(state, tmp_path / "other.pt")
    one = OpenClipEncoder(TINY, checkpoint, device="cpu").encoder_id
    assert OpenClipEncoder(TINY, str(tmp_path / "other.pt"), device="cpu").encoder_id != one


def test_what_open_clip_cannot_load_is_explained(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model 'ViT-Z'"):
        OpenClipEncoder("ViT-Z")
    with pytest.raises(InputError, match=r"no weights 'nonsense' for ViT-B-32.*laion2b_s34b_b79k"):
        OpenClipEncoder("ViT-B-32", "nonsense")
    with pytest.raises(MissingDependencyError, match="no checkpoint"):
        OpenClipEncoder("ViT-B-32", tmp_path / "absent.pt")
    torch.save({"other.weight": torch.zeros(3)}, tmp_path / "wrong.pt")
    with pytest.raises(InputError, match=r"wrong\.pt: cannot be loaded"):
        OpenClipEncoder(TINY, tmp_path / "wrong.pt", device="cpu")
    (tmp_path / "text.pt").write_text("no checkpoint")
    with pytest.raises(InputError, match=r"text\.pt: cannot be loaded"):
        OpenClipEncoder(TINY, tmp_path / "text.pt", device="cpu")


def test_weights_that_cannot_be_downloaded_name_the_ways_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for arguments in (("ViT-B-32", "laion2b_s34b_b79k"), ("hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K",)):
        with pytest.raises(MissingDependencyError, match=r"internet access.*path of a checkpoint"):
            OpenClipEncoder(*arguments, device="cpu")


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("laps.vision.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="Install open_clip_torch"):
        import_open_clip()
