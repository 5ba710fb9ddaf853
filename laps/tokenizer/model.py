"""The motion tokenizer: velocities of tracked points in, one discrete code for each motion step out.

Paper section 3.1, with the reference implementation's sizes: each step's velocities, flattened, go through a
linear layer into a causal Transformer encoder; finite scalar quantization (FSQ, Mentzer et al. 2023) turns
each token into a code; a Transformer decoder and a head for each point predict the class of each point's
displacement.

Shape legend::

    B  windows            N  points (400)         W  width (768)        H  width of the head
    S  motion steps (15)  D  FSQ dimensions (4)   C  displacement classes (225)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from vector_quantize_pytorch import FSQ

from laps.errors import InputError, ModelMismatchError
from laps.tokenizer import classes
from laps.tokenizer.config import TokenizerConfig

ENCODE_BATCH = 256
"""Windows in every encoding batch. Fixed, because matrix products of another shape may round differently."""

_TABLE_ROWS = 32
_TINY = 1e-12
_DECODE_BATCH = 4
_LATENT_MOMENTUM = 0.02  # weight of a batch in the whitening's running averages


class TransformerLayer(nn.Module):
    """Pre-norm Transformer layer; attention is causal, or none where every token stands alone.

    Over a single token attention has nothing to choose from: its output is the projected value of that token.
    ``alone=True`` computes just that, so no query and key weights exist.
    """

    def __init__(self, width: int, heads: int, *, alone: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.alone = alone
        self.attention_norm = nn.LayerNorm(width)
        self.project_in = nn.Linear(width, width if alone else 3 * width)
        self.project_out = nn.Linear(width, width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, S, W] -> [B, S, W]."""
        mixed = self.project_in(self.attention_norm(x))
        if not self.alone:
            batch, steps, _ = mixed.shape
            query, key, value = mixed.view(batch, steps, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            mixed = mixed.transpose(1, 2).reshape(batch, steps, -1)
        x = x + self.project_out(mixed)
        return x + self.feedforward(self.feedforward_norm(x))


class Whitening(nn.Module):
    """Normalisation before the quantizer: no correlation and unit variance along every latent dimension.

    This is what keeps the codebook in use. FSQ's cells lie on a box; an encoder that is left free shrinks its
    output into a few of them, or onto a line through them. Mean and covariance are those of the batch while
    learning (running averages once frozen), weighted by how much moves: resting tokens, the most and all alike,
    would otherwise take the middle of the box and push every motion into its corners.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("covariance", torch.eye(size))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    mean: Tensor
    covariance: Tensor
    batches: Tensor

    def forward(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """[B, S, D] and the weight of each token [B, S] (default: all alike) -> [B, S, D]."""
        mean, covariance = self.mean, self.covariance
        if self.training:
            share = torch.ones_like(x[..., 0]) if weights is None else weights
            share = (share / share.sum().clamp(min=1e-9))[..., None]
            mean = (share * x).sum((0, 1))
            apart = (x - mean).flatten(0, 1)
            covariance = (share.flatten(0, 1) * apart).T @ apart
            with torch.no_grad():
                self.batches += 1
                step = max(_LATENT_MOMENTUM, 1 / int(self.batches))
                self.mean.lerp_(mean, step)
                self.covariance.lerp_(covariance, step)
        size = covariance.shape[0]
        floor = 1e-3 * covariance.diagonal().mean() + 1e-6
        factor = torch.linalg.cholesky(covariance + floor * torch.eye(size, device=x.device))
        return torch.linalg.solve_triangular(factor, (x - mean).flatten(0, 1).T, upper=False).T.view_as(x)


class DisplacementHead(nn.Module):
    """Class scores of every point, from a token and the point's embedding, by a two-layer MLP.

    The MLP's input is the token and the point's embedding side by side. Its first layer is linear in both, so
    the halves are computed apart, once a token and once a point, and added for each pair. A second hidden
    layer without a non-linearity before the scores would be one more linear map: it is folded into the output
    layer. Both are exact, and the head costs an eighth.
    """

    def __init__(self, width: int, points: int, hidden: int, class_count: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(points, width))
        self.first = nn.Linear(2 * width, hidden)
        self.scores = nn.Linear(hidden, class_count)

    def forward(self, tokens: Tensor, points: Tensor | None = None) -> Tensor:
        """[..., W] and the points asked for, int64 [n] (default: all) -> scores [..., n, C]."""
        embedding = self.embedding if points is None else self.embedding[points]
        of_token, of_point = self.first.weight.chunk(2, dim=1)
        hidden = F.linear(tokens, of_token, self.first.bias).unsqueeze(-2) + F.linear(embedding, of_point)
        return self.scores(F.relu(hidden))


class MotionTokenizer(nn.Module):
    """Encoder, quantizer and decoder. See :class:`TokenizerConfig` for the sizes.

    A tokenizer is *frozen* when it comes from training or from a file: its tables are computed, it has an id,
    and its weights do not change any more. Only frozen tokenizers encode.
    """

    class_edges_px: Tensor
    class_grid_px: Tensor
    class_weights: Tensor
    motion_table_px: Tensor | None

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.embed = nn.Linear(2 * config.points, width)
        self.position = nn.Parameter(0.02 * torch.randn(config.steps, width))
        self.encoder = nn.ModuleList(TransformerLayer(width, config.heads) for _ in range(config.encoder_layers))
        self.encoder_norm = nn.LayerNorm(width)
        self.to_latent = nn.Linear(width, len(config.levels))
        self.whitening = Whitening(len(config.levels))
        self.quantizer = FSQ(list(config.levels))
        self.from_latent = nn.Linear(len(config.levels), width)
        alone = config.decoding == "token"
        # Without positions a code means the same wherever it stands in the window.
        self.decoder_position = None if alone else nn.Parameter(0.02 * torch.randn(config.steps, width))
        self.decoder = nn.ModuleList(
            TransformerLayer(width, config.heads, alone=alone) for _ in range(config.decoder_layers)
        )
        self.decoder_norm = nn.LayerNorm(width)
        self.head = DisplacementHead(width, config.points, config.head_width, config.class_count)
        geometry = (config.classes_per_axis, config.class_scale_px, config.class_reach_px)
        centres = classes.centres_px(*geometry)
        weights = classes.class_weights(centres, config.learning.still_weight, config.class_scale_px)
        self.register_buffer("class_edges_px", classes.edges_px(*geometry), persistent=False)
        self.register_buffer("class_grid_px", classes.grid_px(centres), persistent=False)
        self.register_buffer("class_weights", weights, persistent=False)
        table = torch.zeros(config.code_count, config.points, 2) if alone else None
        # Kept with the weights: the table is then the same numbers on every machine.
        self.register_buffer("motion_table_px", table)
        self._id: str | None = None

    def latents(self, velocities: Tensor, weights: Tensor | None = None) -> Tensor:
        """Float32 [B, S, N, 2] px a sample step -> whitened latents, float32 [B, S, D], not yet bounded.

        ``weights`` [B, S] are those of the tokens in the whitening, while learning.

        The input is of order one: ``asinh(v / 1 px)`` is linear for the slow motion of fine work and grows only
        with the logarithm of a swinging arm's, so that neither decides the first layer alone. Velocities within
        the tracker's noise (0.02 to 0.1 px at rest, on all 400 points at once) are shrunk first: without that the
        code of a resting scene followed the noise and changed about twice as often.
        """
        size = velocities.square().sum(-1, keepdim=True)
        steady = velocities * (size / (size + self.config.noise_px**2 + _TINY))
        with self._autocast(velocities.device):
            x = self.embed(torch.asinh(steady / self.config.velocity_scale_px).flatten(2)) + self.position
            for layer in self.encoder:
                x = layer(x)
            x = self.encoder_norm(x)
        with torch.autocast(velocities.device.type, enabled=False):
            # In float32: rounding to bfloat16 here would move latents across the quantizer's borders.
            return self.whitening(self.to_latent(x.float()), weights)

    def quantize(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [B, S, D] -> quantized positions in [-1, 1], float32 [B, S, D], and codes, int64 [B, S].

        Gradients pass straight through the rounding.
        """
        with torch.autocast(latents.device.type, enabled=False):
            positions, codes = self.quantizer(latents)
        return positions, codes.long()

    def bounded(self, latents: Tensor) -> Tensor:
        """Where the latents lie before rounding, on the same scale as the quantized positions: [..., D]."""
        levels = torch.tensor(self.config.levels, dtype=latents.dtype, device=latents.device)
        # FSQ's bound (Mentzer et al. 2023, appendix A.1): even numbers of levels are shifted by half a level.
        reach = (levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(levels % 2 == 0, 0.5, 0.0)
        return (torch.tanh(latents + torch.atanh(offset / reach)) * reach - offset) / (levels // 2)

    def decode(self, positions: Tensor, points: Tensor | None = None, *, last: int | None = None) -> Tensor:
        """Quantized positions [B, S, D] -> class scores [B, S, n, C].

        Args:
            positions: as :meth:`quantize` gives them.
            points: the points asked for, int64 [n]; default: all.
            last: the steps asked for, from the end; default: all.
        """
        with self._autocast(positions.device):
            x = self.decoder_norm(self._decoded(positions))
            return self.head(x if last is None else x[:, -last:], points)

    def _decoded(self, positions: Tensor) -> Tensor:
        x = self.from_latent(positions)
        if self.decoder_position is not None:
            x = x + self.decoder_position
        for layer in self.decoder:
            x = layer(x)
        return x

    @contextmanager
    def _autocast(self, device: torch.device) -> Iterator[None]:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            yield

    def loss(
        self, velocities: Tensor, visible: Tensor | None = None, points: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted cross-entropy of the displacement classes, and what the batch was turned into.

        Args:
            velocities: float32 [B, S, N, 2], px a sample step.
            visible: bool [B, S, N]; steps that were not seen have weight 0.
            points: int64 [n]: decode these points only. The sum over them is scaled by N / n and divided by
                the weight of *all* points, so that over a uniform draw of points its mean is the full loss.

        Returns:
            The loss (scalar), the latents [B, S, D] and the codes [B, S].
        """
        targets = classes.classify(velocities, self.class_edges_px)
        weights = self.class_weights[targets]
        if visible is not None:
            weights = weights * visible
        latents = self.latents(velocities, weights.sum(-1))
        positions, codes = self.quantize(latents)
        total = weights.sum().clamp(min=1e-6)
        share = 1.0
        if points is not None:
            share = len(points) / self.config.points
            targets, weights = targets[..., points], weights[..., points]
        scores = self.decode(positions, points)
        entropies = F.cross_entropy(scores.float().flatten(0, -2), targets.flatten(), reduction="none")
        return (entropies * weights.flatten()).sum() / (total * share), latents, codes

    @property
    def device(self) -> torch.device:
        return self.position.device

    @property
    def tokenizer_id(self) -> str:
        """Hash of the weights and the settings; InputError before the tokenizer is frozen."""
        if self._id is None:
            raise InputError("an unfinished tokenizer has no id", fix="Train it to the end, or load a saved one.")
        return self._id

    def freeze(self) -> MotionTokenizer:
        """Compute the tables and the id and allow no further change; returns itself."""
        from laps.tokenizer.files import content_id

        self.eval().requires_grad_(False)
        if self.motion_table_px is not None:
            self.motion_table_px.copy_(self._compute_motion_table())
        self._id = content_id(self)
        return self

    def adopt_id(self, tokenizer_id: str) -> MotionTokenizer:
        """Freeze with the tables and the id that were loaded with the weights; returns itself."""
        self.eval().requires_grad_(False)
        self._id = tokenizer_id
        return self

    @torch.inference_mode()
    def encode(self, velocities: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Codes and latents of windows, computed in batches of one fixed shape.

        Args:
            velocities: [B, S, N, 2], px a sample step at the tracker's image size; finite.

        Returns:
            Codes, int64 [B, S], and latents before rounding, bounded to about [-1, 1] by FSQ, float32 [B, S,
            D]. A window's numbers do not depend on the windows beside it.

        Raises:
            ModelMismatchError: other numbers of steps or points than the tokenizer was made for.
            InputError: values that are not finite, or a tokenizer that is not frozen.
        """
        _ = self.tokenizer_id
        self.check_shape(velocities.shape)
        if not np.isfinite(velocities).all():
            raise InputError("velocities hold values that are not finite", fix="Leave windows without tracks out.")
        codes = np.empty((len(velocities), self.config.steps), np.int64)
        latents = np.empty((*codes.shape, len(self.config.levels)), np.float32)
        for start in range(0, len(velocities), ENCODE_BATCH):
            part = velocities[start : start + ENCODE_BATCH]
            padded = torch.zeros(ENCODE_BATCH, *velocities.shape[1:])
            padded[: len(part)] = torch.from_numpy(np.ascontiguousarray(part))
            found = self.latents(padded.to(self.device))
            rows = slice(start, start + len(part))
            codes[rows] = self.quantize(found)[1][: len(part)].cpu().numpy()
            latents[rows] = self.bounded(found)[: len(part)].cpu().numpy()
        return codes, latents

    @torch.inference_mode()
    def decode_codes(self, codes: NDArray[np.integer], last: int) -> NDArray[np.float32]:
        """What windows of codes [B, S] decode to in their last steps: float32 [B, last, N, (x, y)], px a step."""
        positions = self._positions[torch.from_numpy(codes.astype(np.int64)).to(self.device)]
        found = np.empty((*codes.shape[:1], last, self.config.points, 2), np.float32)
        for start in range(0, len(codes), _DECODE_BATCH):
            part = positions[start : start + _DECODE_BATCH]
            padded = F.pad(part, (0, 0, 0, 0, 0, _DECODE_BATCH - len(part)))
            motion = self.expected_motion(self.decode(padded, last=last))
            found[start : start + len(part)] = motion[: len(part)].cpu().numpy()
        return found

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """ModelMismatchError unless [..., S, N, 2] is what this tokenizer reads."""
        expected = (self.config.steps, self.config.points, 2)
        if len(shape) != 4 or tuple(shape[1:]) != expected:
            raise ModelMismatchError(
                f"the tokenizer reads windows of shape {list(expected)} (steps, points, x and y), "
                f"not {list(shape[1:])}",
                fix="Use the tokenizer that was trained on such tracks, or train one.",
            )

    def code_positions(self) -> NDArray[np.float32]:
        """Each code's quantized position in the latent space: float32 [codes, D], in [-1, 1]."""
        positions: NDArray[np.float32] = self._positions.cpu().numpy()
        return positions

    @torch.inference_mode()
    def code_vectors(self) -> NDArray[np.float32]:
        """z_q of each code (paper section 3.1): float32 [codes, W]."""
        weight, bias = self.from_latent.weight.double().cpu(), self.from_latent.bias.double().cpu()
        vectors: NDArray[np.float32] = F.linear(self._positions.double().cpu(), weight, bias).float().numpy()
        return vectors

    def latent_metric(self) -> NDArray[np.float64]:
        """Matrix G with ``||z_a - z_b||^2 = (a - b)^T G (a - b)`` for latent positions a, b: [D, D].

        z is linear in the latent position, quantized or not, so distances in R^W need no vectors of that
        size.
        """
        weight = self.from_latent.weight.detach().double().cpu()
        metric: NDArray[np.float64] = (weight.T @ weight).numpy()
        return metric

    def decoded_motion(self) -> NDArray[np.float32]:
        """The motion that each code stands for: float32 [codes, N, (x, y)], px a sample step.

        The expectation over the class centres, after the loss's class weights have been divided out of the
        posterior (they would inflate slow motion).

        Raises:
            InputError: for ``decoding="window"``, where the motion depends on the tokens before.
        """
        if self.motion_table_px is None:
            raise InputError(
                "this tokenizer decodes a token together with those before it, so a code alone has no motion",
                fix="Train it with decoding='token', or use another energy than decoded_motion.",
            )
        _ = self.tokenizer_id
        motion: NDArray[np.float32] = self.motion_table_px.cpu().numpy()
        return motion

    @torch.inference_mode()
    def expected_motion(self, scores: Tensor) -> Tensor:
        """Class scores [..., C] -> expected displacement, float32 [..., (x, y)], px a sample step."""
        unweighted = scores.float() - self.class_weights.log()
        return unweighted.softmax(dim=-1) @ self.class_grid_px

    @torch.inference_mode()
    def _compute_motion_table(self) -> Tensor:
        parts = self._positions.split(_TABLE_ROWS)
        return torch.cat([self.expected_motion(self.decode(part[:, None])[:, 0]) for part in parts])

    @property
    def _positions(self) -> Tensor:
        """Each code's quantized position in the latent space: float32 [codes, D]."""
        return cast(Tensor, self.quantizer.implicit_codebook)
