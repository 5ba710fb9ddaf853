"""``laps import``: work of the reference implementation into the catalog."""

from __future__ import annotations

from pathlib import Path

import click

from laps_dagster.cli.places import existing_store


@click.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--camera", required=True, metavar="NAME", help="Camera that filmed the videos.")
@click.option("--video", metavar="VIDEO", help="Name of the video without suffix, for files that do not tell it. "
              "Default: from the names of files and folder.")  # fmt: skip
@click.option("--start", metavar="TIME", help="Time of the video's first frame, ISO 8601 with a zone. Default: that "
              "of the registered recording of this name, what the segments file says, a UTC stamp in its "
              "name.")  # fmt: skip
@click.option("--stride", type=click.IntRange(min=1), help="Samples between windows. Default: what the segments file "
              "says, else 4.")  # fmt: skip
@click.option("--fps", type=click.FloatRange(min=0, min_open=True), help="Samples a second. Default: what the segments "
              "file says, else 10.")  # fmt: skip
def import_(
    path: Path, camera: str, video: str | None, start: str | None, stride: int | None, fps: float | None
) -> None:
    """Bring work of the reference implementation into the catalog.

    PATH is a folder, or one file, of jiajiezhang7/LAPS: <video>_segments.json, energies (.jsonl) and .codes.json. They
    become the views imported_segments and imported_energy, beside what is made here. All files are checked first: when
    one cannot be used, nothing is imported. The same again changes nothing; others of the same video take the place of
    the former.
    """
    from laps.timegrid import parse_utc
    from resources.imports import import_work

    store = existing_store()
    start_ns = parse_utc(start) if start else None
    for part in import_work(store, path, camera, video=video, start_ns=start_ns, stride=stride, target_fps=fps):
        click.echo(f"{part.status:<9}  {part.table.name}  {part.video}: {part.what}")
