"""``laps demo``: the whole pipeline, on a simulated workstation or on a video of one's own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import time
import unicodedata
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from laps.errors import InputError, LapsError, MediaError, NotProcessedError
from laps.timegrid import NS_PER_S, format_utc, from_datetime

if TYPE_CHECKING:
    from resources.recordings import Recordings
    from resources.s3_server import S3Server
    from resources.store import Store

SEED = 11
MINUTES_BEFORE, MINUTES_AFTER = 3, 3  # of a full hour, so that primitives cross it
QUESTION = """
select cluster_id, count(*) as primitives, round(avg(duration_s), 2) as mean_duration_s,
       count(distinct camera) as cameras, min(start_time) as first_seen
from primitives group by all order by primitives desc
"""


@click.command()
@click.option("--video", type=click.Path(path_type=Path), help="A video of your own instead of the simulation.")
@click.option(
    "--clusters", "k", type=click.IntRange(1), help="Number of clusters. Default: 6, fewer for few primitives."
)
@click.option("--train-minutes", type=click.FloatRange(min=0, min_open=True), default=1.25, show_default=True,
              help="Longest training time.")  # fmt: skip
@click.option("--s3", "s3_folder", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              help="Store and landing zone on an S3 server of the demo's own, its buckets in FOLDER.")  # fmt: skip
def demo(video: Path | None, k: int | None, train_minutes: float, s3_folder: Path | None) -> None:
    """Run everything once, on a simulated workstation or your video.

    That is recordings, tracks, tokenizer, primitives, clusters, coherence, catalog and report. Without --video two
    cameras of a simulated workstation are recorded first, across an hour boundary. All of it runs through Dagster:
    `make dev` (or `laps dev`) shows the runs afterwards.
    """
    from resources import s3_server

    with contextlib.ExitStack() as stack:
        server = None
        if s3_folder is not None:
            server = stack.enter_context(s3_server.serve(s3_folder))
            s3_server.use(server)
        store, release = _run(video, k, train_minutes)
        click.echo()
        for line in _where_to_look(store, release, server):
            click.echo(line)


def _run(video: Path | None, k: int | None, train_minutes: float) -> tuple[Store, str]:
    """Everything from the recordings to the scores; returns the store and its current release."""
    from laps_dagster.cli.backfill import register_cameras
    from laps_dagster.pipeline import Backfill, Options, Progress, select_hours
    from resources.models import ModelRegistry
    from resources.recordings import Recordings
    from resources.settings import store_settings
    from resources.store import Store

    began = time.monotonic()
    store = Store()
    store_settings(store)
    recordings = Recordings(store)
    click.echo(f"store {store.root}")
    cameras = [_own_video(recordings, video)] if video else _simulated(recordings)
    register_cameras(cameras)
    registry = ModelRegistry(store)
    release, before = "", registry.current_name()
    if before is not None:
        # What is there stays: this run gets models of its own, trained on its own recordings.
        release = registry.open_draft("demo" if video is None else f"demo on {video.name}").name
    progress = Progress(report=lambda line: click.echo(f"[{time.monotonic() - began:4.0f} s] {line}"))
    options = Options(release=release, workers=os.cpu_count() or 1, preset="small", train_minutes=train_minutes, k=k)
    chosen = Backfill(store, select_hours(recordings, cameras, None, None), options, progress).run()
    if progress.failures:
        raise NotProcessedError(
            f"{len(progress.failures)} runs failed, the first: {progress.failures[0].error}",
            fix="Their logs are in the Dagster UI (laps dev)."
            + (f" `laps discard {chosen.name}` removes what was made." if chosen.status == "draft" else ""),
        )
    if chosen.status == "draft":
        # It holds this demo's recordings only, which are what is asked for here.
        chosen = registry.promote(chosen.name, even_incomplete=True)
    click.echo(f"\nDone in {time.monotonic() - began:.0f} s.\n")
    _say_what_was_found(store)
    if video is None:
        _say_how_true_it_is(store, recordings, cameras)
    if before not in (None, chosen.name):
        click.echo(f"release {chosen.name} is now current; back: laps promote {before} --even-incomplete")
    return store, chosen.name


def _where_to_look(store: Store, release: str, server: S3Server | None) -> list[str]:
    """Where the report lies, and how to go on; with the demo's own S3 server, which ends with it."""
    from resources.reporting import report_path

    report = store.url(report_path(release))
    laps, dev = ".venv/bin/laps", "make dev"
    lines = [f"report   {report}"]
    if server is not None:
        # The server is gone when this is read: what it held are files, and commands need it again.
        folder = os.path.relpath(server.folder)
        laps, dev = f".venv/bin/python -m resources.s3_server {folder} {laps}", f"make dev STORE=s3 S3_FOLDER={folder}"
        lines.append(f"open     {server.file(report)}   (the same, as the server keeps it)")
    elif not store.is_local:
        lines.append(f"open     {laps} report --out report.html   (a copy for the browser)")
    return [
        *lines,
        f'ask      {laps} sql "select * from primitives limit 5"',
        f"look     {dev}   (the Dagster UI, with these runs)",
    ]


def _simulated(recordings: Recordings) -> list[str]:
    """Record the simulated workstation into the landing zone, unless it lies there already, and register it."""
    from laps.simulation import VIEWS

    cameras = [f"demo{view + 1}" for view in VIEWS]
    if not {landed.camera for landed in recordings.listed()}.issuperset(cameras):
        minutes = MINUTES_BEFORE + MINUTES_AFTER
        click.echo(f"recording {minutes} minutes of a simulated workstation with {len(cameras)} cameras …")
        yesterday = datetime.now(UTC).replace(hour=9, minute=0, second=0, microsecond=0) - timedelta(days=1)
        start_ns = from_datetime(yesterday) - MINUTES_BEFORE * 60 * NS_PER_S
        # Spawned, not forked: the landing zone's file system has a thread.
        context = multiprocessing.get_context("spawn")
        workers = min(len(cameras), os.cpu_count() or 1)
        with recordings.to_land() as landing, ProcessPoolExecutor(workers, mp_context=context) as pool:
            made = [
                pool.submit(_record, landing, camera, view, start_ns)
                for view, camera in zip(VIEWS, cameras, strict=True)
            ]
            for recording in made:
                recording.result()
    for outcome in recordings.scan():
        if isinstance(outcome, LapsError):
            click.echo(f"refused {outcome}", err=True)
        elif outcome["status"] != "ok":
            click.echo(f"quarantined {outcome['uri']}: {outcome['reason']}", err=True)
        elif outcome["camera"] in cameras:
            click.echo(f"registered {outcome['uri']}, from {outcome['start_time']:%Y-%m-%d %H:%M:%S} UTC")
    return cameras


def _record(landing: Path, camera: str, view: int, start_ns: int) -> None:
    """One camera's recordings; the second camera's are two files that adjoin at a frame."""
    from laps.simulation import SCENARIOS, record

    length_s = 60.0 * (MINUTES_BEFORE + MINUTES_AFTER)
    scenario = replace(SCENARIOS["clean"], seed=SEED, duration_s=length_s, width_px=640, height_px=360, fps=25.0)
    splits = [0.0, length_s] if view == 0 else [0.0, 100.0, length_s]
    for begin_s, end_s in pairwise(splits):
        record(landing, scenario, camera=camera, view=view, start_ns=start_ns, start_s=begin_s, stop_s=end_s)


def _own_video(recordings: Recordings, video: Path) -> str:
    """Register a file of the user's; where no start can be used, yesterday 10:00 UTC stands in and is said."""
    _check_length(recordings.store, video)
    camera = camera_name(video.stem)
    row = recordings.register(str(video), camera)
    if row["status"] != "ok":
        when = datetime.now(UTC).replace(hour=10, minute=0, second=0, microsecond=0) - timedelta(days=1)
        stand_in_ns = from_datetime(when)
        again = recordings.register(str(video), camera, stand_in_ns)
        if again["status"] != "ok":
            raise InputError(f"cannot be used: {row['reason']}", where=str(video))
        click.echo(f"no start that can be used ({row['reason']}); taking {format_utc(stand_in_ns)}")
        row = again
    click.echo(f"camera {camera}: {row['uri']}, from {row['start_time']:%Y-%m-%d %H:%M:%S} UTC")
    return camera


def camera_name(text: str) -> str:
    """A camera's name made from any text, accents and umlauts without their marks."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text).casefold() if not unicodedata.combining(c))
    return re.sub(r"[^a-z0-9_-]+", "-", plain).strip("-_")[:63] or "video"


def _check_length(store: Store, video: Path) -> None:
    """Raise where a video claims to be shorter than a window; what else is wrong with it, registering it says."""
    from laps.recordings import check_length
    from laps.video import probe
    from resources.recordings import file_info, open_uri
    from resources.settings import store_grid

    info = file_info(str(video))
    try:
        with open_uri(info.uri) as file:
            duration_s = probe(file, name=info.uri).duration_s
    except (MediaError, OSError):
        return
    if duration_s is not None:
        check_length(duration_s, store_grid(store), name=info.uri)


def _say_what_was_found(store: Store) -> None:
    from resources.catalog import open_catalog, render, run_query

    connection = open_catalog(store)
    try:
        click.echo('laps sql "' + " ".join(QUESTION.split()) + '"')
        click.echo(render(run_query(connection, QUESTION), "table"), nl=False)
    finally:
        connection.close()


def _say_how_true_it_is(store: Store, recordings: Recordings, cameras: list[str]) -> None:
    """Score the primitives against the simulation's truth, which nothing before this line has read."""
    from laps.evaluation import evaluate
    from resources.catalog import open_catalog
    from resources.evaluation import read_truth

    connection = open_catalog(store)
    click.echo("\nagainst the simulation's truth, which the pipeline never saw (chance: as many, evenly spaced)")
    try:
        for camera in cameras:
            for row in recordings.of_camera(camera):
                truth = read_truth(row["uri"]) if row["status"] == "ok" else None
                if truth is None:
                    continue
                found = connection.execute(
                    "select epoch_us(start_time), epoch_us(end_time) from primitives "
                    "where camera = ? and end_time > ? and start_time < ? order by start_time",
                    [camera, row["start_time"], row["end_time"]],
                ).fetchall()
                zero_us = from_datetime(row["start_time"]) // 1000
                predicted: list[dict[str, Any]] = [
                    {"start_sec": (start - zero_us) / 1e6, "end_sec": (end - zero_us) / 1e6} for start, end in found
                ]
                result = evaluate(truth, {"segments": predicted}, (0.5,))
                click.echo(f"  {Path(row['uri']).name}: " + _score_line(result))
    finally:
        connection.close()


def _score_line(result: dict[str, Any]) -> str:
    """Typed boundary F1 and segment F1 of one recording, each beside the best blind guess."""
    said = []
    for score in result["scores"]:
        if score["metric"] == "typed" or score.get("iou") == 0.5:
            name = "starts and ends F1@0.5s" if score["metric"] == "typed" else "segments F1@IoU0.5"
            chance = score["chance"]["equal_predicted"]
            said.append(f"{name} {score['f1']:.2f} (chance {chance:.2f})")
    return f"{result['counts']['predicted']} of {result['counts']['truth']} primitives, " + ", ".join(said)
