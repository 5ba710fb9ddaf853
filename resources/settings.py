"""Settings that belong to a store for ever: the first hour and the sampling grid.

They are written at the store's first use, because partitions and sample numbers depend on them. Reading them must
be cheap for a local store: Dagster loads the code location often, and needs the first hour to define partitions.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from laps.errors import InputError
from laps.timegrid import SampleGrid, format_utc, from_datetime, parse_hour
from resources.store import Store, store_root

SETTINGS = "settings.json"


def default_first_hour_ns() -> int:
    """1 January of last year, 00:00 UTC."""
    return from_datetime(datetime(datetime.now(UTC).year - 1, 1, 1, tzinfo=UTC))


def first_hour_ns(root: str | None = None) -> int:
    """The first hour that can be a partition: what the store says, else ``LAPS_FIRST_HOUR``, else the default.

    For a store in object storage with ``LAPS_FIRST_HOUR`` set nothing is read, so that loading the definitions
    stays quick; :func:`store_settings` compares the two when a run starts.
    """
    chosen = os.environ.get("LAPS_FIRST_HOUR")
    location = store_root(root)
    if "://" not in location:
        file = Path(location) / SETTINGS
        if file.exists():
            return parse_hour(json.loads(file.read_text())["first_hour"])
    elif not chosen:
        store = Store(location)
        if store.exists(SETTINGS):
            return parse_hour(store.read_json(SETTINGS)["first_hour"])
    return parse_hour(chosen) if chosen else default_first_hour_ns()


def store_settings(store: Store) -> dict[str, Any]:
    """The store's settings, written now if this is its first use.

    Raises InputError when ``LAPS_FIRST_HOUR`` is set to something else than the store was made with.
    """
    if not store.exists(SETTINGS):
        settings = {"first_hour": format_utc(first_hour_ns(store.root)), "grid": asdict(SampleGrid())}
        store.write_json(SETTINGS, settings)
    settings = store.read_json(SETTINGS)
    chosen = os.environ.get("LAPS_FIRST_HOUR")
    if chosen and parse_hour(chosen) != parse_hour(settings["first_hour"]):
        raise InputError(
            f"LAPS_FIRST_HOUR is {chosen}, but this store was made with {settings['first_hour']}",
            where=store.url(SETTINGS),
            fix="Unset LAPS_FIRST_HOUR, or edit the file to move the start (old hours stay in the store).",
        )
    return dict(settings)


def store_grid(store: Store) -> SampleGrid:
    """The store's sampling grid."""
    return SampleGrid(**store_settings(store)["grid"])
