"""GTEA, Breakfast and 50 Salads as MS-TCN (Farha and Gall 2019) and its followers distribute them.

::

    <folder>/groundTruth/<name>.txt           a label a frame, one a line
    <folder>/mapping.txt                      "<number> <label>", one a line
    <folder>/splits/train.split<N>.bundle     names of files of groundTruth, one a line
    <folder>/splits/test.split<N>.bundle
    <folder>/videos/…                         any suffix, any depth; comes from the dataset's own page

A video belongs to the labels of its name (``S1_Cheese_C1.mp4``, ``rgb-01-1.avi``). Breakfast's own tree is understood
too: ``P03/cam01/P03_cereals.avi`` is ``P03_cam01_P03_cereals``, and of ``P03/stereo/P03_cereals_ch0.avi`` and
``_ch1.avi`` the one whose length is nearer to the labels' is ``P03_stereo01_P03_cereals``.

A label stands for a frame, so its time follows from the frame rate: the video's, where there is one, else the
dataset's (GTEA 15, Breakfast 15, 50 Salads 30 frames a second).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from laps.benchmarks.labels import truth_of_frames
from laps.errors import InputError, LapsError
from laps.timegrid import NS_PER_S
from laps.video import probe, scan_frames

Part = Literal["train", "test"]

LONGEST_DIFFERENCE_S = 1.0
"""Labels and video may differ by this (50 Salads' labels are 8 frames shorter than its videos)."""

_NO_VIDEOS = {".txt", ".json", ".csv", ".npy", ".npz", ".mat", ".xml", ".labels", ".md", ".zip", ".gz"}
_LONGEST_VIDEO_NS = 24 * 3600 * NS_PER_S


@dataclass(frozen=True)
class Layout:
    """One of the datasets.

    Attributes:
        name: as on the command line.
        title: as in tables.
        fps: frame rate of its videos and labels.
        background: labels that are no action.
    """

    name: str
    title: str
    fps: float
    background: tuple[str, ...]


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("gtea", "GTEA", 15.0, ("background",)),
        Layout("breakfast", "Breakfast", 15.0, ("SIL",)),
        Layout("50salads", "50 Salads", 30.0, ("action_start", "action_end")),
    )
}


@dataclass(frozen=True)
class Item:
    """One labelled video.

    Attributes:
        name: as in ``groundTruth`` and the splits, without suffix.
        video: the file; None where there is none.
        truth: as :func:`laps.evaluation.evaluate` takes it; background segments are in it, see
            :attr:`Layout.background`.
        fps: frame rate that the labels' times follow from.
        fps_from: ``video``, ``layout`` (no video, or it claims no rate) or ``given``.
        splits: the part of each split that it belongs to, by the split's number.
    """

    name: str
    video: Path | None
    truth: dict[str, Any]
    fps: float
    fps_from: Literal["video", "layout", "given"]
    splits: dict[int, Part]

    @property
    def duration_s(self) -> float:
        return float(self.truth["duration_sec"])


@dataclass(frozen=True)
class Dataset:
    """What could be read.

    Attributes:
        layout: which dataset it is.
        folder: where it lies.
        items: in order of their names.
        splits: numbers of the splits, ascending.
        problems: what was left out, and why, by the item's name.
    """

    layout: Layout
    folder: Path
    items: list[Item]
    splits: list[int]
    problems: dict[str, str] = field(default_factory=dict)

    def part(self, split: int, part: Part) -> list[Item]:
        """The items of one part of a split."""
        return [item for item in self.items if item.splits.get(split) == part]


def load_dataset(
    folder: Path,
    layout: str = "auto",
    *,
    split: int | None = None,
    label_fps: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Read a dataset; what is wrong with a single item leaves it out and is reported.

    Args:
        folder: the dataset's folder.
        layout: a key of :data:`LAYOUTS`, or ``auto``: known by the background labels in ``mapping.txt``.
        split: read the items of this split only.
        label_fps: frame rate of the labels, where it is neither the videos' nor the dataset's.
        progress: is told how many items of how many are done.

    Raises:
        InputError: the folder, ``groundTruth``, ``mapping.txt`` or the split is missing or unreadable, the layout is
            unknown, or nothing could be read.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise InputError(f"there is no layout {layout!r}", fix=f"The layouts are {', '.join(LAYOUTS)}.")
    if label_fps is not None and not label_fps > 0:
        raise InputError(f"the frame rate of the labels must be above 0, not {label_fps}")
    if not folder.is_dir():
        raise InputError("there is no such folder", where=str(folder))
    labels_folder = folder / "groundTruth"
    if not labels_folder.is_dir():
        raise InputError("there is no folder groundTruth", where=str(folder), fix="Give the folder that holds it.")
    mapping = _read_mapping(folder / "mapping.txt")
    chosen = _detect(mapping, folder) if layout == "auto" else LAYOUTS[layout]
    splits = _read_splits(folder / "splits")
    if split is not None and split not in splits:
        there = ", ".join(map(str, sorted(splits))) or "none"
        raise InputError(f"there is no split {split} (there are: {there})", where=str(folder / "splits"))
    member: dict[str, dict[int, Part]] = {}
    for number, parts in splits.items():
        for part, names in parts.items():
            for name in names:
                member.setdefault(name, {})[number] = part
    files = {path.stem: path for path in sorted(labels_folder.glob("*.txt"))}
    wanted = sorted(files if split is None else (name for name, of in member.items() if split in of))
    videos = _find_videos(folder, breakfast=chosen.name == "breakfast")

    items, problems = [], {}
    for done, name in enumerate(wanted, start=1):
        try:
            if name not in files:
                raise InputError(
                    "there is no such file, but a split names it", where=str(labels_folder / f"{name}.txt")
                )
            of = member.get(name, {})
            items.append(_read_item(files[name], videos.get(name.casefold(), []), mapping, chosen, of, label_fps))
        except LapsError as error:
            problems[name] = str(error)
        if progress is not None:
            progress(done, len(wanted))
    if not items:
        first = next(iter(problems.values()), "there are no files")
        raise InputError(f"nothing could be read; the first reason is: {first}", where=str(labels_folder))
    return Dataset(chosen, folder, items, sorted(splits), problems)


def _read_item(
    path: Path,
    videos: list[Path],
    mapping: dict[str, int],
    layout: Layout,
    splits: dict[int, Part],
    label_fps: float | None,
) -> Item:
    labels = [line.strip() for line in _lines(path)]
    if not labels:
        raise InputError("the file holds no labels", where=str(path))
    for number, label in enumerate(labels, start=1):
        if label not in mapping:
            raise InputError(f"the label {label!r} is not in mapping.txt", where=f"{path}, line {number}")
    video, fps, fps_from = _matching_video(path, len(labels), videos, layout, label_fps)
    names = {str(number): name for name, number in mapping.items()}
    truth = truth_of_frames([mapping[label] for label in labels], fps=fps, names=names)
    return Item(path.stem, video, truth, fps, fps_from, splits)


def _matching_video(
    path: Path, count: int, videos: list[Path], layout: Layout, label_fps: float | None
) -> tuple[Path | None, float, Literal["video", "layout", "given"]]:
    """Of the candidates, the video whose length is nearest to the labels', and the labels' frame rate."""
    if not videos:
        return (None, layout.fps, "layout") if label_fps is None else (None, label_fps, "given")
    found: list[tuple[float, float, Path, float, Literal["video", "layout", "given"]]] = []
    failed: LapsError | None = None
    for video in videos:
        try:
            duration_s, claimed_fps = _length(video)
        except LapsError as error:
            failed = error
            continue
        fps = label_fps or claimed_fps or layout.fps
        source: Literal["video", "layout", "given"] = "given" if label_fps else "video" if claimed_fps else "layout"
        found.append((abs(count / fps - duration_s), duration_s, video, fps, source))
    if not found:
        raise failed or InputError("the video cannot be read", where=str(videos[0]))
    difference_s, duration_s, video, fps, source = min(found, key=lambda one: one[0])
    if difference_s > LONGEST_DIFFERENCE_S:
        raise InputError(
            f"{count} labels at {fps:g} frames/s last {count / fps:.1f} s, but the video {video} {duration_s:.1f} s",
            where=str(path),
            fix="Use the dataset's own video, or give the frame rate of the labels.",
        )
    return video, fps, source


def _length(video: Path) -> tuple[float, float | None]:
    """Length in seconds and claimed frame rate of a video."""
    try:
        with video.open("rb") as file:
            info = probe(file, name=str(video))
            if info.duration_s:
                return info.duration_s, info.nominal_fps
            times_ns = scan_frames(file, name=str(video), from_ns=0, to_ns=_LONGEST_VIDEO_NS).times_ns
    except OSError as error:
        raise InputError(f"the file cannot be read ({error.strerror})", where=str(video)) from error
    last_s = float(times_ns[-1]) / NS_PER_S if len(times_ns) else 0.0
    return last_s + (1 / info.nominal_fps if info.nominal_fps else 0.0), info.nominal_fps


def _find_videos(folder: Path, *, breakfast: bool) -> dict[str, list[Path]]:
    """Video files by the names that they may have in ``groundTruth``, in lower case."""
    found: dict[str, list[Path]] = {}
    for root in sorted(path for path in folder.iterdir() if path.is_dir() and path.name.casefold() == "videos"):
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            if path.suffix.casefold() in _NO_VIDEOS or path.name.startswith("."):
                continue
            names = {path.stem.casefold()}
            if breakfast:
                camera = "stereo01" if path.parent.name == "stereo" else path.parent.name
                plain = re.sub(r"_ch[01]$", "", path.stem)
                names.add(f"{path.parent.parent.name}_{camera}_{plain}".casefold())
            for name in names:
                found.setdefault(name, []).append(path)
    return found


def _read_mapping(path: Path) -> dict[str, int]:
    """Number of each label."""
    mapping = {}
    for number, line in enumerate(_lines(path), start=1):
        words = line.split(maxsplit=1)
        if len(words) != 2 or not words[0].isdecimal():
            raise InputError('the line is not "<number> <label>"', where=f"{path}, line {number}")
        mapping[words[1].strip()] = int(words[0])
    if not mapping:
        raise InputError("the file holds no labels", where=str(path))
    return mapping


def _read_splits(folder: Path) -> dict[int, dict[Part, list[str]]]:
    splits: dict[int, dict[Part, list[str]]] = {}
    parts: tuple[Part, ...] = ("train", "test")
    for part in parts:
        for path in sorted(folder.glob(f"{part}.split*.bundle")):
            match = re.fullmatch(rf"{part}\.split(\d+)\.bundle", path.name)
            if match:
                splits.setdefault(int(match[1]), {})[part] = [Path(line.strip()).stem for line in _lines(path)]
    return splits


def _detect(mapping: Iterable[str], folder: Path) -> Layout:
    there = set(mapping)
    for layout in LAYOUTS.values():
        if set(layout.background) <= there:
            return layout
    raise InputError(
        "mapping.txt names no background label of a known dataset",
        where=str(folder),
        fix=f"Name the layout: {', '.join(LAYOUTS)}.",
    )


def _lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"the file cannot be read ({error.strerror})", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise InputError("the file is no UTF-8 text", where=str(path)) from error
    return [line for line in text.splitlines() if line.strip()]
