"""Keeping Dagster's lists of cameras and data sets equal to the store's, also when the instance is new."""

import dagster as dg

from assets.partitions import CAMERAS, DATASETS
from resources.configured import RecordingsResource, StoreResource


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
    new = add_cameras(context.instance, recordings.open(store.open()).cameras())
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
