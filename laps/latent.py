"""The latent stream: one code and its energies for every sample (paper sections 3.1 and 3.1.1).

Each sample takes its values from the one window that owns it, and each energy compares a token with the one
before it *in the same window*: windows track different points. Between windows nothing is compared.

A window always stands in the same row of an encoding batch, the one that its end sample selects, and every
batch has the same shape. So a window's values are the same numbers, to the bit, however a recording is split
into hours, files or batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from laps.errors import InputError, ModelMismatchError
from laps.motion import mean_speed
from laps.tables import LATENT_STREAM
from laps.timegrid import SampleGrid
from laps.tokenizer.data import tokenizer_input
from laps.tokenizer.model import ENCODE_BATCH, MotionTokenizer
from laps.tracks import TrackWindows

NO_FOOTAGE = "no_footage"
WINDOW_START = "window_start"
LOST_TRACKS = "lost_tracks"

ENERGIES = ("latent_action_energy", "decoded_motion_energy", "velocity_energy", "prequantized_energy")


@dataclass(eq=False)
class LatentStream:
    """Values of the samples ``[first, first + n)`` of one camera, by one tokenizer.

    Attributes:
        first: first sample, counted since the epoch.
        code: int32 [n], -1 where null.
        latent_action_energy: float32 [n], ||z_q,t - z_q,t-1||_2, the paper's energy; NaN where null, as
            below.
        decoded_motion_energy: float32 [n], mean speed of the points as decoded from the code; px a sample step.
        velocity_energy: float32 [n], the same of the velocities that the tokenizer read (so without camera
            shake, where it takes that off), over the points that were seen.
        prequantized_energy: float32 [n], ||z_t - z_t-1||_2 of the tokens before rounding: FSQ's bounded
            latents through the same projection as z_q, so it differs from the paper's energy by the rounding
            alone.
        null_reason: n times None or why the sample has no values: ``no_footage``, ``window_start`` (footage,
            but no window reaches back far enough), ``lost_tracks``.
        tokenizer_id: the tokenizer that made it.
    """

    first: int
    code: NDArray[np.int32]
    latent_action_energy: NDArray[np.float32]
    decoded_motion_energy: NDArray[np.float32]
    velocity_energy: NDArray[np.float32]
    prequantized_energy: NDArray[np.float32]
    null_reason: list[str | None] = field(repr=False)
    tokenizer_id: str

    def __post_init__(self) -> None:
        lengths = {len(getattr(self, name)) for name in (*ENERGIES, "null_reason")} | {len(self.code)}
        if len(lengths) > 1:
            raise InputError(f"the columns of a latent stream differ in length: {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.code)

    @property
    def stop(self) -> int:
        """The sample after the last."""
        return self.first + len(self)

    def slice(self, first: int, stop: int) -> LatentStream:
        """The samples ``[first, stop)``, which must lie inside; shares the arrays."""
        if not self.first <= first <= stop <= self.stop:
            raise InputError(f"samples {first} to {stop} are not inside {self.first} to {self.stop}")
        part = slice(first - self.first, stop - self.first)
        energies = {name: getattr(self, name)[part] for name in ENERGIES}
        return LatentStream(
            first=first,
            code=self.code[part],
            null_reason=self.null_reason[part],
            tokenizer_id=self.tokenizer_id,
            **energies,
        )

    def to_table(self, camera: str, grid: SampleGrid) -> pa.Table:
        """Rows of :data:`laps.tables.LATENT_STREAM`, one a sample."""
        samples = np.arange(self.first, self.stop, dtype=np.int64)
        schema = LATENT_STREAM.schema()
        null = self.code < 0
        columns = {
            "camera": [camera] * len(self),
            "sample": samples,
            "time": samples * grid.step_ns // 1000,
            "code": pa.array(np.where(null, 0, self.code).astype(np.uint16), mask=null),
            "null_reason": self.null_reason,
            "tokenizer_id": [self.tokenizer_id] * len(self),
        }
        for name in ENERGIES:
            columns[name] = pa.array(getattr(self, name), mask=np.isnan(getattr(self, name)))
        arrays = [
            columns[column.name]
            if isinstance(columns[column.name], pa.Array)
            else pa.array(columns[column.name], type=column.type)
            for column in schema
        ]
        return pa.Table.from_arrays(arrays, schema=schema)

    @classmethod
    def from_table(cls, rows: pa.Table) -> LatentStream:
        """Inverse of :meth:`to_table`: rows of one camera and one tokenizer, without a sample left out.

        Raises:
            ModelMismatchError: rows of several tokenizers.
            InputError: no rows, or samples that are missing.
        """
        if rows.num_rows == 0:
            raise InputError("there are no rows to read a latent stream from")
        tokenizers = rows["tokenizer_id"].unique().to_pylist()
        if len(tokenizers) > 1:
            raise ModelMismatchError(
                f"rows of several tokenizers ({', '.join(sorted(tokenizers))})",
                fix="Materialize latent_stream of these hours again with one tokenizer.",
            )
        rows = rows.sort_by("sample").combine_chunks()
        samples = rows["sample"].to_numpy()
        if (np.diff(samples) != 1).any():
            raise InputError(
                f"samples between {samples[0]} and {samples[-1]} are missing or repeated in a latent stream",
                fix="Give the rows of one camera and of hours that follow each other.",
            )
        energies = {name: rows[name].fill_null(np.nan).to_numpy() for name in ENERGIES}
        return cls(
            first=int(samples[0]),
            code=rows["code"].cast(pa.int32()).fill_null(-1).to_numpy(),
            null_reason=rows["null_reason"].to_pylist(),
            tokenizer_id=tokenizers[0],
            **energies,
        )

    @staticmethod
    def concat(streams: Sequence[LatentStream]) -> LatentStream:
        """One stream of several that follow each other without a gap.

        Raises:
            ModelMismatchError: streams of several tokenizers.
            InputError: no stream, or streams that do not follow each other.
        """
        if not streams:
            raise InputError("there are no latent streams to join")
        for before, after in pairwise(streams):
            if before.tokenizer_id != after.tokenizer_id:
                raise ModelMismatchError(
                    f"latent streams of the tokenizers {before.tokenizer_id} and {after.tokenizer_id} do not mix",
                    fix="Materialize latent_stream of these hours again with one tokenizer.",
                )
            if before.stop != after.first:
                raise InputError(f"a latent stream ends at sample {before.stop}, the next begins at {after.first}")
        energies = {name: np.concatenate([getattr(stream, name) for stream in streams]) for name in ENERGIES}
        return LatentStream(
            first=streams[0].first,
            code=np.concatenate([stream.code for stream in streams]),
            null_reason=[reason for stream in streams for reason in stream.null_reason],
            tokenizer_id=streams[0].tokenizer_id,
            **energies,
        )


def encode_stream(
    windows: Iterable[TrackWindows],
    tokenizer: MotionTokenizer,
    grid: SampleGrid,
    *,
    first: int,
    stop: int,
    covered: NDArray[np.bool_],
    min_visible_share: float = 0.5,
) -> LatentStream:
    """Codes and energies of the samples ``[first, stop)``.

    Memory does not grow with the number of windows: they are encoded as they come, 256 at a time.

    Args:
        windows: the windows that own these samples, in ascending order of their ends; others are passed over.
        tokenizer: a frozen tokenizer.
        grid: the sampling grid that the windows were made on.
        first: first sample.
        stop: the sample after the last.
        covered: bool [stop - first], the sample lies inside footage.
        min_visible_share: a window whose own steps show a smaller share of the points that it shows at all gives no
            values. It shows all of them but those in a region to ignore from its start (:mod:`laps.regions`).

    Raises:
        ModelMismatchError: windows of another tracker, number of points or rate than the tokenizer was
        trained on. InputError: windows out of order, or ``covered`` of another length.
    """
    if covered.shape != (stop - first,):
        raise InputError(f"{stop - first} samples, but coverage is known of {covered.shape}")
    _check_grid(tokenizer, grid)
    encoder = _Encoder(tokenizer, grid, first, stop, min_visible_share)
    for batch in windows:
        encoder.add(batch)
    encoder.flush()
    reasons = np.where(encoder.lost, LOST_TRACKS, np.where(covered, WINDOW_START, NO_FOOTAGE))
    present = encoder.code >= 0
    return LatentStream(
        first=first,
        code=encoder.code,
        null_reason=[None if there else str(reason) for there, reason in zip(present, reasons, strict=True)],
        tokenizer_id=tokenizer.tokenizer_id,
        **encoder.energies,
    )


class _Encoder:
    """Collects windows into the rows of a batch, encodes full batches, and keeps the owned samples' values."""

    def __init__(
        self, tokenizer: MotionTokenizer, grid: SampleGrid, first: int, stop: int, min_visible_share: float
    ) -> None:
        self.tokenizer, self.grid = tokenizer, grid
        self.first, self.stop = first, stop
        self.min_visible_share = min_visible_share
        self.code = np.full(stop - first, -1, np.int32)
        self.energies = {name: np.full(stop - first, np.nan, np.float32) for name in ENERGIES}
        self.lost = np.zeros(stop - first, bool)
        self.positions = tokenizer.code_positions()
        self.metric = tokenizer.latent_metric()
        self.by_code = mean_speed(tokenizer.decoded_motion()) if tokenizer.config.decoding == "token" else None
        steps, points = tokenizer.config.steps, tokenizer.config.points
        self.velocities = np.zeros((ENCODE_BATCH, steps, points, 2), np.float32)
        self.visible = np.zeros((ENCODE_BATCH, grid.stride, points), bool)
        self.shown = np.zeros(ENCODE_BATCH, np.int64)
        self.ends = np.full(ENCODE_BATCH, -1, np.int64)
        self.last_end = -1
        self.batch_number = -1

    def add(self, windows: TrackWindows) -> None:
        self._check(windows)
        wanted = np.flatnonzero(
            (windows.end_samples >= self.first) & (windows.end_samples - self.grid.stride + 1 < self.stop)
        )
        if not len(wanted):
            return
        windows = windows[slice(wanted[0], wanted[-1] + 1)]
        velocities, visible = tokenizer_input(windows, self.grid, self.tokenizer.config)
        visible = visible[:, -self.grid.stride :]
        numbers, rows = np.divmod(windows.end_samples // self.grid.stride, ENCODE_BATCH)
        for number in np.unique(numbers):
            if number != self.batch_number:
                self.flush()
                self.batch_number = int(number)
            here = numbers == number
            self.velocities[rows[here]] = velocities[here]
            self.visible[rows[here]] = visible[here]
            self.shown[rows[here]] = windows.visible[here].any(axis=1).sum(axis=-1)
            self.ends[rows[here]] = windows.end_samples[here]

    def flush(self) -> None:
        """Encode the batch; rows without a window are zeros and thrown away."""
        rows = np.flatnonzero(self.ends >= 0)
        if not len(rows):
            return
        own = self.grid.stride
        codes, latents = self.tokenizer.encode(self.velocities)
        quantized = self.positions[codes]
        found = {
            "latent_action_energy": _length(quantized[:, -own:] - quantized[:, -own - 1 : -1], self.metric),
            "decoded_motion_energy": (
                self.by_code[codes[:, -own:]]
                if self.by_code is not None
                else mean_speed(self.tokenizer.decode_codes(codes, own))
            ),
            "velocity_energy": mean_speed(self.velocities[:, -own:], self.visible),
            "prequantized_energy": _length(latents[:, -own:] - latents[:, -own - 1 : -1], self.metric),
        }
        share = self.visible.sum(axis=(1, 2)) / np.maximum(self.shown * own, 1)
        seen = (share >= self.min_visible_share) & (self.shown > 0)
        for row in rows:
            start = int(self.ends[row]) - own + 1 - self.first
            inside = slice(max(0, start), min(self.stop - self.first, start + own))
            part = slice(inside.start - start, inside.stop - start)
            if not seen[row]:
                self.lost[inside] = True
                continue
            self.code[inside] = codes[row, -own:][part]
            for name, values in found.items():
                self.energies[name][inside] = values[row, part]
        self.velocities[:] = 0
        self.visible[:] = False
        self.ends[:] = -1

    def _check(self, windows: TrackWindows) -> None:
        config = self.tokenizer.config
        if windows.tracker_id != config.tracker_id:
            raise ModelMismatchError(
                f"the tokenizer {self.tokenizer.tokenizer_id} was trained on tracks of {config.tracker_id}, "
                f"not of {windows.tracker_id}",
                fix="Track with that tracker, or train a tokenizer on these tracks.",
            )
        self.tokenizer.check_shape(windows.displacements.shape)
        ends = windows.end_samples
        if len(ends):
            if ends[0] <= self.last_end or (np.diff(ends) <= 0).any():
                raise InputError(f"track windows are out of order near sample {ends[0]}")
            if ((ends + 1) % self.grid.stride).any():
                raise InputError(f"a window ends off the grid of every {self.grid.stride} samples near {ends[0]}")
            self.last_end = int(ends[-1])


def _length(difference: NDArray[np.float32], metric: NDArray[np.float64]) -> NDArray[np.float32]:
    """Length of latent differences [..., D] under a metric [D, D]."""
    parts = np.moveaxis(difference.astype(np.float64), -1, 0)
    squares = sum(metric[a, b] * parts[a] * parts[b] for a in range(len(parts)) for b in range(len(parts)))
    return np.sqrt(np.maximum(squares, 0)).astype(np.float32)


def _check_grid(tokenizer: MotionTokenizer, grid: SampleGrid) -> None:
    config = tokenizer.config
    if (config.rate_hz, config.steps) != (grid.rate_hz, grid.window - 1):
        raise ModelMismatchError(
            f"the tokenizer {tokenizer.tokenizer_id} reads {config.steps} steps at {config.rate_hz} Hz, "
            f"but the grid has {grid.window - 1} at {grid.rate_hz} Hz",
            fix="Use the grid that the tokenizer was trained with, or train another one.",
        )
    if grid.stride >= config.steps:
        raise ModelMismatchError(f"windows of {config.steps} steps cannot own {grid.stride} samples and one before")
