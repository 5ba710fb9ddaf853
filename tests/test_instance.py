"""The instance files: SQLite as a newcomer gets it, and PostgreSQL on a real server; and backfills by GraphQL."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from assets.retries import tried_again
from laps.errors import InputError, StoreError
from laps_dagster.instance import SETTINGS, open_instance
from laps_dagster.jobs import OBSERVE_ASSETS
from laps_dagster.nightly import later_stages
from laps_dagster.runs import Task, execute
from laps_dagster.sensors import add_cameras
from resources.configured import RecordingsResource, StoreResource
from tests.postgres import postgres

__all__ = ["postgres"]

HOUR = "cam1|2026-01-05-09:00"
POSTGRES_SETTINGS = SETTINGS.with_name("instance_postgres.yaml")


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPS_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")


def test_the_files_differ_in_where_runs_are_kept_and_in_nothing_else() -> None:
    sqlite, postgres = (
        yaml.safe_load(file.read_text().replace("CORES", "4")) for file in (SETTINGS, POSTGRES_SETTINGS)
    )
    assert list(postgres.pop("storage")) == ["postgres"]
    assert postgres == sqlite


def test_a_new_instance_tries_dead_runs_again_and_no_failed_ones() -> None:
    with open_instance() as instance:
        assert instance.run_retries_enabled and not instance.run_retries_retry_on_asset_or_op_failure
        assert instance.run_monitoring_max_runtime_seconds == 6 * 3600
        assert type(instance.run_storage).__name__ == "SqliteRunStorage"


# --- steps that are tried again -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (lambda: told("s3://b/t", OSError(5, "did not answer")), 3),
        (lambda: ConnectionError("reset"), 3),
        (lambda: told("s3://b/t", PermissionError(13, "no credentials")), 1),
        (lambda: told("s3://b/t", OSError("Couldn't deserialize thrift")), 1),
        (lambda: told("/disk/t", OSError(28, "no space left on device")), 1),
        (lambda: InputError("bad input"), 1),
    ],
)
def test_a_step_is_tried_again_when_the_store_was_away_only(
    error: Any, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assets.retries.FIRST_WAIT_S", 0.0)
    seen: list[int] = []

    @dg.asset
    @tried_again
    def flaky(context):  # an annotation would have to be evaluated already
        seen.append(context.retry_number)
        if len(seen) < 3:
            raise error()

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([flaky], instance=instance, raise_on_error=False)
    assert (result.success, seen) == (tries == 3, list(range(tries)))


def told(where: str, cause: OSError) -> StoreError:
    error = StoreError("cannot be read", where=where)
    error.__cause__ = cause
    return error


# --- PostgreSQL ---------------------------------------------------------------------------------------------------


def test_runs_cameras_pools_and_sensors_on_postgresql(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAPS_POSTGRES_URL", postgres)
    (tmp_path / "dagster").mkdir()
    shutil.copyfile(POSTGRES_SETTINGS, tmp_path / "dagster" / "dagster.yaml")
    with open_instance() as instance:
        assert type(instance.run_storage).__name__ == "PostgresRunStorage"
        add_cameras(instance, ["cam1"])
    outcome = execute(Task("track", HOUR))
    assert outcome.ok, outcome.error
    with open_instance() as instance:  # another connection: it is in the database
        assert instance.get_dynamic_partitions("cameras") == ["cam1"]
        (run,) = instance.get_runs(dg.RunsFilter(tags={"dagster/partition": HOUR}))
        assert (run.job_name, run.status) == ("track", dg.DagsterRunStatus.SUCCESS)
        assert instance.event_log_storage.get_concurrency_info("decode").active_slot_count == 0
        resources = {"store": StoreResource(), "recordings": RecordingsResource()}
        context = dg.build_sensor_context(instance, resources=resources)
        assert "no release is current" in str(later_stages.evaluate_tick(context).skip_message)


# --- GraphQL ------------------------------------------------------------------------------------------------------

BACKFILL = """
mutation Backfill($assets: [AssetKeyInput!]!, $hours: [String!]!, $tags: [ExecutionTag!]) {
  launchPartitionBackfill(backfillParams: {assetSelection: $assets, partitionNames: $hours, tags: $tags}) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""


# Dagster uses what it has deprecated itself, when it describes a schedule and when it launches a backfill.
@pytest.mark.filterwarnings("ignore:Property `ScheduleDefinition.environment_vars` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Function `AssetSelection.sources` is deprecated:DeprecationWarning")
def test_a_backfill_by_graphql_makes_one_run_an_hour_and_stage() -> None:
    """The mutation of the documentation, against the schema of the web server, carried out by the backfill daemon."""
    from dagster._core.remote_origin import InProcessCodeLocationOrigin
    from dagster._core.test_utils import InProcessTestWorkspaceLoadTarget
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._daemon.backfill import execute_backfill_iteration
    from dagster_graphql.schema import create_schema

    origin = LoadableTargetOrigin(module_name="laps_dagster.definitions", attribute="defs")
    target = InProcessTestWorkspaceLoadTarget(InProcessCodeLocationOrigin(origin, location_name="laps"))
    hours = ["cam1|2026-01-05-08:00", HOUR]
    with open_instance() as instance, WorkspaceProcessContext(instance, target) as process:
        add_cameras(instance, ["cam1"])
        answer = create_schema().execute(
            BACKFILL,
            context_value=process.create_request_context(),
            variable_values={
                "assets": [{"path": [asset]} for asset in (*OBSERVE_ASSETS, "segments")],
                "hours": hours,
                "tags": [{"key": "why", "value": "tests"}],
            },
        )
        assert answer.errors is None
        launched = answer.data["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        for _ in execute_backfill_iteration(process, logging.getLogger("test")):
            pass
        runs = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": launched["backfillId"]}))
        # Segments wait for both hours that they are made from.
        made = {run.tags["dagster/partition"]: {key.to_user_string() for key in run.asset_selection} for run in runs}
        assert made == {hour: set(OBSERVE_ASSETS) for hour in hours}
        assert len(runs) == len(hours) and all(run.tags["why"] == "tests" for run in runs)
