"""Two releases side by side: what a person looks at before one of them takes the other's place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from laps.tables import CLUSTER_ASSIGNMENTS, SEGMENTS
from laps.timegrid import CameraHour
from resources.models import ModelRegistry, Release
from resources.reporting import calibrations, read_scores
from resources.store import Store

if TYPE_CHECKING:
    import numpy as np

    from laps.calibration import Calibration

# Numbers of clusters of primitives that have none.
NONE = -1


@dataclass(frozen=True)
class Cut:
    """The primitives of an hour in one release, by start.

    Attributes:
        segment_ids: one for each.
        starts, stops: int64[n], sample numbers, half-open.
        clusters: int64[n], :data:`NONE` where it has no cluster.
    """

    segment_ids: list[str]
    starts: np.ndarray
    stops: np.ndarray
    clusters: np.ndarray


@dataclass(frozen=True)
class Kept:
    """How many primitives two releases have in common, over the hours that both have cut.

    Attributes:
        hours: those hours.
        before, after: primitives of the one and of the other.
        same: such as share more than half of their time (intersection over union).
        clustered: of these, such as have a cluster in both.
        same_cluster: of these, such as have the same cluster number.
    """

    hours: int
    before: int
    after: int
    same: int
    clustered: int
    same_cluster: int


def common_hours(store: Store, release: Release, other: Release) -> list[CameraHour]:
    """The hours that both releases have cut, in order."""
    have = set(store.partitions(SEGMENTS, other.name))
    return [hour for hour in store.partitions(SEGMENTS, release.name) if hour in have]


def read_cut(store: Store, release: Release, hour: CameraHour) -> Cut:
    """The primitives of an hour with their clusters, as far as they have any."""
    import numpy as np

    cut = store.read_partition(SEGMENTS, hour, release.name, ["segment_id", "start_sample", "end_sample"])
    cut = cut.sort_by("start_sample")
    clusters: dict[str, int] = {}
    if store.has_partition(CLUSTER_ASSIGNMENTS, hour, release.name):
        assigned = store.read_partition(CLUSTER_ASSIGNMENTS, hour, release.name, ["segment_id", "cluster_id"])
        clusters = dict(zip(assigned["segment_id"].to_pylist(), assigned["cluster_id"].to_pylist(), strict=True))
    segment_ids = cut["segment_id"].to_pylist()
    return Cut(
        segment_ids=segment_ids,
        starts=cut["start_sample"].to_numpy(),
        stops=cut["end_sample"].to_numpy(),
        clusters=np.array([clusters.get(segment_id, NONE) for segment_id in segment_ids], np.int64),
    )


def earlier_numbers(store: Store, release: Release, current: Release) -> dict[str, int]:
    """For primitives of a release the cluster that the same action has in the current one, by segment id.

    So clusters keep their numbers when the tokenizer changes and embeddings cannot be compared.
    """
    from laps.same_primitives import partners

    numbers: dict[str, int] = {}
    for hour in common_hours(store, release, current):
        mine, theirs = read_cut(store, release, hour), read_cut(store, current, hour)
        found = partners(mine.starts, mine.stops, theirs.starts, theirs.stops)
        for segment_id, place in zip(mine.segment_ids, found.tolist(), strict=True):
            if place >= 0 and theirs.clusters[place] != NONE:
                numbers[segment_id] = int(theirs.clusters[place])
    return numbers


def kept(store: Store, release: Release, current: Release) -> Kept:
    """How many of the current release's primitives another one has, and in the same cluster.

    Hour by hour: one that the two releases count to different hours is not found again.
    """
    from laps.same_primitives import partners

    hours = common_hours(store, release, current)
    before = after = same = clustered = same_cluster = 0
    for hour in hours:
        mine, theirs = read_cut(store, release, hour), read_cut(store, current, hour)
        found = partners(theirs.starts, theirs.stops, mine.starts, mine.stops)
        there = found >= 0
        pairs = list(zip(theirs.clusters[there].tolist(), mine.clusters[found[there]].tolist(), strict=True))
        both = [(one, other) for one, other in pairs if NONE not in (one, other)]
        before, after = before + len(theirs.starts), after + len(mine.starts)
        same, clustered = same + len(pairs), clustered + len(both)
        same_cluster += sum(one == other for one, other in both)
    return Kept(len(hours), before, after, same, clustered, same_cluster)


def compare(store: Store, release: Release, current: Release) -> list[tuple[str, str, str]]:
    """The figures of two releases in words: name, of the current one, of the other."""
    pair = (current, release)
    thresholds = [calibrations(store, one) for one in pair]
    scores = [read_scores(store, one) for one in pair]
    found = kept(store, release, current)
    figures: list[tuple[str, list[str]]] = [
        ("release", [one.name for one in pair]),
        ("tokenizer", [one.tokenizer or "-" for one in pair]),
        ("code perplexity of the tokenizer", [_perplexity(store, one) for one in pair]),
    ]
    figures += [
        (f"theta_on of {camera}", [_threshold(of_release.get(camera)) for of_release in thresholds])
        for camera in sorted({*thresholds[0], *thresholds[1]})
    ]
    figures.append(("clusters", [_clusters(store, one) for one in pair]))
    figures += [
        (title, [f"{of_release[name]:.3f}" if name in of_release else "-" for of_release in scores])
        for name, title in (("icss", "ICSS"), ("baseline", "ICSS of random pairs"), ("silhouette", "silhouette"))
    ]
    shares = [_share(found.same, whole) for whole in (found.before, found.after)]
    figures += [
        (f"primitives in the {found.hours} hours that both have", [str(found.before), str(found.after)]),
        ("of these, such as the other has too (IoU > 0.5)", shares),
        ("of these, with the same cluster number", [_share(found.same_cluster, found.clustered)] * 2),
    ]
    return [(figure, there, here) for figure, (there, here) in figures]


def _perplexity(store: Store, release: Release) -> str:
    quality = ModelRegistry(store).training(release).get("quality", {}) if release.tokenizer is not None else {}
    return f"{quality['perplexity']:.0f}" if quality.get("perplexity") is not None else "-"


def _clusters(store: Store, release: Release) -> str:
    return "-" if release.cluster_model is None else str(ModelRegistry(store).clusters(release).k)


def _threshold(calibration: Calibration | None) -> str:
    if calibration is None:
        return "-"
    return f"{calibration.settings.theta_on:.4g}{'' if calibration.ok else ' (not found well)'}"


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({100 * part / whole:.0f}%)" if whole else "-"
