"""The week: a draft release with models of its own, filled and put beside the current one. A person promotes it.

The job `fill_draft` is one run that makes the runs of `laps backfill --new-release` in their order (tokenizer, latent
streams, calibrations, primitives, clusters with the numbers of the current release, assignments, report), in worker
processes of its own and under the same pools. A run that was killed and is tried again goes on with the draft that it
filled. Nothing that is in use changes: `laps promote` makes the draft current, `laps discard` removes it, and while
one waits for that no other is filled.
"""

from collections import Counter
from collections.abc import Sequence

import dagster as dg
from dagster._core.storage.tags import ROOT_RUN_ID_TAG  # not public
from pydantic import Field

from assets.retries import tried_again
from laps.errors import InputError, NotProcessedError
from laps.tables import CLUSTER_ASSIGNMENTS
from laps.timegrid import HOUR_NS, CameraHour, now_ns
from laps_dagster.nightly import NO_RELEASE, left_to_the_run
from laps_dagster.pipeline import Backfill, Options, Progress
from laps_dagster.settings import night_zone, schedules_status, weekly_cron
from resources.configured import StoreResource
from resources.models import ModelRegistry, Release
from resources.recordings import Recordings
from resources.reporting import calibrations, report_path
from resources.settings import store_settings
from resources.store import Store

NOTE = "weekly draft"


class Draft(dg.Config):
    """What the draft is made from."""

    days: int = Field(7, ge=1, description="Days back from now, of the hours that the current release has cut.")
    most_hours: int = Field(200, ge=1, description="Of more, whole days of each camera are left out.")
    hours: list[str] = Field([], description="Camera hours to use instead, for example cam1|2026-11-21-05:00.")
    preset: str = Field("full", description="full: the paper's size. small: for demonstrations and tests.")
    train_minutes: float = Field(60.0, gt=0, description="Longest training time; it ends earlier at a plateau.")
    clusters: int = Field(0, ge=0, description="Number of clusters. 0: as many as the current release has.")
    workers: int = Field(1, ge=1, description="Runs at once.")
    seed: int = Field(0, description="Seed of the models.")


@dg.op(description="Fill a draft release and compare it with the current one.")
@tried_again
def draft_release(context: dg.OpExecutionContext, config: Draft, store: StoreResource) -> dg.Output[None]:
    from resources.comparison import compare

    files, registry = store.open(), store.models()
    store_settings(files)
    current = registry.current()
    if current is None:
        raise NotProcessedError("no release is current", where=files.root, fix="`laps backfill` makes the first.")
    hours = [CameraHour.parse(key) for key in config.hours]
    hours = hours or spread(_filmed_lately(files, current, config.days), config.most_hours)
    if not hours:
        raise NotProcessedError(
            f"release {current.name} has cut no hour of the last {config.days} days",
            where=files.root,
            fix="Give more days, or the hours to use.",
        )
    draft = _draft(registry, f"{NOTE}, run {(context.run.tags.get(ROOT_RUN_ID_TAG) or context.run_id)[:8]}")
    context.log.info(f"draft release {draft.name} on {len(hours)} hours")
    cut, teacher = _cutting(files, current)
    options = Options(
        release=draft.name,
        only_missing=True,
        workers=config.workers,
        preset=config.preset,
        train_minutes=config.train_minutes,
        cut=cut,
        teacher=teacher,
        k=config.clusters or registry.clusters(current).k,
        seed=config.seed,
    )
    progress = Progress(report=context.log.info)
    filled = Backfill(files, hours, options, progress).run()
    for outcome in progress.failures:
        context.log.warning(f"{outcome.task} failed: {outcome.error}")
    rows = [
        dg.TableRecord({"figure": figure, "current release": there, "draft": here})
        for figure, there, here in compare(files, filled, current)
    ]
    return dg.Output(
        None,
        metadata={
            "draft": filled.name,
            "hours": len(hours),
            "failed_runs": [str(outcome.task) for outcome in progress.failures],
            "beside_current": dg.MetadataValue.table(rows),
            "report": dg.MetadataValue.path(files.url(report_path(filled.name))),
            "next": f"Look at the report, then `laps promote {filled.name}` or `laps discard {filled.name}`.",
        },
    )


def _filmed_lately(files: Store, current: Release, days: int) -> list[CameraHour]:
    """The hours of the last days that a release has cut, without those that only close what is open in the last one."""
    since_ns = now_ns() - days * 24 * HOUR_NS
    made = [hour for hour in files.partitions(CLUSTER_ASSIGNMENTS, current.name) if hour.start_ns >= since_ns]
    register = Recordings(files)
    # Closing hours are added to whatever is made.
    filmed = {hour for camera in {hour.camera for hour in made} for hour in register.hours(camera)}
    return [hour for hour in made if hour in filmed]


def spread(hours: Sequence[CameraHour], most: int) -> list[CameraHour]:
    """Of many hours as many as are wanted, in whole days from first to last, each camera with its share.

    Whole days, because each stretch of hours needs the one before it to warm up, and the one after it to close it;
    those of under half the hours of the fullest are left out first, as they may be cut off by the week. Of each camera
    at least one day stays: without hours it would get no calibration.
    """
    if len(hours) <= most:
        return list(hours)
    kept: list[CameraHour] = []
    cameras = sorted({hour.camera for hour in hours})
    for camera in cameras:
        days: dict[str, list[CameraHour]] = {}
        for hour in sorted(hour for hour in hours if hour.camera == camera):
            days.setdefault(hour.date, []).append(hour)
        fullest = max(map(len, days.values()))
        full = [day for day in days.values() if 2 * len(day) >= fullest]
        for count in range(len(full), 0, -1):
            chosen = sorted(len(full) - 1 - place * len(full) // count for place in range(count))
            its_hours = [hour for place in chosen for hour in full[place]]
            if len(its_hours) <= most // len(cameras) or count == 1:
                kept += its_hours
                break
    return kept


@dg.job(
    description="Fill a draft release with models of its own and compare it with the current one.",
    # The instance's limit is for the runs of an hour.
    tags={"dagster/max_runtime": str(48 * 3600)},
)
def fill_draft() -> None:
    draft_release()


@dg.schedule(
    job=fill_draft,
    cron_schedule=weekly_cron(),
    execution_timezone=night_zone(),
    default_status=schedules_status(),
    description="Every week new models from the last seven days: a draft release, filled and compared with the current "
    "one. `laps promote` makes it current; nothing else does. While a draft of an earlier week waits, none is made.",
)
def weekly(context: dg.ScheduleEvaluationContext, store: StoreResource) -> dg.RunRequest | dg.SkipReason:
    registry = store.models()
    with left_to_the_run():
        if registry.current_name() is None:
            return dg.SkipReason(NO_RELEASE)
        if waiting := _waiting(registry):
            return dg.SkipReason(_decide(waiting[0]))
    return dg.RunRequest(run_key=f"{context.scheduled_execution_time:%Y-%m-%d}")


def _draft(registry: ModelRegistry, note: str) -> Release:
    """The draft that this run, or the one that it tries again, has opened; else a new one."""
    for draft in _waiting(registry):
        if draft.note != note:
            raise InputError(_decide(draft))
        return draft
    return registry.open_draft(note)


def _waiting(registry: ModelRegistry) -> list[Release]:
    return [draft for draft in registry.drafts() if draft.note.startswith(NOTE)]


def _decide(draft: Release) -> str:
    return (
        f"draft release {draft.name} ({draft.note}, {draft.created_at}) waits for a decision: "
        f"`laps promote {draft.name}` or `laps discard {draft.name}`"
    )


def _cutting(files: Store, current: Release) -> tuple[str, str]:
    """How most cameras of the current release are cut."""
    ways = Counter((one.cut, one.diagnostics.teacher or "rests") for one in calibrations(files, current).values())
    return ways.most_common(1)[0][0]
