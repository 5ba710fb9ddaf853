"""Reading and reporting many hours: hours that do not belong together are refused or left out, samples are even."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.cluster_model import cluster_model
from assets.icss_report import icss_report
from assets.partitions import THIS_AND_PREVIOUS_HOUR
from assets.segment_embeddings import segment_embeddings
from assets.segmenter_calibration import segmenter_calibration
from assets.segments import segments
from assets.visual_features import visual_features
from laps.clustering import CONFIG_FILE, ClusterModel, fit
from laps.errors import ModelMismatchError, NotProcessedError
from laps.tables import CLUSTER_ASSIGNMENTS, RECORDINGS, SEGMENT_EMBEDDINGS, SEGMENTS, VISUAL_FEATURES
from laps.timegrid import NS_PER_S, CameraHour, parse_utc, to_datetime
from resources.comparison import Kept, earlier_numbers, kept
from resources.configured import StoreResource
from resources.embeddings import by_part, read_embeddings, read_hour_embeddings, sample, spread
from resources.models import (
    CALIBRATION,
    CLUSTER_MODEL,
    CLUSTER_MODEL_FILE,
    EMBEDDER,
    ENCODER,
    TOKENIZER,
    ModelRegistry,
    Release,
)
from resources.release import ReleaseResource
from resources.reporting import ICSS_PRIMITIVES, coherence, missing_hours, separation, survey, write_report
from resources.segments import read_segments
from resources.store import Store, rows_table

FIRST = CameraHour("cam1", parse_utc("2026-01-05T08:00:00Z"))
HOURS = (FIRST, FIRST.next, FIRST.next.next)
EACH = 12
WIDTH = 8


def write_segments(
    store: Store, hour: CameraHour, calibration: str = "c1", count: int = EACH, tokenizer: str = "t1"
) -> None:
    rows = []
    for place in range(count):
        start_ns = hour.start_ns + place * 10 * NS_PER_S
        rows.append(
            {
                "segment_id": f"{calibration}-{hour.hour}-{place}",
                "camera": hour.camera,
                "start_time": to_datetime(start_ns),
                "end_time": to_datetime(start_ns + 2 * NS_PER_S),
                "duration_s": 2.0 + place,
                "start_sample": place * 100,
                "end_sample": place * 100 + 20,
                "decided_sample": place * 100 + 25,
                "end_reason": "rest",
                "codes": [1, 2, 3],
                "energy_form": "velocity",
                "energy_mean": 1.0,
                "energy_peak": 2.0,
                "confidence": 0.5,
                "tokenizer_id": tokenizer,
                "calibration_id": calibration,
                "release": "r1",
            }
        )
    store.write_partition(SEGMENTS, hour, rows_table(SEGMENTS, rows), "r1")


def segment_ids(store: Store, hour: CameraHour) -> list[str]:
    ids: list[str] = store.read_partition(SEGMENTS, hour, "r1")["segment_id"].to_pylist()
    return ids


def write_later(store: Store, hour: CameraHour, model: ClusterModel, **other: Any) -> None:
    """Embeddings, features and assignments of the primitives that the hour has now; the last feature is missing."""
    ids = segment_ids(store, hour)
    rng = np.random.default_rng(int(hour.hour))
    vectors = np.eye(WIDTH, dtype=np.float32)[np.arange(len(ids)) % 2] + rng.normal(0, 0.01, (len(ids), WIDTH))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    common = [{"segment_id": one, "camera": hour.camera, "release": "r1"} for one in ids]
    embedded = [
        {**row, "embedding": vector.tolist(), "embedder_id": other.get("embedder", "e1"), "tokenizer_id": "t1"}
        for row, vector in zip(common, vectors, strict=True)
    ]
    store.write_partition(SEGMENT_EMBEDDINGS, hour, rows_table(SEGMENT_EMBEDDINGS, embedded), "r1")
    described: list[dict[str, Any]] = [
        {**row, "status": "ok", "feature": vector.tolist(), "frames_used": 3, "encoder_id": other.get("encoder", "v1")}
        for row, vector in zip(common, vectors, strict=True)
    ]
    described[-1] |= {"status": "failed", "reason": "dark", "feature": None}
    # The order of the rows is no promise.
    store.write_partition(VISUAL_FEATURES, hour, rows_table(VISUAL_FEATURES, described[::-1]), "r1")
    labels, distances = model.assign(vectors)
    assigned = [
        {
            **row,
            "cluster_id": int(label),
            "centroid_distance": float(distance),
            "cluster_model_id": other.get("k", "k1"),
        }
        for row, label, distance in zip(common, labels, distances, strict=True)
    ]
    store.write_partition(CLUSTER_ASSIGNMENTS, hour, rows_table(CLUSTER_ASSIGNMENTS, assigned), "r1")


@pytest.fixture
def model() -> ClusterModel:
    points = np.eye(WIDTH)[np.arange(40) % 2] + np.random.default_rng(1).normal(0, 0.01, (40, WIDTH))
    return fit(points, 2, tokenizer_id="t1", embedder_id="e1").model


@pytest.fixture
def store(tmp_path: Path, model: ClusterModel) -> Store:
    store = Store(str(tmp_path / "store"))
    registry = ModelRegistry(store)
    draft = registry.open_draft("test")
    for slot, model_id in ((TOKENIZER, "t1"), (EMBEDDER, "e1"), (ENCODER, "v1"), (CLUSTER_MODEL, "k1")):
        registry.fill(draft, slot, model_id)
    registry.fill(draft, CALIBRATION, "c1", "cam1")
    folder = tmp_path / "model"
    model.save(folder)
    registry.put(CLUSTER_MODEL, "k1", folder)
    for hour in HOURS:
        write_segments(store, hour)
        write_later(store, hour, model)
    return store


def resources(store: Store) -> dict[str, Any]:
    return {"store": StoreResource(root=store.root), "release": ReleaseResource()}


def release(store: Store) -> Release:
    return ModelRegistry(store).release("r1")


def test_clusters_are_saved_where_promotion_looks() -> None:
    assert CONFIG_FILE == CLUSTER_MODEL_FILE == "clusters.json"


def test_all_hours_that_belong_together_are_reported(store: Store) -> None:
    surveyed = survey(store, release(store))
    assert [part.hour for part in surveyed.hours] == list(HOURS)
    assert surveyed.left_out == {}
    result = coherence(store, release(store), surveyed, max_pairs=1000, seed=0)
    assert (result.primitives, result.seen, result.compared) == (3 * EACH, 3 * (EACH - 1), 3 * (EACH - 1))
    rows = result.rows.to_pylist()
    assert [row["segment_count"] for row in rows] == [18, 18]
    # Cluster and feature of a primitive are brought together by its id, not by its row.
    assert all(row["icss_mean"] > 0.99 for row in rows)
    assert result.baseline_mean == pytest.approx(0.5, abs=0.1)
    lengths = {row["median_duration_s"] for row in rows}
    assert lengths == {2.0 + 5, 2.0 + 6}


def cut_again(store: Store, model: ClusterModel) -> None:
    write_segments(store, HOURS[1], count=EACH - 3)


def cut_more(store: Store, model: ClusterModel) -> None:
    write_segments(store, HOURS[1], count=EACH + 3)


def recalibrated(store: Store, model: ClusterModel) -> None:
    write_segments(store, HOURS[1], calibration="c9")


def other_clusters(store: Store, model: ClusterModel) -> None:
    write_later(store, HOURS[1], model, k="k9")


def other_encoder(store: Store, model: ClusterModel) -> None:
    write_later(store, HOURS[1], model, encoder="v9")


def other_embedder(store: Store, model: ClusterModel) -> None:
    write_later(store, HOURS[1], model, embedder="e9")


def no_features(store: Store, model: ClusterModel) -> None:
    store.delete(store.partition_path(VISUAL_FEATURES, HOURS[1], "r1"))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (cut_again, "made from other primitives than segments has now: 0 of 9 have no row, 3 rows belong to none"),
        (cut_more, "made from other primitives than segments has now: 3 of 15 have no row, 0 rows belong to none"),
        (recalibrated, "segments was made with calibration_id c9, but release r1 has c1"),
        (other_clusters, "cluster_assignments was made with cluster_model_id k9"),
        (other_encoder, "visual_features was made with encoder_id v9"),
        (other_embedder, "segment_embeddings was made with embedder_id e9"),
        (no_features, "has no visual_features"),
    ],
)
def test_an_hour_that_does_not_belong_is_left_out_and_the_others_are_reported(
    store: Store, model: ClusterModel, change: Any, why: str
) -> None:
    change(store, model)
    chosen = release(store)
    surveyed = survey(store, chosen)
    assert list(surveyed.left_out) == [HOURS[1].key]
    assert why in surveyed.left_out[HOURS[1].key]
    result = coherence(store, chosen, surveyed, max_pairs=1000, seed=0)
    assert result.primitives == 2 * EACH
    quality, count = separation(store, chosen, surveyed, seed=0)
    assert count == 2 * EACH
    assert quality.silhouette is not None and quality.silhouette > 0.2


@pytest.fixture
def without_models(monkeypatch: pytest.MonkeyPatch) -> None:
    # The other parts of the page need models of their own, which this test does without.
    monkeypatch.setattr("resources.reporting.calibrations", lambda store, release: {})
    monkeypatch.setattr("resources.reporting._settings", lambda store, release, found: {})
    monkeypatch.setattr("laps.clustering.project", lambda model, embeddings: (embeddings[:, :2], "pca"))


@pytest.mark.usefixtures("without_models")
def test_the_report_is_made_although_an_hour_is_left_out(store: Store, model: ClusterModel) -> None:
    cut_again(store, model)
    with dg.DagsterInstance.ephemeral() as instance:
        made = dg.materialize([icss_report], instance=instance, resources=resources(store))
    metadata = made.asset_materializations_for_node("icss_report")[0].metadata
    assert metadata["primitives"].value == 2 * EACH
    assert list(metadata["left_out"].value) == [HOURS[1].key]
    assert "ICSS: 22 of 22 primitives" in str(metadata["sample"].value)
    assert b"Action primitives" in store.read_bytes("reports/release=r1/report.html")
    # As `laps report` makes it, which looks at the hours by itself.
    assert write_report(store, release(store)) == "reports/release=r1/report.html"


def test_clusters_are_fitted_on_an_even_sample(store: Store) -> None:
    config = {"ops": {"cluster_model": {"config": {"k": 2, "sample_primitives": 20, "scan": [2]}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        made = dg.materialize([cluster_model], instance=instance, resources=resources(store), run_config=config)
    metadata = made.asset_materializations_for_node("cluster_model")[0].metadata
    assert metadata["primitives"].value == 3 * EACH
    assert "fitted on 20 of 36 primitives" in str(metadata["sample"].value)
    assert release(store).cluster_model == metadata["cluster_model_id"].value


def test_a_calibration_that_fills_a_draft_says_in_which_release_its_streams_are_missing(store: Store) -> None:
    store.write_json("models/current.json", {"release": "r0"})
    registry = ModelRegistry(store)
    registry.store.write_json("models/releases/r0/release.json", {"note": "", "created_at": ""})
    registry.store.write_json("models/releases/r0/calibration/cam1.json", {"id": "c0"})
    with (
        dg.DagsterInstance.ephemeral() as instance,
        pytest.raises(NotProcessedError, match=r"Materialize latent_stream .*, with release r1 in the run config"),
    ):
        instance.add_dynamic_partitions("cameras", ["cam1"])
        dg.materialize([segmenter_calibration], instance=instance, resources=resources(store), partition_key="cam1")


def test_assets_depend_on_all_that_they_read() -> None:
    def upstream(asset: dg.AssetsDefinition) -> set[str]:
        return {dep.asset_key.to_user_string() for spec in asset.specs for dep in spec.deps}

    assert {"segments", "motion_tokenizer"} <= upstream(segment_embeddings)
    assert {"segment_embeddings", "cluster_model", "latent_stream", "segmenter_calibration", "raw_video"} <= upstream(
        icss_report
    )
    for asset in (segments, visual_features):
        assert "raw_video" in upstream(asset)
        mapping = asset.get_partition_mapping(dg.AssetKey("raw_video"))
        assert mapping == THIS_AND_PREVIOUS_HOUR, "whether an absent hour before had footage"


def test_a_release_without_clusters_says_so(store: Store) -> None:
    registry = ModelRegistry(store)
    registry.fill(registry.release("r1"), EMBEDDER, "e2")
    with pytest.raises(NotProcessedError, match="Materialize cluster_model first"):
        survey(store, release(store))


def test_scores_of_a_sample_are_near_those_of_all(store: Store) -> None:
    chosen = release(store)
    surveyed = survey(store, chosen)
    result = coherence(store, chosen, surveyed, max_pairs=1000, seed=3, at_most=10)
    assert (result.seen, result.compared) == (33, 10)
    assert result.icss_mean is not None and result.icss_mean > 0.99
    assert sum(row["segment_count"] for row in result.rows.to_pylist()) == 3 * EACH, "sizes are of all primitives"
    again = coherence(store, chosen, surveyed, max_pairs=1000, seed=3, at_most=10)
    assert again.rows.equals(result.rows)
    assert ICSS_PRIMITIVES == 20_000


def test_embeddings_of_an_earlier_cut_are_refused(store: Store, model: ClusterModel) -> None:
    """After a new calibration: the segments of an hour were made again, its embeddings were not."""
    registry = ModelRegistry(store)
    registry.fill(registry.release("r1"), CALIBRATION, "c2", "cam1")
    chosen = release(store)
    with pytest.raises(ModelMismatchError, match=r"Materialize segments for cam1\|2026-01-05-09:00 again"):
        read_hour_embeddings(store, chosen, HOURS[1])
    for hour in HOURS:
        write_segments(store, hour, calibration="c2")
    write_later(store, HOURS[0], model)
    with pytest.raises(ModelMismatchError, match=r"Materialize segment_embeddings for cam1\|2026-01-05-09:00 again"):
        read_embeddings(store, chosen, HOURS)
    for hour in HOURS:
        write_later(store, hour, model)
    assert len(read_embeddings(store, chosen, HOURS).embeddings) == 3 * EACH


def test_an_error_about_a_draft_names_it_where_another_release_is_current(store: Store) -> None:
    store.write_json("models/current.json", {"release": "r0"})
    with pytest.raises(NotProcessedError, match=r"segments of release r1 .*laps backfill --release r1"):
        read_segments(store, HOURS[-1].next, release(store))
    write_segments(store, HOURS[0], tokenizer="t9")
    with pytest.raises(ModelMismatchError, match="resources: release: config: name: r1"):
        read_segments(store, HOURS[0], release(store))


def test_a_sample_is_read_without_the_rest(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = release(store)
    whole = read_embeddings(store, chosen, HOURS)
    assert whole.segment_ids == [one for hour in HOURS for one in segment_ids(store, hour)]
    assert (len(whole.embeddings), whole.available) == (36, 36)
    some = read_embeddings(store, chosen, HOURS, at_most=9, seed=2)
    assert (len(some.embeddings), some.available) == (9, 36)
    places = [whole.segment_ids.index(one) for one in some.segment_ids]
    assert np.array_equal(some.embeddings, whole.embeddings[places])
    assert [place // 4 for place in places] == list(range(9)), "one from each ninth"
    opened: list[CameraHour] = []
    read = store.read_partition

    def noted(table: Any, hour: CameraHour, *rest: Any) -> pa.Table:
        opened.append(hour)
        return read(table, hour, *rest)

    monkeypatch.setattr(store, "read_partition", noted)
    assert len(read_embeddings(store, chosen, HOURS, at_most=1, seed=2).segment_ids) == 1
    assert len(set(opened)) == 1


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 30), max_size=20), st.integers(1, 200), st.integers(1, 9), st.integers(0, 5))
def test_a_sample_reads_no_more_hours_than_it_may(counts: list[int], at_most: int, most: int, seed: int) -> None:
    drawn = sample(counts, at_most, most, seed)
    assert sum(len(rows) for _, rows in drawn) <= at_most
    assert len(drawn) <= most or sum(counts) <= at_most
    assert [part for part, _ in drawn] == sorted({part for part, _ in drawn})
    for part, rows in drawn:
        assert len(rows) and np.array_equal(rows, np.unique(rows)) and 0 <= rows[0] <= rows[-1] < counts[part]
    again = sample(counts, at_most, most, seed)
    assert all(np.array_equal(rows, same) for (_, rows), (_, same) in zip(drawn, again, strict=True))


def test_a_sample_of_some_hours_is_as_likely_to_hold_one_primitive_as_another() -> None:
    counts = [10, 30, 20] * 20
    taken = np.zeros(sum(counts))
    starts = np.concatenate([[0], np.cumsum(counts)])
    draws = 1000
    for seed in range(draws):
        for part, rows in sample(counts, 60, 12, seed):
            taken[starts[part] + rows] += 1
    likely = taken / draws
    assert likely.sum() == pytest.approx(60)
    # Within five standard deviations of 60 of 1,200.
    assert np.abs(likely - 0.05).max() < 5 * np.sqrt(0.05 * 0.95 / draws)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 30), max_size=20), st.integers(1, 200), st.integers(0, 5))
def test_a_sample_is_even_and_falls_apart_into_the_hours(counts: list[int], at_most: int, seed: int) -> None:
    total = sum(counts)
    chosen = spread(total, at_most, seed)
    assert len(chosen) == len(set(chosen.tolist())) == min(total, at_most)
    assert np.array_equal(chosen, np.sort(chosen))
    assert np.array_equal(chosen, spread(total, at_most, seed))
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(int)
    for place in range(len(counts)):
        share = np.sum((chosen >= starts[place]) & (chosen < starts[place + 1]))
        assert abs(share - counts[place] * len(chosen) / max(total, 1)) < 2
    put_together = [starts[part] + rows for part, rows in by_part(counts, chosen)]
    assert np.array_equal(np.concatenate([np.zeros(0, int), *put_together]), chosen)
    assert all(len(rows) for _, rows in by_part(counts, chosen))


def test_recorded_hours_without_clusters_are_missing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def register(hour: CameraHour, status: str) -> None:
        row = {
            "recording_id": f"r{hour.hour}-{status}",
            "camera": hour.camera,
            "uri": f"/landing/{hour.hour}.mp4",
            "status": status,
            "reason": None if status == "ok" else "no video",
            "start_time": to_datetime(hour.start_ns),
            "end_time": to_datetime(hour.start_ns + NS_PER_S),
            "size_bytes": 1,
            "etag": "1",
            "registered_at": to_datetime(hour.start_ns),
        }
        path = f"recordings/camera={hour.camera}/{row['recording_id']}.parquet"
        store.write_table(RECORDINGS, path, rows_table(RECORDINGS, [row]))

    later = CameraHour.parse("cam1|2026-01-05-20:00")
    for hour in (*HOURS, later):
        register(hour, "ok")
    register(later.next, "quarantined")
    closing = [f"{hour.key} (closes what was open before)" for hour in (HOURS[-1].next, later.next)]
    assert missing_hours(store, release(store)) == [closing[0], later.key, closing[1]]
    monkeypatch.setattr("resources.reporting.now_ns", lambda: later.stop_ns - 1)
    assert missing_hours(store, release(store)) == closing[:1], "an hour that is running is not missing"


def test_primitives_are_the_same_by_their_times_whatever_their_ids(store: Store) -> None:
    """Half of an hour's primitives kept, a third of the kept in another cluster."""
    mine, other = release(store), replace(release(store), name="r9")
    for hour in HOURS:
        cut = store.read_partition(SEGMENTS, hour, mine.name).to_pylist()[::2]
        assigned = {row["segment_id"]: row for row in store.read_partition(CLUSTER_ASSIGNMENTS, hour, "r1").to_pylist()}
        moved = [
            {**assigned[row["segment_id"]], "segment_id": f"x{hour.hour}-{place}", "release": "r9"}
            for place, row in enumerate(cut)
        ]
        for row in moved[::3]:
            row["cluster_id"] = 77
        renamed = [{**row, "segment_id": f"x{hour.hour}-{place}", "release": "r9"} for place, row in enumerate(cut)]
        store.write_partition(SEGMENTS, hour, rows_table(SEGMENTS, renamed), "r9")
        store.write_partition(CLUSTER_ASSIGNMENTS, hour, rows_table(CLUSTER_ASSIGNMENTS, moved), "r9")
    found = kept(store, other, mine)
    each = EACH // 2
    assert found == Kept(3, 3 * EACH, 3 * each, 3 * each, 3 * each, 3 * (each - len(range(0, each, 3))))
    numbers = earlier_numbers(store, other, mine)
    assert (
        set(numbers) == {f"x{hour.hour}-{place}" for hour in HOURS for place in range(each)}
        and 77 not in numbers.values()
    )
