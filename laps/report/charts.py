"""Small SVG and HTML charts for the report: no library, no network, readable on a phone and on paper.

Plots that are wide and low stretch with the page (``preserveAspectRatio="none"``, strokes that do not scale);
their labels are HTML, so that letters keep their size and shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

import numpy as np

from laps.report.figures import ClusterFigures, Frame, Primitive, Strip
from laps.timegrid import NS_PER_S, to_datetime

# Paul Tol's "muted" scheme, safe for colour-blind readers; a cluster keeps its colour on the whole page and from
# one report to the next. Beyond nine the colours repeat, so clusters always carry their number too.
PALETTE = (
    "#332288", "#44aa99", "#cc6677", "#117733", "#88ccee", "#ddaa33", "#882255", "#999933", "#aa4499",
)  # fmt: skip
UNASSIGNED = "#8a94a0"
_MARKERS = ("circle", "square", "diamond", "triangle")
_COLUMNS = 1000
# A strip longer than this shows an overview: too many primitives to draw each behind the line.
DETAIL_S = 300
_OVERVIEW_COLUMNS = 400


def colour(cluster_id: int | None) -> str:
    """The colour of a cluster."""
    return UNASSIGNED if cluster_id is None else PALETTE[cluster_id % len(PALETTE)]


def number(value: float | None, digits: int = 2) -> str:
    """A number for people: thousands separated, a dash where there is none."""
    return "–" if value is None or not np.isfinite(value) else f"{value:,.{digits}f}"


def seconds(value: float | None) -> str:
    """A length of time for people."""
    if value is None or not np.isfinite(value):
        return "–"
    if value < 90:
        return f"{value:.1f} s"
    if value < 5400:
        return f"{value / 60:.1f} min"
    return f"{value / 3600:,.1f} h"


def clock(time_ns: int, fraction: bool = False) -> str:
    """Time of day, UTC."""
    when = to_datetime(time_ns)
    return when.strftime("%H:%M:%S") + (f".{when.microsecond // 100_000}" if fraction else "")


def day(time_ns: int) -> str:
    return to_datetime(time_ns).strftime("%Y-%m-%d")


def round_ticks(low: float, high: float, most: int) -> list[float]:
    """Round values inside a range, at most that many (two at least)."""
    for power in range(-3, 6):
        for digit in (1, 2, 5):
            step = digit * 10.0**power
            ticks = np.arange(np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9) + 1) * step + 0.0
            if ticks.size <= most:
                return [float(tick) for tick in ticks]
    return [low, high]


def chip(cluster_id: int | None) -> str:
    """A cluster's number on its colour."""
    text = "?" if cluster_id is None else str(cluster_id)
    return f'<span class="chip" style="background:{colour(cluster_id)}">{text}</span>'


def tip_of(item: Primitive) -> str:
    """What hovering over a primitive tells."""
    cluster = "no cluster" if item.cluster_id is None else f"cluster {item.cluster_id}"
    if item.action_name:
        cluster += f" ({item.action_name})"
    return (
        f"{cluster} · {item.camera} · {day(item.start_ns)} {clock(item.start_ns, True)}–{clock(item.stop_ns, True)} "
        f"UTC · {item.duration_s:.1f} s · {item.segment_id}"
    )


# --- energy ----------------------------------------------------------------------------------------------------


def energy_top(values: Sequence[np.ndarray], theta_on: float | None) -> float:
    """The upper end of the energy axis: nearly all values fit, and the threshold stands clear of the edge."""
    finite = np.concatenate([part[np.isfinite(part)] for part in values]) if values else np.empty(0)
    top = float(np.quantile(finite, 0.998)) * 1.08 if finite.size else 0.0
    return max(top, 1.6 * (theta_on or 0.0)) or 1.0


def energy_strip(strip: Strip, thresholds: Mapping[str, float], top: float, tips: bool) -> str:
    """One strip: primitives as coloured bands, the energy above them, thresholds as dashed lines."""
    span = strip.stop_ns - strip.start_ns
    overview = span > DETAIL_S * NS_PER_S
    # An overview keeps the primitives in a narrow band below the energy.
    place, height = (86, 14) if overview else (0, 100)

    def x(time_ns: float) -> float:
        return min(max((time_ns - strip.start_ns) / span, 0.0), 1.0) * _COLUMNS

    def y(value: float) -> float:
        # Thresholds lie at a few hundredths of what a swinging arm reaches: on a linear axis they could not be seen.
        floor = place or 100
        return floor - floor * min(max(value / top, 0.0), 1.0) ** 0.5

    parts = _gaps(strip, span)
    labels = []
    bands: dict[int | None, list[str]] = {}
    for item in strip.primitives:
        left, right = x(item.start_ns), x(item.stop_ns)
        width = max(right - left, 0.8)
        if tips:
            parts.append(
                f'<rect class="band c{_key(item.cluster_id)}" x="{left:.1f}" width="{width:.1f}" y="{place}" '
                f'height="{height}" fill="{colour(item.cluster_id)}" data-tip="{escape(tip_of(item))}"/>'
            )
        else:
            bands.setdefault(item.cluster_id, []).append(f"M{left:.1f} {place}h{width:.1f}v{height}h-{width:.1f}z")
        if not overview and width > 0.022 * _COLUMNS and item.cluster_id is not None:
            labels.append(f'<span style="left:{(left + right) / 20:.2f}%">{item.cluster_id}</span>')
    parts += [
        f'<path class="band c{_key(cluster)}" d="{"".join(paths)}" fill="{colour(cluster)}"/>'
        for cluster, paths in bands.items()
    ]
    parts.append(_energy_paths(strip, span, y, overview))
    for name, style in (("theta_on", "on"), ("theta_off", "off")):
        level = thresholds.get(name)
        if level is not None and level <= top:
            parts.append(
                f'<line class="theta {style}" x1="0" x2="{_COLUMNS}" y1="{y(level):.1f}" y2="{y(level):.1f}"/>'
            )
    ticks = _time_ticks(strip.start_ns, strip.stop_ns)
    marks = "".join(f'<i style="left:{place:.2f}%"></i>' for place, _, _ in ticks)
    names = "".join(
        f'<span class="{"major" if major else "minor"}" style="left:{place:.2f}%">{text}</span>'
        for place, text, major in ticks
    )
    return (
        f'<div class="strip{" overview" if overview else ""}">'
        f'<div class="yaxis"><span>{top:.3g}</span><span>0</span></div>'
        f'<div class="plot"><svg viewBox="0 0 {_COLUMNS} 100" preserveAspectRatio="none" role="img" '
        f'aria-label="Energy {clock(strip.start_ns)} to {clock(strip.stop_ns)} UTC">{"".join(parts)}</svg>'
        f'<div class="marks">{marks}</div><div class="labels">{"".join(labels)}</div></div>'
        f'<div class="xaxis">{names}</div></div>'
    )


def _gaps(strip: Strip, span: int) -> list[str]:
    """Grey where there is no energy: no footage, or too soon after its beginning."""
    known = strip.times_ns[np.isfinite(strip.values)]
    edges = np.concatenate([[strip.start_ns], known, [strip.stop_ns]]).astype(np.float64)
    wide = np.flatnonzero(np.diff(edges) > max(0.35 * NS_PER_S, span / _COLUMNS))
    return [
        f'<rect class="none" x="{(edges[at] - strip.start_ns) / span * _COLUMNS:.1f}" '
        f'width="{(edges[at + 1] - edges[at]) / span * _COLUMNS:.1f}" height="100"/>'
        for at in wide
    ]


def _energy_paths(strip: Strip, span: int, y: Callable[[float], float], overview: bool) -> str:
    known = np.isfinite(strip.values)
    times, values = strip.times_ns[known], strip.values[known]
    if not times.size:
        return ""
    at = (times - strip.start_ns) / span * _COLUMNS
    breaks = np.flatnonzero(np.diff(times) > 0.35 * NS_PER_S) + 1
    lines, areas = [], []
    for places, piece in zip(np.split(at, breaks), np.split(values, breaks), strict=True):
        if not overview:
            lines.append(_line(places, piece, y))
            continue
        # Lowest and highest value of each column as a pale band, their mean as a line.
        columns = (places * _OVERVIEW_COLUMNS / _COLUMNS).astype(np.int64)
        firsts = np.flatnonzero(np.diff(columns, prepend=-1))
        where = (columns[firsts] + 0.5) * _COLUMNS / _OVERVIEW_COLUMNS
        counts = np.diff(np.append(firsts, piece.size))
        high, low = np.maximum.reduceat(piece, firsts), np.minimum.reduceat(piece, firsts)
        areas.append(f"{_line(where, high, y)}L{_line(where[::-1], low[::-1], y)[1:]}z")
        lines.append(_line(where, np.add.reduceat(piece, firsts) / counts, y))
    area = f'<path class="range" d="{"".join(areas)}"/>' if areas else ""
    return f'{area}<path class="energy" d="{"".join(lines)}"/>'


def _line(places: np.ndarray, values: np.ndarray, y: Callable[[float], float]) -> str:
    return "M" + "L".join(f"{a:.1f} {y(v):.1f}" for a, v in zip(places, values, strict=True))


def _time_ticks(start_ns: int, stop_ns: int) -> list[tuple[float, str, bool]]:
    span_s = (stop_ns - start_ns) // NS_PER_S
    step_s = next(step for step in (10, 20, 30, 60, 120, 300, 600, 900, 1800) if span_s / step <= 6)
    ticks = []
    for place in range(0, span_s + 1, step_s):
        text = clock(start_ns + place * NS_PER_S)
        ticks.append((100 * place / span_s, text if span_s < 300 else text[:5], place * 2 % span_s == 0))
    return ticks


# --- coverage --------------------------------------------------------------------------------------------------


def coverage_cell(footage_s: float, problems: Sequence[str], cut: bool, tip: str) -> str:
    """One camera hour: the fuller the darker; a dot where something was wrong; dashed when not cut yet."""
    share = min(footage_s / 3600, 1.0)
    # Even a few seconds must be told from nothing at all.
    strength = 0.0 if footage_s <= 0 else 0.25 + 0.75 * share
    classes = "cell" + ("" if cut else " uncut") + (" empty" if footage_s <= 0 else "")
    dot = "<b></b>" if any(problem != "gap" for problem in problems) else ""
    return f'<span class="{classes}" style="--s:{strength:.2f}" data-tip="{escape(tip)}">{dot}</span>'


# --- clusters --------------------------------------------------------------------------------------------------


def cluster_map(points: Sequence[tuple[str, int, float, float]], known: Mapping[str, Primitive]) -> str:
    """The scatter of primitives, near meaning alike; each cluster's number stands at its middle."""
    width, height, margin = 900, 520, 26
    places = np.array([[x, y] for _, _, x, y in points], np.float64)
    low, high = places.min(axis=0), places.max(axis=0)
    scale = np.array([width - 2 * margin, height - 2 * margin]) / np.maximum(high - low, 1e-9)
    drawn = margin + (places - low) * scale
    drawn[:, 1] = height - drawn[:, 1]
    radius = 4.5 if len(points) < 400 else 3.2 if len(points) < 1500 else 2.3
    parts = []
    for (segment_id, cluster_id, _, _), (x, y) in zip(points, drawn, strict=True):
        item = known.get(segment_id)
        tip = tip_of(item) if item else f"cluster {cluster_id} · {segment_id}"
        parts.append(_marker(cluster_id, x, y, radius, tip, segment_id))
    of_cluster = np.array([cluster_id for _, cluster_id, _, _ in points])
    for cluster_id in sorted(set(of_cluster.tolist())):
        x, y = np.median(drawn[of_cluster == cluster_id], axis=0)
        parts.append(f'<text class="name" x="{x:.0f}" y="{y + 6:.0f}">{cluster_id}</text>')
    return (
        f'<svg class="map" viewBox="0 0 {width} {height}" role="img" aria-label="Map of the primitives">'
        f"{''.join(parts)}</svg>"
    )


def _marker(cluster_id: int, x: float, y: float, r: float, tip: str, segment_id: str) -> str:
    shape = _MARKERS[cluster_id // len(PALETTE) % len(_MARKERS)]
    common = (
        f'class="dot c{_key(cluster_id)}" fill="{colour(cluster_id)}" data-tip="{escape(tip)}" '
        f'data-id="{escape(segment_id)}"'
    )
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" {common}/>'
    if shape == "square":
        return f'<rect x="{x - r:.1f}" y="{y - r:.1f}" width="{2 * r}" height="{2 * r}" {common}/>'
    if shape == "diamond":
        q = 1.35 * r
        return f'<path d="M{x:.1f} {y - q:.1f}l{q} {q}l-{q} {q}l-{q} -{q}z" {common}/>'
    q = 1.3 * r
    return f'<path d="M{x:.1f} {y - q:.1f}l{q} {2 * q}h-{2 * q}z" {common}/>'


def legend(names: Mapping[int, str | None]) -> str:
    """Buttons that show one cluster at a time, with its name where it has one."""
    buttons = "".join(
        f'<button type="button" data-cluster="{cluster_id}">{chip(cluster_id)} {escape(name or "")}</button>'
        for cluster_id, name in names.items()
    )
    return f'<div class="legend">{buttons}</div>'


def coherence(clusters: Sequence[ClusterFigures]) -> str:
    """ICSS of each cluster with its interval, and the random baseline as a line."""
    scored = [(item, item.icss) for item in clusters if item.icss is not None]
    ends = [
        value
        for item, _ in scored
        for value in (item.icss, item.ci_low, item.ci_high, item.baseline)
        if value is not None
    ]
    low, high = min(ends), max(ends)
    room = max(high - low, 0.02) * 0.08
    low, high = low - room, high + room

    def at(value: float) -> str:
        return f"{100 * (value - low) / (high - low):.2f}%"

    lines = []
    for item, icss in scored:
        marks = ""
        if item.baseline is not None:
            marks += f'<i class="base" style="left:{at(item.baseline)}"></i>'
        if item.ci_low is not None and item.ci_high is not None:
            width = 100 * (item.ci_high - item.ci_low) / (high - low)
            style = f"left:{at(item.ci_low)};width:{width:.2f}%;background:{colour(item.cluster_id)}"
            marks += f'<i class="ci" style="{style}"></i>'
        marks += f'<i class="mean" style="left:{at(icss)};background:{colour(item.cluster_id)}"></i>'
        interval = (
            f"{item.ci_low:.2f} to {item.ci_high:.2f}" if item.ci_low is not None and item.ci_high is not None else "–"
        )
        named = f" ({item.action_name})" if item.action_name else ""
        tip = f"cluster {item.cluster_id}{named}: {icss:.3f}, 95% interval {interval}"
        tip += f", random pairs {number(item.baseline, 3)}"
        lines.append(
            f'<div class="line" data-tip="{escape(tip)}">{chip(item.cluster_id)}<span class="track">{marks}</span>'
            f'<span class="value">{icss:.2f}</span></div>'
        )
    scale = "".join(f'<span style="left:{at(value)}">{value:.2f}</span>' for value in round_ticks(low, high, 7))
    return (
        f'<div class="coherence">{"".join(lines)}<div class="line scale"><span class="chip none"></span>'
        f'<span class="track">{scale}</span><span class="value"></span></div></div>'
    )


def contact_row(item: Primitive, frames: Sequence[Frame], pictures: Mapping[int, str]) -> str:
    """A primitive's pictures in order of time, with when and how long."""
    images = "".join(
        f'<img alt="{clock(frame.time_ns, True)} UTC" src="{pictures[frame.time_ns]}"/>'
        for frame in frames
        if frame.time_ns in pictures
    )
    return (
        f'<figure data-id="{escape(item.segment_id)}"><div class="frames">{images}</div>'
        f"<figcaption>{escape(item.camera)} · {day(item.start_ns)} {clock(item.start_ns, True)} · "
        f"<b>{item.duration_s:.1f} s</b></figcaption></figure>"
    )


# --- distributions ---------------------------------------------------------------------------------------------


def duration_bins(durations_s: np.ndarray) -> np.ndarray:
    """Edges of a histogram of lengths: whole steps of a round width, the longest hundredth in the last bin."""
    top = float(np.quantile(durations_s, 0.99)) if durations_s.size else 1.0
    step = next((step for step in (0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0) if top / step <= 30), 60.0)
    return np.arange(0, np.ceil(top / step + 1e-9) + 1) * step


def histogram(durations_s: np.ndarray, edges: np.ndarray, fill: str, axis: bool = True) -> str:
    """Bars of counts over lengths in seconds; lengths beyond the last edge count in the last bar."""
    counts, _ = np.histogram(np.minimum(durations_s, edges[-1] - 1e-9), edges)
    most = max(int(counts.max(initial=0)), 1)
    width = 100 / len(counts)
    bars = "".join(
        f'<rect x="{place * width + 0.06 * width:.2f}" width="{0.88 * width:.2f}" y="{100 - 100 * count / most:.1f}" '
        f'height="{100 * count / most:.1f}" '
        f'data-tip="{edges[place]:.4g}–{edges[place + 1]:.4g} s'
        f'{" or longer" if place == len(counts) - 1 else ""}: {count:,}"/>'
        for place, count in enumerate(counts)
        if count
    )
    ticks = "".join(
        f'<span style="left:{100 * value / edges[-1]:.2f}%">{value:.4g}</span>'
        for value in round_ticks(0, float(edges[-1]), 9 if axis else 4)
    )
    yaxis = f'<div class="yaxis"><span>{most:,}</span><span>0</span></div>' if axis else ""
    return (
        f'<div class="histogram{"" if axis else " small"}">{yaxis}<div class="plot"><svg viewBox="0 0 100 100" '
        f'preserveAspectRatio="none" fill="{fill}" role="img" aria-label="Histogram of lengths">{bars}</svg></div>'
        f'<div class="xaxis">{ticks}</div></div>'
    )


def rank_chart(counts: np.ndarray, shown: int = 120) -> str:
    """Share of samples of the most frequent codes, in falling order."""
    shares = counts / counts.sum()
    top = shares[:shown]
    width = 100 / len(top)
    bars = "".join(
        f'<rect x="{place * width:.2f}" width="{0.85 * width:.2f}" y="{100 - 100 * share / top[0]:.1f}" '
        f'height="{100 * share / top[0]:.1f}" data-tip="place {place + 1}: {100 * share:.2f}% of samples"/>'
        for place, share in enumerate(top)
    )
    ticks = "".join(
        f'<span style="left:{100 * (place - 0.5) / len(top):.2f}%">{place}</span>'
        for place in sorted({1, *range(20, len(top) + 1, 20)} if len(top) > 40 else {1, *range(5, len(top) + 1, 5)})
    )
    return (
        f'<div class="histogram"><div class="yaxis"><span>{100 * top[0]:.1f}%</span><span>0</span></div>'
        f'<div class="plot"><svg viewBox="0 0 100 100" preserveAspectRatio="none" fill="#4a6fa5" role="img" '
        f'aria-label="Share of samples by code">{bars}</svg></div><div class="xaxis">{ticks}</div></div>'
    )


def _key(cluster_id: int | None) -> str:
    return "none" if cluster_id is None else str(cluster_id)
