"""Suggesting names for clusters: which of a list of verbs a vision-language model finds most like their pictures.

Each verb is put into a few sentences, whose embeddings are averaged; a cluster is the mean of its primitives'
descriptors. What comes out is a cosine, and small differences between two verbs mean nothing: the margin between the
first and the second says how sure a suggestion is. It is a suggestion, for someone who then looks at the clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from laps.errors import InputError

SENTENCES = ("a photo of a worker at a workbench: {}", "a close-up photo of hands: {}", "the action: {}")
BEST = 3

VERBS = (
    "pick up a part", "put down a part", "reach into a bin", "hand over a part", "turn a part over",
    "insert a part", "pull a part out", "assemble two parts", "take two parts apart", "clamp a part",
    "tighten a screw", "loosen a screw", "use an electric screwdriver", "use a wrench", "hammer",
    "drill a hole", "file an edge", "cut with a knife", "press with both hands", "push a button",
    "pull a lever", "turn a knob", "open a lid", "close a lid", "plug in a cable",
    "route a cable", "solder", "apply glue", "apply tape", "stick on a label",
    "peel off a film", "scan a barcode", "measure with a caliper", "weigh a part", "inspect a part",
    "wipe a surface", "blow with compressed air", "sort parts", "stack parts", "pack into a box",
    "unpack a box", "fold a box", "carry a box", "write on paper", "touch a screen",
    "type on a keyboard", "put on gloves", "wait with resting hands",
)  # fmt: skip
"""What people do at a workstation, for those who bring no list of their own."""


class TextEncoder(Protocol):
    """Turns texts into descriptors whose cosine with those of pictures says how well they fit."""

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 [n, d], each L2-normalised."""
        ...


@dataclass(frozen=True)
class Suggestion:
    """What a cluster may be called.

    Attributes:
        cluster_id: its number.
        verbs: the best verbs with their cosine, best first.
        primitives: how many of its primitives were looked at.
    """

    cluster_id: int
    verbs: tuple[tuple[str, float], ...]
    primitives: int

    @property
    def margin(self) -> float:
        """By how much the first is better than the second."""
        return self.verbs[0][1] - self.verbs[1][1]


def parse_verbs(text: str, where: str) -> list[str]:
    """A list of verbs: one a line; empty lines and what follows a ``#`` do not count, and a verb counts once.

    Raises:
        InputError: fewer than two.
    """
    lines = (" ".join(line.partition("#")[0].split()) for line in text.splitlines())
    verbs = list(dict.fromkeys(line for line in lines if line))
    if len(verbs) < 2:
        raise InputError(
            f"holds {len(verbs)} verbs, and a choice needs two",
            where=where,
            fix='Write one a line, for example "tighten a screw".',
        )
    return verbs


def suggest(
    means: Mapping[int, NDArray[np.floating]], counts: Mapping[int, int], verbs: Sequence[str], encoder: TextEncoder
) -> list[Suggestion]:
    """The best verbs for each cluster, by its number.

    Args:
        means: mean descriptor of each cluster's primitives, float [d].
        counts: primitives of each.
        verbs: at least two.
        encoder: the text side of the model that made the descriptors.
    """
    sentences = [sentence.format(verb) for verb in verbs for sentence in SENTENCES]
    texts = _normalised(encoder.encode_text(sentences).reshape(len(verbs), len(SENTENCES), -1).mean(axis=1))
    found = []
    for cluster, mean in sorted(means.items()):
        scores = texts @ _normalised(mean)
        best = np.argsort(-scores, kind="stable")[:BEST]
        ranked = tuple((verbs[place], float(scores[place])) for place in best)
        found.append(Suggestion(cluster, ranked, counts[cluster]))
    return found


def _normalised(values: NDArray[np.floating]) -> NDArray[np.float64]:
    wide = np.asarray(values, np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=-1, keepdims=True), 1e-12)
