"""The bench of every quality figure, on tiny recordings of a few points: what methods see, and what is kept."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from bench.quality import energies, kept, predictions, recordings, report
from bench.quality.__main__ import commit
from bench.quality.clusters import CUTS, clusters_of
from bench.quality.descriptors import NAMES
from bench.quality.methods import METHODS, PRODUCT, REFERENCE, UNDIVIDED, Context, Method, Streams, predict
from bench.quality.recordings import GRID, Motion, Pictures, Recording
from bench.quality.scenes import Scene
from bench.quality.scores import SEGMENT_50, TYPED_05, differences, score, score_set
from bench.quality.sets import INDUCTIVE, TRANSDUCTIVE, Camera, Item, RecordingSet, TokenizerPlan, real_sets
from bench.quality.tokenizers import Tokenizers, TrainingSettings, quality_of
from laps.baselines.flow import BLOCKS, CELLS, ORIENTATIONS, FlowSeries
from laps.benchmarks.kinematics import Projection, windows_of
from laps.benchmarks.track_files import PointTracks
from laps.errors import CalibrationError
from laps.evaluation import Document

POINTS = 6
SECONDS = 60.0
KINDS = {"right": (1.0, 0.0), "up": (0.0, -1.0)}
PROJECTION = Projection((0.0, 0.0), ((1.0, 0.0), (0.0, 1.0)), 1.0, 320, 320)


def quiet(_: str) -> None:
    """Nobody listens."""


def actions(seed: int) -> Document:
    """Truth: actions of about 2 s and two kinds, rests of about 1 s."""
    rng = np.random.default_rng(seed)
    segments, now = [], 1.0
    while now < SECONDS - 4:
        end = now + float(rng.uniform(1.5, 2.5))
        segments.append({"start_sec": now, "end_sec": end, "label": list(KINDS)[int(rng.integers(2))]})
        now = end + float(rng.uniform(0.8, 1.4))
    return {"duration_sec": SECONDS, "segments": segments}


def recording(seed: int) -> Recording:
    """Points that go to and fro in the direction of the action's kind, of which the last stands still."""
    rng = np.random.default_rng(1000 + seed)
    times = np.arange(round(SECONDS * GRID.rate_hz)) / GRID.rate_hz
    velocity = np.zeros((len(times), 2))
    for one in actions(seed)["segments"]:
        inside = (times > one["start_sec"]) & (times <= one["end_sec"])
        velocity[inside] = np.array(KINDS[one["label"]]) * 4.0
    moving = np.append(np.ones(POINTS - 1), 0.0)
    steps = velocity[:, None] * moving[:, None] + rng.normal(0, 0.05, (len(times), POINTS, 2))
    tracks = PointTracks(f"r{seed}", times, np.cumsum(steps, axis=0), 1 / GRID.rate_hz, 0.0)
    windows, first, stop, covered = windows_of(tracks, PROJECTION, GRID)
    speed = np.linalg.norm(velocity, axis=1) + rng.uniform(0.01, 0.1, len(times))
    cells = rng.normal(0, 0.02, (len(times), CELLS, CELLS, 2)).astype(np.float32)
    cells[:, :4] += velocity[:, None, None]
    histograms = rng.random((len(times), BLOCKS * BLOCKS * (ORIENTATIONS + 1))) + 5 * np.abs(velocity).sum(1)[:, None]
    pictures = rng.random((len(times) // 5, 16))
    return Recording(
        name=f"r{seed}",
        content_id=f"content{seed}",
        windows=(windows,),
        first=first,
        stop=stop,
        covered=covered,
        duration_s=SECONDS,
        flow=FlowSeries(first, speed, cells, histograms.astype(np.float32)),
        pictures=Pictures(
            first + 5 * np.arange(len(pictures)),
            (pictures / np.linalg.norm(pictures, axis=1, keepdims=True)).astype(np.float32),
            np.ones(len(pictures), np.float32),
        ),
    )


def item(seed: int, truth: Document | None = None) -> Item:
    return Item(f"r{seed}", f"content{seed}", partial(recording, seed), truth or actions(seed))


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Tokenizers:
    folder = tmp_path_factory.mktemp("tokenizers")
    return Tokenizers(folder, TrainingSettings(preset="small", steps=30), quiet)


def tiny_set(*seeds: int, truth: Document | None = None) -> RecordingSet:
    """Recordings to score, with a tokenizer and thresholds from others."""
    learn = (item(1), item(2))
    plan = TokenizerPlan(
        "tiny", "two recordings", learn, POINTS, recording(1).windows[0].tracker_id, remove_common_mode=False
    )
    scored = tuple(item(seed, truth) for seed in seeds)
    return RecordingSet("tiny", "Tiny", "Points.", (Camera("tiny", scored, learn, plan),), simulated=True)


def run(one: RecordingSet, methods: list[Method], tokenizers: Tokenizers, folder: Path, setting: Any = TRANSDUCTIVE):
    return predictions.run(one, setting, methods, tokenizers, Streams(), folder, quiet)


def counting(calls: list[str], name: str = "counting") -> Method:
    """A method that says when it is asked."""

    def cut(one: Recording, _: Context) -> list[dict[str, float]]:
        calls.append(one.name)
        return [{"start_sec": 1.0, "end_sec": 2.0, "confidence": 0.5}]

    return Method(name, "energy", "counts", (), cut)


# --- methods -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", [TRANSDUCTIVE, INDUCTIVE])
def test_every_method_cuts_inside_the_recording(tokenizers: Tokenizers, tmp_path: Path, setting: Any):
    found = run(tiny_set(3), list(METHODS.values()), tokenizers, tmp_path, setting)
    assert list(found) == list(METHODS)
    for name, (one,) in found.items():
        failed = [note for note in one["notes"] if note.startswith("failed")]
        if name.startswith("boundaries") and failed:
            assert "too few" in failed[0]  # a minute need not hold enough to learn from
            continue
        assert not failed, name
        edges = [(segment["start_sec"], segment["end_sec"]) for segment in one["segments"]]
        assert edges and edges == sorted(edges), name
        assert all(0 <= start < end <= SECONDS for start, end in edges), name
        if METHODS[name].kind == "energy":
            assert all("confidence" in segment for segment in one["segments"]), name
    # Motion and rest stand apart here, so that an energy of the tracks finds the actions.
    truth, predicted = [actions(3)], [{"duration_sec": SECONDS, "segments": found[REFERENCE][0]["segments"]}]
    assert score(truth, predicted)["figures"][TYPED_05]["value"] > 0.9


def test_methods_see_no_truth(tokenizers: Tokenizers, tmp_path: Path):
    seen: list[Any] = []

    def cut(one: Recording, context: Context) -> list[dict[str, float]]:
        seen.extend([one, context])
        return []

    run(tiny_set(3), [Method("looking", "energy", "looks", (), cut)], tokenizers, tmp_path)
    names = [name for one in seen for name in dir(one)] + [field.name for field in dataclasses.fields(Recording)]
    assert not [name for name in names if "truth" in name or "label" in name]
    # And nothing that any method gives depends on it.
    other: Document = {"duration_sec": SECONDS, "segments": [{"start_sec": 0.0, "end_sec": 1.0, "label": "x"}]}
    one = run(tiny_set(3), list(METHODS.values()), tokenizers, tmp_path / "one")
    assert run(tiny_set(3, truth=other), list(METHODS.values()), tokenizers, tmp_path / "other") == one


def test_inductive_thresholds_come_from_the_other_recordings(tokenizers: Tokenizers):
    tokenizer = tokenizers.get(tiny_set(3).cameras[0].tokenizer)
    asked: list[int] = []

    def learn(seed: int) -> Recording:
        asked.append(seed)
        return recording(seed)

    context = Context(INDUCTIVE, tokenizer, [partial(learn, 1), partial(learn, 2)], Streams())
    for seed in (3, 4):
        assert [one.name for one in context.calibration_recordings(recording(seed))] == ["r1", "r2"]
        predict(METHODS[REFERENCE], recording(seed), context)
    assert asked == [1, 2]  # once for all that is scored
    own = Context(TRANSDUCTIVE, tokenizer, [], Streams())
    assert [one.name for one in own.calibration_recordings(recording(3))] == ["r3"]
    made = [own.once("x", recording(seed), lambda used: used[0].name) for seed in (3, 4, 3)]
    assert made == ["r3", "r4", "r3"]


def test_what_cannot_be_cut_is_said_and_what_does_not_fit_is_left_out(tokenizers: Tokenizers, tmp_path: Path):
    def refuse(one: Recording, context: Context) -> list[dict[str, float]]:
        raise CalibrationError("the energy is zero throughout")

    bare = dataclasses.replace(recording(3), flow=None, pictures=None)
    camera = tiny_set(3).cameras[0]
    one = dataclasses.replace(camera.scored[0], load=lambda: bare)
    bare_set = RecordingSet("bare", "Bare", "", (dataclasses.replace(camera, scored=(one,)),))
    found = run(bare_set, [Method("refuse", "energy", "", (), refuse), METHODS["abd_flow"]], tokenizers, tmp_path)
    assert list(found) == ["refuse"]
    assert found["refuse"][0]["segments"] == []
    assert "zero throughout" in found["refuse"][0]["notes"][0]


def test_tracks_are_cleaned_of_their_background():
    rng = np.random.default_rng(0)
    velocities = rng.normal(0, 0.01, (200, 4, 2)).astype(np.float32)
    velocities[:, 1] += [3.0, 0.0]  # a belt
    velocities[50:60, 0] += [0.0, 2.0]
    seen = np.ones((200, 4), bool)
    seen[:, 3] = False
    velocities[:, 3] = 100.0
    motion = Motion(velocities, seen)
    steady = energies.background([motion])
    assert_allclose(steady, [[0, 0], [3, 0], [0, 0], [0, 0]], atol=0.01)
    speed = energies.speed(motion, steady)
    assert speed[:50].max() < 0.05 and speed[50:60].min() > 0.6
    assert energies.speed(motion)[0] == pytest.approx(1.0, abs=0.05)
    nothing = Motion(velocities, np.zeros((200, 4), bool))
    assert np.isnan(energies.speed(nothing)).all()
    assert_array_equal(energies.background([nothing]), 0)


# --- what is kept --------------------------------------------------------------------------------------------------


def test_what_is_there_is_not_made_again(tokenizers: Tokenizers, tmp_path: Path):
    calls: list[str] = []
    first = run(tiny_set(3, 4), [counting(calls)], tokenizers, tmp_path)
    assert calls == ["r3", "r4"]
    assert run(tiny_set(3, 4), [counting(calls)], tokenizers, tmp_path) == first
    assert calls == ["r3", "r4"]
    run(tiny_set(3, 4), [counting(calls), counting(calls, "another")], tokenizers, tmp_path)
    assert calls == ["r3", "r4"] * 2
    run(tiny_set(3, 4), [counting(calls)], tokenizers, tmp_path, INDUCTIVE)
    assert calls == ["r3", "r4"] * 3
    (tmp_path / "tiny" / TRANSDUCTIVE / "r4" / "counting.json").write_text("{", encoding="utf-8")
    assert run(tiny_set(3, 4), [counting(calls)], tokenizers, tmp_path) == first
    assert calls == [*["r3", "r4"] * 3, "r4"]


def test_a_recording_that_changed_is_cut_again(tokenizers: Tokenizers, tmp_path: Path):
    calls: list[str] = []
    one = tiny_set(3)
    run(one, [counting(calls)], tokenizers, tmp_path)
    camera = one.cameras[0]
    changed = dataclasses.replace(camera, scored=(dataclasses.replace(camera.scored[0], content_id="new"),))
    run(dataclasses.replace(one, cameras=(changed,)), [counting(calls)], tokenizers, tmp_path)
    assert calls == ["r3", "r3"]


def test_a_killed_run_goes_on_where_it_ended(tokenizers: Tokenizers, tmp_path: Path):
    calls: list[str] = []

    def killed(one: Recording, context: Context) -> list[dict[str, float]]:
        if one.name == "r4" and len(calls) < 2:
            calls.append("killed")
            raise KeyboardInterrupt
        calls.append(one.name)
        return []

    with pytest.raises(KeyboardInterrupt):
        run(tiny_set(3, 4), [Method("k", "energy", "", (), killed)], tokenizers, tmp_path)
    run(tiny_set(3, 4), [Method("k", "energy", "", (), killed)], tokenizers, tmp_path)
    assert calls == ["r3", "killed", "r4"]


def test_tokenizers_are_trained_once(tokenizers: Tokenizers):
    plan = tiny_set(3).cameras[0].tokenizer
    known = tokenizers.get(plan).tokenizer_id
    said: list[str] = []
    again = Tokenizers(tokenizers.folder, tokenizers.settings, said.append)
    assert again.get(plan).tokenizer_id == known and not said
    other = Tokenizers(tokenizers.folder, dataclasses.replace(tokenizers.settings, seed=1, steps=2), said.append)
    assert other.get(plan).tokenizer_id != known and said
    folder = next(path for path in tokenizers.folder.iterdir() if path.is_dir())
    taken = Tokenizers(tokenizers.folder, other.settings, said.append, {"tiny": folder})
    assert taken.get(plan).tokenizer_id in {known, other.get(plan).tokenizer_id}


JSON = st.recursive(
    st.booleans() | st.integers(-1000, 1000) | st.text(max_size=5) | st.floats(allow_nan=False, allow_infinity=False),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=50)
@given(value=JSON, parts=st.lists(JSON, max_size=3), others=st.lists(JSON, max_size=3))
def test_a_kept_value_is_found_under_its_key_only(tmp_path_factory: pytest.TempPathFactory, value, parts, others):
    path = tmp_path_factory.mktemp("kept") / "folder" / "value.json"
    key, other = kept.key_of(*parts), kept.key_of(*others)
    assert kept.kept(path, key, lambda: value) == value
    assert kept.kept(path, key, pytest.fail) == value
    assert (key == other) == (json.dumps(parts, sort_keys=True) == json.dumps(others, sort_keys=True))
    if key != other:
        assert kept.read(path, other) is None


def test_recordings_survive_saving(tmp_path: Path):
    for one in (recording(3), dataclasses.replace(recording(3), flow=None, pictures=None)):
        assert not recordings.is_saved(tmp_path / "r")
        recordings.save(one, tmp_path / "r")
        found = recordings.load(tmp_path / "r")
        assert (found.name, found.content_id, found.first, found.stop) == (
            one.name,
            one.content_id,
            one.first,
            one.stop,
        )
        assert_array_equal(found.windows[0].displacements, one.windows[0].displacements)
        assert_array_equal(found.covered, one.covered)
        if one.flow is not None and one.pictures is not None:
            assert_array_equal(found.flow.cells, one.flow.cells)
            assert_array_equal(found.pictures.features, one.pictures.features)
        else:
            assert found.flow is None and found.pictures is None
        (tmp_path / "r" / "recording.json").unlink()


def test_pictures_stand_in_rows_with_gaps_as_nan():
    pictures = Pictures(np.array([20, 25, 40]), np.ones((3, 2), np.float32), np.ones(3, np.float32))
    rows, first = pictures.rows()
    assert first == 20
    assert_array_equal(np.isnan(rows[:, 0]), [False, False, True, True, False])


def test_a_scene_is_recorded_and_tracked_once(tmp_path: Path):
    scene = Scene("clean", 5, 1, 4.0)
    one = scene.load(tmp_path)
    folder = scene.folder(tmp_path)
    assert sum(map(len, one.windows)) == 7 and len(one) == 40 and one.covered.all()
    assert one.flow is not None and one.flow.first == one.first and one.pictures is not None
    assert sorted(path.name for path in folder.iterdir()) == [
        "recording.json",
        "samples.npz",
        "tracks.parquet",
        "truth.json",
    ]
    before = (folder / "recording.json").stat().st_mtime_ns
    scene.make(tmp_path)
    assert (folder / "recording.json").stat().st_mtime_ns == before
    assert Scene("clean", 5, 0, 4.0).content_id != scene.content_id != Scene("clean", 6, 1, 4.0).content_id


# --- scores, clusters, report --------------------------------------------------------------------------------------


def as_document(segments: list[tuple[float, float]]) -> Document:
    return {
        "duration_sec": SECONDS,
        "segments": [{"start_sec": start, "end_sec": end, "confidence": 1.0 - start / 100} for start, end in segments],
    }


def test_scores_of_a_perfect_and_of_an_empty_prediction():
    truths = [actions(3), actions(4)]
    perfect = [as_document([(one["start_sec"], one["end_sec"]) for one in truth["segments"]]) for truth in truths]
    found = score(truths, perfect)
    assert found["over_segmentation"] == 1 and found["recordings"] == 2
    for name, figure in found["figures"].items():
        assert figure["value"] == 1, name
        assert 0 <= figure["equal"] <= 1 and 0 < figure["metronome"] <= 1
        assert figure["mean"] == (None if name.startswith("mAP") else 1)
    nothing = score(truths, [as_document([]), as_document([])])
    assert nothing["figures"][TYPED_05]["value"] == 0 and nothing["over_segmentation"] == 0
    # Pooled counts and the mean of the recordings are not the same.
    half = score(truths, [perfect[0], as_document([])])["figures"][TYPED_05]
    assert half["mean"] == 0.5 and half["value"] > 0.5


def test_differences_are_held_against_the_best_of_each_rival():
    truths = [actions(seed) for seed in range(3, 9)]
    perfect = [as_document([(one["start_sec"], one["end_sec"]) for one in truth["segments"]]) for truth in truths]
    late = [
        as_document(
            [
                (one["start_sec"] + 0.7 * (place % 2), one["end_sec"] + 0.7 * (place % 2))
                for place, one in enumerate(truth["segments"])
            ]
        )
        for truth in truths
    ]
    empty = [as_document([]) for _ in truths]
    found = differences(truths, {PRODUCT: perfect, REFERENCE: late, "latent_action": empty, "flow": late})
    typed = {one.role: one for one in found if one.figure == TYPED_05}
    assert set(typed) == {REFERENCE, "best energy", "equal spacing at its count", "best metronome"}
    assert typed["best energy"].second == REFERENCE  # of equals the first
    assert all(one.verdict == "better" and one.low > 0 for one in typed.values())
    same = differences(truths, {PRODUCT: late, REFERENCE: late})
    assert {one.verdict for one in same if one.role == REFERENCE} == {"tie"}
    short = differences(truths[:1], {PRODUCT: perfect[:1], REFERENCE: late[:1]})
    assert {one.verdict for one in short} == {"too short to tell"}


@pytest.fixture(scope="module")
def outcome(tokenizers: Tokenizers, tmp_path_factory: pytest.TempPathFactory) -> report.Outcome:
    folder = tmp_path_factory.mktemp("outcome")
    one = tiny_set(3, 4)
    methods = [METHODS[name] for name in (PRODUCT, UNDIVIDED, REFERENCE, "abd_tokens")]
    scores, clusters = {}, {}
    for setting in one.settings:
        found = run(one, methods, tokenizers, folder / "predictions", setting)
        scores[one.name, setting] = score_set(one, setting, found, folder / "scores")
        if setting == TRANSDUCTIVE:
            clusters[one.name] = clusters_of(one, found[UNDIVIDED], tokenizers, Streams(), folder / "clusters", quiet)
    tokenizer = tokenizers.get(one.cameras[0].tokenizer)
    line = {
        "title": "two recordings",
        "tokenizer_id": tokenizer.tokenizer_id,
        "measured_on": "2 recordings, not seen",
        "quality": quality_of(tokenizer, one.scored, folder / "quality.json", 48, held_out=True),
    }
    return report.Outcome({"commit": commit()}, [one], scores, [line], clusters, ["bench_video: no --data was given"])


def test_clusters_know_the_kinds_where_the_descriptor_tells_them(outcome: report.Outcome):
    for cut in CUTS:
        found = outcome.clusters["tiny"][cut]
        assert set(found) <= set(NAMES) and {"embedder", "mean_velocities", "duration"} <= set(found)
        assert found["mean_velocities"]["ari"] > (0.9 if cut == "true" else 0.5)
        for one in found.values():
            assert one["k"] == len(KINDS)
            assert one["ari_shuffled"] == pytest.approx(0, abs=0.1)
    assert outcome.clusters["tiny"]["true"]["duration"]["ari"] < 0.5
    true = outcome.clusters["tiny"]["true"]["embedder"]
    assert true["n"] == sum(len(actions(seed)["segments"]) for seed in (3, 4))


def test_the_page_holds_every_figure_in_whole_tables(outcome: report.Outcome):
    page = report.markdown(outcome)
    for words in (
        "Transductive",
        "Inductive",
        PRODUCT,
        "best metronome",
        "Clusters of primitives",
        "no --data",
        "commit",
    ):
        assert words in page
    table: list[int] = []
    for line in [*page.splitlines(), ""]:
        if line.startswith("|"):
            table.append(line.replace("\\|", "").count("|"))
        else:
            assert len(set(table)) <= 1, line
            table = []
    value = outcome.scores["tiny", TRANSDUCTIVE]["methods"][REFERENCE]["figures"][SEGMENT_50]["value"]
    assert f"{value:.3f} / " in page
    # Methods without confidences have no mAP.
    row = next(line for line in page.splitlines() if line.startswith("| `abd_tokens`") and " - / " in line)
    assert row.count(" - / ") == 2
    console = report.console(outcome)
    assert console.count(PRODUCT) >= 2 and f"{value:.3f}" in console and "left out: bench_video" in console


def test_sets_without_data_are_left_out_and_said(tmp_path: Path):
    found, missing = real_sets(tmp_path, ["bench_video", "suturing", "gear_assembly"], tmp_path / "cache")
    assert not found and [line.split(":")[0] for line in missing] == ["bench_video", "suturing", "gear_assembly"]
