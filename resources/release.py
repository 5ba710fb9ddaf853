"""Which release a run works with, as one Dagster resource for all of its assets."""

from __future__ import annotations

import dagster as dg
from pydantic import Field

from resources.models import ModelRegistry, Release
from resources.store import Store


class ReleaseResource(dg.ConfigurableResource):
    """The release that a run reads models from, and the draft that it fills."""

    name: str = Field(
        default="",
        description="Release to work with, for example r2. Empty: the current one (or the only draft); a stage "
        "that makes a new model fills the open draft, or opens one.",
    )

    def read(self, store: Store) -> Release:
        return ModelRegistry(store).to_read(self.name or None)

    def to_fill(self, store: Store, slot: str, camera: str | None = None) -> Release:
        return ModelRegistry(store).to_fill(slot, self.name or None, camera)
