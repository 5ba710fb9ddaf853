"""Settings that belong to a store for ever: the first hour and the sampling grid.

They are written at the store's first use, because partitions and sample numbers depend on them. Reading them must
be cheap for a local store: Dagster loads the code location often, and needs the first hour to define partitions.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from laps.errors import InputError, NotProcessedError, StoreError
from laps.timegrid import SampleGrid, format_utc, from_datetime, parse_hour
from resources.store import Store, cache_folder, is_transient, store_root

SETTINGS = "settings.json"


def default_first_hour_ns() -> int:
    """1 January of last year, 00:00 UTC."""
    return from_datetime(datetime(datetime.now(UTC).year - 1, 1, 1, tzinfo=UTC))


def first_hour_ns(root: str | None = None) -> int:
    """The first hour that can be a partition: what the store says, else ``LAPS_FIRST_HOUR``, else the default.

    For a store in object storage with ``LAPS_FIRST_HOUR`` set nothing is read, so that loading the definitions
    stays quick; :func:`store_settings` compares the two when a run starts.
    """
    location = store_root(root)
    if "://" not in location:
        if (Path(location) / SETTINGS).exists():
            return _first_hour_ns(_read(Store(location)), location)
    elif not os.environ.get("LAPS_FIRST_HOUR"):
        with contextlib.suppress(NotProcessedError):
            return _remote_first_hour_ns(Store(location))
    chosen_ns = _chosen_ns()
    return default_first_hour_ns() if chosen_ns is None else chosen_ns


def store_settings(store: Store) -> dict[str, Any]:
    """The store's settings, written now if this is its first use.

    Raises:
        InputError: the file cannot be used, or ``LAPS_FIRST_HOUR`` is something else than the store was made with.
    """
    try:
        settings = _read(store)
    except NotProcessedError:
        first = {"first_hour": format_utc(first_hour_ns(store.root)), "grid": asdict(SampleGrid())}
        store.write_json(SETTINGS, first)
        settings = _read(store)
    made_with_ns, chosen_ns = _first_hour_ns(settings, store.root), _chosen_ns()
    if chosen_ns is not None and chosen_ns != made_with_ns:
        raise InputError(
            f"LAPS_FIRST_HOUR is {format_utc(chosen_ns)}, but this store was made with {settings['first_hour']}",
            where=store.url(SETTINGS),
            fix="Unset LAPS_FIRST_HOUR, or edit the file to move the start (old hours stay in the store).",
        )
    return settings


def store_grid(store: Store) -> SampleGrid:
    """The store's sampling grid; InputError when the file holds none that can be used."""
    grid = store_settings(store).get("grid")
    try:
        if not isinstance(grid, dict):
            raise InputError("there is none")
        for name, value in grid.items():
            if isinstance(value, bool) or not isinstance(value, int | float if name == "max_age_s" else int):
                raise InputError(f"{name} cannot be {value!r}")
        return SampleGrid(**grid)
    except (InputError, TypeError) as error:
        raise _broken(f"its grid cannot be used: {error}", store.root) from error


def _chosen_ns() -> int | None:
    """The hour in ``LAPS_FIRST_HOUR``, where it is set."""
    chosen = os.environ.get("LAPS_FIRST_HOUR")
    try:
        return parse_hour(chosen) if chosen else None
    except InputError as error:
        raise InputError(error.what, where="LAPS_FIRST_HOUR", fix=error.fix) from error


def _read(store: Store) -> dict[str, Any]:
    try:
        settings = json.loads(store.read_bytes(SETTINGS))
    except ValueError as error:
        raise _broken(f"is not valid JSON: {error}; first_hour and grid are not known", store.root) from error
    if not isinstance(settings, dict) or not isinstance(settings.get("first_hour"), str):
        raise _broken('has no text "first_hour"', store.root)
    return settings


def _remote_first_hour_ns(store: Store) -> int:
    """The first hour of a store in object storage, or what it was when last read on this machine if that is away.

    The definitions need it, and must load meanwhile: without them the daemon fails every run of its queue for good.
    """
    note = cache_folder() / "first_hours" / hashlib.sha256(store.root.encode()).hexdigest()[:16]
    try:
        first_ns = _first_hour_ns(_read(store), store.root)
    except StoreError as error:
        if not (is_transient(error) and note.exists()):
            raise
        return parse_hour(note.read_text())
    said = format_utc(first_ns)
    with contextlib.suppress(OSError):  # a home that nobody may write to, or a full disk
        if not (note.exists() and note.read_text() == said):
            note.parent.mkdir(parents=True, exist_ok=True)
            written = note.with_name(f"{note.name}.{os.getpid()}")
            written.write_text(said)
            written.replace(note)
    return first_ns


def _first_hour_ns(settings: dict[str, Any], root: str) -> int:
    try:
        return parse_hour(settings["first_hour"])
    except InputError as error:
        raise _broken(f"its first_hour cannot be used: {error.what}", root) from error


def _broken(what: str, root: str) -> InputError:
    example = {"first_hour": format_utc(default_first_hour_ns()), "grid": asdict(SampleGrid())}
    return InputError(
        what,
        where=f"{root}/{SETTINGS}",
        fix=f"Put back a file like {json.dumps(example)} with the values that the store was made with, or delete it: "
        "the next command writes it anew, from LAPS_FIRST_HOUR and the default grid.",
    )
