"""Where a command reads and writes, looked at before the work begins."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from laps.errors import InputError

if TYPE_CHECKING:
    from resources.store import Store


def existing_store(root: str | None = None) -> Store:
    """The store, for a command that reads; InputError where there is none. Nothing is made.

    Args:
        root: folder or URL. Default: ``LAPS_STORE``, then ``./.laps``.
    """
    from resources.models import RELEASES
    from resources.settings import SETTINGS
    from resources.store import Store

    store = Store(root)
    if store.is_local and Path(store.root).exists() and not Path(store.root).is_dir():
        raise InputError("is a file, not a store", where=store.root, fix="Name a folder with --store or LAPS_STORE.")
    # A store whose settings were deleted gets them back from the next command that writes.
    if not any(store.exists(path) for path in (SETTINGS, "recordings", RELEASES)):
        raise InputError(
            "there is no store here",
            where=store.root,
            fix="`laps ingest PATH --camera NAME` or `laps demo` makes one; --store or LAPS_STORE names another.",
        )
    return store


def check_output_file(path: Path | None) -> None:
    """Make the folder of a file that will be written; InputError where it cannot be written."""
    if path is None:
        return
    refuse_url(path)
    if path.is_dir():
        raise InputError("is a folder, and a file is to be written there", where=str(path), fix="Name a file.")
    if not path.exists():
        check_output_folder(path.parent)
    elif path.is_file():
        try:
            path.open("ab").close()
        except OSError as error:
            raise _cannot_write(path, error) from error


def check_output_folder(path: Path) -> None:
    """Make a folder that will be written into; InputError where that cannot be."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise InputError("is a file, and a folder is needed there", where=str(there), fix="Name another place.")
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise _cannot_write(path, error) from error


def refuse_url(path: Path) -> None:
    """Raise InputError where the place to write to is a URL: pathlib would make folders of its parts."""
    # A path keeps one of a URL's two slashes.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        raise InputError(
            "is a URL, and what this command writes is a local file or folder",
            where=str(path).replace(":/", "://", 1),
            fix="Name a local place, and copy it from there.",
        )


def _cannot_write(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot be written: {error.strerror}", where=str(path), fix="Name another place.")
