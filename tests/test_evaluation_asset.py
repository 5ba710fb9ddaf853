"""The asset evaluation, through Dagster, on a store with tables but without video: what it scores and what it tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from assets.evaluation import evaluation
from laps.calibration import Calibration, Diagnostics
from laps.detector import DetectorTimes
from laps.errors import InputError
from laps.evaluation import evaluate
from laps.forgotten import Forgotten
from laps.tables import CLUSTER_ASSIGNMENTS, EVALUATION, RECORDINGS, SEGMENTS
from laps.timegrid import NS_PER_S, CameraHour, SampleGrid, parse_utc, to_datetime
from laps_dagster.definitions import defs
from resources.catalog import open_catalog
from resources.configured import RecordingsResource, StoreResource
from resources.evaluation import read_truth, truth_uri
from resources.forgotten import ForgottenTimes
from resources.models import CALIBRATION, CALIBRATION_FILE, CLUSTER_MODEL, EMBEDDER, ENCODER, TOKENIZER, ModelRegistry
from resources.recordings import Recordings
from resources.release import ReleaseResource
from resources.store import PART, Store, rows_table

ROOT = Path(__file__).parent.parent
EIGHT = CameraHour("cam1", parse_utc("2026-01-05T08:00:00Z"))
NINE, TEN = EIGHT.next, EIGHT.next.next
GRID = SampleGrid()
LENGTH_S = 400.0
ACTIONS = [(10.0 * n + 2.0, 10.0 * n + 7.0) for n in range(40)]
KINDS = ("reach", "screw")

Segment = tuple[float, float]


def calibration() -> Calibration:
    """Made from the hour at eight."""
    spans = [list(GRID.hour_samples(EIGHT.hour_ns))]
    return Calibration(
        camera="cam1",
        tokenizer_id="t1",
        form="velocity",
        method="log_energy",
        settings=DetectorTimes().with_thresholds(1.0, 0.8),
        code_energy=None,
        ok=True,
        message="",
        diagnostics=Diagnostics(
            sample_count=1, null_count=0, minutes=1, spans=spans, segment_count=0, segments_per_minute=0, active_share=0
        ),
    )


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")
    store = Store(str(tmp_path / "store"))
    registry = ModelRegistry(store)
    draft = registry.open_draft("test")
    for slot, model_id in ((TOKENIZER, "t1"), (EMBEDDER, "e1"), (ENCODER, "v1"), (CLUSTER_MODEL, "k1")):
        registry.fill(draft, slot, model_id)
    made = calibration()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / CALIBRATION_FILE).write_text(made.to_json())
    registry.put(CALIBRATION, made.calibration_id, tmp_path / "model")
    registry.fill(draft, CALIBRATION, made.calibration_id, "cam1")
    return store


def register(store: Store, folder: Path, start: str, *, length_s: float = LENGTH_S, truth: Any = None) -> str:
    """A recording of cam1, by its row alone; truth beside where it would lie."""
    start_ns = parse_utc(start)
    uri = str(folder / f"cam1_{to_datetime(start_ns):%H%M}.mp4")
    row = {
        "recording_id": f"{start_ns:x}-1",
        "camera": "cam1",
        "uri": uri,
        "status": "ok",
        "start_time": to_datetime(start_ns),
        "start_source": "option",
        "end_time": to_datetime(start_ns + int(length_s * NS_PER_S)),
        "size_bytes": 1,
        "etag": "",
        "registered_at": to_datetime(start_ns),
    }
    path = Recordings(store).row_path("cam1", row["recording_id"])
    store.write_table(RECORDINGS, path, rows_table(RECORDINGS, [row]))
    if truth is not None:
        Path(truth_uri(uri)).write_text(truth if isinstance(truth, str) else json.dumps(truth))
    return uri


def marked(segments: list[Segment] = ACTIONS, length_s: float = LENGTH_S) -> dict[str, Any]:
    rows = [{"start_sec": a, "end_sec": b, "label": KINDS[n % 2]} for n, (a, b) in enumerate(segments)]
    return {"duration_sec": length_s, "segments": rows}


def cut(store: Store, hour: CameraHour, start: str, segments: list[Segment], *, clusters: bool = True) -> None:
    """Primitives of an hour, given in seconds from a time; their clusters alternate as the labels do."""
    zero_ns = parse_utc(start)
    rows, assigned = [], []
    for place, (begin, end) in enumerate(segments):
        start_ns, end_ns = (zero_ns + round(time * NS_PER_S) for time in (begin, end))
        common = {"segment_id": f"{hour.hour}-{place}", "camera": "cam1", "release": "r1"}
        rows.append(
            {
                **common,
                "start_time": to_datetime(start_ns),
                "end_time": to_datetime(end_ns),
                "duration_s": end - begin,
                "start_sample": start_ns // GRID.step_ns,
                "end_sample": end_ns // GRID.step_ns,
                "decided_sample": hour.hour_ns // GRID.step_ns + place,
                "end_reason": "rest",
                "codes": [1, 2, 3],
                "energy_form": "velocity",
                "energy_mean": 1.0,
                "energy_peak": 2.0,
                "confidence": float(place),
                "tokenizer_id": "t1",
                "calibration_id": calibration().calibration_id,
            }
        )
        assigned.append({**common, "cluster_id": place % 2, "centroid_distance": 0.1, "cluster_model_id": "k1"})
    store.write_partition(SEGMENTS, hour, rows_table(SEGMENTS, rows), "r1")
    if clusters:
        store.write_partition(CLUSTER_ASSIGNMENTS, hour, rows_table(CLUSTER_ASSIGNMENTS, assigned), "r1")


def materialize(store: Store, folder: Path, trained_on: list[str] | None = None) -> tuple[pa.Table, dict[str, Any]]:
    """The table and the metadata of a run; ``trained_on`` is what the tokenizer's files say."""
    resources = {
        "store": StoreResource(root=store.root),
        "release": ReleaseResource(),
        "recordings": RecordingsResource(landing=str(folder)),
    }
    if trained_on is not None:
        store.write_json("models/tokenizer/t1/training.json", {"hours": trained_on})
    made = dg.materialize([evaluation], resources=resources)
    metadata = made.asset_materializations_for_node("evaluation")[0].metadata
    rows = store.read_table(EVALUATION, f"evaluation/release=r1/{PART}")
    return rows, {name: value.value for name, value in metadata.items()}


def one(rows: pa.Table, metric: str, level: float | None = None, **where: Any) -> dict[str, Any]:
    where = {"recording_id": None, **where, "metric": metric, "level": level}
    found = [row for row in rows.to_pylist() if all(row[name] == value for name, value in where.items())]
    assert len(found) == 1, (where, len(found))
    return found[0]


def test_primitives_are_scored_beside_chance_and_told_in_a_table(store: Store, tmp_path: Path) -> None:
    moved = [(a + 0.3, b + (0.3 if n % 4 else 1.0)) for n, (a, b) in enumerate(ACTIONS)]
    uri = register(store, tmp_path, "2026-01-05T08:10:00Z", truth=marked())
    register(store, tmp_path, "2026-01-05T08:30:00Z")
    # The last one lies in the recording without truth.
    cut(store, EIGHT, "2026-01-05T08:10:00Z", [*moved, (1300.0, 1304.0)])
    rows, metadata = materialize(store, tmp_path, [TEN.key])

    typed = one(rows, "typed", 0.5, setting="transductive")
    assert (typed["truth"], typed["predicted"], typed["matched"]) == (80, 80, 70)
    assert typed["value"] == pytest.approx(70 / 80)
    assert typed["low"] < typed["value"] < typed["high"]
    assert (typed["recordings"], typed["duration_s"]) == (1, LENGTH_S)
    assert (typed["release"], typed["tokenizer_id"], typed["camera"]) == ("r1", "t1", None)
    # The same figures as the same documents give without a store.
    prediction = {
        "segments": [{"start_sec": a, "end_sec": b, "confidence": n} for n, (a, b) in enumerate(moved) if b <= LENGTH_S]
    }
    plain = evaluate(marked(), prediction)
    for score in plain["scores"]:
        row = one(rows, score["metric"], score.get("iou", score.get("tolerance_s")))
        assert row["value"] == score["f1"]
        assert row["chance_equal_predicted"] == score["chance"]["equal_predicted"]
        assert row["chance_metronome"] == score["chance"]["metronome"]
        assert row["metronome_period_s"] == score["chance"]["metronome_period_s"]
    for score in plain["average_precision"]:
        assert one(rows, "average_precision", score["iou"])["value"] == pytest.approx(score["value"])
    assert one(rows, "over_segmentation")["value"] == 1.0

    purity = one(rows, "purity")
    assert (purity["value"], purity["matched"], purity["predicted"]) == (1.0, 40, 40)
    assert 0.5 <= purity["chance_shuffled"] < 0.8
    assert one(rows, "ari")["value"] == one(rows, "nmi")["value"] == pytest.approx(1.0)
    assert one(rows, "ari")["cluster_model_id"] == "k1"

    own = one(rows, "typed", 0.5, recording_id=f"{parse_utc('2026-01-05T08:10:00Z'):x}-1")
    assert (own["uri"], own["camera"], own["value"]) == (uri, "cam1", typed["value"])
    assert own["calibration_id"] == calibration().calibration_id

    assert metadata["typed F1@0.5s transductive"] == typed["value"]
    assert metadata["typed F1@0.5s transductive, chance"] < 0.5
    assert metadata["recordings"] == 1
    lines = metadata["scores"].splitlines()
    assert "typed F1@0.5 s" in lines[0] and "chance" in lines[0]
    assert lines[2].startswith("| transductive | all 1 | 40 / 40 | 0.88 (")
    assert lines[3].startswith("| transductive | cam1_0810.mp4 | 40 / 40 | 0.88 (")
    assert lines[2].count("|") == lines[0].count("|") == lines[1].count("|")
    assert "1.00 (shuffled 0." in lines[2]


def test_settings_are_told_apart_and_scored_apart(store: Store, tmp_path: Path) -> None:
    for hour, start in ((EIGHT, "2026-01-05T08:10:00Z"), (NINE, "2026-01-05T09:10:00Z"), (TEN, "2026-01-05T10:10:00Z")):
        register(store, tmp_path, start, length_s=60.0, truth=marked(ACTIONS[:6], 60.0))
        shifted = [(a + (0.0 if hour is not TEN else 2.0), b + 2.0) for a, b in ACTIONS[:6]]
        cut(store, hour, start, shifted)
    # Calibrated on the hour at eight, trained on the one at nine.
    rows, metadata = materialize(store, tmp_path, [NINE.key])
    seen, unseen = (one(rows, "typed", 0.5, setting=setting) for setting in ("transductive", "inductive"))
    assert (seen["recordings"], unseen["recordings"]) == (2, 1)
    assert (seen["value"], unseen["value"]) == (0.5, 0.0)
    assert metadata["typed F1@0.5s inductive"] == 0.0
    # Of a tokenizer whose files do not say, only what the calibration says is known.
    store.delete("models/tokenizer/t1/training.json")
    rows, _ = materialize(store, tmp_path, None)
    assert one(rows, "typed", 0.5, setting="transductive")["recordings"] == 1
    assert one(rows, "typed", 0.5, setting="unknown")["recordings"] == 2


def test_primitives_reach_over_the_ends_of_a_recording_and_of_an_hour(store: Store, tmp_path: Path) -> None:
    start = "2026-01-05T08:59:00Z"
    truth = marked([(0.0, 5.0), (20.0, 30.0), (50.0, 58.0)], 58.0)
    register(store, tmp_path, start, length_s=58.0, truth=truth)
    cut(store, EIGHT, start, [(-30.0, -10.0), (-3.0, 5.0), (20.0, 30.0)])
    # Decided in the hour after.
    rows, metadata = materialize(store, tmp_path)
    assert rows.num_rows == 0
    (why,) = metadata["left_out"].values()
    assert "Materialize segments for cam1|2026-01-05-09:00 first" in why
    assert metadata["scores"] == "No recording could be scored; `left_out` says why."
    cut(store, NINE, start, [(50.0, 61.0), (100.0, 104.0)])
    rows, metadata = materialize(store, tmp_path)
    assert metadata["left_out"] == {}
    segment = one(rows, "segment", 0.5)
    assert (segment["truth"], segment["predicted"], segment["matched"]) == (3, 3, 3)
    typed = one(rows, "typed", 0.25)  # 0 and 58 are no boundaries
    assert (typed["truth"], typed["predicted"], typed["matched"]) == (4, 4, 4)


def test_without_truth_there_is_an_empty_table_that_says_so(store: Store, tmp_path: Path) -> None:
    register(store, tmp_path, "2026-01-05T08:10:00Z")
    rows, metadata = materialize(store, tmp_path)
    assert rows.num_rows == 0
    assert metadata["dagster/row_count"] == 0
    assert "No registered recording has truth" in metadata["scores"]
    connection = open_catalog(store, release="r1")
    assert connection.execute("select count(*) from evaluation").fetchall() == [(0,)]
    connection.close()


def test_one_unusable_truth_does_not_keep_the_others_from_being_scored(store: Store, tmp_path: Path) -> None:
    start = "2026-01-05T08:10:00Z"
    register(store, tmp_path, start, truth=marked())
    broken = register(store, tmp_path, "2026-01-05T08:30:00Z", truth="{")
    backwards = register(store, tmp_path, "2026-01-05T08:40:00Z", truth=marked([(5.0, 1.0)]))
    foreign = register(store, tmp_path, "2026-01-05T10:10:00Z", truth=marked())
    forgotten = register(store, tmp_path, "2026-01-05T11:10:00Z", truth=marked())
    asked_ns = parse_utc("2026-01-05T11:10:01Z")
    ForgottenTimes(store).put(Forgotten("cam1", asked_ns, asked_ns + 1_000_000_000), removed=True)
    cut(store, EIGHT, start, ACTIONS, clusters=False)
    rows, metadata = materialize(store, tmp_path)
    assert set(metadata["left_out"]) == {broken, backwards, foreign, forgotten}
    assert "was forgotten" in metadata["left_out"][forgotten]
    assert "no JSON" in metadata["left_out"][broken]
    assert "does not end after it starts" in metadata["left_out"][backwards]
    assert "Materialize segments for cam1|2026-01-05-10:00" in metadata["left_out"][foreign]
    assert one(rows, "typed", 0.25)["value"] == 1.0
    assert not {"purity", "nmi", "ari"} & set(rows["metric"].to_pylist())
    (why,) = metadata["without_clusters"].values()
    assert "Materialize cluster_assignments for cam1|2026-01-05-08:00" in why


def test_primitives_of_other_models_are_not_scored(store: Store, tmp_path: Path) -> None:
    register(store, tmp_path, "2026-01-05T08:10:00Z", truth=marked())
    cut(store, EIGHT, "2026-01-05T08:10:00Z", ACTIONS)
    registry = ModelRegistry(store)
    registry.fill(registry.release("r1"), TOKENIZER, "t2")
    registry.fill(registry.release("r1"), CALIBRATION, calibration().calibration_id, "cam1")
    _, metadata = materialize(store, tmp_path)
    (why,) = metadata["left_out"].values()
    assert "segments was made with tokenizer_id t1, but release r1 has t2" in why


def test_truth_lies_beside_its_recording(tmp_path: Path) -> None:
    assert truth_uri("/a/b.c/video.mp4") == "/a/b.c/video.truth.json"
    assert truth_uri("s3://bucket/a.b/video") == "s3://bucket/a.b/video.truth.json"
    uri = str(tmp_path / "video.mp4")
    assert read_truth(uri) is None
    (tmp_path / "video.truth.json").write_text('{"duration_sec": 9.0, "boundaries": [1.5]}')
    assert read_truth(uri) == {"duration_sec": 9.0, "boundaries": [1.5]}
    (tmp_path / "video.truth.json").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"video\.truth\.json: the file is no JSON"):
        read_truth(uri)


def test_nothing_else_reads_truth_and_nothing_depends_on_its_scores() -> None:
    readers = {
        file.relative_to(ROOT).as_posix()
        for floor in ("assets", "resources")
        for file in (ROOT / floor).rglob("*.py")
        if any(word in file.read_text() for word in ("truth.json", "read_truth", "resources.evaluation", "parse_truth"))
    }
    assert readers == {"assets/evaluation.py", "resources/evaluation.py"}
    graph = defs.resolve_asset_graph()
    assert graph.get(dg.AssetKey("evaluation")).child_keys == set()
    assert graph.get(dg.AssetKey("evaluation")).group_name == "evaluation"
    made = defs.resolve_job_def("evaluate").asset_layer.selected_asset_keys
    assert {key.to_user_string() for key in made} == {"evaluation"}
