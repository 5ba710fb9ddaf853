"""Truth that lies beside recordings, and the scores of a release against it.

Only the asset ``evaluation`` reads truth; nothing that it makes is read by a stage.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from laps.errors import InputError, ModelMismatchError, NotProcessedError
from laps.evaluation import (
    CHANCES,
    Document,
    Metric,
    agreement,
    evaluate_recordings,
    interval,
    parse_truth,
    recording_duration_s,
    true_labels,
)
from laps.forgotten import holds_forgotten
from laps.tables import CLUSTER_ASSIGNMENTS
from laps.timegrid import NS_PER_S, from_datetime, hours_between
from resources.forgotten import ForgottenTimes
from resources.models import CALIBRATION, CLUSTER_MODEL, TOKENIZER, ModelRegistry, Release
from resources.recordings import Recordings, open_uri, unreadable
from resources.reporting import calibrations
from resources.segments import read_rows_of, read_segments
from resources.settings import store_grid
from resources.store import Store

TRANSDUCTIVE, INDUCTIVE, UNKNOWN = SETTINGS = ("transductive", "inductive", "unknown")

# A primitive that is open when a recording ends is decided in the hour in which the detector knows its end.
_DECIDED_WITHIN_NS = 60 * NS_PER_S


@dataclass(frozen=True)
class Labelled:
    """A recording with truth, and what a release says about it.

    Attributes:
        row: its row of the register.
        setting: one of :data:`SETTINGS`.
        truth: the document beside it.
        prediction: the release's primitives, in seconds from the recording's start, with their confidences.
        clusters: cluster of each primitive; None where there are none.
        no_clusters: why there are none.
        calibration_id: that cut it.
    """

    row: dict[str, Any]
    setting: str
    truth: Document
    prediction: Document
    clusters: list[int] | None
    no_clusters: str | None
    calibration_id: str


@dataclass(frozen=True)
class Gathered:
    """The recordings of a store that have truth.

    Attributes:
        recordings: those that can be scored.
        left_out: for each other one, by its uri, why it cannot.
    """

    recordings: list[Labelled]
    left_out: dict[str, str]

    @property
    def without_clusters(self) -> dict[str, str]:
        """For each that has no clusters, by its uri, why."""
        return {one.row["uri"]: one.no_clusters for one in self.recordings if one.no_clusters is not None}


def truth_uri(uri: str) -> str:
    """Where the truth of a recording lies: ``a.truth.json`` beside ``a.mp4``."""
    stem, dot, suffix = uri.rpartition(".")
    return f"{stem if dot and '/' not in suffix else uri}.truth.json"


def read_truth(uri: str) -> Document | None:
    """The truth beside a recording; None where there is none.

    Raises:
        InputError: it cannot be used.
        UnreachableError: the object storage that it lies in does not answer.
    """
    place = truth_uri(uri)
    try:
        with open_uri(place) as file:
            content = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(place, error) from error
    return parse_truth(content, where=place)


def gather(store: Store, recordings: Recordings, release: Release) -> Gathered:
    """Every registered recording with truth, beside what a release says about it.

    A recording whose hours are not all cut by the release's models, of which a part was forgotten, or whose truth
    cannot be used, is left out with the reason.

    Args:
        store: the store.
        recordings: its register.
        release: the release.
    """
    found = Gathered([], {})
    trained_on = _trained_on(store, release)
    spans = _calibrated_ns(store, release)
    forgotten = ForgottenTimes(store)
    for camera in recordings.cameras():
        for row in recordings.of_camera(camera):
            if row["status"] != "ok":
                continue
            try:
                truth = read_truth(row["uri"])
                if truth is None:
                    continue
                if holds_forgotten(*_span_ns(row), forgotten.of_camera(camera)):
                    found.left_out[row["uri"]] = "a part of it was forgotten (laps forget)"
                    continue
                one = _labelled(store, release, row, truth, spans.get(camera, []), trained_on)
            except (InputError, NotProcessedError, ModelMismatchError) as error:
                found.left_out[row["uri"]] = str(error)
                continue
            found.recordings.append(one)
    return found


def _span_ns(row: dict[str, Any]) -> tuple[int, int]:
    """Start and end of a registered recording."""
    start_ns, end_ns = from_datetime(row["start_time"]), from_datetime(row["end_time"])
    return start_ns, max(end_ns, start_ns + 1)


def _trained_on(store: Store, release: Release) -> list[str] | None:
    """Keys of the camera hours that the release's tokenizer was trained on; None where its files do not say."""
    hours = ModelRegistry(store).training(release).get("hours")
    return None if hours is None else [str(hour) for hour in hours]


def _calibrated_ns(store: Store, release: Release) -> dict[str, list[tuple[int, int]]]:
    """For each camera the times that its calibration was made from."""
    grid = store_grid(store)
    return {
        camera: [(grid.time_ns(first), grid.time_ns(stop)) for first, stop in calibration.diagnostics.spans]
        for camera, calibration in calibrations(store, release).items()
    }


def _labelled(
    store: Store,
    release: Release,
    row: dict[str, Any],
    truth: Document,
    calibrated_ns: Sequence[tuple[int, int]],
    trained_on: Collection[str] | None,
) -> Labelled:
    camera, start_ns, stop_ns = row["camera"], from_datetime(row["start_time"]), from_datetime(row["end_time"])
    length_s = recording_duration_s(truth, {"video_duration_sec": (stop_ns - start_ns) / NS_PER_S})
    cut = {
        hour: read_segments(store, hour, release, columns=["start_time", "end_time", "confidence"])
        for hour in hours_between(camera, start_ns, stop_ns + _DECIDED_WITHIN_NS)
    }
    segments = {}
    for rows in cut.values():
        for one in rows.to_pylist():
            start_s = max(0.0, (from_datetime(one["start_time"]) - start_ns) / NS_PER_S)
            end_s = min(length_s, (from_datetime(one["end_time"]) - start_ns) / NS_PER_S)
            if start_s < end_s:
                segments[one["segment_id"]] = {
                    "start_sec": start_s,
                    "end_sec": end_s,
                    "confidence": one["confidence"],
                }
    clusters, no_clusters = None, None
    try:
        known = {"cluster_model_id": release.require(CLUSTER_MODEL)}
        assigned = [
            read_rows_of(rows, store, hour, release, CLUSTER_ASSIGNMENTS, known, columns=["cluster_id"])
            for hour, rows in cut.items()
        ]
        of = {one["segment_id"]: one["cluster_id"] for rows in assigned for one in rows.to_pylist()}
        clusters = [of[segment_id] for segment_id in segments]
    except (NotProcessedError, ModelMismatchError) as error:
        no_clusters = str(error)
    return Labelled(
        row=row,
        setting=_setting(camera, start_ns, stop_ns, calibrated_ns, trained_on),
        truth={**truth, "duration_sec": length_s},
        prediction={"segments": list(segments.values())},
        clusters=clusters,
        no_clusters=no_clusters,
        calibration_id=release.require(CALIBRATION, camera),
    )


def _setting(
    camera: str,
    start_ns: int,
    stop_ns: int,
    calibrated_ns: Sequence[tuple[int, int]],
    trained_on: Collection[str] | None,
) -> str:
    if any(first < stop_ns and start_ns < stop for first, stop in calibrated_ns):
        return TRANSDUCTIVE
    if trained_on is None:
        return UNKNOWN
    seen = any(hour.key in trained_on for hour in hours_between(camera, start_ns, stop_ns))
    return TRANSDUCTIVE if seen else INDUCTIVE


def evaluation_rows(recordings: Iterable[Labelled], release: Release, *, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of the table `evaluation`: for each setting all its recordings together, then each by itself."""
    rows = []
    by_setting: dict[str, list[Labelled]] = {}
    for one in recordings:
        by_setting.setdefault(one.setting, []).append(one)
    for setting, group in sorted(by_setting.items()):
        common = {"setting": setting, "tokenizer_id": release.require(TOKENIZER), "release": release.name}
        each = [_figures([one], release, seed) for one in group]
        together = each[0] if len(group) == 1 else _figures(group, release, seed)
        rows += [{**common, **figures} for figures in together]
        for one, own in zip(group, each, strict=True):
            of_one = {name: one.row[name] for name in ("camera", "recording_id", "uri")}
            rows += [{**common, **of_one, "calibration_id": one.calibration_id, **figures} for figures in own]
    return rows


def _figures(group: Sequence[Labelled], release: Release, seed: int) -> list[dict[str, Any]]:
    """Every metric of some recordings together."""
    pairs = [(one.truth, one.prediction) for one in group]
    result = evaluate_recordings(pairs, seed=seed)
    counts = result["counts"]
    common = {"recordings": len(group), "duration_s": result["duration_s"]}
    rows: list[dict[str, Any]] = []
    for score in result["scores"]:
        level = score.get("iou", score.get("tolerance_s"))
        sure = interval(pairs, Metric(score["metric"], level), seed=seed)
        taken = ("metric", "precision", "recall", "matched", "truth", "predicted")
        own = {name: score[name] for name in taken}
        rows.append({**own, "level": level, "value": score["f1"], "low": sure.low, "high": sure.high, **_blind(score)})
    of_segments = {name: counts[name] for name in ("truth", "predicted")}
    rows += [
        {"metric": "average_precision", "level": score["iou"], "value": score["value"], **of_segments, **_blind(score)}
        for score in result["average_precision"]
    ]
    rows.append({"metric": "over_segmentation", "value": counts["over_segmentation"], **of_segments})
    labels: list[str | None] = []
    clusters: list[int] = []
    for one in group:
        if one.clusters is not None and "segments" in one.truth:
            times = [(segment["start_sec"], segment["end_sec"]) for segment in one.prediction["segments"]]
            labels += true_labels(times, one.truth)
            clusters += one.clusters
    found = agreement(labels, clusters, seed=seed)
    if found is not None:
        rows += [
            {
                "metric": name,
                "value": figure.value,
                "chance_shuffled": figure.shuffled,
                "matched": found.n,
                "predicted": len(labels),
                "cluster_model_id": release.require(CLUSTER_MODEL),
            }
            for name, figure in (("purity", found.purity), ("nmi", found.nmi), ("ari", found.ari))
        ]
    return [{**common, **row} for row in rows]


def _blind(score: dict[str, Any]) -> dict[str, float]:
    chance = score["chance"]
    return {
        **{f"chance_{kind}": chance[kind] for kind in CHANCES},
        "metronome_period_s": chance["metronome_period_s"],
    }


def best_blind(row: dict[str, Any]) -> float:
    """The highest that a prediction reached which did not look."""
    return float(max(row[f"chance_{kind}"] for kind in CHANCES))


def markdown(rows: Sequence[dict[str, Any]], *, most: int = 50) -> str:
    """The rows for a person: the main scores of each setting and recording, beside chance.

    Args:
        rows: of the table `evaluation`.
        most: lines at most.
    """
    lines: dict[tuple[str, str], dict[tuple[str, float | None], dict[str, Any]]] = {}
    for row in rows:
        name = (row.get("uri") or f"all {row['recordings']}").rsplit("/", 1)[-1]
        lines.setdefault((row["setting"], name), {})[row["metric"], row.get("level")] = row
    text = [
        "| setting | recording | predicted / true | typed F1@0.5 s (95%) | chance | segment F1@IoU 0.5 (95%) | chance "
        "| mAP@0.5 | chance | purity | NMI | ARI |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (setting, name), found in list(lines.items())[:most]:
        counts = found["over_segmentation", None]
        cells = [setting, name, f"{counts['predicted']} / {counts['truth']}"]
        for key in (("typed", 0.5), ("segment", 0.5), ("average_precision", 0.5)):
            cells += _beside_chance(found.get(key))
        for metric in ("purity", "nmi", "ari"):
            of_clusters = found.get((metric, None))
            cells.append(
                f"{of_clusters['value']:.2f} (shuffled {of_clusters['chance_shuffled']:.2f})" if of_clusters else "-"
            )
        text.append(f"| {' | '.join(cells)} |")
    if len(lines) > most:
        text.append(f"\n{len(lines) - most} more are in the table.")
    text.append(
        "\nChance is the best of the predictions that did not look: equal spacing and random times with the true and "
        "with the predicted count, and the best metronome, whose period is picked by the truth."
    )
    return "\n".join(text)


def _beside_chance(row: dict[str, Any] | None) -> tuple[str, str]:
    if row is None or row["value"] is None:
        return "-", "-"
    spread = f" ({row['low']:.2f} to {row['high']:.2f})" if row.get("low") is not None else ""
    return f"{row['value']:.2f}{spread}", f"{best_blind(row):.2f}"
