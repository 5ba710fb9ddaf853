"""Data sets for training: written to a folder with their card, and published in the store.

In the store a data set lies below ``datasets/<name>/<version>/``. Its card is written last, and a folder without one
is no data set: it is what a run left that was killed, and the next run of that version replaces it. A version that is
there never changes.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laps.errors import InputError, StoreError
from laps.export.card import CARD_JSON, CHECKSUMS, CardFacts
from laps.export.items import Progress, Summary
from laps.export.lapa import write_lapa
from laps.export.lerobot import write_lerobot
from laps.export.segments import Source, write_segments
from laps.export.webdataset import write_webdataset
from laps.timegrid import NS_PER_S, from_datetime
from resources.curation import Chosen, Selection, choose
from resources.models import TOKENIZER, Release
from resources.recordings import Recordings
from resources.reporting import calibrations
from resources.settings import store_grid
from resources.store import Store

FORMATS = ("lerobot", "webdataset", "lapa", "segments")
DATASETS = "datasets"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_NUMBERED = re.compile(r"v([1-9][0-9]*)")


@dataclass(frozen=True)
class Format:
    """In which form a data set is written.

    Attributes:
        name: one of :data:`FORMATS`.
        size_px: width and height of the pictures (lerobot, lapa); None leaves them as the clips have them.
        codes_per_line: codes on a line (lapa); None: 4.
    """

    name: str
    size_px: tuple[int, int] | None = None
    codes_per_line: int | None = None

    def __post_init__(self) -> None:
        if self.name not in FORMATS:
            raise InputError(f"{self.name!r} is no format of data sets", fix=f"Formats: {', '.join(FORMATS)}.")
        for option, value, formats in (
            ("size of pictures", self.size_px, ("lerobot", "lapa")),
            ("number of codes on a line", self.codes_per_line, ("lapa",)),
        ):
            if value is not None and self.name not in formats:
                raise InputError(
                    f"there is no {option} to choose in {self.name}",
                    fix=f"Leave it out, or use {' or '.join(formats)}.",
                )


def format_of(options: Mapping[str, Any]) -> Format:
    """A format from the plain values of a run's configuration; other keys are passed over."""
    size = options.get("size_px")
    if size is not None and len(size) != 2:
        raise InputError(f"a size is a width and a height, not {size}")
    return Format(options["format"], None if size is None else (size[0], size[1]), options.get("codes_per_line"))


def write_dataset(
    store: Store,
    release: Release,
    chosen: Chosen,
    form: Format,
    out: Path,
    *,
    name: str,
    progress: Progress | None = None,
) -> Summary:
    """Write chosen primitives to a new local folder, with a card.

    Args:
        store: the store.
        release: the release that they were chosen from.
        chosen: the primitives.
        form: in which form.
        out: the folder to make; it appears whole or not at all.
        name: the data set's name on its card.
        progress: told each primitive that was written or left out.

    Raises:
        InputError: the folder holds something, or pictures differ in size where the format needs one.
        NotProcessedError: not one primitive could be written.
    """
    items, card = chosen.items, card_facts(store, release, chosen, name)
    if form.name == "lerobot":
        return write_lerobot(items, out, size_px=form.size_px, card=card, progress=progress)
    if form.name == "webdataset":
        return write_webdataset(items, out, card=card, progress=progress)
    if form.name == "lapa":
        lines = form.codes_per_line or 4
        return write_lapa(items, out, codes_per_line=lines, size_px=form.size_px, card=card, progress=progress)
    grid = store_grid(store)
    sources = _sources(store, {item.camera for item in items})
    return write_segments(
        items, out, sources=sources, window=grid.window, stride=grid.stride, card=card, progress=progress
    )


def card_facts(store: Store, release: Release, chosen: Chosen, name: str) -> CardFacts:
    """What the card says beside the contents."""
    cameras = {item.camera for item in chosen.items}
    found = {camera: one for camera, one in calibrations(store, release).items() if camera in cameras}
    models = {
        "release": release.name,
        "tokenizer": release.tokenizer,
        "embedder": release.embedder,
        "cluster_model": release.cluster_model,
        **{f"calibration of {camera}": one.calibration_id for camera, one in found.items()},
    }
    return CardFacts(
        name=name,
        query=chosen.query,
        options=chosen.selection.options(),
        models={role: model_id for role, model_id in models.items() if model_id is not None},
        thresholds={
            camera: {"theta_on": one.settings.theta_on, "theta_off": one.settings.theta_off}
            for camera, one in found.items()
        },
        encoder=release.encoder,
        licences=[_licence_of(tracker_of(store, release))],
        notes=[f"Selection: {chosen.funnel}."],
    )


def tracker_of(store: Store, release: Release) -> str:
    """The tracker, with its settings, on whose tracks the release's tokenizer was trained."""
    path = f"models/{TOKENIZER}/{release.require(TOKENIZER)}/config.json"
    return str(store.read_json(path)["config"]["tracker_id"])


def _licence_of(tracker_id: str) -> str:
    if tracker_id.startswith("cotracker"):
        return (
            f"Tracked with CoTracker ({tracker_id}), whose code and weights are CC BY-NC 4.0: no commercial use. The "
            "codes, boundaries and clusters of this data set were made with it."
        )
    return f"Tracked with {tracker_id}: optical flow of OpenCV (Apache-2.0), without weights."


def _sources(store: Store, cameras: set[str]) -> dict[str, Source]:
    """The recordings of cameras by id, with the start that holds now; such as have a known length."""
    recordings = Recordings(store)
    return {
        row["recording_id"]: Source(
            video=str(row["uri"]).rpartition("/")[2],
            start_ns=from_datetime(row["start_time"]),
            duration_s=(from_datetime(row["end_time"]) - from_datetime(row["start_time"])) / NS_PER_S,
        )
        for camera in sorted(cameras)
        for row in recordings.of_camera(camera)
        if row["status"] == "ok" and row["end_time"] is not None
    }


# --- in the store ----------------------------------------------------------------------------------------------


def dataset_path(name: str, version: str) -> str:
    """Where a data set lies below the store's root; InputError when name or version cannot be folders."""
    for what, text in (("name", name), ("version", version)):
        if not _NAME.fullmatch(text):
            raise InputError(
                f"{text!r} cannot be a data set's {what}",
                fix="Use 1 to 63 lower-case letters, digits, '_' or '-', beginning with a letter or digit.",
            )
    return f"{DATASETS}/{name}/{version}"


def dataset_key(name: str, version: str) -> str:
    """The partition key of a data set, ``<name>/<version>``."""
    return dataset_path(name, version).removeprefix(f"{DATASETS}/")


def parse_key(key: str) -> tuple[str, str]:
    """Inverse of :func:`dataset_key`."""
    name, _, version = key.partition("/")
    dataset_path(name, version)
    return name, version


def dataset_keys(store: Store) -> list[str]:
    """The partition keys of all data sets that are whole."""
    # A folder of another name was not exported.
    names = [name for name in store.folders(DATASETS) if _NAME.fullmatch(name)]
    return [f"{name}/{version}" for name in names for version in versions(store, name)]


def versions(store: Store, name: str) -> list[str]:
    """The versions of a data set that are whole, in order; their files are not listed, which may be many."""
    folder = dataset_path(name, "v1").rpartition("/")[0]
    whole = [one for one in store.folders(folder) if store.exists(f"{folder}/{one}/{CARD_JSON}")]
    return sorted(whole, key=lambda one: (len(one), one))


def next_version(store: Store, name: str) -> str:
    """``v1``, or one above the highest such number."""
    numbers = [int(match[1]) for one in versions(store, name) if (match := _NUMBERED.fullmatch(one))]
    return f"v{max(numbers, default=0) + 1}"


def check_new(store: Store, name: str, version: str) -> str:
    """The path of a version that is not there yet; InputError when it is."""
    path = dataset_path(name, version)
    if store.exists(f"{path}/{CARD_JSON}"):
        raise InputError(
            "there is such a data set, and a version never changes",
            where=store.url(path),
            fix=f"Choose another version; the next one is {next_version(store, name)}.",
        )
    return path


def publish(store: Store, folder: Path, name: str, version: str) -> str:
    """Put a data set that was written to a folder into the store; returns its path below the root.

    Raises:
        InputError: the version is there already.
        StoreError: another run was writing the same version.
    """
    path = check_new(store, name, version)
    for left in store.files(path):  # of a run that did not finish
        store.delete(left)
    card = folder / CARD_JSON
    content, sums = card.read_bytes(), (folder / CHECKSUMS).read_bytes()
    card.unlink()
    store.put_folder(folder, path)
    mine = sorted(f"{path}/{file.relative_to(folder).as_posix()}" for file in folder.rglob("*") if file.is_file())
    if store.files(path) != mine or store.read_bytes(f"{path}/{CHECKSUMS}") != sums:
        raise StoreError(
            "another run was writing the same version", where=store.url(path), fix="Run one of them again, alone."
        )
    # Last, and only if nobody else was faster: what makes it a data set.
    if not store.create(f"{path}/{CARD_JSON}", content):
        check_new(store, name, version)
    return path


@dataclass(frozen=True)
class Export:
    """A data set in the store.

    Attributes:
        chosen: the primitives that were chosen.
        summary: what was written of them.
        card: its card.
        path: where it lies, below the store's root.
    """

    chosen: Chosen
    summary: Summary
    card: dict[str, Any]
    path: str


def export(store: Store, release: Release, selection: Selection, form: Format, *, name: str, version: str) -> Export:
    """Choose, write and publish a data set; errors as :func:`choose`, :func:`write_dataset` and :func:`publish`."""
    check_new(store, name, version)
    chosen = choose(store, release, selection)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "dataset"
        summary = write_dataset(store, release, chosen, form, folder, name=f"{name} {version}")
        card = json.loads((folder / CARD_JSON).read_text(encoding="utf-8"))
        return Export(chosen, summary, card, publish(store, folder, name, version))
