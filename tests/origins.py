"""Where runs that the daemon starts come from, which is what tells Dagster how to try them again."""

from __future__ import annotations

from dagster._core.remote_origin import (  # not public
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)


def origin_of(job: str) -> RemoteJobOrigin:
    """The origin of a run of a job, as the daemon gives it."""
    return RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("laps"), "repository"), job)
