"""Ways to describe a primitive by numbers, whatever it was cut by: the project's own and the ablations of the paper.

========================  ==========================================================================================
descriptor                what it is
========================  ==========================================================================================
``embedder``              the project's: frozen Transformer over the tokens' quantized vectors (section 3.2.1)
``mean_tokens``           mean of the tokens' quantized vectors (the paper's table 5, "w/o Transformer")
``norm_tokens``           their mean weighted by their lengths (the paper's table 3, "attention-norm pooling", which
                          the paper names only; so in the reference implementation)
``embedder_prequant``     frozen Transformer over the latents before quantization
``embedder_velocities``   frozen Transformer over the tracked velocities
``mean_velocities``       mean velocity of each point
``mean_speeds``           mean speed of each point
``visual``                descriptor of the keyframes (the paper's table 5 has CLIP; here edges and colours)
``duration``              length in seconds, logarithmic
========================  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from bench.quality.methods import Streams
from bench.quality.recordings import GRID, Pictures, Recording
from laps.embedding import FrozenTransformer
from laps.single import START_NS
from laps.timegrid import NS_PER_S
from laps.tokenizer import MotionTokenizer
from laps.tokenizer.data import tokenizer_input
from laps.vision import choose_frames, pool

Segment = tuple[float, float]
Described = dict[str, NDArray[np.floating]]

DURATION = "duration"
VISUAL = "visual"
NAMES = (
    "embedder",
    "mean_tokens",
    "norm_tokens",
    "embedder_prequant",
    "embedder_velocities",
    "mean_velocities",
    "mean_speeds",
    VISUAL,
    DURATION,
)


def describe(
    recordings: Sequence[Recording], segments: Sequence[Sequence[Segment]], tokenizer: MotionTokenizer, streams: Streams
) -> tuple[Described, list[tuple[int, int]]]:
    """Descriptors of the segments of some recordings with video.

    Args:
        recordings: the recordings.
        segments: of each recording, in seconds.
        tokenizer: of the tokens.
        streams: gives their codes.

    Returns:
        For each name float[n, d], and for each row which recording and which of its segments it is. Segments without
        any code or keyframe are left out of all.
    """
    parts = [_of_one(recording, own, tokenizer, streams) for recording, own in zip(recordings, segments, strict=True)]
    order = [(place, one) for place, (kept, _) in enumerate(parts) for one in kept]
    raw = [part for _, part in parts]
    vectors = tokenizer.code_vectors()
    sequences = [sequence for part in raw for sequence in part["tokens"]]
    found: Described = {
        "embedder": _embed(sequences, vectors),
        "mean_tokens": _stack([vectors[codes].mean(axis=0) for codes in sequences]),
        "norm_tokens": _stack([_norm_weighted(vectors[codes]) for codes in sequences]),
        "embedder_prequant": _embed_rows([rows for part in raw for rows in part["prequant"]]),
        "embedder_velocities": _embed_rows([rows for part in raw for rows in part["velocities"]]),
    }
    for name in ("mean_velocities", "mean_speeds", VISUAL, DURATION):
        found[name] = _stack([row for part in raw for row in part[name]])
    return found, order


def _of_one(
    recording: Recording, segments: Sequence[Segment], tokenizer: MotionTokenizer, streams: Streams
) -> tuple[list[int], dict[str, list[NDArray]]]:
    """The segments of one recording that can be described, and the parts of their descriptors."""
    codes = streams.get(recording, tokenizer).code
    latents = _latents(recording, tokenizer)
    velocities = recording.motion(without_common_mode=tokenizer.config.remove_common_mode).velocities
    pictures = cast(Pictures, recording.pictures)
    times_ns = pictures.samples * GRID.step_ns - START_NS
    kept: list[int] = []
    names = ("tokens", "prequant", "velocities", "mean_velocities", "mean_speeds", VISUAL, DURATION)
    parts: dict[str, list[NDArray]] = {name: [] for name in names}
    for number, (start_s, end_s) in enumerate(segments):
        # The samples with start <= t < end, as the product takes a primitive's codes.
        samples = np.arange(*(int(np.ceil(round(edge * GRID.rate_hz, 6))) for edge in (start_s, end_s)))
        samples = samples[(samples >= 0) & (samples < len(codes))]
        samples = samples[codes[samples] >= 0]
        frames = choose_frames(times_ns, round(start_s * NS_PER_S), round(end_s * NS_PER_S))
        if not len(samples) or not len(frames):
            continue
        kept.append(number)
        moving = velocities[samples]
        parts["tokens"].append(codes[samples])
        parts["prequant"].append(latents[samples])
        parts["velocities"].append(moving.reshape(len(samples), -1))
        parts["mean_velocities"].append(moving.mean(axis=0).ravel())
        parts["mean_speeds"].append(np.hypot(moving[..., 0], moving[..., 1]).mean(axis=0))
        parts[VISUAL].append(pool(pictures.features[frames], pictures.norms[frames]))
        parts[DURATION].append(np.log([end_s - start_s]))
    return kept, parts


def _latents(recording: Recording, tokenizer: MotionTokenizer) -> NDArray[np.float32]:
    """The vectors before quantization of each sample, float32[n, width]; NaN where there is none.

    Quantized vectors are linear in the positions on FSQ's grid, and so are these in the positions before rounding.
    """
    positions = tokenizer.code_positions()
    ones = np.ones((len(positions), 1))
    linear = np.linalg.lstsq(np.hstack([positions, ones]), tokenizer.code_vectors(), rcond=None)[0]
    found = np.full((len(recording), linear.shape[1]), np.nan, np.float32)
    for batch in recording.windows:
        _, latents = tokenizer.encode(tokenizer_input(batch, GRID, tokenizer.config)[0])
        own = latents[:, -GRID.stride :]
        places = recording.own_samples(batch)
        inside = (places >= 0) & (places < len(recording))
        found[places[inside]] = own[inside] @ linear[:-1] + linear[-1]
    return found


def _embed_rows(sequences: Sequence[NDArray]) -> NDArray[np.float32]:
    """Embeddings of sequences of any vectors: each row is a code of its own."""
    ends = np.cumsum([len(rows) for rows in sequences])
    places = [np.arange(end - len(rows), end) for rows, end in zip(sequences, ends, strict=True)]
    return _embed(places, np.concatenate(sequences) if len(sequences) else np.zeros((0, 1)))


def _embed(sequences: Sequence[NDArray], vectors: NDArray) -> NDArray[np.float32]:
    # Sequences are short: more threads would spend more time meeting than computing.
    with threadpool_limits(1):
        return FrozenTransformer.create(vectors.shape[1]).embed(sequences, vectors)


def _norm_weighted(rows: NDArray) -> NDArray[np.float64]:
    lengths = np.linalg.norm(rows, axis=1)
    weighted: NDArray[np.float64] = np.average(rows, axis=0, weights=lengths if lengths.any() else None)
    return weighted


def _stack(rows: Sequence[NDArray]) -> NDArray:
    return np.stack(rows) if len(rows) else np.zeros((0, 1))
