"""The report's page: sections in plain language around the charts, everything inlined into one file."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from typing import Any

import cv2
import duckdb
import numpy as np

from laps.catalog import unreadable_file
from laps.errors import InputError, StoreError
from laps.report import charts, figures
from laps.report.charts import chip, clock, day, number, seconds
from laps.report.figures import ClusterFigures
from laps.timegrid import HOUR_NS

# The page stays small enough to be mailed: pictures take at most this much, and shrink to this width.
PICTURE_BYTES = 3_400_000
PICTURE_WIDTH_PX = 208
FRAMES_EACH = 4
MOST_POINTS = 4000
MOST_DAYS = 45
MOST_ROWS = 60
TIPS_UP_TO = 4000

_ENERGY_NAMES = {
    "decoded_motion": ("motion decoded from the latent actions", "px per sample step"),
    "latent_action": ("Latent Action Energy", "no unit"),
    "velocity": ("speed of the tracked points", "px per sample step"),
    "prequantized": ("change of the latent vector before quantization", "no unit"),
}
_END_REASONS = {
    "rest": "came to rest",
    "boundary": "passed into the next without a rest",
    "gap": "footage or tracks ended",
    "maximum": "cut at the longest length",
}
_NULL_REASONS = {
    "no_footage": "no footage",
    "window_start": "too soon after a gap",
    "lost_tracks": "tracks lost",
}


def build_report(
    connection: duckdb.DuckDBPyConnection,
    *,
    release: Mapping[str, Any],
    generated_at: datetime,
    thresholds: Mapping[str, Mapping[str, Any]] | None = None,
    map_points: Iterable[tuple[str, int, float, float]] = (),
    energy: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    scores: Mapping[str, float] | None = None,
    missing: Sequence[str] = (),
    comparison: Sequence[tuple[str, str, str]] = (),
    settings: Mapping[str, Any] | None = None,
) -> str:
    """The report as one self-contained HTML page.

    Args:
        connection: the catalog (``resources.catalog.open_catalog``); pictures come from its view keyframes.
        release: what the models section shows: ``name``, ``status``, model ids, anything else. Empty when there
            is none yet.
        generated_at: an aware time.
        thresholds: for each camera ``theta_on``, ``theta_off`` and ``energy_form``.
        map_points: (segment_id, cluster_id, x, y) for the map of primitives.
        energy: for each camera the times (int64 nanoseconds since the epoch, or datetime64) and values (NaN where
            there is none) of the series that the thresholds belong to. A camera that it lacks shows the stored,
            unsmoothed energy of its form.
        scores: figures over all clusters: ``icss``, ``baseline``, ``silhouette``, ``calinski_harabasz``. Without
            ``icss`` and ``baseline`` the mean over clusters, weighted by their size, stands there.
        missing: keys of the hours that are over and have no clustered primitives, some with a remark.
        comparison: beside the current release, where this is another: a figure's name, its value there and its value
            here, in words.
        settings: settings to list at the end, nested mappings allowed.

    Raises:
        InputError: a time without zone, or energy whose times and values differ in length.
        StoreError: a table cannot be read; the message names the file.
    """
    if generated_at.tzinfo is None:
        raise InputError("the report's time has no zone", fix="Pass an aware datetime.")
    try:
        body = _body(
            connection,
            release=release,
            thresholds=thresholds or {},
            map_points=list(map_points),
            energy=energy,
            scores=scores or {},
            missing=missing,
            comparison=comparison,
            settings=settings or {},
        )
    except duckdb.Error as error:
        unreadable = unreadable_file(error)
        if unreadable is not None:
            raise unreadable from error
        lines = [line for line in str(error).splitlines() if 0 < len(line) <= 400]
        raise StoreError(f"the report cannot be made: {lines[0] if lines else type(error).__name__}") from error
    made = generated_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    name = escape(str(release.get("name") or "none yet"))
    status = f" ({escape(str(release['status']))})" if release.get("status") else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # Nothing may be loaded from anywhere, whatever a file name or a reason contains.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
        f"<title>Action primitives: report of {made}</title><style>{_asset('style.css')}</style></head><body>"
        f'<header><h1>Action primitives</h1><div class="sub">Release {name}{status} · made {made} · '
        f"all times are UTC</div>{body[0]}</header><main>{body[1]}</main>"
        "<footer>Made by laps. This page is complete in itself: it loads nothing and can be mailed or archived."
        f'</footer><div id="tip"></div><script>{_asset("script.js")}</script></body></html>\n'
    )


def _asset(name: str) -> str:
    return files("laps.report").joinpath(name).read_text(encoding="utf-8")


def _body(
    connection: duckdb.DuckDBPyConnection,
    *,
    release: Mapping[str, Any],
    thresholds: Mapping[str, Mapping[str, Any]],
    map_points: list[tuple[str, int, float, float]],
    energy: Mapping[str, tuple[np.ndarray, np.ndarray]] | None,
    scores: Mapping[str, float],
    missing: Sequence[str],
    comparison: Sequence[tuple[str, str, str]],
    settings: Mapping[str, Any],
) -> tuple[str, str]:
    cameras = figures.camera_figures(connection)
    clusters = figures.clusters(connection)
    lengths = figures.durations(connection)
    sections: list[tuple[str, str, str]] = []

    def add(anchor: str, title: str, content: str) -> None:
        if content:
            sections.append((anchor, title, content))

    if cameras:
        head = _headline(cameras, clusters, lengths, scores)
        add("processed", "What was processed", _processed(connection, cameras))
    else:
        head = (
            '<p class="verdict">Nothing has been processed yet. Register video with '
            "<code>laps ingest PATH --camera NAME</code>, process it with <code>laps backfill</code>, and make this "
            "report again.</p>"
        )
    add("missing", "What is still missing", _missing(missing))
    add("refused", "What could not be used", _refused(connection))
    add("comparison", "Beside the current release", _comparison(comparison, release))
    if cameras:
        add("energy", "Motion energy over time", _energy(connection, thresholds, energy, clusters))
        add("map", "Which primitives are alike", _map(connection, map_points, clusters))
        add("coherence", "How coherent the clusters are", _coherence(clusters, scores))
        add("clusters", "The clusters, with examples", _cards(connection, clusters, lengths))
        add("durations", "How long primitives last", _durations(connection, lengths))
        add("codes", "How the latent codes are used", _codes(connection, settings))
    add("models", "Models and settings", _models(release, thresholds, clusters, settings))
    links = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title, _ in sections)
    main = "".join(f'<section id="{anchor}"><h2>{title}</h2>{content}</section>' for anchor, title, content in sections)
    return f"{head}<nav>{links}</nav>", main


# --- headline --------------------------------------------------------------------------------------------------


def _headline(
    cameras: Sequence[figures.CameraFigures],
    clusters: Sequence[ClusterFigures],
    lengths: np.ndarray,
    scores: Mapping[str, float],
) -> str:
    footage_s = sum(item.footage_s for item in cameras)
    icss, baseline = _overall(clusters, scores)
    filled = sum(1 for item in clusters if item.size)
    if footage_s >= 3600:
        amount, unit = f"{footage_s / 3600:,.1f}", "hours of video"
    else:
        amount, unit = f"{footage_s / 60:,.1f}", "minutes of video"
    tiles = [
        (amount, unit),
        (f"{len(cameras):,}", "camera" if len(cameras) == 1 else "cameras"),
        (f"{lengths.size:,}", "action primitive" if lengths.size == 1 else "action primitives"),
        (seconds(float(np.median(lengths))) if lengths.size else "–", "median length"),
        (f"{filled:,}", "cluster" if filled == 1 else "clusters"),
        (number(icss), f"coherence (ICSS); random pairs {number(baseline)}"),
    ]
    shown = "".join(f'<div class="tile"><b>{value}</b><span>{label}</span></div>' for value, label in tiles)
    return f'<div class="tiles">{shown}</div>{_verdict(clusters, icss, baseline, lengths.size)}{_encoder(clusters)}'


def _overall(clusters: Sequence[ClusterFigures], scores: Mapping[str, float]) -> tuple[float | None, float | None]:
    """ICSS over all clusters and its baseline: as given, else the mean weighted by the clusters' sizes."""
    if "icss" in scores and "baseline" in scores:
        return scores["icss"], scores["baseline"]
    scored = [item for item in clusters if item.icss is not None and item.baseline is not None and item.size]
    if not scored:
        return None, None
    sizes = np.array([item.size for item in scored], np.float64)
    values = np.array([[item.icss, item.baseline] for item in scored], np.float64)
    icss, baseline = sizes @ values / sizes.sum()
    return float(icss), float(baseline)


def _verdict(clusters: Sequence[ClusterFigures], icss: float | None, baseline: float | None, primitives: int) -> str:
    if not primitives:
        return '<p class="verdict">No action primitives have been found in this footage yet.</p>'
    if icss is None or baseline is None:
        return (
            '<p class="verdict">The clusters have not been scored yet, so nothing can be said of their coherence.</p>'
        )
    judged = [
        (item.ci_low, item.baseline) for item in clusters if item.ci_low is not None and item.baseline is not None
    ]
    above = sum(1 for low, random in judged if low > random)
    gap = icss - baseline
    if gap <= -0.01:
        finding = "look <b>less alike</b> than pairs drawn at random"
    elif gap < 0.01:
        finding = "look <b>no more alike</b> than pairs drawn at random"
    elif above * 2 >= len(judged) and gap >= 0.05:
        finding = "look <b>clearly more alike</b> than pairs drawn at random"
    else:
        finding = "look <b>somewhat more alike</b> than pairs drawn at random"
    interval = (
        f" In {above} of {len(judged)} clusters the whole 95% interval lies above the random baseline."
        if judged
        else ""
    )
    return (
        f'<p class="verdict">Primitives of one cluster {finding}: mean similarity {icss:.2f} against '
        f"{baseline:.2f} (1 would be identical).{interval}</p>"
    )


def _encoder(clusters: Sequence[ClusterFigures]) -> str:
    encoders = sorted({item.encoder_id for item in clusters if item.encoder_id})
    if not encoders:
        return ""
    named = ", ".join(f"<code>{escape(name)}</code>" for name in encoders)
    if any(name.startswith("weight_free:") for name in encoders):
        return (
            f'<div class="callout"><b>Not a vision-language model.</b> The coherence was measured with {named}, a '
            "simple descriptor of edges and colours that needs no weights. It is not CLIP, and this score is not the "
            "paper's ICSS: do not compare it with published figures. Configure an <code>open_clip</code> encoder "
            "with weights to get that score.</div>"
        )
    return f'<p class="note" style="margin-top:8px">Similarity was measured by the vision encoder {named}.</p>'


# --- what was processed ----------------------------------------------------------------------------------------


def _processed(connection: duckdb.DuckDBPyConnection, cameras: Sequence[figures.CameraFigures]) -> str:
    lines = "".join(
        f'<tr><td>{escape(item.camera)}</td><td class="n">{seconds(item.footage_s)}</td>'
        f'<td class="n">{item.hours:,}</td><td class="n">{item.primitives:,}</td>'
        f'<td class="n">{number(60 * item.primitives / item.footage_s, 1) if item.footage_s else "–"}</td>'
        f'<td class="n">{seconds(item.median_duration_s)}</td>'
        f'<td class="n">{f"{100 * item.active_s / item.footage_s:.0f}%" if item.footage_s else "–"}</td></tr>'
        for item in cameras
    )
    table = (
        '<div class="wide"><table><tr><th>Camera</th><th class="n">Video</th><th class="n">Hours processed</th>'
        '<th class="n">Primitives</th><th class="n">Per minute</th><th class="n">Median length</th>'
        f'<th class="n">Time in action</th></tr>{lines}</table></div>'
    )
    return table + _coverage(connection)


def _coverage(connection: duckdb.DuckDBPyConnection) -> str:
    hours = figures.hour_figures(connection)
    days: dict[tuple[str, int], dict[int, figures.HourFigures]] = {}
    for item in hours:
        midnight = item.hour_ns - item.hour_ns % (24 * HOUR_NS)
        days.setdefault((item.camera, midnight), {})[(item.hour_ns - midnight) // HOUR_NS] = item
    latest = sorted(days, key=lambda key: (key[1], key[0]))[-MOST_DAYS:]
    cut_off = len(days) - len(latest)
    rows = []
    for camera, midnight in sorted(latest):
        cells = []
        for hour in range(24):
            found = days[camera, midnight].get(hour)
            stamp = f"{camera} {day(midnight)} {hour:02d}:00 UTC"
            if found is None:
                cells.append(f'<span class="cell" data-tip="{escape(stamp)}: not processed"></span>')
                continue
            tip = f"{stamp}: {seconds(found.footage_s)} of video, {found.primitives:,} primitives"
            if found.problems:
                tip += f"; {', '.join(found.problems)}"
            if not found.cut:
                tip += "; not cut into primitives yet"
            cells.append(charts.coverage_cell(found.footage_s, found.problems, found.cut, tip))
        rows.append(
            f'<div class="row"><div class="who">{escape(camera)} · {day(midnight)}</div>'
            f'<div class="cells">{"".join(cells)}</div></div>'
        )
    scale = "".join(f"<span>{hour if hour % 3 == 0 else ''}</span>" for hour in range(24))
    note = f'<p class="note">{cut_off:,} earlier camera days are not shown.</p>' if cut_off else ""
    dashed = any(not item.cut for item in hours)
    dotted = any(problem != "gap" for item in hours for problem in item.problems)
    return (
        "<h3>Coverage by hour of day (UTC)</h3>"
        f'<div class="coverage"><div class="row hours"><div class="who"></div><div class="cells">{scale}</div></div>'
        f"{''.join(rows)}</div>"
        '<div class="keys"><span><i class="cell" style="--s:1"></i>full hour of video</span>'
        '<span><i class="cell" style="--s:0.3"></i>a few minutes</span>'
        '<span><i class="cell empty" style="--s:0"></i>processed, no video</span>'
        '<span><i class="cell"></i>not processed</span>'
        + ('<span><i class="cell" style="--s:0.5"><b></b></i>something was wrong, see below</span>' if dotted else "")
        + ('<span><i class="cell uncut" style="--s:0.5"></i>not cut into primitives yet</span>' if dashed else "")
        + f"</div>{note}"
    )


def _missing(hours: Sequence[str]) -> str:
    """Hours that a failed run, or one that never began, left without primitives."""
    if not hours:
        return ""
    listed = "".join(f"<li>{escape(hour)}</li>" for hour in hours[:MOST_ROWS])
    return (
        f"<p>{len(hours):,} {'hour has' if len(hours) == 1 else 'hours have'} no clustered primitives yet, so "
        "no figure on this page counts them. <code>laps status</code> says why the last run of each "
        "failed, where one did; <code>laps backfill --only missing</code> makes what is missing.</p>"
        f"<ul>{listed}</ul>{_more(len(hours))}"
    )


def _comparison(rows: Sequence[tuple[str, str, str]], release: Mapping[str, Any]) -> str:
    """A table of the figures of two releases."""
    if not rows:
        return ""
    lines = "".join(
        f'<tr><td>{escape(name)}</td><td class="n">{escape(there)}</td><td class="n">{escape(here)}</td></tr>'
        for name, there, here in rows
    )
    return (
        "<p>Look at the clusters above before anything else; a figure that differs is no reason by itself. "
        f"<code>laps promote {escape(str(release.get('name')))}</code> makes this release the current one.</p>"
        '<div class="wide"><table><tr><th>Figure</th><th class="n">Current release</th>'
        f'<th class="n">This release</th></tr>{lines}</table></div>'
    )


def _refused(connection: duckdb.DuckDBPyConnection) -> str:
    files_, ranges = figures.quarantined(connection), figures.problems(connection)
    offered = figures.recording_count(connection)
    if not offered and not ranges:
        return ""
    parts = []
    if files_:
        lines = "".join(
            f"<tr><td>{escape(item['camera'])}</td>"
            f'<td class="break" title="{escape(item["uri"])}">{escape(item["uri"].rstrip("/").rsplit("/", 1)[-1])}</td>'
            f'<td class="break">{escape(item["reason"] or "no reason given")}</td>'
            f'<td class="n t">{_bytes(item["size_bytes"])}</td>'
            f'<td class="t">{day(item["registered_ns"])} {clock(item["registered_ns"])}</td></tr>'
            for item in files_[:MOST_ROWS]
        )
        parts.append(
            f"<p>{len(files_):,} of {offered:,} recordings {'is' if len(files_) == 1 else 'are'} quarantined: "
            "nothing was taken from them.</p>"
            '<div class="wide"><table><tr><th>Camera</th><th>File</th><th>Why</th><th class="n">Size</th>'
            f"<th>Registered (UTC)</th></tr>{lines}</table></div>{_more(len(files_))}"
        )
    elif offered:
        parts.append(f"<p>All {offered:,} recordings that were offered were accepted.</p>")
    faults = [item for item in ranges if item.status != "gap"]
    gaps = [item for item in ranges if item.status == "gap"]
    if faults:
        parts.append(f"<h3>Ranges that were not used ({len(faults):,})</h3>{_ranges(faults)}")
    if gaps:
        total = sum(item.stop_ns - item.start_ns for item in gaps) / 1e9
        parts.append(
            f"<details><summary>{len(gaps):,} {'gap' if len(gaps) == 1 else 'gaps'} without video inside the "
            f"processed hours, {seconds(total)} together</summary>{_ranges(gaps)}</details>"
        )
    return "".join(parts)


def _ranges(ranges: Sequence[figures.Problem]) -> str:
    lines = "".join(
        f"<tr><td>{escape(item.camera)}</td>"
        f'<td><span class="badge{"" if item.status == "gap" else " bad"}">{escape(item.status)}</span></td>'
        f'<td class="t">{day(item.start_ns)} {clock(item.start_ns)}</td>'
        f'<td class="t">{clock(item.stop_ns)}</td><td class="n t">{seconds((item.stop_ns - item.start_ns) / 1e9)}</td>'
        f'<td class="break" title="{escape(item.uri or "")}">{escape((item.uri or "").rsplit("/", 1)[-1])}</td>'
        f'<td class="break">{escape(item.reason or "")}</td></tr>'
        for item in ranges[:MOST_ROWS]
    )
    return (
        '<div class="wide"><table><tr><th>Camera</th><th>What</th><th>From (UTC)</th><th>To</th>'
        f'<th class="n">Length</th><th>File</th><th>Why</th></tr>{lines}</table></div>{_more(len(ranges))}'
    )


def _more(count: int) -> str:
    return f'<p class="note">{count - MOST_ROWS:,} more are not shown.</p>' if count > MOST_ROWS else ""


def _bytes(size: int) -> str:
    if size < 1000:
        return f"{size} B"
    power = min(int(np.log10(size) // 3), 4)
    return f"{size / 1000**power:.1f} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


# --- energy ----------------------------------------------------------------------------------------------------


def _energy(
    connection: duckdb.DuckDBPyConnection,
    thresholds: Mapping[str, Mapping[str, Any]],
    energy: Mapping[str, tuple[np.ndarray, np.ndarray]] | None,
    clusters: Sequence[ClusterFigures],
) -> str:
    forms = _forms(connection, thresholds)
    strips, left_out = figures.strips(connection, energy, forms)
    if not strips:
        return ""
    tips = sum(len(strip.primitives) for strip in strips) <= TIPS_UP_TO
    parts = [
        "<p>Each strip is a stretch of time. The line is how strongly things move (on a square-root scale); a coloured "
        "band is a primitive, from where the energy rises above the upper threshold to where it falls below the lower "
        "one. Colours and numbers are those of the clusters.</p>"
        '<div class="keys"><span><i class="line"></i>energy</span><span><i class="on"></i>begins above</span>'
        '<span><i class="off"></i>ends below</span><span><i class="area"></i>primitive, in its cluster\'s colour</span>'
        '<span><i class="grey"></i>no signal</span></div>'
    ]
    if any(item.size for item in clusters):
        parts.append(charts.legend({item.cluster_id: item.action_name for item in clusters if item.size}))
    for camera in sorted({strip.camera for strip in strips}):
        mine = [strip for strip in strips if strip.camera == camera]
        form = forms.get(camera, "decoded_motion")
        name, unit = _ENERGY_NAMES.get(form, (form, "no unit"))
        limits = thresholds.get(camera, {})
        levels = {key: float(limits[key]) for key in ("theta_on", "theta_off") if limits.get(key) is not None}
        raw = camera not in (energy or {})
        # What is stored of this form is not yet cleaned of the camera's background: the thresholds do not fit it.
        fits = not (raw and form == "decoded_motion")
        top = charts.energy_top([strip.values for strip in mine], levels.get("theta_on") if fits else None)
        told = " · ".join(f"{key.replace('theta_', 'θ')} = {value:.3g}" for key, value in levels.items())
        note = ""
        if raw:
            note = '<p class="note">The stored energy is shown, before smoothing' + (
                "." if fits or not levels else " and background correction, so the thresholds are not drawn into it."
            )
            note += "</p>"
        drawn = ""
        for before, strip in zip([mine[0], *mine], mine, strict=False):
            if day(before.start_ns) != day(strip.start_ns):
                drawn += f'<p class="note">{day(strip.start_ns)}</p>'
            drawn += charts.energy_strip(strip, levels if fits else {}, top, tips)
        if mine[0].stop_ns - mine[0].start_ns > charts.DETAIL_S * 10**9:
            near = "".join(
                charts.energy_strip(strip, levels if fits else {}, top, True) for strip in figures.closer(mine)
            )
            drawn = (
                f'<p class="note">A closer look at the two busiest minutes:</p>{near}<p class="note">Everything: pale, '
                f"from lowest to highest energy; line, the mean; below, the primitives.</p>{drawn}"
            )
        parts.append(
            f'<h3>{escape(camera)} · {day(mine[0].start_ns)} <span class="sub" style="font-weight:400">'
            f"{escape(name)}, {unit}{f' · {told}' if told else ''}</span></h3>{note}{drawn}"
        )
    parts.append('<p class="axis-title">time of day, UTC</p>')
    if left_out:
        parts.append(f'<p class="note">{left_out:,} earlier strips are not shown; the newest are.</p>')
    return "".join(parts)


def _forms(connection: duckdb.DuckDBPyConnection, thresholds: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    found = dict(connection.execute("SELECT camera, any_value(energy_form) FROM segments GROUP BY 1").fetchall())
    return found | {
        camera: str(limits["energy_form"]) for camera, limits in thresholds.items() if limits.get("energy_form")
    }


# --- clusters --------------------------------------------------------------------------------------------------


def _map(
    connection: duckdb.DuckDBPyConnection,
    points: list[tuple[str, int, float, float]],
    clusters: Sequence[ClusterFigures],
) -> str:
    if not points:
        return ""
    shown = points
    if len(points) > MOST_POINTS:
        places = np.linspace(0, len(points) - 1, MOST_POINTS).astype(int)
        shown = [points[place] for place in places]
    known = figures.primitives_by_id(connection, [point[0] for point in shown])
    names = {item.cluster_id: item.action_name for item in clusters}
    legend = charts.legend({cluster: names.get(cluster) for cluster in sorted({point[1] for point in shown})})
    sample = f" {len(shown):,} of {len(points):,} primitives are drawn." if len(shown) < len(points) else ""
    return (
        "<p>Every mark is a primitive; near means alike in its latent actions. Distances far apart and the two axes "
        f"themselves mean nothing.{sample} Click a number to see one cluster alone, here and above.</p>"
        f"{charts.cluster_map(shown, known)}{legend}"
    )


def _coherence(clusters: Sequence[ClusterFigures], scores: Mapping[str, float]) -> str:
    if not any(item.icss is not None for item in clusters):
        return ""
    extra = [
        f"{label} {scores[key]:,.{digits}f} ({meaning})"
        for key, label, digits, meaning in (
            ("silhouette", "Silhouette", 3, "−1 to 1, higher is better"),
            ("calinski_harabasz", "Calinski–Harabasz index", 0, "higher is better"),
        )
        if key in scores
    ]
    return (
        "<p>The score (ICSS) is the mean cosine similarity of pairs of primitives of one cluster, as a vision encoder "
        "sees their pictures. Dot: the cluster; bar: its 95% interval; dashed line: random pairs of all primitives. "
        "A cluster whose bar crosses the line holds together no better than chance.</p>"
        f"{charts.coherence(clusters)}"
        '<p class="axis-title">mean cosine similarity</p>' + (f"<p>{'. '.join(extra)}.</p>" if extra else "")
    )


def _cards(connection: duckdb.DuckDBPyConnection, clusters: Sequence[ClusterFigures], lengths: np.ndarray) -> str:
    filled = [item for item in clusters if item.size]
    if not filled:
        return ""
    each = int(np.clip(PICTURE_BYTES // 8000 // FRAMES_EACH // len(filled), 2, 6))
    chosen = figures.nearest_primitives(connection, each)
    everything = [item for mine in chosen.values() for item in mine]
    frames = figures.frames_of(connection, everything, FRAMES_EACH)
    edges = charts.duration_bins(lengths)
    left = PICTURE_BYTES
    cards = []
    for cluster in filled:
        rows = []
        for item in chosen.get(cluster.cluster_id, []):
            pictures = {frame.time_ns: _thumbnail(frame.jpeg) for frame in frames[item.segment_id]}
            cost = sum(map(len, pictures.values()))
            if cost <= left:
                left -= cost
                rows.append(charts.contact_row(item, frames[item.segment_id], pictures))
        score = (
            f"ICSS <b>{number(cluster.icss)}</b> ({number(cluster.ci_low)} to {number(cluster.ci_high)})<br>"
            f"random pairs {number(cluster.baseline)}"
            if cluster.icss is not None
            else "not scored"
        )
        share = 100 * cluster.size / lengths.size
        middle = seconds(float(np.median(cluster.durations_s)))
        many = "primitive" if cluster.size == 1 else "primitives"
        title = f": {escape(cluster.action_name)}" if cluster.action_name else ""
        cards.append(
            f'<div class="card" id="cluster-{cluster.cluster_id}"><h3>{chip(cluster.cluster_id)} '
            f"Cluster {cluster.cluster_id}{title} "
            f"<small>{cluster.size:,} {many} · {share:.0f}% · median {middle}</small></h3>"
            f'<div class="facts"><div>{score}</div>'
            f"<div>{charts.histogram(cluster.durations_s, edges, charts.colour(cluster.cluster_id), axis=False)}"
            f'<div class="axis-title" style="margin:0">length, s</div></div></div>{"".join(rows)}</div>'
        )
    return (
        f"<p>For each cluster, the primitives nearest to its centre (up to {each}), in up to {FRAMES_EACH} pictures "
        "from start to end. If a cluster is one action, its rows look alike.</p>"
        f'<div class="cards">{"".join(cards)}</div>'
    )


def _thumbnail(jpeg: bytes) -> str:
    """A picture as a data URI, shrunk where it is wider than it is shown."""
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if image is not None and image.shape[1] > PICTURE_WIDTH_PX:
        height = max(1, round(image.shape[0] * PICTURE_WIDTH_PX / image.shape[1]))
        small = cv2.resize(image, (PICTURE_WIDTH_PX, height), interpolation=cv2.INTER_AREA)
        done, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 72])
        if done:
            jpeg = encoded.tobytes()
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"


# --- durations and codes ---------------------------------------------------------------------------------------


def _durations(connection: duckdb.DuckDBPyConnection, lengths: np.ndarray) -> str:
    if not lengths.size:
        return ""
    low, middle, high = np.quantile(lengths, (0.1, 0.5, 0.9))
    reasons = figures.end_reasons(connection)
    total = sum(reasons.values())
    ends = ", ".join(
        f"{_END_REASONS.get(reason, reason)} {100 * count / total:.0f}%" for reason, count in reasons.items()
    )
    return (
        f"<p>Half of the {lengths.size:,} primitives are shorter than {seconds(float(middle))}; eight in ten last "
        f"{seconds(float(low))} to {seconds(float(high))}; the longest {seconds(float(lengths.max()))}. "
        f"How they ended: {ends}.</p>{charts.histogram(lengths, charts.duration_bins(lengths), '#4a6fa5')}"
        '<p class="axis-title">length of a primitive, s · height: number of primitives</p>'
    )


def _codes(connection: duckdb.DuckDBPyConnection, settings: Mapping[str, Any]) -> str:
    codes = figures.code_figures(connection)
    if not codes.samples:
        return ""
    size = settings.get("codebook_size")
    used = f"{codes.counts.size:,}" + (f" of {int(size):,}" if size else "")
    half = int(np.searchsorted(np.cumsum(codes.counts), codes.samples / 2)) + 1
    nulls = sum(codes.null_reasons.values())
    missing = ", ".join(
        f"{_NULL_REASONS.get(reason, reason)} {count:,}" for reason, count in codes.null_reasons.items()
    )
    since = f"Since {codes.since} (UTC): " if codes.since else ""
    return (
        f"<p>{since}{codes.samples:,} samples (ten a second) carry a latent action code. <b>{used}</b> different codes "
        f"occur; the perplexity is <b>{codes.perplexity:,.0f}</b>: as varied as that many codes used equally often. "
        f"Half of all samples use the {half:,} most frequent ones."
        + (f" {nulls:,} samples have no code ({missing})." if nulls else "")
        + f"</p>{charts.rank_chart(codes.counts)}"
        '<p class="axis-title">codes by how often they occur · height: share of samples</p>'
    )


# --- models ----------------------------------------------------------------------------------------------------


def _models(
    release: Mapping[str, Any],
    thresholds: Mapping[str, Mapping[str, Any]],
    clusters: Sequence[ClusterFigures],
    settings: Mapping[str, Any],
) -> str:
    encoders = sorted({item.encoder_id for item in clusters if item.encoder_id})
    facts = dict(_flat(release))
    if encoders:
        facts["vision encoder of the score"] = ", ".join(encoders)
    parts = [
        "<p>Models are named by the hash of their content; the same name means the same model.</p>" if facts else ""
    ]
    if not facts:
        parts.append("<p>No release has been made current yet.</p>")
    parts.append(_list(facts))
    if thresholds:
        lines = "".join(
            f"<tr><td>{escape(camera)}</td><td>{escape(str(limits.get('energy_form') or '–'))}</td>"
            f'<td class="n">{_level(limits.get("theta_on"))}</td>'
            f'<td class="n">{_level(limits.get("theta_off"))}</td></tr>'
            for camera, limits in sorted(thresholds.items())
        )
        parts.append(
            '<h3>Thresholds</h3><div class="wide"><table><tr><th>Camera</th><th>Energy</th><th class="n">θon</th>'
            f'<th class="n">θoff</th></tr>{lines}</table></div>'
        )
    if settings:
        parts.append(f"<h3>Settings</h3>{_list(dict(_flat(settings)))}")
    return "".join(parts)


def _level(value: Any) -> str:
    return "–" if value is None else f"{float(value):.4g}"


def _flat(values: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        name = f"{above}{str(key).replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name} · ")
        elif value is not None and value != "":
            yield name, f"{value:.6g}" if isinstance(value, float) else str(value)


def _list(facts: Mapping[str, str]) -> str:
    if not facts:
        return ""
    items = "".join(f"<dt>{escape(name)}</dt><dd><code>{escape(value)}</code></dd>" for name, value in facts.items())
    return f"<dl>{items}</dl>"
