"""Checks that a person is called for: whether an hour of a camera is as it usually is.

They never block: an hour that is odd is published, and somebody looks at it. What is usual, and all limits, are in
:mod:`laps.vitals`; docs/alarms.md says of each what it means and what to do, and how often it is wrong.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from assets.guide import see, what_to_do
from assets.partitions import camera_hour, camera_hours
from assets.retries import tried_again
from laps import vitals
from laps.tables import CLUSTER_ASSIGNMENTS, KEYPOINT_TRACKS, LATENT_STREAM, SEGMENTS
from laps.timegrid import CameraHour, now_ns
from laps.vitals import Rule, Verdict
from resources.configured import StoreResource
from resources.history import footage_share, rate_of, same_hour_shares, usual_rates
from resources.models import CLUSTER_MODEL, TOKENIZER, ModelRegistry, Release
from resources.release import ReleaseResource
from resources.settings import store_grid
from resources.store import Store

if TYPE_CHECKING:
    from laps.calibration import Calibration


@dataclass(frozen=True)
class Seen:
    """An hour that is over, and what it was made with."""

    store: Store
    hour: CameraHour
    release: Callable[[], Release]

    @property
    def models(self) -> ModelRegistry:
        return ModelRegistry(self.store)

    def calibration(self) -> "Calibration":
        return self.models.calibration(self.release(), self.hour.camera)


def _coverage(seen: Seen) -> Verdict:
    same_hour, same_hour_of_week = same_hour_shares(seen.store, seen.hour)
    return vitals.coverage(footage_share(seen.store, seen.hour), same_hour, same_hour_of_week)


def _tracking(seen: Seen) -> Verdict:
    rows = seen.store.read_partition(KEYPOINT_TRACKS, seen.hour, columns=["visible_share"])
    return vitals.tracking(rows["visible_share"].to_numpy())


def _values(seen: Seen) -> Verdict:
    tokenizer = seen.release().require(TOKENIZER)
    codes = seen.store.read_partition(LATENT_STREAM, seen.hour, tokenizer, columns=["code"])["code"]
    valued_s = (len(codes) - codes.null_count) * store_grid(seen.store).step_s
    return vitals.values(valued_s, footage_share(seen.store, seen.hour) * 3600)


def _rate(seen: Seen) -> Verdict:
    chosen, grid = seen.release(), store_grid(seen.store)
    tokenizer = chosen.require(TOKENIZER)
    count, minutes = rate_of(seen.store, seen.hour, chosen.name, tokenizer, grid)
    history, same_hour = usual_rates(seen.store, seen.hour, chosen.name, tokenizer, grid)
    return vitals.rate(count, minutes, history, same_hour, seen.calibration().diagnostics.segments_per_minute)


def _codes(seen: Seen) -> Verdict:
    chosen = seen.release()
    rows = seen.store.read_partition(SEGMENTS, seen.hour, chosen.name, columns=["codes"])
    trained = seen.models.training(chosen).get("quality", {}).get("moving_perplexity")
    return vitals.codes(rows["codes"].combine_chunks().flatten().to_numpy(), trained)


def _thresholds(seen: Seen) -> Verdict:
    from laps.latent import LatentStream

    chosen = seen.release()
    rows = seen.store.read_partition(LATENT_STREAM, seen.hour, chosen.require(TOKENIZER))
    if not rows.num_rows:
        return vitals.too_little("the hour has no samples")
    return vitals.thresholds(LatentStream.from_table(rows), seen.calibration())


def _clusters(seen: Seen) -> Verdict:
    from laps.clustering import FIGURES_FILE

    chosen = seen.release()
    columns = ["cluster_id", "centroid_distance"]
    rows = seen.store.read_partition(CLUSTER_ASSIGNMENTS, seen.hour, chosen.name, columns)
    fitted = seen.models.read_file(CLUSTER_MODEL, chosen.require(CLUSTER_MODEL), FIGURES_FILE)
    return vitals.clusters(rows["cluster_id"].to_numpy(), rows["centroid_distance"].to_numpy(), fitted)


LOOKS: dict[Rule, Callable[[Seen], Verdict]] = {
    vitals.COVERAGE: _coverage,
    vitals.TRACKING: _tracking,
    vitals.VALUES: _values,
    vitals.RATE: _rate,
    vitals.CODES: _codes,
    vitals.THRESHOLDS: _thresholds,
    vitals.CLUSTERS: _clusters,
}


def result(rule: Rule, verdict: Verdict) -> dg.AssetCheckResult:
    """A verdict as Dagster shows it, with the section of the docs that says what to do."""
    severity = dg.AssetCheckSeverity.ERROR if verdict.severity == "error" else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        passed=verdict.passed,
        severity=severity,
        description=verdict.said,
        metadata={**what_to_do(rule.name), **verdict.figures},
    )


def _check(rule: Rule, look: Callable[[Seen], Verdict]) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=rule.table,
        name=rule.name,
        description=f"{rule.asks} {see(rule.name)}",
        partitions_def=camera_hours,
    )
    @tried_again
    def vital(
        context: dg.AssetCheckExecutionContext, store: StoreResource, release: ReleaseResource
    ) -> dg.AssetCheckResult:
        hour, files = camera_hour(context), store.open()
        if hour.stop_ns > now_ns():
            return result(rule, vitals.too_little("the hour is not over"))
        return result(rule, look(Seen(files, hour, lambda: release.read(files))))

    return vital


with warnings.catch_warnings():
    # Checks with partitions are marked as a preview.
    warnings.simplefilter("ignore", dg.PreviewWarning)
    vital_checks = [_check(rule, look) for rule, look in LOOKS.items()]
