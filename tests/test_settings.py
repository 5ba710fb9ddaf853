"""Settings of a store: written once, compared afterwards, cheap to read."""

from __future__ import annotations

from pathlib import Path

import pytest

from laps.errors import InputError, LapsError, StoreError
from laps.timegrid import SampleGrid, format_utc
from resources.configured import default_resources
from resources.settings import default_first_hour_ns, first_hour_ns, store_grid, store_settings
from resources.store import Store, store_root
from tests.s3 import S3, s3, s3_server
from tests.test_store_s3 import no_waits

__all__ = ["s3", "s3_server"]  # fixtures


def test_the_first_hour_is_written_at_first_use_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-03-01T00:00:00Z")
    store = Store(str(tmp_path))
    assert store_settings(store)["first_hour"] == "2026-03-01T00:00:00Z"
    monkeypatch.delenv("LAPS_FIRST_HOUR")
    assert format_utc(first_hour_ns(str(tmp_path))) == "2026-03-01T00:00:00Z"
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-04-01T00:00:00Z")
    with pytest.raises(InputError, match="made with 2026-03-01"):
        store_settings(store)


def test_the_default_first_hour_is_last_new_year(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAPS_FIRST_HOUR", raising=False)
    assert first_hour_ns(str(tmp_path)) == default_first_hour_ns()
    assert format_utc(default_first_hour_ns()).endswith("-01-01T00:00:00Z")


def test_the_grid_belongs_to_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAPS_FIRST_HOUR", raising=False)
    store = Store(str(tmp_path))
    assert store_grid(store) == SampleGrid()
    settings = store_settings(store)
    settings["grid"]["rate_hz"] = 5
    store.write_json("settings.json", settings)
    assert store_grid(store) == SampleGrid(rate_hz=5)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"first_hour": ',
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"first_hour": 5}',
        b'{"first_hour": "yesterday"}',
        b'{"first_hour": "2026-03-01T00:30:00Z"}',
    ],
)
@pytest.mark.parametrize("root", ["local", "memory"])
def test_a_broken_file_is_an_error_with_its_place_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, root: str
) -> None:
    monkeypatch.delenv("LAPS_FIRST_HOUR", raising=False)
    store = Store(str(tmp_path) if root == "local" else f"memory://{tmp_path.name}")
    with store.fs.open(store.full_path("settings.json"), "wb") as file:
        file.write(content)
    for read in (lambda: first_hour_ns(store.root), lambda: store_settings(store), lambda: store_grid(store)):
        with pytest.raises(InputError, match="first_hour") as caught:
            read()
        assert caught.value.where == store.url("settings.json")
        assert "LAPS_FIRST_HOUR" in str(caught.value.fix)


def test_a_file_that_cannot_be_read_is_an_error_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAPS_FIRST_HOUR", raising=False)
    (tmp_path / "settings.json").mkdir()
    with pytest.raises(LapsError, match=r"settings\.json"):
        first_hour_ns(str(tmp_path))


@pytest.mark.parametrize(
    "grid", [None, [], {"rate": 10}, {"rate_hz": "10"}, {"rate_hz": 10.5}, {"rate_hz": 0}, {"stride": True}]
)
def test_a_broken_grid_is_an_error_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grid: object
) -> None:
    monkeypatch.delenv("LAPS_FIRST_HOUR", raising=False)
    store = Store(str(tmp_path))
    store.write_json("settings.json", {"first_hour": "2026-03-01T00:00:00Z", "grid": grid})
    assert format_utc(first_hour_ns(store.root)) == "2026-03-01T00:00:00Z"
    with pytest.raises(InputError, match="grid") as caught:
        store_grid(store)
    assert caught.value.where == store.url("settings.json")


def test_a_first_hour_in_the_environment_that_is_none_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAPS_FIRST_HOUR", "yesterday")
    with pytest.raises(InputError, match=r"^LAPS_FIRST_HOUR: "):
        first_hour_ns(str(tmp_path))


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "soon"])
def test_seconds_that_are_none_name_the_variable(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPS_STABLE_S", text)
    with pytest.raises(InputError, match="LAPS_STABLE_S"):
        default_resources()


def test_the_root_comes_from_the_argument_then_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LAPS_STORE", raising=False)
    assert store_root() == str(tmp_path / ".laps")
    monkeypatch.setenv("LAPS_STORE", "s3://bucket/prefix/")
    assert store_root() == "s3://bucket/prefix"
    assert store_root("elsewhere") == str(tmp_path / "elsewhere")
    assert store_root("file:///data/store") == "/data/store"


def test_the_first_hour_of_a_store_that_is_away_is_what_it_was(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it no definition can be loaded, and the daemon would fail all runs of its queue."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("LAPS_FIRST_HOUR", raising=False)
    no_waits(monkeypatch)
    url = f"{s3.url}/store"
    assert first_hour_ns(url) == default_first_hour_ns(), "a store that was never used has no settings"
    Store(url).write_json("settings.json", {"first_hour": "2026-03-01T00:00:00Z", "grid": {}})
    assert format_utc(first_hour_ns(url)) == "2026-03-01T00:00:00Z"
    s3.proxy.fault("503", path="settings.json", times=1000)
    assert format_utc(first_hour_ns(url)) == "2026-03-01T00:00:00Z"
    with pytest.raises(StoreError, match="another"):
        s3.proxy.fault("503", path="another", times=1000)
        first_hour_ns(f"{s3.url}/another")
