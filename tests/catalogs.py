"""A made-up catalog, quick to write: primitives at chosen times, with all that the catalog joins to them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from laps.tables import CLIPS, CLUSTER_ASSIGNMENTS, SEGMENT_EMBEDDINGS, SEGMENTS
from laps.timegrid import CameraHour, from_datetime
from resources.store import Store, rows_table

TOKENIZER, RELEASE = "t1", "r1"
_OF_A_SEGMENT = (SEGMENTS, CLIPS, CLUSTER_ASSIGNMENTS, SEGMENT_EMBEDDINGS)


@dataclass(frozen=True)
class Primitive:
    """One primitive; its hour is the one in which it ends."""

    camera: str
    start: datetime
    duration_s: float
    cluster: int = 0
    distance: float = 0.1
    embedding: tuple[float, ...] = (1.0, 0.0)
    end_reason: str = "rest"

    @property
    def id(self) -> str:
        return hashlib.sha256(f"{self.camera} {self.start.isoformat()}".encode()).hexdigest()[:16]

    @property
    def end(self) -> datetime:
        return self.start + timedelta(seconds=self.duration_s)

    @property
    def hour(self) -> CameraHour:
        return CameraHour.of(self.camera, from_datetime(self.end))


def write_primitives(store: Store, primitives: Iterable[Primitive], hours: Iterable[CameraHour] = ()) -> None:
    """Write segments, clips, clusters and embeddings; ``hours`` are processed hours, also where nothing was found."""
    by_hour: dict[CameraHour, list[Primitive]] = {hour: [] for hour in hours} or defaultdict(list)
    for primitive in primitives:
        by_hour.setdefault(primitive.hour, []).append(primitive)
    for hour, found in by_hour.items():
        for table in _OF_A_SEGMENT:
            rows = [_row(primitive) for primitive in found]
            rows = [{name: row[name] for name in table.column_names if name in row} for row in rows]
            store.write_partition(table, hour, rows_table(table, rows), RELEASE)


def _row(primitive: Primitive) -> dict[str, Any]:
    """The columns of all tables."""
    first = from_datetime(primitive.start) // 100_000_000
    samples = max(1, round(primitive.duration_s * 10))
    return {
        "segment_id": primitive.id,
        "camera": primitive.camera,
        "start_time": primitive.start,
        "end_time": primitive.end,
        "duration_s": primitive.duration_s,
        "start_sample": first,
        "end_sample": first + samples,
        "decided_sample": first + samples,
        "end_reason": primitive.end_reason,
        "codes": [1] * samples,
        "energy_form": "decoded_motion",
        "energy_mean": 1.0,
        "energy_peak": 2.0,
        "confidence": 0.5,
        "tokenizer_id": TOKENIZER,
        "calibration_id": "c1",
        "status": "ok",
        "clip_path": f"clips/files/{primitive.id}.mp4",
        "cluster_id": primitive.cluster,
        "centroid_distance": primitive.distance,
        "cluster_model_id": "k1",
        "embedding": list(primitive.embedding),
        "embedder_id": "e1",
        "release": RELEASE,
    }
