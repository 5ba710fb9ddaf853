"""How far each camera hour has come: what its tables say, and what its latest run says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from laps.tables import CLUSTER_ASSIGNMENTS, KEYPOINT_TRACKS, LATENT_STREAM, RAW_VIDEO
from laps.timegrid import CLOSES, CameraHour, hours_to_close, now_ns
from laps_dagster.processes import with_last_words
from laps_dagster.stages import OBSERVE, SEGMENT, OutOfDate
from resources.freshness import registrations
from resources.history import footage_shares
from resources.models import ModelRegistry
from resources.recordings import Recordings

if TYPE_CHECKING:
    from dagster import DagsterInstance, RunRecord

    from resources.store import Store

EMPTIED = "its footage counts no more"
"""What is said of an hour that was made from footage that was corrected or quarantined since, and is all it had."""

# The newest runs that are looked at: about two weeks of two cameras for ten hours a day.
_RUNS = 1000
_JOBS = {"track", "encode", "observe", "cut", "assign", "segment"}
_STEPS = {
    "described": RAW_VIDEO,
    "tracked": KEYPOINT_TRACKS,
    "encoded": LATENT_STREAM,
    "clustered": CLUSTER_ASSIGNMENTS,
}


@dataclass
class HourState:
    """What is known about a camera hour that should be complete.

    Attributes:
        hour: the hour.
        note: what is said of one without footage: see :func:`expected_hours`.
        covered: share of the hour with footage, 0 to 1; None before it was described.
        lacking: steps that were not made yet: described, tracked, encoded, clustered.
        removed: steps whose tables were removed because they were over age (laps retention), or that need such.
        stale: everything is there, but older than what it is made from.
        run: state of its latest run, where that is not the past of a complete hour: queued, running, or why it failed.
    """

    hour: CameraHour
    note: str = ""
    covered: float | None = None
    lacking: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    stale: bool = False
    run: str = ""

    @property
    def complete(self) -> bool:
        return not self.lacking and not self.stale

    def as_dict(self) -> dict[str, Any]:
        return {
            "camera": self.hour.camera,
            "hour": f"{self.hour.hour_key} UTC",
            "closes": self.note == CLOSES,
            "emptied": self.note == EMPTIED,
            "covered": self.covered,
            "complete": self.complete,
            "lacking": self.lacking,
            "removed": self.removed,
            "stale": self.stale,
            "run": self.run or None,
        }


def hour_states(store: Store, hours: Sequence[CameraHour], release_name: str = "") -> list[HourState]:
    """The state of hours, without their runs.

    Args:
        store: the store.
        hours: hours with footage, or after such.
        release_name: the release whose primitives count; empty before there is one.
    """
    registry = ModelRegistry(store)
    release = registry.release(release_name) if release_name else None
    done: dict[str, set[CameraHour]] = {
        "described": set(store.partitions(RAW_VIDEO)),
        "tracked": set(store.partitions(KEYPOINT_TRACKS)),
        "encoded": set(store.partitions(LATENT_STREAM, release.tokenizer)) if release and release.tokenizer else set(),
        "clustered": set(store.partitions(CLUSTER_ASSIGNMENTS, release.name)) if release else set(),
    }
    registered = registrations(Recordings(store), {hour.camera for hour in hours})
    due = OutOfDate(store, release_name, registered)
    states = []
    for hour in hours:
        absent = [name for name in done if hour not in done[name]]
        lacking = [name for name in absent if due.can_be_made(_STEPS[name], hour)]
        states.append(HourState(hour, lacking=lacking, removed=[name for name in absent if name not in lacking]))
    made = [state for state in states if not state.lacking]
    if made:
        stale = {hour for stage in (OBSERVE, SEGMENT) for hour in due.hours(stage, [state.hour for state in made])}
        for state in made:
            state.stale = state.hour in stale
    shares = footage_shares(store, [state.hour for state in states if state.hour in done["described"]])
    for state in states:
        state.covered = shares.get(state.hour)
    return states


def expected_hours(store: Store, register: Recordings, cameras: Iterable[str]) -> dict[CameraHour, str]:
    """The hours of cameras that should be complete, in order, and what is said of those that have no footage.

    That they close what was open before (``CLOSES``), or that they were made from footage and have none any more
    (``EMPTIED``): `laps backfill` makes them again, empty. Both are asked for when they are over.
    """
    filmed: set[CameraHour] = set()
    were_filmed: set[CameraHour] = set()
    for camera in cameras:
        filmed.update(register.hours(camera))
        were_filmed.update(register.hours(camera, include_superseded=True))
    closing = set(hours_to_close(filmed)) - filmed
    emptied = were_filmed - filmed - closing
    emptied &= set(store.partitions(RAW_VIDEO)) if emptied else set()
    notes = dict.fromkeys(closing, CLOSES) | dict.fromkeys(emptied, EMPTIED)
    over = {hour: note for hour, note in notes.items() if hour.stop_ns <= now_ns()}
    return dict(sorted({**dict.fromkeys(filmed, ""), **over}.items()))


def add_runs(instance: DagsterInstance, states: Sequence[HourState]) -> None:
    """Say of hours that are not complete what their latest run did, and of complete ones that they are made again."""
    import dagster as dg

    open_hours = {state.hour: state for state in states if not state.complete}
    for record in instance.get_run_records(limit=_RUNS) if open_hours else ():
        _add_run(instance, record, open_hours)
    complete = {state.hour: state for state in states if state.complete}
    status = dg.DagsterRunStatus
    under_way = dg.RunsFilter(statuses=[status.QUEUED, status.NOT_STARTED, status.STARTING, status.STARTED])
    for record in instance.get_run_records(under_way) if complete else ():
        _add_run(instance, record, complete)


def _add_run(instance: DagsterInstance, record: RunRecord, states: dict[CameraHour, HourState]) -> None:
    """Say what a run does in the state of its hour, and take that out: the newest run comes first."""
    import dagster as dg

    run = record.dagster_run
    camera, hour = run.tags.get("dagster/partition/camera"), run.tags.get("dagster/partition/hour")
    if not camera or not hour or (run.job_name not in _JOBS and not run.job_name.startswith("__")):
        return
    state = states.pop(CameraHour.parse(f"{camera}|{hour}"), None)
    if state is None:
        return
    name = f"{run.job_name.strip('_').lower()}, run {run.run_id[:8]}"
    began = datetime.fromtimestamp(record.start_time, UTC).strftime("%H:%M UTC") if record.start_time else ""
    if run.status == dg.DagsterRunStatus.FAILURE:
        state.run = f"failed ({name}): {why_failed(instance, run.run_id)}"
    elif run.status in (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING):
        state.run = f"running since {began} ({name})" if began else f"starting ({name})"
    elif run.status in (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED):
        state.run = f"queued ({name})"
    elif run.status in (dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.CANCELING):
        state.run = f"cancelled ({name})"


def why_failed(instance: DagsterInstance, run_id: str) -> str:
    """The innermost error of a failed run, in one line; where no step failed, with the last thing that the run said."""
    from laps_dagster.runs import reason_of

    log = [record.event_log_entry for record in instance.get_records_for_run(run_id).records]
    events = [entry.dagster_event for entry in log if entry.dagster_event]
    reason = next(iter(reason_of(events).splitlines()), "the run says nothing of why")
    if any(event.is_step_failure for event in events):
        return reason
    return with_last_words(reason, log)
