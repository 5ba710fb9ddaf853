"""Nights that are under way: what was planned, what was requested, what is still to come."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from assets.partitions import multi_partition_key
from laps.timegrid import CameraHour
from laps_dagster.following import LOOK_BACK_S, Follower
from laps_dagster.hour_runs import DAY, NIGHT, THEN, hour_of, is_over
from laps_dagster.jobs import CLOSING_JOBS, observe, segment

# A night that is not over after so long is closed with what there is.
LONGEST_NIGHT_S = 20 * 3600.0


@dataclass(frozen=True)
class Plan:
    """What a night has to do.

    Attributes:
        day: the day, YYYY-MM-DD.
        observe: hours to observe; the segment stage follows them.
        segment: hours that are observed, and only have to be cut.
        others: hours that runs of others were making when it was planned. The night waits for them, and makes what
            they leave.
    """

    day: str
    observe: list[CameraHour]
    segment: list[CameraHour]
    others: list[CameraHour]


@dataclass(frozen=True)
class Left:
    """What others have left of some hours.

    Attributes:
        under_way: hours that are still being made, or will be by themselves.
        observe, segment: hours that nobody makes and that are not complete, by the stage that they need.
    """

    under_way: list[CameraHour]
    observe: list[CameraHour]
    segment: list[CameraHour]


@dataclass(frozen=True)
class OpenNight:
    """A night that was planned and is not closed.

    Attributes:
        run_id: the run that planned it.
        age_s: seconds since then.
        plan: what it has to do.
        runs: its runs so far.
    """

    run_id: str
    age_s: float
    plan: Plan
    runs: list[dg.DagsterRun]

    def requests(
        self, follower: Follower, at_most: int, look: Callable[[Sequence[CameraHour]], Left]
    ) -> tuple[list[dg.RunRequest], str]:
        """The runs whose turn it is, and what there is to say where there are none.

        Args:
            follower: what follows observed hours.
            at_most: how many runs.
            look: what others have left of the hours that they were making.
        """
        asked = {(run.job_name, hour_of(run)) for run in self.runs if run.job_name in (observe.name, segment.name)}

        def still_to_ask(hours: Plan | Left) -> list[tuple[str, CameraHour]]:
            stages = ((observe.name, hours.observe), (segment.name, hours.segment))
            return [(job, hour) for job, some in stages for hour in some if (job, hour) not in asked]

        if due := still_to_ask(self.plan):
            return self._hour_runs(due[: max(0, at_most)]), ""
        under_way = [run for run in self.runs if not is_over(run)]
        following = follower.of_night(self.run_id)
        if (under_way or following) and self.age_s < LONGEST_NIGHT_S:
            return [], f"night of {self.plan.day}: {len(under_way)} runs under way, {following} hours to follow"
        is_closing = any(run.job_name == CLOSING_JOBS[0].name for run in self.runs)
        if self.plan.others and not is_closing and self.age_s < LONGEST_NIGHT_S:
            left = look(self.plan.others)
            if left.under_way:
                return [], f"night of {self.plan.day}: {len(left.under_way)} hours are being made by other runs"
            if due := still_to_ask(left):
                return self._hour_runs(due[: max(0, at_most)]), ""
        for job in CLOSING_JOBS:
            made = [run for run in self.runs if run.job_name == job.name]
            if not made:
                return [dg.RunRequest(run_key=f"{job.name} {self.run_id}", job_name=job.name, tags=self._tags)], ""
            if not all(map(is_over, made)):
                return [], f"night of {self.plan.day}: {job.name} is under way"
        return [], f"night of {self.plan.day}: closed"

    @property
    def _tags(self) -> dict[str, str]:
        return {NIGHT: self.run_id, DAY: self.plan.day}

    def _hour_runs(self, due: list[tuple[str, CameraHour]]) -> list[dg.RunRequest]:
        return [self._hour_run(job, hour) for job, hour in due]

    def _hour_run(self, job: str, hour: CameraHour) -> dg.RunRequest:
        then = {THEN: segment.name} if job == observe.name else {}
        return dg.RunRequest(
            run_key=f"{job} {hour.key} {self.run_id}",
            job_name=job,
            partition_key=multi_partition_key(hour),
            tags={**self._tags, **then},
        )


def open_nights(instance: dg.DagsterInstance, job: str) -> list[OpenNight]:
    """The nights of the last days that were planned and whose closing jobs have not all ended, the oldest first.

    Args:
        instance: the instance.
        job: name of the job that plans them.
    """
    since = datetime.fromtimestamp(time.time() - LOOK_BACK_S, UTC)
    # Both times: SQLite has an index of update times, and would look at every run of its years without.
    succeeded = [dg.DagsterRunStatus.SUCCESS]
    planned = dg.RunsFilter(job_name=job, statuses=succeeded, created_after=since, updated_after=since)
    nights = []
    for record in instance.get_run_records(planned, ascending=True):
        run_id = record.dagster_run.run_id
        # A closed night is looked at for two days, and has hundreds of runs.
        last = dg.RunsFilter(job_name=CLOSING_JOBS[-1].name, tags={NIGHT: run_id})
        if any(map(is_over, instance.get_runs(last))):
            continue
        runs = list(instance.get_runs(dg.RunsFilter(tags={NIGHT: run_id})))
        age_s = time.time() - record.create_timestamp.timestamp()
        nights.append(OpenNight(run_id, age_s, plan_of(instance, run_id), runs))
    return nights


def plan_of(instance: dg.DagsterInstance, run_id: str) -> Plan:
    """What a run of `plan_night` found, from the metadata of its output."""
    (record,) = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_OUTPUT).records
    assert record.event_log_entry.dagster_event is not None
    metadata = record.event_log_entry.dagster_event.step_output_data.metadata

    def hours(name: str) -> list[CameraHour]:
        keys = metadata[name].value if name in metadata else []  # a night that an earlier version planned
        assert isinstance(keys, list)
        return list(map(CameraHour.parse, keys))

    return Plan(str(metadata["day"].value), hours(observe.name), hours(segment.name), hours("others"))
