"""Statistics of a feature as LeRobot keeps them: min, max, mean, std, count and quantiles."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


def scalar_stats(values: NDArray[Any]) -> dict[str, list[Any]]:
    """Of a feature with one number a frame, values [n] with n > 0."""
    numbers = np.asarray(values, dtype=np.float64)
    # Large and close together, as times are: the mean from the differences keeps the digits.
    base = numbers[0]
    stats: dict[str, list[Any]] = {
        "min": [values.min().item()],
        "max": [values.max().item()],
        "mean": [float(base + (numbers - base).mean())],
        "std": [float((numbers - base).std())],
        "count": [len(values)],
    }
    found = np.quantile(numbers, list(QUANTILES.values()))
    return stats | {name: [float(value)] for name, value in zip(QUANTILES, found, strict=True)}


class PictureStats:
    """Counts of the values 0 to 255 in each colour: exact for any number of pictures, in no memory to speak of."""

    def __init__(self) -> None:
        self.counts = np.zeros((3, 256), dtype=np.int64)
        self.pictures = 0

    def add(self, picture: NDArray[np.uint8]) -> None:
        """Count a picture, uint8 [h, w, 3]; of large ones every second, third … pixel."""
        step = max(1, min(picture.shape[:2]) // 150)
        small = picture[::step, ::step]
        for channel in range(3):
            self.counts[channel] += np.bincount(small[..., channel].ravel(), minlength=256)
        self.pictures += 1

    def merge(self, other: PictureStats) -> None:
        self.counts += other.counts
        self.pictures += other.pictures

    def stats(self) -> dict[str, Any]:
        """Values in [0, 1], each of shape (3, 1, 1); ``count`` is the number of pictures."""
        levels = np.arange(256) / 255
        total = self.counts.sum(axis=1)
        mean = self.counts @ levels / total
        spread = np.sqrt(np.maximum(self.counts @ levels**2 / total - mean**2, 0))
        running = self.counts.cumsum(axis=1)

        def at(rank: NDArray[np.floating]) -> NDArray[np.float64]:
            """The level below or at which so many pixels lie, for each channel."""
            return levels[(running >= np.maximum(rank, 1)[:, None]).argmax(axis=1)]

        figures = {"min": at(np.ones(3)), "max": at(total.astype(float)), "mean": mean, "std": spread}
        figures |= {name: at(np.ceil(total * share)) for name, share in QUANTILES.items()}
        stats: dict[str, Any] = {name: [[[float(v)]] for v in values] for name, values in figures.items()}
        return stats | {"count": [self.pictures]}
