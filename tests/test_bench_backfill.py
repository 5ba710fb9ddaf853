"""The bench of a day's backfill: recordings laid end to end, what processes use, and what it calls the same."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.backfill import SETTLED_S, Day, Part, _inside, land
from bench.footage import lay_end_to_end
from bench.timeline import CUTS, NIGHT, TRACKS, Bar, _joined, draw
from bench.usage import Watch
from laps.simulation import SCENARIOS, record
from laps.timegrid import CameraHour, parse_utc
from laps.video import decode, probe, scan_frames

START = parse_utc("2026-01-06T06:00:00Z")
BURN = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done"


@pytest.mark.parametrize("preset", ["ultrafast", "medium"])  # without and with frames that lean on later ones
def test_a_recording_laid_end_to_end_shows_the_same_pictures_again(tmp_path: Path, preset: str) -> None:
    scenario = replace(SCENARIOS["clean"], duration_s=4.0, width_px=64, height_px=64, fps=10.0)
    source = record(tmp_path, scenario, camera="cam1", start_ns=START, preset=preset)
    long = tmp_path / "long.mp4"
    lay_end_to_end(source, long, 10.0, START)
    with long.open("rb") as file:
        assert probe(file, name="long").creation_time_ns == START
        times = scan_frames(file, name="long", from_ns=0, to_ns=20 * 10**9).times_ns
        np.testing.assert_array_equal(times, np.arange(100) * 10**8)
        frames = [
            frame.gray(64) for frame in decode(file, name="long", recording_start_ns=0, from_ns=0, to_ns=20 * 10**9)
        ]
    assert len(frames) == 100
    for number, picture in enumerate(frames):
        np.testing.assert_array_equal(picture, frames[number % 40])
    assert (frames[0] != frames[20]).any()


def test_what_ended_children_used_counts() -> None:
    with subprocess.Popen(["sh", "-c", f"sh -c '{BURN}'; echo; read x"], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        with Watch(process.pid, every_s=0.01) as watch:
            process.stdout.readline()
            used_s = watch.cpu_s()
            peak = watch.peak()
        process.stdin.write("\n")
    assert used_s > 0.02
    assert peak.processes == 2
    assert peak.all_mib > peak.largest_mib > 0


def test_what_lies_near_the_ends_of_footage_is_not_compared() -> None:
    part = Part(CameraHour("cam1", START), Path("x"), 100.0, 200.0)
    after, before = SETTLED_S
    found = [(100.0 + after + shift, 100.0 + after + shift + 1.0) for shift in (-0.1, 0.0, 50.0)]
    found += [(290.0 - 1.0, 300.0 - before + shift) for shift in (0.0, 0.1)]
    assert _inside(found, part) == found[1:4]


def test_faults_leave_the_other_files_whole(tmp_path: Path) -> None:
    cameras, footage = ("cam1", "cam2"), {}
    for camera in cameras:
        for hour in range(4):
            for half in (-1, 0, 1):
                footage[camera, hour, half] = file = (
                    tmp_path / "made" / camera / f"{hour}{max(half, 0)}{half == -1}.mp4"
                )
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(bytes(100))
    day: Day = land(tmp_path / "landing", footage, cameras, 4, 240, faults=True)
    assert day.late is not None and day.broken is not None
    assert not day.late.file.exists() and day.broken.file.stat().st_size == 60
    assert footage["cam2", 2, 1].stat().st_size == 100
    assert all(part.file.exists() for part in day.parts)
    # Sixteen halves; one is late, one is broken, and one lacks a third.
    assert day.footage_h * 3600 == 14 * 120 - 40
    assert len(day.filmed) == 8 and len(day.hours) == 10


def test_steps_that_follow_each_other_are_one_bar_and_the_same_bars_one_picture(tmp_path: Path) -> None:
    steps = [Bar("cam1|2026-01-06-06:00", TRACKS, start_s, start_s + 5.0) for start_s in (16.0, 10.0, 40.0)]
    other = Bar(NIGHT, CUTS, 60.0, 61.0)
    bars = list(_joined([*steps, other]))
    assert bars == [replace(steps[1], stop_s=21.0), steps[2], other]
    files = [tmp_path / name for name in ("a.svg", "b.svg")]
    for file in files:
        draw(bars, file, "two bars")
    assert files[0].read_bytes() == files[1].read_bytes()
    assert "cam1 2026-01-06-06:00" in files[0].read_text()
