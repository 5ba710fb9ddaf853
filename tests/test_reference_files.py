"""Energy and segment files of the reference implementation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from laps.errors import InputError
from laps.reference_files import (
    read_energy_jsonl,
    read_segments_json,
    segments_document,
    window_means,
    write_energy_jsonl,
    write_segments_json,
)


def test_energies_survive_a_round_trip_and_null_windows_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "energy.jsonl"
    write_energy_jsonl(path, np.array([1.5, np.nan, 0.1]), source="quantized", mode="token_diff_l2_mean")
    assert json.loads(path.read_text().splitlines()[0]) == {
        "window": 0,
        "energy": 1.5,
        "source": "quantized",
        "mode": "token_diff_l2_mean",
    }
    windows, energies = read_energy_jsonl(path)
    assert windows.tolist() == [0, 2]
    assert energies.tolist() == [1.5, 0.1]


def test_energies_are_sorted_by_window(tmp_path: Path) -> None:
    path = tmp_path / "energy.jsonl"
    path.write_text('{"window": 7, "energy": 2}\n\n{"window": 3, "energy": 1}\n')
    windows, energies = read_energy_jsonl(path)
    assert windows.tolist() == [3, 7]
    assert energies.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        '{"window": 1}',
        '{"window": 1.5, "energy": 2}',
        '{"window": 1, "energy": NaN}',
        '{"window": 0, "energy": 2}',
        "[1, 2]",
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "energy.jsonl"
    path.write_text(f'{{"window": 0, "energy": 1}}\n{line}\n')
    with pytest.raises(InputError, match=r"energy\.jsonl, line 2"):
        read_energy_jsonl(path)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent"):
        read_energy_jsonl(tmp_path / "absent.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="no energies"):
        read_energy_jsonl(tmp_path / "empty.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_energy_jsonl(tmp_path / "binary.jsonl")


def test_a_window_s_energy_is_the_mean_of_the_samples_it_owns() -> None:
    energy = np.array([9.0, 1, 2, 3, 4, 5, np.nan, 7, 8, 9])
    # Samples 3, | 4 5 6 7 | 8 9 10 11 | 12: windows own four samples from a multiple of four on.
    means = window_means(energy, 3, 4)
    assert means[0] == pytest.approx(2.5)
    assert np.isnan(means[1])
    assert len(means) == 2


def test_segments_survive_a_round_trip(tmp_path: Path) -> None:
    document = segments_document(
        [{"start_sec": 0.5, "end_sec": 2.0, "codes": [1, 2]}],
        stride=4,
        target_fps=10,
        duration_s=60.0,
        video="a.mp4",
        parameters={"theta_on": 1.0},
    )
    path = tmp_path / "a_segments.json"
    write_segments_json(path, document)
    assert read_segments_json(path) == document
    assert document["segmentation_params"]["stride"] == 4
    assert document["video_duration_sec"] == 60.0


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"other": 1}',
        '{"segments": 3}',
        '{"segments": [{"start_sec": 1}]}',
        '{"segments": [{"start_sec": 2, "end_sec": 1}]}',
        '{"segments": [{"start_sec": 0, "end_sec": NaN}]}',
    ],
)
def test_a_document_that_is_no_segmentation_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"broken\.json"):
        read_segments_json(path)
