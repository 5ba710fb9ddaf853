"""In the morning somebody is told of hours of the day before that are not complete, and of cameras that are silent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from assets.landing_zone import landing_zone
from laps.errors import StoreError
from laps.tables import KEYPOINT_TRACKS, TABLES
from laps.timegrid import CameraHour, from_datetime
from laps_dagster.morning import judge_day, look_at_night, morning, night
from resources.configured import RecordingsResource, StoreResource
from resources.landing import LandingZone
from resources.models import TOKENIZER, ModelRegistry
from resources.recordings import Landed, Recordings
from resources.reporting import report_path
from resources.settings import store_settings
from resources.store import Store, rows_table
from tests.videos import write_video

THURSDAY = date(2026, 2, 26)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("LAPS_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")
    monkeypatch.setenv("LAPS_LANDING", str(tmp_path / "landing"))
    store = Store()
    store_settings(store)
    return store


def release_of(store: Store) -> str:
    """The name of a release with a tokenizer, which is current."""
    registry = ModelRegistry(store)
    draft = registry.open_draft("for the test")
    folder = Path(store.root) / "folder"
    folder.mkdir()
    (folder / "weights").write_bytes(b"")
    registry.put(TOKENIZER, "t1", folder)
    registry.fill(draft, TOKENIZER, "t1")
    store.write_json("models/current.json", {"release": draft.name})
    store.write_bytes(report_path(draft.name), b"a report")
    return draft.name


def film(folder: Path, camera: str, *times: datetime) -> None:
    register = Recordings(Store())
    for when in times:
        file = write_video(folder / f"{camera}_{when:%Y%m%dT%H%M%SZ}.mp4", seconds=4.0, fps=5, width=64, height=48)
        register.register(str(file), camera)


def make(store: Store, hour: CameraHour, release: str) -> None:
    """Empty tables of an hour, as of one that was processed."""
    for table in TABLES.values():
        if table.partitioned == "camera_hour":
            model = {None: None, "tokenizer": "t1", "release": release}[table.model_level]
            store.write_partition(table, hour, rows_table(table, []), model)


def test_hours_that_are_not_complete_are_named(store: Store, tmp_path: Path) -> None:
    at = datetime(2026, 2, 26, 8, 5, tzinfo=UTC)
    film(tmp_path, "cam1", at, at + timedelta(hours=1), at - timedelta(days=1))
    release = release_of(store)
    register = Recordings(store)
    hours = [CameraHour.parse(f"cam1|2026-02-26-{hour:02}:00") for hour in (8, 9, 10)]
    make(store, hours[0], release)
    verdict = judge_day(store, register, THURSDAY, release)
    assert not verdict.passed and verdict.severity == "error"
    assert verdict.said == (
        "2026-02-26: 2 hours of cam1 not complete (2026-02-26-09:00, 2026-02-26-10:00 (closes what was open before))"
    )
    make(store, hours[1], release)
    make(store, hours[2], release)
    assert judge_day(store, register, THURSDAY, release).passed
    # An hour that lost a table counts as not complete, whatever its runs said.
    store.delete(store.partition_path(KEYPOINT_TRACKS, hours[0]))
    assert "2026-02-26-08:00" in judge_day(store, register, THURSDAY, release).said


def test_a_report_that_no_night_refreshed_is_named(store: Store, tmp_path: Path) -> None:
    film(tmp_path, "cam1", datetime(2026, 2, 26, 8, 5, tzinfo=UTC))
    release = release_of(store)
    register = Recordings(store)
    report = Path(store.root, report_path(release))
    hours = [CameraHour.parse(f"cam1|2026-02-26-{hour:02}:00") for hour in (8, 9)]

    def said(written: str, made: str) -> str:
        """Of the day, where the report and all else were written then."""
        for path in (path for path in Path(store.root).rglob("*") if path.is_file()):
            os.utime(path, (timestamp(written if path == report else made),) * 2)
        return judge_day(store, register, THURSDAY, release).said.removeprefix("2026-02-26: ")

    os.utime(report, (timestamp("2026-02-26T02:10:00"),) * 2)
    assert "report" not in judge_day(store, register, THURSDAY, release).said, "nothing of the day is there yet"
    for hour in hours:
        make(store, hour, release)
    complete = "all hours are complete"
    assert said("2026-02-26T02:10:00", "2026-02-26T10:20:00") == (
        "the report is older than these hours (2026-02-26 02:10 UTC)"
    )
    assert said("2026-02-26T20:00:00", "2026-02-26T19:20:00") == complete, "made in the evening, by a person"
    assert said("2026-02-27T02:10:00", "2026-02-26T10:20:00") == complete
    assert said("2026-02-27T02:10:00", "2026-02-27T05:00:00") == complete, "made late: the next night tells of it"
    report.unlink()
    assert not judge_day(store, register, THURSDAY, release).passed
    assert judge_day(store, register, THURSDAY, release).said == "2026-02-26: there is no report"


def timestamp(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_the_hour_that_closes_the_last_one_of_a_day_is_named(store: Store, tmp_path: Path) -> None:
    film(tmp_path, "cam1", datetime(2026, 2, 26, 23, 5, tzinfo=UTC))
    film(tmp_path, "cam2", datetime(2026, 2, 26, 23, 5, tzinfo=UTC), datetime(2026, 2, 27, 0, 5, tzinfo=UTC))
    release = release_of(store)
    for camera in ("cam1", "cam2"):
        make(store, CameraHour.parse(f"{camera}|2026-02-26-23:00"), release)
    said = judge_day(store, Recordings(store), THURSDAY, release).said
    assert said == "2026-02-26: 1 hour of cam1 not complete (2026-02-27-00:00 (closes what was open before))"
    make(store, CameraHour.parse("cam1|2026-02-27-00:00"), release)
    assert judge_day(store, Recordings(store), THURSDAY, release).passed


def test_a_camera_that_is_silent_on_a_day_of_work_is_named(store: Store, tmp_path: Path) -> None:
    at = datetime(2026, 2, 26, 8, 5, tzinfo=UTC)
    film(tmp_path, "cam1", *(at - timedelta(weeks=week) for week in (1, 2, 3)))
    film(tmp_path, "cam2", *(at - timedelta(weeks=week) for week in (1, 3)))
    release = release_of(store)
    assert judge_day(store, Recordings(store), THURSDAY, release).said == "2026-02-26: cam1 has no footage"
    assert judge_day(store, Recordings(store), THURSDAY + timedelta(days=1), release).passed


def spoil(folder: Path, camera: str, name: str, start_ns: int | None = None) -> Path:
    """Register a file that is no video."""
    file = folder / name
    file.write_bytes(b"rubbish" * 99)
    assert Recordings(Store()).register(str(file), camera, start_ns)["status"] == "quarantined"
    return file


def test_files_that_were_quarantined_are_named_where_no_hour_knows_of_them(store: Store, tmp_path: Path) -> None:
    release = release_of(store)
    register = Recordings(store)
    spoil(tmp_path, "cam1", "a_20260225T080000Z.mp4")
    assert judge_day(store, register, THURSDAY, release).passed
    for minute in range(3):
        spoil(tmp_path, "new", f"a_20260226T080{minute}00Z.mp4")
    verdict = judge_day(store, register, THURSDAY, release)
    assert not verdict.passed and verdict.severity == "error"
    assert verdict.said.startswith("2026-02-26: 3 files of new quarantined (a_20260226T080000Z.mp4: ")
    assert "; a_20260226T080100Z.mp4: " in verdict.said and verdict.said.endswith("; …)")
    assert verdict.figures["quarantined_files"] == 3
    for row in register.quarantined("new"):
        register.quarantine(row["uri"], "new", "nobody can mend it")
    assert judge_day(store, register, THURSDAY, release).passed, "who said so knows of it"


def test_a_quarantined_file_of_another_time_is_named_on_the_day_that_it_came(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = release_of(store)
    noon = from_datetime(datetime(2026, 2, 26, 12, tzinfo=UTC))
    monkeypatch.setattr("resources.recordings.now_ns", lambda: noon)
    # Its clock stands in another year; it has none; it is late.
    names = ["a_20010101T000000Z.mp4", "unknown.mp4", "a_20260223T080000Z.mp4"]
    for name in names:
        spoil(tmp_path, "cam1", name)
        said = judge_day(store, Recordings(store), THURSDAY, release).said
        assert f"{1 + names.index(name)} file" in said
    assert judge_day(store, Recordings(store), THURSDAY - timedelta(days=1), release).passed


def test_an_hour_of_which_nothing_is_left_is_named_until_it_is_made_again(store: Store, tmp_path: Path) -> None:
    release = release_of(store)
    film(tmp_path, "cam1", datetime(2026, 2, 26, 8, 5, tzinfo=UTC))
    register = Recordings(store)
    hours = [CameraHour.parse(f"cam1|2026-02-26-{hour:02}:00") for hour in (8, 9)]
    for hour in hours:
        make(store, hour, release)
    assert judge_day(store, register, THURSDAY, release).passed
    register.quarantine(str(tmp_path / "cam1_20260226T080500Z.mp4"), "cam1", "it ends the decoder")
    said = judge_day(store, register, THURSDAY, release).said
    assert said == "2026-02-26: 1 hour of cam1 not complete (2026-02-26-08:00 (its footage counts no more))"
    for hour in hours:
        make(store, hour, release)
    assert judge_day(store, register, THURSDAY, release).passed


def test_files_that_nobody_registered_are_named(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = release_of(store)
    register = Recordings(store)
    (tmp_path / "landing/cam1").mkdir(parents=True)
    noon = datetime(2026, 2, 26, 12, tzinfo=UTC).timestamp()
    for name in ("caf\udce9.mp4", "b.mp4"):
        (tmp_path / "landing/cam1" / name).write_bytes(b"rubbish" * 99)
        os.utime(tmp_path / "landing/cam1" / name, (noon, noon))
    verdict = judge_day(store, register, THURSDAY, release)
    assert not verdict.passed and verdict.figures["unregistered_files"] == 2
    assert verdict.said == "2026-02-26: 2 files in the landing zone not registered (cam1/b.mp4, cam1/caf?.mp4)"
    LandingZone(register, stable_s=0.0).look()
    assert "(cam1/caf?.mp4)" in judge_day(store, register, THURSDAY, release).said
    (tmp_path / "landing").rename(tmp_path / "unmounted")
    said = judge_day(store, register, THURSDAY, release).said
    assert said.startswith("2026-02-26: the landing zone cannot be compared: ")
    assert f"{tmp_path}/landing: is empty, and it held files before. Is a share not mounted?" in said

    def unreachable(self: Recordings) -> Iterator[Landed]:
        raise StoreError("cannot be listed", where=self.landing)

    monkeypatch.setattr(Recordings, "listed", unreachable)
    assert "landing: cannot be listed" in judge_day(store, register, THURSDAY, release).said


def test_the_check_runs_by_itself_and_without_a_release_there_is_nothing_to_judge(store: Store) -> None:
    resources = {"store": StoreResource(), "recordings": RecordingsResource()}
    definitions = dg.Definitions(
        assets=[landing_zone], asset_checks=[night], jobs=[look_at_night], schedules=[morning], resources=resources
    )
    with dg.DagsterInstance.ephemeral() as instance:
        result = definitions.resolve_job_def("look_at_night").execute_in_process(instance=instance)
    (evaluation,) = result.get_asset_check_evaluations()
    assert evaluation.passed and evaluation.description == "not judged: no release is current"
    assert (morning.cron_schedule, morning.job_name) == ("30 6 * * *", "look_at_night")
