from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laps.embedding import FrozenTransformer
from laps.errors import InputError, ModelMismatchError

CODES, WIDTH = 50, 24
VECTORS = np.random.default_rng(5).standard_normal((CODES, WIDTH)).astype(np.float32) * 0.03
EMBEDDER = FrozenTransformer.create(WIDTH, seed=3)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small products are slower with several threads, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


sequences = st.lists(st.integers(0, CODES - 1), min_size=1, max_size=40).map(
    lambda codes: np.array(codes, dtype=np.uint16)
)


@given(st.lists(sequences, min_size=1, max_size=5), st.integers(0, 4))
@settings(deadline=None, max_examples=20)
def test_an_embedding_does_not_depend_on_its_neighbours(primitives: list[np.ndarray], which: int) -> None:
    which %= len(primitives)
    together = EMBEDDER.embed(primitives, VECTORS)
    alone = EMBEDDER.embed([primitives[which]], VECTORS)
    assert together.shape == (len(primitives), 256)
    assert together.dtype == np.float32
    assert together[which].tobytes() == alone[0].tobytes()


def test_it_agrees_with_torchs_own_encoder() -> None:
    config = EMBEDDER.config
    layer = torch.nn.TransformerEncoderLayer(
        config.width, config.heads, config.feed_forward, activation="gelu", batch_first=True, dtype=torch.float64
    )
    encoder = torch.nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False).eval()
    weights = {name: tensor.double() for name, tensor in EMBEDDER._weights.items()}
    names = {
        "attention_in.weight": "self_attn.in_proj_weight",
        "attention_in.bias": "self_attn.in_proj_bias",
        "attention_out": "self_attn.out_proj",
        "feed_forward_in": "linear1",
        "feed_forward_out": "linear2",
        "attention_norm": "norm1",
        "feed_forward_norm": "norm2",
    }
    state = {}
    for name, tensor in weights.items():
        if name.startswith("layers."):
            for ours, theirs in names.items():
                name = name.replace(ours, theirs)
            state[name] = tensor
    encoder.load_state_dict(state)
    codes = np.arange(37) % CODES
    inputs = torch.from_numpy(VECTORS.astype(np.float64)) / np.sqrt(np.mean(VECTORS.astype(np.float64) ** 2))
    inputs = inputs[codes] @ weights["projection.weight"].T + weights["projection.bias"]
    for t in range(len(codes)):
        for i in range(0, config.width, 2):
            angle = t / 10_000 ** (i / config.width)
            inputs[t, i] += np.sin(angle)
            inputs[t, i + 1] += np.cos(angle)
    with torch.no_grad():
        expected = encoder(inputs[None])[0].mean(dim=0).numpy()
    np.testing.assert_allclose(EMBEDDER.embed([codes], VECTORS)[0], expected, atol=1e-6)


def test_order_in_time_matters_and_the_scale_of_the_vectors_does_not() -> None:
    codes = np.arange(20)
    forwards, backwards = EMBEDDER.embed([codes, codes[::-1].copy()], VECTORS)
    assert np.linalg.norm(forwards - backwards) > 0.01
    np.testing.assert_allclose(EMBEDDER.embed([codes], 1000 * VECTORS)[0], forwards, atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 511, 512, 513, 2000])
def test_primitives_of_any_length_have_an_embedding(length: int) -> None:
    codes = np.random.default_rng(length).integers(0, CODES, length)
    assert np.isfinite(EMBEDDER.embed([codes], VECTORS)).all()


def test_no_primitives_give_no_rows() -> None:
    assert EMBEDDER.embed([], VECTORS).shape == (0, 256)


def test_blocks_of_positions_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.random.default_rng(1).integers(0, CODES, 100)
    whole = EMBEDDER.embed([codes], VECTORS)
    monkeypatch.setattr("laps.embedding._QUERY_BLOCK", 7)
    np.testing.assert_allclose(EMBEDDER.embed([codes], VECTORS), whole, atol=1e-6)


def test_full_size_and_seed() -> None:
    full = FrozenTransformer.create(768)
    assert full.parameter_count == 2_305_280
    assert full.embedder_id == FrozenTransformer.create(768, seed=0).embedder_id
    assert full.embedder_id != FrozenTransformer.create(768, seed=1).embedder_id
    assert len(full.embedder_id) == 13
    assert full.embedder_id[0] == "e"


def test_a_saved_embedder_is_the_same(tmp_path: Path) -> None:
    assert EMBEDDER.save(tmp_path) == EMBEDDER.embedder_id
    loaded = FrozenTransformer.load(tmp_path)
    codes = [np.arange(9)]
    assert loaded.embedder_id == EMBEDDER.embedder_id
    assert loaded.embed(codes, VECTORS).tobytes() == EMBEDDER.embed(codes, VECTORS).tobytes()
    assert {path.name for path in tmp_path.iterdir()} == {"weights.safetensors", "config.json"}


def test_another_process_gets_the_same_bits_with_another_number_of_threads() -> None:
    program = (
        "import hashlib, numpy as np, torch\n"
        "torch.set_num_threads(2)\n"
        "from laps.embedding import FrozenTransformer\n"
        f"v = np.random.default_rng(5).standard_normal(({CODES}, {WIDTH})).astype(np.float32) * 0.03\n"
        f"e = FrozenTransformer.create({WIDTH}, seed=3).embed([np.arange(30), np.arange(7)], v)\n"
        "print(hashlib.sha256(e.tobytes()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    here = EMBEDDER.embed([np.arange(30), np.arange(7)], VECTORS)
    assert done.stdout.strip() == hashlib.sha256(here.tobytes()).hexdigest()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelMismatchError, match="width 24"):
        EMBEDDER.embed([np.arange(3)], VECTORS[:, :10])
    with pytest.raises(InputError, match="code 50, but there are 50"):
        EMBEDDER.embed([np.arange(3), np.array([50])], VECTORS)
    with pytest.raises(InputError, match="primitive 1 of 2 has no codes"):
        EMBEDDER.embed([np.arange(3), np.array([], dtype=np.int64)], VECTORS)
    with pytest.raises(InputError, match="holds no embedder"):
        FrozenTransformer.load(tmp_path)
    EMBEDDER.save(tmp_path)
    FrozenTransformer.create(WIDTH + 1).save(tmp_path / "other")
    (tmp_path / "other" / "weights.safetensors").replace(tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match="do not fit"):
        FrozenTransformer.load(tmp_path)
