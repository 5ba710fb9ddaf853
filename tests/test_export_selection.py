"""Selection for export: balance, near-duplicates, and a split that neighbours never straddle."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from laps.errors import InputError
from laps.export.selection import balance, drop_near_duplicates, split
from laps.timegrid import NS_PER_S

quick = settings(deadline=None, max_examples=50)


@dataclass(frozen=True)
class Row:
    segment_id: str
    camera: str
    recording_id: str | None
    start_ns: int
    end_ns: int
    cluster_id: int | None


@st.composite
def row_lists(draw: st.DrawFn) -> list[Row]:
    """Primitives of two cameras and a few recordings, some of them overlapping."""
    drawn = draw(
        st.lists(st.tuples(st.integers(0, 400), st.integers(1, 30), st.booleans(), st.integers(-1, 3)), max_size=60)
    )
    return [
        Row(
            segment_id=f"s{number}",
            camera="ab"[camera],
            recording_id=f"{'ab'[camera]}{start // 80}",
            start_ns=start * NS_PER_S,
            end_ns=(start + length) * NS_PER_S,
            cluster_id=None if cluster < 0 else cluster,
        )
        for number, (start, length, camera, cluster) in enumerate(drawn)
    ]


@quick
@given(row_lists(), st.integers(1, 10), st.integers(0, 99))
def test_balance_keeps_at_most_so_many_of_each_cluster(rows: list[Row], per_cluster: int, seed: int) -> None:
    kept = balance(rows, per_cluster=per_cluster, seed=seed)
    before, after = Counter(row.cluster_id for row in rows), Counter(row.cluster_id for row in kept)
    assert after == {cluster: min(count, per_cluster) for cluster, count in before.items()}
    assert kept == [row for row in rows if row in kept]
    shuffled = random.Random(seed).sample(rows, len(rows))
    assert set(balance(shuffled, per_cluster=per_cluster, seed=seed)) == set(kept)
    assert set(kept) <= set(balance(rows, per_cluster=per_cluster + 1, seed=seed))


def test_balance_draws_by_the_seed() -> None:
    rows = [Row(f"s{i}", "a", "r", i, i + 1, 0) for i in range(100)]
    draws = {tuple(row.segment_id for row in balance(rows, per_cluster=5, seed=seed)) for seed in range(5)}
    assert len(draws) == 5
    with pytest.raises(InputError):
        balance(rows, per_cluster=0, seed=0)


@quick
@given(row_lists(), st.floats(0.01, 1.0), st.integers(0, 99))
def test_kept_ones_are_apart_and_dropped_ones_near(rows: list[Row], least: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    embeddings = rng.standard_normal((4, 3))[rng.integers(0, 4, len(rows))] + 0.3 * rng.standard_normal((len(rows), 3))
    result = drop_near_duplicates(rows, embeddings, min_distance=least)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    of = {row.segment_id: vector for row, vector in zip(rows, unit, strict=True)}
    start = {row.segment_id: (row.start_ns, row.segment_id) for row in rows}
    assert [row for row in rows if row.segment_id not in result.dropped] == result.kept
    for number, one in enumerate(result.kept):
        for other in result.kept[:number]:
            assert 1 - of[one.segment_id] @ of[other.segment_id] >= least - 1e-5
    for dropped, kept in result.dropped.items():
        assert 1 - of[dropped] @ of[kept] < least + 1e-5
        assert start[kept] < start[dropped] and kept not in result.dropped
    places = rng.permutation(len(rows))
    again = drop_near_duplicates([rows[place] for place in places], embeddings[places], min_distance=least)
    assert again.dropped.keys() == result.dropped.keys()


def test_duplicates_are_found_across_blocks() -> None:
    rng = np.random.default_rng(0)
    first = rng.standard_normal((1500, 32))
    embeddings = np.concatenate([first, first[:700] * 2.5, rng.standard_normal((100, 32))])
    rows = [Row(f"s{i}", "a", "r", i, i + 1, 0) for i in range(len(embeddings))]
    result = drop_near_duplicates(rows, embeddings, min_distance=1e-3)
    assert result.dropped == {f"s{1500 + i}": f"s{i}" for i in range(700)}


def test_embeddings_that_cannot_be_compared() -> None:
    rows = [Row(f"s{i}", "a", "r", i, i + 1, 0) for i in range(2)]
    for wrong in (np.ones((3, 4)), np.ones(2), np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[1.0, np.nan]] * 2)):
        with pytest.raises(InputError):
            drop_near_duplicates(rows, wrong, min_distance=0.1)
    with pytest.raises(InputError):
        drop_near_duplicates(rows, np.ones((2, 2)), min_distance=0)


@quick
@given(row_lists(), st.sampled_from(["time", "recording"]), st.floats(0.05, 0.6), st.floats(0, 20), st.integers(0, 99))
def test_neighbours_never_straddle_the_split(rows: list[Row], by: str, share: float, guard_s: float, seed: int) -> None:
    try:
        result = split(rows, by=by, validation_share=share, guard_s=guard_s, seed=seed)  # type: ignore[arg-type]
    except InputError:
        assume(False)
    assert result.train and result.validation
    both = [*result.train, *result.validation, *result.dropped]
    assert sorted(row.segment_id for row in both) == sorted(row.segment_id for row in rows)

    def gap_s(one: Row, other: Row) -> float:
        return max(one.start_ns - other.end_ns, other.start_ns - one.end_ns) / NS_PER_S

    for one in result.train:
        for other in result.validation:
            if one.camera == other.camera:
                assert gap_s(one, other) >= guard_s - 1e-9
            assert by == "time" or one.recording_id != other.recording_id
    for one in result.dropped:
        assert any(one.camera == other.camera and gap_s(one, other) <= guard_s for other in result.validation)
    shuffled = random.Random(seed).sample(rows, len(rows))
    again = split(shuffled, by=by, validation_share=share, guard_s=guard_s, seed=seed)  # type: ignore[arg-type]
    assert set(again.validation) == set(result.validation) and set(again.train) == set(result.train)


@pytest.mark.parametrize("by", ["time", "recording"])
@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_the_share_is_about_what_was_asked_for(by: str, share: float) -> None:
    rows = [Row(f"s{i}", "a", f"r{i // 10}", i * 4 * NS_PER_S, (i * 4 + 2) * NS_PER_S, 0) for i in range(400)]
    for seed in range(5):
        result = split(rows, by=by, validation_share=share, guard_s=5, seed=seed)  # type: ignore[arg-type]
        assert len(result.validation) / len(rows) == pytest.approx(share, abs=0.05)
        assert len(result.dropped) < 0.2 * len(rows)
    draws = {
        tuple(row.segment_id for row in split(rows, by=by, validation_share=share, guard_s=5, seed=seed).validation)  # type: ignore[arg-type]
        for seed in range(5)
    }
    assert len(draws) > 1


def test_what_cannot_be_split_is_an_error() -> None:
    rows = [Row(f"s{i}", "a", "r", i * NS_PER_S, (i + 1) * NS_PER_S, 0) for i in range(10)]
    with pytest.raises(InputError, match="Split by time"):
        split(rows, by="recording", validation_share=0.2, guard_s=1, seed=0)
    with pytest.raises(InputError, match="left to train on"):
        split(rows, by="time", validation_share=0.2, guard_s=100, seed=0)
    with pytest.raises(InputError, match="cannot be split"):
        split([], by="time", validation_share=0.2, guard_s=1, seed=0)
    unknown = [Row("s", "a", None, 0, 1, 0)]
    with pytest.raises(InputError, match="not known"):
        split(unknown, by="recording", validation_share=0.2, guard_s=1, seed=0)
    for share, guard_s in ((0.0, 1.0), (1.0, 1.0), (0.5, -1.0)):
        with pytest.raises(InputError):
            split(rows, by="time", validation_share=share, guard_s=guard_s, seed=0)
