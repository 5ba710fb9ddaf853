"""What an installation needs, looked at piece by piece: ``laps doctor``.

Each look is a function that yields findings; what is wrong comes with what to do. Nothing is left behind: the store
is written to and the file taken away again.
"""

from __future__ import annotations

import contextlib
import io
import os
import platform
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from laps.errors import LapsError
from laps_dagster.instance import dagster_home

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from resources.store import Store

PROJECT = "laps-dagster"
# Decoders that cameras' files need, and what clips are encoded with where they cannot be copied.
DECODERS = ("h264", "hevc", "mpeg4", "mjpeg", "mpeg2video", "vp9")
ENCODER = "libx264"
# An hour of a camera at 640x360 and 1 Mbit/s leaves some 670 MiB in the store (docs/operations.md).
LITTLE_ROOM_BYTES = 10 * 10**9
# What else takes room: logs of runs, 3 GB in a year of forty a day; files of an hour on their way up; models.
LITTLE_ROOM_BESIDE_BYTES = 2 * 10**9
LITTLE_MEMORY_BYTES = 4 * 10**9
HEARTBEAT_S = 120.0
# What LAPS_AUTOMATION switches on, in the order of a day.
AUTOMATED = ("landing_files", "retention", "nightly", "morning", "weekly")
# The name that Dagster gives to what `-m laps_dagster.definitions` loads.
LOCATION = "laps_dagster.definitions"
# Dagster's UI is slow with more than 100,000 partitions.
MANY_PARTITIONS = 80_000


@dataclass(frozen=True)
class Finding:
    """What a look found.

    Attributes:
        subject: what was looked at.
        level: ``ok``; ``note``: works, but somebody may want to know; ``problem``: something will fail.
        said: what is so, in one line.
        fix: what to do about it.
    """

    subject: str
    level: Literal["ok", "note", "problem"]
    said: str
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def examine() -> Iterator[Finding]:
    """All findings, as they are made."""
    for subject, look in LOOKS.items():
        try:
            yield from look()
        except LapsError as error:
            yield _problem(subject, error)
        except OSError as error:
            yield Finding(subject, "problem", f"{error.filename or ''} {error.strerror or error}".strip())


def _problem(subject: str, error: LapsError, before: str = "") -> Finding:
    where = f"{error.where}: " if error.where else ""
    return Finding(subject, "problem", f"{before}{where}{error.what}", error.fix or "")


# --- the program and the machine ---------------------------------------------------------------------------------


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    yield Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    try:
        needed = metadata.requires(PROJECT) or []
    except metadata.PackageNotFoundError:
        yield Finding("packages", "problem", f"{PROJECT} is not installed", "Run `make install`, or pip install it.")
        return
    wrong = []
    for text in needed:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is not installed")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, needed is {requirement.specifier}")
    if wrong:
        yield Finding("packages", "problem", "; ".join(wrong), "Run `make install` again, or install what is named.")
    else:
        shown = ("dagster", "torch", "av", "duckdb", "pyarrow", "s3fs")
        yield Finding("packages", "ok", ", ".join(f"{name} {metadata.version(name)}" for name in shown))


def _machine() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    if capability == "DEFAULT":
        said = f"{cores} cores without AVX2 or NEON"
        yield Finding("cpu", "note", said, "Tracking and the tokenizer run several times slower here.")
    else:
        yield Finding("cpu", "ok", f"{cores} cores, {capability}")
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        fix = "A run takes about 1 GB: set max_concurrent_runs in dagster.yaml to what fits."
        yield Finding(
            "memory", "ok" if memory >= LITTLE_MEMORY_BYTES else "note", f"{memory / 10**9:.1f} GB",
            "" if memory >= LITTLE_MEMORY_BYTES else fix,
        )  # fmt: skip
    if torch.cuda.is_available():
        yield Finding("gpu", "ok", f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
    elif os.environ.get("LAPS_TRACKER") == "cotracker":
        said = "none, and LAPS_TRACKER=cotracker: without one CoTracker is very slow"
        fix = (
            "Track on a machine with a GPU, its driver and a PyTorch that is built for it, or with LAPS_TRACKER=flow, "
            "which takes a release of its own."
        )
        yield Finding("gpu", "note", said, fix)
    else:
        yield Finding("gpu", "ok", "none; only CoTracker would need one")


def _codecs() -> Iterator[Finding]:
    import av
    import numpy as np

    from laps.video import probe

    missing = [name for name in DECODERS if name not in av.codecs_available]
    fix = "Install PyAV's wheel from the package index (pip install --force-reinstall av): it brings FFmpeg."
    if missing:
        yield Finding("codecs", "problem", f"no decoder for {', '.join(missing)}", fix)
    if ENCODER not in av.codecs_available:
        yield Finding("codecs", "problem", f"no encoder {ENCODER}: clips that cannot be copied fail", fix)
        return
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream(ENCODER, rate=10, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    info = probe(file, name="a video made here")
    if not missing:
        yield Finding("codecs", "ok", f"a video was written and read ({info.codec}, FFmpeg by PyAV {av.__version__})")


def _tracker() -> Iterator[Finding]:
    from resources.configured import TrackerResource, default_resources

    tracker = default_resources()["tracker"]
    assert isinstance(tracker, TrackerResource)
    said = "flow: needs no weights" if tracker.kind == "flow" else tracker.build().tracker_id
    yield Finding("tracker", "ok", said)


def _vision() -> Iterator[Finding]:
    from resources.configured import VisionResource, default_resources

    vision = default_resources()["vision"]
    assert isinstance(vision, VisionResource)
    if vision.kind == "weight_free":
        said = "weight_free: coherence is judged by edges and colours, not by a vision-language model"
        fix = "LAPS_VISION=open_clip uses CLIP, where its weights are on this machine or can be downloaded."
        yield Finding("vision encoder", "note", said, fix)
    else:
        yield Finding("vision encoder", "ok", vision.build().encoder_id)


# --- the store ---------------------------------------------------------------------------------------------------


def _store() -> Iterator[Finding]:
    from resources.settings import SETTINGS, store_settings
    from resources.store import Store

    store = Store()
    if store.is_local and not Path(store.root).exists():
        yield _place_for(Path(store.root))
        return
    path = f"doctor-{uuid.uuid4().hex}"
    store.write_bytes(path, b"written by laps doctor")
    try:
        store.read_bytes(path)
    finally:
        store.delete(path)
    yield Finding("store", "ok", f"{store.root} can be read and written")
    if store.exists(SETTINGS):
        yield Finding("first hour", "ok", str(store_settings(store)["first_hour"]))
        yield _partitions(store)
        yield from _models(store)
    else:
        yield Finding(
            "first hour", "note", "the store is not used yet", "LAPS_FIRST_HOUR decides how far back it goes."
        )


def _partitions(store: Store) -> Finding:
    """How many camera hours Dagster has to show: all since the first hour, with footage or without."""
    from laps.timegrid import HOUR_NS, now_ns
    from resources.recordings import Recordings
    from resources.settings import SETTINGS, first_hour_ns

    cameras = len(Recordings(store).offered())
    hours = max(0, now_ns() - first_hour_ns(store.root)) // HOUR_NS + 1
    said = f"{cameras * hours:,} camera hours ({cameras} cameras, {hours:,} hours since the first)"
    if cameras * hours < MANY_PARTITIONS:
        return Finding("partitions", "ok", said)
    fix = (
        f"From 100,000 on Dagster's UI is slow: write a later first_hour into {store.url(SETTINGS)}, and the same into "
        "LAPS_FIRST_HOUR where that is set; then restart web server and daemon. Old hours stay in the store and the "
        "catalog, and are not made again any more."
    )
    return Finding("partitions", "note", said, fix)


def _place_for(root: Path) -> Finding:
    """Whether a store that does not exist can be made."""
    there = next(place for place in root.parents if place.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        said = f"{root} does not exist, and {there} cannot be written ({error.strerror})"
        return Finding("store", "problem", said, "Name another place by --store or LAPS_STORE.")
    return Finding("store", "note", f"{root} does not exist yet", "The first command that writes makes it.")


def _room() -> Iterator[Finding]:
    """Room where something grows, or waits on its way to object storage; of what is not there yet, where it will be."""
    from resources.store import Store, cache_folder

    store = Store()
    if store.is_local:
        yield _free("the store", Path(store.root), LITTLE_ROOM_BYTES, "Make room before a long backfill.")
    old_runs = "`LAPS_KEEP_RUNS_DAYS=7 laps retention apply` removes logs of old runs, and what is over age of tables."
    yield _free("runs and their logs", dagster_home(), LITTLE_ROOM_BESIDE_BYTES, old_runs)
    if not store.is_local:
        uploads = Path(tempfile.gettempdir())
        yield _free("uploads", uploads, LITTLE_ROOM_BESIDE_BYTES, "Make room, or set TMPDIR to another folder.")
        other = "Make room, or set XDG_CACHE_HOME to another folder. What is in it is fetched again."
        yield _free("models that were fetched", cache_folder(), LITTLE_ROOM_BESIDE_BYTES, other)


def _free(what: str, folder: Path, little_bytes: int, fix: str) -> Finding:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free
    said = f"{free / 10**9:,.1f} GB free for {what}, in {folder}"
    return Finding("room", "note", said, fix) if free < little_bytes else Finding("room", "ok", said)


def _models(store: Store) -> Iterator[Finding]:
    """The current release and whether its models can be loaded."""
    from laps.tokenizer.files import load
    from resources.catalog import open_catalog
    from resources.models import ModelRegistry

    registry = ModelRegistry(store)
    release = registry.current()
    if release is None:
        drafts = ", ".join(draft.name for draft in registry.drafts())
        said = f"none is current (drafts: {drafts})" if drafts else "none yet"
        fix = "`laps promote NAME` makes a draft current." if drafts else "`laps backfill` makes the first."
        yield Finding("release", "note", said, fix)
    else:
        if release.tokenizer is not None:
            load(registry.folder("tokenizer", release.tokenizer))
        yield Finding("release", "ok", f"{release.name}, its tokenizer loads")
        for draft in registry.drafts():
            said = f"{draft.name} ({draft.note}, {draft.created_at}) waits beside {release.name}, and nothing uses it"
            fix = (
                f"Look at `laps report --release {draft.name} --out {draft.name}.html`, then "
                f"`laps promote {draft.name}` or `laps discard {draft.name}`."
            )
            yield Finding("draft", "note", said, fix)
    with contextlib.closing(open_catalog(store)) as connection:
        count = connection.execute("SELECT count(*) FROM primitives").fetchall()[0][0]
    yield Finding("catalog", "ok", f"opens, {count} primitives")


def _landing() -> Iterator[Finding]:
    from resources.recordings import landing_root
    from resources.store import Store

    landing = Store(landing_root())
    if landing.is_local and Path(landing.root).exists() and not os.access(landing.root, os.R_OK | os.X_OK):
        yield Finding("landing zone", "problem", f"{landing.root} may not be read", "Give this user the right to.")
        return
    # Listed before it is looked for: to a look at a bucket, keys that are refused are a bucket that is not there.
    cameras = landing.folders("")
    if not cameras and not landing.fs.exists(landing.full_path("").rstrip("/")):
        fix = "Make it, or name another by LAPS_LANDING; recordings elsewhere are registered by `laps ingest FILE`."
        yield Finding("landing zone", "note", f"{landing.root} does not exist", fix)
        return
    yield Finding(
        "landing zone", "ok", f"{landing.root}, {len(cameras)} camera folder{'' if len(cameras) == 1 else 's'}"
    )


# --- Dagster -----------------------------------------------------------------------------------------------------


def _definitions() -> Iterator[Finding]:
    """What web server and daemon load. A daemon that cannot goes on, does nothing, and says so in its log only."""
    cannot = "web server and daemon cannot load them: "
    try:
        from dagster import Definitions

        from laps_dagster.definitions import defs

        Definitions.validate_loadable(defs)
    except LapsError as error:
        yield _problem("definitions", error, cannot)
    except Exception as error:  # noqa: BLE001  whatever keeps them from loading is a finding
        said = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        fix = f"`dagster definitions validate -m {LOCATION}` shows the whole error."
        yield Finding("definitions", "problem", f"{cannot}{said}", fix)
    else:
        yield Finding("definitions", "ok", "can be loaded by web server and daemon")


def _dagster() -> Iterator[Finding]:
    from dagster import DagsterError, DagsterInvalidConfigError

    from laps_dagster.instance import open_instance, records_error

    home = dagster_home()
    if not (home / "dagster.yaml").exists():
        yield Finding("dagster", "note", f"{home} is not used yet", "The first backfill or `laps dev` makes it.")
        yield from _automation()
        return
    try:
        with open_instance() as instance:
            yield from _instance(instance, home)
    except Exception as error:
        known = records_error(error)
        if known is not None:
            yield _problem("dagster", known)
        elif isinstance(error, DagsterError):
            # An error of configuration names the schema first, and says behind it what does not fit.
            errors = error.errors if isinstance(error, DagsterInvalidConfigError) else ()
            said = str(errors[0].message if errors else error).strip().splitlines()[0]
            yield Finding("dagster", "problem", f"{home}/dagster.yaml cannot be used: {said}", "Correct the file.")
        else:
            raise


def _automation(instance: DagsterInstance | None = None) -> Iterator[Finding]:
    """What of the day and the week runs by itself: as it was switched by hand, else as the environment says."""
    from laps_dagster.settings import automated

    try:
        on = automated()
    except LapsError:
        return  # the definitions have said so
    by_hand = {} if instance is None else _switched_by_hand(instance)
    running = [name for name in AUTOMATED if by_hand.get(name, on)]
    stopped = [name for name in AUTOMATED if name not in running]
    said = f"LAPS_AUTOMATION is {'on' if on else 'off'}"
    said += f"; running: {', '.join(running)}" if running else ""
    if not stopped:
        yield Finding("automation", "ok", said)
    elif on:
        fix = "Somebody stopped them in the UI, which stands above the variable: they are started there (Automation)."
        yield Finding("automation", "note", f"{said}; stopped: {', '.join(stopped)}", fix)
    else:
        fix = "Start each in the UI (Automation), or all of them by LAPS_AUTOMATION=on for web server and daemon."
        yield Finding("automation", "note", f"{said}; stopped: {', '.join(stopped)}", fix)


def _switched_by_hand(instance: DagsterInstance) -> dict[str, bool]:
    """The sensors and schedules that a person has switched, and whether on.

    Others have no state in the instance, or one that says that the definitions decide. Names may have states of
    another location as well, from before it had this name; those of this one count.
    """
    by_hand = {}
    states = instance.all_instigator_state()
    for state in sorted(states, key=lambda state: state.repository_selector.location_name == LOCATION):
        if state.status.value in ("RUNNING", "STOPPED"):
            by_hand[state.instigator_name] = state.status.value == "RUNNING"
        else:
            by_hand.pop(state.instigator_name, None)
    return by_hand


def _instance(instance: DagsterInstance, home: Path) -> Iterator[Finding]:
    from laps_dagster.processes import lost_runs, runs_under_way

    kind = type(instance.run_storage).__name__.replace("RunStorage", "")
    yield Finding("dagster", "ok", f"{home}, kept in {kind}")
    lost = lost_runs(instance)
    if lost:
        yield Finding(
            "runs", "problem", f"{len(lost)} runs are shown as started, but their processes are gone",
            "The next run or backfill on this machine fails them and frees their places.",
        )  # fmt: skip
    else:
        yield Finding("runs", "ok", f"{len(runs_under_way(instance))} running")
    beats = instance.get_daemon_heartbeats()
    silent = sorted(name for name, beat in beats.items() if time.time() - beat.timestamp > HEARTBEAT_S)
    failing = sorted(name for name, beat in beats.items() if beat.errors and name not in silent)
    if not beats:
        said = "no daemon has run here: nothing is scheduled, and backfills of the UI wait"
        yield Finding("daemon", "note", said, "`laps dev` starts one, or `dagster-daemon run` beside the webserver.")
    elif silent:
        yield Finding(
            "daemon",
            "note",
            f"silent: {', '.join(silent)}",
            "Start its service (`sudo systemctl start laps-daemon`), or `laps dev`. Never two.",
        )
    elif failing:
        first = beats[failing[0]].errors or []
        said = f"{failing[0]}: {str(first[0].message).strip()}" if first else failing[0]
        yield Finding("daemon", "problem", said, "Its log has the whole error; the definitions must load.")
    else:
        yield Finding("daemon", "ok", f"{len(beats)} parts alive")
    yield from _automation(instance)
    yield from _ray(instance)


def _ray(instance: DagsterInstance) -> Iterator[Finding]:
    launcher: Any = instance.run_launcher
    if not hasattr(type(launcher), "client"):
        return  # runs are made on this machine
    try:
        yield Finding("ray", "ok", f"{launcher.address}, Ray {launcher.client.get_version()}")
    except (OSError, RuntimeError) as error:
        fix = "Start its head, or correct LAPS_RAY_ADDRESS: http://, and the port of the job server."
        yield Finding("ray", "problem", f"no cluster answers at {launcher.address}: {str(error).splitlines()[0]}", fix)


def _alarms() -> Iterator[Finding]:
    from resources.alarms import EMAIL, UI_URL, WEBHOOK, channels, level

    names = [channel.name for channel in channels()]
    if not names:
        said = "nobody is told when a run or a check fails"
        yield Finding("alarms", "note", said, f"Set {WEBHOOK} or {EMAIL}, then `laps alarm test`.")
    elif not os.environ.get(UI_URL):
        said = f"{' and '.join(names)}, without a link to the run"
        yield Finding("alarms", "note", said, f"Set {UI_URL} to where the Dagster UI is reached.")
    else:
        told = "failed runs, and checks with an error" if level() == "error" else "failed runs, and all failed checks"
        yield Finding("alarms", "ok", f"{' and '.join(names)}: {told}")


LOOKS: dict[str, Callable[[], Iterator[Finding]]] = {
    "packages": _packages,
    "machine": _machine,
    "codecs": _codecs,
    "tracker": _tracker,
    "vision encoder": _vision,
    "store": _store,
    "landing zone": _landing,
    "room": _room,
    "definitions": _definitions,
    "dagster": _dagster,
    "alarms": _alarms,
}
