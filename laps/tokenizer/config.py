"""Settings of the motion tokenizer: architecture, displacement classes, learning, and what its input must be.

Everything here is written into ``config.json`` and is part of the tokenizer's id, so two tokenizers with the
same id read the same tracks in the same way and give the same codes.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch

from laps.errors import InputError

CODE_VERSION = 2
"""Version of the tokenizer's arithmetic. Raise it when the same weights would give other codes or energies."""

Precision = Literal["float32", "bfloat16"]
Decoding = Literal["token", "window"]


def default_precision() -> Precision:
    """bfloat16 where the processor or the GPU multiplies it in hardware, else float32."""
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    capabilities = torch.cpu.get_capabilities()
    return "bfloat16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "float32"


@dataclass(frozen=True)
class LearningSettings:
    """How a tokenizer learns.

    Attributes:
        max_steps: optimizer steps after which training ends, if it has not ended before.
        batch_windows: windows in a step.
        point_share: share of the points, drawn uniformly, that the head decodes in a step.
        learning_rate: peak learning rate (AdamW); linear warm-up, constant, then a cosine to zero.
        warmup_steps: steps of the warm-up.
        decay_share: share of all steps that the closing cosine takes.
        weight_decay: AdamW's weight decay, on matrices only.
        clip_norm: gradients are scaled down to this norm.
        still_weight: weight in the loss of a point in the zero class, beside 1 for the largest displacement.
        motion_share: share of a batch that is drawn in proportion to the windows' motion; the rest is
            uniform.
        diversity: weight of the term that rewards an even use of the levels of each quantized dimension.
        evaluate_every: steps between two looks at the held-out windows.
        patience: looks without an improvement after which training goes into its closing cosine.
        min_improvement: relative fall of the held-out loss that counts as an improvement.
        collapse_share: a warning is raised when the code perplexity is below this share of the codebook (48 of 1,920).
        collapse_after: steps before that warning may be raised.
    """

    max_steps: int = 6000
    batch_windows: int = 16
    point_share: float = 0.25
    learning_rate: float = 3e-4
    warmup_steps: int = 50
    decay_share: float = 0.3
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    still_weight: float = 0.005
    motion_share: float = 0.5
    diversity: float = 0.0
    evaluate_every: int = 100
    patience: int = 4
    min_improvement: float = 0.005
    collapse_share: float = 0.025
    collapse_after: int = 200

    def __post_init__(self) -> None:
        positive = ("max_steps", "batch_windows", "learning_rate", "clip_norm", "evaluate_every", "patience")
        for name in positive:
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive, not {getattr(self, name)}")
        for name in ("point_share", "still_weight"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{name} must lie in (0, 1], not {getattr(self, name)}")
        for name in ("motion_share", "decay_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must lie in [0, 1], not {getattr(self, name)}")


@dataclass(frozen=True)
class TokenizerConfig:
    """Architecture (paper section 3.1 with the reference implementation's defaults) and input of a tokenizer.

    Attributes:
        tracker_id: the tracker and settings that made the tracks; tokenizers never cross trackers.
        rate_hz: samples a second of the tracks.
        points: points in a window (N).
        steps: motion steps in a window (samples - 1).
        width: size of a token; the quantized vectors z_q live in R^width.
        heads: attention heads.
        encoder_layers: layers of the causal encoder.
        decoder_layers: layers of the decoder.
        levels: levels of the finite scalar quantization; their product is the number of codes.
        head_width: hidden size of the displacement head.
        decoding: ``token`` decodes each position from its own token alone, so that what a code means is a
            table; ``window`` lets a position see the tokens before it.
        classes_per_axis: displacement classes on each axis (odd; the middle one is "still").
        class_scale_px: scale s of the classes' centres ``s * sinh(k * h)``.
        class_reach_px: centre of the outermost class; larger displacements belong to it too.
        velocity_scale_px: inputs are ``asinh(velocity / velocity_scale_px)``.
        remove_common_mode: velocities are read less their median over the points (camera shake, flicker). For
            tracks of a whole picture; where every point sits on a hand there is nothing that stands still.
        noise_px: velocities are first scaled by ``s^2 / (s^2 + noise_px^2)``, s their size; 0 leaves them alone.
        precision: arithmetic of the Transformer and the head. Codes depend on it.
        image_dependent: whether velocities must come from one image size. They do not: every tracker scales
            the image to the same short side, and the grid covers the image whatever its aspect ratio.
        learning: how it was or will be trained.
        code_version: version of the arithmetic.
    """

    tracker_id: str
    rate_hz: int = 10
    points: int = 400
    steps: int = 15
    width: int = 768
    heads: int = 8
    encoder_layers: int = 2
    decoder_layers: int = 1
    levels: tuple[int, ...] = (8, 8, 6, 5)
    head_width: int = 768
    decoding: Decoding = "token"
    classes_per_axis: int = 15
    class_scale_px: float = 0.5
    class_reach_px: float = 20.0
    velocity_scale_px: float = 1.0
    remove_common_mode: bool = True
    noise_px: float = 0.25
    precision: Precision = field(default_factory=default_precision)
    image_dependent: bool = False
    learning: LearningSettings = field(default_factory=LearningSettings)
    code_version: int = CODE_VERSION

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(self.levels))
        for name in (
            "points",
            "steps",
            "width",
            "heads",
            "encoder_layers",
            "decoder_layers",
            "head_width",
            "rate_hz",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.width % self.heads:
            raise InputError(f"the width {self.width} is no multiple of {self.heads} heads")
        if self.classes_per_axis < 3 or self.classes_per_axis % 2 == 0:
            raise InputError(f"classes_per_axis must be odd and at least 3, not {self.classes_per_axis}")
        if not self.levels or min(self.levels) < 3:
            raise InputError(f"every FSQ level must be at least 3, not {list(self.levels)}")
        if self.code_count > 65_536:
            raise InputError(f"{self.code_count} codes do not fit the 16 bits that a code is stored in")
        for name in ("class_scale_px", "class_reach_px", "velocity_scale_px"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} must be positive, not {value}")
        if not (math.isfinite(self.noise_px) and self.noise_px >= 0):
            raise InputError(f"noise_px must be at least 0, not {self.noise_px}")
        if self.decoding not in get_args(Decoding):
            raise InputError(f"decoding must be one of {', '.join(get_args(Decoding))}, not {self.decoding!r}")
        if self.precision not in get_args(Precision):
            raise InputError(f"precision must be one of {', '.join(get_args(Precision))}, not {self.precision!r}")

    @property
    def code_count(self) -> int:
        """Codes in the codebook: 1,920 for the default levels."""
        return math.prod(self.levels)

    @property
    def class_count(self) -> int:
        """Displacement classes of a point: 225 for 15 an axis."""
        return self.classes_per_axis**2

    @classmethod
    def full(cls, tracker_id: str, **changes: Any) -> TokenizerConfig:
        """The paper's size. Meant for hours of video and an hour of training on two cores, or a GPU."""
        return cls(tracker_id=tracker_id, **changes)

    @classmethod
    def small(cls, tracker_id: str, **changes: Any) -> TokenizerConfig:
        """A small one for demonstrations and tests: about a minute of training on two cores."""
        learning = LearningSettings(max_steps=600, batch_windows=32, learning_rate=2e-3)
        return cls(
            **{
                "tracker_id": tracker_id,
                "width": 128,
                "heads": 4,
                "head_width": 96,
                "learning": learning,
                **changes,
            }
        )

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces. Part of what the tokenizer's id is the hash of."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> TokenizerConfig:
        """Inverse of :meth:`to_json`; InputError on settings that this version does not know."""
        values = json.loads(text)
        version = values.get("code_version")
        if version != CODE_VERSION:
            raise InputError(
                f"the tokenizer was made by version {version} of the tokenizer's arithmetic, this program has "
                f"{CODE_VERSION}",
                fix="Train a new one (`laps backfill --new-release`), or use the program that made it.",
            )
        try:
            return cls(**{**values, "learning": LearningSettings(**values["learning"])})
        except (TypeError, KeyError) as error:
            raise InputError(
                f"the tokenizer's settings cannot be read ({error})",
                fix="They were written by another version of this program; use that version or train again.",
            ) from error
