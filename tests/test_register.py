"""The register of recordings: what was offered, corrected, refused, and how it is read again."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import resources.recordings
from laps.errors import InputError, LapsError, StoreError, UnreachableError
from laps.recordings import describe_hour
from laps.tables import RECORDINGS
from laps.timegrid import HOUR_NS, CameraHour, SampleGrid, format_utc, from_datetime, parse_utc
from resources.compaction import compact_register
from resources.freshness import registrations
from resources.recordings import Recordings, file_info, open_uri
from resources.settings import SETTINGS, store_settings
from resources.store import Store, rows_table
from tests.conftest import Laps
from tests.videos import write_video

THREE = parse_utc("2026-01-05T03:00:00Z")
FOUR = THREE + HOUR_NS
FIVE = FOUR + HOUR_NS
S = 1_000_000_000


@pytest.fixture
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recordings:
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")
    return Recordings(Store(str(tmp_path / "store")), str(tmp_path / "landing"))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    (tmp_path / "landing/cam1").mkdir(parents=True)
    return write_video(tmp_path / "landing/cam1/a.mp4", seconds=1, fps=10, width=64, height=48)


def say_start(video: Path, start_ns: int | str) -> None:
    start = start_ns if isinstance(start_ns, str) else format_utc(start_ns)
    video.with_name(f"{video.name}.json").write_text(json.dumps({"start": start}))


def touch(video: Path) -> None:
    stat = video.stat()
    os.utime(video, ns=(stat.st_atime_ns, stat.st_mtime_ns + S))


def starts(recordings: Recordings, *statuses: str) -> list[int]:
    return [from_datetime(row["start_time"]) for row in recordings.of_camera("cam1") if row["status"] in statuses]


def hours(*times_ns: int) -> list[CameraHour]:
    return [CameraHour("cam1", time_ns) for time_ns in times_ns]


# -- the same file, corrected ----------------------------------------------------------------------------------


def test_the_same_file_keeps_its_first_row(recordings: Recordings, video: Path) -> None:
    say_start(video, THREE)
    first = recordings.register(str(video), "cam1")
    file = Path(recordings.store.root, recordings.row_path("cam1", first["recording_id"]))
    written = file.stat().st_mtime_ns
    assert recordings.register(str(video), "cam1") == first
    assert recordings.register(str(video), "cam1", THREE)["registered_at"] == first["registered_at"]
    assert recordings.of_camera("cam1") == [first]
    assert file.stat().st_mtime_ns == written


@pytest.mark.parametrize("how", ["sidecar and file", "sidecar", "option", "option and file"])
def test_a_corrected_recording_stands_at_one_time(recordings: Recordings, video: Path, how: str) -> None:
    say_start(video, THREE)
    wrong = recordings.register(str(video), "cam1")
    if "sidecar" in how:
        say_start(video, FOUR)
    if "file" in how:
        touch(video)
    right = recordings.register(str(video), "cam1", FOUR if "option" in how else None)
    assert (from_datetime(right["start_time"]), right["status"]) == (FOUR, "ok")
    assert starts(recordings, "ok") == [FOUR]
    (old,) = (row for row in recordings.of_camera("cam1") if row["status"] == "superseded")
    assert {**old, "status": "ok", "reason": None} == wrong
    assert right["recording_id"] in old["reason"] and "2026-01-05T04:00:00Z" in old["reason"]
    assert recordings.hours("cam1") == hours(FOUR)
    assert recordings.hours("cam1", include_superseded=True) == hours(THREE, FOUR)
    rows = describe_hour(hours(THREE)[0], SampleGrid(), recordings.of_camera("cam1"), open_uri)
    assert {row["status"] for row in rows} == {"gap"}
    # The corrected recording is as stable as any other.
    assert recordings.register(str(video), "cam1") == right


def test_correcting_there_and_back_leaves_one_row_of_each_start(recordings: Recordings, video: Path) -> None:
    for start_ns in (THREE, FOUR, FIVE, THREE):
        say_start(video, start_ns)
        recordings.register(str(video), "cam1")
    assert starts(recordings, "ok") == [THREE]
    assert starts(recordings, "superseded") == [FOUR, FIVE]
    RECORDINGS.validate(rows_table(RECORDINGS, recordings.of_camera("cam1")))


def test_a_file_that_was_only_touched_has_one_row_that_counts(recordings: Recordings, video: Path) -> None:
    say_start(video, THREE)
    ids = {recordings.register(str(video), "cam1")["recording_id"]}
    touch(video)
    ids.add(recordings.register(str(video), "cam1")["recording_id"])
    assert len(ids) == 2
    assert (starts(recordings, "ok"), starts(recordings, "superseded")) == ([THREE], [THREE])


def test_an_accepted_file_that_became_rubbish_gives_its_hours_back(recordings: Recordings, video: Path) -> None:
    say_start(video, THREE)
    recordings.register(str(video), "cam1")
    video.write_bytes(b"rubbish" * 99)
    assert recordings.register(str(video), "cam1")["status"] == "quarantined"
    assert [row["status"] for row in recordings.of_camera("cam1")] == ["superseded", "quarantined"]
    assert recordings.cameras() == []
    assert recordings.hours("cam1") == []
    assert recordings.hours("cam1", include_superseded=True) == hours(THREE)


def test_a_quarantined_file_that_is_looked_at_again_keeps_its_row(recordings: Recordings, video: Path) -> None:
    say_start(video, THREE)
    recordings.register(str(video), "cam1")
    video.write_bytes(b"rubbish" * 99)
    row = recordings.register(str(video), "cam1")
    before = recordings.marks("cam1")
    assert [*recordings.scan(), recordings.register(str(video), "cam1")] == [row, row]
    assert recordings.marks("cam1") == before, "written again, the hours that it left would look out of date"


def test_a_quarantined_file_that_was_repaired_leaves_no_trace(recordings: Recordings, video: Path) -> None:
    whole = video.read_bytes()
    say_start(video, THREE)
    video.write_bytes(whole[: len(whole) // 2])
    assert recordings.register(str(video), "cam1")["status"] == "quarantined"
    video.write_bytes(whole)
    assert recordings.register(str(video), "cam1")["status"] == "ok"
    assert [row["status"] for row in recordings.of_camera("cam1")] == ["ok"]


def test_the_start_that_a_person_gave_outlives_a_scan(recordings: Recordings, video: Path) -> None:
    given = recordings.register(str(video), "cam1", THREE)
    assert list(recordings.scan()) == [given]
    touch(video)
    (again,) = recordings.scan()
    assert isinstance(again, dict)
    assert (again["start_time"], again["start_source"]) == (given["start_time"], "option")
    # Another recording under the same name does not inherit it.
    write_video(video, seconds=2, fps=10, width=64, height=48)
    (other,) = recordings.scan()
    assert isinstance(other, dict) and other["status"] == "quarantined" and "--start" in other["reason"]


def test_a_start_is_taken_back_by_another_and_not_by_silence(recordings: Recordings, video: Path) -> None:
    say_start(video, THREE)
    first = recordings.register(str(video), "cam1")
    sidecar = video.with_name("a.mp4.json")
    sidecar.unlink()
    assert recordings.register(str(video), "cam1") == first
    sidecar.write_text("{")
    assert recordings.register(str(video), "cam1")["status"] == "quarantined"
    assert starts(recordings, "ok") == []


def test_the_same_recording_under_two_names_is_used_once(recordings: Recordings, video: Path) -> None:
    twin = video.with_name("b.mp4")
    shutil.copy(video, twin)
    first = recordings.register(str(twin), "cam1", THREE)
    recordings.register(str(video), "cam1", THREE)
    rows = describe_hour(hours(THREE)[0], SampleGrid(), recordings.of_camera("cam1"), open_uri)
    assert [row["uri"] for row in rows if row["used"]] == [first["uri"]]
    (unused,) = (row for row in rows if row["status"] == "overlap")
    assert unused["uri"] == str(video)
    assert unused["reason"] == (
        f"{twin} covers this time and is used instead, because it starts at the same time and was registered earlier"
    )


# -- what a person quarantined ---------------------------------------------------------------------------------


def statuses(recordings: Recordings) -> list[str]:
    return sorted(row["status"] for row in recordings.of_camera("cam1"))


def test_what_a_person_quarantined_stays_so_whoever_offers_it(recordings: Recordings, video: Path) -> None:
    good = recordings.register(str(video), "cam1", THREE)
    row = recordings.quarantine(str(video), "cam1", "it ends the decoder")
    said = {"status": "quarantined", "reason": "it ends the decoder", "quarantined_at": row["quarantined_at"]}
    assert row == good | said and row["quarantined_at"] is not None
    say_start(video, FOUR)  # another sidecar is no other file
    assert list(recordings.scan()) == [row]
    assert [recordings.register(str(video), "cam1", start_ns) for start_ns in (None, FIVE)] == [row, row]
    assert statuses(recordings) == ["quarantined", "superseded"]
    RECORDINGS.validate(rows_table(RECORDINGS, recordings.of_camera("cam1")))
    # Nothing is made from it, and what was is out of date.
    assert (recordings.cameras(), recordings.hours("cam1")) == ([], [])
    assert recordings.cameras(include_superseded=True) == ["cam1"]
    assert recordings.hours("cam1", include_superseded=True) == hours(THREE)
    assert list(registrations(recordings, ["cam1"])) == hours(THREE)
    rows = describe_hour(hours(THREE)[0], SampleGrid(), recordings.of_camera("cam1"), open_uri)
    assert [(one["status"], one["reason"]) for one in rows if one["status"] != "gap"] == [
        ("corrupt", f"{video}: it ends the decoder")
    ]


def test_the_same_reason_again_makes_no_hour_out_of_date(recordings: Recordings, video: Path) -> None:
    recordings.register(str(video), "cam1", THREE)
    row = recordings.quarantine(str(video), "cam1", "no good")
    before = recordings.marks("cam1")
    assert recordings.quarantine(str(video), "cam1", "no good") == row
    assert recordings.marks("cam1") == before
    again = recordings.quarantine(str(video), "cam1", "it ends the decoder")
    assert again["reason"] == "it ends the decoder" and statuses(recordings) == ["quarantined", "superseded"]


@pytest.mark.parametrize("gone", [False, True])
def test_what_is_taken_back_stands_as_before(recordings: Recordings, video: Path, gone: bool) -> None:
    good = recordings.register(str(video), "cam1", THREE)
    if gone:
        video.unlink()
    recordings.quarantine(str(video), "cam1", "gone")
    assert recordings.lift(str(video), "cam1") == good
    assert recordings.of_camera("cam1") == [good]
    assert recordings.hours("cam1") == hours(THREE)


def test_another_file_at_its_place_is_looked_at(recordings: Recordings, video: Path) -> None:
    recordings.register(str(video), "cam1", THREE)
    recordings.quarantine(str(video), "cam1", "no good")
    touch(video)
    (row,) = recordings.scan()
    assert isinstance(row, dict) and (row["status"], row["quarantined_at"]) == ("ok", None)
    assert from_datetime(row["start_time"]) == THREE, "its start was given, and is kept with the size"
    assert statuses(recordings) == ["ok", "superseded"]


def test_a_file_that_cannot_be_used_is_set_apart_and_looked_at_when_that_is_taken_back(
    recordings: Recordings, video: Path
) -> None:
    whole = video.read_bytes()
    video.write_bytes(b"rubbish" * 99)
    stamp = video.stat()
    found = recordings.register(str(video), "cam1", THREE)
    assert found["status"] == "quarantined"
    row = recordings.quarantine(str(video), "cam1", "nobody has it any more")
    assert row["reason"] == f"nobody has it any more (before: {found['reason']})"
    assert recordings.hours("cam1", include_superseded=True) == [], "nothing was made from it"
    again = recordings.lift(str(video), "cam1")
    assert (again["status"], again["quarantined_at"]) == ("quarantined", None)
    recordings.quarantine(str(video), "cam1", "nobody has it any more")
    video.unlink()
    with pytest.raises(InputError, match="there is no such file"):
        recordings.lift(str(video), "cam1")
    assert [one["quarantined_at"] is None for one in recordings.of_camera("cam1")] == [False]
    video.write_bytes(whole)
    os.utime(video, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    say_start(video, FOUR)
    assert recordings.register(str(video), "cam1")["status"] == "ok", "of another size"


def test_only_what_is_registered_can_be_quarantined_and_only_that_taken_back(
    recordings: Recordings, video: Path
) -> None:
    with pytest.raises(InputError, match=r"is not in the register of cam1.*Name it as the register does"):
        recordings.quarantine(str(video), "cam1", "no good")
    recordings.register(str(video), "cam1", THREE)
    with pytest.raises(InputError, match=r"is not in the register of cam2.*Cameras: cam1"):
        recordings.lift(str(video), "cam2")
    with pytest.raises(InputError, match="no person quarantined this file"):
        recordings.lift(str(video), "cam1")
    with pytest.raises(InputError, match="is no reason"):
        recordings.quarantine(str(video), "cam1", "  ")
    with pytest.raises(InputError, match="cannot be a camera's name"):
        recordings.quarantine(str(video), "../x", "no good")
    assert statuses(recordings) == ["ok"]


def test_rows_of_an_older_version_say_that_nobody_quarantined(recordings: Recordings, video: Path) -> None:
    row = recordings.register(str(video), "cam1", THREE)
    path = recordings.row_path("cam1", row["recording_id"])
    old = pq.read_table(io.BytesIO(recordings.store.read_bytes(path))).drop_columns(["quarantined_at"])
    content = io.BytesIO()
    pq.write_table(old, content)
    recordings.store.write_bytes(path, content.getvalue())
    assert recordings.of_camera("cam1") == [row]
    assert recordings.register(str(video), "cam1") == row
    assert recordings.quarantine(str(video), "cam1", "no good")["status"] == "quarantined"
    assert recordings.lift(str(video), "cam1") == row


def test_quarantined_files_are_of_the_time_at_which_they_start_where_that_can_be(
    recordings: Recordings, video: Path
) -> None:
    def offer(name: str, start_ns: int | None) -> None:
        video.with_name(name).write_bytes(b"rubbish" * 99)
        recordings.register(str(video.with_name(name)), "cam1", start_ns)

    offer("three", THREE)
    offer("five", FIVE)
    offer("unknown", None)
    offer("before the first hour", parse_utc("2001-01-01T00:00:00Z"))
    offer("not yet", parse_utc("2099-01-01T00:00:00Z"))

    def names(*range_ns: int | None, **how: bool) -> list[str]:
        return [row["uri"].rpartition("/")[2] for row in recordings.quarantined("cam1", *range_ns, **how)]

    now = ["unknown", "before the first hour", "not yet"]
    assert names() == ["three", "five", *now]
    assert names(THREE, FIVE) == ["three"]
    assert names(None, FIVE) == ["three"]
    assert names(FIVE, FIVE + HOUR_NS) == ["five"]
    assert names(FIVE + HOUR_NS) == now
    assert names(FIVE + HOUR_NS, or_registered=True) == ["three", "five", *now]
    assert names(THREE, FIVE, or_registered=True) == ["three"]


def test_the_command_quarantines_and_takes_back(
    recordings: Recordings, video: Path, laps_command: Laps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAPS_STORE", recordings.store.root)
    monkeypatch.chdir(video.parent)
    recordings.register(str(video), "cam1", THREE)

    def said(*arguments: str) -> tuple[int, str]:
        code, out, err = laps_command(*arguments)
        return code, out + err

    assert said("quarantine", "a.mp4", "--camera", "cam1")[0] == 2
    assert said("quarantine", "a.mp4", "--camera", "cam1", "--reason", "x", "--lift")[0] == 2
    assert said("quarantine", "b.mp4", "--camera", "cam1", "--reason", "x") == (
        1,
        f"laps: {video.parent}/b.mp4: is not in the register of cam1. Name it as the register does: "
        "`laps sql \"select uri from recordings where camera = 'cam1'\"`. Cameras: cam1.\n",
    )
    assert said("quarantine", "a.mp4", "--camera", "cam1", "--reason", "it ends the decoder") == (
        0,
        f"quarantined  cam1  {video}: it ends the decoder\n"
        "`laps backfill --only missing` makes what it touches without it: 2026-01-05-03:00 UTC\n",
    )
    for arguments in (("ingest", "--landing", recordings.landing), ("ingest", "a.mp4", "--camera", "cam1")):
        assert said(*arguments) == (0, f"left out     cam1  {video}: quarantined by a person: it ends the decoder\n")
    assert said("quarantine", "a.mp4", "--camera", "cam1", "--lift") == (
        0,
        f"lifted       cam1  {video}\n"
        "`laps backfill --only missing` makes what it touches with it: 2026-01-05-03:00 UTC\n",
    )
    assert recordings.hours("cam1") == hours(THREE)
    video.write_bytes(b"rubbish" * 99)
    assert said("ingest", "a.mp4", "--camera", "cam1")[0] == 1
    assert said("quarantine", "a.mp4", "--camera", "cam1", "--reason", "mended never")[0] == 0
    code, out = said("quarantine", "a.mp4", "--camera", "cam1", "--lift")
    assert code == 1 and out.startswith(f"lifted, and it still cannot be used: {video}: ")


# -- the landing zone ------------------------------------------------------------------------------------------


def scanned(recordings: Recordings, video: Path) -> tuple[Any, dict[str, Any]]:
    """What a scan says of ``a.mp4`` and of a good file that comes after it."""
    last = video.with_name("z_20260105T030000Z.mp4")
    if not last.exists():
        shutil.copy(video, last)
    first, second = recordings.scan()
    assert isinstance(second, dict)
    return first, second


@pytest.mark.parametrize("sidecar", ["a.mp4.json", "a.json"])
def test_a_sidecar_in_another_encoding_stops_no_scan(recordings: Recordings, video: Path, sidecar: str) -> None:
    video.with_name(sidecar).write_bytes('{"start": "caf\u00e9"}'.encode("latin-1"))
    bad, good = scanned(recordings, video)
    assert bad["status"] == "quarantined"
    assert str(video.with_name(sidecar)) in bad["reason"] and "UTF-8" in bad["reason"]
    assert good["status"] == "ok"


def test_a_sidecar_that_is_no_file_stops_no_scan(recordings: Recordings, video: Path) -> None:
    video.with_name("a.mp4.json").mkdir()
    bad, good = scanned(recordings, video)
    assert isinstance(bad, InputError)
    assert bad.where == str(video.with_name("a.mp4.json")) and bad.fix
    assert good["status"] == "ok"


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at files in this process, where what a test replaces is seen."""
    monkeypatch.setattr(resources.recordings.APART, "call", lambda _, function, *arguments: function(*arguments))


@pytest.mark.parametrize("name", ["a.mp4", "a.mp4.json"])
def test_a_forbidden_file_stops_no_scan(
    recordings: Recordings, video: Path, monkeypatch: pytest.MonkeyPatch, name: str, in_this_process: None
) -> None:
    say_start(video, THREE)
    forbidden = str(video.with_name(name))

    def open_but(uri: str, *ahead: int) -> Any:
        if uri == forbidden:
            raise PermissionError(13, "Permission denied", uri)
        return open_uri(uri)

    monkeypatch.setattr(resources.recordings, "open_uri", open_but)
    bad, good = scanned(recordings, video)
    assert isinstance(bad, InputError)
    assert bad.where == forbidden and "Permission denied" in bad.what and bad.fix
    assert good["status"] == "ok"


def test_a_network_that_is_down_ends_a_scan(
    recordings: Recordings, monkeypatch: pytest.MonkeyPatch, in_this_process: None
) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise ConnectionError("connection reset")

    def open_broken(uri: str, *ahead: int) -> Any:
        return Broken(b"x" * 100)

    info = resources.recordings.FileInfo("s3://bucket/a.mp4", 100, None, "e")
    monkeypatch.setattr(resources.recordings, "file_info", lambda uri: info)
    monkeypatch.setattr(resources.recordings, "open_uri", open_broken)
    with pytest.raises(UnreachableError, match=r"s3://bucket/a.mp4: cannot be reached: connection reset.*network"):
        recordings.register(info.uri, "cam1", sidecars=())
    assert recordings.of_camera("cam1") == []


def test_a_name_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(InputError, match="not UTF-8"):
        file_info("/landing/cam1/caf\udce9.mp4")


def test_an_unrelated_json_file_does_not_hide_the_stamp_in_a_name(recordings: Recordings, video: Path) -> None:
    stamped = video.rename(video.with_name("a_20260105T030000Z.mp4"))
    unrelated = stamped.with_suffix(".json")
    unrelated.write_text('{"fps": 10}')
    row = recordings.register(str(stamped), "cam1")
    assert (row["status"], row["start_source"]) == ("ok", "file_name")
    unrelated.write_text(json.dumps({"start": format_utc(FOUR)}))
    row = recordings.register(str(stamped), "cam1")
    assert (from_datetime(row["start_time"]), row["start_source"]) == (FOUR, "sidecar")


# -- reading ---------------------------------------------------------------------------------------------------


def put(store: Store, name: str, start_ns: int | None, end_ns: int | None) -> None:
    row = dict.fromkeys(RECORDINGS.column_names) | {
        "recording_id": name,
        "camera": "cam1",
        "uri": f"/x/{name}.mp4",
        "status": "ok" if end_ns else "quarantined",
        "start_time": start_ns and pa.scalar(start_ns // 1000, pa.timestamp("us", "UTC")),
        "end_time": end_ns and pa.scalar(end_ns // 1000, pa.timestamp("us", "UTC")),
        "size_bytes": 1,
        "etag": "e",
        "registered_at": pa.scalar(FIVE // 1000, pa.timestamp("us", "UTC")),
    }
    store.write_table(RECORDINGS, f"recordings/camera=cam1/{name}.parquet", rows_table(RECORDINGS, [row]))


@pytest.mark.parametrize("root", [lambda path: str(path / "store"), lambda path: f"memory://{path.name}/store"])
def test_rows_are_read_by_start_and_by_range(tmp_path: Path, root: Callable[[Path], str]) -> None:
    store = Store(root(tmp_path))
    recordings = Recordings(store, str(tmp_path))
    assert recordings.of_camera("cam1") == recordings.cameras() == recordings.hours("cam1") == []
    put(store, "later", FOUR, FIVE)
    put(store, "early", THREE, THREE + S)
    put(store, "unknown", None, None)
    put(store, "endless", THREE + S, None)

    def names(**how: Any) -> list[str]:
        return [row["recording_id"] for row in recordings.of_camera("cam1", **how)]

    assert names() == ["early", "endless", "later", "unknown"]
    assert names(touching=(FOUR - S, FOUR)) == ["endless"]
    assert names(touching=(FIVE - S, FIVE)) == ["endless", "later"]
    assert names(touching=(0, THREE + 1000)) == ["early"]
    assert recordings.hours("cam1") == hours(THREE, FOUR)
    assert recordings.cameras() == ["cam1"]
    assert (
        recordings.of_camera("cam1")[2]
        == store.read_table(RECORDINGS, "recordings/camera=cam1/later.parquet").to_pylist()[0]
    )


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The register's files that are read themselves."""
    read: list[str] = []
    really = Recordings._read_rows

    def read_rows(self: Recordings, paths: Sequence[str], *how: Any) -> pa.Table:
        read.extend(path.rpartition("/")[2].removesuffix(".parquet") for path in paths)
        return really(self, paths, *how)

    monkeypatch.setattr(Recordings, "_read_rows", read_rows)
    monkeypatch.setattr("resources.compaction.BEHIND", 0)
    return read


@pytest.mark.parametrize("root", [lambda path: str(path / "store"), lambda path: f"memory://{path.name}/store"])
def test_only_rows_that_changed_since_they_were_copied_are_read_themselves(
    tmp_path: Path, root: Callable[[Path], str], direct: list[str]
) -> None:
    store = Store(root(tmp_path))
    recordings = Recordings(store, str(tmp_path))
    for number in range(5):
        put(store, f"r{number}", THREE + number * S, THREE + number * S + 1000)
    plain = recordings.of_camera("cam1")
    assert compact_register(store, "cam1") == 5 and compact_register(store, "cam1") == 0

    def known(**how: Any) -> list[str]:
        direct.clear()
        return [row["recording_id"] for row in recordings.of_camera("cam1", **how)]

    assert recordings.of_camera("cam1") == plain
    assert known() == ["r0", "r1", "r2", "r3", "r4"] and direct == []
    assert known(touching=(THREE + 2 * S, THREE + 2 * S + 1000)) == ["r2"] and direct == []
    assert (recordings.cameras(), recordings.hours("cam1"), direct) == (["cam1"], hours(THREE), [])
    put(store, "r1", FIVE, FIVE + S)
    store.delete("recordings/camera=cam1/r2.parquet")
    put(store, "new", FOUR, FOUR + S)
    assert known() == ["r0", "r3", "r4", "new", "r1"] and direct == ["new", "r1"]
    assert known(touching=(0, FOUR)) == ["r0", "r3", "r4"]
    assert known(columns=["recording_id"]) == ["r0", "r3", "r4", "new", "r1"]
    assert recordings.hours("cam1") == hours(THREE, FOUR, FIVE)
    changed = recordings.of_camera("cam1")
    assert compact_register(store, "cam1", at_most=1) == 0 and compact_register(store, "cam1") == 2
    assert recordings.of_camera("cam1") == changed
    assert known() == ["r0", "r3", "r4", "new", "r1"] and direct == []


@pytest.mark.parametrize("harm", ["no manifest", "no data", "damaged manifest", "damaged data", "other version"])
def test_a_copy_that_is_no_good_costs_time_only(recordings: Recordings, direct: list[str], harm: str) -> None:
    store = recordings.store
    for number in range(3):
        put(store, f"r{number}", THREE + number * S, THREE + number * S + 1000)
    compact_register(store, "cam1")
    manifest = "compacted/recordings/camera=cam1/manifest.json"
    (data,) = store.files("compacted", ".parquet")
    if harm == "other version":
        store.write_json(manifest, {**store.read_json(manifest), "version": "0"})
    else:
        path = manifest if "manifest" in harm else data
        store.delete(path) if harm.startswith("no") else store.write_bytes(path, b"PAR1 nothing")
    assert [row["recording_id"] for row in recordings.of_camera("cam1")] == ["r0", "r1", "r2"]
    assert direct == ["r0", "r1", "r2"]
    put(store, "r3", FOUR, FIVE)
    assert compact_register(store, "cam1") in (1, 4)
    assert [row["recording_id"] for row in recordings.of_camera("cam1")] == ["r0", "r1", "r2", "r3"]


def test_looking_for_cameras_reads_no_more_than_shows_that_they_film(
    recordings: Recordings, direct: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resources.recordings._ROWS_AT_ONCE", 2)
    for number in range(6):
        put(recordings.store, f"r{number}", THREE, FOUR)
    recordings.store.write_bytes("recordings/camera=cam2/broken.parquet", b"no parquet")
    assert recordings.offered() == ["cam1", "cam2"]
    assert recordings.cameras(besides=["cam2"]) == ["cam1"] and len(direct) == 2


def test_many_rows_are_copied_when_they_are_registered(
    recordings: Recordings, video: Path, direct: list[str], laps_command: Laps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAPS_STORE", recordings.store.root)
    say_start(video, THREE)
    assert laps_command("ingest", "--landing", recordings.landing)[0] == 0
    assert len(recordings.of_camera("cam1")) == 1 and direct == []


def test_a_broken_row_is_named(recordings: Recordings, video: Path) -> None:
    recordings.register(str(video), "cam1", THREE)
    recordings.store.write_bytes("recordings/camera=cam1/broken.parquet", b"no parquet")
    with pytest.raises(StoreError, match=r"camera=cam1/broken\.parquet"):
        recordings.of_camera("cam1")


def test_a_video_in_no_camera_folder_gives_its_error(recordings: Recordings, video: Path) -> None:
    say_start(video, THREE)
    astray = Path(shutil.copy(video, video.parent.parent / "astray.mp4"))
    (video.parent.parent / ".hidden.mp4").touch()
    wrong, good = recordings.scan()
    assert isinstance(wrong, InputError)
    assert wrong.where == str(astray) and f"{recordings.landing}/<camera>/" in str(wrong.fix)
    assert isinstance(good, dict) and (good["status"], good["uri"]) == ("ok", str(video))


def test_an_earlier_first_hour_in_the_settings_takes_a_quarantined_recording(
    recordings: Recordings, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = store_settings(recordings.store)
    monkeypatch.delenv("LAPS_FIRST_HOUR")
    say_start(video, "2025-06-01T00:00:00Z")
    early = recordings.register(str(video), "cam1")
    assert early["status"] == "quarantined"
    assert f"write an earlier first_hour into {recordings.store.root}/settings.json" in early["reason"]
    recordings.store.write_json(SETTINGS, {**settings, "first_hour": "2025-06-01T00:00:00Z"})
    assert recordings.register(str(video), "cam1")["status"] == "ok"
    assert [row["status"] for row in recordings.of_camera("cam1")] == ["ok"]


def test_hours_before_a_first_hour_that_was_moved_are_none_to_make(
    recordings: Recordings, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say_start(video, "2026-01-05T09:59:59.5Z")
    assert recordings.register(str(video), "cam1")["status"] == "ok"
    nine, ten = recordings.hours("cam1")
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-01-05T10:00:00Z")
    assert recordings.hours("cam1") == [ten] == [nine.next]
    assert len(recordings.of_camera("cam1")) == 1, "what is registered stays"


def test_a_camera_folder_that_is_no_name_gives_its_error(recordings: Recordings, video: Path) -> None:
    shutil.move(video.parent, video.parent.with_name("Bad Name"))
    (outcome,) = recordings.scan()
    assert isinstance(outcome, LapsError) and "Bad Name" in str(outcome)
