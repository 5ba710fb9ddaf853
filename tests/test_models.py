"""Releases: drafts are filled stage by stage, promotion is one step, promoted releases do not change."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from laps.errors import InputError, LapsError, ModelMismatchError, NotProcessedError, StoreError
from laps.tables import (
    CLIPS,
    CLUSTER_ASSIGNMENTS,
    CLUSTERS,
    KEYPOINT_TRACKS,
    LATENT_STREAM,
    SEGMENTS,
    TABLES,
)
from laps.timegrid import HOUR_NS, CameraHour
from resources.models import (
    CALIBRATION,
    CALIBRATION_FILE,
    CLUSTER_MODEL,
    EMBEDDER,
    ENCODER,
    TOKENIZER,
    ModelRegistry,
    Release,
    naming,
)
from resources.store import PART, Store, rows_table


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    return ModelRegistry(Store(str(tmp_path)))


def complete(registry: ModelRegistry, suffix: str = "1") -> str:
    release = registry.open_draft("test")
    registry.fill(release, TOKENIZER, put(registry, TOKENIZER, f"t{suffix}"))
    registry.fill(release, CALIBRATION, put_calibration(registry, f"c{suffix}", f"t{suffix}"), "cam1")
    registry.fill(release, EMBEDDER, put(registry, EMBEDDER, f"e{suffix}"))
    registry.fill(release, ENCODER, "weight_free:x")
    registry.fill(release, CLUSTER_MODEL, put_clusters(registry, f"k{suffix}", f"t{suffix}", f"e{suffix}"))
    return release.name


def put(registry: ModelRegistry, kind: str, model_id: str, file: str = "config.json", **content: str) -> str:
    registry.store.write_json(f"models/{kind}/{model_id}/{file}", content)
    registry.store.write_bytes(f"models/{kind}/{model_id}/complete", b"")
    return model_id


def put_calibration(registry: ModelRegistry, model_id: str, tokenizer: str) -> str:
    return put(registry, CALIBRATION, model_id, CALIBRATION_FILE, tokenizer_id=tokenizer)


def put_clusters(registry: ModelRegistry, model_id: str, tokenizer: str, embedder: str) -> str:
    return put(registry, CLUSTER_MODEL, model_id, "clusters.json", tokenizer_id=tokenizer, embedder_id=embedder, k="3")


def test_an_empty_store_says_what_to_do(registry: ModelRegistry) -> None:
    with pytest.raises(NotProcessedError, match="laps backfill"):
        registry.to_read()
    assert registry.current() is None


def test_the_first_model_opens_the_first_release(registry: ModelRegistry) -> None:
    release = registry.to_fill(TOKENIZER)
    assert (release.name, release.status) == ("r1", "draft")
    registry.fill(release, TOKENIZER, "t1")
    assert registry.to_read().tokenizer == "t1"
    # The draft that is open is the one that is filled further.
    assert registry.to_fill(CALIBRATION, camera="cam1").name == "r1"


def test_an_incomplete_release_cannot_become_current(registry: ModelRegistry) -> None:
    release = registry.to_fill(TOKENIZER)
    registry.fill(release, TOKENIZER, "t1")
    with pytest.raises(InputError, match="no calibration, embedder, encoder, cluster_model"):
        registry.promote(release.name)
    assert registry.current() is None


def test_a_promoted_release_does_not_change(registry: ModelRegistry) -> None:
    name = complete(registry)
    current = registry.promote(name)
    assert current.status == "current"
    with pytest.raises(ModelMismatchError, match="does not change"):
        registry.fill(current, TOKENIZER, "t9")
    with pytest.raises(ModelMismatchError):
        registry.to_fill(TOKENIZER, name)
    registry.fill(current, TOKENIZER, "t1")  # the same model again is no change


def test_a_new_camera_joins_the_current_release(registry: ModelRegistry) -> None:
    registry.promote(complete(registry))
    target = registry.to_fill(CALIBRATION, camera="cam2")
    assert target.name == "r1"
    registry.fill(target, CALIBRATION, "c7", "cam2")
    assert registry.release("r1").calibrations == {"cam1": "c1", "cam2": "c7"}


def test_a_new_model_opens_a_draft_that_keeps_what_comes_before(registry: ModelRegistry) -> None:
    registry.promote(complete(registry))
    draft = registry.to_fill(CLUSTER_MODEL)
    assert (draft.name, draft.status) == ("r2", "draft")
    assert (draft.tokenizer, draft.calibrations, draft.embedder) == ("t1", {"cam1": "c1"}, "e1")
    assert draft.cluster_model is None
    assert registry.to_read().name == "r1", "runs go on with the current release"
    registry.fill(draft, CLUSTER_MODEL, put_clusters(registry, "k2", "t1", "e1"))
    registry.promote("r2")
    assert registry.release("r1").status == "retired"
    assert registry.to_read().name == "r2"


def test_several_drafts_must_be_named(registry: ModelRegistry) -> None:
    registry.open_draft("one")
    registry.open_draft("two")
    with pytest.raises(InputError, match="r1, r2"):
        registry.to_read()
    with pytest.raises(InputError, match="several drafts"):
        registry.to_fill(TOKENIZER)
    assert registry.to_fill(TOKENIZER, "r2").name == "r2"


def test_an_empty_slot_names_the_asset_to_materialize(registry: ModelRegistry) -> None:
    release = registry.open_draft("test")
    with pytest.raises(NotProcessedError, match="motion_tokenizer"):
        release.require(TOKENIZER)
    with pytest.raises(NotProcessedError, match="segmenter_calibration of camera cam1"):
        release.require(CALIBRATION, "cam1")


def test_models_are_published_whole_and_once(registry: ModelRegistry, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    registry.put(TOKENIZER, "tabc", folder)
    assert (registry.folder(TOKENIZER, "tabc") / "config.json").read_text() == "{}"
    # A model never changes: putting another content under the same id leaves the first.
    (folder / "config.json").write_text("changed")
    registry.put(TOKENIZER, "tabc", folder)
    assert (registry.folder(TOKENIZER, "tabc") / "config.json").read_text() == "{}"
    with pytest.raises(NotProcessedError, match="no tokenizer tmissing"):
        registry.folder(TOKENIZER, "tmissing")


def test_an_unfinished_upload_is_no_model(registry: ModelRegistry) -> None:
    registry.store.write_bytes("models/tokenizer/thalf/config.json", b"{}")
    with pytest.raises(NotProcessedError):
        registry.folder(TOKENIZER, "thalf")


@pytest.fixture
def fetching(registry: ModelRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelRegistry:
    """One with the tokenizer t1, whose models are copied as from object storage."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    put(registry, TOKENIZER, "t1")
    monkeypatch.setattr(registry.store, "is_local", False)
    return registry


def test_a_fetched_model_that_lost_a_part_is_fetched_again(fetching: ModelRegistry) -> None:
    folder = fetching.folder(TOKENIZER, "t1")
    assert {path.name for path in folder.iterdir()} == {"config.json", "complete"}
    for path in folder.iterdir():
        path.unlink()
    assert fetching.folder(TOKENIZER, "t1") == folder
    assert {path.name for path in folder.iterdir()} == {"config.json", "complete"}


def test_a_model_that_another_process_fetched_meanwhile_is_taken(
    fetching: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = Store.get_folder

    def beside_another(store: Store, path: str, folder: Path) -> Path:
        monkeypatch.setattr(Store, "get_folder", fetch)
        fetching.folder(TOKENIZER, "t1")
        return fetch(store, path, folder)

    monkeypatch.setattr(Store, "get_folder", beside_another)
    assert (fetching.folder(TOKENIZER, "t1") / "complete").exists()


def test_unknown_releases_list_the_known(registry: ModelRegistry) -> None:
    complete(registry)
    with pytest.raises(InputError, match="Releases: r1"):
        registry.release("r9")


def ids(release: Release) -> dict[str, Any]:
    slots = (TOKENIZER, EMBEDDER, ENCODER, CLUSTER_MODEL)
    return {**{slot: getattr(release, slot) for slot in slots}, CALIBRATION: release.calibrations}


def test_another_model_empties_what_was_made_with_the_old_one(registry: ModelRegistry) -> None:
    draft = registry.release(complete(registry))
    full = ids(draft)
    registry.fill(draft, CALIBRATION, "c5", "cam2")
    assert ids(registry.release("r1")) == {**full, CALIBRATION: {"cam1": "c1", "cam2": "c5"}}, "a camera joined"
    registry.fill(draft, ENCODER, "weight_free:y")
    registry.fill(draft, TOKENIZER, "t1")
    full |= {ENCODER: "weight_free:y", CALIBRATION: {"cam1": "c1", "cam2": "c5"}}
    assert ids(registry.release("r1")) == full
    registry.fill(draft, CALIBRATION, "c6", "cam2")
    full |= {CLUSTER_MODEL: None, CALIBRATION: {"cam1": "c1", "cam2": "c6"}}
    assert ids(registry.release("r1")) == full
    registry.fill(draft, CLUSTER_MODEL, "k2")
    registry.fill(draft, EMBEDDER, "e2")
    assert ids(registry.release("r1")) == full | {EMBEDDER: "e2"}
    registry.fill(draft, CLUSTER_MODEL, "k3")
    registry.fill(draft, TOKENIZER, "t2")
    emptied = {TOKENIZER: "t2", ENCODER: "weight_free:y", EMBEDDER: None, CLUSTER_MODEL: None, CALIBRATION: {}}
    assert ids(registry.release("r1")) == emptied


def test_a_fill_judges_the_release_as_it_is_now(registry: ModelRegistry) -> None:
    draft = registry.release(complete(registry))
    registry.promote(draft.name)
    with pytest.raises(ModelMismatchError, match="does not change"):
        registry.fill(draft, TOKENIZER, "t9")  # it was a draft when it was read


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("calibration", r"calibration c1 of camera cam1 was made with the tokenizer tother.*segmenter_calibration"),
        ("clusters of a tokenizer", r"cluster model k1 was made with the tokenizer tother, but the release has t1"),
        ("clusters of an embedder", r"cluster model k1 was made with the embedder eother.*Materialize cluster_model"),
    ],
)
def test_models_that_were_not_made_together_cannot_become_current(
    registry: ModelRegistry, part: str, said: str
) -> None:
    name = complete(registry)
    if part == "calibration":
        put_calibration(registry, "c1", "tother")
    elif part == "clusters of a tokenizer":
        put_clusters(registry, "k1", "tother", "e1")
    else:
        put_clusters(registry, "k1", "t1", "eother")
    with pytest.raises(ModelMismatchError, match=said):
        registry.promote(name)
    assert registry.current() is None


@pytest.mark.parametrize("path", ["tokenizer/t1", "calibration/c1", "embedder/e1", "cluster_model/k1"])
def test_a_model_that_the_store_lacks_cannot_become_current(registry: ModelRegistry, path: str) -> None:
    name = complete(registry)
    registry.store.delete(f"models/{path}")
    with pytest.raises(NotProcessedError, match=f"the store has no .* {path[-2:]}.*Materialize"):
        registry.promote(name)


def test_what_a_draft_lacks_is_asked_for_in_that_draft(registry: ModelRegistry) -> None:
    registry.promote(complete(registry))
    draft = registry.to_fill(TOKENIZER)
    told = r"with release r2 in the run configuration \(resources: release: config: name: r2\), or run "
    told += r"`laps backfill --release r2`\.$"
    with pytest.raises(NotProcessedError, match="Materialize segment_embeddings first, " + told):
        draft.require(EMBEDDER)
    with pytest.raises(ModelMismatchError, match="Do it again, " + told) as raised, naming(draft):
        raise ModelMismatchError("differs", where="there", fix="Do it again.")
    assert raised.value.__cause__ is None, "the first cause is what the command line prints"
    with pytest.raises(NotProcessedError, match=told), naming(draft):
        draft.require(TOKENIZER)
    with pytest.raises(LapsError, match=r"^differs$"), naming(registry.release("r1")):
        raise ModelMismatchError("differs")


def test_the_only_draft_needs_no_naming(registry: ModelRegistry) -> None:
    with pytest.raises(NotProcessedError, match=r"Materialize motion_tokenizer first\.$"):
        registry.open_draft("test").require(TOKENIZER)


def test_a_draft_is_visible_only_when_it_holds_what_it_starts_from(
    registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = registry.promote(complete(registry))
    written = registry.store.write_json

    def breaks(path: str, content: object) -> None:
        if path.endswith("r2/embedder.json"):
            raise StoreError("no room")
        written(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(registry.store, "write_json", breaks)
        with pytest.raises(StoreError):
            registry.open_draft("killed", based_on=current)
    assert registry.names() == ["r1"]
    # What a killed run took stays taken: its slots must not show up in another release.
    assert registry.open_draft("next").name == "r3"


def test_drafts_opened_at_once_get_different_names(registry: ModelRegistry) -> None:
    ready = threading.Barrier(8)
    opened: list[str] = []

    def open_one() -> None:
        own = ModelRegistry(Store(registry.store.root))
        ready.wait()
        opened.append(own.open_draft("at once").name)

    threads = [threading.Thread(target=open_one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(opened) == [f"r{number}" for number in range(1, 9)]
    assert registry.names() == sorted(opened)


@pytest.mark.parametrize("root", ["local", "memory://laps-taken"])
def test_a_name_is_taken_once(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path) if root == "local" else root)
    registry = ModelRegistry(store)
    try:
        assert registry.open_draft("first").name == "r1"
        # Another process took r2 after the names were listed.
        store.write_bytes("models/releases/r2/taken", b"another")
        with monkeypatch.context() as patch:
            listed = store.files
            old = [path for path in listed("models/releases") if "/r2/" not in path]
            patch.setattr(
                store, "files", lambda folder, suffix="": old if folder == "models/releases" else listed(folder, suffix)
            )
            name = registry.open_draft("second").name
        assert name == "r3"
        assert registry.names() == ["r1", "r3"]
    finally:
        store.delete("models")


# -- coverage and drafts that nobody needs ---------------------------------------------------------------------


def assign(registry: ModelRegistry, name: str, *hours: int) -> None:
    """Process hours of cam1 to their end; no primitive is found in them."""
    for hour in hours:
        place = CameraHour("cam1", hour * HOUR_NS)
        registry.store.write_partition(CLUSTER_ASSIGNMENTS, place, rows_table(CLUSTER_ASSIGNMENTS, []), name)


def test_a_release_that_lacks_hours_of_the_current_one_is_not_promoted(
    registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAPS_FIRST_HOUR", "1970-01-01T00:00:00Z")
    first = complete(registry)
    registry.promote(first)  # the first one has nothing to be compared with
    assign(registry, first, *range(9))
    second = complete(registry, "2")
    assign(registry, second, 1, 99)
    with pytest.raises(NotProcessedError, match="lacks 8 hours that release r1 has") as caught:
        registry.promote(second)
    said = str(caught.value)
    hours = [CameraHour("cam1", hour * HOUR_NS).key for hour in range(9)]
    assert ", ".join([hours[0], *hours[2:6]]) + " and 3 more" in said
    assert "laps backfill --release r2 --only missing" in said and "laps promote r2 --even-incomplete" in said
    assert registry.current_name() == "r1"
    assert registry.release(second).status == "draft"
    assert registry.promote(first).status == "current", "the current one covers itself"
    assign(registry, second, *range(9))
    assert registry.promote(second).status == "current"
    assert registry.promote(first, even_incomplete=True).status == "current"
    # Hours before the store's first one cannot be made any more.
    assign(registry, first, 10)
    with pytest.raises(NotProcessedError, match="lacks 1 hour "):
        registry.promote(second)
    monkeypatch.setenv("LAPS_FIRST_HOUR", "1970-01-01T11:00:00Z")
    assert registry.promote(second).status == "current"


@pytest.mark.parametrize("status", ["draft", "retired"])
def test_a_discarded_release_leaves_what_others_name_and_nothing_else(registry: ModelRegistry, status: str) -> None:
    store = registry.store
    registry.promote(complete(registry))
    assign(registry, "r1", 1)
    kept = {path: store.read_bytes(path) for path in store.files("")}
    name = complete(registry, "2")
    for tokenizer in ("t1", "t2"):
        store.write_bytes(f"{LATENT_STREAM.name}/tokenizer={tokenizer}/camera=cam1/{PART}", b"")
    kept[f"{LATENT_STREAM.name}/tokenizer=t1/camera=cam1/{PART}"] = b""
    assign(registry, name, 1, 2)
    store.write_bytes(f"{store.table_path(SEGMENTS, name)}/camera=cam1/{PART}", b"")
    store.write_bytes(f"{store.table_path(CLIPS, name)}/camera=cam1/{PART}", b"")
    store.write_bytes(f"clip_files/release={name}/camera=cam1/a.mp4", b"")
    store.write_bytes(f"{store.table_path(CLUSTERS, name)}/{PART}", b"")
    store.write_bytes(f"reports/release={name}/report.html", b"")
    if status == "retired":
        for one in (name, "r1"):
            registry.promote(one, even_incomplete=True)
        kept |= {path: store.read_bytes(path) for path in ("models/current.json", "models/releases/r1/promoted.json")}
    assert registry.release(name).status == status
    assert registry.discard(name) == {
        "latent_stream/tokenizer=t2": 1,
        "segments/release=r2": 1,
        "clips/release=r2": 1,
        "clip_files/release=r2": 1,
        "cluster_assignments/release=r2": 2,
        "clusters/release=r2": 1,
        "reports/release=r2": 1,
        "models/calibration/c2": 2,
        "models/embedder/e2": 2,
        "models/tokenizer/t2": 2,
        "models/releases/r2": 6 if status == "draft" else 7,
    }
    assert registry.names() == ["r1"]
    # Names of clusters are inherited through their models.
    clusters = set(store.files("models/cluster_model/k2"))
    assert len(clusters) == 2 and set(store.files("")) == {*kept, *clusters, "models/releases/r2/taken"}
    assert {path: store.read_bytes(path) for path in kept} == kept
    # A run that still works with it must not write into another release.
    assert registry.open_draft("next").name == "r3"


def test_a_model_that_another_release_names_stays(registry: ModelRegistry) -> None:
    current = registry.promote(complete(registry))
    streams = f"{LATENT_STREAM.name}/tokenizer=t1/camera=cam1/{PART}"
    registry.store.write_bytes(streams, b"")
    draft = registry.open_draft("other clusters", based_on=current, before=CLUSTER_MODEL)
    assert set(registry.discard(draft.name)) == {"models/releases/r2"}
    assert registry.store.exists(streams) and registry.has(TOKENIZER, "t1")
    assert registry.has(EMBEDDER, "e1") and registry.has(CALIBRATION, "c1") and registry.has(CLUSTER_MODEL, "k1")


def test_an_empty_draft_no_longer_stands_in_the_way(registry: ModelRegistry) -> None:
    registry.open_draft("a fit that failed")
    wanted = registry.open_draft("wanted").name
    with pytest.raises(InputError, match="laps discard NAME"):
        registry.to_read()
    with pytest.raises(InputError, match="laps discard NAME"):
        registry.to_fill(TOKENIZER)
    registry.discard("r1")
    assert registry.to_read().name == registry.to_fill(TOKENIZER).name == wanted


def test_hours_that_only_one_release_has_are_told(registry: ModelRegistry) -> None:
    for name, hours in (("r1", (1, 2, 3)), ("r2", (2, 9))):
        assign(registry, name, *hours)
    first, third = (CameraHour("cam1", hour * HOUR_NS) for hour in (1, 3))
    assert registry.hours_beside("r1", "r2") == [first, third] and registry.hours_beside("r1", "r1") == []


def test_the_current_release_is_not_discarded(registry: ModelRegistry) -> None:
    registry.promote(complete(registry))
    before = registry.store.files("")
    with pytest.raises(InputError, match="release r1: is current"):
        registry.discard("r1")
    draft = registry.open_draft("third").name
    for name in ("r9", "", ".", f"r1/../{draft}", f"{draft}/"):
        with pytest.raises(InputError, match="there is no release"):
            registry.discard(name)
    registry.discard(draft)
    assert registry.store.files("") == sorted([*before, "models/releases/r2/taken"])


def test_a_discard_that_was_interrupted_can_be_repeated(
    registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = complete(registry)
    assign(registry, name, 1)
    deleted = registry.store.delete

    def breaks(path: str) -> None:
        if path.endswith("embedder.json"):
            raise StoreError("gone")
        deleted(path)

    with monkeypatch.context() as patch:
        patch.setattr(registry.store, "delete", breaks)
        with pytest.raises(StoreError):
            registry.discard(name)
    assert registry.release(name).status == "draft"
    registry.discard(name)
    assert registry.names() == []


def test_a_release_knows_the_folder_above_its_partitions(registry: ModelRegistry) -> None:
    release = registry.open_draft("test")
    assert release.model_of(KEYPOINT_TRACKS) is None
    with pytest.raises(NotProcessedError, match="motion_tokenizer"):
        release.model_of(LATENT_STREAM)
    registry.fill(release, TOKENIZER, "t1")
    release = registry.release(release.name)
    registry.fill(release, CLUSTER_MODEL, "k1")
    release = registry.release(release.name)
    models = {table.model_level: release.model_of(table) for table in TABLES.values()}
    assert models == {None: None, "tokenizer": "t1", "release": "r1", "cluster_model": "k1"}
