"""Dagster resources: every choice about the outside world, each a described field.

The classes hold only configuration; what they construct lives in the plain modules beside this one and in
``laps``, which know nothing of Dagster. All heavy imports happen when something is constructed.
"""

from __future__ import annotations

import contextlib
import math
import os
from typing import TYPE_CHECKING, Literal

import dagster as dg
from pydantic import Field

from laps.errors import InputError
from resources.landing import LandingZone
from resources.models import ModelRegistry
from resources.recordings import Recordings
from resources.release import ReleaseResource
from resources.store import Store
from resources.time_limit import DECODE_LIMIT_S

if TYPE_CHECKING:
    from laps.trackers import Tracker
    from laps.vision import VisionEncoder


class StoreResource(dg.ConfigurableResource):
    """Where tables, models, clips and reports are kept."""

    root: str = Field(
        default="",
        description="Local folder or URL (s3://bucket/prefix). Empty: LAPS_STORE, then ./.laps.",
    )

    def open(self) -> Store:
        return Store(self.root or None)

    def models(self) -> ModelRegistry:
        return ModelRegistry(self.open())


class RecordingsResource(dg.ConfigurableResource):
    """Where recordings arrive, and how they are read."""

    landing: str = Field(
        default="",
        description="Folder or URL with <camera>/… below it. Empty: LAPS_LANDING, then ./.laps/landing.",
    )
    decode_threads: int = Field(
        default=1,
        ge=1,
        description="Threads that decode one video. 1 costs the least CPU; more shorten a single run.",
    )
    decode_limit_s: float = Field(
        default=DECODE_LIMIT_S,
        gt=0,
        description="Seconds without a decoded frame or clip after which a run's process ends itself: a codec hangs.",
    )
    stable_s: float = Field(
        default=30.0,
        ge=0,
        description="The sensor takes a file on a disk when its size and time stayed the same for so long, seconds.",
    )
    quiet_s: float = Field(
        default=300.0,
        ge=0,
        description="The sensor requests an hour when nothing was registered in it for so long, seconds: an hour is "
        "observed as a whole, so its files should all be there.",
    )

    def open(self, store: Store) -> Recordings:
        return Recordings(store, self.landing or None)

    def watch(self, store: Store) -> LandingZone:
        return LandingZone(self.open(store), stable_s=self.stable_s, quiet_s=self.quiet_s)


class TrackerResource(dg.ConfigurableResource):
    """Which point tracker makes the keypoint tracks. Tokenizers never cross trackers."""

    kind: str = Field(
        default="flow",
        description="flow: dense inverse search optical flow on the CPU, no weights. "
        "cotracker: CoTracker3 on a GPU (package and weights are CC BY-NC 4.0: no commercial use).",
    )
    preset: str = Field(default="ultrafast", description="flow only: ultrafast, fast or medium.")
    checkpoint: str = Field(
        default="",
        description="cotracker only: path of a checkpoint. Empty: torch hub's CoTracker3 online weights.",
    )
    variant: Literal["online", "offline"] = Field(default="online", description="cotracker only: which CoTracker3.")
    device: str = Field(default="auto", description="cotracker only: auto, cuda or cpu.")
    batch_windows: int = Field(default=8, ge=1, description="cotracker only: windows in one batch.")

    def build(self) -> Tracker:
        if self.kind == "flow":
            from laps.trackers.flow import FlowTracker

            return FlowTracker(preset=self.preset)
        if self.kind == "cotracker":
            from laps.trackers.cotracker import CoTracker

            return CoTracker(
                self.checkpoint or None, variant=self.variant, device=self.device, batch_windows=self.batch_windows
            )
        raise InputError(f"there is no tracker {self.kind!r}", fix="Choose flow or cotracker.")


class VisionResource(dg.ConfigurableResource):
    """Which vision encoder judges the clusters' coherence (ICSS)."""

    kind: str = Field(
        default="weight_free",
        description="weight_free: a HOG and colour descriptor that needs no weights and is no vision-language "
        "model; named as such in every table. open_clip: the real encoder.",
    )
    model: str = Field(default="ViT-B-32", description="open_clip only: architecture, or a hub name (hf-hub:…).")
    pretrained: str = Field(
        default="laion2b_s34b_b79k",
        description="open_clip only: tag of the weights, or the path of a checkpoint.",
    )
    device: str = Field(default="auto", description="open_clip only: auto, cuda or cpu.")

    def build(self) -> VisionEncoder:
        from laps.vision import OpenClipEncoder, WeightFreeEncoder

        if self.kind == "weight_free":
            return WeightFreeEncoder()
        if self.kind == "open_clip":
            return OpenClipEncoder(self.model, self.pretrained, device=self.device)
        raise InputError(f"there is no vision encoder {self.kind!r}", fix="Choose weight_free or open_clip.")


def vision_from_environment() -> VisionResource:
    """The vision encoder that ``LAPS_VISION`` and ``LAPS_CLIP_WEIGHTS`` choose."""
    return VisionResource(
        kind=os.environ.get("LAPS_VISION", "weight_free"),
        pretrained=os.environ.get("LAPS_CLIP_WEIGHTS", "laion2b_s34b_b79k"),
    )


def _seconds(name: str, default: float) -> float:
    """An environment variable that holds seconds."""
    text = os.environ.get(name) or str(default)
    with contextlib.suppress(ValueError):
        if 0 <= (seconds := float(text)) < math.inf:
            return seconds
    raise InputError(f"{text!r} is no number of seconds, 0 or more", where=name, fix="Give it like 30 or 0.5.")


def default_resources() -> dict[str, dg.ConfigurableResource]:
    """The resources of a deployment; environment variables choose store, landing zone, tracker and encoder."""
    return {
        "store": StoreResource(),
        "release": ReleaseResource(),
        "recordings": RecordingsResource(
            stable_s=_seconds("LAPS_STABLE_S", 30.0),
            quiet_s=_seconds("LAPS_QUIET_S", 300.0),
        ),
        "tracker": TrackerResource(
            kind=os.environ.get("LAPS_TRACKER", "flow"),
            checkpoint=os.environ.get("LAPS_COTRACKER_CHECKPOINT", ""),
        ),
        "vision": vision_from_environment(),
    }
