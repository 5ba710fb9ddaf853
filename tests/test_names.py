"""Names of clusters: what is named is shown everywhere, numbers carry their names over, and nothing is overwritten."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from laps.clustering import ClusterModel, fit
from laps.errors import InputError
from laps.export.card import CARD_JSON
from laps.report import build_report
from laps.tables import CLUSTER_ASSIGNMENTS, CLUSTER_NAMES
from resources.catalog import open_catalog, run_query
from resources.curation import Selection, choose
from resources.datasets import Format, write_dataset
from resources.models import CLUSTER_MODEL, ModelRegistry, Release
from resources.names import cluster_names, name_cluster, name_files
from resources.store import Store, rows_table
from tests.conftest import Laps
from tests.export_store import EMBEDDER_ID, TOKENIZER_ID, ExportStore, make_cluster_model, put_cluster_model


@pytest.fixture
def run(laps_command: Laps, fresh: ExportStore, monkeypatch: pytest.MonkeyPatch) -> Laps:
    """Run ``laps`` on the test's store; returns exit code, standard output and standard error."""
    monkeypatch.setenv("LAPS_STORE", fresh.store.root)
    return laps_command


def names(store: Store, release: Release) -> dict[int, str | None]:
    return {one.cluster_id: one.action_name for one in cluster_names(store, release)}


def in_catalog(store: Store, release: Release) -> dict[int, str | None]:
    connection = open_catalog(store, release.name)
    try:
        query = "SELECT DISTINCT cluster_id, action_name FROM primitives WHERE cluster_id IS NOT NULL"
        return {row["cluster_id"]: row["action_name"] for row in run_query(connection, query).to_pylist()}
    finally:
        connection.close()


def report(made: ExportStore) -> str:
    points = [(row["segment_id"], row["cluster_id"], 0.0, 0.0) for row in made.rows]
    connection = open_catalog(made.store, made.release.name)
    try:
        return build_report(
            connection, release={"name": "r1"}, generated_at=datetime.now(UTC), thresholds={}, map_points=points
        )
    finally:
        connection.close()


def draft_with(store: Store, model: ClusterModel, folder: Path) -> Release:
    """A draft that differs from the first release in its cluster model."""
    registry = ModelRegistry(store)
    draft = registry.open_draft("fitted again", based_on=registry.release("r1"))
    registry.fill(draft, CLUSTER_MODEL, put_cluster_model(store, model, folder))
    return registry.release(draft.name)


def test_a_name_is_in_catalog_report_and_exports(run: Laps, fresh: ExportStore, tmp_path: Path) -> None:
    code, out, err = run("name", 1, "  tighten   <screw> ")
    assert code == 0, err
    assert out.startswith("cluster 1: tighten <screw>  (since ")
    run("name", 2, "pick up")
    assert run("name", "--list")[1].splitlines()[0] == "cluster 0: -"
    assert in_catalog(fresh.store, fresh.release) == {0: None, 1: "tighten <screw>", 2: "pick up"}
    code, out, _ = run("sql", "select * from cluster_names order by 1", "--format", "json", "--release", "r1")
    assert [row["action_name"] for row in json.loads(out)] == ["tighten <screw>", "pick up"]
    page = report(fresh)
    assert "Cluster 1: tighten &lt;screw&gt;" in page and "<screw>" not in page
    for form in ("lapa", "segments"):
        chosen = choose(fresh.store, fresh.release, Selection(where="action_name IS NOT NULL"))
        assert {item.cluster_id for item in chosen.items} == {1, 2}
        write_dataset(fresh.store, fresh.release, chosen, Format(form), tmp_path / form, name="x")
        tasks = json.loads((tmp_path / form / CARD_JSON).read_text())["contents"]["tasks"]
        assert tasks == {"tighten <screw>": 5, "pick up": 5}
    assert "to `tighten <screw>` ASSISTANT" in (tmp_path / "lapa/train.jsonl").read_text()
    assert run("name", 1, "--clear")[1] == "cluster 1: -\n"
    assert in_catalog(fresh.store, fresh.release) == {0: None, 1: None, 2: "pick up"}


def test_what_is_no_cluster_or_no_name_is_refused(run: Laps, fresh: ExportStore) -> None:
    for arguments, code, says in (
        ((), 2, "give CLUSTER"),
        ((1,), 2, "give CLUSTER"),
        ((1, "name", "--clear"), 2, "give CLUSTER"),
        ((1, "--list"), 2, "give CLUSTER"),
        ((7, "name"), 1, "there is no cluster 7. Its clusters are 0, 1, 2."),
        ((1, "  "), 1, "cannot be a cluster's name"),
        ((1, "x" * 101), 1, "cannot be a cluster's name"),
        ((1, "a\x07b"), 1, "cannot be a cluster's name"),
    ):
        found, _, err = run("name", *arguments)
        assert (found, says in err) == (code, True), err
    assert fresh.store.files(CLUSTER_NAMES.name) == []


def test_people_who_name_different_clusters_at_once_keep_both(fresh: ExportStore) -> None:
    def give(number: int) -> None:
        for turn in range(5):
            name_cluster(Store(fresh.store.root), fresh.release, number, f"action {number} turn {turn}")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(give, range(3)))
    assert names(fresh.store, fresh.release) == {number: f"action {number} turn 4" for number in range(3)}


def test_names_follow_the_numbers_that_a_new_model_took_over(fresh: ExportStore, tmp_path: Path) -> None:
    store, first = fresh.store, fresh.release
    assert first.cluster_model is not None
    for number in range(3):
        name_cluster(store, first, number, f"action {number}")
    # Cluster 1 is gone, 3 is new; then 4 is new as well.
    second = make_cluster_model(1, cluster_ids=np.array([0, 2, 3]), next_id=4, previous_id=first.cluster_model)
    release = draft_with(store, second, tmp_path / "second")
    assert names(store, release) == {0: "action 0", 2: "action 2", 3: None}
    name_cluster(store, release, 3, "new action")
    name_cluster(store, release, 2, None)
    third = make_cluster_model(2, cluster_ids=np.array([0, 2, 4]), next_id=5, previous_id=second.cluster_model_id)
    assert names(store, draft_with(store, third, tmp_path / "third")) == {0: "action 0", 2: None, 4: None}
    # A name that is given later to the first release's cluster reaches those that did not say otherwise.
    name_cluster(store, first, 0, "renamed")
    assert names(store, release) == {0: "renamed", 2: None, 3: "new action"}
    assert names(store, first) == {0: "renamed", 1: "action 1", 2: "action 2"}


def test_two_models_that_gave_the_same_new_number_do_not_share_its_name(fresh: ExportStore, tmp_path: Path) -> None:
    store, first = fresh.store, fresh.release
    one = make_cluster_model(1, cluster_ids=np.array([0, 1, 3]), next_id=4, previous_id=first.cluster_model)
    other = make_cluster_model(2, cluster_ids=np.array([0, 1, 3]), next_id=4, previous_id=first.cluster_model)
    unrelated = make_cluster_model(3)
    name_cluster(store, first, 0, "shared")
    name_cluster(store, draft_with(store, one, tmp_path / "one"), 3, "of one")
    assert names(store, draft_with(store, other, tmp_path / "other")) == {0: "shared", 1: None, 3: None}
    assert names(store, draft_with(store, unrelated, tmp_path / "unrelated")) == {0: None, 1: None, 2: None}


def test_a_fit_says_which_model_its_numbers_come_from(tmp_path: Path) -> None:
    points = np.repeat(np.eye(8)[:4], 10, axis=0) + np.random.default_rng(0).normal(0, 0.01, (40, 8))
    ids: dict[str, Any] = {"tokenizer_id": TOKENIZER_ID, "embedder_id": EMBEDDER_ID}
    first = fit(points[:30], 3, **ids)
    again = fit(points, 4, previous=first.model, **ids)
    assert first.model.previous_id is None
    again.model.save(tmp_path)
    loaded = ClusterModel.load(tmp_path)
    assert loaded.previous_id == first.model.cluster_model_id
    assert loaded.cluster_model_id == again.model.cluster_model_id
    kept = {number for number in loaded.cluster_ids.tolist() if number < first.model.next_id}
    assert kept == set(again.kept_ids) and len(kept) == 3


def test_rows_of_another_cluster_model_get_no_name(fresh: ExportStore) -> None:
    name_cluster(fresh.store, fresh.release, 1, "tighten screw")
    (hour, *_) = fresh.store.partitions(CLUSTER_ASSIGNMENTS, "r1")
    rows = fresh.store.read_partition(CLUSTER_ASSIGNMENTS, hour, "r1").to_pylist()
    stale = [row | {"cluster_model_id": "kother"} for row in rows]
    fresh.store.write_partition(CLUSTER_ASSIGNMENTS, hour, rows_table(CLUSTER_ASSIGNMENTS, stale), "r1")
    connection = open_catalog(fresh.store, "r1")
    query = "SELECT DISTINCT cluster_model_id FROM primitives WHERE action_name IS NOT NULL"
    assert run_query(connection, query).to_pylist() == [{"cluster_model_id": fresh.release.cluster_model}]
    connection.close()


def test_a_damaged_name_says_how_to_mend_it_and_is_mended_so(run: Laps, fresh: ExportStore) -> None:
    run("name", 1, "tighten screw")
    (path,) = fresh.store.files(CLUSTER_NAMES.name)
    fresh.store.write_bytes(path, b"no Parquet")
    for arguments in (("name", "--list"), ("sql", "select action_name from primitives", "--release", "r1")):
        code, _, err = run(*arguments)
        assert code == 1
        assert path in err and "Name the cluster again: laps name CLUSTER NAME" in err and "Materialize" not in err
    assert run("name", 1, "tighten screw")[0] == 0
    assert in_catalog(fresh.store, fresh.release)[1] == "tighten screw"


def test_a_release_that_is_discarded_leaves_the_line_of_names(fresh: ExportStore, tmp_path: Path) -> None:
    """Names of r1 are those of r3, through the clusters of r2, which is removed."""
    registry = ModelRegistry(fresh.store)
    name_cluster(fresh.store, fresh.release, 0, "of the first")
    line = [fresh.release]
    for number in (1, 2):
        model = make_cluster_model(number, previous_id=line[-1].require(CLUSTER_MODEL))
        line.append(draft_with(fresh.store, model, tmp_path / str(number)))
    last = line[-1].require(CLUSTER_MODEL)
    before = name_files(fresh.store, last)
    assert len(before) == 1
    registry.discard(line[1].name)
    assert name_files(fresh.store, last) == before


def test_a_model_that_is_gone_ends_the_line(fresh: ExportStore, tmp_path: Path) -> None:
    orphan = make_cluster_model(1, previous_id="kgone")
    release = draft_with(fresh.store, orphan, tmp_path / "orphan")
    name_cluster(fresh.store, fresh.release, 0, "of the first")
    assert name_files(fresh.store, release.require(CLUSTER_MODEL)) == {}
    with pytest.raises(InputError, match="no cluster 9"):
        name_cluster(fresh.store, release, 9, "x")
