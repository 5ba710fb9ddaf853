"""The instance files: SQLite as a newcomer gets it, and PostgreSQL on a real server; and backfills by GraphQL."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.events import StepMaterializationData  # not public

from assets.retries import patiently, tried_again
from laps.errors import InputError, StoreError
from laps_dagster.doctor import Finding
from laps_dagster.instance import SETTINGS, open_instance, records_error
from laps_dagster.jobs import OBSERVE_ASSETS, SEGMENT_ASSETS
from laps_dagster.nightly import later_stages
from laps_dagster.runs import Task, execute
from laps_dagster.sensors import add_cameras
from resources.configured import RecordingsResource, StoreResource
from resources.recordings import Recordings
from resources.store import Store
from tests.conftest import Laps
from tests.kills import ROOT
from tests.postgres import SETTINGS as POSTGRES_SETTINGS
from tests.postgres import on_postgresql, postgres, serve, skip_where_absent
from tests.test_doctor import findings
from tests.videos import write_video

__all__ = ["postgres"]

HOUR = "cam1|2026-01-05-09:00"
# In no test's server is it asked for, and nothing shows it.
PASSWORD = "geheim"


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
        queue = instance.get_concurrency_config().run_queue_config
        assert queue is not None
        assert (queue.max_concurrent_runs, queue.max_user_code_failure_retries) == (4, 15)
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


def test_every_step_of_the_project_is_tried_again() -> None:
    """But the one that asks no store: a new step that forgets it would fail with the first outage."""
    from laps_dagster.definitions import defs

    without = {
        name
        for job in defs.resolve_all_job_defs()
        for name, node in ((node.name, node) for node in job.all_node_defs)
        if isinstance(node, dg.OpDefinition) and not hasattr(node.compute_fn.decorated_fn, "__wrapped__")  # type: ignore[union-attr]
    }
    assert without == {"remove_old_logs"}


@pytest.mark.parametrize(("outages", "ok"), [(2, True), (6, False)])
def test_what_was_computed_is_kept_while_the_store_is_away(
    outages: int, ok: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assets.retries.FIRST_WAIT_S", 0.0)
    trained: list[int] = []
    put: list[int] = []
    said: list[str] = []

    def put_away() -> str:
        put.append(1)
        if len(put) <= outages:
            raise told("s3://b/model", OSError(5, "did not answer"))
        return "the model"

    @dg.asset
    @tried_again
    def model(context):  # an annotation would have to be evaluated already
        trained.append(1)
        patiently(put_away, said.append)

    with dg.DagsterInstance.ephemeral() as instance:
        assert dg.materialize([model], instance=instance, raise_on_error=False).success is ok
    assert (len(trained), len(put), len(said)) == (1, min(outages + 1, 6), min(outages, 5))
    assert "s3://b/model" in said[0] and "trying again in 0 s" in said[0]


def told(where: str, cause: OSError) -> StoreError:
    error = StoreError("cannot be read", where=where)
    error.__cause__ = cause
    return error


# --- PostgreSQL ---------------------------------------------------------------------------------------------------


def test_runs_cameras_pools_and_sensors_on_postgresql(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAPS_POSTGRES_URL", postgres)
    on_postgresql(tmp_path / "dagster")
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


def told_by_all(laps_command: Laps, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Finding:
    """What doctor says of the database. The commands say the same in one line; `laps status` shows the tables too."""
    video = write_video(tmp_path / "a_20260105T090000Z.mp4", seconds=2.0, fps=5, width=64, height=48)
    Recordings(Store()).register(str(video), "cam1")
    found = findings("dagster")["dagster"]
    assert found.level == "problem"
    for code, out, err in (laps_command("status"), laps_command("backfill", "--only", "missing")):
        assert err.startswith("laps: ") and err.count("\n") == 1
        assert f"{found.said}. {found.fix}" in err
        assert (code, "camera cam1" in out) in ((0, True), (1, False))
        assert PASSWORD not in out + err + str(found) + caplog.text
    assert code == 1 and "Retrying" not in caplog.text
    return found


def test_a_database_that_is_away_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, laps_command: Laps, caplog: pytest.LogCaptureFixture
) -> None:
    skip_where_absent()
    # Six tries to connect, without the seconds between them.
    monkeypatch.setattr("dagster_postgres.utils.calculate_delay", lambda *_, **__: 0.0)
    on_postgresql(tmp_path / "dagster")
    with serve() as url:
        monkeypatch.setenv("LAPS_POSTGRES_URL", url.replace("laps@", f"laps:{PASSWORD}@"))
        with open_instance() as instance:
            assert type(instance.run_storage).__name__ == "PostgresRunStorage"
        assert findings("dagster")["dagster"].level == "ok"
    found = told_by_all(laps_command, tmp_path, caplog)
    assert found.said.startswith(f"DAGSTER_HOME {tmp_path / 'dagster'}: Dagster's records of its runs cannot be read")
    assert found.said.endswith("failed: Connection refused")
    assert "Start its database, or correct LAPS_POSTGRES_URL" in found.fix


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (None, "is not set"),
        ("", "is not set"),
        (f"postgresql://laps:{PASSWORD}@db/d", "the URL leads to the driver psycopg, which is not installed"),
        (f"postgres://laps:{PASSWORD}@db/d", "the URL begins with a database or a driver that is not known"),
        (f"postgresql+psycopg2://laps:a@b:{PASSWORD}@db/d", "is no URL of a database"),
        (f"laps:{PASSWORD}@db", "is no URL of a database"),
    ],
    ids=["unset", "empty", "no driver", "unknown", "@ in the password", "no URL"],
)
def test_a_url_that_cannot_be_used_is_told_in_one_line(
    url: str | None,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    laps_command: Laps,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("dagster_postgres", reason="the extra `postgres` is not installed")
    on_postgresql(tmp_path / "dagster")
    monkeypatch.delenv("LAPS_POSTGRES_URL", raising=False)
    if url is not None:
        monkeypatch.setenv("LAPS_POSTGRES_URL", url)
    found = told_by_all(laps_command, tmp_path, caplog)
    assert found.said.startswith(f"LAPS_POSTGRES_URL: {said}") and "postgresql+psycopg2://" in found.fix


def test_a_missing_extra_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, laps_command: Laps, caplog: pytest.LogCaptureFixture
) -> None:
    on_postgresql(tmp_path / "dagster")
    monkeypatch.setenv("LAPS_POSTGRES_URL", f"postgresql+psycopg2://laps:{PASSWORD}@db/d")
    for name in [name for name in sys.modules if name.partition(".")[0] == "dagster_postgres"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "dagster_postgres", None)
    found = told_by_all(laps_command, tmp_path, caplog)
    assert "extra of this project, which is not installed" in found.said and "'.[postgres]'" in found.fix


def test_what_may_be_a_part_of_a_password_is_not_repeated() -> None:
    psycopg2 = pytest.importorskip("psycopg2", reason="the extra `postgres` is not installed")
    from sqlalchemy.exc import OperationalError

    # As it says where the password is a@geheim@b.
    answer = psycopg2.OperationalError(f'could not translate host name "{PASSWORD}@b@db" to address: unknown\n')
    said = records_error(OperationalError("", {}, answer))
    assert said is not None and said.what.endswith('could not translate host name "…@db" to address: unknown')


def test_a_user_who_may_make_no_tables_is_told(postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(postgres, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("create role reader login"))
    engine.dispose()
    monkeypatch.setenv("LAPS_POSTGRES_URL", postgres.replace("laps@", "reader@"))
    on_postgresql(tmp_path / "dagster")
    found = findings("dagster")["dagster"]
    assert found.level == "problem" and found.said.endswith("permission denied for schema public")
    assert "the rights of its user" in found.fix


def test_databases_that_two_programs_made_at_once_are_told(laps_command: Laps, tmp_path: Path) -> None:
    with open_instance():
        pass
    # As two processes leave it that both found no version.
    with closing(sqlite3.connect(tmp_path / "dagster" / "schedules" / "schedules.db")) as database:
        database.execute("insert into alembic_version values ('5771160a95ad')")
        database.commit()
    found = findings("dagster")["dagster"]
    assert found.level == "problem" and "two programs made Dagster's databases" in found.said
    assert "run `laps doctor` before they start" in found.fix
    video = write_video(tmp_path / "a_20260105T090000Z.mp4", seconds=2.0, fps=5, width=64, height=48)
    Recordings(Store()).register(str(video), "cam1")
    code, _, err = laps_command("backfill", "--only", "missing")
    assert code == 1 and found.said in err and err.count("\n") == 1


def test_programs_that_open_a_new_home_at_once_make_its_databases_once(tmp_path: Path) -> None:
    code = "from laps_dagster.instance import open_instance\nwith open_instance() as one: print(one.get_runs_count())"
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path / "new")}
    programs = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [program.communicate()[0] for program in programs] == ["0\n"] * 4


def test_other_errors_are_none_of_the_records() -> None:
    with pytest.raises(ValueError, match="invalid literal") as caught:
        int("no number")
    assert records_error(caught.value) is None
    assert records_error(ModuleNotFoundError("No module named 'cv2'", name="cv2")) is None
    looped = KeyError("camera")
    looped.__cause__ = looped
    assert records_error(looped) is None


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
                "assets": [{"path": [asset]} for asset in (*OBSERVE_ASSETS, *SEGMENT_ASSETS)],
                "hours": hours,
                "tags": [{"key": "why", "value": "tests"}],
            },
        )
        assert answer.errors is None
        launched = answer.data["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        known: set[str] = set()
        # Segments wait for both hours that they are made from, and so the hour after the last is cut again as well.
        after = "cam1|2026-01-05-10:00"
        for stage, asked in ((OBSERVE_ASSETS, hours), (SEGMENT_ASSETS, [*hours, after])):
            for _ in execute_backfill_iteration(process, logging.getLogger("test")):
                pass
            runs = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": launched["backfillId"]}))
            new = [run for run in runs if run.run_id not in known]
            made = {run.tags["dagster/partition"]: {key.to_user_string() for key in run.asset_selection} for run in new}
            assert made == {hour: set(stage) for hour in asked}
            assert len(new) == len(asked) and all(run.tags["why"] == "tests" for run in new)
            for run in new:
                succeed(instance, run)
            known |= {run.run_id for run in new}


def succeed(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Say of a run that it made its assets."""
    for asset in run.asset_selection or ():
        made = dg.AssetMaterialization(asset, partition=run.tags["dagster/partition"])
        event = StepMaterializationData(made)
        instance.report_dagster_event(
            dg.DagsterEvent("ASSET_MATERIALIZATION", run.job_name, event_specific_data=event), run.run_id
        )
    instance.report_dagster_event(dg.DagsterEvent("PIPELINE_SUCCESS", run.job_name), run.run_id)
