"""One vector for each primitive: a frozen random Transformer over its latent action sequence.

Paper section 3.2.1: the quantized vectors z_q [T_i, d_m] are projected to d = 256, sinusoidal positions are added,
L = 4 encoder layers with H = 4 heads follow, and the hidden states are averaged over time. Nothing is ever trained;
the random weights are drawn once from a seed and saved, so that they are the same everywhere.

Each primitive goes through alone, in float64, and is rounded to float32 at the end: its embedding does not depend, to
the bit, on which other primitives are embedded with it, and threads or another processor hardly ever show.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from laps.errors import InputError, ModelMismatchError

WEIGHTS_FILE = "weights.safetensors"
CONFIG_FILE = "config.json"
_FORMAT = 1
_NORM_EPSILON = 1e-5
# Attention is computed for this many positions at a time, so that memory grows with T, not with T squared.
_QUERY_BLOCK = 512


@dataclass(frozen=True)
class EmbedderConfig:
    """Shape of the Transformer.

    Attributes:
        input_width: d_m, width of the tokenizer's vectors.
        seed: seed that the weights were drawn from.
        width: d, width of the model and of the embedding.
        layers: L.
        heads: H; divides the width.
        feed_forward: width of the hidden layer in each block.
    """

    input_width: int
    seed: int = 0
    width: int = 256
    layers: int = 4
    heads: int = 4
    feed_forward: int = 512

    def __post_init__(self) -> None:
        for name in ("input_width", "width", "layers", "heads", "feed_forward"):
            if getattr(self, name) < 1:
                raise InputError(f"the embedder's {name} must be positive, not {getattr(self, name)}")
        if self.width % (2 * self.heads):
            raise InputError(f"the embedder's width {self.width} is no even multiple of {self.heads} heads")


class FrozenTransformer:
    """The frozen Transformer: post-norm encoder blocks with GELU, as in Vaswani et al. 2017.

    2,305,280 weights at ``input_width`` 768.

    Args:
        config: shape and seed.
        weights: tensors by name, float32.
    """

    def __init__(self, config: EmbedderConfig, weights: dict[str, torch.Tensor]) -> None:
        self.config = config
        self._weights = weights
        self._exact = {name: tensor.to(torch.float64) for name, tensor in weights.items()}

    @classmethod
    def create(cls, input_width: int, seed: int = 0) -> FrozenTransformer:
        """Draw the weights: Xavier-uniform matrices, biases zero, norms one."""
        config = EmbedderConfig(input_width=input_width, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        weights = {}
        for name, shape in _shapes(config).items():
            if len(shape) == 2:
                bound = math.sqrt(6 / (shape[0] + shape[1]))
                weights[name] = (2 * torch.rand(shape, generator=generator) - 1) * bound
            elif name.endswith("norm.weight"):
                weights[name] = torch.ones(shape)
            else:
                weights[name] = torch.zeros(shape)
        return cls(config, weights)

    @property
    def embedder_id(self) -> str:
        """``"e"`` and 12 hex digits of the SHA-256 of weights and configuration."""
        digest = hashlib.sha256(self._config_json().encode())
        for name in sorted(self._weights):
            digest.update(name.encode())
            digest.update(self._weights[name].contiguous().numpy().astype("<f4").tobytes())
        return "e" + digest.hexdigest()[:12]

    @property
    def parameter_count(self) -> int:
        """Number of weights."""
        return sum(tensor.numel() for tensor in self._weights.values())

    def save(self, folder: Path) -> str:
        """Write weights.safetensors and config.json into a folder; return the embedder's id."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / WEIGHTS_FILE).write_bytes(save(self._weights))
        (folder / CONFIG_FILE).write_text(self._config_json(), encoding="utf-8")
        return self.embedder_id

    @classmethod
    def load(cls, folder: Path) -> FrozenTransformer:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: the folder does not hold an embedder.
        """
        fix = "Create the embedder again, or restore the folder."
        try:
            text = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            weights = load_file(folder / WEIGHTS_FILE)
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(f"holds no embedder ({error})", where=str(folder), fix=fix) from error
        if text.pop("format", None) != _FORMAT:
            raise InputError("holds an embedder of another format", where=str(folder), fix=fix)
        config = EmbedderConfig(**text)
        if {name: tuple(tensor.shape) for name, tensor in weights.items()} != _shapes(config):
            raise InputError("holds weights that do not fit its configuration", where=str(folder), fix=fix)
        return cls(config, weights)

    def embed(self, codes: Sequence[np.ndarray], code_vectors: np.ndarray) -> np.ndarray:
        """Embeddings e_i of primitives.

        The code vectors are scaled together so that their root mean square is 1: then neither they nor the
        positions, which have 0.7, drown the other, whatever scale the tokenizer came to.

        Args:
            codes: latent action sequence of each primitive, integers [T_i], T_i >= 1.
            code_vectors: z_q of each code, float [n_codes, input_width].

        Returns:
            float32 [n, width].

        Raises:
            ModelMismatchError: the tokenizer's vectors have another width.
            InputError: a sequence is empty or holds a code that the tokenizer does not have.
        """
        if code_vectors.ndim != 2 or code_vectors.shape[1] != self.config.input_width:
            raise ModelMismatchError(
                f"the embedder takes vectors of width {self.config.input_width}, not {code_vectors.shape[1:]}",
                fix="Create an embedder for this tokenizer.",
            )
        vectors = torch.from_numpy(code_vectors.astype(np.float64))
        scale = vectors.square().mean().sqrt()
        if scale > 0:
            vectors = vectors / scale
        # The projection is linear: one product for each code instead of one for each sample.
        projected = _linear(vectors, self._exact, "projection")
        out = np.empty((len(codes), self.config.width), dtype=np.float32)
        for i, sequence in enumerate(codes):
            index = np.asarray(sequence)
            if index.size == 0:
                raise InputError(f"primitive {i} of {len(codes)} has no codes")
            if index.min() < 0 or index.max() >= len(code_vectors):
                raise InputError(
                    f"primitive {i} of {len(codes)} has the code {index.max()}, but there are {len(code_vectors)}",
                    fix="Its codes come from another tokenizer.",
                )
            out[i] = self._embed_one(projected[torch.from_numpy(index.astype(np.int64))])
        return out

    @torch.inference_mode()
    def _embed_one(self, hidden: torch.Tensor) -> np.ndarray:
        hidden = hidden + _positions(len(hidden), self.config.width)
        for layer in range(self.config.layers):
            name = f"layers.{layer}"
            hidden = self._norm(hidden + self._attention(hidden, name), f"{name}.attention_norm")
            inner = torch.nn.functional.gelu(_linear(hidden, self._exact, f"{name}.feed_forward_in"))
            hidden = self._norm(
                hidden + _linear(inner, self._exact, f"{name}.feed_forward_out"), f"{name}.feed_forward_norm"
            )
        pooled: np.ndarray = hidden.mean(dim=0).numpy().astype(np.float32)
        return pooled

    def _attention(self, hidden: torch.Tensor, name: str) -> torch.Tensor:
        count, heads = len(hidden), self.config.heads
        parts = _linear(hidden, self._exact, f"{name}.attention_in").view(count, 3, heads, -1)
        query, key, value = parts.permute(1, 2, 0, 3)  # each [heads, T, width / heads]
        scale = 1 / math.sqrt(query.shape[-1])
        blocks = []
        for start in range(0, count, _QUERY_BLOCK):
            scores = query[:, start : start + _QUERY_BLOCK] @ key.transpose(1, 2) * scale
            blocks.append(torch.softmax(scores, dim=-1) @ value)
        mixed = torch.cat(blocks, dim=1).transpose(0, 1).reshape(count, -1)
        return _linear(mixed, self._exact, f"{name}.attention_out")

    def _norm(self, hidden: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = self._exact[f"{name}.weight"], self._exact[f"{name}.bias"]
        return torch.nn.functional.layer_norm(hidden, (self.config.width,), weight, bias, _NORM_EPSILON)

    def _config_json(self) -> str:
        return json.dumps({"format": _FORMAT, **asdict(self.config)}, indent=2, sort_keys=True) + "\n"


def _shapes(config: EmbedderConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight, in the order in which they are drawn."""
    width, inner = config.width, config.feed_forward
    linear = {"projection": (width, config.input_width)}
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(config.layers):
        name = f"layers.{layer}"
        linear[f"{name}.attention_in"] = (3 * width, width)
        linear[f"{name}.attention_out"] = (width, width)
        linear[f"{name}.feed_forward_in"] = (inner, width)
        linear[f"{name}.feed_forward_out"] = (width, inner)
    for name, shape in linear.items():
        shapes[f"{name}.weight"] = shape
        shapes[f"{name}.bias"] = shape[:1]
    for layer in range(config.layers):
        for norm in ("attention_norm", "feed_forward_norm"):
            shapes[f"layers.{layer}.{norm}.weight"] = (width,)
            shapes[f"layers.{layer}.{norm}.bias"] = (width,)
    return shapes


def _linear(values: torch.Tensor, weights: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    return torch.nn.functional.linear(values, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _positions(count: int, width: int) -> torch.Tensor:
    """Sinusoidal positions, float64 [count, width]: sines in even columns, cosines in odd ones."""
    frequencies = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10_000) / width))
    angles = torch.arange(count, dtype=torch.float64)[:, None] * frequencies
    return torch.stack((angles.sin(), angles.cos()), dim=2).reshape(count, width)
