"""Tracking with CoTracker3 (Karaev et al., CoTracker3: Simpler and Better Point Tracking, 2024), on a GPU.

Each window is a short clip of its own with a fresh grid of points at its first frame, as in the reference
implementation; several windows go through the network together. The code is taken from an installed
``cotracker`` package and the weights from a checkpoint file or torch hub's cache; both are under CC BY-NC 4.0
(no commercial use), which is why they are not part of this project.

Batches are aligned to the absolute grid and always full (places without a window are filled with another
one's frames), so that a window is computed in the same place of the same batch shape wherever the stream
began. Equality to the bit is promised on one kind of hardware only.
"""

from __future__ import annotations

import hashlib
import importlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from laps.errors import InputError, MissingDependencyError
from laps.timegrid import SampleGrid
from laps.tracks import MAX_DISPLACEMENT, UNITS_PER_PX, TrackWindows, WindowBatcher, grid_units

if TYPE_CHECKING:
    from laps.sampling import Sample

REPOSITORY = "https://github.com/facebookresearch/co-tracker"
LICENCE = "CoTracker's code and weights are licensed CC BY-NC 4.0: no commercial use."
CHECKPOINTS = {"online": "scaled_online.pth", "offline": "scaled_offline.pth"}
CHECKPOINT_URL = "https://huggingface.co/facebook/cotracker3/resolve/main/"
# Lengths of the temporal windows that the published weights were trained with.
WINDOW_LENGTHS = {"online": 16, "offline": 60}


class CoTracker:
    """CoTracker3 behind the interface of :class:`laps.trackers.Tracker`.

    Nothing is loaded before the first use of :attr:`tracker_id` or :meth:`track`. A point that the network
    places outside the image is held at its border and invisible while it is there. A point whose prediction
    is no finite number stays where it was, invisible.

    Args:
        checkpoint: file with the weights; by default torch hub's cache, filled from the internet when empty.
        variant: ``online`` (windows of up to 16 samples) or ``offline``.
        device: ``auto`` (a GPU where there is one), or any name that torch knows.
        batch_windows: windows that go through the network together.
        side: points along each axis of the grid.
        short_side_px: short side of the images that are tracked; displacements are in px of these.
        precision: ``float32``, or ``bfloat16`` for autocast on a GPU that has it.
        network_size_px: height and width that the network resizes images to; by default what the published
            weights were trained at (384 x 512).

    Raises:
        InputError: an option that does not exist.
        MissingDependencyError: (at first use) no package, no checkpoint.
    """

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        *,
        variant: str = "online",
        device: str = "auto",
        batch_windows: int = 8,
        side: int = 20,
        short_side_px: int = 320,
        precision: str = "float32",
        network_size_px: tuple[int, int] | None = None,
    ) -> None:
        if variant not in CHECKPOINTS:
            raise InputError(f"there is no CoTracker3 variant {variant!r}", fix="Choose online or offline.")
        if precision not in ("float32", "bfloat16"):
            raise InputError(f"there is no precision {precision!r}", fix="Choose float32 or bfloat16.")
        if batch_windows < 1:
            raise InputError(f"a batch cannot hold {batch_windows} windows")
        if not 1 <= side <= short_side_px:
            raise InputError(f"a grid of {side} x {side} points does not fit a short side of {short_side_px} px")
        # The network halves images five times over: a quarter for its features, then three coarser levels.
        if network_size_px is not None and any(size < 64 or size % 32 for size in network_size_px):
            raise InputError(
                f"the network cannot work at {network_size_px[0]} x {network_size_px[1]} px",
                fix="Choose multiples of 32 from 64 on.",
            )
        self.checkpoint = Path(checkpoint) if checkpoint is not None else None
        self.variant = variant
        self.device = device
        self.batch_windows = batch_windows
        self.side = side
        self._short_side_px = short_side_px
        self.precision = precision
        self.network_size_px = network_size_px

    @property
    def tracker_id(self) -> str:
        """For example ``cotracker3-online/1f0c5a7e93b2/float32/384x512/320/20x20/v1``.

        The second part is the hash of the weights. Reading it loads them.
        """
        height_px, width_px = self._predictor.interp_shape
        return (
            f"cotracker3-{self.variant}/{self._weights_id}/{self.precision}/{height_px}x{width_px}/"
            f"{self._short_side_px}/{self.side}x{self.side}/v1"
        )

    @property
    def short_side_px(self) -> int:
        """Short side of the images that are tracked."""
        return self._short_side_px

    def track(self, samples: Iterable[Sample], grid: SampleGrid) -> Iterator[TrackWindows]:
        """See :meth:`laps.trackers.Tracker.track`. Memory: the frames of one batch of windows."""
        longest = WINDOW_LENGTHS[self.variant]
        if grid.window > longest:
            raise InputError(
                f"CoTracker3 {self.variant} tracks at most {longest} samples at once, not {grid.window}",
                fix="Choose the offline variant or a shorter window.",
            )
        waiting: list[_Clip] = []
        for clip in _clips(samples, grid, self._short_side_px):
            if waiting and not self._same_batch(waiting[0], clip, grid):
                yield from self._track_batch(waiting, grid)
                waiting = []
            waiting.append(clip)
        if waiting:
            yield from self._track_batch(waiting, grid)

    def _place(self, clip: _Clip, grid: SampleGrid) -> tuple[int, int]:
        """Number of the batch on the absolute grid, and the clip's place in it."""
        return divmod(clip.end_sample // grid.stride, self.batch_windows)

    def _same_batch(self, one: _Clip, other: _Clip, grid: SampleGrid) -> bool:
        same_size = one.images[0].shape == other.images[0].shape
        return same_size and self._place(one, grid)[0] == self._place(other, grid)[0]

    def _track_batch(self, clips: list[_Clip], grid: SampleGrid) -> Iterator[TrackWindows]:
        height_px, width_px = clips[0].images[0].shape[:2]
        start_units = grid_units(width_px, height_px, self.side)
        places = {self._place(clip, grid)[1]: clip for clip in clips}
        batch = [places.get(place, clips[0]) for place in range(self.batch_windows)]
        positions_px, visible = self._predict(batch, start_units.astype(np.float32) / np.float32(UNITS_PER_PX))
        batcher = WindowBatcher(self.tracker_id, self.batch_windows)
        for place, clip in sorted(places.items()):
            displacements, seen = quantize(
                positions_px[place], visible[place], clip.frame_times_ns, start_units, width_px, height_px
            )
            yield from batcher.add(
                clip.end_sample,
                displacements,
                seen,
                clip.frame_times_ns,
                width_px=width_px,
                height_px=height_px,
            )
        yield from batcher.flush()

    def _predict(self, clips: list[_Clip], start_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions float32 [B, T, N, 2] in px of the given images, and visibility bool [B, T, N]."""
        predictor, device = self._predictor, self._device
        video = torch.from_numpy(np.stack([np.stack(clip.images) for clip in clips]))
        video = video.to(device).permute(0, 1, 4, 2, 3).float()
        queries = torch.from_numpy(np.pad(start_px, ((0, 0), (1, 0)))).to(device)  # frame 0, x, y
        queries = queries.expand(len(clips), -1, -1)
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")
        with torch.inference_mode(), autocast, _ViewsMayCopy():
            if self.variant == "online":
                predictor(video, is_first_step=True, queries=queries)
                positions, visible = predictor(video)
            else:
                positions, visible = predictor(video, queries=queries)
        return positions.float().cpu().numpy(), visible.cpu().numpy()

    @cached_property
    def _device(self) -> torch.device:
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            return torch.device(self.device)
        except RuntimeError as error:
            raise InputError(f"there is no device {self.device!r}", fix="Choose auto, cpu or cuda.") from error

    @cached_property
    def _predictor(self) -> Any:
        # The package seeds torch's generator when it is imported; the caller's draws must not depend on that.
        with torch.random.fork_rng(devices=[]):
            package = _import_package()
            make = package.CoTrackerOnlinePredictor if self.variant == "online" else package.CoTrackerPredictor
            predictor = make(
                checkpoint=None, offline=self.variant == "offline", window_len=WINDOW_LENGTHS[self.variant]
            )
        try:
            predictor.model.load_state_dict(self._read_weights())
        except RuntimeError as error:
            raise InputError(
                f"the checkpoint does not fit CoTracker3 {self.variant}",
                where=str(self.checkpoint or CHECKPOINTS[self.variant]),
                fix=f"Use {CHECKPOINT_URL}{CHECKPOINTS[self.variant]}, or the other variant.",
            ) from error
        if self.network_size_px is not None:
            predictor.interp_shape = self.network_size_px
            predictor.model.model_resolution = self.network_size_px
        return predictor.to(self._device).eval()

    @cached_property
    def _weights_id(self) -> str:
        digest = hashlib.sha256()
        for name, values in sorted(self._predictor.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(values.cpu().numpy()).tobytes())
        return digest.hexdigest()[:12]

    def _read_weights(self) -> dict[str, torch.Tensor]:
        name = CHECKPOINTS[self.variant]
        how = f"Download {CHECKPOINT_URL}{name} and give its path as the checkpoint. {LICENCE}"
        if self.checkpoint is None:
            try:
                weights = torch.hub.load_state_dict_from_url(
                    CHECKPOINT_URL + name, map_location="cpu", progress=False, weights_only=True
                )
            except URLError as error:
                raise MissingDependencyError(
                    f"{name} is not in torch hub's cache and cannot be downloaded ({error.reason})",
                    where=torch.hub.get_dir(),
                    fix=how,
                ) from error
        elif not self.checkpoint.is_file():
            raise MissingDependencyError("there is no such checkpoint", where=str(self.checkpoint), fix=how)
        else:
            try:
                weights = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            except (UnpicklingError, EOFError, RuntimeError) as error:
                raise InputError(
                    f"this is no checkpoint that torch can read ({error})",
                    where=str(self.checkpoint),
                    fix=how,
                ) from error
        return weights.get("model", weights)


def _import_package() -> ModuleType:
    try:
        return importlib.import_module("cotracker.predictor")
    except ImportError as error:
        raise MissingDependencyError(
            f"the tracker CoTracker3 needs the package cotracker ({error})",
            fix=(
                "It is on no package index: pip install 'laps-dagster[cotracker]', or "
                f"pip install 'cotracker @ git+{REPOSITORY}'. {LICENCE} The tracker dis-flow needs neither."
            ),
        ) from error


class _ViewsMayCopy(TorchFunctionMode):
    """Lets the package take several clips at once.

    It views its first guess of the paths, an expanded tensor, in another shape, which torch allows for a
    batch of one only; a reshape gives the same values and copies where it must.
    """

    def __torch_function__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.Tensor.view and all(isinstance(size, int) for size in args[1:]):
            function = torch.Tensor.reshape
        return function(*args, **(kwargs or {}))


@dataclass(frozen=True)
class _Clip:
    """The samples of one window: T images uint8 [h, w, 3], and the times of their frames, int64 [T]."""

    end_sample: int
    images: list[np.ndarray]
    frame_times_ns: np.ndarray


def _clips(samples: Iterable[Sample], grid: SampleGrid, short_side_px: int) -> Iterator[_Clip]:
    """Every window whose samples are all there and of one size."""
    recent: deque[tuple[int, int, np.ndarray]] = deque(maxlen=grid.window)
    for sample in samples:
        if sample.frame is None:
            recent.clear()
            continue
        if recent and sample.index <= recent[-1][0]:
            raise InputError(f"sample {sample.index} came after sample {recent[-1][0]}")
        image = sample.frame.rgb(short_side_px)
        if recent and (sample.index != recent[-1][0] + 1 or image.shape != recent[-1][2].shape):
            recent.clear()
        recent.append((sample.index, sample.frame.time_ns, image))
        if len(recent) == grid.window and sample.index % grid.stride == grid.stride - 1:
            _, times_ns, images = zip(*recent, strict=True)
            yield _Clip(sample.index, list(images), np.array(times_ns, dtype=np.int64))


def quantize(
    positions_px: np.ndarray,
    visible: np.ndarray,
    frame_times_ns: np.ndarray,
    start_units: np.ndarray,
    width_px: int,
    height_px: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Displacements in 1/32 px, and visibility, of the predicted paths of one window.

    Points start exactly on the grid, stay within the image, and do not move where no new frame is shown.

    Args:
        positions_px: float32 [T, N, 2] as predicted.
        visible: bool [T, N] as predicted.
        frame_times_ns: int64 [T].
        start_units: int32 [N, 2], the grid in 1/32 px.
        width_px: width of the image.
        height_px: its height.

    Returns:
        displacements int16 [T - 1, N, 2], visible bool [T, N].
    """
    limit = np.array([width_px - 1, height_px - 1], np.int32) * UNITS_PER_PX
    displacements = np.empty((len(visible) - 1, *start_units.shape), np.int16)
    seen = np.empty_like(visible)
    seen[0] = True
    position = start_units
    for sample in range(1, len(visible)):
        if frame_times_ns[sample] == frame_times_ns[sample - 1]:
            displacements[sample - 1] = 0
            seen[sample] = seen[sample - 1]
            continue
        finite = np.isfinite(positions_px[sample]).all(axis=-1)
        wanted = np.where(finite[:, None], positions_px[sample].astype(np.float64) * UNITS_PER_PX, position)
        reached = np.clip(np.rint(wanted), 0, limit).astype(np.int32)
        inside = (np.abs(wanted - reached) <= 1).all(axis=-1)
        step = np.clip(reached - position, -MAX_DISPLACEMENT, MAX_DISPLACEMENT)
        inside &= (position + step == reached).all(axis=-1)
        displacements[sample - 1] = step
        seen[sample] = visible[sample] & finite & inside
        position = position + step
    return displacements, seen
