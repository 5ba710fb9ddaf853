"""A small store of three short recordings with numbered frames, cut, clustered and with clips: ready to be exported.

Nothing is detected or trained: the primitives, their codes and embeddings are made up, the videos, clips and tables
are real.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from laps.calibration import Calibration, Diagnostics
from laps.clips import cut_clip
from laps.clustering import ClusterModel
from laps.detector import DetectorTimes
from laps.tables import CLIPS, CLUSTER_ASSIGNMENTS, CLUSTERS, SEGMENT_EMBEDDINGS, SEGMENTS
from laps.timegrid import NS_PER_S, CameraHour, SampleGrid, from_datetime, parse_utc, to_datetime
from resources.hour_files import clip_folder
from resources.models import (
    CALIBRATION,
    CALIBRATION_FILE,
    CLUSTER_MODEL,
    EMBEDDER,
    ENCODER,
    TOKENIZER,
    ModelRegistry,
    Release,
)
from resources.recordings import Recordings
from resources.settings import store_settings
from resources.store import Store, rows_table
from tests.videos import numbered_texture, write_video

WIDTH, HEIGHT, FPS, SECONDS = 160, 96, 30, 12
GRID = SampleGrid()
TOKENIZER_ID, ENCODER_ID, EMBEDDER_ID = "t0123456789ab", "weight_free:hog-colour/v1", "e0123456789ab"
TRACKER_ID = "dis-flow/ultrafast/320/20x20/v1"
RECORDINGS = (("a", "2026-11-21T05:00:00Z"), ("a", "2026-11-21T06:10:00Z"), ("b", "2026-11-21T05:00:00Z"))
# Start and end of the primitives of each recording, milliseconds from its first frame.
SPANS_MS = ((950, 2150), (2537, 3891), (4333, 5233), (6000, 7500), (8111, 10111))
CLUSTER_COUNT = 3


@dataclass
class ExportStore:
    """The store and what was put into it.

    Attributes:
        store: the store.
        release: its only release, a draft.
        rows: for each primitive its row of `segments`, with `cluster_id`, `recording_id`, `recording_start_ns` and
            `video` (the file).
    """

    store: Store
    release: Release
    rows: list[dict[str, Any]] = field(default_factory=list)


def frames_of(row: dict[str, Any]) -> list[int]:
    """Numbers of the recording's frames with start <= time < end of a primitive."""
    begin = row["recording_start_ns"]
    start_ns, end_ns = from_datetime(row["start_time"]), from_datetime(row["end_time"])
    return [n for n in range(SECONDS * FPS) if start_ns <= begin + Fraction(n * NS_PER_S, FPS) < end_ns]


def picture_of(row: dict[str, Any], place: int) -> int:
    """Number of the frame on which the motion of a code begins: the newest at the sample before, or the first."""
    time_ns = (row["start_sample"] + place - 1) * GRID.step_ns - row["recording_start_ns"]
    inside = frames_of(row)
    return max([n for n in inside if Fraction(n * NS_PER_S, FPS) <= time_ns], default=inside[0])


def make_cluster_model(seed: int = 0, **changes: Any) -> ClusterModel:
    """A cluster model of the numbers 0 to 2, whose id depends on the seed."""
    centroids = np.random.default_rng(seed).normal(size=(CLUSTER_COUNT, 8))
    content: dict[str, Any] = {
        "mean": np.zeros(8),
        "scale": np.ones(8),
        "centroids": centroids,
        "cluster_ids": np.arange(CLUSTER_COUNT),
        "next_id": CLUSTER_COUNT,
        "tokenizer_id": TOKENIZER_ID,
        "embedder_id": EMBEDDER_ID,
        **changes,
    }
    return ClusterModel(**content)


def put_cluster_model(store: Store, model: ClusterModel, folder: Path) -> str:
    """Publish a cluster model; returns its id."""
    model_id = model.save(folder)
    ModelRegistry(store).put(CLUSTER_MODEL, model_id, folder)
    return model_id


def make_export_store(root: Path) -> ExportStore:
    """Make the store in ``root/store`` and its recordings in ``root/landing``."""
    store = Store(str(root / "store"))
    store_settings(store)
    registry = ModelRegistry(store)
    draft = registry.open_draft("made by a test")
    _put_models(registry, draft, root)
    made = ExportStore(store, registry.release(draft.name))
    (root / "landing").mkdir()
    recordings = Recordings(store, str(root / "landing"))
    for place, (camera, start) in enumerate(RECORDINGS):
        start_ns = parse_utc(start)
        video = write_video(
            root / "landing" / f"{camera}-{place}.mp4",
            seconds=SECONDS,
            fps=FPS,
            width=WIDTH,
            height=HEIGHT,
            gop=2 * FPS,
            draw=numbered_texture(WIDTH, HEIGHT),
        )
        recording = recordings.register(str(video), camera, start_ns)
        _fill_hour(made, CameraHour.of(camera, start_ns), start_ns, video, recording["recording_id"], place)
    clusters = [
        {
            "cluster_id": cluster,
            "segment_count": sum(row["cluster_id"] == cluster for row in made.rows),
            "median_duration_s": 1.0,
            "icss_mean": 0.5 + 0.1 * cluster,
            "pair_count": 10,
            "baseline_mean": 0.5,
            "encoder_id": ENCODER_ID,
            "cluster_model_id": made.release.cluster_model,
            "release": made.release.name,
        }
        for cluster in range(CLUSTER_COUNT)
    ]
    path = f"{store.table_path(CLUSTERS, made.release.name)}/part-0.parquet"
    store.write_table(CLUSTERS, path, rows_table(CLUSTERS, clusters))
    return made


def _put_models(registry: ModelRegistry, draft: Release, root: Path) -> None:
    store = registry.store
    about = {"tokenizer_id": TOKENIZER_ID, "config": {"tracker_id": TRACKER_ID}}
    store.write_json(f"models/{TOKENIZER}/{TOKENIZER_ID}/config.json", about)
    registry.fill(draft, TOKENIZER, TOKENIZER_ID)
    registry.fill(draft, EMBEDDER, EMBEDDER_ID)
    registry.fill(draft, ENCODER, ENCODER_ID)
    for camera in ("a", "b"):
        calibration = Calibration(
            camera=camera,
            tokenizer_id=TOKENIZER_ID,
            form="velocity",
            method="log_energy",
            settings=DetectorTimes().with_thresholds(1.25, 0.75),
            code_energy=None,
            ok=True,
            message="",
            diagnostics=Diagnostics(
                sample_count=1,
                null_count=0,
                minutes=1,
                spans=[],
                segment_count=0,
                segments_per_minute=0,
                active_share=0,
            ),
        )
        folder = root / f"calibration-{camera}"
        folder.mkdir()
        (folder / CALIBRATION_FILE).write_text(calibration.to_json())
        registry.put(CALIBRATION, calibration.calibration_id, folder)
        registry.fill(draft, CALIBRATION, calibration.calibration_id, camera)
    registry.fill(draft, CLUSTER_MODEL, put_cluster_model(store, make_cluster_model(), root / "cluster_model"))


def _fill_hour(
    made: ExportStore, hour: CameraHour, recording_start_ns: int, video: Path, recording_id: str, place: int
) -> None:
    store, release = made.store, made.release
    segments, assigned, clips, embeddings = [], [], [], []
    for number, (start_ms, end_ms) in enumerate(SPANS_MS):
        start_ns = recording_start_ns + start_ms * 1_000_000
        end_ns = recording_start_ns + end_ms * 1_000_000
        first, stop = GRID.first_sample_at_or_after(start_ns), GRID.first_sample_at_or_after(end_ns)
        segment_id = f"{hour.camera}{hour.hour}x{start_ms:05d}"
        of = {"segment_id": segment_id, "camera": hour.camera, "release": release.name}
        cluster = (number + place) % CLUSTER_COUNT
        row = of | {
            "start_time": to_datetime(start_ns),
            "end_time": to_datetime(end_ns),
            "duration_s": (end_ms - start_ms) / 1000,
            "start_sample": first,
            "end_sample": stop,
            "decided_sample": stop + 2,
            "end_reason": "rest",
            "codes": [sample * 7919 % 1920 for sample in range(first, stop)],
            "energy_form": "velocity",
            "energy_mean": 1.0,
            "energy_peak": 2.0,
            "confidence": 0.5,
            "tokenizer_id": TOKENIZER_ID,
            "calibration_id": release.calibrations[hour.camera],
        }
        segments.append(row)
        of_recording = {"recording_id": recording_id, "recording_start_ns": recording_start_ns, "video": video}
        made.rows.append(row | of_recording | {"cluster_id": cluster})
        assigned.append(
            of | {"cluster_id": cluster, "centroid_distance": 0.1, "cluster_model_id": release.cluster_model}
        )
        # The recordings show the same: a primitive's embedding is nearly the same in each of them.
        vector = np.eye(8)[number] + 0.01 * np.eye(8)[7] * place
        embeddings.append(of | {"embedding": vector.tolist(), "embedder_id": EMBEDDER_ID, "tokenizer_id": TOKENIZER_ID})
        out = io.BytesIO()
        with video.open("rb") as file:
            info = cut_clip(
                file, out, name="one", recording_start_ns=recording_start_ns, start_ns=start_ns, end_ns=end_ns
            )
        path = f"{clip_folder(hour, release.name)}/{segment_id}.mp4"
        store.write_bytes(path, out.getvalue())
        clips.append(
            of
            | {
                "status": "ok",
                "clip_path": path,
                "recording_id": recording_id,
                "first_frame_time": to_datetime(info.first_frame_time_ns),
                "last_frame_time": to_datetime(info.last_frame_time_ns),
                "frame_count": info.frame_count,
                "lead_in_s": info.lead_in_s,
                "size_bytes": info.size_bytes,
            }
        )
    for table, rows in (
        (SEGMENTS, segments),
        (CLUSTER_ASSIGNMENTS, assigned),
        (CLIPS, clips),
        (SEGMENT_EMBEDDINGS, embeddings),
    ):
        store.write_partition(table, hour, rows_table(table, rows), release.name)
