"""Settings of a store: written once, compared afterwards, cheap to read."""

from __future__ import annotations

from pathlib import Path

import pytest

from laps.errors import InputError
from laps.timegrid import SampleGrid, format_utc
from resources.settings import default_first_hour_ns, first_hour_ns, store_grid, store_settings
from resources.store import Store, store_root


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


def test_the_root_comes_from_the_argument_then_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LAPS_STORE", raising=False)
    assert store_root() == str(tmp_path / ".laps")
    monkeypatch.setenv("LAPS_STORE", "s3://bucket/prefix/")
    assert store_root() == "s3://bucket/prefix"
    assert store_root("elsewhere") == str(tmp_path / "elsewhere")
    assert store_root("file:///data/store") == "/data/store"
