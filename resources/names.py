"""Names that people give to clusters.

A name belongs to a cluster model and one of its numbers, in a file of its own: two people who name different clusters
never overwrite each other, and a new clustering inherits nothing by accident. A number that a later model took over
from the one before stands for the same cluster, so its name is looked for there when the model itself has none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from laps.errors import InputError, NotProcessedError
from laps.tables import CLUSTER_NAMES, VISUAL_FEATURES
from resources.models import CLUSTER_MODEL, CLUSTER_MODEL_FILE, ENCODER, ModelRegistry, Release
from resources.store import Store, rows_table

if TYPE_CHECKING:
    import numpy as np

    from laps.naming import Suggestion
    from laps.vision import VisionEncoder

MOST_LETTERS = 100


@dataclass(frozen=True)
class ClusterName:
    """What a cluster is called.

    Attributes:
        cluster_id: its number.
        action_name: its name, None where it has none.
        named_at: when somebody said so, UTC; None where nobody did.
        cluster_model_id: the cluster model under whose numbers it was said; None where nobody did.
    """

    cluster_id: int
    action_name: str | None = None
    named_at: datetime | None = None
    cluster_model_id: str | None = None


def name_files(store: Store, cluster_model_id: str) -> dict[int, str]:
    """For each cluster that was named, by its number, the file below the store's root with the name that holds.

    It is the model's own, else that of the nearest model before it in the line from which numbers were taken over.
    """
    named: dict[str, dict[int, str]] = defaultdict(dict)
    for path in store.files(CLUSTER_NAMES.name, ".parquet"):
        folder, _, file = path.removeprefix(f"{CLUSTER_NAMES.name}/").rpartition("/")
        named[folder.removeprefix(f"{CLUSTER_NAMES.model_level}=")][int(file.removesuffix(".parquet"))] = path
    found: dict[int, str] = {}
    model_id: str | None = cluster_model_id if named else None
    while model_id is not None:
        # A number is never given twice in a line of models, so the same number is the same cluster.
        for number, path in named[model_id].items():
            found.setdefault(number, path)
        model_id = _previous(store, model_id)
    return dict(sorted(found.items()))


def cluster_names(store: Store, release: Release) -> list[ClusterName]:
    """Every cluster of a release with its name, by number."""
    files = name_files(store, release.require(CLUSTER_MODEL))
    names = []
    for number in _numbers(store, release):
        if number not in files:
            names.append(ClusterName(number))
            continue
        (row,) = store.read_table(CLUSTER_NAMES, files[number]).to_pylist()
        names.append(ClusterName(**row))
    return names


def name_cluster(store: Store, release: Release, cluster_id: int, action_name: str | None) -> None:
    """Give a cluster of a release a name, or take it away (None).

    Raises:
        InputError: the release has no such cluster, or the text is no name.
    """
    numbers = _numbers(store, release)
    if cluster_id not in numbers:
        raise InputError(
            f"there is no cluster {cluster_id}",
            where=f"release {release.name}",
            fix=f"Its clusters are {', '.join(map(str, numbers))}.",
        )
    if action_name is not None:
        action_name = " ".join(action_name.split())
        if not action_name or len(action_name) > MOST_LETTERS or not action_name.isprintable():
            raise InputError(
                f"{action_name[:MOST_LETTERS]!r} cannot be a cluster's name",
                fix=f"Use 1 to {MOST_LETTERS} printable characters; --clear takes a name away.",
            )
    model_id = release.require(CLUSTER_MODEL)
    # A name that is taken away is a row as well: without it an earlier model's name would come back.
    row = {
        "cluster_id": cluster_id,
        "action_name": action_name,
        "named_at": datetime.now(UTC),
        "cluster_model_id": model_id,
    }
    path = f"{store.table_path(CLUSTER_NAMES, model_id)}/{cluster_id}.parquet"
    store.write_table(CLUSTER_NAMES, path, rows_table(CLUSTER_NAMES, [row]))


def suggest_names(
    store: Store, release: Release, verbs: Sequence[str], build_encoder: Callable[[], VisionEncoder]
) -> list[Suggestion]:
    """The best verbs for each cluster of a release that has primitives with visual features; nothing is written.

    Args:
        store: the store.
        release: the release.
        verbs: what clusters may be called.
        build_encoder: gives the vision-language model; asked for only when the release's features were made by one.

    Raises:
        InputError: the release's features were made by another model, or one that knows no words.
        NotProcessedError: no primitive has features.
    """
    from laps.naming import suggest
    from laps.vision import WEIGHT_FREE, OpenClipEncoder

    how = (
        "Set LAPS_VISION=open_clip (and LAPS_CLIP_WEIGHTS, where the weights are a file), and make a release with it: "
        "laps backfill --new-release."
    )
    made_by = release.require(ENCODER)
    if made_by.startswith(WEIGHT_FREE):
        raise InputError(
            f"its pictures are described by {made_by}, which knows no words", where=f"release {release.name}", fix=how
        )
    encoder = build_encoder()
    if not isinstance(encoder, OpenClipEncoder) or encoder.encoder_id != made_by:
        raise InputError(
            f"its pictures are described by {made_by}, but {encoder.encoder_id} is configured",
            where=f"release {release.name}",
            fix="Configure that model (LAPS_VISION, LAPS_CLIP_WEIGHTS), or name another release.",
        )
    means, counts = _mean_features(store, release)
    if not means:
        raise NotProcessedError(
            "no primitive has visual features", where=f"release {release.name}", fix="Process hours first."
        )
    return suggest(means, counts, verbs, encoder)


def _mean_features(store: Store, release: Release) -> tuple[dict[int, np.ndarray], dict[int, int]]:
    """Mean descriptor and number of the primitives that have one, by cluster; one hour at a time in memory."""
    import numpy as np

    from resources.embeddings import matrix
    from resources.reporting import survey

    sums: dict[int, np.ndarray] = {}
    counts: dict[int, int] = defaultdict(int)
    for part in survey(store, release).hours:
        if not len(part.seen):
            continue
        rows = store.read_partition(VISUAL_FEATURES, part.hour, release.name, columns=["feature"])
        features = matrix(rows["feature"].take(part.seen)).astype(np.float64)
        for cluster in np.unique(part.seen_labels).tolist():
            own = part.seen_labels == cluster
            sums[cluster] = sums.get(cluster, 0.0) + features[own].sum(axis=0)
            counts[cluster] += int(own.sum())
    return {cluster: total / counts[cluster] for cluster, total in sums.items()}, dict(counts)


def _previous(store: Store, cluster_model_id: str) -> str | None:
    """The model that a cluster model took numbers over from; None where there is none, or it is not there any more."""
    about = ModelRegistry(store).read_file(CLUSTER_MODEL, cluster_model_id, CLUSTER_MODEL_FILE) or {}
    previous_id = about.get("previous_id")
    return None if previous_id is None else str(previous_id)


def _numbers(store: Store, release: Release) -> list[int]:
    model = ModelRegistry(store).clusters(release)
    return sorted(int(number) for number in model.cluster_ids)
