"""A backfill whose processes are killed comes to the same tables, byte for byte; fifty and more kills: bench.kill."""

from __future__ import annotations

import random
from pathlib import Path

from laps.timegrid import parse_utc
from tests.kills import copy_scene, kill_during_backfill, make_scene
from tests.tokenizers import narrow_heads


def test_after_three_kills_one_command_makes_what_an_undisturbed_backfill_makes(tmp_path: Path) -> None:
    start_ns = parse_utc("2026-01-05T09:00:05Z")
    with narrow_heads():
        scene, undisturbed = make_scene(tmp_path / "scene", cameras=("cam1",), start_ns=start_ns)
    disturbed = copy_scene(scene, tmp_path / "disturbed")
    met = kill_during_backfill(disturbed, random.Random(5), kills=3, longest_s=8.0, workers=1)
    assert met >= 1
    assert disturbed.tables() == undisturbed
    assert not [path for path in (tmp_path / "disturbed" / "store").rglob("*") if path.name.startswith(".")]
