"""The errors that this project raises on purpose.

Each says what was wrong, where (file, camera, hour) and what to do about it. Whoever catches one can rely on
the class; whoever reads one should not need the source code.
"""

from __future__ import annotations


class LapsError(Exception):
    """Base of all deliberate errors.

    Args:
        what: what was wrong, in one sentence without a full stop.
        where: the file, camera, hour or object that it is about.
        fix: what the reader can do.
    """

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what = what
        self.where = where
        self.fix = fix
        message = f"{where}: {what}" if where else what
        if fix:
            message = f"{message}. {fix}"
        super().__init__(message)


class InputError(LapsError):
    """A person or a configuration gave something that cannot be used."""


class MediaError(LapsError):
    """A video file cannot be read, or not as far as needed."""


class MissingDependencyError(LapsError):
    """A package, checkpoint or set of weights that the chosen option needs is not there."""


class AlarmError(LapsError):
    """A receiver of alarms could not be reached, or did not take one."""


class ModelMismatchError(LapsError):
    """Rows or models of different model ids would have been mixed."""


class NotProcessedError(LapsError):
    """An upstream partition or model that is needed has not been materialized."""


class ChangedError(LapsError):
    """What a table is made from changed while it was being made: the same once more uses what it is now."""


class SchemaError(LapsError):
    """Rows do not fit the table that they were meant for."""


class CalibrationError(LapsError):
    """A signal from which no thresholds can be found."""


class StoreError(LapsError):
    """The store cannot be reached, read or written."""


class UnreachableError(StoreError):
    """A storage does not answer. Whoever goes through many of its objects stops: the next would fail as well."""


class DamagedFileError(StoreError):
    """A file of the store is there and holds something else than it should."""
