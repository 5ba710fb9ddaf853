"""Keeping Dagster's list of cameras equal to the store's."""

import dagster as dg

from assets.partitions import CAMERAS
from resources.configured import RecordingsResource, StoreResource


def add_cameras(instance: dg.DagsterInstance, names: list[str]) -> list[str]:
    """Add cameras that the instance does not know yet; returns them."""
    known = set(instance.get_dynamic_partitions(CAMERAS))
    new = [name for name in names if name not in known]
    if new:
        instance.add_dynamic_partitions(CAMERAS, new)
    return new


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Makes every camera with registered recordings a partition, also when the instance is new.",
)
def new_cameras(
    context: dg.SensorEvaluationContext, store: StoreResource, recordings: RecordingsResource
) -> dg.SkipReason:
    new = add_cameras(context.instance, recordings.open(store.open()).cameras())
    return dg.SkipReason(f"added {', '.join(new)}" if new else "no new cameras")
