"""A picture of what ran when: one row for each camera hour, and one for what belongs to none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from laps_dagster.hour_runs import hour_of
from laps_dagster.jobs import observe, segment

# Kinds of bars, with their colours; the first is drawn thin.
QUEUED = "waits in the queue"
COLOURS = {
    QUEUED: "#b0b0b0",
    "describes, decodes and tracks": "#1f77b4",
    "encodes": "#ff7f0e",
    "cuts, clips, embeds, clusters": "#2ca02c",
    "plans, reports, copies": "#9467bd",
}
_, TRACKS, ENCODES, CUTS, CLOSES = COLOURS
NIGHT = "night"
# Steps of one kind with less between them are one bar.
_JOINED_S = 2.0


@dataclass(frozen=True)
class Bar:
    """Something that took time.

    Attributes:
        row: the camera hour, or :data:`NIGHT`.
        kind: one of :data:`COLOURS`.
        start_s, stop_s: seconds since the epoch.
    """

    row: str
    kind: str
    start_s: float
    stop_s: float


def bars_of(instance: dg.DagsterInstance) -> list[Bar]:
    """Where the time of all runs that went well was."""
    bars = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])):
        run, stats = record.dagster_run, instance.get_run_stats(record.dagster_run.run_id)
        row = hour_of(run).key if run.job_name in (observe.name, segment.name) else NIGHT
        if stats.launch_time is not None:
            bars.append(Bar(row, QUEUED, record.create_timestamp.timestamp(), stats.launch_time))
        bars += [
            Bar(row, _kind(run.job_name, step.step_key), step.start_time, step.end_time)
            for step in instance.get_run_step_stats(run.run_id)
            if step.start_time is not None and step.end_time is not None
        ]
    return list(_joined(bars))


def _kind(job: str, step: str) -> str:
    if job == observe.name:
        return ENCODES if step.startswith("latent_stream") else TRACKS
    return CUTS if job == segment.name else CLOSES


def _joined(bars: Iterable[Bar]) -> Iterator[Bar]:
    alike: dict[tuple[str, str], list[Bar]] = defaultdict(list)
    for bar in bars:
        alike[bar.row, bar.kind].append(bar)
    for (row, kind), of in alike.items():
        of.sort(key=lambda bar: bar.start_s)
        start_s, stop_s = of[0].start_s, of[0].stop_s
        for bar in of[1:]:
            if bar.start_s - stop_s > _JOINED_S:
                yield Bar(row, kind, start_s, stop_s)
                start_s = bar.start_s
            stop_s = max(stop_s, bar.stop_s)
        yield Bar(row, kind, start_s, stop_s)


def draw(bars: list[Bar], file: Path, title: str) -> None:
    """Draw the bars over the minutes since the first of them began."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    rows = [*sorted({bar.row for bar in bars} - {NIGHT}), NIGHT]
    first_s = min(bar.start_s for bar in bars)
    figure = Figure(figsize=(9.0, 1.4 + 0.19 * len(rows)), layout="constrained")
    axis = figure.subplots()
    for bar in sorted(bars, key=lambda bar: bar.kind != QUEUED):
        place, height = rows.index(bar.row), 0.2 if bar.kind == QUEUED else 0.8
        minutes = [((bar.start_s - first_s) / 60, (bar.stop_s - bar.start_s) / 60)]
        axis.broken_barh(minutes, (place - height / 2, height), color=COLOURS[bar.kind], linewidth=0)
    axis.set_yticks(range(len(rows)), [row.replace("|", " ") for row in rows], fontsize=7)
    axis.invert_yaxis()
    axis.set_xlim(left=0)
    axis.set_xlabel("minutes since the first request")
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(title, fontsize=9)
    handles = [Patch(color=colour, label=kind) for kind, colour in COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=7, frameon=False)
    # Without a date and random ids, so that the same bars give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "timeline", "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
