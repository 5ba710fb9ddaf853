"""A new folder that appears whole or not at all."""

from __future__ import annotations

import errno
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from laps.errors import InputError, StoreError


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to write to, which gets the target's name when the block ends and is deleted when it raises.

    Raises:
        InputError: the target is a file or a folder that holds something.
        StoreError: it cannot be written (no room, no permission).
    """
    target = target.absolute()
    _check_free(target)
    temporary = target.parent / f".{target.name}.{uuid.uuid4().hex[:12]}.tmp"
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.rename(target)  # takes the place of an empty folder
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise _taken(target) from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise StoreError(
                f"the data set cannot be written: {error.strerror}",
                where=str(target),
                fix="Check the folder's rights and the room on its disk; nothing was left there.",
            ) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_free(target: Path) -> None:
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise _taken(target)


def _taken(target: Path) -> InputError:
    return InputError(
        "there is something already, and an export never overwrites",
        where=str(target),
        fix="Choose another folder, or remove this one.",
    )
