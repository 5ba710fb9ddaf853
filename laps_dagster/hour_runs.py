"""Runs of camera hours as the instance knows them: which hour, which stage comes then, which are under way.

Tags say what a run belongs to. One that observes and has ``laps/then: segment`` is followed by the segment stage of
its hour and of the one after; those of a night carry ``laps/night``, the id of the run that planned it; one that
`landing_files` requested of an hour that had been made before, for a late recording, has ``laps/late``.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

import dagster as dg
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, PARTITION_NAME_TAG, WILL_RETRY_TAG  # not public

from laps.timegrid import CameraHour
from laps_dagster.jobs import observe

THEN = "laps/then"
NIGHT = "laps/night"
DAY = "laps/day"
LATE = "laps/late"

# The daemon looks every few seconds for runs to try again.
_TRIED_AGAIN_WITHIN_S = 600.0

UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def hour_of(run: dg.DagsterRun) -> CameraHour:
    """The camera hour that a run was made for."""
    return CameraHour.parse(run.tags[PARTITION_NAME_TAG])


def is_over(run: dg.DagsterRun) -> bool:
    """Whether a run has ended, and Dagster will not try it again in a run that has not begun."""
    return run.is_finished and not (will_be_tried_again(run) and AUTO_RETRY_RUN_ID_TAG not in run.tags)


def will_be_tried_again(run: dg.DagsterRun) -> bool:
    """Whether Dagster makes a failed run again by itself.

    It marks all whose process died, and can make again only those that it had started itself: not those of
    ``laps backfill``.
    """
    return run.tags.get(WILL_RETRY_TAG) == "true" and run.remote_job_origin is not None


def observes(run: dg.DagsterRun) -> bool:
    """Whether a run makes the latent stream of an hour: of the job ``observe``, or part of a backfill of assets."""
    if PARTITION_NAME_TAG not in run.tags:
        return False
    return run.job_name == observe.name or dg.AssetKey("latent_stream") in (run.asset_selection or ())


def hours_being_observed(instance: dg.DagsterInstance) -> set[CameraHour]:
    """The hours for which a run that observes them is queued or running."""
    return {hour_of(run) for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)) if observes(run)}


def hours_under_way(instance: dg.DagsterInstance) -> set[CameraHour]:
    """The hours for which a run of any kind is queued or running, or has died and will be tried again."""
    runs = list(instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)))
    lately = datetime.fromtimestamp(time.time() - _TRIED_AGAIN_WITHIN_S, UTC)
    failed = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=lately))
    runs += [run for run in failed if not is_over(run)]
    return {hour_of(run) for run in runs if "|" in run.tags.get(PARTITION_NAME_TAG, "")}
