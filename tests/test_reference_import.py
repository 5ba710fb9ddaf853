"""Work of the reference implementation as tables of the catalog: what it becomes, and what is refused whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from laps.errors import InputError
from laps.reference_files import read_codes_json
from laps.reference_import import Place, energy_rows, read_work, segment_rows
from laps.tables import IMPORTED_ENERGY, IMPORTED_SEGMENTS
from laps.timegrid import from_datetime, parse_utc
from laps_dagster.cli.main import laps
from resources.catalog import connect, open_catalog, run_query
from resources.imports import import_work
from resources.settings import store_settings
from resources.store import Store, rows_table
from tests.export_store import ExportStore

START = "2026-11-21T05:00:00Z"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")
    store = Store(str(tmp_path / "store"))
    store_settings(store)
    return store


def run(store: Store, *arguments: object) -> Result:
    return CliRunner().invoke(laps, ["--store", store.root, *map(str, arguments)], env={"LAPS_STORE": store.root})


def document(*spans: tuple[float, float], **more: Any) -> dict[str, Any]:
    segments = [{"start_sec": start, "end_sec": end} for start, end in spans]
    return {
        "video_duration_sec": 60.0,
        "segments": segments,
        "segmentation_params": {"stride": 4, "target_fps": 10},
    } | more


def energy(count: int = 3, *, source: str = "quantized", first: int = 0) -> str:
    lines = [{"window": first + n, "energy": 0.5 * n, "source": source, "mode": "l2"} for n in range(count)]
    return "".join(json.dumps(line) + "\n" for line in lines)


def codes(windows: list[list[int]], start: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "codes_windows": windows,
        "segment": {"start_frame": start, "end_frame": start + 1 + sum(map(len, windows))},
        "window": {"T": 16, "stride": 4, "target_fps": 10},
    } | more


def put(folder: Path, **files: Any) -> Path:
    """Files by name, with __ for a dot; what is no text is written as JSON."""
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def rows(store: Store, query: str) -> list[dict[str, Any]]:
    connection = connect(store)
    try:
        return run_query(connection, query).to_pylist()
    finally:
        connection.close()


def test_what_is_exported_comes_back_as_the_same_primitives(fresh: ExportStore, tmp_path: Path) -> None:
    out = tmp_path / "out"
    exported = run(fresh.store, "export", "--format", "segments", "--out", out, "--camera", "a", "--release", "r1")
    assert exported.exit_code == 0, exported.output
    imported = run(fresh.store, "import", out, "--camera", "a")
    assert imported.exit_code == 0, imported.output
    assert imported.stdout.count("new") == 2, "two recordings of this camera"
    connection = open_catalog(fresh.store, "r1")
    columns = "segment_id, camera, start_time, end_time, duration_s, cluster_id, codes, start_local, shift"
    query = f"SELECT {columns} FROM {{}} WHERE camera = 'a' ORDER BY start_time"
    ours, theirs = (run_query(connection, query.format(view)) for view in ("primitives", "imported_segments"))
    assert theirs.num_rows == 10
    for name in ours.column_names:
        if name == "duration_s":
            assert theirs[name].to_pylist() == pytest.approx(ours[name].to_pylist())
        else:
            assert theirs[name].to_pylist() == ours[name].to_pylist(), name
    overlapping = run_query(
        connection,
        "SELECT p.segment_id, i.segment_id AS imported FROM primitives p JOIN imported_segments i "
        "ON i.camera = p.camera AND i.start_time < p.end_time AND p.start_time < i.end_time",
    ).to_pylist()
    assert len(overlapping) == 10 and all(row["segment_id"] == row["imported"] for row in overlapping)
    recordings = run_query(
        connection, "SELECT DISTINCT s.video FROM imported_segments s JOIN recordings USING (recording_id)"
    )
    assert recordings.num_rows == 2
    connection.close()


def test_importing_the_same_changes_nothing_and_other_work_takes_its_place(store: Store, tmp_path: Path) -> None:
    work = put(tmp_path / "work", a_segments__json=document((1, 2), (3, 4)), a_energy__jsonl=energy())

    def said() -> list[str]:
        result = run(store, "import", work, "--camera", "cam1", "--start", START)
        assert result.exit_code == 0, result.output
        return [line.split()[0] for line in result.stdout.splitlines()]

    def files() -> dict[str, bytes]:
        found = [*store.files(IMPORTED_SEGMENTS.name), *store.files(IMPORTED_ENERGY.name)]
        return {path: store.read_bytes(path) for path in found}

    assert said() == ["new", "new"]
    first, ids = files(), rows(store, "SELECT DISTINCT import_id FROM imported_segments")
    assert said() == ["unchanged", "unchanged"]
    assert files() == first
    put(work, a_segments__json=document((1, 2.5)))
    assert said() == ["replaced", "unchanged"]
    assert files().keys() == first.keys()
    assert [row["duration_s"] for row in rows(store, "SELECT duration_s FROM imported_segments")] == [1.5]
    assert rows(store, "SELECT DISTINCT import_id FROM imported_segments") != ids
    # Another energy of the same video stands beside the first.
    put(work, a_velocity__jsonl=energy(source="velocity"))
    assert said() == ["unchanged", "unchanged", "new"]
    assert len(rows(store, "SELECT DISTINCT source FROM imported_energy")) == 2


@settings(deadline=None)
@given(st.integers(1, 8), st.sampled_from([2.5, 10.0, 25.0]), st.integers(0, 1000))
def test_a_window_stands_where_the_reference_puts_it(tmp_path_factory, stride, fps, first):
    (work,) = read_work(put(tmp_path_factory.mktemp("windows"), v_energy__jsonl=energy(first=first)))
    place = Place("cam1", parse_utc(START), None, None, *work.rates(stride, fps))
    (made,) = energy_rows(work, place)
    assert [row["window"] for row in made.rows] == [first, first + 1, first + 2]
    for row in made.rows:
        after_s = (from_datetime(row["time"]) - parse_utc(START)) / 1e9
        assert after_s == pytest.approx(row["window"] * stride / fps, abs=2e-6)
        assert row["energy"] == 0.5 * (row["window"] - first)


def test_files_find_their_video(store: Store, tmp_path: Path) -> None:
    both = tmp_path / "both"
    put(
        both, cam_20261121T050000Z_segments__json=document((0, 1)), cam_20261121T060000Z_segments__json=document((0, 2))
    )
    put(both, cam_20261121T060000Z_energy__jsonl=energy())
    put(both / "own", x_20261121T070000Z_segments__json=document((0, 3)), stream__jsonl=energy())
    import_work(store, both, "cam1")
    found = rows(store, "SELECT video, hour(start_time) AS hour, duration_s FROM imported_segments ORDER BY 2")
    assert [(row["hour"], row["duration_s"]) for row in found] == [(5, 1.0), (6, 2.0), (7, 3.0)]
    energies = rows(store, "SELECT DISTINCT video FROM imported_energy ORDER BY 1")
    assert [row["video"] for row in energies] == ["cam_20261121T060000Z", "x_20261121T070000Z"]


def test_codes_come_from_the_segment_or_from_the_file_that_fits_it(store: Store, tmp_path: Path) -> None:
    made = document((1, 2), (3, 4), (5, 6), (7, 8))
    made["segments"][0]["codes"] = [1, 2, 3]
    made["segments"][1]["segment_id"] = "b"
    work = put(
        tmp_path / "work",
        v_segments__json=made,
        one__codes__json=codes([[4, 5], [6]], start=0, segment_id="b"),
        # Windows that overlap: what the first shows, then what each adds.
        two__codes__json=codes([list(range(16)), list(range(4, 20))], start=50),
    )
    import_work(store, work, "cam1", start_ns=parse_utc(START))
    found = rows(store, "SELECT codes FROM imported_segments ORDER BY start_time")
    assert [row["codes"] for row in found] == [[1, 2, 3], [4, 5, 6], list(range(20)), None]


BAD = {
    "no JSON": ({"a_segments__json": "{"}, "is no JSON"),
    "no list": ({"a_segments__json": {"segments": 3}}, '"segments" must be a list'),
    "truth": ({"a_segments__json": {"boundaries": [1.0]}}, 'has no "segments"'),
    "backwards": ({"a_segments__json": document((1, 2), (4, 3))}, "segment 1 does not end after it starts"),
    "negative": ({"a_segments__json": document((-1, 2))}, "segment 0: begins 1 s before the video"),
    "beyond": ({"a_segments__json": document((1, 2), (59, 61))}, "segment 1: lies at 61 s, and the video ends at 60 s"),
    "no rate": (
        {"a_segments__json": document((1, 2), segmentation_params={"target_fps": 0})},
        "target_fps cannot be 0",
    ),
    "no stride": ({"a_segments__json": document((1, 2), segmentation_params={"stride": 1.5})}, "a stride of 1.5"),
    "parameters": ({"a_segments__json": document((1, 2), segmentation_params=[])}, None),
    "start": ({"a_segments__json": document((1, 2), segmentation_params={"recording_start": "noon"})}, None),
    "twice": (
        {"a_segments__json": {"segments": [{"start_sec": 0, "end_sec": 1, "segment_id": "x"}] * 2}},
        "occurs twice",
    ),
    "camera": (
        {"a_segments__json": {"segments": [{"start_sec": 0, "end_sec": 1, "camera": "b"}]}},
        "of camera b, not cam1",
    ),
    "code": (
        {"a_segments__json": {"segments": [{"start_sec": 0, "end_sec": 1, "codes": [70_000]}]}},
        "from 0 to 65535",
    ),
    "cluster": (
        {"a_segments__json": {"segments": [{"start_sec": 0, "end_sec": 1, "cluster_id": "c"}]}},
        "cluster_id cannot",
    ),
    "codes file": ({"a__codes__json": {"codes_windows": [[1]]}}, 'no "codes_windows"'),
    "frames": ({"a__codes__json": codes([[1]]) | {"segment": {"start_frame": -1, "end_frame": 2}}}, "whole numbers"),
    "energy": ({"b__jsonl": '{"window": 0, "energy": "x"}\n'}, "line 1"),
    "negative window": ({"b__jsonl": energy(first=-1)}, "window -1 lies before the video"),
    "window beyond": ({"b__jsonl": energy(200)}, "window 199: lies at 79.6 s"),
    "two sources": ({"b__jsonl": energy() + energy(first=9, source="velocity")}, "must name one source"),
    "second energy": ({"a_1__jsonl": energy(), "a_2__jsonl": energy()}, "is a second energy of quantized, l2"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_named_and_nothing_is_imported(store: Store, tmp_path: Path, case: str) -> None:
    files, says = BAD[case]
    # Beside good files of the same video, and of another one that is looked at before.
    good = {"a_segments__json": document((1, 2)), "a_energy__jsonl": energy(source="good")}
    work = put(tmp_path / "work", **(good | files))
    if case == "start":
        result = run(store, "import", work, "--camera", "cam1")
        says = "its recording_start is no time"
    else:
        result = run(store, "import", work, "--camera", "cam1", "--start", START)
    if case == "parameters":
        assert result.exit_code == 0, "an empty list says nothing, as an absent one"
        return
    assert isinstance(result.exception, InputError)
    assert says in str(result.exception)
    assert str(work) in str(result.exception)
    assert store.files(IMPORTED_SEGMENTS.name) == store.files(IMPORTED_ENERGY.name) == []


def test_one_needs_to_know_when_and_which(store: Store, tmp_path: Path) -> None:
    two = put(tmp_path / "two", a_segments__json=document((0, 1)), b_segments__json=document((0, 1)))
    with pytest.raises(InputError, match=r"nothing says when the video a starts.*--start"):
        import_work(store, two, "cam1")
    with pytest.raises(InputError, match="a start or name is that of one video, and there are 2: a, b"):
        import_work(store, two, "cam1", start_ns=parse_utc(START))
    put(two, stream__jsonl=energy())
    with pytest.raises(InputError, match="cannot be told which video"):
        import_work(store, two, "cam1")
    put(two / "again", a_segments__json=document((0, 1)))
    with pytest.raises(InputError, match="is a second file of the video a"):
        import_work(store, two, "cam1")
    with pytest.raises(InputError, match="holds no work"):
        import_work(store, put(tmp_path / "none", readme__txt="x"), "cam1")
    with pytest.raises(InputError, match="no such file or folder"):
        import_work(store, tmp_path / "absent", "cam1")
    with pytest.raises(InputError, match="cannot be a camera's name"):
        import_work(store, two, "Cam 1")


def test_a_recording_that_is_registered_says_when_and_how_long(fresh: ExportStore, tmp_path: Path) -> None:
    work = put(tmp_path / "energies", stream__jsonl=energy(25))
    arguments = ("import", work, "--camera", "a", "--video")
    assert run(fresh.store, *arguments, "a-1").exit_code == 0
    (row,) = rows(fresh.store, "SELECT min(time) AS first, count(recording_id) AS of_recording FROM imported_energy")
    assert row["first"].isoformat() == "2026-11-21T06:10:00+00:00" and row["of_recording"] == 25
    put(work, stream__jsonl=energy(40))
    beyond = run(fresh.store, *arguments, "a-1")
    assert "window 39: lies at 15.6 s, and the video ends at 12 s" in str(beyond.exception)
    assert "nothing says when the video a-7 starts" in str(run(fresh.store, *arguments, "a-7").exception)


def test_a_single_file_is_a_video_of_its_own(store: Store, tmp_path: Path) -> None:
    work = put(tmp_path / "work", segments__json=document((0, 1), (2, 3)))
    (part,) = import_work(store, work / "segments.json", "cam1", start_ns=parse_utc(START))
    assert (part.video, part.rows, part.status) == ("segments", 2, "new")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
PLACES = [
    ("a_segments__json", key)
    for key in (
        *("video_duration_sec", "segments", "segmentation_params", "segments.0", "segmentation_params.stride"),
        *(f"segments.0.{name}" for name in ("start_sec", "end_sec", "codes", "segment_id", "cluster_id", "task")),
    )
] + [("a__codes__json", key) for key in ("codes_windows", "codes_windows.0", "segment", "window.stride", "segment_id")]


@settings(deadline=None)
@given(st.sampled_from(PLACES), ANYTHING)
def test_whatever_stands_in_a_file_gives_rows_that_fit_or_a_clear_error(tmp_path_factory, place, value):
    name, key = place
    made = document((1, 2), (3, 4))
    files = {"a_segments__json": made, "a__codes__json": codes([[1, 2]], start=30)}
    *way, last = key.split(".")
    inner: Any = files[name]
    for step in way:
        inner = inner[int(step) if step.isdigit() else step]
    inner[int(last) if last.isdigit() else last] = value
    folder = put(tmp_path_factory.mktemp("any"), **files)
    try:
        (work,) = read_work(folder)
        where = Place("cam1", parse_utc(START), work.duration_s, None, *work.rates(None, None))
        found = segment_rows(work, where)
    except InputError as error:
        assert str(folder) in str(error)
        return
    assert found is not None
    IMPORTED_SEGMENTS.validate(rows_table(IMPORTED_SEGMENTS, found.rows))


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 1919), min_size=1, max_size=4), min_size=1, max_size=6))
def test_windows_that_do_not_overlap_give_every_code_once(tmp_path_factory, windows):
    path = tmp_path_factory.mktemp("codes") / "one.codes.json"
    path.write_text(json.dumps(codes(windows)))
    assert list(read_codes_json(path).codes) == [code for window in windows for code in window]
