"""The command line: what people meet when all is well, and what they read when it is not."""

from __future__ import annotations

import json
import re
import shutil
import socket
from pathlib import Path

import click
import pytest

from laps_dagster.cli.demo import camera_name
from laps_dagster.cli.main import COMMANDS
from resources.models import ModelRegistry
from resources.store import Store
from tests.conftest import Laps
from tests.tokenizers import narrow_heads
from tests.videos import write_video


@pytest.fixture
def run(laps_command: Laps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Laps:
    """Run ``laps`` in a store of its own; returns exit code, standard output and standard error."""
    monkeypatch.setenv("LAPS_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("LAPS_LANDING", str(tmp_path / "landing"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")
    return laps_command


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "cam1_20260105T090000Z.mp4", seconds=2)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_explains_itself(run: Laps, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert "Usage: laps" in out


def test_the_list_of_commands_is_whole(run: Laps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run("--help")
    assert code == 0
    assert all(f"  {command} " in out for command in COMMANDS)
    assert "..." not in out.partition("Commands:")[2], "a first sentence is cut off"


def test_ingest_takes_the_start_from_the_file_name(run: Laps, video: Path) -> None:
    code, out, _ = run("ingest", video, "--camera", "cam1")
    assert code == 0
    assert "2026-01-05 09:00:00" in out and "(file_name)" in out


def test_the_option_beats_the_sidecar_and_the_sidecar_the_name(run: Laps, video: Path) -> None:
    video.with_suffix(".json").write_text(json.dumps({"start": "2026-02-01T10:00:00Z"}))
    assert "2026-02-01 10:00:00" in run("ingest", video, "--camera", "cam1")[1]
    assert "2026-03-01 11:00:00" in run("ingest", video, "--camera", "cam1", "--start", "2026-03-01T12:00:00+01:00")[1]


@pytest.mark.parametrize("option", [("--camera", "cam1"), ("--start", "2026-03-01T12:00Z")])
def test_options_of_a_file_are_refused_without_one(run: Laps, tmp_path: Path, option: tuple[str, str]) -> None:
    code, _, err = run("ingest", *option)
    assert code == 2 and "go with PATH" in err
    assert not (tmp_path / "store").exists()


def test_ingesting_twice_registers_once(run: Laps, video: Path, tmp_path: Path) -> None:
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
    run: Laps, video: Path, tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    bad = tmp_path / name
    bad.write_bytes(content)
    code, out, err = run("ingest", bad, video, "--camera", "cam1")
    assert code == 1
    assert "quarantined" in err and reason in err
    assert err.count(str(bad)) == 1
    assert "1 of 2 files quarantined: registered with the reason" in err and "refused" not in err
    assert run("status")[1].count(str(bad)) == 1
    assert "ok" in out and video.name in out
    code, out, _ = run("sql", "select status, reason from recordings order by status", "--format", "json")
    assert code == 0
    assert [row["status"] for row in json.loads(out)] == ["ok", "quarantined"]


def test_a_file_without_a_start_names_the_four_ways(run: Laps, tmp_path: Path) -> None:
    code, _, err = run("ingest", write_video(tmp_path / "work.mp4", seconds=1), "--camera", "cam1")
    assert code == 1
    for way in ("--start", "sidecar", "file name", "creation time"):
        assert way in err


def test_a_path_that_does_not_exist_is_one_clear_line(run: Laps, tmp_path: Path) -> None:
    code, _, err = run("ingest", tmp_path / "nothing.mp4", "--camera", "cam1")
    assert code == 1
    assert "nothing.mp4: there is no such file" in err


@pytest.mark.parametrize("camera", ["a/b", "..", "Cam 1"])
def test_bad_camera_names_are_refused(run: Laps, video: Path, camera: str) -> None:
    code, _, err = run("ingest", video, "--camera", camera)
    assert code == 1
    assert "cannot be a camera's name" in err


def test_a_start_without_zone_is_refused(run: Laps, video: Path) -> None:
    code, _, err = run("ingest", video, "--camera", "cam1", "--start", "2026-01-05T09:00:00")
    assert code == 1
    assert "has no zone" in err


def test_the_landing_zone_is_scanned_by_camera(run: Laps, video: Path, tmp_path: Path) -> None:
    for camera in ("cam1", "Bad Name"):
        folder = tmp_path / "landing" / camera
        folder.mkdir(parents=True)
        shutil.copy(video, folder)
    code, out, err = run("ingest")
    assert code == 1
    assert "ok           cam1" in out
    assert "'Bad Name' cannot be a camera's name" in err
    assert "1 of 2 files refused: not registered" in err and "quarantined" not in err


def test_quarantined_and_refused_files_are_counted_apart(run: Laps, video: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.mp4"
    empty.touch()
    code, _, err = run("ingest", video, empty, tmp_path / "nothing.mp4", "--camera", "cam1")
    assert code == 1
    assert "1 of 3 files quarantined" in err and "1 of 3 files refused" in err


def test_a_video_beside_the_camera_folders_is_refused(run: Laps, video: Path, tmp_path: Path) -> None:
    (tmp_path / "landing").mkdir()
    shutil.copy(video, tmp_path / "landing")
    code, _, err = run("ingest")
    assert code == 1
    assert f"refused      {tmp_path / 'landing' / video.name}: lies in no camera's folder. Move it to" in err


def test_a_folder_without_a_video_is_an_error(run: Laps, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    code, _, err = run("ingest", tmp_path / "empty", "--camera", "cam1")
    assert code == 1
    assert f"{tmp_path / 'empty'}: there is no video in this folder" in err


def test_the_advice_for_a_recording_before_the_first_hour_helps(
    run: Laps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = write_video(tmp_path / "cam1_20250601T000000Z.mp4", seconds=1)
    settings = tmp_path / "store" / "settings.json"
    code, _, err = run("ingest", early, "--camera", "cam1")
    assert code == 1
    assert f"write an earlier first_hour into {settings}, unset LAPS_FIRST_HOUR" in err
    content = json.loads(settings.read_text())
    settings.write_text(json.dumps({**content, "first_hour": "2025-01-01T00:00:00Z"}))
    monkeypatch.delenv("LAPS_FIRST_HOUR")
    code, out, _ = run("ingest", early, "--camera", "cam1")
    assert code == 0
    assert "ok           cam1  2025-06-01" in out
    assert "quarantined" not in run("status")[1]


READING = [
    ["status"],
    ["camera", "list"],
    ["camera", "set", "a", "--site", "Ulm"],
    ["sql", "select 1"],
    ["releases"],
    ["report"],
    ["promote", "r1"],
    ["discard", "r1"],
]


@pytest.mark.parametrize("command", READING, ids=lambda command: command[0])
def test_reading_where_there_is_no_store_says_so_and_makes_none(run: Laps, tmp_path: Path, command: list[str]) -> None:
    code, out, err = run(*command)
    assert (code, out) == (1, "")
    assert f"{tmp_path / 'store'}: there is no store here" in err
    assert "laps ingest PATH --camera NAME" in err and "laps demo" in err
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("command", READING, ids=lambda command: command[0])
def test_a_store_that_is_a_file_is_an_error(run: Laps, tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "store").write_text("text")
    code, out, err = run(*command)
    assert (code, out) == (1, "")
    assert f"{tmp_path / 'store'}: is a file, not a store" in err


def test_a_store_without_settings_is_still_one(run: Laps, video: Path, tmp_path: Path) -> None:
    run("ingest", video, "--camera", "cam1")
    (tmp_path / "store" / "settings.json").unlink()
    assert run("status")[0] == 0


def test_drafts_are_discarded_by_name(run: Laps, video: Path, tmp_path: Path) -> None:
    run("ingest", video, "--camera", "cam1")
    registry = ModelRegistry(Store(str(tmp_path / "store")))
    registry.open_draft("one")
    registry.open_draft("two")
    code, out, _ = run("discard", "r1")
    assert code == 0
    assert "discarded r1 (draft)" in out and "models/releases/r1  (1 file)" in out
    assert "r1" not in run("releases")[1]
    code, _, err = run("discard", "r1")
    assert code == 1
    assert "there is no release 'r1'" in err


def test_a_release_that_was_current_is_discarded_when_somebody_means_it(
    run: Laps, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("ingest", video, "--camera", "cam1")
    store = Store(str(tmp_path / "store"))
    for name in ("one", "two"):
        release = ModelRegistry(store).open_draft(name).name
        store.write_json(f"models/releases/{release}/promoted.json", {"at": "2026-01-05T00:00:00Z"})
        store.write_json("models/current.json", {"release": release})
    monkeypatch.setattr("click.confirm", refuse)
    code, _, err = run("discard", "r1")
    assert code == 1 and "Aborted" in err and "r1" in run("releases")[1]
    code, out, _ = run("discard", "r1", "--yes")
    assert code == 0 and "discarded r1 (retired)" in out
    code, _, err = run("discard", "r2", "--yes")
    assert code == 1 and "release r2: is current" in err


def refuse(*_: object, **__: object) -> None:
    raise click.Abort


def test_backfill_of_an_empty_store_says_how_to_begin(run: Laps) -> None:
    code, _, err = run("backfill")
    assert code == 1
    assert "laps ingest PATH --camera NAME" in err


def test_a_dry_run_lists_the_hours_and_does_nothing(run: Laps, video: Path, tmp_path: Path) -> None:
    run("ingest", video, "--camera", "cam1")
    code, out, _ = run("backfill", "--dry-run")
    assert code == 0
    assert out.splitlines() == [
        "cam1|2026-01-05-09:00  observe, segment",
        "cam1|2026-01-05-10:00  observe, segment",
    ]
    assert not (tmp_path / "store" / "raw_video").exists()


def test_status_says_what_is_missing(run: Laps, video: Path) -> None:
    run("ingest", video, "--camera", "cam1")
    code, out, _ = run("status")
    assert code == 0
    assert "0 of 1 hours complete" in out
    assert re.search(r"2026-01-05-09:00 UTC +not yet described, tracked, encoded, clustered\n", out)
    assert "laps backfill --only missing" in out


def test_sql_refuses_to_write(run: Laps, video: Path) -> None:
    run("ingest", video, "--camera", "cam1")
    code, _, err = run("sql", "drop view recordings")
    assert code == 1
    assert "SELECT" in err


@pytest.mark.parametrize("form", ["table", "csv", "json"])
@pytest.mark.parametrize("query", ["select uri from recordings", "select 1 where false", "explain select 1"])
def test_answers_end_with_one_newline(run: Laps, video: Path, form: str, query: str) -> None:
    run("ingest", video, "--camera", "cam1")
    code, out, _ = run("sql", query, "--format", form)
    assert code == 0
    assert out.endswith("\n") and not out.endswith("\n\n")


def test_sql_on_a_wrong_column_lists_the_right_ones(run: Laps, video: Path) -> None:
    run("ingest", video, "--camera", "cam1")
    code, _, err = run("sql", "select colour from recordings")
    assert code == 1
    assert "start_source" in err


def test_a_report_without_a_release_is_a_clear_error(run: Laps, video: Path) -> None:
    run("ingest", video, "--camera", "cam1")
    code, _, err = run("report")
    assert code == 1
    assert "no release" in err


def test_train_segment_and_evaluate_one_file(run: Laps, tmp_path: Path) -> None:
    from dataclasses import replace

    from laps.simulation import SCENARIOS, record
    from laps.timegrid import parse_utc

    scenario = replace(SCENARIOS["clean"], seed=4, duration_s=40.0, width_px=320, height_px=180, fps=12.5)
    recording = record(tmp_path / "sim", scenario, camera="cam1", start_ns=parse_utc("2026-01-05T09:00:00Z"))
    model, found, kept = tmp_path / "model", tmp_path / "found.json", tmp_path / "kept" / "thresholds.json"
    with narrow_heads():
        code, out, err = run("train", recording, "--out", model, "--preset", "small", "--steps", "20")
    assert code == 0, err
    assert "perplexity" in out
    code, out, err = run("segment", recording, "--model", model, "--out", found, "--save-calibration", kept)
    assert code == 0, err
    segments = json.loads(found.read_text())["segments"]
    assert all(0 <= s["start_sec"] < s["end_sec"] <= 40.1 and s["codes"] for s in segments)
    code, out, _ = run("evaluate", recording.with_suffix(".truth.json"), found, "--tolerance", "1")
    assert code == 0
    assert "metronome" in out and "typed" in out
    # For work that never rests: touching primitives, and what taught their boundaries.
    code, _, err = run(
        "segment", recording, "--model", model, "--out", found, "--cut", "boundaries", "--teacher", "pictures"
    )
    assert code == 0, err
    document = json.loads(found.read_text())
    assert document["segmentation_params"]["cut"] == "boundaries"
    assert {s["end_reason"] for s in document["segments"]} <= {"boundary", "maximum", "gap"}
    # What cannot be read is said before the tracking.
    code, _, err = run("segment", recording, "--model", model, "--calibration", tmp_path / "no.json")
    assert code == 1 and f"{tmp_path / 'no.json'}: the file cannot be read" in err
    # The same file cut with the saved thresholds gives the same segments.
    again = tmp_path / "made" / "again.json"
    run("segment", recording, "--model", model, "--out", again, "--calibration", kept)
    assert json.loads(again.read_text())["segments"] == segments


def test_single_file_commands_say_what_is_wrong(run: Laps, tmp_path: Path) -> None:
    assert "there is no such file" in run("train", tmp_path / "no.mp4", "--out", tmp_path / "m")[2]
    code, _, err = run("segment", tmp_path / "no.mp4", "--model", tmp_path / "m")
    assert code == 1 and "there is no such file" in err
    code, _, err = run("evaluate", tmp_path / "no.json", tmp_path / "no.json")
    assert code == 1 and "no.json" in err


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["train", "no.mp4"], "--out"),
        (["segment", "no.mp4", "--model", "no"], "--out"),
        (["segment", "no.mp4", "--model", "no"], "--save-calibration"),
        (["report"], "--out"),
        (["sql", "no query"], "--out"),
    ],
)
def test_the_output_place_is_looked_at_before_the_work(
    run: Laps, video: Path, tmp_path: Path, arguments: list[str], option: str
) -> None:
    run("ingest", video, "--camera", "cam1")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    refused = {"file/x": "is a file"}
    # All else in the arguments is wrong, too, and would be said first if the place were looked at later.
    refused |= {"file": "is a file"} if arguments[0] == "train" else {"folder": "folder"}
    for place, reason in refused.items():
        code, _, err = run(*arguments, option, tmp_path / place)
        assert code in (1, 2)
        assert str(tmp_path / "file" if "file" in place else tmp_path / place) in err and reason in err
        assert "no.mp4" not in err and "no query" not in err and "no release" not in err
    assert (tmp_path / "file").read_text() == "mine"
    # A folder that is not there is made; then the work itself is what goes wrong.
    code, _, err = run(*arguments, option, tmp_path / "made" / "x")
    assert code == 1
    assert "no.mp4" in err or "there is no config.json" in err or "no release" in err or "Parser Error" in err
    assert (tmp_path / "made").is_dir()


def test_answers_are_written_below_folders_that_are_made(run: Laps, video: Path, tmp_path: Path) -> None:
    run("ingest", video, "--camera", "cam1")
    answer = tmp_path / "a" / "b.csv"
    for _ in range(2):  # an answer that is there is replaced
        code, out, _ = run("sql", "select 1 as one", "--format", "csv", "--out", answer)
        assert (code, out) == (0, "")
        assert answer.read_text() == "one\n1\n"


@pytest.mark.parametrize("seconds", [1 / 30, 1.0])
def test_a_video_shorter_than_a_window_is_too_short(run: Laps, tmp_path: Path, seconds: float) -> None:
    from laps.tokenizer import MotionTokenizer, TokenizerConfig, save
    from laps.trackers.flow import FlowTracker

    short = write_video(tmp_path / "short.mp4", seconds=seconds)
    save(MotionTokenizer(TokenizerConfig.small(FlowTracker().tracker_id)).freeze(), tmp_path / "model")
    for command in (
        ["demo", "--video", short],
        ["segment", short, "--model", tmp_path / "model"],
        ["train", short, "--out", tmp_path / "other"],
    ):
        code, _, err = run(*command)
        assert code == 1
        assert f"{short}: too short: {seconds:.2f} s, a window needs at least 1.6 s" in err


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Zuf\u00fchrung", "zufuhrung"),
        ("Zufu\u0308hrung", "zufuhrung"),
        ("Stra\u00dfe caf\u00e9", "strasse-cafe"),
        ("Cam 1 (links)", "cam-1-links"),
        ("\u5de5\u5382", "video"),
        ("x" * 99, "x" * 63),
    ],
)
def test_a_camera_is_named_after_a_file(text: str, name: str) -> None:
    assert camera_name(text) == name


def test_a_taken_port_is_one_clear_line(run: Laps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.execv", lambda *_: pytest.fail("the UI was started"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code, _, err = run("dev", "--port", port)
    assert code == 1
    assert f"laps: 127.0.0.1:{port}: cannot be listened on: Address already in use" in err


def test_the_ui_needs_no_camera(run: Laps, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def start(program: Path, arguments: list[str]) -> None:
        started.append((program, arguments))
        raise SystemExit(0)

    monkeypatch.setattr("os.execv", start)
    code, _, _ = run("dev", "--port", free_port())
    assert code == 0
    ((program, arguments),) = started
    assert program.exists() and "laps_dagster.definitions" in arguments


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
