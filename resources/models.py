"""The model registry: models by the hash of their content, and releases that name which of them belong together.

A *model* is a folder ``models/<kind>/<id>/``; it never changes once it is there. A *release* is a folder
``models/releases/<name>/`` with one small file for each slot (tokenizer, calibration of a camera, embedder,
vision encoder, cluster model), so that two runs that fill different slots never overwrite each other.
``models/current.json`` names the release that runs use unless they name another. Releases are opened as drafts,
filled stage by stage, and become current by promotion; a filled slot of a promoted release never changes. In a draft
a model that takes another's place empties the slots whose models were made with the old one.
"""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from laps.errors import InputError, ModelMismatchError, NotProcessedError
from laps.tables import CLUSTER_ASSIGNMENTS, TABLES, Table
from resources.settings import first_hour_ns
from resources.store import Store, cache_folder

if TYPE_CHECKING:
    from laps.calibration import Calibration
    from laps.clustering import ClusterModel
    from laps.timegrid import CameraHour

CURRENT = "models/current.json"
RELEASES = "models/releases"
_NAMED_HOURS = 5

TOKENIZER = "tokenizer"
CALIBRATION = "calibration"
EMBEDDER = "embedder"
ENCODER = "encoder"
CLUSTER_MODEL = "cluster_model"

CALIBRATION_FILE = "calibration.json"
CLUSTER_MODEL_FILE = "clusters.json"
# As laps.tokenizer.files writes it, which loads torch.
TRAINING_FILE = "training.json"

# In the order in which they are made.
SLOTS = (TOKENIZER, CALIBRATION, EMBEDDER, ENCODER, CLUSTER_MODEL)
# The slots whose models are made with the model of a slot (an embedder takes vectors of the tokenizer's width).
DEPENDENTS = {
    TOKENIZER: (CALIBRATION, EMBEDDER, CLUSTER_MODEL),
    CALIBRATION: (CLUSTER_MODEL,),
    EMBEDDER: (CLUSTER_MODEL,),
    ENCODER: (),
    CLUSTER_MODEL: (),
}
_MADE_BY = {
    TOKENIZER: "motion_tokenizer",
    CALIBRATION: "segmenter_calibration",
    EMBEDDER: "segment_embeddings",
    ENCODER: "visual_features",
    CLUSTER_MODEL: "cluster_model",
}


@dataclass(frozen=True)
class Release:
    """What a release holds at the moment of reading.

    Attributes:
        name: ``r1``, ``r2``, …; also the folder name of its tables.
        status: ``draft``, ``current`` or ``retired`` (was current once).
        tokenizer, embedder, encoder, cluster_model: model ids, None where the slot is empty.
        calibrations: calibration id of each camera.
        note: why it was opened.
        current: name of the release that runs use unless they name another; None before there is one.
    """

    name: str
    status: str
    note: str = ""
    created_at: str = ""
    promoted_at: str | None = None
    tokenizer: str | None = None
    embedder: str | None = None
    encoder: str | None = None
    cluster_model: str | None = None
    calibrations: dict[str, str] = field(default_factory=dict)
    current: str | None = None

    @property
    def in_run(self) -> str:
        """How a run is made to work with this release, as the end of a sentence; empty where runs do by themselves."""
        if self.current in (None, self.name):
            return ""
        return (
            f", with release {self.name} in the run configuration (resources: release: config: name: {self.name}), "
            f"or run `laps backfill --release {self.name}`"
        )

    @property
    def models(self) -> set[tuple[str, str]]:
        """Kind and id of each model that it names."""
        filled = {(slot, getattr(self, slot)) for slot in SLOTS if slot != CALIBRATION}
        filled |= {(CALIBRATION, model_id) for model_id in self.calibrations.values()}
        return {(slot, model_id) for slot, model_id in filled if model_id is not None}

    def require(self, slot: str, camera: str | None = None) -> str:
        """The model id in a slot; NotProcessedError that names the asset to materialize when it is empty."""
        filled = self.calibrations.get(camera or "") if slot == CALIBRATION else getattr(self, slot)
        if filled is None:
            raise NotProcessedError(
                f"has no {slot.replace('_', ' ')} yet",
                where=f"release {self.name}",
                fix=f"Materialize {_asset(slot, camera)} first{self.in_run}.",
            )
        return str(filled)

    def model_of(self, table: Table) -> str | None:
        """The folder above a table's partitions: the release's name, the id of one of its models, or None.

        NotProcessedError where the table is kept by a model that the release does not have yet.
        """
        if table.model_level is None:
            return None
        return self.name if table.model_level == "release" else self.require(table.model_level)


@contextmanager
def naming(release: Release) -> Iterator[None]:
    """Errors about what a release lacks also say how a run is made to work with it, where runs use another."""
    try:
        yield
    except (NotProcessedError, ModelMismatchError) as error:
        fix = (error.fix or "Materialize it first").rstrip(".")
        if not release.in_run or release.in_run in fix:
            raise
        told = type(error)(error.what, where=error.where, fix=f"{fix}{release.in_run}.")
        # It says all that the first one did, so that it stands in its place.
        raise told.with_traceback(error.__traceback__) from None


class ModelRegistry:
    """Models and releases in a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    # --- models ------------------------------------------------------------------------------------------------

    def put(self, kind: str, model_id: str, folder: Path) -> None:
        """Publish a model's files; a model that is already there is left as it is."""
        path = f"models/{kind}/{model_id}"
        if not self.store.exists(f"{path}/complete"):
            self.store.put_folder(folder, path)
            # The marker goes last: a folder without it is an upload that did not finish.
            self.store.write_bytes(f"{path}/complete", b"")

    def has(self, kind: str, model_id: str) -> bool:
        return self.store.exists(f"models/{kind}/{model_id}/complete")

    def folder(self, kind: str, model_id: str) -> Path:
        """A local folder with the model's files."""
        path = f"models/{kind}/{model_id}"
        if not self.has(kind, model_id):
            raise NotProcessedError(f"the store has no {kind} {model_id}", where=self.store.url(path))
        if self.store.is_local:
            return Path(self.store.full_path(path))
        cache = cache_folder() / kind / model_id
        if not (cache / "complete").exists():
            cache.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache.parent) as temporary:
                fetched = self.store.get_folder(path, Path(temporary) / "model")
                if cache.exists() and not (cache / "complete").exists():
                    # Something has removed a part of it. Others may be at it too.
                    with contextlib.suppress(OSError):
                        cache.rename(Path(temporary) / "incomplete")
                try:
                    fetched.rename(cache)
                except OSError:
                    if not (cache / "complete").exists():  # else another process was faster
                        raise
        return cache

    def calibration(self, release: Release, camera: str) -> Calibration:
        """A camera's calibration in a release.

        Raises:
            NotProcessedError: the release has none of this camera.
        """
        from laps.calibration import Calibration

        stored = self.folder(CALIBRATION, release.require(CALIBRATION, camera)) / CALIBRATION_FILE
        return Calibration.from_json(stored.read_text(encoding="utf-8"), name=str(stored))

    def clusters(self, release: Release) -> ClusterModel:
        """The cluster model of a release.

        Raises:
            NotProcessedError: the release has none.
        """
        from laps.clustering import ClusterModel

        return ClusterModel.load(self.folder(CLUSTER_MODEL, release.require(CLUSTER_MODEL)))

    def training(self, release: Release) -> dict[str, Any]:
        """How a release's tokenizer was trained: hours, quality, what its codes were like; empty where none was kept.

        Raises:
            NotProcessedError: the release has no tokenizer.
        """
        return self.read_file(TOKENIZER, release.require(TOKENIZER), TRAINING_FILE) or {}

    def read_file(self, kind: str, model_id: str, file: str) -> dict[str, Any] | None:
        """A JSON file of a model, for instance what was measured when it was made; None where none was kept."""
        path = f"models/{kind}/{model_id}/{file}"
        return dict(self.store.read_json(path)) if self.store.exists(path) else None

    # --- releases ----------------------------------------------------------------------------------------------

    def current_name(self) -> str | None:
        try:
            return str(self.store.read_json(CURRENT)["release"])
        except NotProcessedError:  # not asked for first: in object storage that would be one more request
            return None

    def current(self) -> Release | None:
        name = self.current_name()
        return self._release(name, current=name) if name else None

    def names(self) -> list[str]:
        found = {path.split("/")[2] for path in self.store.files(RELEASES, "release.json")}
        return sorted(found, key=lambda name: (len(name), name))

    def releases(self) -> list[Release]:
        return [self.release(name) for name in self.names()]

    def drafts(self) -> list[Release]:
        return [release for release in self.releases() if release.status == "draft"]

    def release(self, name: str) -> Release:
        return self._release(name, current=self.current_name())

    def _release(self, name: str, current: str | None) -> Release:
        folder = f"{RELEASES}/{name}"
        paths = [] if "/" in name else self.store.files(folder, ".json")
        if f"{folder}/release.json" not in paths:
            known = ", ".join(self.names()) or "none yet"
            raise InputError(f"there is no release {name!r}", where=self.store.root, fix=f"Releases: {known}.")
        files = self.store.read_json_files(paths)
        slots: dict[str, str] = {}
        calibrations: dict[str, str] = {}
        for path, content in files.items():
            parts = path.removeprefix(f"{folder}/").removesuffix(".json").split("/")
            if parts[0] == CALIBRATION:
                calibrations[parts[1]] = content["id"]
            elif parts[0] in SLOTS:
                slots[parts[0]] = content["id"]
        about = files[f"{folder}/release.json"]
        promoted_at = files.get(f"{folder}/promoted.json", {}).get("at")
        if current == name:
            status = "current"
        else:
            status = "retired" if promoted_at else "draft"
        return Release(
            name=name,
            status=status,
            note=about["note"],
            created_at=about["created_at"],
            promoted_at=promoted_at,
            calibrations=calibrations,
            current=current,
            **slots,
        )

    def open_draft(self, note: str, based_on: Release | None = None, before: str | None = None) -> Release:
        """Open a new draft, with the models of another release that are made before a slot."""
        taken = {path.split("/")[2] for path in self.store.files(RELEASES)}
        number = 1 + max((int(known[1:]) for known in taken if known[1:].isdigit()), default=0)
        while not self._take(f"r{number}"):
            number += 1
        name = f"r{number}"
        if based_on is not None:
            kept = SLOTS[: SLOTS.index(before)] if before else SLOTS
            for slot in kept:
                if slot == CALIBRATION:
                    for camera, model_id in based_on.calibrations.items():
                        self._write_slot(name, slot, model_id, camera)
                elif (model_id := getattr(based_on, slot)) is not None:
                    self._write_slot(name, slot, model_id)
        # Last, because it makes the release visible: nobody sees a draft that lacks what it starts from.
        self.store.write_json(f"{RELEASES}/{name}/release.json", {"note": note, "created_at": _now()})
        return self.release(name)

    def _take(self, name: str) -> bool:
        """Take a release's name; False when another process has it.

        Exclusive on a local disk and in object storage with conditional writes. Elsewhere the last of two writers
        that pass the first look wins, and the reading back tells the other.
        """
        path = f"{RELEASES}/{name}/taken"
        token = uuid.uuid4().hex.encode()
        return self.store.create(path, token) and self.store.read_bytes(path) == token

    def to_read(self, name: str | None = None) -> Release:
        """The release that a run works with: the named one, else the current one, else the only draft."""
        if name:
            return self.release(name)
        current = self.current()
        if current is not None:
            return current
        drafts = self.drafts()
        if len(drafts) == 1:
            return drafts[0]
        if drafts:
            raise InputError(
                f"no release is current, and there are several drafts ({', '.join(d.name for d in drafts)})",
                fix="Name one in the run configuration (release: …), promote one (laps promote NAME) or discard those "
                "that nobody needs (laps discard NAME).",
            )
        raise NotProcessedError(
            "there is no release yet",
            where=self.store.root,
            fix="Materialize keypoint_tracks of some hours, then motion_tokenizer; `laps backfill` does both.",
        )

    def to_fill(self, slot: str, name: str | None = None, camera: str | None = None) -> Release:
        """The release into which a new model goes.

        The named one; else the current one where it lacks just this model (a new camera); else the only open
        draft; else a new draft that starts from the current release's models made before this one.
        """
        if name:
            release = self.release(name)
            self._check_open(release, slot, camera)
            return release
        current = self.current()
        if slot == CALIBRATION and current is not None and camera not in current.calibrations:
            return current
        drafts = self.drafts()
        if len(drafts) > 1:
            raise InputError(
                f"there are several drafts ({', '.join(draft.name for draft in drafts)})",
                fix="Name one in the run configuration (release: …), or discard those that nobody needs (laps discard "
                "NAME).",
            )
        if drafts:
            return drafts[0]
        return self.open_draft(f"opened for a new {slot.replace('_', ' ')}", based_on=current, before=slot)

    def fill(self, release: Release, slot: str, model_id: str, camera: str | None = None) -> None:
        """Put a model into a release; a filled slot of a promoted release never changes.

        In a draft, a model that takes another's place empties the slots in :data:`DEPENDENTS`. The first
        calibration of a camera takes no other's place.
        """
        if slot not in SLOTS:
            raise InputError(f"a release has no slot {slot!r}", fix=f"Slots: {', '.join(SLOTS)}.")
        release = self.release(release.name)  # it may have changed since it was read, by a long training say
        filled = release.calibrations.get(camera or "") if slot == CALIBRATION else getattr(release, slot)
        if filled == model_id:
            return
        self._check_open(release, slot, camera)
        if filled is not None:
            # First, so that a run that is killed in between leaves an incomplete release and no mixed one.
            for dependent in DEPENDENTS[slot]:
                folder = f"{RELEASES}/{release.name}"
                self.store.delete(f"{folder}/{dependent}" if dependent == CALIBRATION else f"{folder}/{dependent}.json")
        self._write_slot(release.name, slot, model_id, camera)

    def promote(self, name: str, *, even_incomplete: bool = False) -> Release:
        """Make a release current, in one step.

        Args:
            name: the release.
            even_incomplete: also where it lacks hours that the current release has.

        Raises:
            InputError: a slot is empty.
            NotProcessedError: the store lacks one of the models, or the release lacks hours of the current one.
            ModelMismatchError: a calibration or the cluster model was made with other models than the release's.
        """
        release = self.release(name)
        filled = {slot: getattr(release, slot) for slot in SLOTS if slot != CALIBRATION}
        filled[CALIBRATION] = release.calibrations or None
        empty = [slot for slot in SLOTS if filled[slot] is None]
        if empty:
            raise InputError(f"cannot become current: it has no {', '.join(empty)}", where=f"release {name}")
        self._check_made_together(release)
        if not even_incomplete:
            self._check_covers(release)
        self.store.write_json(f"{RELEASES}/{name}/promoted.json", {"at": _now()})
        self.store.write_json(CURRENT, {"release": name, "at": _now()})
        return self.release(name)

    def discard(self, name: str) -> dict[str, int]:
        """Remove a release: its tables, its report, its slots, and what of its models no other release names.

        Its name is not given again: a run that still works with it must not write into another release. With a
        tokenizer go its latent streams. Cluster models stay: they are small, and later ones inherit the names of
        clusters through them.

        Returns:
            The folders that were removed, with the number of files in each.

        Raises:
            InputError: there is no such release, or it is current.
        """
        from laps.compaction import COPIES
        from resources.copies import copy_folder
        from resources.hour_files import clip_files_path

        release = self.release(name)
        if release.status == "current":
            raise InputError(
                "is current, and cannot be discarded", where=f"release {name}", fix="Promote another one first."
            )
        removed = {}
        others = set().union(*(other.models for other in self.releases() if other.name != name))
        unused = sorted(one for one in release.models - others if one[0] != CLUSTER_MODEL)
        # What is kept by release, and latent streams, which are kept by tokenizer.
        folders = [("release", name), *(one for one in unused if one[0] == TOKENIZER)]
        tables = [
            self.store.table_path(table, one)
            for table in TABLES.values()
            for level, one in folders
            if table.model_level == level
        ]
        copies = [copy_folder(copy, name) for copy in COPIES.values() if copy.model_level == "release"]
        models = [f"models/{kind}/{model_id}" for kind, model_id in unused]
        for folder in [*tables, clip_files_path(name), *copies, f"reports/release={name}", *models]:
            if files := self.store.files(folder):
                removed[folder] = len(files)
                self.store.delete(folder)
        # What makes the release visible goes last, so that a discard that was interrupted can be repeated.
        about = f"{RELEASES}/{name}/release.json"
        slots = [path for path in self.store.files(f"{RELEASES}/{name}", ".json") if path != about]
        for path in [*slots, about]:
            self.store.delete(path)
        removed[f"{RELEASES}/{name}"] = len(slots) + 1
        return removed

    def hours_beside(self, name: str, other: str) -> list[CameraHour]:
        """The hours that have their clusters in a release and not in another."""
        have = set(self.store.partitions(CLUSTER_ASSIGNMENTS, other))
        return [hour for hour in self.store.partitions(CLUSTER_ASSIGNMENTS, name) if hour not in have]

    def _check_covers(self, release: Release) -> None:
        """Raise where an hour has its clusters in the current release and not in this one."""
        if release.current is None or release.current == release.name:
            return
        # Where the first hour was moved, nothing makes those before it any more.
        first_ns = first_hour_ns(self.store.root)
        lacking = [hour for hour in self.hours_beside(release.current, release.name) if hour.start_ns >= first_ns]
        if lacking:
            named = ", ".join(hour.key for hour in lacking[:_NAMED_HOURS])
            more = f" and {len(lacking) - _NAMED_HOURS} more" if len(lacking) > _NAMED_HOURS else ""
            raise NotProcessedError(
                f"cannot become current: it lacks {len(lacking)} hour{'s' if len(lacking) > 1 else ''} that release "
                f"{release.current} has: {named}{more}",
                where=f"release {release.name}",
                fix=f"Run `laps backfill --release {release.name} --only missing` first, or promote it without them "
                f"(laps promote {release.name} --even-incomplete).",
            )

    def _check_made_together(self, release: Release) -> None:
        """Raise unless all models are there, and were made with those that the release holds."""
        made_with = {TOKENIZER: release.require(TOKENIZER), EMBEDDER: release.require(EMBEDDER)}
        for slot, model_id in made_with.items():
            self._check_has(release, slot, model_id)
        for camera, calibration_id in sorted(release.calibrations.items()):
            self._check_made_with(release, CALIBRATION, calibration_id, CALIBRATION_FILE, (TOKENIZER,), camera)
        cluster_model_id = release.require(CLUSTER_MODEL)
        self._check_made_with(release, CLUSTER_MODEL, cluster_model_id, CLUSTER_MODEL_FILE, (TOKENIZER, EMBEDDER))

    def _check_has(self, release: Release, slot: str, model_id: str, camera: str | None = None) -> None:
        if not self.has(slot, model_id):
            raise NotProcessedError(
                f"cannot become current: the store has no {slot.replace('_', ' ')} {model_id}",
                where=f"release {release.name}",
                fix=f"Materialize {_asset(slot, camera)} again{release.in_run}.",
            )

    def _check_made_with(
        self,
        release: Release,
        slot: str,
        model_id: str,
        file: str,
        parts: tuple[str, ...],
        camera: str | None = None,
    ) -> None:
        self._check_has(release, slot, model_id, camera)
        about = self.store.read_json(f"models/{slot}/{model_id}/{file}")
        for part in parts:
            used, own = about.get(f"{part}_id"), release.require(part)
            if used != own:
                of_camera = f" of camera {camera}" if camera else ""
                raise ModelMismatchError(
                    f"cannot become current: {slot.replace('_', ' ')} {model_id}{of_camera} was made with the "
                    f"{part} {used}, but the release has {own}",
                    where=f"release {release.name}",
                    fix=f"Materialize {_asset(slot, camera)} again{release.in_run}.",
                )

    def _check_open(self, release: Release, slot: str, camera: str | None) -> None:
        filled = release.calibrations.get(camera or "") if slot == CALIBRATION else getattr(release, slot)
        if release.status != "draft" and filled is not None:
            raise ModelMismatchError(
                f"is {release.status} and already has the {slot.replace('_', ' ')} {filled}",
                where=f"release {release.name}",
                fix="A promoted release does not change: leave `release` empty to open a draft.",
            )

    def slot_path(self, name: str, slot: str, camera: str | None = None) -> str:
        """Where a release's slot lies in the store; a calibration's belongs to a camera."""
        part = f"{slot}/{camera}" if slot == CALIBRATION else slot
        return f"{RELEASES}/{name}/{part}.json"

    def _write_slot(self, name: str, slot: str, model_id: str, camera: str | None = None) -> None:
        if slot == CALIBRATION and camera is None:
            raise InputError("a calibration belongs to a camera")
        self.store.write_json(self.slot_path(name, slot, camera), {"id": model_id, "filled_at": _now()})


def _asset(slot: str, camera: str | None) -> str:
    """The asset that makes a slot's model, in words."""
    return _MADE_BY[slot] + (f" of camera {camera}" if slot == CALIBRATION else "")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
