"""Alarms: runs that failed and checks that did not pass, told to a person.

The sensor `alarms` looks at the runs that have ended since it last told something, whoever started them, and sends one
message for all that it finds. A first failure is told at once; while more keep coming it waits, longer each time, so a
night's outage is a handful of messages with counts. What each receiver has been told stands in the cursor: one that
does not answer is tried again with everything that it has missed, for at most two days, and holds up nothing else.

A run that Dagster will try again by itself is not told; its last attempt is.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import dagster as dg
from dagster._core.storage.tags import PARTITION_NAME_TAG  # not public

from assets.checks import ADDS_UP
from assets.guide import WHAT_TO_DO, place
from laps.errors import AlarmError
from laps_dagster.coverage import why_failed
from laps_dagster.hour_runs import will_be_tried_again
from resources.alarms import UI_URL, Message, channels, level
from resources.publishing import REFUSED

# What ended longer ago is nobody's alarm any more.
LOOK_BACK_S = 2 * 86_400.0
FIRST_LOOK_BACK_S = 3600.0
# Instances may show a run's end a little after it was written.
_OVERLAP_S = 60.0
# Waits after a message, doubled while there is more to tell, and after an attempt that failed.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 600.0, 4 * 3600.0
FIRST_RETRY_S, LONGEST_RETRY_S = 60.0, 900.0

_RUNS_A_LOOK = 500
_GROUPS_NAMED, _HOURS_NAMED, _ALARMS_IN_FIELDS = 10, 5, 50

# What to do about a failed run that is of no hour, by its job. docs/alarms.md says of each what is missing until then.
_RUN_AGAIN = "re-execute the run in the UI"
_GO_ON = "`laps backfill --release RELEASE --only missing` goes on; `laps releases` names the release"
REMEDIES = {
    "publish": f"{_RUN_AGAIN}, or `laps backfill --only missing`, which publishes in the end",
    "compact": "`laps compact`",
    "plan_night": "`laps backfill --only missing` makes the hours and the report, then `laps compact`",
    "look_at_night": "`laps status` says which hours are not complete",
    "apply_retention": "`laps retention apply`",
    "fill_draft": f"{_RUN_AGAIN}, which goes on with its draft, or `laps discard` the draft",
    "export": f"{_RUN_AGAIN}, or give `laps export` again",
    "evaluate": _RUN_AGAIN,
    "train_tokenizer": _GO_ON,
    "calibrate": _GO_ON,
    "fit_clusters": _GO_ON,
}


@dataclass(frozen=True)
class Trouble:
    """Something that a person is told.

    Attributes:
        what: what failed, as ``run observe`` or ``check segments rate``.
        severity: ``error`` or ``warn``.
        hour: the camera hour's key, empty where there is none.
        why: the reason in one line.
        fix: what to do.
        run_id: the run.
    """

    what: str
    severity: str
    hour: str
    why: str
    fix: str
    run_id: str

    def as_dict(self) -> dict[str, str]:
        camera, _, hour = self.hour.partition("|")
        return {**asdict(self), "camera": camera, "hour": f"{hour} UTC" if hour else "", "url": run_url(self.run_id)}


@dataclass
class Told:
    """What a receiver has been told, and when it may be told more.

    Attributes:
        after_s: end of the newest run that was looked at, seconds since the epoch.
        taken: runs looked at that ended within the overlap before that, with their ends.
        next_s: not before.
        pause_s: how long to wait after the next message.
        retry_s: how long to wait after the next attempt that fails.
    """

    after_s: float
    taken: dict[str, float] = field(default_factory=dict)
    next_s: float = 0.0
    pause_s: float = FIRST_PAUSE_S
    retry_s: float = FIRST_RETRY_S

    def sent(self, now_s: float) -> None:
        """Note that a message was taken: the longer there is something to tell, the rarer it is told."""
        still_going_on = now_s - self.next_s < self.pause_s
        self.pause_s = min(2 * self.pause_s, LONGEST_PAUSE_S) if still_going_on else FIRST_PAUSE_S
        self.next_s = now_s + self.pause_s
        self.retry_s = FIRST_RETRY_S

    def failed(self, now_s: float) -> None:
        """Note that a message was not taken."""
        self.next_s = now_s + self.retry_s
        self.retry_s = min(2 * self.retry_s, LONGEST_RETRY_S)


def new_troubles(instance: dg.DagsterInstance, told: Told, now_s: float, least: str) -> tuple[list[Trouble], Told]:
    """What ended since, and what will have been told when it is sent.

    Args:
        instance: the instance.
        told: what was told before; it is not changed.
        now_s: seconds since the epoch.
        least: ``error`` leaves out checks that only warn.
    """
    since_s = max(told.after_s - _OVERLAP_S, now_s - LOOK_BACK_S)
    records = instance.get_run_records(
        dg.RunsFilter(
            statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE],
            updated_after=datetime.fromtimestamp(since_s, UTC),
        ),
        limit=_RUNS_A_LOOK,
        order_by="update_timestamp",
        ascending=True,
    )
    troubles: list[Trouble] = []
    after_s, taken = told.after_s, dict(told.taken)
    for record in records:
        run, end_s = record.dagster_run, record.end_time or record.update_timestamp.replace(tzinfo=UTC).timestamp()
        # A run that ended long ago and only got a tag now is no news.
        if run.run_id in taken or end_s < since_s:
            continue
        taken[run.run_id] = end_s
        after_s = max(after_s, end_s)
        if not will_be_tried_again(run):
            troubles += _troubles_of(instance, run, least)
    kept = {run_id: end_s for run_id, end_s in taken.items() if end_s >= after_s - _OVERLAP_S}
    return troubles, Told(after_s, kept, told.next_s, told.pause_s, told.retry_s)


def _troubles_of(instance: dg.DagsterInstance, run: dg.DagsterRun, least: str) -> Iterator[Trouble]:
    hour = run.tags.get(PARTITION_NAME_TAG, "")
    blocked = False
    for evaluation in _evaluations(instance, run.run_id):
        severity = "error" if evaluation.severity == dg.AssetCheckSeverity.ERROR else "warn"
        if evaluation.passed or (severity == "warn" and least == "error"):
            continue
        blocked |= bool(evaluation.blocking)
        look = evaluation.metadata.get(WHAT_TO_DO)
        # A check that blocks has set its hour aside, so that it is made again like one whose run failed.
        of = evaluation.partition or hour
        again = f"{_made_again(of)}; " if evaluation.blocking and "|" in of else ""
        yield Trouble(
            what=f"check {evaluation.asset_key.to_user_string()} {evaluation.check_name}",
            severity=severity,
            hour=of,
            why=evaluation.description or "it says no more",
            fix=f"{again}{place('checks') if look is None else look.value}",
            run_id=run.run_id,
        )
    # A check that blocked is why its run failed: that is told once.
    if run.status == dg.DagsterRunStatus.FAILURE and not blocked:
        why = why_failed(instance, run.run_id)
        yield Trouble(
            what=f"run {run.job_name.strip('_').lower()}",
            severity="error",
            hour=hour if "|" in hour else "",
            why=why,
            fix=_remedy(run.job_name, hour, why),
            run_id=run.run_id,
        )


def _remedy(job: str, hour: str, why: str) -> str:
    """What to do about a failed run, and where more is said of it."""
    if "|" in hour:
        first, section = _made_again(hour), "run-failed"
    else:
        first, section = REMEDIES.get(job, _RUN_AGAIN), "jobs-without-hours"
    return f"{first}; {place(ADDS_UP if REFUSED in why else section)}"


def _made_again(hour: str) -> str:
    return f"`laps backfill --camera {hour.partition('|')[0]} --only missing` tries again"


def _evaluations(instance: dg.DagsterInstance, run_id: str) -> Iterator[dg.AssetCheckEvaluation]:
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
    for record in records:
        event = record.event_log_entry.dagster_event
        if event is not None:
            yield event.asset_check_evaluation_data


def run_url(run_id: str) -> str:
    """The run's page in the UI; empty where ``LAPS_UI_URL`` does not say where that is."""
    base = os.environ.get(UI_URL, "").rstrip("/")
    return f"{base}/runs/{run_id}" if base else ""


def compose(troubles: Sequence[Trouble]) -> Message:
    """One message about one trouble or hundreds."""
    fields = {"count": len(troubles), "alarms": [one.as_dict() for one in troubles[:_ALARMS_IN_FIELDS]]}
    if len(troubles) == 1:
        (one,) = troubles
        subject = f"LAPS: {_failed(one)}{_at(one)}"
        lines = [subject, f"why: {one.why}", f"what to do: {one.fix}", f"run: {_run(one)}"]
        return Message(subject, "\n".join(lines), fields)
    runs = sum(one.what.startswith("run ") for one in troubles)
    counts = [f"{count} {name}" for count, name in ((runs, "runs failed"), (len(troubles) - runs, "checks")) if count]
    cameras = sorted({one.hour.partition("|")[0] for one in troubles if one.hour})
    subject = f"LAPS: {len(troubles)} alarms ({', '.join(counts)})" + (f" of {', '.join(cameras)}" if cameras else "")
    lines = [subject]
    alike = sorted(troubles, key=_kind)
    groups = sorted((list(group) for _, group in groupby(alike, _kind)), key=len, reverse=True)
    for group in groups[:_GROUPS_NAMED]:
        first = group[0]
        hours = sorted({one.hour for one in group if one.hour})
        more = f", and {len(hours) - _HOURS_NAMED} more" if len(hours) > _HOURS_NAMED else ""
        named = f" ({', '.join(hours[:_HOURS_NAMED])}{more})" if hours else ""
        lines += ["", f"{len(group)} x {_failed(first)}{named}", f"why: {_why(first)}", f"what to do: {_fix(group)}"]
        lines.append(f"run: {_run(first)}")
    if len(groups) > _GROUPS_NAMED:
        lines += ["", f"and {len(groups) - _GROUPS_NAMED} other kinds: see the runs of the UI"]
    return Message(subject, "\n".join(lines), fields)


def _kind(one: Trouble) -> tuple[str, str, str]:
    """Equal for troubles that are told together: what failed, and why but for the figures of a check."""
    return one.severity, one.what, _why(one) if one.what.startswith("run ") else ""


def _why(one: Trouble) -> str:
    """The reason without the hour that it begins with."""
    return one.why.removeprefix(f"{one.hour}: ") if one.hour else one.why


def _fix(group: Sequence[Trouble]) -> str:
    """What to do about all of a group: of several cameras the command names none."""
    first = group[0]
    cameras = {one.hour.partition("|")[0] for one in group}
    return first.fix if len(cameras) == 1 else first.fix.replace(f" --camera {first.hour.partition('|')[0]}", "")


def _failed(one: Trouble) -> str:
    return f"{one.what} {'failed' if one.severity == 'error' else 'warns'}"


def _at(one: Trouble) -> str:
    camera, _, hour = one.hour.partition("|")
    return f", {camera} {hour} UTC" if hour else ""


def _run(one: Trouble) -> str:
    return run_url(one.run_id) or one.run_id


@dg.sensor(
    minimum_interval_seconds=60,
    # It starts nothing, and says nothing where no receiver is named.
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells failed runs and checks to the webhook and the addresses that the environment names, one message "
    "for all that ended since the last. docs/alarms.md has the settings and what each alarm means.",
)
def alarms(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    told_before: dict[str, Any] = json.loads(context.cursor or "{}")
    now_s = time.time()
    receivers = channels()
    cursor, notes = {}, []
    for channel in receivers:
        known = told_before.get(channel.name)
        told = Told(**known) if known else Told(after_s=now_s - FIRST_LOOK_BACK_S)
        if now_s < told.next_s:
            notes.append(f"{channel.name}: quiet until {datetime.fromtimestamp(told.next_s, UTC):%H:%M} UTC")
        else:
            troubles, after = new_troubles(context.instance, told, now_s, level())
            try:
                if troubles:
                    refused = channel.send(compose(troubles))
                    after.sent(now_s)
                    notes.append(f"{channel.name}: told {len(troubles)}")
                    if refused:
                        # Not sent again: the others have it.
                        notes[-1] += f", refused for {', '.join(refused)}"
                        context.log.error(notes[-1])
                told = after
            except AlarmError as error:
                told.failed(now_s)
                context.log.error(str(error))
                notes.append(f"{channel.name}: {len(troubles)} could not be told: {error}")
        cursor[channel.name] = asdict(told)
    said = "; ".join(notes) or ("nothing to tell" if receivers else "nobody is told: no receiver is named")
    return dg.SensorResult(skip_reason=said, cursor=json.dumps(cursor))
