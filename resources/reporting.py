"""Coherence and the HTML report of a release, from what lies in the store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from laps.tables import CLUSTER_ASSIGNMENTS, CLUSTERS, SEGMENTS, VISUAL_FEATURES
from laps.timegrid import CameraHour
from resources.embeddings import read_embeddings
from resources.models import CLUSTER_MODEL, Release
from resources.segments import refuse_other_models
from resources.store import Store

if TYPE_CHECKING:
    import pyarrow as pa
