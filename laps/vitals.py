"""What tells a person on call that an hour is not as it usually is: figures, what is usual, and the rules.

Each rule compares a figure of one hour of a camera with what is usual: with the camera's earlier hours where there are
enough of them, else with what was measured when a model was made. It returns a verdict with a sentence for people and
never raises for odd footage. All limits stand in this module; :mod:`bench.alarms` measures how often they cry for
nothing and how often they notice a fault (docs/alarms.md holds the results).

Shares lie in 0..1; rates are per minute of samples that have a code.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from laps.calibration import Calibration
    from laps.latent import LatentStream

Severity = Literal["warn", "error"]

# Of the camera's earlier hours, this many at most, spread over so many days; with fewer than the least, models say
# what is usual.
HISTORY_DAYS = 14
HISTORY_HOURS = 24
LEAST_HISTORY = 8
LEAST_SAME_HOUR = 3

# With less than this there is not enough of an hour to judge by.
LEAST_MINUTES = 2.0
LEAST_PRIMITIVES = 30
LEAST_CODES = 600

COVERAGE_DROP = 0.2  # of the hour: twelve minutes less than usual at this hour of the week
NOTHING = 0.01  # a share that counts as nothing
LOST_SHARE = 0.1  # of the windows that lost most of their points
LOST_VISIBLE = 0.5  # a window that shows a smaller share of its points lost most of them
VISIBLE_SHARE = 0.8  # mean share of points seen
VALUED_SHARE = 0.5  # of the footage that has codes
RATE_WIDTHS = 4.0  # half the band, in robust standard deviations of ln(rate)
RATE_LEAST_WIDTH = 0.15  # of ln(rate); no camera is steadier than that
RATE_FACTOR = 3.0  # against the calibration, where there is no history
CODES_LEAST, CODES_MOST = 1 / 3, 2.0  # perplexity of the codes in primitives, of the tokenizer's own
ALWAYS_ACTIVE = 0.98  # of the time above the threshold, where the calibration saw less
THETA_FACTOR = 2.0  # the threshold that the hour itself would give, against the one in use
_PARTS, _PART_SAMPLES = 24, 250  # of the hour, for that
FAR_SHARE = 0.3  # primitives farther from their centroid than 95% were at the fit
_NAMED = 6  # hours or files, in a sentence
_NAMED_REASONS, _REASON_CHARACTERS = 2, 200  # of files that were quarantined
MIX_DISTANCE = 0.2  # total variation between the clusters' shares now and at the fit, beyond that of so few


@dataclass(frozen=True)
class Verdict:
    """What a rule found.

    Attributes:
        passed: whether the hour is as usual.
        said: what was seen and what is usual, in a sentence without a full stop.
        severity: how bad it is where it is not.
        figures: the numbers behind it.
    """

    passed: bool
    said: str
    severity: Severity = "warn"
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """What an asset check asks.

    Attributes:
        name: of the check; also of its section in the docs.
        table: asset that it looks at.
        asks: what is looked for.
    """

    name: str
    table: str
    asks: str


COVERAGE = Rule("coverage", "raw_video", "Whether the camera filmed as much as it usually does at this hour.")
TRACKING = Rule("tracking", "keypoint_tracks", "Whether points are lost: a covered, blurred or failing picture.")
VALUES = Rule("values", "latent_stream", "Whether the footage of the hour became codes.")
RATE = Rule("rate", "segments", "Whether there are as many primitives a minute as usual.")
CODES = Rule("codes", "segments", "Whether primitives fall into few codes, measured by the tokenizer's training.")
THRESHOLDS = Rule("thresholds", "segments", "Whether rest and motion still lie where the calibration found them.")
CLUSTERS = Rule("clusters", "cluster_assignments", "Whether primitives lie where the clusters were fitted.")
NIGHT = Rule("night", "landing_zone", "Whether the hours of the day before are complete, and its files and report.")

RULES = (COVERAGE, TRACKING, VALUES, RATE, CODES, THRESHOLDS, CLUSTERS, NIGHT)


def too_little(what: str) -> Verdict:
    """There is nothing to judge by, which is not bad."""
    return Verdict(True, f"not judged: {what}")


def coverage(share: float, same_hour: Sequence[float], same_hour_of_week: Sequence[float]) -> Verdict:
    """The share of an hour that has footage.

    Args:
        share: of this hour.
        same_hour: of the same hour on earlier days.
        same_hour_of_week: of the same hour on the same weekday in earlier weeks; preferred where there are enough,
            because Fridays end early.
    """
    history = next((one for one in (same_hour_of_week, same_hour) if len(one) >= LEAST_SAME_HOUR), None)
    if history is None:
        return too_little(f"{len(same_hour)} earlier days are known of this hour, {LEAST_SAME_HOUR} are needed")
    usual = float(np.median(history))
    figures = {"share": share, "usual": usual, "days": float(len(history))}
    said = f"{share:.0%} of the hour has footage, usual at this hour is {usual:.0%}"
    gone = share < NOTHING and usual > COVERAGE_DROP
    return Verdict(share >= usual - COVERAGE_DROP, said, "error" if gone else "warn", figures)


def tracking(visible_shares: NDArray[np.floating[Any]]) -> Verdict:
    """The share of points that is seen, float[n], one for each window."""
    if not len(visible_shares):
        return too_little("the hour has no windows")
    lost, visible = float((visible_shares < LOST_VISIBLE).mean()), float(visible_shares.mean())
    return Verdict(
        lost <= LOST_SHARE and visible >= VISIBLE_SHARE,
        f"{visible:.0%} of the points are seen (usual are {VISIBLE_SHARE:.0%} and more), and {lost:.0%} of the windows "
        f"lost most of theirs (usual are {LOST_SHARE:.0%} at most)",
        figures={"visible_share": visible, "lost_share": lost},
    )


def values(valued_s: float, footage_s: float) -> Verdict:
    """The part of the footage that became codes, in seconds."""
    if footage_s < LEAST_MINUTES * 60:
        return too_little(f"the hour has {footage_s:.0f} s of footage")
    share = min(1.0, valued_s / footage_s)
    return Verdict(
        share >= VALUED_SHARE,
        f"{share:.0%} of {footage_s / 60:.0f} minutes of footage have codes, usual are {VALUED_SHARE:.0%} and more",
        "error",
        {"valued_share": share},
    )


def rate(
    count: int, minutes: float, history: Sequence[float], same_hour: Sequence[float], calibrated: float
) -> Verdict:
    """The number of primitives a minute.

    Args:
        count: primitives of the hour.
        minutes: of its samples that have a code.
        history: rates of the camera's earlier hours.
        same_hour: those of the same hour of earlier days: what was seen there before is usual, as a break is.
        calibrated: the rate that the calibration saw.
    """
    if minutes < LEAST_MINUTES:
        return too_little(f"{minutes:.1f} minutes of the hour have codes")
    found = count / minutes
    judged = found
    if len(history) >= LEAST_HISTORY:
        logs = np.log(np.maximum(history, _few(minutes)))
        width = max(1.4826 * float(np.median(np.abs(logs - np.median(logs)))), RATE_LEAST_WIDTH) * RATE_WIDTHS
        middle, of = math.exp(float(np.median(logs))), f"its {len(history)} earlier hours"
        low, high = middle * math.exp(-width), middle * math.exp(width)
        low, high = min([low, *same_hour]), max([high, *same_hour])
        # Where nothing is usual, nothing is as usual.
        judged = max(found, min(high, _few(minutes)))
    else:
        low, high, of = calibrated / RATE_FACTOR, calibrated * RATE_FACTOR, "its calibration"
    return Verdict(
        low <= judged <= high,
        f"{found:.1f} primitives a minute, usual for the camera are {low:.1f} to {high:.1f} (from {of})",
        figures={"per_minute": found, "low": low, "high": high},
    )


def _few(minutes: float) -> float:
    """What stands for a rate of zero, whose logarithm there is not."""
    return 0.5 / minutes


def codes(in_primitives: NDArray[np.integer[Any]], trained_perplexity: float | None) -> Verdict:
    """How many codes are in effective use.

    Args:
        in_primitives: int[n], the codes of all primitives of the hour.
        trained_perplexity: of the moving steps of the tokenizer's own windows; None where it was not kept.
    """
    if len(in_primitives) < LEAST_CODES:
        return too_little(f"the primitives of the hour hold {len(in_primitives)} codes")
    if not trained_perplexity:
        return too_little("the tokenizer's own figures were not kept")
    counts = np.sort(np.bincount(in_primitives))[::-1]
    shares = counts[counts > 0] / counts.sum()
    perplexity = math.exp(-float((shares * np.log(shares)).sum()))
    top = float(shares[:10].sum())
    least, most = CODES_LEAST * trained_perplexity, CODES_MOST * trained_perplexity
    return Verdict(
        least <= perplexity <= most,
        f"perplexity of the codes in primitives is {perplexity:.0f}, usual are {least:.0f} to {most:.0f} (the "
        f"tokenizer's own is {trained_perplexity:.0f}); ten codes make up {top:.0%}",
        figures={"perplexity": perplexity, "trained_perplexity": trained_perplexity, "top_ten_share": top},
    )


def thresholds(stream: LatentStream, calibration: Calibration) -> Verdict:
    """Whether the hour's own energy would give the threshold that it is cut by.

    Asked of up to ten minutes, evenly spread over the hour. An hour that does not tell motion from rest is not judged
    where it lies below the threshold (nobody works), and is wrong where nearly all of it lies above (noise).
    """
    from laps.calibration import theta_of
    from laps.detector import smooth
    from laps.energy import series

    y = smooth(series(stream, calibration), calibration.settings)
    if np.isfinite(y).sum() < LEAST_MINUTES * 60 * calibration.settings.rate_hz:
        return too_little("too little of the hour has codes")
    if calibration.method != "log_energy" or calibration.cut == "boundaries":
        return too_little("the camera's thresholds were not found in the energy itself, or decide nothing")
    found, used = theta_of(_spread_parts(y)), calibration.settings.theta_on
    active = float((y[np.isfinite(y)] > used).mean())
    if active > ALWAYS_ACTIVE > calibration.diagnostics.active_share:
        said = f"{active:.0%} of the time lie above the threshold, at calibration it was "
        said += f"{calibration.diagnostics.active_share:.0%}"
        return Verdict(False, said, figures={"active_share": active})
    if found is None:
        return too_little("the energy of the hour does not tell motion from rest")
    return Verdict(
        1 / THETA_FACTOR <= found / used <= THETA_FACTOR,
        f"by itself the hour would have the threshold {found:.3g}, the camera's is {used:.3g}: a ratio of "
        f"{found / used:.2f}, usual are {1 / THETA_FACTOR:.2f} to {THETA_FACTOR:.2f}",
        figures={"theta": found, "usual_theta": used},
    )


def _spread_parts(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most so many parts of a signal, evenly spread, each ended by a NaN, so that nothing joins them."""
    count = len(values) // _PART_SAMPLES
    if count <= _PARTS:
        return values
    starts = [place * count // _PARTS * _PART_SAMPLES for place in range(_PARTS)]
    return np.concatenate([np.append(values[start : start + _PART_SAMPLES], np.nan) for start in starts])


def clusters(
    ids: NDArray[np.integer[Any]], distances: NDArray[np.floating[Any]], fitted: Mapping[str, Any] | None
) -> Verdict:
    """Whether primitives lie near the centroids, and fall into clusters as they did at the fit.

    Args:
        ids: int[n], cluster numbers of the hour's primitives.
        distances: float[n], their cosine distances to the centroids.
        fitted: :func:`laps.clustering.fit_figures` of the cluster model; None where they were not kept.
    """
    if len(ids) < LEAST_PRIMITIVES:
        return too_little(f"the hour has {len(ids)} primitives")
    if fitted is None:
        return too_little("the cluster model was fitted before its figures were kept")
    far = float((distances > fitted["distance_95"]).mean())
    then = {int(number): share for number, share in fitted["shares"].items()}
    now = {int(number): float((ids == number).mean()) for number in {*then, *ids.tolist()}}
    mix = sum(abs(share - then.get(number, 0.0)) for number, share in now.items()) / 2
    # What is to be expected of so many, drawn from the same shares.
    drawn = sum(math.sqrt(2 * share * (1 - share) / (math.pi * len(ids))) for share in then.values()) / 2
    most = MIX_DISTANCE + drawn
    return Verdict(
        far <= FAR_SHARE and mix <= most,
        f"{far:.0%} of the primitives lie farther from their centroid than 95% did at the fit (usual are "
        f"{FAR_SHARE:.0%} at most), and {mix:.0%} fall into other clusters than then (usual are {most:.0%} at most)",
        figures={"far_share": far, "mix_distance": mix, "usual_mix_distance": most},
    )


def night(
    day: str,
    incomplete: Mapping[str, Sequence[str]],
    silent: Sequence[str],
    quarantined: Mapping[str, Sequence[str]] | None = None,
    unregistered: Sequence[str] = (),
    unknown: str = "",
    report: str = "",
) -> Verdict:
    """Whether a day's hours are there, its files in them, and they in the report.

    Args:
        day: YYYY-MM-DD.
        incomplete: for each camera its hours that are not complete.
        silent: cameras that usually film on this weekday and have no footage of the day.
        quarantined: for each camera its files that cannot be used, with the reasons.
        unregistered: files in the landing zone that were never registered.
        unknown: why these cannot be told, where they cannot.
        report: what is wrong with the report; empty where nothing is.
    """
    quarantined = quarantined or {}
    problems = [
        f"{len(hours)} {'hour' if len(hours) == 1 else 'hours'} of {camera} not complete ({', '.join(hours[:_NAMED])}"
        + (", …)" if len(hours) > _NAMED else ")")
        for camera, hours in incomplete.items()
        if hours
    ]
    problems += [f"{camera} has no footage" for camera in silent]
    problems += [
        f"{_files(files)} of {camera} quarantined ({'; '.join(map(_shortened, files[:_NAMED_REASONS]))}"
        + ("; …)" if len(files) > _NAMED_REASONS else ")")
        for camera, files in quarantined.items()
        if files
    ]
    if unregistered:
        more = ", …" if len(unregistered) > _NAMED else ""
        problems.append(
            f"{_files(unregistered)} in the landing zone not registered ({', '.join(unregistered[:_NAMED])}{more})"
        )
    if unknown:
        problems.append(f"the landing zone cannot be compared: {unknown}")
    if report:
        problems.append(report)
    said = f"{day}: " + ("; ".join(problems) or "all hours are complete")
    figures = {
        "incomplete_hours": sum(map(len, incomplete.values())),
        "quarantined_files": sum(map(len, quarantined.values())),
        "unregistered_files": len(unregistered),
    }
    return Verdict(not problems, said, "error", {name: float(count) for name, count in figures.items()})


def _files(files: Sequence[str]) -> str:
    return f"{len(files)} {'file' if len(files) == 1 else 'files'}"


def _shortened(reason: str) -> str:
    return textwrap.shorten(reason, _REASON_CHARACTERS, placeholder=" …")
