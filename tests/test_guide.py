"""Whoever is called finds what to do: every check and every job leads to a section of docs/alarms.md that exists."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import click
import dagster as dg
import pytest

from assets import checks, vital_checks
from assets.guide import DOCS_URL, PAGE, WHAT_TO_DO
from assets.partitions import CAMERAS, camera_hours, multi_partition_key
from laps import vitals
from laps.timegrid import CameraHour
from laps_dagster.alarms import REMEDIES
from laps_dagster.cli.main import laps
from laps_dagster.definitions import defs
from resources.configured import RecordingsResource, StoreResource
from resources.release import ReleaseResource

DOCS = (Path(__file__).parent.parent / PAGE).read_text(encoding="utf-8")
HOUR = CameraHour.parse("cam1|2026-01-05-08:00")
BASE = "https://git.example.org/laps/blob/main"


def anchors() -> set[str]:
    """The headings of the page as links name them."""
    headings = re.findall(r"^#+ (.+)$", DOCS, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(params=["", f"{BASE}/"], ids=["no address", "an address"])
def base(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the environment says that the docs can be read."""
    monkeypatch.setenv(DOCS_URL, request.param)
    return str(request.param)


@pytest.fixture
def failed(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Mapping[dg.AssetCheckKey, dg.AssetCheckEvaluation]:
    """What every check of the definitions says where it fails."""
    monkeypatch.setenv("LAPS_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")
    monkeypatch.setattr(checks, "published_problems", lambda *_: ["used ranges overlap"])
    monkeypatch.setattr(checks, "withdraw", lambda *_: "quarantine/there")
    monkeypatch.setattr(ReleaseResource, "read", lambda *_: SimpleNamespace(model_of=lambda _: None))
    # What there is too little of to judge is bad here: of a store without hours that is everything.
    monkeypatch.setattr(vital_checks, "now_ns", lambda: 0)
    monkeypatch.setattr(vitals, "too_little", lambda what: vitals.Verdict(False, what))
    every = [check for check in defs.asset_checks or () if isinstance(check, dg.AssetChecksDefinition)]
    found = {}
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(CAMERAS, [HOUR.camera])
        for partitions, key in ((camera_hours, multi_partition_key(HOUR)), (None, None)):
            some = [check for check in every if check.partitions_def == partitions]
            names = sorted({one.asset_key.to_user_string() for check in some for one in check.check_keys})
            result = dg.materialize(
                [*(_nothing(name, partitions) for name in names), *some],
                instance=instance,
                partition_key=key,
                resources={"store": StoreResource(), "release": ReleaseResource(), "recordings": RecordingsResource()},
                raise_on_error=False,
            )
            found |= {one.asset_check_key: one for one in result.get_asset_check_evaluations()}
    return found


def _nothing(name: str, partitions: dg.PartitionsDefinition | None) -> dg.AssetsDefinition:
    @dg.asset(name=name, partitions_def=partitions)
    def table() -> None: ...

    return table


def test_every_check_that_fails_has_a_severity_and_says_what_to_do(
    failed: Mapping[dg.AssetCheckKey, dg.AssetCheckEvaluation], base: str
) -> None:
    """Something to click where the environment says where the docs can be read, else their path."""
    graph = defs.resolve_asset_graph()
    assert set(failed) == set(graph.asset_check_keys)
    for key, evaluation in failed.items():
        assert not evaluation.passed and evaluation.description, key
        assert evaluation.severity.value == ("ERROR" if evaluation.blocking else "WARN"), key
        there = evaluation.metadata[WHAT_TO_DO]
        assert isinstance(there, dg.UrlMetadataValue if base else dg.TextMetadataValue), key
        page, _, section = str(there.value).partition("#")
        assert page == (f"{BASE}/{PAGE}" if base else PAGE) and section in anchors(), key
        described = graph.get_check_spec(key).description or ""
        assert described.endswith(f"What it means and what to do: {PAGE}#{section}"), key
        assert f"](#{section}) |" in DOCS, "it stands in the table of checks"


def test_every_job_without_hours_has_a_remedy_that_the_docs_name() -> None:
    without = {job.name for job in defs.jobs or () if defs.resolve_job_def(job.name).partitions_def != camera_hours}
    assert set(REMEDIES) == without
    table = DOCS.partition("### Jobs without hours")[2]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row[1])} == without
    for job, remedy in REMEDIES.items():
        (said,) = [row[3] for row in rows if f"`{job}`" in row[1]]
        for command in re.findall(r"`(laps [^`]+)`", remedy):
            assert f"`{command}" in said, f"{job}: the docs do not say {command}"


def test_the_commands_of_the_remedies_exist() -> None:
    for command in re.findall(r"`laps ([^`]+)`", " ".join(REMEDIES.values()) + DOCS):
        words = command.split()
        found: click.Command | None = laps
        context = click.Context(laps)
        while isinstance(found, click.Group) and words:
            found = found.get_command(context, words.pop(0))
        assert found is not None, command
        known = {option for parameter in found.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, command


def test_the_places_that_alarms_of_runs_name_exist() -> None:
    assert {"run-failed", "jobs-without-hours", "checks", "adds-up"} <= anchors()
