"""Small plots for the Dagster UI, as PNG bytes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from matplotlib.axes import Axes

    from laps.calibration import Calibration
    from laps.latent import LatentStream
    from laps.timegrid import SampleGrid

SIZE_IN = (9.0, 2.8)


def _figure(rows: int = 1) -> tuple[Any, list[Axes]]:
    # The object interface: pyplot would keep global state in a process that runs for days.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIZE_IN[0], SIZE_IN[1] * rows), layout="constrained")
    axes: list[Axes] = list(figure.subplots(rows, 1, squeeze=False)[:, 0])
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Any) -> bytes:
    """The figure in sixteen colours, a seventh of the size: Dagster keeps the plots of every hour for good."""
    from PIL import Image

    drawn, buffer = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=80)
    colours = Image.open(drawn).convert("RGB").quantize(16, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    colours.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def energy_plot(stream: LatentStream, grid: SampleGrid, *, bins: int = 900) -> bytes:
    """Decoded motion and the paper's energy over an hour: minimum, mean and maximum of each of ``bins`` parts."""
    import numpy as np

    figure, axes = _figure(2)
    minutes = (np.arange(len(stream.code)) + 0.5) * grid.step_s / 60
    for axis, name, label in zip(
        axes,
        ("decoded_motion_energy", "latent_action_energy"),
        ("decoded motion\n(px per sample step)", "latent action energy\n(paper)"),
        strict=True,
    ):
        values = getattr(stream, name).astype(np.float64)
        parts = np.array_split(np.arange(len(values)), min(bins, max(1, len(values))))
        rows = [
            (
                minutes[part].mean(),
                values[part][good].min(),
                values[part][good].mean(),
                values[part][good].max(),
            )
            for part in parts
            if len(part) and (good := np.isfinite(values[part])).any()
        ]
        if rows:
            time, low, mean, high = np.array(rows).T
            axis.fill_between(time, low, high, alpha=0.25, linewidth=0)
            axis.plot(time, mean, linewidth=0.8)
        else:
            axis.text(0.5, 0.5, "no values in this hour", ha="center", transform=axis.transAxes)
        axis.set_ylabel(label)
        axis.set_xlim(0, max(1e-9, len(values) * grid.step_s / 60))
    axes[-1].set_xlabel("minutes since the start of the hour (UTC)")
    return _png(figure)


def training_plot(history: Sequence[dict[str, Any]]) -> bytes:
    """Loss and code perplexity over the training steps."""
    figure, (loss, codes) = _figure(2)
    steps = [entry["step"] for entry in history]
    loss.plot(steps, [entry["loss"] for entry in history])
    loss.set_ylabel("loss")
    codes.plot(steps, [entry["perplexity"] for entry in history])
    codes.set_ylabel("code perplexity")
    codes.set_xlabel("optimizer step")
    codes.set_ylim(bottom=0)
    return _png(figure)


def calibration_plot(energies: np.ndarray, calibration: Calibration) -> bytes:
    """Histogram of the smoothed energy of the calibration's hours, with both thresholds.

    Args:
        energies: float64 [n], smoothed; NaN and zeros are left out.
        calibration: the thresholds.
    """
    import numpy as np

    figure, (axis,) = _figure()
    values = energies[np.isfinite(energies) & (energies > 0)]
    if len(values):
        edges = np.geomspace(values.min(), values.max() * 1.0001, 120)
        counts, _ = np.histogram(values, edges)
        axis.stairs(counts, edges, fill=True, alpha=0.4)
        axis.set_xscale("log")
    axis.axvline(calibration.settings.theta_on, color="tab:red", label="theta on")
    axis.axvline(calibration.settings.theta_off, color="tab:orange", linestyle="--", label="theta off")
    axis.set_xlabel(f"{calibration.form.replace('_', ' ')} energy, smoothed")
    axis.set_ylabel("samples")
    axis.legend(frameon=False)
    return _png(figure)


def duration_plot(durations_s: np.ndarray) -> bytes:
    """Histogram of the primitives' lengths."""
    import numpy as np

    figure, (axis,) = _figure()
    axis.hist(durations_s, bins=np.arange(0, max(10.0, float(durations_s.max()) + 0.5), 0.5).tolist())
    axis.set_xlabel("duration of a primitive (s)")
    axis.set_ylabel("primitives")
    return _png(figure)


def scatter_plot(points: np.ndarray, labels: np.ndarray) -> bytes:
    """The map of the primitives, coloured by cluster."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5), layout="constrained")
    axis = figure.subplots()
    for number in np.unique(labels):
        chosen = labels == number
        axis.scatter(points[chosen, 0], points[chosen, 1], s=10, label=f"cluster {number}")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.legend(frameon=False, fontsize="small")
    return _png(figure)
