"""The tokenizers that the sets need: trained once, kept, measured on windows that they have not seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bench.quality import kept
from bench.quality.recordings import GRID
from bench.quality.sets import SIMULATED_TOKENIZER, Item, TokenizerPlan
from laps.tokenizer import MotionTokenizer, TokenizerConfig, TrainingProgress, from_tracks, load, save, train
from laps.tokenizer.data import gather
from laps.tokenizer.training import measure
from laps.tracks import TrackWindows

_SAY_EVERY_S = 60.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class TrainingSettings:
    """How every tokenizer is trained.

    Attributes:
        preset: ``full`` or ``small``.
        minutes: longest training time of the simulation's tokenizer.
        other_minutes: the same of every other one.
        steps: most optimizer steps; None: the preset's.
        seed: of the training.
    """

    preset: Literal["full", "small"] = "full"
    minutes: float = 60.0
    other_minutes: float = 15.0
    steps: int | None = None
    seed: int = 0


class Tokenizers:
    """Gives each plan its tokenizer.

    Args:
        folder: where they are kept.
        settings: of the training.
        say: is told how it goes on.
        given: folders of tokenizers to take instead of training, by the plan's name. What they have seen is their
            owner's to know.
    """

    def __init__(
        self, folder: Path, settings: TrainingSettings, say: Say, given: dict[str, Path] | None = None
    ) -> None:
        self.folder, self.settings, self.say = folder, settings, say
        self.given = given or {}
        self._loaded: dict[str, MotionTokenizer] = {}

    def get(self, plan: TokenizerPlan) -> MotionTokenizer:
        """The plan's tokenizer; trained if it is not there."""
        if plan.name not in self._loaded:
            given = self.given.get(plan.name)
            self._loaded[plan.name] = load(given) if given is not None else self._trained(plan)
        return self._loaded[plan.name]

    def _trained(self, plan: TokenizerPlan) -> MotionTokenizer:
        settings = self.settings
        make = TokenizerConfig.full if settings.preset == "full" else TokenizerConfig.small
        config = make(
            plan.tracker_id,
            rate_hz=GRID.rate_hz,
            steps=GRID.window - 1,
            points=plan.points,
            remove_common_mode=plan.remove_common_mode,
        )
        minutes = settings.minutes if plan.name == SIMULATED_TOKENIZER else settings.other_minutes
        key = kept.key_of(
            config.to_json(), minutes, settings.steps, settings.seed, [item.content_id for item in plan.learn]
        )
        folder, finished = self.folder / f"{plan.name}-{key}", self.folder / f"{plan.name}-{key}.json"
        if kept.read(finished, key) is not None:
            return load(folder)
        self.say(f"training the tokenizer {plan.name}: {plan.title}")
        trained = train(
            from_tracks(_windows(plan.learn), GRID, config),
            config,
            seed=settings.seed,
            max_minutes=minutes,
            max_steps=settings.steps,
            progress=self._progress(plan.name),
        )
        tokenizer_id = save(trained.tokenizer, folder, training=trained.report())
        # Written last: a folder without it may be half of a tokenizer.
        kept.write(finished, key, {"tokenizer_id": tokenizer_id, "ended_by": trained.ended_by})
        return trained.tokenizer

    def _progress(self, name: str) -> Callable[[TrainingProgress], None]:
        said = time.monotonic()

        def progress(state: TrainingProgress) -> None:
            nonlocal said
            if time.monotonic() - said < _SAY_EVERY_S and state.step < state.last_step:
                return
            said = time.monotonic()
            self.say(
                f"  {name}: step {state.step} of {state.last_step}, loss {state.loss:.3f}, perplexity "
                f"{state.perplexity:.0f}, {state.windows_per_s:.1f} windows/s, {state.eta_s / 60:.0f} min left"
                + (f" ({state.warning})" if state.warning else "")
            )

        return progress


def quality_of(
    tokenizer: MotionTokenizer, items: Sequence[Item], path: Path, max_windows: int, *, held_out: bool
) -> dict[str, Any]:
    """What a tokenizer does on recordings; kept in a file.

    Args:
        tokenizer: the tokenizer.
        items: the recordings.
        path: of the file.
        max_windows: measured at most, in blocks spread evenly.
        held_out: whether the tokenizer has not seen the recordings.
    """

    def make() -> dict[str, Any]:
        data = gather(from_tracks(_windows(items), GRID, tokenizer.config), tokenizer.config, max_windows=max_windows)
        return asdict(measure(tokenizer, data, np.arange(len(data)), held_out=held_out))

    key = kept.key_of(
        tokenizer.tokenizer_id,
        [item.content_id for item in items],
        max_windows,
        held_out,
        kept.sources_key("laps/tokenizer/*.py"),
    )
    found: dict[str, Any] = kept.kept(path, key, make)
    return found


def _windows(items: Iterable[Item]) -> Iterable[TrackWindows]:
    for item in items:
        yield from item.load().windows
