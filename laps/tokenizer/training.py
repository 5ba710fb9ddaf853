"""Training of the motion tokenizer, and what it reached.

The recipe against codebook collapse, the method's hard part: inputs of order one, latents normalised before
the quantizer, a loss that still points (half to 95% of all) do not drown, gradient clipping, token-wise
decoding, and batches of which half is drawn in proportion to the windows' motion. The learning rate warms up,
stays, and closes with a cosine to zero; the closing starts when the held-out loss has stopped falling, or so
early that it ends at ``max_steps`` or within ``max_minutes``. Same data, seed and settings give the same
weights on one machine, unless time ended the training.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laps.tokenizer import classes
from laps.tokenizer.config import LearningSettings, TokenizerConfig
from laps.tokenizer.data import MAX_WINDOWS, TrainingWindows, WindowBatch, gather
from laps.tokenizer.model import MotionTokenizer

MOVING_SHARE = 0.02
"""A window or a step is *moving* when at least this share of its seen points moves: faster than the classes'
scale, 0.5 px a sample step by default."""

EndReason = Literal["max_steps", "plateau", "time"]

_REPORT_EVERY = 10
_PERPLEXITY_STEPS = 20
_EVALUATION_WINDOWS = 128
_MEASURE_WINDOWS = 384
_PART = 16


@dataclass(frozen=True)
class TrainingProgress:
    """Where a training stands; handed to the progress callback every 10 steps.

    Attributes:
        step: steps done.
        last_step: step at which it ends as far as is known.
        loss: mean loss of the last 10 steps.
        held_out_loss: latest loss on windows held out.
        perplexity: exp(entropy) of the codes of moving steps in the last 20 batches.
        codes_used_share: share of the codebook seen in them.
        windows_per_s: speed.
        elapsed_s: time since the first step.
        eta_s: time left.
        warning: what is wrong, for example a collapsing codebook.
    """

    step: int
    last_step: int
    loss: float
    held_out_loss: float | None
    perplexity: float
    codes_used_share: float
    windows_per_s: float
    elapsed_s: float
    eta_s: float
    warning: str | None = None


@dataclass(frozen=True)
class TokenizerQuality:
    """What a tokenizer does on windows; perplexity and code use count the tokens of moving windows only.

    Attributes:
        held_out: whether training did not see the windows.
        windows: windows measured.
        moving_windows: those of which at least 2% of the points move.
        tokens: tokens of the moving windows. Perplexity and codes used cannot exceed it.
        perplexity: exp(entropy) of their codes. Moving windows hold resting steps too, whose codes should be few.
        moving_perplexity: the same of the moving steps alone.
        rest_perplexity: the same of the resting steps of all windows.
        codes_used: distinct codes in moving windows.
        codes_used_share: of the codebook.
        loss: weighted cross-entropy.
        moving_accuracy: share of moving points and steps whose class is the most probable one; None without
            any.
        commonest_class_share: share of the commonest class among moving points: what always guessing it would score.
        rest_change_share: share of changes of code between neighbouring resting steps; None without any.
    """

    held_out: bool
    windows: int
    moving_windows: int
    tokens: int
    perplexity: float
    moving_perplexity: float
    rest_perplexity: float
    codes_used: int
    codes_used_share: float
    loss: float
    moving_accuracy: float | None
    commonest_class_share: float | None
    rest_change_share: float | None


@dataclass
class TrainedTokenizer:
    """A frozen tokenizer, how it was trained, and what it reached."""

    tokenizer: MotionTokenizer
    seed: int
    ended_by: EndReason
    windows_seen: int
    windows_used: int
    quality: TokenizerQuality
    history: list[dict[str, float | int | str | None]] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """What is wrong with the result; an early warning that did not come true is in the history only."""
        last = self.history[-1]["warning"] if self.history else None
        return [str(last)] if last else []

    def report(self) -> dict[str, Any]:
        """Everything but the weights, as JSON-ready values (``training.json``)."""
        return {
            "tokenizer_id": self.tokenizer.tokenizer_id,
            "seed": self.seed,
            "ended_by": self.ended_by,
            "windows_seen": self.windows_seen,
            "windows_used": self.windows_used,
            "quality": dataclasses.asdict(self.quality),
            "warnings": self.warnings,
            "history": self.history,
        }


def train(
    windows: NDArray[np.floating] | Iterable[WindowBatch],
    config: TokenizerConfig,
    *,
    visible: NDArray[np.bool_] | None = None,
    seed: int = 0,
    max_minutes: float | None = None,
    max_steps: int | None = None,
    max_windows: int = MAX_WINDOWS,
    device: str = "auto",
    progress: Callable[[TrainingProgress], None] | None = None,
) -> TrainedTokenizer:
    """Train a tokenizer.

    Args:
        windows: velocities [W, S, N, 2], px a sample step at the tracker's image size, or batches of them
            with or without visibility, in time order camera by camera; see
            :func:`laps.tokenizer.data.gather`.
        config: architecture and settings.
        visible: bool [W, S, N], beside one array; steps that were not seen do not count in the loss.
        seed: of the initial weights and of every draw.
        max_minutes: close in time for this limit. The result then depends on the machine's speed.
        max_steps: instead of the configuration's.
        max_windows: windows kept in memory; a longer source is thinned evenly.
        device: ``auto`` (a GPU where there is one), ``cpu`` or ``cuda``.
        progress: called every 10 steps.

    Raises:
        InputError, ModelMismatchError: as :func:`laps.tokenizer.data.gather` does.
    """
    if max_steps is not None:
        config = dataclasses.replace(config, learning=dataclasses.replace(config.learning, max_steps=max_steps))
    data = gather(windows, config, visible=visible, max_windows=max_windows)
    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    # No draw depends on, or touches, the caller's random state.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = MotionTokenizer(config).to(where)
    run = _Run(tokenizer, data, np.random.default_rng(seed), max_minutes, progress)
    ended_by = run.loop()
    tokenizer.freeze()
    held_out = len(run.held_out) > 0 and not np.array_equal(run.held_out, run.learn)
    quality = measure(tokenizer, data, _spread(run.held_out, _MEASURE_WINDOWS), held_out=held_out)
    return TrainedTokenizer(tokenizer, seed, ended_by, data.seen, len(data), quality, run.history)


class _Run:
    """The state of one training."""

    def __init__(
        self,
        tokenizer: MotionTokenizer,
        data: TrainingWindows,
        rng: np.random.Generator,
        max_minutes: float | None,
        progress: Callable[[TrainingProgress], None] | None,
    ) -> None:
        self.tokenizer = tokenizer
        self.settings = tokenizer.config.learning
        self.data = data
        self.rng = rng
        self.max_s = math.inf if max_minutes is None else 60 * max_minutes
        self.progress = progress
        self.device = tokenizer.device
        self.learn, self.held_out = data.split()
        motion = data.motion[self.learn].astype(np.float64)
        self.by_motion = motion / motion.sum() if motion.sum() > 0 else None
        matrices = [p for p in tokenizer.parameters() if p.ndim >= 2]
        others = [p for p in tokenizer.parameters() if p.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": self.settings.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            betas=(0.9, 0.98),
            fused=True,
        )
        self.recent: deque[NDArray[np.int64]] = deque(maxlen=_PERPLEXITY_STEPS)
        self.history: list[dict[str, float | int | str | None]] = []
        self.warned = False

    def loop(self) -> EndReason:
        settings = self.settings
        closing_at, last_step = _closing(settings.max_steps, settings)
        ended_by: EndReason = "max_steps"
        closing = False
        held_out_loss: float | None = None
        best, stale = math.inf, 0
        losses: list[float] = []
        started = time.monotonic()
        step = 0
        while step < last_step:
            for group in self.optimizer.param_groups:
                group["lr"] = settings.learning_rate * _rate(step, closing_at, last_step, settings)
            losses.append(self._step())
            step += 1
            elapsed = time.monotonic() - started
            if not closing and step >= closing_at:
                closing = True
            if not closing and elapsed >= self.max_s * (1 - settings.decay_share):
                closing, ended_by, closing_at = True, "time", step
                last_step = min(last_step, step + _closing_steps(step, settings))
            if closing and elapsed >= self.max_s:
                ended_by, last_step = "time", step
            if step % settings.evaluate_every == 0 or step == last_step:
                held_out_loss = self._held_out_loss()
                if held_out_loss < best * (1 - settings.min_improvement):
                    best, stale = held_out_loss, 0
                else:
                    stale += 1
                if not closing and stale >= settings.patience:
                    closing, ended_by, closing_at = True, "plateau", step
                    last_step = min(last_step, step + _closing_steps(step, settings))
            if step % _REPORT_EVERY == 0 or step == last_step:
                self._report(step, last_step, losses, held_out_loss, elapsed)
                losses = []
        return ended_by

    def _step(self) -> float:
        tokenizer, settings = self.tokenizer.train(), self.settings
        velocities, visible = self.data.batch(self._draw(), self.device)
        count = tokenizer.config.points
        points = np.sort(self.rng.permutation(count)[: max(1, round(count * settings.point_share))])
        loss, latents, codes = tokenizer.loss(velocities, visible, torch.from_numpy(points).to(self.device))
        if settings.diversity > 0:
            loss = loss + settings.diversity * level_unevenness(tokenizer.bounded(latents), tokenizer.config.levels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tokenizer.parameters(), settings.clip_norm)
        self.optimizer.step()
        moving = codes[moving_steps(velocities, visible, tokenizer.config.class_scale_px)]
        self.recent.append(np.bincount(moving.cpu().numpy(), minlength=tokenizer.config.code_count))
        return float(loss.detach())

    def _draw(self) -> NDArray[np.int64]:
        size = self.settings.batch_windows
        moving = round(size * self.settings.motion_share) if self.by_motion is not None else 0
        uniform = self.rng.choice(self.learn, size - moving)
        return np.concatenate([uniform, self.rng.choice(self.learn, moving, p=self.by_motion)])

    @torch.inference_mode()
    def _held_out_loss(self) -> float:
        tokenizer = self.tokenizer.eval()
        index = _spread(self.held_out, _EVALUATION_WINDOWS)
        count = tokenizer.config.points
        # The same points every time: the values are compared with each other.
        points = torch.arange(0, count, max(1, round(1 / self.settings.point_share)), device=self.device)
        total = 0.0
        for start in range(0, len(index), _PART):
            part = index[start : start + _PART]
            velocities, visible = self.data.batch(part, self.device)
            total += float(tokenizer.loss(velocities, visible, points)[0]) * len(part)
        return total / len(index)

    def _report(
        self, step: int, last_step: int, losses: list[float], held_out_loss: float | None, elapsed: float
    ) -> None:
        counts = np.sum(self.recent, axis=0)
        perplexity, used = code_perplexity(counts), float((counts > 0).mean())
        warning = self._warning(step, last_step, perplexity, used)
        speed = step * self.settings.batch_windows / max(elapsed, 1e-9)
        eta_s = min(elapsed / step * (last_step - step), max(0.0, self.max_s - elapsed))
        state = TrainingProgress(
            step=step,
            last_step=last_step,
            loss=float(np.mean(losses)),
            held_out_loss=held_out_loss,
            perplexity=perplexity,
            codes_used_share=used,
            windows_per_s=speed,
            elapsed_s=elapsed,
            eta_s=eta_s,
            warning=warning,
        )
        self.history.append(dataclasses.asdict(state))
        if self.progress is not None:
            self.progress(state)

    def _warning(self, step: int, last_step: int, perplexity: float, used: float) -> str | None:
        """What is wrong, said when it is first seen, then at every look at the held-out windows and at the end."""
        settings = self.settings
        bound = settings.collapse_share * self.tokenizer.config.code_count
        if step < settings.collapse_after or perplexity >= bound:
            self.warned = False
            return None
        if self.warned and step % settings.evaluate_every and step != last_step:
            return None
        self.warned = True
        return (
            f"the codebook is collapsing: perplexity {perplexity:.0f} (under {bound:.0f}), "
            f"{100 * used:.1f}% of the codes used. Little motion in the training set does this too; otherwise "
            "train on more varied hours, or lower still_weight"
        )


@torch.inference_mode()
def measure(
    tokenizer: MotionTokenizer, data: TrainingWindows, index: NDArray[np.int64], *, held_out: bool
) -> TokenizerQuality:
    """What a frozen tokenizer does on the windows ``index`` of ``data``."""
    device = tokenizer.device
    config = tokenizer.config
    truth_counts = torch.zeros(config.class_count, dtype=torch.int64)
    in_windows, in_motion, at_rest = np.zeros((3, config.code_count), np.int64)
    right = rest_pairs = rest_changes = 0
    loss = 0.0
    for start in range(0, len(index), _PART):
        part = index[start : start + _PART]
        velocities, visible = data.batch(part, device)
        loss += float(tokenizer.loss(velocities, visible)[0]) * len(part)
        positions, codes = tokenizer.quantize(tokenizer.latents(velocities))
        best = tokenizer.decode(positions).argmax(dim=-1)
        truth = classes.classify(velocities, tokenizer.class_edges_px)
        moving = (velocities.norm(dim=-1) > config.class_scale_px) & visible
        right += int((best == truth)[moving].sum())
        truth_counts += torch.bincount(truth[moving], minlength=config.class_count).cpu()
        active = moving_steps(velocities, visible, config.class_scale_px)
        windows = torch.from_numpy(data.motion[part] >= MOVING_SHARE).to(device)
        for counts, chosen in ((in_windows, codes[windows]), (in_motion, codes[active]), (at_rest, codes[~active])):
            counts += np.bincount(chosen.flatten().cpu().numpy(), minlength=config.code_count)
        pairs = ~active[:, 1:] & ~active[:, :-1]
        rest_pairs += int(pairs.sum())
        rest_changes += int((codes[:, 1:] != codes[:, :-1])[pairs].sum())
    moving_points = int(truth_counts.sum())
    return TokenizerQuality(
        held_out=held_out,
        windows=len(index),
        moving_windows=int((data.motion[index] >= MOVING_SHARE).sum()),
        tokens=int(in_windows.sum()),
        perplexity=code_perplexity(in_windows),
        moving_perplexity=code_perplexity(in_motion),
        rest_perplexity=code_perplexity(at_rest),
        codes_used=int((in_windows > 0).sum()),
        codes_used_share=float((in_windows > 0).mean()),
        loss=loss / len(index),
        moving_accuracy=right / moving_points if moving_points else None,
        commonest_class_share=int(truth_counts.max()) / moving_points if moving_points else None,
        rest_change_share=rest_changes / rest_pairs if rest_pairs else None,
    )


def moving_steps(velocities: Tensor, visible: Tensor, slowest_px: float) -> Tensor:
    """Steps of which at least 2% of the seen points move: bool [B, S]."""
    moving = ((velocities.norm(dim=-1) > slowest_px) & visible).sum(-1)
    return moving >= MOVING_SHARE * visible.sum(-1).clamp(min=1)


def code_perplexity(counts: NDArray[np.integer]) -> float:
    """exp(entropy) of the codes' frequencies: how many codes are in effective use (0 without any)."""
    total = counts.sum()
    if total == 0:
        return 0.0
    shares = counts[counts > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def level_unevenness(bounded: Tensor, levels: tuple[int, ...]) -> Tensor:
    """How unevenly the levels of the quantizer are used: ln(levels) minus the entropy of their soft use.

    Args:
        bounded: float [..., D], latents before rounding, in about [-1, 1].
        levels: number of levels of each of the D dimensions.

    Returns:
        Scalar, nats, the mean over the dimensions: 0 where all levels are used alike.
    """
    terms = []
    for dimension, count in enumerate(levels):
        scaled = bounded[..., dimension].float().flatten() * (count // 2) + count // 2
        centres = torch.arange(count, device=scaled.device, dtype=scaled.dtype)
        shares = (-2.0 * (scaled[:, None] - centres) ** 2).softmax(-1).mean(0)
        terms.append(math.log(count) + (shares * shares.clamp(min=1e-9).log()).sum())
    return torch.stack(terms).mean()


def _closing_steps(steps: int, settings: LearningSettings) -> int:
    """Length of the closing after ``steps`` steps, so that it takes ``decay_share`` of the whole."""
    share = min(settings.decay_share, 0.9)
    return max(1, round(steps * share / (1 - share)))


def _closing(max_steps: int, settings: LearningSettings) -> tuple[int, int]:
    return round(max_steps * (1 - settings.decay_share)), max_steps


def _rate(step: int, closing_at: int, last_step: int, settings: LearningSettings) -> float:
    """Learning rate at a step, as a share of its peak."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    if step < closing_at:
        return warm
    return warm * 0.5 * (1 + math.cos(math.pi * (step - closing_at) / max(1, last_step - closing_at)))


def _spread(index: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most ``count`` of the indices, evenly spread."""
    if len(index) <= count:
        return index
    return index[np.linspace(0, len(index) - 1, count).round().astype(np.int64)]
