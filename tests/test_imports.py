"""The floors: a package imports only from those below it, and definitions load nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("laps", "resources", "assets", "laps_dagster")  # from the ground up
HEAVY = ("torch", "cv2", "av", "open_clip", "s3fs", "duckdb", "pyarrow", "sklearn", "matplotlib", "umap")


def imported(file: Path) -> set[str]:
    """Top-level names of everything that a module imports, at any depth of its code."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} uses a relative import"
            names.add((node.module or "").split(".")[0])
    return names


def modules() -> list[tuple[str, Path]]:
    return [(floor, file) for floor in FLOORS for file in sorted((ROOT / floor).rglob("*.py"))]


@pytest.mark.parametrize(("floor", "file"), modules(), ids=lambda value: str(value).removeprefix(str(ROOT)))
def test_no_floor_reaches_up(floor: str, file: Path) -> None:
    above = set(FLOORS[FLOORS.index(floor) + 1 :])
    reached = imported(file) & above
    assert not reached, f"{file.relative_to(ROOT)} imports {', '.join(sorted(reached))} from a floor above"


def test_the_method_knows_neither_dagster_nor_stores() -> None:
    for floor, file in modules():
        if floor == "laps":
            assert not imported(file) & {"dagster", "fsspec", "s3fs"}, file


@pytest.mark.parametrize("module", ["laps_dagster.definitions", "laps_dagster.cli.main"])
def test_definitions_load_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(' '.join(name for name in {HEAVY!r} if name in sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.strip() == "", f"{module} loads {loaded.stdout}"


def test_the_command_line_does_not_load_dagster() -> None:
    code = "import sys, laps_dagster.cli.main, laps_dagster.cli.sql; print('dagster' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert loaded.stdout.strip() == "False"
