"""LeRobotDataset v3.0, written with pyarrow and PyAV alone: one episode for each primitive.

Every row is a sample of the absolute grid: ``action`` is the latent action code, and the picture is the one on which
the code's motion begins (see :mod:`laps.export.items`). ``sample`` and ``frame_time_ns`` say which sample and which
frame they are. The episodes' table also holds the primitive's id, camera, times and cluster. Readers pass over columns
that they do not know.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from laps.errors import InputError, MediaError
from laps.export.card import CardFacts, write_card
from laps.export.folder import new_folder
from laps.export.items import (
    ExportItem,
    Progress,
    Summary,
    even_size,
    fitted,
    frame_size,
    in_order,
    sampled_frames,
    watched,
)
from laps.export.stats import PictureStats, scalar_stats

VIDEO_KEY = "observation.images.workstation"
_CHUNKS_SIZE = 1000  # files in a folder
# The reader compares times as float32 with a tolerance of 1e-4 s; from 1024 s on these are 1.2e-4 s apart.
# So a file that holds less than half of that takes an episode of up to half.
_MAX_EPISODE_S = 500
_GOP = 2
_EPISODES_PER_GROUP = 1000
_SCALARS: dict[str, str] = {
    "action": "int64",
    "sample": "int64",
    "frame_time_ns": "int64",
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
_NAMES = {"action": ["latent_action_code"]}
_ARROW = {"int64": pa.int64(), "float32": pa.float32()}


def write_lerobot(
    items: Iterable[ExportItem],
    out: Path,
    *,
    size_px: tuple[int, int] | None = None,
    crf: int = 20,
    data_file_mb: float = 100,
    video_file_mb: float = 200,
    card: CardFacts | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Write the data set: ``meta/``, ``data/`` and ``videos/``.

    Args:
        items: the primitives, in any order; training episodes come before those for validation.
        out: the folder to make; see :func:`laps.export.folder.new_folder`.
        size_px: width and height of the pictures, even; smaller ones of another shape get black borders. None takes
            the size of the clips, which must then be one.
        crf: quality of the video, 0 (best) to 51.
        data_file_mb: a table's file takes no further episode beyond this size.
        video_file_mb: the same of a video's file.
        card: adds a data set card.
        progress: told each primitive that was written or left out.

    Raises:
        InputError: nothing is selected, or the clips differ in size and ``size_px`` is not given.
        NotProcessedError: not one primitive could be written.
    """
    if size_px is not None and (min(size_px) < 2 or size_px != even_size(size_px)):
        raise InputError(f"pictures cannot be {size_px[0]} x {size_px[1]} px", fix="Give even numbers from 2 on.")
    ordered = in_order(items)
    options: dict[str, Any] = {"size_px": size_px, "crf": crf, "video_key": VIDEO_KEY, "fps": ordered[0].rate_hz}
    summary = Summary("lerobot v3.0", options=options)
    with new_folder(out) as folder:
        data = _DataFiles(folder, int(data_file_mb * 1e6))
        video = _VideoFiles(folder, ordered[0].rate_hz, crf, int(video_file_mb * 1e6))
        episodes = _Episodes(folder, native=size_px is None)
        try:
            for item in watched(ordered, progress):
                try:
                    size_px = _add_episode(item, size_px, data, video, episodes)
                except MediaError as error:
                    video.discard()
                    summary.skipped.append((item.segment_id, str(error)))
                    continue
                summary.written.append(item)
                summary.frames += len(item.codes)
                summary.codes += len(item.codes)
        finally:
            data.close()
            video.close()
            episodes.close()
        summary.check_not_empty()
        assert size_px is not None
        pq.write_table(_tasks_table(list(episodes.tasks)), folder / "meta/tasks.parquet")
        stats = {name: scalar_stats(data.column(name)) for name in _SCALARS} | {VIDEO_KEY: episodes.pictures.stats()}
        _write_json(folder / "meta/stats.json", stats)
        info = _info(summary, size_px, len(episodes.tasks), int(data_file_mb), int(video_file_mb))
        _write_json(folder / "meta/info.json", info)
        if card is not None:
            write_card(folder, card, summary)
    return summary


def _add_episode(
    item: ExportItem, size: tuple[int, int] | None, data: _DataFiles, video: _VideoFiles, episodes: _Episodes
) -> tuple[int, int]:
    """Write one primitive; nothing of it is kept when its clip fails. Returns the size of the pictures."""
    if not item.codes:
        raise MediaError("it is shorter than a sample, so it has no codes", where=item.where)
    if len(item.codes) > _MAX_EPISODE_S * item.rate_hz:
        raise MediaError(f"it is longer than {_MAX_EPISODE_S} s, the most that is written", where=item.where)
    shown = frame_size(item)
    if size is None:
        size = even_size(shown)
    elif episodes.native and even_size(shown) != size:
        raise InputError(
            f"its pictures have {shown[0]} x {shown[1]} px and those before {size[0]} x {size[1]}",
            where=item.where,
            fix="A data set has one size: give one (size_px, or --size WxH), or export each camera by itself.",
        )
    pictures = PictureStats()
    times_ns: list[int] = []
    latest: NDArray[np.uint8] | None = None
    for frame in sampled_frames(item):
        if latest is None or frame.time_ns != times_ns[-1]:
            latest = fitted(frame, shown, size)
        times_ns.append(frame.time_ns)
        pictures.add(latest)
        video.encode(latest)
    video_place = video.commit()
    task_index = episodes.tasks.setdefault(item.task, len(episodes.tasks))
    count = len(item.codes)
    columns: dict[str, NDArray[Any]] = {
        "action": np.asarray(item.codes, dtype=np.int64),
        "sample": item.first_sample + np.arange(count),
        "frame_time_ns": np.asarray(times_ns, dtype=np.int64),
        "timestamp": (np.arange(count) / item.rate_hz).astype(np.float32),
        "frame_index": np.arange(count),
        "episode_index": np.full(count, episodes.count),
        "index": episodes.frames + np.arange(count),
        "task_index": np.full(count, task_index),
    }
    data_place = data.add(columns)
    episodes.add(item, columns, pictures, data_place, video_place)
    return size


class _Numbering:
    """Chunk and file numbers: after so many files the chunk goes up and the file starts again at 0."""

    def __init__(self) -> None:
        self._count = -1

    def advance(self) -> None:
        self._count += 1

    def go_back(self) -> None:
        self._count -= 1

    @property
    def place(self) -> tuple[int, int]:
        return divmod(self._count, _CHUNKS_SIZE)

    def path(self, folder: Path, ending: str) -> Path:
        chunk, file = self.place
        path = folder / f"chunk-{chunk:03d}" / f"file-{file:03d}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


class _DataFiles:
    """The rows, one row group for each episode."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder, self._most_bytes = folder / "data", most_bytes
        self._numbering = _Numbering()
        self._writer: pq.ParquetWriter | None = None
        self._file: Any = None
        self._schema = pa.schema([pa.field(name, _ARROW[kind]) for name, kind in _SCALARS.items()])

    def add(self, columns: dict[str, NDArray[Any]]) -> tuple[int, int]:
        """Write an episode; returns chunk and file number."""
        if self._writer is None or self._file.tell() >= self._most_bytes:
            self.close()
            self._numbering.advance()
            self._file = self._numbering.path(self._folder, "parquet").open("wb")
            self._writer = pq.ParquetWriter(self._file, self._schema, compression="snappy")
        self._writer.write_table(pa.table(columns, schema=self._schema))
        return self._numbering.place

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._file.close()
            self._writer = None

    def column(self, name: str) -> NDArray[Any]:
        """A feature over the whole set, read back: only one is in memory at a time."""
        files = sorted(self._folder.glob("*/*.parquet"))
        return np.concatenate([pq.read_table(file, columns=[name])[name].to_numpy() for file in files])


class _VideoFiles:
    """The pictures of the episodes one after the other, at a constant rate.

    An episode's packets wait until it is whole, so one whose clip breaks off leaves nothing behind.
    """

    def __init__(self, folder: Path, fps: int, crf: int, most_bytes: int) -> None:
        self._folder, self._fps, self._most_bytes = folder / "videos" / VIDEO_KEY, fps, most_bytes
        # Without look-ahead a picture's packet comes at once; one thread: the same bytes on every machine.
        self._options = {"preset": "veryfast", "tune": "zerolatency", "crf": str(crf), "g": str(_GOP)}
        self._options |= {"bf": "0", "forced-idr": "1"}
        self._numbering = _Numbering()
        self._output: Any = None
        self._stream: Any = None
        self._waiting: list[Any] = []
        self._encoded = 0  # pictures given to this file's encoder
        self._frames = 0  # pictures in this file
        self._bytes = 0

    def encode(self, picture: NDArray[np.uint8]) -> None:
        """Compress the episode's next picture, uint8 [h, w, 3]."""
        if not self._waiting and (self._output is None or self._full):
            self._open_next(picture)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
        frame.pts = self._encoded
        frame.time_base = Fraction(1, self._fps)
        if not self._waiting:
            frame.pict_type = av.video.frame.PictureType.I  # an episode leans on none before it
        self._encoded += 1
        self._waiting += self._stream.encode(frame)

    @property
    def _full(self) -> bool:
        return self._bytes >= self._most_bytes or self._frames >= _MAX_EPISODE_S * self._fps

    def commit(self) -> tuple[int, int, int, int]:
        """Write the episode; returns chunk and file number, first frame and the one after the last."""
        first = self._frames
        for packet in self._waiting:
            packet.time_base = Fraction(1, self._fps)
            packet.pts = packet.dts = self._frames
            packet.duration = 1
            self._bytes += packet.size
            self._output.mux(packet)
            self._frames += 1
        self._waiting = []
        return (*self._numbering.place, first, self._frames)

    def discard(self) -> None:
        """Forget the episode's pictures, and the file when it was to be the first in it."""
        self._waiting = []
        if self._output is not None and self._frames == 0:
            self.close()
            self._numbering.path(self._folder, "mp4").unlink(missing_ok=True)
            self._numbering.go_back()

    def close(self) -> None:
        if self._output is not None:
            self._output.close()
            self._output = None

    def _open_next(self, picture: NDArray[np.uint8]) -> None:
        self.close()
        self._numbering.advance()
        path = self._numbering.path(self._folder, "mp4")
        self._output = av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"})
        self._stream = self._output.add_stream("libx264", rate=self._fps, options=self._options)
        self._stream.height, self._stream.width = picture.shape[:2]
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = Fraction(1, self._fps)
        self._stream.codec_context.thread_count = 1
        self._encoded = self._frames = self._bytes = 0


@dataclass
class _Episodes:
    """The table of episodes, and what is counted over them."""

    folder: Path
    native: bool  # pictures keep the size of the clips
    tasks: dict[str, int] = field(default_factory=dict)
    pictures: PictureStats = field(default_factory=PictureStats)
    frames: int = 0
    count: int = 0
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _writer: pq.ParquetWriter | None = None

    def add(
        self,
        item: ExportItem,
        columns: dict[str, NDArray[Any]],
        pictures: PictureStats,
        data_place: tuple[int, int],
        video_place: tuple[int, int, int, int],
    ) -> None:
        count = len(item.codes)
        row: dict[str, Any] = {
            "episode_index": self.count,
            "tasks": [item.task],
            "length": count,
            "data/chunk_index": data_place[0],
            "data/file_index": data_place[1],
            "dataset_from_index": self.frames,
            "dataset_to_index": self.frames + count,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
            f"videos/{VIDEO_KEY}/chunk_index": video_place[0],
            f"videos/{VIDEO_KEY}/file_index": video_place[1],
            # From whole frames: added durations would drift beyond the reader's tolerance.
            f"videos/{VIDEO_KEY}/from_timestamp": video_place[2] / item.rate_hz,
            f"videos/{VIDEO_KEY}/to_timestamp": video_place[3] / item.rate_hz,
            "segment_id": item.segment_id,
            "camera": item.camera,
            "start_ns": item.start_ns,
            "end_ns": item.end_ns,
            "cluster_id": item.cluster_id,
            "split": item.split,
        }
        stats = {name: scalar_stats(values) for name, values in columns.items()} | {VIDEO_KEY: pictures.stats()}
        for name, figures in stats.items():
            row |= {f"stats/{name}/{figure}": value for figure, value in figures.items()}
        self._rows.append(row)
        self.pictures.merge(pictures)
        self.frames += count
        self.count += 1
        if len(self._rows) == _EPISODES_PER_GROUP:
            self._flush()

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        if not self._rows:
            return
        table = pa.Table.from_pylist(self._rows)
        # Rows without any cluster would leave the column without a type.
        place = table.schema.get_field_index("cluster_id")
        table = table.set_column(place, "cluster_id", table["cluster_id"].cast(pa.int64()))
        if self._writer is None:
            path = self.folder / "meta/episodes/chunk-000/file-000.parquet"
            path.parent.mkdir(parents=True)
            self._writer = pq.ParquetWriter(path, table.schema)
        self._writer.write_table(table)
        self._rows = []


def _tasks_table(tasks: list[str]) -> pa.Table:
    """The tasks as pandas writes a frame with the text as its index, which the reader relies on."""
    index = "__index_level_0__"

    def column(name: str | None, field_name: str, kind: str, numpy_kind: str) -> dict[str, Any]:
        return {
            "name": name,
            "field_name": field_name,
            "pandas_type": kind,
            "numpy_type": numpy_kind,
            "metadata": None,
        }

    metadata = {
        "index_columns": [index],
        "column_indexes": [],
        "columns": [
            column("task_index", "task_index", "int64", "int64"),
            column(None, index, "unicode", "object"),
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), index: pa.array(tasks, pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(metadata)})


def _info(summary: Summary, size: tuple[int, int], tasks: int, data_mb: int, video_mb: int) -> dict[str, Any]:
    count = len(summary.written)
    train = sum(item.split == "train" for item in summary.written)
    splits = {"train": f"0:{train}", "validation": f"{train}:{count}"}
    fps = summary.written[0].rate_hz
    width, height = size
    features: dict[str, Any] = {
        VIDEO_KEY: {
            "dtype": "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
            "info": {
                "video.height": height,
                "video.width": width,
                "video.codec": "h264",
                "video.pix_fmt": "yuv420p",
                "video.fps": fps,
                "video.channels": 3,
                "has_audio": False,
                "video.is_depth_map": False,
            },
        }
    }
    features |= {name: {"dtype": kind, "shape": [1], "names": _NAMES.get(name)} for name, kind in _SCALARS.items()}
    return {
        "codebase_version": "v3.0",
        "robot_type": "human_workstation",
        "total_episodes": count,
        "total_frames": summary.frames,
        "total_tasks": tasks,
        "chunks_size": _CHUNKS_SIZE,
        "data_files_size_in_mb": data_mb,
        "video_files_size_in_mb": video_mb,
        "fps": fps,
        "splits": {name: place for name, place in splits.items() if len(set(place.split(":"))) == 2},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": features,
    }


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
