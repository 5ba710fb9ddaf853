"""A camera that shakes and a light that flickers do not turn rest into one long action."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from laps.baselines.cutting import cut_energy
from laps.motion import mean_speed, without_common_mode
from laps.simulation import SCENARIOS, record
from laps.single import START_NS, read_recording, track_recording
from laps.timegrid import SampleGrid
from laps.trackers.flow import FlowTracker

GRID = SampleGrid()
LENGTH_S = 60.0


@pytest.mark.parametrize("name", ["shake", "flicker"])
def test_rest_stays_rest(name: str, tmp_path: Path) -> None:
    cv2.setNumThreads(1)
    scenario = replace(
        SCENARIOS["clean"], seed=12, duration_s=LENGTH_S, width_px=480, height_px=270, fps=10.0,
        distractors=frozenset({name}),
    )  # fmt: skip
    video = record(tmp_path, scenario, camera="cam1", start_ns=START_NS)
    actions = json.loads(video.with_suffix(".truth.json").read_text())["segments"]
    recording = read_recording(video, GRID)
    energy = np.full(recording.stop - recording.first, np.nan)
    for windows in track_recording(recording, FlowTracker(), GRID):
        visible = windows.step_visible()
        speed = mean_speed(without_common_mode(windows.velocities(GRID), visible), visible)
        for end, values in zip(windows.end_samples, speed, strict=True):
            place = int(end) - GRID.stride + 1 - recording.first
            energy[max(place, 0) : place + GRID.stride] = values[-GRID.stride :][max(-place, 0) :]
    found = cut_energy(energy, GRID, first=recording.first)

    times = np.arange(0, LENGTH_S, 0.1)

    def outside(pairs: list[tuple[float, float]], margin_s: float) -> np.ndarray:
        return np.all([(times < start - margin_s) | (times > end + margin_s) for start, end in pairs], axis=0)

    resting = outside([(one["start_sec"], one["end_sec"]) for one in actions], 0.5)
    assert resting.sum() > 100
    assert outside(found.segments, 0)[resting].mean() > 0.9
    assert 0.5 < len(found.segments) / len(actions) < 1.5
    assert max(end - start for start, end in found.segments) < 20
