"""``laps export``: data sets for training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from laps.errors import InputError, NotProcessedError
from laps_dagster.cli.places import check_output_folder, existing_store, refuse_url

FORMATS = ("lerobot", "webdataset", "lapa", "segments")


class Size(click.ParamType[tuple[int, int]]):
    """Width and height, ``320x240``."""

    name = "WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        width, separator, height = str(value).lower().partition("x")
        if not (separator and width.isdecimal() and height.isdecimal()):
            self.fail(f"{value!r} is no size: write 320x240", param, ctx)
        return int(width), int(height)


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that choose primitives; their names are those of ``resources.curation.Selection``."""
    for option in reversed(
        (
            click.option("--where", metavar="SQL", help="Condition on the view primitives, e.g. \"energy_peak > 2\"."),
            click.option("--sql", metavar="SQL", help="Query whose column segment_id names the primitives."),
            click.option("--cluster", "clusters", type=int, multiple=True, help="Cluster; may be repeated."),
            click.option("--camera", "cameras", multiple=True, help="Camera; may be repeated."),
            click.option("--from", "start", metavar="TIME", help="First start of a primitive, ISO 8601 with a zone."),
            click.option("--to", "stop", metavar="TIME", help="End of the starts (exclusive), ISO 8601 with a zone."),
            click.option("--min-duration", "min_duration_s", type=float, help="Shortest primitive, seconds."),
            click.option("--max-duration", "max_duration_s", type=float, help="Longest primitive, seconds."),
            click.option("--min-icss", type=float, help="Least coherence (ICSS) of a primitive's cluster."),
            click.option("--per-cluster", type=click.IntRange(1), help="Most primitives of a cluster, drawn by lot."),
            click.option(
                "--min-distance",
                type=click.FloatRange(0, 2, min_open=True),
                help="Drop near-duplicates: least cosine distance (0 to 2) of two embeddings.",
            ),
            click.option(
                "--split", type=click.Choice(["time", "recording"]), help="Draw stretches of time, or recordings, "
                "for validation. Default: all for training.",
            ),
            click.option("--validation-share", type=float, default=0.1, show_default=True, help="For validation."),
            click.option(
                "--guard", "guard_s", type=float, default=10.0, show_default=True,
                help="Least time between training and validation primitives of a camera, seconds.",
            ),
            click.option("--seed", type=int, default=0, show_default=True, help="Seed of all draws."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


@click.command()
@click.option("--format", "form", type=click.Choice(FORMATS), default="lerobot", show_default=True,
              help="LeRobot v3, WebDataset shards, LAPA lines, or the reference implementation's files.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Folder to make. Default: the store, see --name.")
@click.option("--name", metavar="NAME", help="Name of the data set. Without --out it goes into the store.")
@click.option("--version", "version", metavar="VERSION", help="Its version there. Default: the next of v1, v2, …")
@selection_options
@click.option("--size", "size_px", type=Size(), help="Size of the pictures (lerobot, lapa). Default: the clips'.")
@click.option("--codes-per-line", type=click.IntRange(1), help="Codes on a line (lapa). Default: 4.")
@click.option("--release", default="", metavar="RELEASE", help="Release to take. Default: the current one.")
def export(
    form: str,
    out: Path | None,
    name: str | None,
    version: str | None,
    size_px: tuple[int, int] | None,
    codes_per_line: int | None,
    release: str,
    **options: Any,
) -> None:
    """Write chosen primitives as a data set for training.

    A primitive must meet all conditions that are given; without any, all of the release are taken. With --out the
    data set is a new folder; with --name alone it is made by the asset vla_dataset and lies in the store, below
    datasets/NAME/VERSION. The same selection and seed give the same bytes.
    """
    if out is None and name is None:
        raise click.UsageError("give --out FOLDER, or --name NAME to put the data set into the store")
    if out is not None and version is not None:
        raise click.UsageError("--version is of data sets in the store: give it with --name and without --out")
    options |= {"format": form, "size_px": size_px, "codes_per_line": codes_per_line}
    if out is not None:
        _into_folder(options, out, name or "primitives", release)
    elif name is not None:
        _into_store(options, name, version, release)


def _into_folder(options: dict[str, Any], out: Path, name: str, release: str) -> None:
    from tqdm import tqdm

    from resources.curation import choose, selection_of
    from resources.datasets import format_of, write_dataset
    from resources.models import ModelRegistry

    refuse_url(out)
    selection, form = selection_of(options), format_of(options)
    store = existing_store()
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(
            "there is something already, and an export never overwrites",
            where=str(out),
            fix="Choose another folder, or remove this one.",
        )
    check_output_folder(out.absolute().parent)
    source = ModelRegistry(store).to_read(release or None)
    chosen = choose(store, source, selection)
    click.echo(f"release {source.name}: {chosen.funnel}")
    with tqdm(total=len(chosen.items), desc="writing", unit="primitive", leave=False) as bar:
        summary = write_dataset(store, source, chosen, form, out, name=name, progress=lambda _: bar.update())
    for segment_id, reason in summary.skipped[:10]:
        click.echo(f"left out {segment_id}: {reason}", err=True)
    if len(summary.skipped) > 10:
        click.echo(f"left out {len(summary.skipped) - 10} more: see the card", err=True)
    click.echo(f"{len(summary.written)} primitives, {summary.frames} frames, {summary.codes} codes: {out}")


def _into_store(options: dict[str, Any], name: str, version: str | None, release: str) -> None:
    from assets.partitions import DATASETS
    from laps_dagster.instance import open_instance
    from laps_dagster.runs import Runner, Task
    from resources.curation import selection_of
    from resources.datasets import check_new, dataset_key, format_of, next_version
    from resources.models import ModelRegistry

    store = existing_store()
    # What can be seen to be wrong now needs no run.
    selection_of(options).query()
    format_of(options)
    source = ModelRegistry(store).to_read(release or None)
    version = version or next_version(store, name)
    check_new(store, name, version)
    key = dataset_key(name, version)
    with open_instance() as instance:
        instance.add_dynamic_partitions(DATASETS, [key])
    config = {
        option: list(value) if isinstance(value, tuple) else value
        for option, value in options.items()
        if value is not None
    }
    task = Task(
        "export",
        key,
        ops={"vla_dataset": {"config": config}},
        resources={"release": {"config": {"name": source.name}}},
    )
    with Runner(notice=click.echo) as runner:
        (outcome,) = runner.run_all([task])
    if not outcome.ok:
        raise NotProcessedError(f"{outcome.task} failed: {outcome.error}", where=store.root)
    found = outcome.metadata["vla_dataset"]
    click.echo(f"release {source.name}: {found['selection']}")
    if found["left_out"]:
        click.echo(f"{found['left_out']} primitives were left out: see the card", err=True)
    click.echo(
        f"{found['dagster/row_count']} primitives, {found['frames']} frames, {found['codes']} codes: {found['path']}"
    )
