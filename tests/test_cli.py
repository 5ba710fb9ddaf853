"""The command line: what people meet when all is well, and what they read when it is not."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from laps_dagster.cli.main import COMMANDS, main
from tests.videos import write_video

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``laps`` in a store of its own; returns exit code, standard output and standard error."""
    monkeypatch.setenv("LAPS_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("LAPS_LANDING", str(tmp_path / "landing"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")

    def laps(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["laps", *(str(argument) for argument in arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capsys.readouterr()
        code = stopped.value.code
        return (code if isinstance(code, int) else 0), said.out, said.err

    return laps


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "cam1_20260105T090000Z.mp4", seconds=2)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_explains_itself(run: Run, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert "Usage: laps" in out


def test_ingest_takes_the_start_from_the_file_name(run: Run, video: Path) -> None:
    code, out, _ = run("ingest", video, "--camera", "cam1")
    assert code == 0
    assert "2026-01-05 09:00:00" in out and "(file_name)" in out


def test_the_option_beats_the_sidecar_and_the_sidecar_the_name(run: Run, video: Path) -> None:
    video.with_suffix(".json").write_text(json.dumps({"start": "2026-02-01T10:00:00Z"}))
    assert "2026-02-01 10:00:00" in run("ingest", video, "--camera", "cam1")[1]
    assert "2026-03-01 11:00:00" in run("ingest", video, "--camera", "cam1", "--start", "2026-03-01T12:00:00+01:00")[1]


def test_ingesting_twice_registers_once(run: Run, video: Path, tmp_path: Path) -> None:
    run("ingest", video, "--camera", "cam1")
    run("ingest", video, "--camera", "cam1")
    assert len(list((tmp_path / "store" / "recordings").rglob("*.parquet"))) == 1


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.mp4", b"", "empty"),
        ("text.mp4", b"this is no video at all\n" * 20, "text.mp4"),
    ],
)
def test_unusable_files_are_quarantined_and_the_others_go_on(
    run: Run, video: Path, tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    bad = tmp_path / name
    bad.write_bytes(content)
    code, out, err = run("ingest", bad, video, "--camera", "cam1")
    assert code == 1
    assert "quarantined" in err and reason in err
    assert "ok" in out and video.name in out
    code, out, _ = run("sql", "select status, reason from recordings order by status", "--format", "json")
    assert code == 0
    assert [row["status"] for row in json.loads(out)] == ["ok", "quarantined"]


def test_a_file_without_a_start_names_the_four_ways(run: Run, tmp_path: Path) -> None:
    code, _, err = run("ingest", write_video(tmp_path / "work.mp4", seconds=1), "--camera", "cam1")
    assert code == 1
    for way in ("--start", "sidecar", "file name", "creation time"):
        assert way in err


def test_a_path_that_does_not_exist_is_one_clear_line(run: Run, tmp_path: Path) -> None:
    code, _, err = run("ingest", tmp_path / "nothing.mp4", "--camera", "cam1")
    assert code == 1
    assert "nothing.mp4: there is no such file" in err


@pytest.mark.parametrize("camera", ["a/b", "..", "Cam 1"])
def test_bad_camera_names_are_refused(run: Run, video: Path, camera: str) -> None:
    code, _, err = run("ingest", video, "--camera", camera)
    assert code == 1
    assert "cannot be a camera's name" in err


def test_a_start_without_zone_is_refused(run: Run, video: Path) -> None:
    code, _, err = run("ingest", video, "--camera", "cam1", "--start", "2026-01-05T09:00:00")
    assert code == 1
    assert "has no zone" in err


def test_the_landing_zone_is_scanned_by_camera(run: Run, video: Path, tmp_path: Path) -> None:
    for camera in ("cam1", "Bad Name"):
        folder = tmp_path / "landing" / camera
        folder.mkdir(parents=True)
        shutil.copy(video, folder)
    code, out, err = run("ingest")
    assert code == 1
    assert "ok           cam1" in out
    assert "'Bad Name' cannot be a camera's name" in err


def test_backfill_of_an_empty_store_says_how_to_begin(run: Run) -> None:
    code, _, err = run("backfill")
    assert code == 1
    assert "laps ingest PATH --camera NAME" in err


def test_a_dry_run_lists_the_hours_and_does_nothing(run: Run, video: Path, tmp_path: Path) -> None:
    run("ingest", video, "--camera", "cam1")
    code, out, _ = run("backfill", "--dry-run")
    assert code == 0
    assert out.splitlines() == [
        "cam1|2026-01-05-09:00",
        "cam1|2026-01-05-10:00  (no footage; closes the hour before)",
    ]
    assert not (tmp_path / "store" / "raw_video").exists()


def test_status_says_what_is_missing(run: Run, video: Path) -> None:
    run("ingest", video, "--camera", "cam1")
    code, out, _ = run("status")
    assert code == 0
    assert "2026-01-05-09:00 UTC  not yet described, tracked, encoded, clustered" in out
    assert "laps backfill --only missing" in out


def test_sql_refuses_to_write(run: Run, video: Path) -> None:
    run("ingest", video, "--camera", "cam1")
    code, _, err = run("sql", "drop view recordings")
    assert code == 1
    assert "SELECT" in err


def test_sql_on_a_wrong_column_lists_the_right_ones(run: Run, video: Path) -> None:
    run("ingest", video, "--camera", "cam1")
    code, _, err = run("sql", "select colour from recordings")
    assert code == 1
    assert "start_source" in err


def test_a_report_of_an_empty_store_is_a_clear_error(run: Run) -> None:
    code, _, err = run("report")
    assert code == 1
    assert "no release" in err


def test_train_segment_and_evaluate_one_file(run: Run, tmp_path: Path) -> None:
    from dataclasses import replace

    from laps.simulation import SCENARIOS, record
    from laps.timegrid import parse_utc

    scenario = replace(SCENARIOS["clean"], seed=4, duration_s=40.0, width_px=320, height_px=180, fps=12.5)
    recording = record(tmp_path / "sim", scenario, camera="cam1", start_ns=parse_utc("2026-01-05T09:00:00Z"))
    model, found = tmp_path / "model", tmp_path / "found.json"
    code, out, err = run("train", recording, "--out", model, "--preset", "small", "--steps", "20")
    assert code == 0, err
    assert "perplexity" in out
    code, out, err = run("segment", recording, "--model", model, "--out", found)
    assert code == 0, err
    segments = json.loads(found.read_text())["segments"]
    assert all(0 <= s["start_sec"] < s["end_sec"] <= 40.1 and s["codes"] for s in segments)
    code, out, _ = run("evaluate", recording.with_suffix(".truth.json"), found, "--tolerance", "1")
    assert code == 0
    assert "metronome" in out and "typed" in out
    # The same file cut with the saved thresholds gives the same segments.
    again, kept = tmp_path / "again.json", tmp_path / "thresholds.json"
    run("segment", recording, "--model", model, "--out", again, "--save-calibration", kept)
    run("segment", recording, "--model", model, "--out", again, "--calibration", kept)
    assert json.loads(again.read_text())["segments"] == segments


def test_single_file_commands_say_what_is_wrong(run: Run, tmp_path: Path) -> None:
    assert "there is no such file" in run("train", tmp_path / "no.mp4", "--out", tmp_path / "m")[2]
    code, _, err = run("segment", tmp_path / "no.mp4", "--model", tmp_path / "m")
    assert code == 1 and "there is no such file" in err
    code, _, err = run("evaluate", tmp_path / "no.json", tmp_path / "no.json")
    assert code == 1 and "no.json" in err
