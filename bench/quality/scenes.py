"""Simulated recordings, made once and kept: tracks, flow and pictures of each, its truth beside them, no video."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from bench.quality import recordings
from bench.quality.kept import key_of, sources_key
from bench.quality.recordings import Recording
from laps.evaluation import Document
from laps.simulation import SCENARIOS, Scenario, record, truth
from laps.single import START_NS

WIDTH_PX, HEIGHT_PX = 640, 360
FPS = recordings.GRID.rate_hz  # frames between samples would never be looked at


@dataclass(frozen=True)
class Scene:
    """One view of one simulated timeline.

    Attributes:
        scenario: name of the scenario, a key of :data:`laps.simulation.SCENARIOS`.
        seed: of the timeline.
        view: viewpoint, a key of :data:`laps.simulation.VIEWS`.
        seconds: length.
    """

    scenario: str
    seed: int
    view: int
    seconds: float

    @property
    def name(self) -> str:
        return f"{self.scenario}-view{self.view}-{self.seed}"

    @property
    def camera(self) -> str:
        """Scenario and view: what shares a calibration."""
        return f"{self.scenario}-view{self.view}"

    @property
    def content_id(self) -> str:
        """Stands for the picture, and for what is made of it."""
        known: dict[str, Any] = asdict(self.timeline())
        known["distractors"] = sorted(known["distractors"])
        return key_of(known, self.view, _made_by(), recordings.observed_by())

    def timeline(self) -> Scenario:
        return replace(
            SCENARIOS[self.scenario],
            seed=self.seed,
            duration_s=self.seconds,
            width_px=WIDTH_PX,
            height_px=HEIGHT_PX,
            fps=FPS,
        )

    def truth(self) -> Document:
        return truth(self.timeline())

    def folder(self, cache_folder: Path) -> Path:
        return cache_folder / f"{self.name}-{self.content_id}"

    def make(self, cache_folder: Path) -> None:
        """Record, track and describe the scene, unless it is there; the video is deleted afterwards."""
        folder = self.folder(cache_folder)
        if recordings.is_saved(folder):
            return
        video = folder / "video"
        path = record(video, self.timeline(), camera=self.camera, view=self.view, start_ns=START_NS)
        (folder / "truth.json").write_text(json.dumps(self.truth()) + "\n", encoding="utf-8")  # for people
        recordings.save(recordings.observe_video(path, self.name, self.content_id), folder)
        shutil.rmtree(video)

    def load(self, cache_folder: Path) -> Recording:
        """The scene as methods see it; made if it is not there."""
        self.make(cache_folder)
        return recordings.load(self.folder(cache_folder))


@cache
def _made_by() -> str:
    return sources_key("laps/simulation/*.py", "bench/quality/scenes.py")
