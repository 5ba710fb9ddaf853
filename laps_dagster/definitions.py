"""The code location: assets, checks, jobs and resources, for the UI, the tests and the command line alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from assets.catalog import catalog
from assets.checks import table_checks
from assets.clips import clips
from assets.cluster_assignments import cluster_assignments
from assets.cluster_model import cluster_model
from assets.compacted_catalog import compacted_catalog
from assets.evaluation import evaluation
from assets.icss_report import icss_report
from assets.keypoint_tracks import keypoint_tracks
from assets.landing_zone import landing_zone
from assets.latent_stream import latent_stream
from assets.motion_tokenizer import motion_tokenizer
from assets.raw_video import raw_video
from assets.segment_embeddings import segment_embeddings
from assets.segmenter_calibration import segmenter_calibration
from assets.segments import segments
from assets.visual_features import visual_features
from assets.vital_checks import vital_checks
from assets.vla_dataset import vla_dataset
from laps_dagster.alarms import alarms
from laps_dagster.executor import identified_process
from laps_dagster.jobs import JOBS
from laps_dagster.morning import look_at_night, morning, night
from laps_dagster.nightly import later_stages, nightly, plan_night
from laps_dagster.retention import apply_retention, retention
from laps_dagster.sensors import known_datasets, landing_files, lost_runs, new_cameras
from laps_dagster.weekly import fill_draft, weekly
from resources.configured import default_resources

ASSETS = (
    landing_zone,
    raw_video,
    keypoint_tracks,
    motion_tokenizer,
    latent_stream,
    segmenter_calibration,
    segments,
    clips,
    segment_embeddings,
    visual_features,
    cluster_model,
    cluster_assignments,
    icss_report,
    compacted_catalog,
    catalog,
    vla_dataset,
    evaluation,
)


def build_definitions(*, resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """All definitions; ``resources`` replaces some of the default ones by name."""
    return dg.Definitions(
        assets=ASSETS,
        asset_checks=[*table_checks, *vital_checks, night],
        jobs=[*JOBS, plan_night, fill_draft, apply_retention, look_at_night],
        schedules=[nightly, weekly, retention, morning],
        sensors=[new_cameras, known_datasets, lost_runs, landing_files, later_stages, alarms],
        resources={**default_resources(), **(resources or {})},
        executor=identified_process,
    )


defs = build_definitions()
