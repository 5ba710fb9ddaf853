"""The windows that a tokenizer learns from, gathered into bounded memory.

Velocities are kept as float16 (steps of 0.008 px at 10 px) and visibility as bits: 18,000 windows of 400
points, two hours of one camera, take 432 + 14 MB, however long the source is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laps.errors import InputError, ModelMismatchError
from laps.motion import without_common_mode
from laps.timegrid import SampleGrid
from laps.tokenizer.config import TokenizerConfig
from laps.tracks import TrackWindows

MAX_WINDOWS = 18_000
"""Windows kept by default: two hours."""

WindowBatch = NDArray[np.floating] | tuple[NDArray[np.floating], NDArray[np.bool_] | None]
"""Velocities [W, S, N, 2], px a sample step, alone or with the visibility of each point and step [W, S, N]."""

_BLOCK = 24
_HELD_OUT_EVERY = 10
# Windows that overlap a held-out one: 15 steps at a stride of 4.
_GUARD = 3
# Far beyond the outermost class, and finite in float16.
_LARGEST = 30_000.0


@dataclass
class TrainingWindows:
    """A bounded sample of windows.

    Attributes:
        velocities: float16 [W, S, N, 2], px a sample step.
        visible_bits: uint8 [W, S, ceil(N / 8)].
        motion: float32 [W], share of a window's seen points and steps that move: faster than the classes'
            scale (0.5 px a sample step by default, well above the tracker's noise).
        seen: windows that the source held; more than W when the sample was thinned.
    """

    velocities: NDArray[np.float16]
    visible_bits: NDArray[np.uint8]
    motion: NDArray[np.float32]
    seen: int

    def __len__(self) -> int:
        return len(self.velocities)

    def batch(self, index: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
        """Velocities, float32 [B, S, N, 2], and visibility, bool [B, S, N], of some windows."""
        points = self.velocities.shape[2]
        visible = np.unpackbits(self.visible_bits[index], axis=-1, count=points).astype(bool)
        velocities = self.velocities[index].astype(np.float32)
        return torch.from_numpy(velocities).to(device), torch.from_numpy(visible).to(device)

    def split(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Windows to learn from and windows held out.

        Every tenth block of 24 neighbouring windows is held out, and the windows that overlap a held-out one
        are left out of learning. Of fewer than 240 windows the last tenth is held out; fewer than 8 serve as
        both.
        """
        count = len(self)
        if count < 8:
            everything = np.arange(count)
            return everything, everything
        if count < _BLOCK * _HELD_OUT_EVERY:
            held_out = np.arange(count) >= count - max(1, count // _HELD_OUT_EVERY)
        else:
            held_out = np.arange(count) // _BLOCK % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1
        near = held_out.copy()
        for shift in range(1, _GUARD + 1):
            near[shift:] |= held_out[:-shift]
            near[:-shift] |= held_out[shift:]
        return np.flatnonzero(~near), np.flatnonzero(held_out)


def tokenizer_input(
    windows: TrackWindows, grid: SampleGrid, config: TokenizerConfig
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """What a tokenizer reads of tracks, while learning and while encoding.

    Returns:
        Velocities, float32 [W, S, N, 2], px a sample step, 0 where a point was not seen, and where the configuration
        says so less what all points do in common; and what was seen, bool [W, S, N].
    """
    velocities, visible = windows.velocities(grid), windows.step_visible()
    return (without_common_mode(velocities, visible) if config.remove_common_mode else velocities), visible


def from_tracks(windows: Iterable[TrackWindows], grid: SampleGrid, config: TokenizerConfig) -> Iterator[WindowBatch]:
    """Training windows of tracks: velocities and the visibility of each step."""
    for batch in windows:
        yield tokenizer_input(batch, grid, config)


def gather(
    source: NDArray[np.floating] | Iterable[WindowBatch],
    config: TokenizerConfig,
    *,
    visible: NDArray[np.bool_] | None = None,
    max_windows: int = MAX_WINDOWS,
) -> TrainingWindows:
    """Read a source once and keep at most ``max_windows`` windows, evenly spread over it in blocks of 24.

    Args:
        source: all velocities in one array, or batches of them, in time order camera by camera.
        config: what the tokenizer reads.
        visible: bool [W, S, N], only beside one array.
        max_windows: when the source holds more, every second block is dropped, as often as needed.

    Raises:
        ModelMismatchError: windows of another shape than the configuration's.
        InputError: no window at all, or values that are not finite where a point was seen.
    """
    if max_windows < _BLOCK:
        raise InputError(f"max_windows must be at least {_BLOCK}, not {max_windows}")
    batches: Iterable[WindowBatch] = [(source, visible)] if isinstance(source, np.ndarray) else source
    shape = (config.steps, config.points)
    # Pages of an empty array cost nothing until they are written.
    velocities = np.empty((max_windows, *shape, 2), np.float16)
    bits = np.empty((max_windows, config.steps, (config.points + 7) // 8), np.uint8)
    motion = np.empty(max_windows, np.float32)
    blocks = np.empty(max_windows, np.int64)
    kept = seen = 0
    keep_every = 1
    for values, mask in _pieces(batches, shape):
        block, seen = seen // _BLOCK, seen + len(values)
        while block % keep_every == 0 and kept + len(values) > max_windows:
            keep_every *= 2
            stay = np.flatnonzero(blocks[:kept] % keep_every == 0)
            kept = len(stay)
            for target, origin in enumerate(stay):
                velocities[target], bits[target] = velocities[origin], bits[origin]
            motion[:kept], blocks[:kept] = motion[stay], blocks[stay]
        if block % keep_every:
            continue
        place = slice(kept, kept + len(values))
        velocities[place] = np.clip(values, -_LARGEST, _LARGEST)
        bits[place] = np.packbits(mask, axis=-1)
        moving = (np.hypot(values[..., 0], values[..., 1]) > config.class_scale_px) & mask
        motion[place] = moving.sum(axis=(1, 2)) / np.maximum(mask.sum(axis=(1, 2)), 1)
        blocks[place] = block
        kept += len(values)
    if kept == 0:
        raise InputError("there are no windows to learn from", fix="Give at least 1.6 s of video without a gap.")
    return TrainingWindows(velocities[:kept], bits[:kept], motion[:kept], seen)


def _pieces(
    batches: Iterable[WindowBatch], shape: tuple[int, int]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """The source in pieces that cross no border of two blocks of 24 windows, values that are not finite set to 0."""
    place = 0
    for batch in batches:
        values, mask = batch if isinstance(batch, tuple) else (batch, None)
        if values.ndim != 4 or values.shape[1:] != (*shape, 2):
            raise ModelMismatchError(
                f"the configuration reads windows of shape {[*shape, 2]} (steps, points, x and y), "
                f"not {list(values.shape[1:])}",
                fix="Set points and steps of the configuration to those of the tracks.",
            )
        if mask is not None and mask.shape != values.shape[:-1]:
            raise InputError(f"visibility has the shape {list(mask.shape)}, not {list(values.shape[:-1])}")
        seen = np.ones(values.shape[:-1], bool) if mask is None else mask.astype(bool)
        finite = np.asarray(np.isfinite(values).all(axis=-1))
        wrong = np.flatnonzero((~finite & seen).any(axis=(1, 2)))
        if len(wrong):
            raise InputError(
                f"window {place + int(wrong[0])} of the training set holds velocities that are not finite",
                fix="Mark such points as not visible, or leave the windows out.",
            )
        start = 0
        while start < len(values):
            stop = min(len(values), start + _BLOCK - (place + start) % _BLOCK)
            piece = np.where(finite[start:stop, ..., None], values[start:stop], 0).astype(np.float32)
            yield piece, seen[start:stop]
            start = stop
        place += len(values)
