"""Work of the reference implementation (jiajiezhang7/LAPS), read from its files as rows of the catalog.

What belongs to one video is told by names: segments in ``<video>_segments.json``; energies in ``<video>….jsonl``, or in
any ``.jsonl`` of a folder that holds one video; codes in any ``.codes.json``, by their segment's id or first frame.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laps.errors import InputError
from laps.reference_files import CodesFile, read_codes_json, read_energy_file, read_segments_json
from laps.timegrid import NS_PER_S, check_camera, parse_utc, to_datetime

SEGMENTS_SUFFIX, CODES_SUFFIX, ENERGY_SUFFIX = "_segments.json", ".codes.json", ".jsonl"
# Times may lie this far beyond the video's length: containers claim a little less than they hold.
_LONGER_S = 0.5
# No video is longer than a year.
_LONGEST_S = 366 * 86_400.0
_MOST_CODE = 2**16 - 1


@dataclass(frozen=True, eq=False)
class Curve:
    """One energy of a video.

    Attributes:
        path: its file.
        source, mode: what it is an energy of, and how it was computed, in the file's words.
        windows: int64[n], rising.
        energies: float64[n].
    """

    path: Path
    source: str
    mode: str
    windows: NDArray[np.int64]
    energies: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Work:
    """What there is of one video.

    Attributes:
        video: the video's name without suffix, from the files' names.
        document: its segments file; None where there is none.
        path: that file.
        curves: its energies.
        codes: codes of its segments.
    """

    video: str
    document: dict[str, Any] | None = None
    path: Path | None = None
    curves: tuple[Curve, ...] = ()
    codes: tuple[CodesFile, ...] = ()

    @property
    def where(self) -> str:
        """The file that errors about the video name."""
        return str(self.path or self.curves[0].path)

    @property
    def parameters(self) -> dict[str, Any]:
        """``segmentation_params`` of the segments file."""
        found = (self.document or {}).get("segmentation_params") or {}
        if not isinstance(found, dict):
            raise InputError('"segmentation_params" must be an object', where=self.where)
        return found

    @property
    def start_ns(self) -> int | None:
        """Time of the first frame where the segments file says it, as exports of this project do."""
        start = self.parameters.get("recording_start")
        if start is None:
            return None
        try:
            return parse_utc(str(start))
        except InputError as error:
            raise InputError(f"its recording_start is no time: {error.what}", where=self.where) from error

    @property
    def duration_s(self) -> float | None:
        """Length of the video where the segments file says it."""
        found = (self.document or {}).get("video_duration_sec")
        return None if found is None else _positive(found, "video_duration_sec", self.where)

    def rates(self, stride: int | None, target_fps: float | None) -> tuple[int, float]:
        """Samples between windows, and samples a second: as given, as the segments file says, or 4 and 10."""
        said_stride, said_fps = self.parameters.get("stride"), self.parameters.get("target_fps")
        chosen = stride if stride is not None else 4 if said_stride is None else said_stride
        if isinstance(chosen, bool) or not isinstance(chosen, int) or chosen < 1:
            raise InputError(f"a stride of {chosen!r} samples cannot be", where=self.where, fix="It is 1 or more.")
        fps = target_fps if target_fps is not None else 10.0 if said_fps is None else said_fps
        return chosen, _positive(fps, "target_fps", self.where)


@dataclass(frozen=True)
class Place:
    """Where and when a video was filmed.

    Attributes:
        camera: the camera.
        start_ns: time of its first frame, nanoseconds since the epoch.
        duration_s: its length; None where nobody knows: then only what no video can be is refused.
        recording_id: its recording in the register, where it is there.
        stride: samples between windows.
        target_fps: samples a second.
    """

    camera: str
    start_ns: int
    duration_s: float | None
    recording_id: str | None
    stride: int
    target_fps: float


@dataclass(frozen=True)
class Rows:
    """The rows of one file of the catalog.

    Attributes:
        key: what identifies the file: the same key again takes its place.
        import_id: hash of the content and of where it stands in time.
        rows: the rows.
    """

    key: str
    import_id: str
    rows: list[dict[str, Any]] = field(repr=False)


def read_work(path: Path) -> list[Work]:
    """What there is of each video in a folder, or in a single file, by the videos' names.

    Raises:
        InputError: there is nothing, a file is not what its name says, or it cannot be told to which video it belongs.
    """
    if not path.exists():
        raise InputError("there is no such file or folder", where=str(path))
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    segments: dict[str, Path] = {}
    for file in files:
        if file.name.endswith(SEGMENTS_SUFFIX) or (file == path and file.suffix == ".json"):
            name = file.name.removesuffix(SEGMENTS_SUFFIX).removesuffix(".json")
            if name in segments:
                raise InputError(f"is a second file of the video {name}, beside {segments[name]}", where=str(file))
            segments[name] = file
    energies = [file for file in files if file.name.endswith(ENERGY_SUFFIX)]
    codes = [read_codes_json(file) for file in files if file.name.endswith(CODES_SUFFIX)]
    if not segments and not energies:
        raise InputError(
            "holds no work of the reference implementation",
            where=str(path),
            fix=f"Its files end in {SEGMENTS_SUFFIX} and {ENERGY_SUFFIX}.",
        )
    curves: dict[str, list[Curve]] = {name: [] for name in segments}
    for file in energies:
        curves.setdefault(_video_of(file, segments), []).append(_curve(file))
    found = []
    for name, mine in sorted(curves.items()):
        document = read_segments_json(segments[name]) if name in segments else None
        if document is not None and "segments" not in document:
            raise InputError('the file has no "segments"', where=str(segments[name]))
        kinds = [(curve.source, curve.mode) for curve in mine]
        for number, kind in enumerate(kinds):
            if kind in kinds[:number]:
                raise InputError(
                    f"is a second energy of {kind[0]}, {kind[1]} of the video {name}", where=str(mine[number].path)
                )
        own = tuple(file for file in codes if len(segments) == 1 or _is_named_in(file, document))
        found.append(Work(name, document, segments.get(name), tuple(mine), own))
    return found


def segment_rows(work: Work, place: Place) -> Rows | None:
    """Rows of :data:`laps.tables.IMPORTED_SEGMENTS`, in order of time; None where there is no segments file.

    Raises:
        InputError: a segment begins before the video or ends after it, its codes are none, or its id occurs twice.
    """
    if work.document is None:
        return None
    by_id = {codes.segment_id: codes for codes in work.codes if codes.segment_id}
    by_frame = {codes.start_frame: codes for codes in work.codes if not codes.segment_id}
    rows = []
    for number, segment in enumerate(work.document["segments"]):
        where = f"{work.where}, segment {number}"
        start_s, end_s = float(segment["start_sec"]), float(segment["end_sec"])
        if start_s < 0:
            raise InputError(f"begins {-start_s:g} s before the video", where=where)
        _check_end(end_s, place, where)
        if segment.get("camera") not in (None, place.camera):
            raise InputError(
                f"is of camera {segment['camera']}, not {place.camera}",
                where=where,
                fix="Import the files of one camera at a time.",
            )
        start_ns = place.start_ns + round(start_s * NS_PER_S)
        given = _optional(segment, "segment_id", str, where)
        codes = segment.get("codes")
        if codes is None:
            file = by_id.get(given or "") or by_frame.get(round(start_s * place.target_fps))
            codes = None if file is None else list(file.codes)
        rows.append(
            {
                "segment_id": given or _hash(place.camera, work.video, start_ns, number)[:16],
                "camera": place.camera,
                "start_time": to_datetime(start_ns),
                "end_time": to_datetime(place.start_ns + round(end_s * NS_PER_S)),
                "duration_s": end_s - start_s,
                "cluster_id": _optional(segment, "cluster_id", int, where),
                "action_name": _optional(segment, "task", str, where),
                "codes": None if codes is None else _codes(codes, where),
                "recording_id": place.recording_id,
                "video": work.video,
            }
        )
    rows.sort(key=lambda row: (row["start_time"], row["segment_id"]))
    ids = [row["segment_id"] for row in rows]
    if len(set(ids)) < len(ids):
        twice = next(one for number, one in enumerate(ids) if one in ids[:number])
        raise InputError(f"the segment_id {twice} occurs twice", where=work.where)
    return _marked(rows, place.camera, work.video)


def energy_rows(work: Work, place: Place) -> list[Rows]:
    """Rows of :data:`laps.tables.IMPORTED_ENERGY`, one list for each energy.

    Raises:
        InputError: a window is negative, or lies beyond the video.
    """
    made = []
    for curve in work.curves:
        if curve.windows[0] < 0:
            raise InputError(f"window {curve.windows[0]} lies before the video", where=str(curve.path))
        offsets_s = curve.windows * place.stride / place.target_fps
        _check_end(float(offsets_s[-1]), place, f"{curve.path}, window {curve.windows[-1]}")
        rows = [
            {
                "camera": place.camera,
                "time": to_datetime(place.start_ns + round(offset_s * NS_PER_S)),
                "window": window,
                "energy": energy,
                "source": curve.source,
                "mode": curve.mode,
                "recording_id": place.recording_id,
                "video": work.video,
            }
            for window, offset_s, energy in zip(
                curve.windows.tolist(), offsets_s.tolist(), curve.energies.tolist(), strict=True
            )
        ]
        made.append(_marked(rows, place.camera, work.video, curve.source, curve.mode))
    return made


def _video_of(file: Path, segments: dict[str, Path]) -> str:
    """The video that an energy file belongs to."""
    if named := [name for name in segments if file.name.startswith(name)]:
        return max(named, key=len)
    beside = [name for name, path in segments.items() if path.parent == file.parent]
    if len(beside) == 1 or len(segments) == 1:
        return (beside or list(segments))[0]
    if beside or (segments and file.parent.name not in segments):
        raise InputError(
            "it cannot be told which video this energy belongs to",
            where=str(file),
            fix="Begin its name with the video's, put each video's files into a folder, or import one at a time.",
        )
    return file.absolute().parent.name


def _curve(file: Path) -> Curve:
    windows, energies, source, mode = read_energy_file(file)
    return Curve(file, source, mode, windows, energies)


def _is_named_in(codes: CodesFile, document: dict[str, Any] | None) -> bool:
    rows = [] if document is None else document["segments"]
    return any(row.get("segment_id") == codes.segment_id for row in rows) and codes.segment_id is not None


def _check_end(offset_s: float, place: Place, where: str) -> None:
    ends_s = _LONGEST_S if place.duration_s is None else place.duration_s
    if offset_s > ends_s + _LONGER_S:
        raise InputError(
            f"lies at {offset_s:g} s, and the video ends at {ends_s:g} s",
            where=where,
            fix="Check that these are the files of that video, and its target_fps and stride.",
        )


def _codes(codes: Any, where: str) -> list[int]:
    if not isinstance(codes, list) or not all(type(code) is int and 0 <= code <= _MOST_CODE for code in codes):
        raise InputError(f"codes are whole numbers from 0 to {_MOST_CODE}", where=where)
    return codes


def _optional(segment: dict[str, Any], name: str, kind: type, where: str) -> Any:
    value = segment.get(name)
    too_large = isinstance(value, int) and not -(2**31) <= value < 2**31
    if value is not None and (type(value) is not kind or too_large):
        raise InputError(f"its {name} cannot be {value!r}", where=where)
    return value


def _positive(value: Any, name: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise InputError(f"{name} cannot be {value!r}", where=where, fix="It is a number above 0.")
    return float(value)


def _marked(rows: Sequence[dict[str, Any]], *key: object) -> Rows:
    """The rows with the id of their import, which is a hash of all that is in them."""
    check_camera(str(key[0]))
    import_id = _hash(*key, *(sorted(row.items()) for row in rows))[:12]
    return Rows(_hash(*key)[:16], import_id, [{**row, "import_id": import_id} for row in rows])


def _hash(*parts: object) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part}\0".encode())
    return digest.hexdigest()
