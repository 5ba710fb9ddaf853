"""Partitions: a camera and a UTC hour, and how the stages' partitions depend on each other.

*Observe* (raw_video, keypoint_tracks with keyframes, latent_stream) needs only its own hour: identity mappings, so
a whole stage is one run an hour, in any order. *Segment* (segments to cluster_assignments) also reads the hour
before: a primitive may begin in one hour and end in the next.
"""

from __future__ import annotations

import warnings

import dagster as dg

from laps.timegrid import HOUR_KEY_FORMAT, CameraHour, to_datetime
from resources.settings import first_hour_ns

CAMERAS = "cameras"
DATASETS = "datasets"

cameras = dg.DynamicPartitionsDefinition(name=CAMERAS)
hours = dg.HourlyPartitionsDefinition(
    start_date=to_datetime(first_hour_ns()),
    fmt=HOUR_KEY_FORMAT,
    timezone="UTC",
    end_offset=1,  # the hour that is running is a partition too
)
# A data set's name and version, as `screws/v1`.
datasets = dg.DynamicPartitionsDefinition(name=DATASETS)
camera_hours = dg.MultiPartitionsDefinition({"camera": cameras, "hour": hours})

with warnings.catch_warnings():
    # Mappings between multi-partitions are marked beta; the tests would notice if they changed.
    warnings.simplefilter("ignore", dg.BetaWarning)
    THIS_AND_PREVIOUS_HOUR = dg.MultiPartitionMapping(
        {
            "camera": dg.DimensionPartitionMapping("camera", dg.IdentityPartitionMapping()),
            "hour": dg.DimensionPartitionMapping(
                "hour",
                dg.TimeWindowPartitionMapping(
                    start_offset=-1, end_offset=0, allow_nonexistent_upstream_partitions=True
                ),
            ),
        }
    )
    SAME_CAMERA = dg.MultiToSingleDimensionPartitionMapping("camera")
# What reads the hours that there are depends on none by name. With Dagster's own mapping, to all of them, every such
# step would first make the keys of all hours of all cameras, filmed or not: ten seconds for two cameras and two years.
_NONE_BY_NAME = dg.SpecificPartitionsPartitionMapping([])


def camera_hour(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> CameraHour:
    """The camera hour that a run's partition key names."""
    key = context.partition_key
    if isinstance(key, dg.MultiPartitionKey):
        dimensions = key.keys_by_dimension
        return CameraHour.parse(f"{dimensions['camera']}|{dimensions['hour']}")
    return CameraHour.parse(key)


def multi_partition_key(hour: CameraHour) -> dg.MultiPartitionKey:
    """Inverse of :func:`camera_hour`."""
    return dg.MultiPartitionKey({"camera": hour.camera, "hour": hour.hour_key})


def any_hours(*assets: str) -> list[dg.AssetDep]:
    """Dependencies of an asset without hours on whatever hours there are of others."""
    return [dg.AssetDep(asset, partition_mapping=_NONE_BY_NAME) for asset in assets]


def with_previous(asset: str) -> dg.AssetDep:
    """A dependency on this hour and the one before of another asset."""
    return dg.AssetDep(asset, partition_mapping=THIS_AND_PREVIOUS_HOUR)
