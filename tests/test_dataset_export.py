"""Data sets out of a store: what is chosen, what is refused, and exports that the formats' own readers understand."""

from __future__ import annotations

import gc
import io
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import av
import dagster as dg
import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.partitions import DATASETS
from assets.vla_dataset import vla_dataset
from laps.errors import InputError, ModelMismatchError, StoreError
from laps.export.card import sha256
from laps.export.lerobot import VIDEO_KEY
from laps.reference_files import read_segments_json
from laps.tables import CLIPS, SEGMENTS
from laps.timegrid import NS_PER_S, CameraHour, from_datetime, parse_utc
from laps_dagster.sensors import known_datasets
from resources.configured import StoreResource
from resources.curation import Selection, choose
from resources.datasets import (
    FORMATS,
    Format,
    dataset_key,
    next_version,
    parse_key,
    publish,
    versions,
    write_dataset,
)
from resources.release import ReleaseResource
from resources.store import Store, rows_table
from tests.conftest import Laps
from tests.export_store import CLUSTER_COUNT, GRID, TOKENIZER_ID, ExportStore, frames_of, picture_of
from tests.s3 import S3, s3, s3_server
from tests.videos import read_number

__all__ = ["s3", "s3_server"]


@pytest.fixture
def run(laps_command: Laps, made: ExportStore, monkeypatch: pytest.MonkeyPatch) -> Laps:
    """Run ``laps`` on the module's store; returns exit code, standard output and standard error."""
    monkeypatch.setenv("LAPS_STORE", made.store.root)
    return laps_command


def chosen_ids(made: ExportStore, **selection: Any) -> set[str]:
    return {item.segment_id for item in choose(made.store, made.release, Selection(**selection)).items}


def by_id(made: ExportStore) -> dict[str, dict[str, Any]]:
    return {row["segment_id"]: row for row in made.rows}


def numbers_in(source: Any) -> list[int]:
    with av.open(source, options={"ignore_editlist": "1"}) as container:
        return [read_number(frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


# --- what is chosen --------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=12)
@given(
    clusters=st.lists(st.integers(0, CLUSTER_COUNT - 1), max_size=2, unique=True),
    cameras=st.lists(st.sampled_from(["a", "b"]), max_size=1),
    shortest=st.none() | st.floats(0.5, 1.6),
    longest=st.none() | st.floats(1.2, 3),
    least=st.none() | st.floats(0.4, 0.7),
    stop=st.none() | st.sampled_from(["2026-11-21T05:00:06Z", "2026-11-21T07:00:00+01:00"]),
    where=st.none() | st.sampled_from(["duration_s > 1 -- of note", "camera = 'a' OR cluster_id = 1;"]),
)
def test_options_and_condition_are_all_met(
    made: ExportStore,
    clusters: list[int],
    cameras: list[str],
    shortest: float | None,
    longest: float | None,
    least: float | None,
    stop: str | None,
    where: str | None,
) -> None:
    expected = {
        row["segment_id"]
        for row in made.rows
        if (not clusters or row["cluster_id"] in clusters)
        and (not cameras or row["camera"] in cameras)
        and (shortest is None or row["duration_s"] >= shortest)
        and (longest is None or row["duration_s"] <= longest)
        and (least is None or 0.5 + 0.1 * row["cluster_id"] >= least)
        and (stop is None or from_datetime(row["start_time"]) < parse_utc(stop))
        and (
            where is None
            or (
                row["duration_s"] > 1
                if where.startswith("duration")
                else row["camera"] == "a" or row["cluster_id"] == 1
            )
        )
    }
    selection: dict[str, Any] = {
        "clusters": tuple(clusters),
        "cameras": tuple(cameras),
        "min_duration_s": shortest,
        "max_duration_s": longest,
        "min_icss": least,
        "stop": stop,
        "where": where,
    }
    if expected:
        assert chosen_ids(made, **selection) == expected
    else:
        with pytest.raises(InputError, match=r"nothing is selected \(0 matched\).*has 15 primitives of camera a, b"):
            chosen_ids(made, **selection)


def test_a_query_names_primitives_by_their_ids(made: ExportStore) -> None:
    longest = sorted(made.rows, key=lambda row: (-row["duration_s"], row["segment_id"]))[:4]
    query = "WITH p AS (FROM primitives) SELECT segment_id FROM p ORDER BY duration_s DESC, segment_id LIMIT 4;"
    assert chosen_ids(made, sql=query) == {row["segment_id"] for row in longest}
    assert chosen_ids(made, sql=query, cameras=("b",)) == {r["segment_id"] for r in longest if r["camera"] == "b"}
    one = "SELECT segment_id FROM primitives WHERE camera = 'b'"
    twice = f"{one} UNION ALL {one}"
    assert len(choose(made.store, made.release, Selection(sql=twice)).items) == 5


@pytest.mark.parametrize(
    ("selection", "says"),
    [
        ({"where": "durations > 1"}, "Columns of primitives: segment_id"),
        ({"where": "1 = 1) UNION (COPY (SELECT 1) TO '/tmp/x.parquet'"}, "."),
        ({"where": "segment_id IN (SELECT filename FROM read_text('/etc/passwd'))"}, "read_text is not admitted"),
        ({"sql": "SELECT camera FROM primitives"}, "segment_id"),
        ({"sql": "DROP VIEW primitives"}, "."),
        ({"sql": "SELECT segment_id FROM primitives", "where": "true"}, "cannot both"),
        ({"cameras": ("A",)}, "cannot be a camera's name"),
        ({"start": "yesterday"}, "is not a time"),
        ({"per_cluster": 0}, "1 or more"),
        ({"min_distance": 3.0}, "between 0 and 2"),
        (
            {"split": "time", "guard_s": 1e6, "cameras": ("a",)},
            r"no primitive is left to train on.*10 matched, 10 with",
        ),
        ({"split": "time", "where": "segment_id = 'a05x00950'"}, r"cannot be split \(1 matched"),
    ],
)
def test_what_cannot_select_is_an_error_that_says_why(made: ExportStore, selection: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=f"(?s){says}"):
        choose(made.store, made.release, Selection(**selection))


def test_balance_duplicates_and_split_come_one_after_the_other(made: ExportStore) -> None:
    chosen = choose(made.store, made.release, Selection(per_cluster=4, seed=1))
    assert Counter(item.cluster_id for item in chosen.items) == {0: 4, 1: 4, 2: 4}
    assert chosen.counts == {"matched": 15, "with a clip": 15, "after balance": 12}
    # Of the same primitive in three recordings the first stays.
    chosen = choose(made.store, made.release, Selection(min_distance=0.1))
    assert chosen.counts["without near-duplicates"] == len(chosen.items) == 5
    assert {from_datetime(row["start_time"]) for row in made.rows if row["segment_id"].startswith("a05")} == {
        item.start_ns for item in chosen.items
    }
    for by in ("time", "recording"):
        chosen = choose(made.store, made.release, Selection(split=by, validation_share=0.3, guard_s=1.0))
        parts = {name: [item for item in chosen.items if item.split == name] for name in ("train", "validation")}
        assert parts["train"] and parts["validation"]
        assert chosen.counts["after the split"] == len(chosen.items)
        for one in parts["train"]:
            for other in parts["validation"]:
                if one.camera == other.camera:
                    assert max(one.start_ns - other.end_ns, other.start_ns - one.end_ns) >= NS_PER_S
        again = choose(made.store, made.release, Selection(split=by, validation_share=0.3, guard_s=1.0))
        assert again.items == chosen.items


def test_primitives_without_a_clip_are_counted_apart(fresh: ExportStore) -> None:
    hour = CameraHour("b", parse_utc("2026-11-21T05:00:00Z"))
    rows = fresh.store.read_partition(CLIPS, hour, fresh.release.name).to_pylist()
    rows[0] |= {"status": "failed", "reason": "the recording is gone", "clip_path": None}
    fresh.store.write_partition(CLIPS, hour, rows_table(CLIPS, rows), fresh.release.name)
    assert choose(fresh.store, fresh.release, Selection()).counts == {"matched": 15, "with a clip": 14}
    fresh.store.delete(fresh.store.partition_path(CLIPS, hour, fresh.release.name))
    with pytest.raises(InputError, match=r"nothing is selected \(5 matched, 0 with a clip\)\. Cut the clips"):
        choose(fresh.store, fresh.release, Selection(cameras=("b",)))


def test_two_tokenizers_are_refused_with_the_hours_to_make_again(fresh: ExportStore, tmp_path: Path) -> None:
    hour = CameraHour("a", parse_utc("2026-11-21T06:00:00Z"))
    rows = fresh.store.read_partition(SEGMENTS, hour, fresh.release.name).to_pylist()
    for row in rows:
        row["tokenizer_id"] = "tother"
    fresh.store.write_partition(SEGMENTS, hour, rows_table(SEGMENTS, rows), fresh.release.name)
    with pytest.raises(ModelMismatchError) as caught:
        choose(fresh.store, fresh.release, Selection())
    assert f"1 of its hours have tokenizer_id tother, not {TOKENIZER_ID}" in str(caught.value)
    assert "again for a|2026-11-21-06:00" in str(caught.value) and "05:00" not in str(caught.value)
    assert len(choose(fresh.store, fresh.release, Selection(stop="2026-11-21T06:00:00Z")).items) == 10


def test_a_clip_that_is_gone_is_left_out_and_named(fresh: ExportStore, tmp_path: Path) -> None:
    victim = fresh.store.files("clip_files", ".mp4")[0]
    fresh.store.delete(victim)
    chosen = choose(fresh.store, fresh.release, Selection())
    told: list[str] = []
    summary = write_dataset(
        fresh.store,
        fresh.release,
        chosen,
        Format("lerobot"),
        tmp_path / "set",
        name="x",
        progress=lambda item: told.append(item.segment_id),
    )
    assert [segment_id for segment_id, _ in summary.skipped] == [Path(victim).stem]
    assert sorted(told) == sorted(item.segment_id for item in chosen.items)


# --- read back -------------------------------------------------------------------------------------------------


# The library leaves its files to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_its_shards(made: ExportStore, run: Laps, tmp_path: Path) -> None:
    code, out, err = run("export", "--format", "webdataset", "--out", tmp_path / "set", "--per-cluster", 3)
    assert code == 0, err
    assert "15 matched, 15 with a clip, 9 after balance" in out and "9 primitives" in out
    shards = sorted(str(path) for path in (tmp_path / "set").glob("*.tar"))
    rows, seen = by_id(made), set()
    for sample in webdataset.WebDataset(shards, shardshuffle=False).decode():
        row = rows[sample["__key__"]]
        seen.add(sample["__key__"])
        assert sample["codes.npy"].tolist() == row["codes"]
        assert sample["json"]["cluster_id"] == row["cluster_id"]
        assert numbers_in(io.BytesIO(sample["mp4"])) == frames_of(row)
    assert len(seen) == 9
    gc.collect()


def test_lerobot_holds_the_codes_and_frames_of_the_source(made: ExportStore, run: Laps, tmp_path: Path) -> None:
    code, _, err = run("export", "--format", "lerobot", "--out", tmp_path / "set", "--split", "recording", "--guard", 0)
    assert code == 0, err
    info = json.loads((tmp_path / "set/meta/info.json").read_text())
    episodes = pq.read_table(tmp_path / "set/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    data = pq.read_table(tmp_path / "set/data/chunk-000/file-000.parquet").to_pylist()
    video = numbers_in(str(tmp_path / "set" / f"videos/{VIDEO_KEY}/chunk-000/file-000.mp4"))
    assert info["total_episodes"] == len(episodes) == 15
    rows = by_id(made)
    assert Counter(one["split"] for one in episodes) == {"train": 10, "validation": 5}
    for episode in episodes:
        row = rows[episode["segment_id"]]
        mine = data[episode["dataset_from_index"] : episode["dataset_to_index"]]
        assert [one["action"] for one in mine] == row["codes"]
        assert episode["tasks"] == [f"cluster {row['cluster_id']}"]
        first = round(episode[f"videos/{VIDEO_KEY}/from_timestamp"] * info["fps"])
        assert video[first : first + len(mine)] == [picture_of(row, place) for place in range(len(mine))]


def read_as_lapa(file: Path, codes_per_line: int) -> list[dict[str, Any]]:
    """The rules of LAPA's loader: fields in order, those in brackets without loss, tokens below the vocabulary."""
    lines = []
    for line in file.read_text().splitlines():
        row = json.loads(line)
        fields = row["fields"].split(",")
        for name in (field.strip("[]") for field in fields):
            assert name == "vision" or name in row
        assert [field.startswith("[") for field in fields] == [True, True, False]
        assert len(row["delta"]) == codes_per_line and all(0 <= int(token) < 2048 for token in row["delta"])
        assert (file.parent / row["image"]).is_file()
        lines.append(row)
    return lines


def test_lapa_lines_follow_its_loader(made: ExportStore, run: Laps, tmp_path: Path) -> None:
    code, _, err = run("export", "--format", "lapa", "--codes-per-line", 2, "--out", tmp_path / "set", "--camera", "a")
    assert code == 0, err
    rows = by_id(made)
    codes: dict[str, list[int]] = {}
    for line in read_as_lapa(tmp_path / "set/train.jsonl", 2):
        mine = codes.setdefault(line["segment_id"], [])
        picture = av.open(str(tmp_path / "set" / line["image"]))
        with picture:
            (number,) = [read_number(frame.to_ndarray(format="gray")) for frame in picture.decode(video=0)]
        assert number == picture_of(rows[line["segment_id"]], len(mine))
        mine += map(int, line["delta"])
    assert codes == {
        row["segment_id"]: row["codes"][: len(row["codes"]) // 2 * 2] for row in made.rows if row["camera"] == "a"
    }


def test_segments_files_are_those_of_the_reference(made: ExportStore, run: Laps, tmp_path: Path) -> None:
    code, _, err = run("export", "--format", "segments", "--out", tmp_path / "set")
    assert code == 0, err
    rows, seen = by_id(made), 0
    for file in (tmp_path / "set").glob("*_segments.json"):
        document = read_segments_json(file)
        assert document["segmentation_params"] | {"stride": 4, "target_fps": 10} == document["segmentation_params"]
        for segment in document["segments"]:
            row = rows[segment["segment_id"]]
            assert file.name == f"{row['recording_id']}_segments.json" and document["video"] == row["video"].name
            begin = row["recording_start_ns"]
            assert segment["start_sec"] * NS_PER_S == pytest.approx(from_datetime(row["start_time"]) - begin)
            assert segment["end_sec"] * NS_PER_S == pytest.approx(from_datetime(row["end_time"]) - begin)
            codes = json.loads((tmp_path / "set/codes" / f"{row['segment_id']}.codes.json").read_text())
            assert np.concatenate(codes["codes_windows"]).tolist() == row["codes"]
            assert all(len(window) == 4 for window in codes["codes_windows"][1:-1])
            assert codes["segment"]["end_frame"] - codes["segment"]["start_frame"] == len(row["codes"])
            assert codes["segment"]["start_frame"] == row["start_sample"] - begin // GRID.step_ns
            seen += 1
    assert seen == len(made.rows)


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_selection_and_seed_give_the_same_bytes(
    made: ExportStore, run: Laps, tmp_path: Path, form: str
) -> None:
    options = ("--format", form, "--per-cluster", 4, "--split", "time", "--guard", 0, "--seed", 5)
    assert run("export", *options, "--out", tmp_path / "one")[0] == 0
    assert run("export", *options, "--out", tmp_path / "deeper" / "two")[0] == 0
    assert tree(tmp_path / "one") == tree(tmp_path / "deeper" / "two")
    card = json.loads((tmp_path / "one/dataset_card.json").read_text())
    assert card["models"]["tokenizer"] == TOKENIZER_ID
    assert card["models"]["cluster_model"] == made.release.cluster_model
    assert card["thresholds"] == {camera: {"theta_on": 1.25, "theta_off": 0.75} for camera in ("a", "b")}
    assert card["selection"]["options"]["seed"] == 5 and "FROM primitives" in card["selection"]["query"]
    assert "dis-flow" in card["licences"][0] and card["encoder"] == made.release.encoder
    assert "15 matched" in card["notes"][0]
    sums = dict(line.split("  ")[::-1] for line in (tmp_path / "one/SHA256SUMS").read_text().splitlines())
    assert sums == {name: digest for name, digest in tree(tmp_path / "one").items() if name != "SHA256SUMS"}


def test_the_licence_of_cotracker_is_on_the_card(fresh: ExportStore, tmp_path: Path) -> None:
    path = f"models/tokenizer/{TOKENIZER_ID}/config.json"
    fresh.store.write_json(path, {"config": {"tracker_id": "cotracker3-online/1f0c/float32/384x512/320/20x20/v1"}})
    chosen = choose(fresh.store, fresh.release, Selection())
    write_dataset(fresh.store, fresh.release, chosen, Format("segments"), tmp_path / "set", name="x")
    assert "CC BY-NC 4.0: no commercial use" in (tmp_path / "set/README.md").read_text()


# --- the command -----------------------------------------------------------------------------------------------


def test_the_command_refuses_before_it_works(run: Laps, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/precious").write_text("mine")
    for arguments, code, says in (
        ((), 2, "give --out FOLDER, or --name NAME"),
        (("--out", tmp_path / "x", "--version", "v1"), 2, "--version is of data sets in the store"),
        (("--out", tmp_path / "full"), 1, "never overwrites"),
        (("--out", tmp_path / "x", "--size", "big"), 2, "write 320x240"),
        (("--out", tmp_path / "x", "--format", "segments", "--size", "64x64"), 1, "use lerobot or lapa"),
        (("--out", tmp_path / "x", "--size", "63x64"), 1, "even numbers"),
        (("--out", tmp_path / "x", "--where", "duration_s > 99"), 1, "nothing is selected (0 matched)"),
        (("--out", tmp_path / "x", "--release", "r9"), 1, "there is no release 'r9'"),
    ):
        found, _, err = run("export", *arguments)
        assert (found, says in err) == (code, True), err
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


# --- in the store, through Dagster -----------------------------------------------------------------------------


@pytest.fixture
def dagster(fresh: ExportStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExportStore:
    """A copy of the store with a Dagster instance of its own."""
    monkeypatch.setenv("LAPS_STORE", fresh.store.root)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    return fresh


def test_a_name_puts_a_data_set_into_the_store(
    run: Laps, dagster: ExportStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAPS_STORE", dagster.store.root)  # not the store of `run`
    arguments = ("--format", "webdataset", "--cluster", 1, "--per-cluster", 3, "--split", "time", "--guard", 0)
    code, out, err = run("export", "--name", "screws", *arguments)
    assert code == 0, err
    assert "5 matched, 5 with a clip, 3 after balance, 3 after the split" in out
    path = Path(dagster.store.full_path("datasets/screws/v1"))
    assert str(path) in out
    card = json.loads((path / "dataset_card.json").read_text())
    assert card["name"] == "screws v1" and card["contents"]["primitives"] == 3
    for line in (path / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert sha256(path / name) == digest
    before = tree(path)
    code, _, err = run("export", "--name", "screws", "--version", "v1")
    assert code == 1 and "a version never changes" in err and "the next one is v2" in err
    assert tree(path) == before and versions(dagster.store, "screws") == ["v1"]


def test_the_asset_reports_and_refuses(dagster: ExportStore) -> None:
    def materialize(key: str, **config: Any) -> dg.ExecuteInProcessResult:
        with dg.DagsterInstance.ephemeral() as instance:
            instance.add_dynamic_partitions(DATASETS, [key])
            return dg.materialize(
                [vla_dataset],
                resources={"store": StoreResource(root=dagster.store.root), "release": ReleaseResource()},
                partition_key=key,
                instance=instance,
                run_config={"ops": {"vla_dataset": {"config": config}}},
                raise_on_error=True,
            )

    result = materialize("screws/v1", format="segments", split="recording", guard_s=0.0)
    (event,) = result.get_asset_materialization_events()
    metadata = event.step_materialization_data.materialization.metadata
    assert metadata["dagster/row_count"].value == 15
    assert metadata["selection"].value == "15 matched, 15 with a clip, 15 after the split"
    tasks = metadata["tasks"].value
    assert isinstance(tasks, dg.TableMetadataValue)
    assert {one.data["task"]: one.data["primitives"] for one in tasks.records} == {
        f"cluster {cluster}": 5 for cluster in range(CLUSTER_COUNT)
    }
    for key, config, says in (
        ("screws/v1", {"format": "segments"}, "a version never changes"),
        ("screws/v2", {"format": "segments", "where": "false"}, "nothing is selected"),
        ("screws/v2", {"format": "mp4"}, "no format of data sets"),
        ("Screws/v1", {"format": "segments"}, "cannot be a data set's name"),
        ("screws", {"format": "segments"}, "cannot be a data set's version"),
    ):
        with pytest.raises(InputError, match=says):
            materialize(key, **config)
    assert versions(dagster.store, "screws") == ["v1"]


def test_a_new_instance_learns_the_data_sets_that_are_whole(fresh: ExportStore) -> None:
    store = fresh.store
    for key in ("bolts/v1", "screws/v1", "screws/v2"):
        store.write_bytes(f"datasets/{key}/dataset_card.json", b"{}")
    store.write_bytes("datasets/screws/v3/of-a-killed-run.tar", b"")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(DATASETS, ["screws/v1"])

        def tick() -> str | None:
            context = dg.build_sensor_context(instance=instance)
            return known_datasets(context, store=StoreResource(root=store.root)).skip_message

        assert tick() == "added bolts/v1, screws/v2"
        assert sorted(instance.get_dynamic_partitions(DATASETS)) == ["bolts/v1", "screws/v1", "screws/v2"]
        assert tick() == "no new data sets"


def test_a_data_set_is_there_whole_or_not_at_all(
    fresh: ExportStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fresh.store
    chosen = choose(store, fresh.release, Selection())
    for name in ("one", "two"):
        write_dataset(store, fresh.release, chosen, Format("segments"), tmp_path / name, name="screws v1")
    whole = tree(tmp_path / "one")
    with monkeypatch.context() as patch:
        patch.setattr(store, "create", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit):
            publish(store, tmp_path / "one", "screws", "v1")
    assert store.files("datasets/screws/v1")
    assert versions(store, "screws") == [] and next_version(store, "screws") == "v1"
    store.write_bytes("datasets/screws/v1/of-another-selection.json", b"{}")
    assert publish(store, tmp_path / "two", "screws", "v1") == "datasets/screws/v1"
    assert tree(Path(store.full_path("datasets/screws/v1"))) == whole
    assert versions(store, "screws") == ["v1"] and next_version(store, "screws") == "v2"


def test_of_two_runs_of_a_version_none_publishes_a_mixture(
    fresh: ExportStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fresh.store
    for camera in ("a", "b"):
        chosen = choose(store, fresh.release, Selection(cameras=(camera,)))
        write_dataset(store, fresh.release, chosen, Format("segments"), tmp_path / camera, name="screws v1")
    real = store.put_folder

    def both(folder: Path, path: str) -> None:
        real(folder, path)
        real(tmp_path / "b", path)

    monkeypatch.setattr(store, "put_folder", both)
    with pytest.raises(StoreError, match="another run was writing"):
        publish(store, tmp_path / "a", "screws", "v1")


def test_on_object_storage_a_data_set_is_the_same(
    made: ExportStore, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    remote = Store(s3.url)
    for path in made.store.files(""):
        remote.write_bytes(path, made.store.read_bytes(path))
    selection = Selection(clusters=(1,), per_cluster=2, min_distance=1e-6)
    for store, folder in ((made.store, tmp_path / "local"), (remote, tmp_path / "remote")):
        chosen = choose(store, made.release, selection)
        write_dataset(store, made.release, chosen, Format("webdataset"), folder, name="screws v1")
    whole = tree(tmp_path / "local")
    assert tree(tmp_path / "remote") == whole
    assert publish(remote, tmp_path / "remote", "screws", "v1") == "datasets/screws/v1"
    assert {path.removeprefix("datasets/screws/v1/") for path in remote.files("datasets/screws/v1")} == set(whole)
    assert versions(remote, "screws") == ["v1"]
    with pytest.raises(InputError, match="a version never changes"):
        publish(remote, tmp_path / "local", "screws", "v1")


@given(name=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True), number=st.integers(1, 10**6))
def test_partition_keys_of_data_sets_are_read_back(name: str, number: int) -> None:
    assert parse_key(dataset_key(name, f"v{number}")) == (name, f"v{number}")
