"""The bench of the catalog on a tiny store: what it makes up fits together, and three ways to read it agree."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from bench.catalog.cookbook import COOKBOOK, queries
from bench.catalog.generate import Generator, Size
from bench.catalog.measure import WAYS, make_copies, measure_queries, record_only
from laps.tables import CLUSTER_NAMES, TABLES
from resources.catalog import run_query
from resources.store import Store

SIZE = Size(primitives=400, hours=10, cameras=2, clusters=4)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(str(tmp_path_factory.mktemp("bench") / "store"))
    Generator(store, SIZE, seed=3).fill()
    return store


def test_the_made_up_store_fits_together(store: Store) -> None:
    connection = record_only(store)
    (row,) = run_query(
        connection,
        """
        SELECT count(*) AS primitives, count(DISTINCT p.segment_id) AS ids, count(cluster_id) AS assigned,
            count(p.shift) AS in_shift, count(action_name) AS named, count(cluster_icss) AS judged,
            count(clip) AS clips,
            bool_and(len(p.codes) = s.end_sample - s.start_sample AND p.end_time > p.start_time) AS whole,
            bool_and(p.date = CAST(p.start_time AS DATE) AND p.hour = hour(p.start_time)) AS in_hour
        FROM primitives p JOIN segments s USING (segment_id)
        """,
    ).to_pylist()
    assert row["primitives"] == row["ids"] == row["assigned"] == row["named"] == row["judged"] == SIZE.primitives
    assert row["in_shift"] > 0 and row["clips"] > 0.9 * SIZE.primitives
    assert row["whole"] and row["in_hour"]
    (overlaps,) = run_query(
        connection,
        "SELECT count(*) AS n FROM (SELECT start_time < lag(end_time) OVER (PARTITION BY camera ORDER BY start_time) "
        "AS late FROM segments) WHERE late",
    )["n"].to_pylist()
    assert overlaps == 0
    counted = run_query(connection, "SELECT table_name, count(*) AS files FROM partitions GROUP BY 1").to_pylist()
    hours = {row["table_name"]: row["files"] for row in counted}
    assert all(hours[table.name] == SIZE.hours for table in TABLES.values() if table.partitioned == "camera_hour")
    assert hours[CLUSTER_NAMES.name] == SIZE.clusters


def test_the_same_seed_gives_the_same_rows(store: Store, tmp_path: Path) -> None:
    again = Store(str(tmp_path / "store"))
    Generator(again, SIZE, seed=3).fill()
    paths = [path for path in store.files("") if path.split("/")[0] != "cameras"]
    assert paths == [path for path in again.files("") if path.split("/")[0] != "cameras"]
    assert all(store.read_bytes(path) == again.read_bytes(path) for path in paths)


def answer(rows: pa.Table) -> list[str]:
    """Rows in any order, numbers as precise as sums in any order are."""
    plain = [
        [f"{value:.9g}" if isinstance(value, float) else value for value in row.values()] for row in rows.to_pylist()
    ]
    return sorted(map(repr, plain))


def test_all_ways_to_read_it_give_the_same_answers(store: Store) -> None:
    make_copies(store)
    connections = [open_way(store) for open_way in WAYS.values()]
    for heading, sql in queries(COOKBOOK.read_text("utf-8")).items():
        first, *others = (answer(run_query(one, sql)) for one in connections)
        assert all(other == first for other in others), heading


def test_a_query_that_takes_too_long_is_interrupted(store: Store) -> None:
    endless = {"endless": "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range % 7 = 8"}
    ((_, times),) = measure_queries(store, "hours", endless, runs=3, longest_s=0.3, budget_s=1)
    assert times.stopped and len(times.seconds) == 1
