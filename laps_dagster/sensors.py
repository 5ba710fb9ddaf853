"""What a store and its landing zone tell Dagster: cameras, data sets, and new files that become recordings and runs."""

from __future__ import annotations

import json
import time
from collections import Counter

import dagster as dg

from assets.partitions import CAMERAS, DATASETS, multi_partition_key
from laps.errors import LapsError
from laps.tables import RAW_VIDEO
from laps.timegrid import CameraHour, now_ns
from laps_dagster.hour_runs import LATE, THEN, hours_being_observed
from laps_dagster.jobs import observe
from laps_dagster.processes import fail_lost_runs, fail_runs_that_cannot_begin
from laps_dagster.settings import sensors_status
from laps_dagster.stages import OBSERVE, OutOfDate
from resources.configured import RecordingsResource, StoreResource
from resources.landing import Look
from resources.settings import first_hour_ns
from resources.store import Store

HOURS_A_LOOK = 50
LISTING_SHARE = 0.1
"""Of the time at most this share is spent on listing a large landing zone, all day and for years."""

# What takes no longer is listed in every evaluation: that share of what lies between two of them.
_SHORT_LISTING_S = 3.0
_LONGEST_PAUSE_S = 900.0
_NAMED_FILES = 20
# A copy of the register that needs more reading than a tick has time for is left to the night.
_FILES_A_COPY = 2000


def add_cameras(instance: dg.DagsterInstance, names: list[str]) -> list[str]:
    """Add cameras that the instance does not know yet; returns them."""
    return _add_partitions(instance, CAMERAS, names)


def _add_partitions(instance: dg.DagsterInstance, kind: str, keys: list[str]) -> list[str]:
    known = set(instance.get_dynamic_partitions(kind))
    new = [key for key in keys if key not in known]
    if new:
        instance.add_dynamic_partitions(kind, new)
    return new


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Makes every camera with registered recordings a partition, also when the instance is new.",
)
def new_cameras(
    context: dg.SensorEvaluationContext, store: StoreResource, recordings: RecordingsResource
) -> dg.SkipReason:
    known = context.instance.get_dynamic_partitions(CAMERAS)
    new = add_cameras(context.instance, recordings.open(store.open()).cameras(besides=known))
    return dg.SkipReason(f"added {', '.join(new)}" if new else "no new cameras")


@dg.sensor(
    minimum_interval_seconds=600,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Makes every data set in the store a partition of vla_dataset, also when the instance is new.",
)
def known_datasets(context: dg.SensorEvaluationContext, store: StoreResource) -> dg.SkipReason:
    from resources.datasets import dataset_keys

    new = _add_partitions(context.instance, DATASETS, dataset_keys(store.open()))
    return dg.SkipReason(f"added {', '.join(new)}" if new else "no new data sets")


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Fails runs of this machine whose process is gone: killed together with the daemon, or by a restart of "
    "the machine. Left alone they would stay under way for ever, and hold places that the runs in the queue wait for. "
    "On Ray also runs whose job ended before they began.",
)
def lost_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    lost = fail_lost_runs(context.instance) + fail_runs_that_cannot_begin(context.instance)
    return dg.SkipReason(f"failed {', '.join(run_id[:8] for run_id in lost)}" if lost else "no run is lost")


@dg.sensor(
    job=observe,
    minimum_interval_seconds=30,
    default_status=sensors_status(),
    description="Registers new and changed files of the landing zone, makes their cameras partitions, and requests "
    "the observe stage of the hours that they touch, old ones too, as soon as an hour is over and quiet. "
    "`later_stages` goes on from there. A file that is still being written is left; one that cannot be used is "
    "quarantined with its reason, and the others go on. An hour is requested once for each state of its recordings, "
    "and only while a release is current.",
)
def landing_files(
    context: dg.SensorEvaluationContext, store: StoreResource, recordings: RecordingsResource
) -> dg.SensorResult:
    files = store.open()
    zone = recordings.watch(files)
    # The cursor: a listing after which nothing was left to do, and what the last evaluation requested. Only now is it
    # certain that those runs were made: a daemon that died in between requests them again, under the same keys.
    # And how many files of each camera came since its part of the register was copied, and when to look again.
    cursor = json.loads(context.cursor or "{}")
    # Not for longer, should the clock have been ahead.
    if 0 < (wait_s := cursor.get("next_s", 0.0) - time.time()) < _LONGEST_PAUSE_S:
        return _result(f"the landing zone takes long to list: next look in {wait_s:.0f} s", cursor)
    look = zone.look(cursor.get("idle", ""))
    if not look.under_way:
        # Where there is more to do than one look has time for, it goes on at once.
        pauses = look.listing_s > _SHORT_LISTING_S and not look.left
        cursor["next_s"] = time.time() + min(_LONGEST_PAUSE_S, look.listing_s / LISTING_SHARE) if pauses else 0.0
    if look.missing or look.under_way or look.digest == cursor.get("idle"):
        return _result(str(look), cursor)
    _tell(context, look)
    add_cameras(context.instance, sorted({zone.recordings.camera_of(uri) for uri in look.registered}))
    release = store.models().current_name()
    requested: dict[CameraHour, str] = {}
    late: set[CameraHour] = set()
    if release is not None:
        asked = cursor.get("asked", {})
        busy = hours_being_observed(context.instance)
        # What was requested a moment ago is busy as well, and is seen to be done with.
        ready = zone.ready_hours(now_ns(), HOURS_A_LOOK, besides={hour for hour in busy if hour.key not in asked})
        confirmed = {hour for hour, state in ready.items() if asked.get(hour.key) == state}
        # An hour before the first one is no partition (the store's first hour may be moved).
        first_ns = first_hour_ns(files.root)
        open_hours = [hour for hour in ready if hour not in confirmed and hour.start_ns >= first_ns]
        made = OutOfDate(files, release, zone.registrations(open_hours), by_day=True)
        due = made.hours(OBSERVE, open_hours)
        zone.done_with(ready.keys() - set(due))
        requested = {hour: ready[hour] for hour in due if hour not in busy}
        late = {hour for hour in requested if made.is_there(RAW_VIDEO, hour)}
        add_cameras(context.instance, sorted({hour.camera for hour in requested}))
    said = str(look)
    if zone.seen.hours:
        waiting = f"{len(zone.seen.hours)} hours wait"
        said += f"; {waiting} until they are over and quiet" if release else f"; {waiting}: no release is current, and "
        said += "" if release else "`laps backfill` makes the first"
    fresh = Counter(cursor.get("fresh", {}))
    fresh.update(zone.recordings.camera_of(uri) for uri in (*look.registered, *look.quarantined))
    cursor = {
        "next_s": cursor["next_s"] if len(requested) < HOURS_A_LOOK else 0.0,
        "asked": {hour.key: state for hour, state in requested.items()},
        "fresh": _not_copied(context, files, fresh),
    }
    if zone.is_idle:
        cursor["idle"] = look.digest
    requests = [
        dg.RunRequest(
            run_key=f"observe {hour.key} {state}",
            partition_key=multi_partition_key(hour),
            tags={THEN: "segment", **({LATE: "true"} if hour in late else {})},
        )
        for hour, state in requested.items()
    ]
    return dg.SensorResult(run_requests=requests, cursor=json.dumps(cursor)) if requests else _result(said, cursor)


def _result(said: str, cursor: dict[str, object]) -> dg.SensorResult:
    return dg.SensorResult(skip_reason=said, cursor=json.dumps(cursor))


def _not_copied(context: dg.SensorEvaluationContext, files: Store, fresh: Counter[str]) -> dict[str, int]:
    """How many files of each camera came since its part of the register was copied, which is done where it is many.

    One camera in a tick: recorders that begin their files together come to so many together.
    """
    from resources.compaction import BEHIND, compact_register

    for camera, count in fresh.most_common(1):
        if count > BEHIND:
            del fresh[camera]
            try:
                compact_register(files, camera, at_most=_FILES_A_COPY)
            except LapsError as error:
                # Reading the register takes longer until the night copies it; nothing else depends on it.
                context.log.warning(f"the register of {camera} is not copied: {error}")
    return dict(fresh)


def _tell(context: dg.SensorEvaluationContext, look: Look) -> None:
    """Name in the tick's log what a person may want to look into."""
    for what, named in (("quarantined", look.quarantined), ("refused", look.refused)):
        for uri, reason in list(named.items())[:_NAMED_FILES]:
            context.log.warning(f"{what} {uri}: {reason}")
    for uri in look.vanished[:_NAMED_FILES]:
        context.log.warning(f"vanished {uri}: what was made from it stays, and it cannot be made again")
