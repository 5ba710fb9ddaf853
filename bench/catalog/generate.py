"""A made-up store as a factory's year would leave it: every table that the catalog's views need, and no videos.

Cameras film two shifts a day, Monday to Friday. A worker repeats a cycle of primitives with skipped and repeated ones;
durations differ by kind and drift over the weeks. Rows are validated and written by the product's own writer against
its own schemas. Tables that hold pictures, tracks and samples get files without rows, so that listings are as long as
they would be. The same seed gives the same rows.

    python -m bench.catalog.generate FOLDER --primitives 1000000 --hours 8760
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from laps.cameras import Camera, parse_shift
from laps.recordings import place_id
from laps.segments import make_segment_id
from laps.tables import (
    CLIPS,
    CLUSTER_ASSIGNMENTS,
    CLUSTER_NAMES,
    CLUSTERS,
    KEYFRAMES,
    KEYPOINT_TRACKS,
    LATENT_STREAM,
    RAW_VIDEO,
    RECORDINGS,
    SEGMENT_EMBEDDINGS,
    SEGMENTS,
    VISUAL_FEATURES,
    Table,
)
from laps.timegrid import NS_PER_S, CameraHour, SampleGrid, from_datetime, to_datetime
from resources.cameras import Cameras
from resources.hour_files import clip_folder
from resources.store import PART, Store, TableWriter, rows_table

RELEASE, TOKENIZER, CLUSTER_MODEL = "r1", "t5d41402abc4b", "k7b52009b64fd"
CALIBRATION, EMBEDDER, ENCODER = "c2a5f1e0c8d9a", "e9e107d9d372b", "weight_free:hog-colour/v1"
DIMENSIONS = 256
CODES = 1920
FIRST_DAY = datetime(2026, 1, 5, tzinfo=UTC)  # a Monday
FIRST_HOUR, HOURS_A_DAY = 5, 16  # 05:00 to 21:00 UTC: both shifts in Berlin, summer and winter
LEAD_IN_S = 1.45
GRID = SampleGrid()
_EMPTY = (KEYPOINT_TRACKS, KEYFRAMES, LATENT_STREAM, VISUAL_FEATURES)
_NAMES = ("pick part", "place part", "tighten screw", "inspect", "take tool", "put tool back", "wipe", "scan label")


@dataclass(frozen=True)
class Size:
    """How much is made.

    Attributes:
        primitives: rows of ``segments``.
        hours: camera hours, over all cameras.
        cameras: cameras.
        clusters: kinds of primitive.
    """

    primitives: int = 1_000_000
    hours: int = 8_760
    cameras: int = 4
    clusters: int = 16


class Generator:
    """Fills a store.

    Args:
        store: an empty store on a local disk.
        size: how much.
        seed: what is drawn.
    """

    def __init__(self, store: Store, size: Size, seed: int = 0) -> None:
        self.store = store
        self.size = size
        self.seed = seed
        rng = np.random.default_rng(seed)
        kinds = size.clusters
        self.cycle = rng.permutation(kinds)
        self.mean_s = rng.uniform(1.2, 8.0, kinds)
        self.drift = rng.normal(0, 0.004, kinds)  # a week
        # Each kind has codes of its own, some far more frequent than others.
        self.codes = rng.integers(0, CODES, (kinds, 48)).astype(np.uint16)
        self.centres = rng.normal(0, 1, (kinds, DIMENSIONS)).astype(np.float32)
        self.cameras = [f"press-{number:02}" for number in range(1, size.cameras + 1)]
        self.empty: dict[str, bytes] = {}

    def fill(self) -> None:
        """Make everything."""
        self._about()
        hours = list(self._hours())
        rng = np.random.default_rng([self.seed, 1])
        busy = rng.gamma(8.0, 1.0, len(hours))
        counts = rng.multinomial(self.size.primitives, busy / busy.sum())
        for number, (hour, count) in enumerate(zip(hours, counts, strict=True)):
            self._hour(np.random.default_rng([self.seed, 2, number]), hour, int(count))

    def _hours(self) -> Iterator[CameraHour]:
        """Working hours, day by day, on all cameras."""
        left, day = self.size.hours, FIRST_DAY
        while left > 0:
            if day.weekday() < 5:
                for number in range(HOURS_A_DAY):
                    start_ns = from_datetime(day + timedelta(hours=FIRST_HOUR + number))
                    for camera in self.cameras[:left]:
                        yield CameraHour(camera, start_ns)
                    left -= min(left, len(self.cameras))
            day += timedelta(days=1)

    def _about(self) -> None:
        for number, camera in enumerate(self.cameras):
            shifts = ("early=06:00-14:00@Mon-Fri", "late=14:00-22:00@Mon-Fri")
            about = Camera(
                camera,
                site="Ulm",
                station=f"press {number + 1}",
                time_zone="Europe/Berlin",
                shifts=tuple(parse_shift(text) for text in shifts),
            )
            Cameras(self.store).write(about)
        clusters = []
        for cluster in range(self.size.clusters):
            icss = 0.55 + 0.3 * cluster / self.size.clusters
            clusters.append(
                {
                    "cluster_id": cluster,
                    "segment_count": self.size.primitives // self.size.clusters,
                    "median_duration_s": float(self.mean_s[cluster]),
                    "icss_mean": icss,
                    "icss_std": 0.1,
                    "icss_ci_low": icss - 0.02,
                    "icss_ci_high": icss + 0.02,
                    "pair_count": 100_000,
                    "baseline_mean": 0.6,
                    "baseline_std": 0.01,
                    "encoder_id": ENCODER,
                    "cluster_model_id": CLUSTER_MODEL,
                    "release": RELEASE,
                }
            )
        folder = self.store.table_path(CLUSTERS, RELEASE)
        self._write(CLUSTERS, f"{folder}/{PART}", rows_table(CLUSTERS, clusters))
        for cluster, name in enumerate(_NAMES[: self.size.clusters]):
            row = {
                "cluster_id": cluster,
                "action_name": name,
                "named_at": FIRST_DAY,
                "cluster_model_id": CLUSTER_MODEL,
            }
            path = f"{self.store.table_path(CLUSTER_NAMES, CLUSTER_MODEL)}/{cluster}.parquet"
            self._write(CLUSTER_NAMES, path, rows_table(CLUSTER_NAMES, [row]))

    def _hour(self, rng: np.random.Generator, hour: CameraHour, count: int) -> None:
        self._footage(rng, hour)
        kinds = self._kinds(rng, count)
        week = (hour.start_ns - from_datetime(FIRST_DAY)) / (7 * 86_400 * NS_PER_S)
        mean_s = self.mean_s[kinds] * (1 + self.drift[kinds] * week)
        samples = np.maximum(5, np.round(10 * mean_s * rng.lognormal(0, 0.25, count))).astype(np.int64)
        starts = self._starts(rng, hour, samples)
        durations_s = samples / GRID.rate_hz
        half_ns = GRID.step_ns // 2
        start_ns = starts * GRID.step_ns - half_ns
        end_ns = start_ns + samples * GRID.step_ns
        identity = (TOKENIZER, CALIBRATION, RELEASE)
        ids = pa.array([make_segment_id(hour.camera, int(start), *identity) for start in starts], pa.string())
        energy = rng.gamma(6.0, 0.4, count).astype(np.float32)
        offsets = pa.array(np.concatenate([[0], np.cumsum(samples)]), pa.int32())
        # A code is held for some samples, and the frequent ones of its kind come first.
        place = np.minimum(47, rng.geometric(0.12, samples.sum()) - 1)
        held = np.maximum.accumulate(np.where(rng.random(len(place)) < 0.5, np.arange(len(place)), 0))
        codes = self.codes[np.repeat(kinds, samples), place[held]]
        reasons = np.array(["rest", "boundary", "gap", "maximum"])
        common = {"camera": _repeat(hour.camera, count), "release": _repeat(RELEASE, count), "segment_id": ids}
        self._partition(
            SEGMENTS,
            hour,
            {
                **common,
                "start_time": _times(start_ns),
                "end_time": _times(end_ns),
                "duration_s": durations_s,
                "start_sample": starts,
                "end_sample": starts + samples,
                "decided_sample": starts + samples + 3,
                "end_reason": reasons[rng.choice(4, count, p=[0.7, 0.27, 0.02, 0.01])],
                "codes": pa.ListArray.from_arrays(offsets, pa.array(codes)),
                "energy_form": _repeat("decoded_motion", count),
                "energy_mean": energy,
                "energy_peak": energy * rng.uniform(1.2, 3.0, count).astype(np.float32),
                "confidence": rng.gamma(2.0, 0.4, count).astype(np.float32),
                "tokenizer_id": _repeat(TOKENIZER, count),
                "calibration_id": _repeat(CALIBRATION, count),
            },
        )
        self._partition(
            CLUSTER_ASSIGNMENTS,
            hour,
            {
                **common,
                "cluster_id": kinds.astype(np.int32),
                "centroid_distance": rng.beta(2.0, 12.0, count).astype(np.float32),
                "cluster_model_id": _repeat(CLUSTER_MODEL, count),
            },
        )
        vectors = self.centres[kinds] + rng.normal(0, 0.6, (count, DIMENSIONS)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self._partition(
            SEGMENT_EMBEDDINGS,
            hour,
            {
                **common,
                "embedding": pa.ListArray.from_arrays(
                    pa.array(np.arange(count + 1) * DIMENSIONS, pa.int32()), pa.array(vectors.ravel())
                ),
                "embedder_id": _repeat(EMBEDDER, count),
                "tokenizer_id": _repeat(TOKENIZER, count),
            },
        )
        self._clips(rng, hour, common, start_ns, end_ns)
        for table in _EMPTY:
            self._without_rows(table, hour)

    def _clips(
        self,
        rng: np.random.Generator,
        hour: CameraHour,
        common: dict[str, Any],
        start_ns: np.ndarray,
        end_ns: np.ndarray,
    ) -> None:
        count = len(start_ns)
        failed = rng.random(count) < 0.002
        folder = clip_folder(hour, RELEASE)

        def unless_failed(values: list[Any], kind: Any) -> pa.Array:
            return pa.array([None if bad else value for value, bad in zip(values, failed, strict=True)], kind)

        frames = np.maximum(1, (end_ns - start_ns) * 30 // NS_PER_S)
        self._partition(
            CLIPS,
            hour,
            {
                **common,
                "status": np.where(failed, "failed", "ok"),
                "reason": pa.array(["the recording ends before the primitive" if bad else None for bad in failed]),
                "clip_path": unless_failed([f"{folder}/{one}.mp4" for one in common["segment_id"].to_pylist()], None),
                "recording_id": _repeat(_recording_id(hour), count),
                "first_frame_time": unless_failed(_times(start_ns).to_pylist(), pa.timestamp("us", "UTC")),
                "last_frame_time": unless_failed(_times(end_ns).to_pylist(), pa.timestamp("us", "UTC")),
                "frame_count": unless_failed(frames.tolist(), pa.int32()),
                "lead_in_s": unless_failed(rng.uniform(0, 2, count).tolist(), pa.float64()),
                "size_bytes": unless_failed((frames * 25_000).tolist(), pa.int64()),
            },
        )

    def _kinds(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Places of the cycle, in order, of which some are skipped and some done twice."""
        steps = rng.choice([0, 1, 2], count, p=[0.05, 0.88, 0.07])
        return self.cycle[(rng.integers(len(self.cycle)) + np.cumsum(steps)) % len(self.cycle)]

    def _starts(self, rng: np.random.Generator, hour: CameraHour, samples: np.ndarray) -> np.ndarray:
        """First samples of primitives that follow each other within the hour."""
        first, stop = GRID.hour_samples(hour.hour_ns)
        room = stop - first - 10
        if samples.sum() + len(samples) > room:  # a busy hour: shorter ones
            samples[:] = np.maximum(1, samples * (room - len(samples)) // max(1, samples.sum()))
        pauses = rng.exponential(1.0, len(samples) + 1)
        pauses *= (room - samples.sum()) / pauses.sum()
        before = np.cumsum(np.concatenate([[0], samples[:-1]])) if len(samples) else np.zeros(0)
        return (first + 2 + before + np.cumsum(pauses)[: len(samples)]).astype(np.int64)

    def _footage(self, rng: np.random.Generator, hour: CameraHour) -> None:
        """The hour's recording, one in fifty with a second file that cannot be used, and its footage."""
        start = to_datetime(hour.start_ns)
        length_s = 3600.0 if rng.random() < 0.95 else float(rng.uniform(1800, 3500))
        end = start + timedelta(seconds=round(length_s, 3))
        recording = {
            "recording_id": _recording_id(hour),
            "camera": hour.camera,
            "uri": _uri(hour),
            "status": "ok",
            "start_time": start,
            "start_source": "file_name",
            "end_time": end,
            "size_bytes": int(length_s * 750_000),
            "etag": "1",
            "registered_at": end + timedelta(minutes=5),
            "container": "mp4",
            "codec": "h264",
            "width_px": 1280,
            "height_px": 720,
            "nominal_fps": 30.0,
        }
        files = [recording]
        if rng.random() < 0.02:
            bad_id = place_id(hour.camera, _uri(hour, "bad")) + "-00000000"
            bad = {"recording_id": bad_id, "uri": _uri(hour, "bad"), "status": "quarantined"}
            files.append({**recording, **bad, "reason": "no video stream"})
        for row in files:
            path = f"{RECORDINGS.name}/camera={hour.camera}/{str(row['recording_id']).partition('-')[0]}.parquet"
            self._write(RECORDINGS, path, rows_table(RECORDINGS, [row]))
        footage = {
            "camera": hour.camera,
            "start_time": start - timedelta(seconds=LEAD_IN_S),
            "end_time": end,
            "status": "ok",
            "used": True,
            "recording_id": recording["recording_id"],
            "uri": recording["uri"],
            "recording_start_time": start,
            "frame_count": int(length_s * 30),
            "measured_fps": 30.0,
            "codec": "h264",
            "width_px": 1280,
            "height_px": 720,
        }
        rows = [footage]
        if length_s < 3600:
            gap = {"status": "gap", "used": False, "reason": "no footage", "recording_id": ""}
            until = start + timedelta(hours=1)
            rows.append({"camera": hour.camera, "start_time": end, "end_time": until, **gap})
        self._write(RAW_VIDEO, self.store.partition_path(RAW_VIDEO, hour), rows_table(RAW_VIDEO, rows))

    def _partition(self, table: Table, hour: CameraHour, columns: dict[str, Any]) -> None:
        self._write(table, self.store.partition_path(table, hour, RELEASE), pa.table(columns))

    def _without_rows(self, table: Table, hour: CameraHour) -> None:
        model = {None: None, "tokenizer": TOKENIZER, "release": RELEASE}[table.model_level]
        path = Path(self.store.full_path(self.store.partition_path(table, hour, model)))
        path.parent.mkdir(parents=True, exist_ok=True)
        if table.name not in self.empty:
            with TableWriter(table, path):
                pass
            self.empty[table.name] = path.read_bytes()
        path.write_bytes(self.empty[table.name])

    def _write(self, table: Table, path: str, rows: pa.Table) -> None:
        """With the product's writer, in place: what is lost with the machine here is made again."""
        full = Path(self.store.full_path(path))
        full.parent.mkdir(parents=True, exist_ok=True)
        with TableWriter(table, full) as writer:
            writer.write(rows)


def _uri(hour: CameraHour, suffix: str = "") -> str:
    stamp = to_datetime(hour.start_ns).strftime("%Y%m%dT%H%M%SZ")
    return f"/recordings/{hour.camera}/{hour.camera}_{stamp}{suffix}.mp4"


def _recording_id(hour: CameraHour) -> str:
    return place_id(hour.camera, _uri(hour)) + "-00000000"


def _repeat(value: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value), count)


def _times(time_ns: np.ndarray) -> pa.Array:
    return pa.array(time_ns // 1000).cast(pa.timestamp("us", "UTC"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--primitives", type=int, default=Size.primitives)
    parser.add_argument("--hours", type=int, default=Size.hours)
    parser.add_argument("--cameras", type=int, default=Size.cameras)
    parser.add_argument("--clusters", type=int, default=Size.clusters)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.perf_counter()
    size = Size(options.primitives, options.hours, options.cameras, options.clusters)
    Generator(Store(str(options.folder)), size, options.seed).fill()
    print(f"{size.primitives:,} primitives in {size.hours:,} camera hours: {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
