"""Visual descriptors of primitives from the keyframes that lie in them (paper section 3.2.3, "Segment Embedding")."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from laps.keyframes import read_picture
from laps.timegrid import from_datetime
from laps.vision import VisionEncoder, choose_frames, pool

BATCH_PICTURES = 64


def describe_primitives(
    primitives: Sequence[Mapping[str, Any]], keyframes: pa.Table, encoder: VisionEncoder
) -> Iterator[dict[str, Any]]:
    """The columns segment_id, status, reason, feature and frames_used of the table `visual_features`.

    A picture that several primitives share is encoded once. A primitive near which there is no keyframe is a row
    with the status failed and the reason.

    Args:
        primitives: rows of the table `segments`.
        keyframes: rows of the table `keyframes` of the hours that the primitives lie in, in order of time.
        encoder: the vision encoder.
    """
    samples = keyframes["time"].cast(pa.int64()).to_numpy() * 1000
    chosen = [
        choose_frames(samples, from_datetime(primitive["start_time"]), from_datetime(primitive["end_time"]))
        for primitive in primitives
    ]
    needed = np.unique(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)
    features, norms = _encode(keyframes["jpeg"], needed, encoder)
    for primitive, frames in zip(primitives, chosen, strict=True):
        row: dict[str, Any] = {"segment_id": primitive["segment_id"], "frames_used": len(frames)}
        if len(frames) == 0:
            row |= {"status": "failed", "reason": "no keyframe lies in or near the primitive"}
        else:
            places = np.searchsorted(needed, frames)
            row |= {"status": "ok", "feature": pool(features[places], norms[places]).tolist()}
        yield row


def _encode(jpegs: pa.ChunkedArray, needed: np.ndarray, encoder: VisionEncoder) -> tuple[np.ndarray, np.ndarray]:
    features: list[np.ndarray] = []
    norms: list[np.ndarray] = []
    for start in range(0, len(needed), BATCH_PICTURES):
        pictures = [read_picture(jpegs[int(place)].as_py()) for place in needed[start : start + BATCH_PICTURES]]
        encoded = encoder.encode(pictures)
        features.append(encoded.features)
        norms.append(encoded.norms)
    if not features:
        return np.zeros((0, 0), np.float32), np.zeros(0, np.float32)
    return np.concatenate(features), np.concatenate(norms)
