"""Fixtures that several test modules share."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from resources.store import Store
from tests.export_store import ExportStore, make_export_store


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> ExportStore:
    """A small store with clips and clusters; for reading only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")
        return make_export_store(tmp_path_factory.mktemp("made"))


@pytest.fixture
def fresh(made: ExportStore, tmp_path: Path) -> ExportStore:
    """A copy of it, which the test may spoil."""
    shutil.copytree(made.store.root, tmp_path / "fresh")
    return replace(made, store=Store(str(tmp_path / "fresh")))
