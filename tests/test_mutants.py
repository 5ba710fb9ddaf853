"""Damaged files beside good ones: each is used as far as it goes or says why not, and its neighbours never notice.

The same with a thousand files, through the commands and runs: ``python -m bench.mutants``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from laps.recordings import describe_hour, registration_row
from laps.sampling import pieces_of, sample_frames
from laps.tables import RAW_VIDEO
from laps.timegrid import HOUR_NS, NS_PER_S, CameraHour, SampleGrid, parse_utc
from resources.apart import Apart
from resources.store import rows_table
from tests.mutants import cut_clips, make_good, make_mutant

MUTANTS = 50
SPACING_S = 30
HOUR = CameraHour("cam1", parse_utc("2026-11-21T05:00:00Z"))
NOW = HOUR.start_ns + 2 * HOUR_NS


def open_file(uri: str):
    return Path(uri).open("rb")


def offered(path: Path, start_ns: int) -> dict:
    with path.open("rb") as file:
        return registration_row(
            file,
            camera=HOUR.camera,
            uri=str(path),
            size_bytes=path.stat().st_size,
            modified_ns=1,
            etag=None,
            registered_ns=NOW,
            option_ns=start_ns,
        )


def observe_hour(
    places: list[tuple[Path, int]],
) -> tuple[list[dict], list[dict], dict[int, str], dict[str, str], list[str]]:
    """Register rows, rows of raw_video, digests of each sample's picture and of clips, what was said about damage."""
    grid = SampleGrid()
    registered = [offered(path, start_ns) for path, start_ns in places]
    rows = describe_hour(HOUR, grid, registered, open_file)
    rows_table(RAW_VIDEO, rows)
    problems: list[str] = []
    first, stop = grid.hour_samples(HOUR.start_ns)
    pictures = {
        sample.index: hashlib.sha256(sample.frame.gray(96).tobytes()).hexdigest()
        for sample in sample_frames(pieces_of(rows), open_file, grid, first, stop, on_problem=problems.append)
        if sample.frame is not None
    }
    return registered, rows, pictures, cut_clips(rows), problems


@pytest.fixture(scope="module")
def hour(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[tuple[Path, int]], list[tuple[Path, int]]]:
    """Places of good and of damaged files in an hour, in turn."""
    folder = tmp_path_factory.mktemp("mutants")
    sources = make_good(folder)
    good, bad = [], []
    for number in range(MUTANTS):
        source = sources[number % len(sources)]
        start_ns = HOUR.start_ns + number * 2 * SPACING_S * NS_PER_S
        path = folder / f"bad{number}{source.suffix}"
        path.write_bytes(make_mutant(source, number)[1])
        bad.append((path, start_ns))
        # Under a name of its own: a recording is known by it.
        copy = folder / f"copy{number}{source.suffix}"
        copy.hardlink_to(source)
        good.append((copy, start_ns + SPACING_S * NS_PER_S))
    return good, bad


def test_each_is_used_or_says_why_and_good_files_are_as_without_them(hour):
    good, bad = hour
    # A crash or a hang would end the child, and say so.
    apart = Apart(limit_s=120.0)
    _, _, alone, whole, silent = apart.call("good files", observe_hour, good)
    registered, rows, pictures, clips, problems = apart.call("damaged files", observe_hour, [*good, *bad])

    assert not silent
    assert len(alone) > 0.9 * MUTANTS * 40
    assert {index: pictures.get(index) for index in alone} == alone
    assert len(whole) == MUTANTS and not any(clip.startswith("failed") for clip in whole.values())
    assert {name: clips.get(name) for name in whole} == whole
    assert all(clip.removeprefix("failed: ") not in ("", "None") for clip in clips.values())
    statuses = {row["uri"]: row["status"] for row in registered}
    told = {row["uri"] for row in registered if row["status"] == "quarantined" and row["reason"]}
    told |= {row["uri"] for row in rows if row["uri"] and row["status"] != "ok" and row["reason"]}
    used = {row["uri"] for row in rows if row["used"]}
    for path, _ in bad:
        assert statuses[str(path)] in ("ok", "quarantined")
        assert str(path) in told | used, path
    # The damage is such that it shows, and such that some files stay usable.
    assert len(told & {str(path) for path, _ in bad}) >= MUTANTS // 5
    assert len(used & {str(path) for path, _ in bad}) >= MUTANTS // 5
    assert problems


def test_damage_is_the_same_for_the_same_seed(hour):
    good, _ = hour
    assert make_mutant(good[0][0], 5) == make_mutant(good[0][0], 5)
    assert make_mutant(good[0][0], 5) != make_mutant(good[0][0], 6)
