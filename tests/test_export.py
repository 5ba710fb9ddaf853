"""The writers of data sets: codes, times and pictures come back exactly, and every export is whole and repeatable."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laps.clips import ClipInfo, cut_clip
from laps.errors import InputError, LapsError, MediaError, ModelMismatchError, NotProcessedError, StoreError
from laps.export.card import CardFacts, sha256
from laps.export.folder import new_folder
from laps.export.items import ExportItem, Summary, clip_frames, sampled_frames
from laps.export.lapa import write_lapa
from laps.export.lerobot import VIDEO_KEY, write_lerobot
from laps.export.stats import PictureStats, scalar_stats
from laps.export.webdataset import write_webdataset
from laps.timegrid import NS_PER_S, parse_utc
from tests.videos import numbered_texture, read_number, write_video

START = parse_utc("2026-11-21T05:00:00Z")
WIDTH, HEIGHT, FPS, RATE, SECONDS = 160, 96, 30, 10, 8
STEP_NS = NS_PER_S // RATE
WRITERS: dict[str, Callable[..., Summary]] = {
    "lapa": write_lapa,
    "webdataset": write_webdataset,
    "lerobot": write_lerobot,
}
each_writer = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A keyframe every 2 s and B-frames, so that most clips have a lead-in and some a hidden last picture."""
    path = tmp_path_factory.mktemp("export") / "one.mp4"
    return write_video(
        path,
        seconds=SECONDS,
        fps=FPS,
        width=WIDTH,
        height=HEIGHT,
        gop=2 * FPS,
        draw=numbered_texture(WIDTH, HEIGHT),
        codec_options={"bf": "2"},
    )


def make_item(recording: Path, start_ms: int, end_ms: int, *, reencode: bool = False, **more: Any) -> ExportItem:
    """The primitive of these milliseconds of the recording, its clip cut as the pipeline does."""
    start_ns, end_ns = START + start_ms * 1_000_000, START + end_ms * 1_000_000
    out = io.BytesIO()
    with recording.open("rb") as file:
        info: ClipInfo = cut_clip(
            file, out, name="one", recording_start_ns=START, start_ns=start_ns, end_ns=end_ns, reencode=reencode
        )
    first, stop = -(-start_ns // STEP_NS), -(-end_ns // STEP_NS)
    known: dict[str, Any] = {
        "segment_id": f"s{start_ms:05d}x{end_ms}",
        "camera": "cam1",
        "codes": tuple(int(sample * 7919 % 1920) for sample in range(first, stop)),
        "rate_hz": RATE,
        "cluster_id": start_ms % 3,
        "open_clip": lambda: io.BytesIO(out.getvalue()),
        "clip_start_ns": info.first_frame_time_ns - info.first_frame_time_ns % 1000,  # as the table keeps it
        "lead_in_s": info.lead_in_s,
        "frame_count": info.frame_count,
        "recording_id": "one",
        "tokenizer_id": "tok",
        **more,
    }
    return ExportItem(start_ns=start_ns, end_ns=end_ns, **known)


@pytest.fixture(scope="module")
def items(recording: Path) -> list[ExportItem]:
    return [
        make_item(recording, 950, 2150, text="tighten screw"),
        make_item(recording, 2537, 3891),
        make_item(recording, 4000, 5000),
        make_item(recording, 5333, 7777, split="validation", cluster_id=None),
    ]


def frames_inside(item: ExportItem) -> list[int]:
    """Numbers of the recording's frames with start <= time < end, from exact arithmetic."""
    return [
        number
        for number in range(SECONDS * FPS)
        if item.start_ns <= START + Fraction(number * NS_PER_S, FPS) < item.end_ns
    ]


def expected_pictures(item: ExportItem) -> list[int]:
    """For each code the frame on which its motion begins: the newest at the sample before, or the first."""
    inside = frames_inside(item)
    numbers = []
    for place in range(len(item.codes)):
        time_ns = (item.first_sample + place - 1) * STEP_NS - START
        newest = [number for number in inside if Fraction(number * NS_PER_S, FPS) <= time_ns]
        numbers.append(newest[-1] if newest else inside[0])
    return numbers


def numbers_in(source: Path | BinaryIO) -> list[int]:
    """Numbers drawn in the pictures of a file, as a reader sees them that knows no edit lists."""
    opened = str(source) if isinstance(source, Path) else source
    with av.open(opened, options={"ignore_editlist": "1"}) as container:
        return [read_number(frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]


def read_samples(folder: Path) -> dict[str, dict[str, dict[str, bytes]]]:
    """Shard name -> sample name -> ending -> content."""
    shards: dict[str, dict[str, dict[str, bytes]]] = {}
    for path in sorted(folder.glob("*.tar")):
        samples = shards.setdefault(path.name, {})
        with tarfile.open(path) as tar:
            for entry in tar:
                name, _, ending = entry.name.partition(".")
                file = tar.extractfile(entry)
                assert file is not None
                samples.setdefault(name, {})[ending] = file.read()
    return shards


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


# -- pictures and times -----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(start_ms=st.integers(0, 6500), length_ms=st.integers(120, 1400), reencode=st.booleans())
def test_frames_of_any_primitive_are_exact(recording: Path, start_ms: int, length_ms: int, reencode: bool) -> None:
    item = make_item(recording, start_ms, start_ms + length_ms, reencode=reencode)
    frames = [(frame.time_ns, read_number(frame.gray(HEIGHT))) for frame in clip_frames(item)]
    assert [number for _, number in frames] == frames_inside(item)
    for time_ns, number in frames:
        assert abs(time_ns - START - number * NS_PER_S / FPS) < 2000
    if item.codes:
        assert [read_number(frame.gray(HEIGHT)) for frame in sampled_frames(item)] == expected_pictures(item)


def test_webdataset_round_trip(items: list[ExportItem], tmp_path: Path) -> None:
    summary = write_webdataset(items, tmp_path / "set")
    assert summary.written == items
    shards = read_samples(tmp_path / "set")
    assert list(shards) == ["train-000000.tar", "validation-000000.tar"]
    samples = {name: sample for shard in shards.values() for name, sample in shard.items()}
    assert list(samples) == [item.segment_id for item in items]
    for item in items:
        sample = samples[item.segment_id]
        assert list(sample) == ["mp4", "codes.npy", "json"]
        codes = np.load(io.BytesIO(sample["codes.npy"]))
        assert codes.dtype == np.uint16 and codes.tolist() == list(item.codes)
        row = json.loads(sample["json"])
        assert (row["start_ns"], row["end_ns"], row["rate_hz"]) == (item.start_ns, item.end_ns, RATE)
        assert row["first_code_ns"] == item.first_sample * STEP_NS
        assert numbers_in(io.BytesIO(sample["mp4"])) == frames_inside(item)
        assert len(row["frame_times_ns"]) == len(frames_inside(item))
    assert any(item.lead_in_s > 0 for item in items)


def test_frames_outside_the_primitive_are_left_out_of_larger_clips(
    recording: Path, items: list[ExportItem], tmp_path: Path
) -> None:
    whole = replace(items[2], open_clip=lambda: recording.open("rb"), clip_start_ns=START, lead_in_s=0)
    assert [read_number(frame.gray(HEIGHT)) for frame in clip_frames(whole)] == frames_inside(whole)
    write_webdataset([whole], tmp_path / "web")
    (sample,) = read_samples(tmp_path / "web")["train-000000.tar"].values()
    assert numbers_in(io.BytesIO(sample["mp4"])) == frames_inside(whole)
    write_lerobot([whole], tmp_path / "robot")
    (video,) = (tmp_path / "robot/videos").rglob("*.mp4")
    assert numbers_in(video) == expected_pictures(whole)


def test_webdataset_samples_never_cross_shards(items: list[ExportItem], tmp_path: Path) -> None:
    write_webdataset(items, tmp_path / "by_count", samples_per_shard=2)
    assert [len(samples) for samples in read_samples(tmp_path / "by_count").values()] == [2, 1, 1]
    write_webdataset(items, tmp_path / "by_size", shard_bytes=1)
    for samples in read_samples(tmp_path / "by_size").values():
        assert [sorted(sample) for sample in samples.values()] == [["codes.npy", "json", "mp4"]]
    sizes = [path.stat().st_size for path in (tmp_path / "by_size").glob("*.tar")]
    most = 2 * max(sizes)
    write_webdataset(items, tmp_path / "bounded", shard_bytes=most)
    assert all(path.stat().st_size <= most for path in (tmp_path / "bounded").glob("*.tar"))


def test_lapa_round_trip(items: list[ExportItem], tmp_path: Path) -> None:
    summary = write_lapa(items, tmp_path / "set", codes_per_line=3)
    assert summary.options["n_tokens_per_delta"] == 3
    by_id = {item.segment_id: item for item in items}
    seen: dict[str, list[int]] = {}
    for split in ("train", "validation"):
        for line in (tmp_path / "set" / f"{split}.jsonl").read_text().splitlines():
            row = json.loads(line)
            item = by_id[row["segment_id"]]
            assert item.split == split
            assert row["fields"] == "[instruction],[vision],delta"
            assert item.task in row["instruction"]
            assert len(row["delta"]) == 3 and all(isinstance(token, str) for token in row["delta"])
            codes = seen.setdefault(item.segment_id, [])
            assert row["time_ns"] == (item.first_sample + len(codes)) * STEP_NS
            picture = cv2.imread(str(tmp_path / "set" / row["image"]), cv2.IMREAD_GRAYSCALE)
            assert picture is not None and picture.shape == (HEIGHT, WIDTH)
            assert read_number(picture) == expected_pictures(item)[len(codes)]
            codes += [int(token) for token in row["delta"]]
    assert seen == {item.segment_id: list(item.codes[: len(item.codes) // 3 * 3]) for item in items}


def test_lapa_codes_stay_below_the_vocabulary(items: list[ExportItem], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="outside a vocabulary of 8"):
        write_lapa(items, tmp_path / "set", vocabulary_size=8)
    assert not (tmp_path / "set").exists()


def read_lerobot(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    info = json.loads((folder / "meta/info.json").read_text())
    episodes = pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    rows = [row for path in sorted(folder.glob("data/*/*.parquet")) for row in pq.read_table(path).to_pylist()]
    return info, episodes, rows


@pytest.mark.parametrize("small_files", [False, True])
def test_lerobot_round_trip(items: list[ExportItem], tmp_path: Path, small_files: bool) -> None:
    limits: dict[str, Any] = {"data_file_mb": 1e-6, "video_file_mb": 1e-6} if small_files else {}
    write_lerobot(items, tmp_path / "set", **limits)
    info, episodes, rows = read_lerobot(tmp_path / "set")
    assert info["splits"] == {"train": "0:3", "validation": "3:4"}
    assert info["total_frames"] == len(rows) == sum(len(item.codes) for item in items)
    assert info["features"][VIDEO_KEY]["shape"] == [HEIGHT, WIDTH, 3]
    assert [row["index"] for row in rows] == list(range(len(rows)))
    tasks = pq.read_table(tmp_path / "set/meta/tasks.parquet")
    names = dict(zip(tasks["task_index"].to_pylist(), tasks["__index_level_0__"].to_pylist(), strict=True))
    videos = {path: numbers_in(path) for path in (tmp_path / "set/videos").rglob("*.mp4")}
    assert len(videos) == (len(items) if small_files else 1)
    for item, episode in zip(items, episodes, strict=True):
        mine = rows[episode["dataset_from_index"] : episode["dataset_to_index"]]
        assert [row["action"] for row in mine] == list(item.codes)
        assert {row["episode_index"] for row in mine} == {episode["episode_index"]}
        assert {names[row["task_index"]] for row in mine} == {item.task} == set(episode["tasks"])
        assert [row["timestamp"] for row in mine] == [np.float32(i / RATE) for i in range(len(mine))]
        assert [row["sample"] for row in mine] == [item.first_sample + i for i in range(len(mine))]
        assert (episode["segment_id"], episode["start_ns"], episode["end_ns"], episode["cluster_id"]) == (
            item.segment_id,
            item.start_ns,
            item.end_ns,
            item.cluster_id,
        )
        place = {"chunk_index": episode["data/chunk_index"], "file_index": episode["data/file_index"]}
        groups = pq.ParquetFile(tmp_path / "set" / info["data_path"].format(**place))
        assert groups.num_row_groups == (1 if small_files else len(items))
        video = {name: episode[f"videos/{VIDEO_KEY}/{name}"] for name in ("chunk_index", "file_index")}
        path = tmp_path / "set" / info["video_path"].format(video_key=VIDEO_KEY, **video)
        first = episode[f"videos/{VIDEO_KEY}/from_timestamp"] * RATE
        stop = episode[f"videos/{VIDEO_KEY}/to_timestamp"] * RATE
        assert videos[path][round(first) : round(stop)] == expected_pictures(item)
        for row, number in zip(mine, expected_pictures(item), strict=True):
            assert abs(row["frame_time_ns"] - START - number * NS_PER_S / FPS) < 2000
    for path in videos:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.pix_fmt == "yuv420p"
            times = [float(frame.pts * stream.time_base) for frame in container.decode(stream)]
            assert times == pytest.approx([i / RATE for i in range(len(times))], abs=1e-6)


def test_lerobot_many_files_and_groups(
    items: list[ExportItem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("laps.export.lerobot._EPISODES_PER_GROUP", 1)
    monkeypatch.setattr("laps.export.lerobot._CHUNKS_SIZE", 3)
    write_lerobot([replace(items[0], cluster_id=None), *items[1:]], tmp_path / "set", data_file_mb=0, video_file_mb=0)
    info, episodes, rows = read_lerobot(tmp_path / "set")
    assert [(one["data/chunk_index"], one["data/file_index"]) for one in episodes] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert [one["cluster_id"] for one in episodes] == [None, items[1].cluster_id, items[2].cluster_id, None]
    assert info["total_frames"] == len(rows) == episodes[-1]["dataset_to_index"]
    assert (tmp_path / "set/videos" / VIDEO_KEY / "chunk-001/file-000.mp4").exists()


def test_lerobot_stats_are_those_of_the_rows_and_pictures(items: list[ExportItem], tmp_path: Path) -> None:
    write_lerobot(items, tmp_path / "set")
    _, episodes, rows = read_lerobot(tmp_path / "set")
    stats = json.loads((tmp_path / "set/meta/stats.json").read_text())
    action = np.array([row["action"] for row in rows])
    for name, value in {"min": action.min(), "max": action.max(), "mean": action.mean(), "std": action.std()}.items():
        assert stats["action"][name] == [pytest.approx(value)]
    assert stats["action"]["count"] == [len(rows)]
    assert stats["action"]["q90"] == [pytest.approx(np.quantile(action, 0.9))]
    assert np.shape(stats[VIDEO_KEY]["mean"]) == (3, 1, 1)
    assert 0 <= np.min(stats[VIDEO_KEY]["min"]) < np.max(stats[VIDEO_KEY]["max"]) <= 1
    assert episodes[0]["stats/action/max"] == [max(items[0].codes)]


@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_picture_stats_equal_those_of_the_pixels(pixels: int, seed: int) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (1, pixels, 3), dtype=np.uint8)
    counted = PictureStats()
    counted.add(picture)
    stats, values = counted.stats(), picture.reshape(-1, 3) / 255
    for name, expected in {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        "q50": np.quantile(values, 0.5, axis=0, method="inverted_cdf"),
    }.items():
        assert np.ravel(stats[name]) == pytest.approx(expected, abs=1e-9)


def test_stats_of_large_numbers_keep_their_digits() -> None:
    stats = scalar_stats(START + np.arange(5) * STEP_NS)
    assert stats["std"] == [pytest.approx(np.arange(5).std() * STEP_NS, rel=1e-5)]


def test_sizes_that_differ_need_a_size(recording: Path, items: list[ExportItem], tmp_path: Path) -> None:
    other = write_video(tmp_path / "tall.mp4", seconds=3, fps=FPS, width=96, height=161 - 1)
    tall = make_item(other, 500, 1500, segment_id="tall")
    with pytest.raises(InputError, match="size_px"):
        write_lerobot([items[0], tall], tmp_path / "set")
    assert not (tmp_path / "set").exists()
    write_lerobot([items[0], tall], tmp_path / "set", size_px=(64, 64))
    info, episodes, _ = read_lerobot(tmp_path / "set")
    assert info["features"][VIDEO_KEY]["shape"] == [64, 64, 3] and len(episodes) == 2


# -- every writer -----------------------------------------------------------------------------------------------


@each_writer
def test_two_exports_have_the_same_bytes(
    write: Callable[..., Summary], items: list[ExportItem], tmp_path: Path
) -> None:
    card = CardFacts("demo")
    write(items, tmp_path / "a", card=card)
    write(items[::-1], tmp_path / "b", card=card)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@each_writer
def test_an_empty_selection_is_an_error(write: Callable[..., Summary], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="selection is empty"):
        write([], tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


@each_writer
def test_nothing_is_overwritten(write: Callable[..., Summary], items: list[ExportItem], tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/precious").write_text("mine")
    with pytest.raises(InputError, match="never overwrites"):
        write(items, tmp_path / "set")
    assert [path.name for path in tmp_path.rglob("*")] == ["set", "precious"]
    (tmp_path / "empty").mkdir()
    write(items[:1], tmp_path / "empty")
    assert any((tmp_path / "empty").iterdir())


@each_writer
def test_a_store_that_fails_leaves_nothing(
    write: Callable[..., Summary], items: list[ExportItem], tmp_path: Path
) -> None:
    def unreachable() -> BinaryIO:
        raise StoreError("it cannot be reached", where="s3://x")

    with pytest.raises(StoreError):
        write([*items[:2], replace(items[2], open_clip=unreachable)], tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


@each_writer
def test_a_bad_clip_is_left_out_and_named(
    write: Callable[..., Summary], items: list[ExportItem], tmp_path: Path
) -> None:
    def vanished() -> BinaryIO:
        raise FileNotFoundError

    # The first one fails when its pictures have already been encoded.
    wrong_count = replace(items[0], frame_count=3)
    bad = {
        "none": replace(items[1], segment_id="none", open_clip=None),
        "gone": replace(items[1], segment_id="gone", open_clip=vanished),
        "noise": replace(items[1], segment_id="noise", open_clip=lambda: io.BytesIO(b"no video" * 99)),
    }
    summary = write([wrong_count, *bad.values(), *items[1:]], tmp_path / "with")
    assert {segment_id for segment_id, _ in summary.skipped} == {items[0].segment_id, *bad}
    write(items[1:], tmp_path / "without")
    assert tree(tmp_path / "with") == tree(tmp_path / "without")
    with pytest.raises(NotProcessedError, match="none of the 3"):
        write(bad.values(), tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_clip_that_breaks_off_between_good_ones_leaves_no_pictures(items: list[ExportItem], tmp_path: Path) -> None:
    summary = write_lerobot([items[0], replace(items[1], frame_count=3), *items[2:]], tmp_path / "set")
    assert len(summary.skipped) == 1
    _, episodes, _ = read_lerobot(tmp_path / "set")
    (video,) = (tmp_path / "set/videos").rglob("*.mp4")
    kept = [items[0], *items[2:]]
    assert numbers_in(video) == [number for item in kept for number in expected_pictures(item)]
    assert [episode["segment_id"] for episode in episodes] == [item.segment_id for item in kept]


@each_writer
def test_selections_that_do_not_fit_together(
    write: Callable[..., Summary], items: list[ExportItem], tmp_path: Path
) -> None:
    with pytest.raises(ModelMismatchError, match="different tokenizers"):
        write([items[0], replace(items[1], tokenizer_id="other")], tmp_path / "set")
    with pytest.raises(InputError, match="selected 2 times"):
        write([items[0], items[0]], tmp_path / "set")


def test_an_item_must_fit_its_own_times(items: list[ExportItem]) -> None:
    for wrong in ({"codes": items[0].codes[1:]}, {"end_ns": items[0].start_ns}, {"segment_id": "a/b"}, {"split": "x"}):
        with pytest.raises(InputError):
            replace(items[0], **wrong)  # type: ignore[arg-type]


def test_codes_without_a_picture_are_not_exported(items: list[ExportItem]) -> None:
    # The clip holds the first half of a primitive only.
    item = items[2]
    longer = replace(item, end_ns=item.end_ns + NS_PER_S, codes=(*item.codes, *range(RATE)))
    with pytest.raises(MediaError, match="would have no picture"):
        list(sampled_frames(longer))


# -- folder and card --------------------------------------------------------------------------------------------


def test_a_folder_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    with pytest.raises(MediaError), new_folder(tmp_path / "set") as folder:
        (folder / "half").write_text("x")
        raise MediaError("broken")
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "set") as folder:
        (folder / "whole").write_text("x")
        assert not (tmp_path / "set").exists()
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["whole"]


def test_whoever_comes_second_does_not_overwrite(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="never overwrites"), new_folder(tmp_path / "set"):
        (tmp_path / "set").mkdir()
        (tmp_path / "set/other").write_text("x")
    assert [path.name for path in tmp_path.rglob("*")] == ["set", "other"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(LapsError, match="file"), new_folder(tmp_path / "file/set"):
        pass


def test_the_card_says_what_is_there(items: list[ExportItem], tmp_path: Path) -> None:
    facts = CardFacts(
        name="screws",
        query="SELECT * FROM primitives WHERE duration_s > 1",
        options={"seed": 3},
        models={"tokenizer": "tok-1"},
        thresholds={"cam1": {"theta_on": 1.25}},
        encoder="ViT-B/32",
        licences=["The tracker's weights are for research."],
    )
    bad = replace(items[1], segment_id="none", open_clip=None)
    write_webdataset([*items, bad], tmp_path / "set", card=facts)
    card = json.loads((tmp_path / "set/dataset_card.json").read_text())
    contents = card["contents"]
    assert contents["primitives"] == len(items) and contents["codes"] == sum(len(item.codes) for item in items)
    assert contents["splits"]["validation"] == contents["splits"]["train"] | {
        "count": 1,
        "total": 2.444,
        "min": 2.444,
        "median": 2.444,
        "max": 2.444,
    }
    assert contents["durations_s"]["total"] == pytest.approx(sum(item.duration_s for item in items))
    assert [one["segment_id"] for one in card["skipped"]] == ["none"]
    text = (tmp_path / "set/README.md").read_text()
    for part in (facts.query, "tok-1", "theta_on = 1.25", "ViT-B/32", facts.licences[0], "tighten screw", "none"):
        assert part is not None and part in text
    sums = dict(line.split("  ")[::-1] for line in (tmp_path / "set/SHA256SUMS").read_text().splitlines())
    there = tree(tmp_path / "set")
    there.pop("SHA256SUMS")
    assert sums == there
    assert {name: entry["sha256"] for name, entry in card["files"].items()}.items() <= there.items()
