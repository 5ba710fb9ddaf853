"""The catalog in a DuckDB of one's own: by a SQL script, and by one line of Python."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

import laps_dagster
from laps.cameras import Camera, parse_shift
from laps.errors import InputError
from resources.cameras import Cameras
from resources.catalog import open_catalog
from resources.catalog_script import access_sql, catalog_script
from resources.models import ModelRegistry
from resources.names import name_cluster
from resources.object_storage import ObjectStorage, object_storage
from resources.store import Store
from tests.conftest import Laps
from tests.export_store import ExportStore
from tests.s3 import S3, s3, s3_server
from tests.test_cli import run

__all__ = ["run", "s3", "s3_server"]

ROOT = Path(__file__).parent.parent
RELATIONS = """
SELECT view_name FROM duckdb_views() WHERE NOT internal
UNION ALL SELECT table_name FROM duckdb_tables() WHERE NOT internal ORDER BY 1
"""
COLUMNS = """
SELECT * EXCLUDE (database_name, database_oid, schema_oid, table_oid)
FROM duckdb_columns() WHERE NOT internal ORDER BY ALL
"""
COMMENTS = "SELECT view_name, comment FROM duckdb_views() WHERE NOT internal ORDER BY ALL"
# What DuckDB cannot do here: its extensions come from the internet.
ACCESS = ("INSTALL", "LOAD", "CREATE OR REPLACE SECRET")


@pytest.fixture
def described(fresh: ExportStore) -> ExportStore:
    """A store whose views have local time, shifts and a name with a quote in it."""
    shifts = (parse_shift("früh=06:00-14:00@Mon-Sat"), parse_shift("night=22:15-06:00"))
    Cameras(fresh.store).write(Camera("a", site="Ulm's", time_zone="Europe/Berlin", shifts=shifts))
    name_cluster(fresh.store, fresh.release, 0, "fasten the bracket's screw")
    return fresh


def statements(script: str) -> list[str]:
    return [statement.query.strip() for statement in duckdb.connect().extract_statements(script)]


def check_the_same(ours: duckdb.DuckDBPyConnection, theirs: duckdb.DuckDBPyConnection) -> None:
    relations = [name for (name,) in ours.execute(RELATIONS).fetchall()]
    assert relations == [name for (name,) in theirs.execute(RELATIONS).fetchall()]
    assert len(relations) > 10
    for name in relations:
        query = f"SELECT * FROM {name} ORDER BY ALL"
        assert theirs.execute(query).fetchall() == ours.execute(query).fetchall(), name
    for query in (COLUMNS, COMMENTS):
        assert theirs.execute(query).fetchall() == ours.execute(query).fetchall()


def test_a_stock_duckdb_sees_the_same_rows_types_and_comments(described: ExportStore, tmp_path: Path) -> None:
    script = catalog_script(described.store, described.release.name)
    stock = duckdb.connect(str(tmp_path / "own.duckdb"))
    # Twice: a script that is read again, with newer hours, takes the place of the old one.
    stock.execute(script)
    stock.execute(script)
    ours = open_catalog(described.store, described.release.name)
    check_the_same(ours, stock)
    shifts = stock.execute("SELECT DISTINCT shift FROM primitives WHERE camera = 'a'").fetchall()
    assert ("früh",) in shifts
    names = stock.execute("SELECT DISTINCT action_name FROM primitives WHERE cluster_id = 0").fetchall()
    assert names == [("fasten the bracket's screw",)]
    assert not any(statement.startswith(ACCESS) for statement in statements(script))
    ours.close()
    stock.close()


def test_an_empty_store_has_a_script_too(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "it's empty"))
    stock = duckdb.connect()
    stock.execute(catalog_script(store))
    assert stock.execute("SELECT count(*) FROM primitives").fetchall() == [(0,)]


def test_on_s3_the_script_leads_to_the_files_and_holds_no_key(described: ExportStore, s3: S3) -> None:
    store = Store(s3.url)
    for path in described.store.files(""):
        store.write_bytes(path, described.store.read_bytes(path))
    script = catalog_script(store, described.release.name)
    for value in (os.environ["AWS_ACCESS_KEY_ID"], s3.secret):
        assert value not in script
    every = statements(script)
    access = [statement for statement in every if statement.startswith(ACCESS)]
    endpoint = s3.proxy.url.removeprefix("http://")
    assert access[:-1] == ["INSTALL httpfs;", "LOAD httpfs;", "INSTALL aws;", "LOAD aws;"]
    assert access[-1] == (
        f"CREATE OR REPLACE SECRET laps (TYPE s3, PROVIDER credential_chain, SCOPE '{s3.url}', REGION 'us-east-1', "
        f"ENDPOINT '{endpoint}', USE_SSL false, URL_STYLE 'path');"
    )
    assert every[: len(access)] == access  # before anything that needs a file
    stock = duckdb.connect()
    # In the place of httpfs, which is not installed here: the same names of files.
    stock.register_filesystem(object_storage())
    for statement in every[len(access) :]:
        stock.execute(statement)
    ours = open_catalog(store, described.release.name)
    check_the_same(ours, stock)
    ours.close()
    stock.close()


def test_aws_needs_no_endpoint_and_one_of_ones_own_loses_its_password(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    def secret(**environment: str) -> str:
        monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        ObjectStorage.clear_instance_cache()
        return list(access_sql(Store("s3://factory-laps/store")))[-1]

    assert secret(AWS_DEFAULT_REGION="eu-central-1") == (
        "CREATE OR REPLACE SECRET laps (TYPE s3, PROVIDER credential_chain, SCOPE 's3://factory-laps/store', "
        "REGION 'eu-central-1')"
    )
    said = secret(AWS_ENDPOINT_URL="https://someone:hidden@minio.example.org")
    assert "ENDPOINT 'minio.example.org', USE_SSL true" in said
    assert "hidden" not in said and "someone" not in said


def test_the_command_writes_the_script(run: Laps, made: ExportStore, tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "catalog.sql"
    code, out, _ = run("--store", made.store.root, "sql", "--release", made.release.name, "--script", file)
    assert (code, out) == (0, f"{file}: duckdb -init {file}\n")
    stock = duckdb.connect()
    stock.execute(file.read_text("utf-8"))
    assert stock.execute("SELECT count(*) FROM primitives").fetchall() == [(len(made.rows),)]
    code, _, err = run("--store", made.store.root, "sql", "select 1", "--script", file)
    assert code == 2 and "--script takes the place of a query" in err
    code, _, err = run("--store", tmp_path / "absent", "sql", "--script", file)
    assert code == 1 and "there is no store here" in err


@pytest.fixture
def promoted(fresh: ExportStore) -> Iterator[ExportStore]:
    registry = ModelRegistry(fresh.store)
    registry.store.write_json("models/current.json", {"release": fresh.release.name, "at": "2026-11-26T00:00:00Z"})
    yield fresh


def test_one_line_of_python_opens_the_catalog(promoted: ExportStore) -> None:
    line = (
        "import laps_dagster; "
        f"print(laps_dagster.open_catalog({promoted.store.root!r}).sql('select count(*) from primitives').fetchall())"
    )
    said = subprocess.run([sys.executable, "-W", "error", "-c", line], capture_output=True, text=True, cwd=ROOT)
    assert (said.returncode, said.stdout) == (0, f"[({len(promoted.rows)},)]\n"), said.stderr


def test_the_opened_catalog_is_for_reading(promoted: ExportStore, tmp_path: Path) -> None:
    connection = laps_dagster.open_catalog(promoted.store.root)
    with pytest.raises(duckdb.Error):
        connection.execute(f"COPY (SELECT 1) TO '{tmp_path / 'out.parquet'}'")
    connection.close()
    with pytest.raises(InputError, match="there is no store here"):
        laps_dagster.open_catalog(str(tmp_path / "absent"))
