"""Old runs lose what they logged and printed, and nothing else: the list of runs and what was made stay."""

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from laps.errors import InputError
from laps_dagster.instance import open_instance
from laps_dagster.retention import apply_retention
from laps_dagster.run_logs import remove_logs
from laps_dagster.settings import keep_runs_days
from resources.configured import default_resources
from resources.settings import store_settings
from resources.store import Store
from tests.conftest import Laps
from tests.postgres import on_postgresql, postgres

# A fixture of this module.
__all__ = ["postgres"]

IN_100_DAYS = time.time() + 100 * 86_400


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.setenv("LAPS_STORE", str(tmp_path / "store"))
    with open_instance() as opened:
        yield opened


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b"]))
def made(context: dg.AssetExecutionContext) -> None:
    if context.partition_key == "b":
        raise ValueError("no")


def run(instance: dg.DagsterInstance, partition: str) -> str:
    result = dg.materialize([made], partition_key=partition, instance=instance, raise_on_error=False)
    printed = Path(instance.storage_directory(), result.run_id, "compute_logs")
    printed.mkdir(parents=True, exist_ok=True)
    (printed / "made.out").write_text("said")
    return result.run_id


def left(instance: dg.DagsterInstance) -> set[str]:
    """Ids of the runs of which something lies there."""
    home = Path(instance.root_directory)
    return {path.name.partition(".")[0] for folder in ("storage", "history/runs") for path in (home / folder).iterdir()}


def test_logs_of_old_runs_go_and_what_they_made_stays(instance: dg.DagsterInstance) -> None:
    good, failed = run(instance, "a"), run(instance, "b")
    # One that waits still has its log, whatever its age; a folder that is no run's is none of ours.
    waiting = instance.add_run(dg.DagsterRun("made", str(uuid.uuid4()), status=dg.DagsterRunStatus.NOT_STARTED)).run_id
    for name in (waiting, "an_asset"):
        Path(instance.storage_directory(), name).mkdir()
    assert remove_logs(instance, 90).runs == 0 and remove_logs(instance, 0, now_s=IN_100_DAYS).runs == 0
    seen = remove_logs(instance, 90, now_s=IN_100_DAYS, dry_run=True)
    assert seen.runs == 2 and seen.size_bytes > 200_000 and {good, failed} <= left(instance)
    assert remove_logs(instance, 90, now_s=IN_100_DAYS, at_most=1).runs == 1
    assert good not in left(instance) and failed in left(instance), "the oldest first"
    assert remove_logs(instance, 90, now_s=IN_100_DAYS).runs == 1
    assert left(instance) == {waiting, "an_asset", "index"}
    ended = {record.dagster_run.run_id: record.dagster_run.status for record in instance.get_run_records()}
    assert ended[good] == dg.DagsterRunStatus.SUCCESS and ended[failed] == dg.DagsterRunStatus.FAILURE
    assert instance.get_materialized_partitions(dg.AssetKey("made")) == {"a"}
    event = instance.get_latest_materialization_event(dg.AssetKey("made"))
    assert event is not None and event.run_id == good
    # A page of the run has nothing to show, and is no error.
    with open_instance() as another:
        assert list(another.get_records_for_run(good).records) == []


def test_of_rows_in_postgresql_those_stay_that_say_what_was_made_and_how_it_ended(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.setenv("LAPS_POSTGRES_URL", postgres)
    on_postgresql(tmp_path / "dagster")
    with open_instance() as instance:
        good, failed = run(instance, "a"), run(instance, "b")
        waiting = instance.add_run(dg.DagsterRun("made", str(uuid.uuid4()), status=dg.DagsterRunStatus.NOT_STARTED))
        waits = instance.report_engine_event("said", waiting)
        logged = logged_types(instance, good)
        assert "STEP_START" in logged
        assert remove_logs(instance, 90).runs == 0
        assert remove_logs(instance, 90, now_s=IN_100_DAYS, dry_run=True).size_bytes > 5_000
        assert logged_types(instance, good) == logged
        assert remove_logs(instance, 90, now_s=IN_100_DAYS, at_most=1).runs == 1
        assert logged_types(instance, failed) > {"STEP_FAILURE"}, "the oldest first"
        assert remove_logs(instance, 90, now_s=IN_100_DAYS).runs == 1
        of_good = {"ASSET_MATERIALIZATION_PLANNED", "ASSET_MATERIALIZATION", "PIPELINE_START", "PIPELINE_SUCCESS"}
        assert logged_types(instance, good) == of_good
        assert logged_types(instance, failed) == {"ASSET_MATERIALIZATION_PLANNED", "PIPELINE_START", "PIPELINE_FAILURE"}
        assert logged_types(instance, waiting.run_id) == {waits.event_type_value}
        assert instance.get_materialized_partitions(dg.AssetKey("made")) == {"a"}
        assert remove_logs(instance, 90, now_s=IN_100_DAYS).runs == 0


def logged_types(instance: dg.DagsterInstance, run_id: str) -> set[str]:
    """Types of the events that are known of a run."""
    records = instance.get_records_for_run(run_id).records
    events = (record.event_log_entry.dagster_event for record in records)
    return {event.event_type_value for event in events if event is not None}


def test_what_a_deleted_run_left_behind_goes(instance: dg.DagsterInstance) -> None:
    deleted = run(instance, "a")
    instance.delete_run(deleted)
    assert deleted in left(instance), "Dagster leaves its file and what it printed"
    assert remove_logs(instance, 90, now_s=IN_100_DAYS).runs == 1
    assert deleted not in left(instance)


def test_logs_of_old_ticks_go_and_those_of_runs_stay_with_their_run(instance: dg.DagsterInstance) -> None:
    waiting = instance.add_run(dg.DagsterRun("made", str(uuid.uuid4()), status=dg.DagsterRunStatus.NOT_STARTED)).run_id
    ticks = [Path(instance.storage_directory(), "__repository__", "landing_files", f"{tick}.err") for tick in (1, 2)]
    printed = Path(instance.storage_directory(), waiting, "compute_logs", "made.err")
    for path in (*ticks, printed):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("refused a file")
    os.utime(ticks[0], (1e9, 1e9))
    assert str(remove_logs(instance, 90, dry_run=True)) == "logs of 0 runs and 1 tick, 0.0 MB" and ticks[0].exists()
    assert remove_logs(instance, 90).ticks == 1
    assert (ticks[0].exists(), ticks[1].exists(), printed.exists()) == (False, True, True)


def test_the_job_and_the_command_remove_them(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, laps_command: Laps
) -> None:
    old = run(instance, "a")
    monkeypatch.setattr("laps_dagster.run_logs.time", SimpleNamespace(time=lambda: IN_100_DAYS))
    store_settings(Store())
    code, out, _ = laps_command("retention")
    assert code == 0 and "logs of runs          90 days (LAPS_KEEP_RUNS_DAYS)" in out
    code, out, _ = laps_command("retention", "apply", "--dry-run")
    assert code == 0 and out.startswith("would remove  logs of 1 run, 0.")
    monkeypatch.setenv("LAPS_KEEP_RUNS_DAYS", "0")
    assert laps_command("retention", "apply")[1] == "nothing is over age\n"
    monkeypatch.setenv("LAPS_KEEP_RUNS_DAYS", "90")
    assert apply_retention.execute_in_process(resources=default_resources(), instance=instance).success
    assert old not in left(instance)


@pytest.mark.parametrize("text", ["6", "-1", "many", "1.5"])
def test_days_that_make_no_sense_are_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("LAPS_KEEP_RUNS_DAYS", text)
    with pytest.raises(InputError, match="Give 7 or more, or 0"):
        keep_runs_days()
