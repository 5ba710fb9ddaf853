"""Releases: drafts are filled stage by stage, promotion is one step, promoted releases do not change."""

from __future__ import annotations

from pathlib import Path

import pytest

from laps.errors import InputError, ModelMismatchError, NotProcessedError
from resources.models import CALIBRATION, CLUSTER_MODEL, EMBEDDER, ENCODER, TOKENIZER, ModelRegistry
from resources.store import Store


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    return ModelRegistry(Store(str(tmp_path)))


def complete(registry: ModelRegistry, suffix: str = "1") -> str:
    release = registry.open_draft("test")
    registry.fill(release, TOKENIZER, f"t{suffix}")
    registry.fill(release, CALIBRATION, f"c{suffix}", "cam1")
    registry.fill(release, EMBEDDER, f"e{suffix}")
    registry.fill(release, ENCODER, "weight_free:x")
    registry.fill(release, CLUSTER_MODEL, f"k{suffix}")
    return release.name


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
    registry.fill(draft, CLUSTER_MODEL, "k2")
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


def test_unknown_releases_list_the_known(registry: ModelRegistry) -> None:
    complete(registry)
    with pytest.raises(InputError, match="Releases: r1"):
        registry.release("r9")
