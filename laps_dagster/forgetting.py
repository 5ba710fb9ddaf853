"""What the Dagster instance knows of hours that are forgotten.

Its event log holds no pictures of people: the plots in it are curves, and of the video there are names and times. But a
curve says when somebody moved, so the runs of hours of which something is removed go with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from laps.errors import InputError
from laps.timegrid import CameraHour
from laps_dagster.run_logs import remove_left_behind

if TYPE_CHECKING:
    import dagster as dg


PARTITION = "dagster/partition"


@dataclass(frozen=True)
class Runs:
    """What the instance has to do with a time.

    Attributes:
        under_way: what is queued or running, in words, and may write again what is removed.
        ended: ids of the runs that were made for the hours, and have ended.
    """

    under_way: list[str]
    ended: list[str]


def runs_of(instance: dg.DagsterInstance, removed: Iterable[CameraHour], written: Collection[CameraHour]) -> Runs:
    """The runs that go with hours, and those that are under way.

    Args:
        instance: the instance.
        removed: the hours of which something is removed.
        written: the hours whose runs may write something of the time, also where there is nothing yet.
    """
    import dagster as dg

    from laps_dagster.hour_runs import UNFINISHED

    ended = [
        run.run_id
        for hour in removed
        for run in instance.get_runs(dg.RunsFilter(tags={PARTITION: hour.key}))
        if run.is_finished
    ]
    under_way = []
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        partition = run.tags.get(PARTITION, "")
        hour = _hour(partition)
        # A run of no hour, as a publication or an export, reads whatever hours there are.
        if hour is None or hour in written:
            name = " ".join(filter(None, (run.job_name.strip("_").lower(), partition)))
            under_way.append(f"{name} (run {run.run_id[:8]} {run.status.value.lower()})")
    return Runs(under_way, ended)


def _hour(partition: str) -> CameraHour | None:
    """The camera hour of a run's partition; None where it has another, or none."""
    try:
        return CameraHour.parse(partition)
    except InputError:
        return None


def delete_runs(instance: dg.DagsterInstance, run_ids: Collection[str]) -> None:
    """Remove runs with their events, and what they printed on this machine.

    Their hours then show as not materialized until they are made again.
    """
    for run_id in run_ids:
        instance.delete_run(run_id)
    remove_left_behind(instance, run_ids)
