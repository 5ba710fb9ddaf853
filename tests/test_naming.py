"""Suggested names: the verbs nearest to a cluster's pictures, shown with their margin, and written only on request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laps.errors import InputError
from laps.naming import SENTENCES, VERBS, parse_verbs, suggest
from laps.tables import CLUSTER_ASSIGNMENTS, VISUAL_FEATURES
from laps.vision import OpenClipEncoder, import_open_clip
from resources.configured import VisionResource
from resources.models import ENCODER, ModelRegistry
from resources.names import MOST_LETTERS, cluster_names, name_cluster, suggest_names
from resources.store import rows_table
from tests.conftest import Laps
from tests.export_store import CLUSTER_COUNT, ExportStore

TINY = "laps-tiny-words"
PROPERTY = ["tighten a screw", "open a lid", "pack a box", "wait"]


class Words:
    """Texts as directions: each verb of :data:`PROPERTY` is an axis."""

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        return np.float32([[verb in text for verb in PROPERTY] for text in texts])


@given(st.lists(st.lists(st.integers(0, 9), min_size=4, max_size=4).filter(any), min_size=1, max_size=4))
def test_the_best_verbs_are_those_nearest_to_the_cluster(weights):
    means = {7 * number: np.float64(row) for number, row in enumerate(weights)}
    found = suggest(means, dict.fromkeys(means, 5), PROPERTY, Words())
    assert [one.cluster_id for one in found] == sorted(means)
    for one, row in zip(found, weights, strict=True):
        cosines = np.float64(row) / np.linalg.norm(row)
        scores = [score for _, score in one.verbs]
        assert scores == pytest.approx(sorted(cosines, reverse=True)[:3])
        assert all(score == pytest.approx(cosines[PROPERTY.index(verb)]) for verb, score in one.verbs)
        assert one.margin == scores[0] - scores[1] >= 0


def test_a_list_of_verbs_is_read_as_people_write_it():
    assert parse_verbs("# ours\n tighten  a screw \n\nopen a lid # twice\nopen a lid\n", "v.txt") == PROPERTY[:2]
    with pytest.raises(InputError, match=r"v\.txt: holds 1 verbs"):
        parse_verbs("wait\n", "v.txt")


def test_the_default_verbs_can_be_names():
    assert len(VERBS) == len(set(VERBS)) > 40
    assert all(verb == " ".join(verb.split()) and len(verb) <= MOST_LETTERS for verb in VERBS)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a tiny CLIP that reads the words of open_clip's own tokenizer."""
    open_clip = import_open_clip()
    folder = tmp_path_factory.mktemp("open_clip")
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    }
    (folder / f"{TINY}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{TINY}.json")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = open_clip.create_model(TINY, pretrained=None)
    torch.save(model.state_dict(), folder / "weights.pt")
    return folder / "weights.pt"


@pytest.fixture(scope="module")
def encoder(weights: Path) -> OpenClipEncoder:
    return OpenClipEncoder(TINY, weights, device="cpu")


def test_texts_are_encoded_as_the_model_does(encoder: OpenClipEncoder) -> None:
    texts = [f"text {number}" for number in range(70)]
    found = encoder.encode_text(texts)
    assert found.shape == (70, 8)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    open_clip = import_open_clip()
    with torch.inference_mode():
        expected = encoder._model.encode_text(open_clip.get_tokenizer(TINY)(texts[68:]), normalize=True)
    assert np.allclose(found[68:], expected.numpy(), atol=1e-5)


@pytest.fixture
def described(fresh: ExportStore, encoder: OpenClipEncoder) -> ExportStore:
    """A store whose clusters look like three of the default verbs, as the tiny model reads them."""
    store = fresh.store
    sentences = encoder.encode_text(
        [sentence.format(VERBS[7 * n]) for n in range(CLUSTER_COUNT) for sentence in SENTENCES]
    )
    looks = sentences.reshape(CLUSTER_COUNT, len(SENTENCES), -1).mean(axis=1)
    ModelRegistry(store).fill(fresh.release, ENCODER, encoder.encoder_id)
    fresh.release = ModelRegistry(store).release(fresh.release.name)
    rng = np.random.default_rng(0)
    for hour in store.partitions(CLUSTER_ASSIGNMENTS, fresh.release.name):
        assigned = store.read_partition(CLUSTER_ASSIGNMENTS, hour, fresh.release.name).to_pylist()
        rows = [
            {
                "segment_id": row["segment_id"],
                "camera": row["camera"],
                "status": "ok",
                "feature": (looks[row["cluster_id"]] + rng.normal(0, 1e-4, looks.shape[1])).tolist(),
                "frames_used": 8,
                "encoder_id": encoder.encoder_id,
                "release": fresh.release.name,
            }
            for row in assigned
        ]
        store.write_partition(VISUAL_FEATURES, hour, rows_table(VISUAL_FEATURES, rows), fresh.release.name)
    return fresh


def test_clusters_that_look_like_a_verb_are_told_so(described: ExportStore, encoder: OpenClipEncoder) -> None:
    found = suggest_names(described.store, described.release, VERBS, lambda: encoder)
    assert [(one.cluster_id, one.verbs[0][0], one.primitives) for one in found] == [
        (number, VERBS[7 * number], 5) for number in range(CLUSTER_COUNT)
    ]
    assert all(one.verbs[0][1] > 0.99 and len(one.verbs) == 3 for one in found)


def test_nothing_is_written_unless_told_and_a_name_is_never_replaced(
    described: ExportStore,
    weights: Path,
    laps_command: Laps,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LAPS_STORE", described.store.root)
    # A deployment whose encoder is the tiny model.
    configured = VisionResource(kind="open_clip", model=TINY, pretrained=str(weights), device="cpu")
    monkeypatch.setattr("resources.configured.vision_from_environment", lambda: configured)

    def laps(*arguments: str) -> str:
        code, out, err = laps_command("name", "--suggest", *arguments)
        assert code == 0, err
        return out

    def names() -> list[str | None]:
        return [one.action_name for one in cluster_names(described.store, described.release)]

    out = laps()
    assert f"cluster 1, 5 primitives: {VERBS[7]} " in out and "margin" in out and "nothing was written" in out
    assert names() == [None, None, None]
    name_cluster(described.store, described.release, 1, "ours")
    assert "nothing was written" not in laps("--apply", "--min-margin", "2")
    assert names() == [None, "ours", None]
    assert "(is named ours)" in laps("--apply")
    assert names() == [VERBS[0], "ours", VERBS[14]]


def test_a_model_without_words_or_another_one_is_refused(described: ExportStore, encoder: OpenClipEncoder) -> None:
    store, registry = described.store, ModelRegistry(described.store)
    registry.fill(described.release, ENCODER, "open_clip:other/weights")
    with pytest.raises(InputError, match="described by open_clip:other/weights, but open_clip:laps-tiny-words"):
        suggest_names(store, registry.release(described.release.name), VERBS, lambda: encoder)
    registry.fill(described.release, ENCODER, "weight_free:hog-colour/v1")

    def not_asked_for() -> OpenClipEncoder:
        raise AssertionError("a large model was loaded for nothing")

    with pytest.raises(InputError, match=r"knows no words.*LAPS_VISION=open_clip"):
        suggest_names(store, registry.release(described.release.name), VERBS, not_asked_for)
