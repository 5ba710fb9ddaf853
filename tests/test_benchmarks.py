"""Layouts of the public benchmarks, and the command that runs one from beginning to end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from laps.benchmarks.labels import truth_of_frames
from laps.benchmarks.layouts import LAYOUTS, load_dataset
from laps.benchmarks.run import Settings, folds
from laps.benchmarks.table import columns, mean_of, render_benchmark
from laps.errors import InputError
from laps.evaluation import evaluate, evaluate_recordings
from laps_dagster.cli.benchmark import benchmark
from tests.videos import texture, write_video

MAPPINGS = {
    "gtea": ["take", "open", "pour", "background"],
    "breakfast": ["SIL", "pour_milk", "stir"],
    "50salads": ["cut_tomato", "peel", "action_start", "action_end"],
}


def write_dataset(
    folder: Path, layout: str, names: Sequence[str], *, splits: dict[int, tuple[list[str], list[str]]], frames: int = 90
) -> Path:
    """Labels, mapping and splits: background, two actions, background."""
    (folder / "groundTruth").mkdir(parents=True)
    (folder / "splits").mkdir()
    words = MAPPINGS[layout]
    (folder / "mapping.txt").write_text("".join(f"{number} {word}\n" for number, word in enumerate(words)))
    background = LAYOUTS[layout].background
    actions = [word for word in words if word not in background]
    quarter = frames // 4
    labels = [background[0]] * quarter + [actions[0]] * quarter + [actions[1]] * quarter
    labels += [background[-1]] * (frames - 3 * quarter)
    for name in names:
        (folder / "groundTruth" / f"{name}.txt").write_text("\n".join(labels) + "\n")
    for number, parts in splits.items():
        for part, members in zip(("train", "test"), parts, strict=True):
            text = "".join(f"{name}.txt\r\n" for name in members)
            (folder / "splits" / f"{part}.split{number}.bundle").write_text(text)
    return folder


def work_video(path: Path, *, seconds: float, seed: int = 7) -> Path:
    """Rest for two seconds, motion for two, and so on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    still = texture(96, 64, seed=seed)

    def draw(index: int, time_s: float) -> np.ndarray:
        moved = (time_s // 4) * 2 + max(0.0, time_s % 4 - 2)
        return np.roll(still, round(20 * moved), axis=1)

    return write_video(path, seconds=seconds, fps=15, width=96, height=64, draw=draw)


# --- layouts -------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3), min_size=1, max_size=200))
@hypothesis_settings(deadline=None, max_examples=50)
def test_segments_give_back_the_label_of_every_frame(labels: list[int]) -> None:
    truth = truth_of_frames(labels, fps=15, names={})
    again = [None] * len(labels)
    for segment in truth["segments"]:
        for frame in range(round(segment["start_sec"] * 15), round(segment["end_sec"] * 15)):
            assert again[frame] is None
            again[frame] = int(segment["label"])
    assert again == labels
    assert truth["duration_sec"] == len(labels) / 15
    labels_in_order = [segment["label"] for segment in truth["segments"]]
    assert all(a != b for a, b in pairwise(labels_in_order))


@pytest.mark.parametrize(("layout", "fps"), [("gtea", 15), ("breakfast", 15), ("50salads", 30)])
def test_without_videos_the_times_follow_from_the_datasets_rate(tmp_path: Path, layout: str, fps: int) -> None:
    folder = write_dataset(tmp_path / "data", layout, ["a", "b"], splits={1: (["a"], ["b"]), 2: (["b"], ["a"])})
    dataset = load_dataset(folder)
    assert dataset.layout.name == layout and dataset.splits == [1, 2] and not dataset.problems
    first = dataset.items[0]
    assert (first.name, first.video, first.fps, first.fps_from) == ("a", None, fps, "layout")
    assert first.splits == {1: "train", 2: "test"}
    assert first.duration_s == 90 / fps
    # The background does not count, whatever it is called.
    counted = evaluate(first.truth, {"segments": []}, ignore=dataset.layout.background)["counts"]
    assert counted["truth"] == 2
    assert [item.name for item in dataset.part(1, "test")] == ["b"]


def test_the_videos_own_rate_comes_first_and_any_suffix_will_do(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", "gtea", ["a", "b"], splits={1: (["a"], ["b"])}, frames=50)
    (folder / "Videos" / "deep").mkdir(parents=True)
    write_video(folder / "Videos" / "deep" / "A.mkv", seconds=2.0, fps=25, width=64, height=64)
    write_video(folder / "Videos" / "b.avi", seconds=2.0, fps=25, width=64, height=64, codec="mpeg4")
    (folder / "Videos" / "b.txt").write_text("no video")
    dataset = load_dataset(folder)
    assert [(item.fps, item.fps_from, item.duration_s) for item in dataset.items] == [(25.0, "video", 2.0)] * 2
    assert [item.video.name for item in dataset.items if item.video] == ["A.mkv", "b.avi"]


def test_breakfasts_own_tree_is_understood(tmp_path: Path) -> None:
    names = ["P03_cam01_P03_cereals", "P03_stereo01_P03_cereals", "P04_webcam02_P04_tea"]
    folder = write_dataset(tmp_path / "data", "breakfast", names, splits={1: (names[:1], names[1:])}, frames=30)
    videos = folder / "videos" / "BreakfastII_15fps_qvga_sync"
    for path, seconds in [
        ("P03/cam01/P03_cereals.avi", 2.0),
        ("P03/stereo/P03_cereals_ch0.avi", 4.0),  # not the one that was labelled
        ("P03/stereo/P03_cereals_ch1.avi", 2.0),
        ("P04/webcam02/P04_webcam02_P04_tea.avi", 2.0),
    ]:
        (videos / path).parent.mkdir(parents=True, exist_ok=True)
        write_video(videos / path, seconds=seconds, fps=15, width=64, height=64, codec="mpeg4")
    dataset = load_dataset(folder)
    found = {item.name: item.video.name for item in dataset.items if item.video}
    assert found == {
        "P03_cam01_P03_cereals": "P03_cereals.avi",
        "P03_stereo01_P03_cereals": "P03_cereals_ch1.avi",
        "P04_webcam02_P04_tea": "P04_webcam02_P04_tea.avi",
    }


def test_a_bad_item_is_left_out_with_its_reason(tmp_path: Path) -> None:
    names = ["good", "label", "short", "empty", "broken"]
    folder = write_dataset(tmp_path / "data", "gtea", names, splits={1: ([*names, "absent"], ["good"])}, frames=30)
    truth = folder / "groundTruth"
    (truth / "label.txt").write_text("take\njuggle\n")
    (truth / "empty.txt").write_text("\n")
    videos = folder / "videos"
    videos.mkdir()
    for name, seconds in [("good", 2.9), ("short", 3.2)]:
        write_video(videos / f"{name}.mp4", seconds=seconds, fps=15, width=64, height=64)
    (videos / "broken.mp4").write_bytes(b"no video")
    dataset = load_dataset(folder, split=1)
    assert [item.name for item in dataset.items] == ["good"]
    problems = dataset.problems
    assert "'juggle' is not in mapping.txt" in problems["label"] and "label.txt, line 2" in problems["label"]
    assert "last 2.0 s" in problems["short"] and "short.mp4 3.2 s" in problems["short"]
    assert "no labels" in problems["empty"] and "broken.mp4" in problems["broken"]
    assert "absent.txt" in problems["absent"]
    # With the labels' rate given, the labels of 30 frames last 3 s.
    assert [item.name for item in load_dataset(folder, label_fps=10).items] == ["good", "short"]


def test_folders_that_are_no_dataset_say_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        load_dataset(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no folder groundTruth"):
        load_dataset(tmp_path)
    folder = write_dataset(tmp_path / "data", "gtea", ["a"], splits={1: (["a"], ["a"])})
    with pytest.raises(InputError, match="no layout 'epic'"):
        load_dataset(folder, "epic")
    with pytest.raises(InputError, match=r"no split 7 \(there are: 1\)"):
        load_dataset(folder, split=7)
    (folder / "mapping.txt").write_text("0 take\n1 open\n2 pour\n")
    with pytest.raises(InputError, match="no background label"):
        load_dataset(folder)
    with pytest.raises(InputError, match="'background' is not in"):
        load_dataset(folder, "gtea")
    (folder / "mapping.txt").write_text("take 0\n")
    with pytest.raises(InputError, match=r"mapping\.txt, line 1"):
        load_dataset(folder)
    (folder / "mapping.txt").unlink()
    with pytest.raises(InputError, match=r"mapping\.txt"):
        load_dataset(folder)


# --- folds and table -----------------------------------------------------------------------------------------------


def test_inductive_learns_from_others_and_transductive_from_the_same(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"]
    folder = write_dataset(
        tmp_path / "data", "gtea", names, splits={1: (names[:2], names[2:]), 2: (names[2:], names[:2])}, frames=30
    )
    (folder / "videos").mkdir()
    for name in names:
        write_video(folder / "videos" / f"{name}.mp4", seconds=2.0, fps=15, width=64, height=64)
    dataset = load_dataset(folder)
    for fold in folds(dataset, Settings()):
        assert len(fold.learn) == len(fold.score) == 2
        assert not {item.name for item in fold.learn} & {item.name for item in fold.score}
    (all_of_them,) = folds(dataset, Settings(setting="transductive"))
    assert all_of_them.learn == all_of_them.score == dataset.items
    (second,) = folds(dataset, Settings(setting="transductive", split=2, limit=1))
    assert [item.name for item in second.score] == ["a"] and [item.name for item in second.learn] == ["a", "b"]
    shutil.rmtree(folder / "videos")
    with pytest.raises(InputError, match="0 videos to learn from"):
        folds(load_dataset(folder), Settings())
    shutil.rmtree(folder / "splits")
    with pytest.raises(InputError, match="no splits"):
        folds(load_dataset(folder), Settings())


def test_settings_that_do_not_exist_are_refused() -> None:
    for wrong in ({"form": "x"}, {"method": "x"}, {"setting": "x"}, {"preset": "x"}, {"minutes": 0.0}, {"limit": 0}):
        with pytest.raises(InputError):
            Settings(**wrong)  # type: ignore[arg-type]


def test_the_table_holds_the_papers_columns_beside_chance() -> None:
    truth = truth_of_frames([0] * 150 + [1] * 150 + [0] * 150, fps=15, names={"0": "background", "1": "take"})
    hit = {"segments": [{"start_sec": 10.5, "end_sec": 20.5, "confidence": 1.0}]}
    near = {"segments": [{"start_sec": 13.0, "end_sec": 23.0, "confidence": 1.0}]}
    results = [evaluate(truth, prediction) for prediction in (hit, near)]
    found = mean_of([columns(result) for result in results])
    assert found["F1@5s"]["value"] == 1.0 and found["F1@2s"]["value"] == 0.5
    assert found["mAP@0.5"]["value"] == 1.0 and found["mAP@0.75"]["value"] == 0.5
    text = render_benchmark(
        {
            "dataset": "GTEA",
            "layout": "gtea",
            "settings": {"setting": "inductive"},
            "folds": [{"name": "split1"}],
            "videos": [{}, {}],
            "failed": {"x": "broken"},
            "pooled": evaluate_recordings([(truth, hit), (truth, near)]),
            "mean": found,
        }
    )
    rows = {line.split("  ")[0]: line.split() for line in text.splitlines() if line}
    assert rows["this run, mean of videos"][5:7] == ["100.00", "50.00"]
    assert rows["paper: LAPS"][2:4] == ["73.12", "63.20"]
    assert sum(line.startswith("chance: ") for line in text.splitlines()) == 5
    assert "Left out: 1 (x)." in text


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gtea(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = ["S1_Tea", "S2_Tea", "S3_Tea", "S4_Tea", "S5_Tea"]
    folder = write_dataset(
        tmp_path_factory.mktemp("gtea") / "data", "gtea", names, splits={1: (names[:2], names[2:])}, frames=90
    )
    for place, name in enumerate(names[:3]):
        work_video(folder / "videos" / f"{name}.mp4", seconds=6.0, seed=place)
    # The fourth is shorter than a window, which is only seen when it is scored; the fifth has no video.
    (folder / "groundTruth" / "S4_Tea.txt").write_text("take\n" * 15)
    work_video(folder / "videos" / "S4_Tea.mp4", seconds=1.0)
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(benchmark, [str(argument) for argument in arguments])


SMALL = ("--split", 1, "--preset", "small", "--steps", 2)


def test_an_inductive_run_learns_calibrates_scores_and_goes_on_where_it_stopped(gtea: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    first = run(gtea, "--out", out, *SMALL)
    assert first.exit_code == 0, (first.output, first.exception)
    results = json.loads(out.read_text())
    assert [one["name"] for one in results["videos"]] == ["S3_Tea"]
    assert set(results["failed"]) == {"S4_Tea", "S5_Tea"} and "S4_Tea.mp4" in results["failed"]["S4_Tea"]
    assert results["settings"]["setting"] == "inductive" and results["settings"]["split"] == 1
    assert results["folds"][0]["calibration_id"] is not None
    assert "this run, counts added" in first.stdout and "paper: LAPS" in first.stdout
    kept = tmp_path / "results.work" / "split1"
    (model,) = kept.glob("model-*.json")
    assert json.loads(model.read_text())["videos"] == ["S1_Tea", "S2_Tea"]
    made = {path.name: path.stat().st_mtime_ns for path in kept.iterdir() if path.is_file()}
    assert "S3_Tea.json" in made
    # Nothing is made again, and the results are the same.
    out.unlink()
    second = run(gtea, "--out", out, *SMALL)
    assert second.exit_code == 0, second.output
    assert json.loads(out.read_text()) == results
    assert {path.name: path.stat().st_mtime_ns for path in kept.iterdir() if path.is_file()} == made


def test_other_settings_make_their_own_and_a_given_model_is_used_as_it_is(gtea: Path, tmp_path: Path) -> None:
    out, work = tmp_path / "results.json", tmp_path / "work"
    command = (gtea, "--out", out, "--work", work, *SMALL, "--setting", "transductive", "--limit", 1)
    assert run(*command).exit_code == 0
    results = json.loads(out.read_text())
    assert results["folds"][0]["calibration_id"] is None
    kept = work / "split1" / "S3_Tea.json"
    first = json.loads(kept.read_text())
    assert run(*command, "--form", "velocity").exit_code == 0
    second = json.loads(kept.read_text())
    assert first["key"] != second["key"]
    assert second["prediction"]["segmentation_params"]["energy_form"] == "velocity"

    # What cannot be read is made again, with the same model.
    kept.write_text("{")
    (model,) = (path for path in (work / "split1").iterdir() if path.is_dir())
    given_model = run(*command, "--model", model)
    assert given_model.exit_code == 0, given_model.output
    again = json.loads(out.read_text())
    assert again["folds"] == results["folds"] and again["pooled"] == results["pooled"]
    assert again["settings"]["model"] == str(model)
    assert json.loads(kept.read_text()) == first
