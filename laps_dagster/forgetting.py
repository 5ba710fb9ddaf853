"""What the Dagster instance knows of hours that are forgotten.

Its event log holds no pictures of people: the plots in it are curves, and of the video there are names and times. But a
curve says when somebody moved, so the runs of hours of which something is removed go with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from laps.timegrid import CameraHour

if TYPE_CHECKING:
    import dagster as dg


@dataclass(frozen=True)
class HourRuns:
    """The runs of some hours.

    Attributes:
        under_way: what is queued or running, in words: it may write again what was removed.
        ended: ids of the others.
    """

    under_way: list[str]
    ended: list[str]


def runs_of(instance: dg.DagsterInstance, hours: Iterable[CameraHour]) -> HourRuns:
    """The runs that were made for hours."""
    import dagster as dg

    found = HourRuns([], [])
    for hour in hours:
        for run in instance.get_runs(dg.RunsFilter(tags={"dagster/partition": hour.key})):
            if run.is_finished:
                found.ended.append(run.run_id)
            else:
                found.under_way.append(f"{run.job_name} {hour.key} (run {run.run_id[:8]}, {run.status.value.lower()})")
    return found


def delete_runs(instance: dg.DagsterInstance, run_ids: Iterable[str]) -> None:
    """Remove runs with their events; the hours then show as not materialized until they are made again."""
    for run_id in run_ids:
        instance.delete_run(run_id)
