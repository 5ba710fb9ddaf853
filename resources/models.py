"""The model registry: models by the hash of their content, and releases that name which of them belong together.

A *model* is a folder ``models/<kind>/<id>/``; it never changes once it is there. A *release* is a folder
``models/releases/<name>/`` with one small file for each slot (tokenizer, calibration of a camera, embedder,
vision encoder, cluster model), so that two runs that fill different slots never overwrite each other.
``models/current.json`` names the release that runs use unless they name another. Releases are opened as drafts,
filled stage by stage, and become current by promotion; a filled slot of a promoted release never changes.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from laps.errors import InputError, ModelMismatchError, NotProcessedError
from resources.store import Store

CURRENT = "models/current.json"
RELEASES = "models/releases"

TOKENIZER = "tokenizer"
CALIBRATION = "calibration"
EMBEDDER = "embedder"
ENCODER = "encoder"
CLUSTER_MODEL = "cluster_model"

CALIBRATION_FILE = "calibration.json"

# In the order in which they are made: a new model leaves what stands before it and empties what stands after it.
SLOTS = (TOKENIZER, CALIBRATION, EMBEDDER, ENCODER, CLUSTER_MODEL)


@dataclass(frozen=True)
class Release:
    """What a release holds at the moment of reading.

    Attributes:
        name: ``r1``, ``r2``, …; also the folder name of its tables.
        status: ``draft``, ``current`` or ``retired`` (was current once).
        tokenizer, embedder, encoder, cluster_model: model ids, None where the slot is empty.
        calibrations: calibration id of each camera.
        note: why it was opened.
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

    def require(self, slot: str, camera: str | None = None) -> str:
        """The model id in a slot; NotProcessedError that names the asset to materialize when it is empty."""
        filled = self.calibrations.get(camera or "") if slot == CALIBRATION else getattr(self, slot)
        if filled is None:
            asset = {TOKENIZER: "motion_tokenizer", CALIBRATION: f"segmenter_calibration of camera {camera}"}
            raise NotProcessedError(
                f"has no {slot.replace('_', ' ')} yet",
                where=f"release {self.name}",
                fix=f"Materialize {asset.get(slot, slot)} first.",
            )
        return str(filled)


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
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "laps" / kind / model_id
        if not (cache / "complete").exists():
            cache.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache.parent) as temporary:
                fetched = self.store.get_folder(path, Path(temporary) / "model")
                if not cache.exists():
                    fetched.rename(cache)
        return cache

    # --- releases ----------------------------------------------------------------------------------------------

    def current_name(self) -> str | None:
        return str(self.store.read_json(CURRENT)["release"]) if self.store.exists(CURRENT) else None

    def current(self) -> Release | None:
        name = self.current_name()
        return self.release(name) if name else None

    def names(self) -> list[str]:
        found = {path.split("/")[2] for path in self.store.files(RELEASES, "release.json")}
        return sorted(found, key=lambda name: (len(name), name))

    def releases(self) -> list[Release]:
        return [self.release(name) for name in self.names()]

    def drafts(self) -> list[Release]:
        return [release for release in self.releases() if release.status == "draft"]

    def release(self, name: str) -> Release:
        folder = f"{RELEASES}/{name}"
        if not self.store.exists(f"{folder}/release.json"):
            known = ", ".join(self.names()) or "none yet"
            raise InputError(f"there is no release {name!r}", where=self.store.root, fix=f"Releases: {known}.")
        about = self.store.read_json(f"{folder}/release.json")
        slots: dict[str, str] = {}
        calibrations: dict[str, str] = {}
        for path in self.store.files(folder, ".json"):
            parts = path.removeprefix(f"{folder}/").removesuffix(".json").split("/")
            if parts[0] == CALIBRATION:
                calibrations[parts[1]] = self.store.read_json(path)["id"]
            elif parts[0] in SLOTS:
                slots[parts[0]] = self.store.read_json(path)["id"]
        promoted_at = None
        if self.store.exists(f"{folder}/promoted.json"):
            promoted_at = self.store.read_json(f"{folder}/promoted.json")["at"]
        if self.current_name() == name:
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
            **slots,
        )

    def open_draft(self, note: str, based_on: Release | None = None, before: str | None = None) -> Release:
        """Open a new draft, with the models of another release that are made before a slot."""
        names = self.names()
        name = f"r{1 + max((int(known[1:]) for known in names if known[1:].isdigit()), default=0)}"
        self.store.write_json(f"{RELEASES}/{name}/release.json", {"note": note, "created_at": _now()})
        if based_on is not None:
            kept = SLOTS[: SLOTS.index(before)] if before else SLOTS
            for slot in kept:
                if slot == CALIBRATION:
                    for camera, model_id in based_on.calibrations.items():
                        self._write_slot(name, slot, model_id, camera)
                elif (model_id := getattr(based_on, slot)) is not None:
                    self._write_slot(name, slot, model_id)
        return self.release(name)

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
                fix="Name one in the run configuration (release: …) or promote one (laps promote NAME).",
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
                fix="Name one in the run configuration (release: …).",
            )
        if drafts:
            return drafts[0]
        return self.open_draft(f"opened for a new {slot.replace('_', ' ')}", based_on=current, before=slot)

    def fill(self, release: Release, slot: str, model_id: str, camera: str | None = None) -> None:
        """Put a model into a release; a filled slot of a promoted release never changes."""
        if slot not in SLOTS:
            raise InputError(f"a release has no slot {slot!r}", fix=f"Slots: {', '.join(SLOTS)}.")
        filled = release.calibrations.get(camera or "") if slot == CALIBRATION else getattr(release, slot)
        if filled == model_id:
            return
        self._check_open(release, slot, camera)
        self._write_slot(release.name, slot, model_id, camera)

    def promote(self, name: str) -> Release:
        """Make a release current, in one step; it must be complete."""
        release = self.release(name)
        filled = {slot: getattr(release, slot) for slot in SLOTS if slot != CALIBRATION}
        filled[CALIBRATION] = release.calibrations or None
        empty = [slot for slot in SLOTS if filled[slot] is None]
        if empty:
            raise InputError(f"cannot become current: it has no {', '.join(empty)}", where=f"release {name}")
        self.store.write_json(f"{RELEASES}/{name}/promoted.json", {"at": _now()})
        self.store.write_json(CURRENT, {"release": name, "at": _now()})
        return self.release(name)

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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
