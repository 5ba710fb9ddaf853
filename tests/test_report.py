"""The report: its figures are those of the catalog, it stands alone, and it copes with little or nothing."""

from __future__ import annotations

import base64
import re
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from typing import Any

import cv2
import duckdb
import numpy as np
import pytest

from laps.errors import InputError, StoreError
from laps.report import build_report, charts, figures
from laps.report.figures import Primitive, Strip
from laps.timegrid import HOUR_NS, NS_PER_S
from resources.catalog import connect, run_query
from resources.store import Store, rows_table
from tests.test_catalog import FIVE, RELEASE, TOKENIZER, Made, make_store

AT = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
ABOUT = {"name": RELEASE, "status": "current", "tokenizer": TOKENIZER, "calibrations": {"01": "c0123456789ab"}}
THRESHOLDS = {
    camera: {"theta_on": 0.8, "theta_off": 0.62, "energy_form": "decoded_motion"} for camera in ("01", "bench-2")
}
VOID = {"meta", "br", "img", "line", "rect", "circle", "path", "i"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_store(tmp_path_factory.mktemp("report") / "store")


@pytest.fixture(scope="module")
def connection(made: Made) -> duckdb.DuckDBPyConnection:
    return connect(made.store, release=RELEASE, tokenizer=TOKENIZER)


def test_codes_of_many_hours_are_those_of_the_last_days(connection: duckdb.DuckDBPyConnection) -> None:
    days = duckdb.connect()
    days.execute("CREATE TABLE partitions (table_name VARCHAR, date DATE, hour INTEGER)")
    days.execute("CREATE TABLE latent_stream (date DATE, code INTEGER, null_reason VARCHAR)")
    for day, hours in ((19, 2), (20, 3), (21, 1)):
        for hour in range(hours):
            days.execute("INSERT INTO partitions VALUES ('latent_stream', make_date(2026, 11, ?), ?)", [day, hour])
            # As many samples as the day's number, of a code of the day, and one without.
            row = "INSERT INTO latent_stream SELECT make_date(2026, 11, $1), $1, NULL FROM range($1)"
            days.execute(row, [day])
            days.execute("INSERT INTO latent_stream VALUES (make_date(2026, 11, ?), NULL, 'gap')", [day])
    found = {most: figures.code_figures(days, most_hours=most) for most in (6, 5, 4, 3, 1, 0)}
    assert {most: one.since for most, one in found.items()} == {
        6: None, 5: date(2026, 11, 20), 4: date(2026, 11, 20), 3: date(2026, 11, 21), 1: date(2026, 11, 21),
        0: date(2026, 11, 21),
    }  # fmt: skip
    assert found[6].samples == 2 * 19 + 3 * 20 + 21 and found[6].null_reasons == {"gap": 6}
    assert found[4].counts.tolist() == [60, 21] and found[4].null_reasons == {"gap": 4}
    assert found[0].counts.tolist() == [21], "one day at least"
    whole = figures.code_figures(connection)
    assert whole.since is None and figures.code_figures(connection, most_hours=1).samples == whole.samples


def smoothed(connection: duckdb.DuckDBPyConnection, camera: str) -> tuple[np.ndarray, np.ndarray]:
    found = run_query(
        connection,
        "SELECT epoch_us(time) * 1000 AS t, decoded_motion_energy AS e FROM latent_stream "
        f"WHERE camera = '{camera}' ORDER BY time",
    )
    return found["t"].to_numpy(), found["e"].to_numpy().astype(np.float64)


@pytest.fixture(scope="module")
def page(made: Made, connection: duckdb.DuckDBPyConnection) -> str:
    return build_report(
        connection,
        release=ABOUT,
        generated_at=AT,
        thresholds=THRESHOLDS,
        map_points=made.points,
        energy={camera: smoothed(connection, camera) for camera in ("01", "bench-2")},
        scores={"silhouette": 0.213, "calinski_harabasz": 134.2},
        settings={"codebook_size": 1920, "detector": {"rate_hz": 10}},
    )


class Page(HTMLParser):
    """Text without markup, attributes of all tags, and tags that were never closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID - {"i"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)


def words(page: str) -> str:
    return " ".join("".join(f"{part} " for part in Page(page).text).split())


def one(connection: duckdb.DuckDBPyConnection, sql: str) -> Any:
    return run_query(connection, sql).to_pylist()[0]


def test_headline_figures_are_those_of_the_catalog(page, connection):
    text = words(page)
    found = one(
        connection, "SELECT count(*) AS n, median(duration_s) AS m, count(DISTINCT cluster_id) AS k FROM primitives"
    )
    assert f"{found['n']} action primitives" in text
    assert f"{found['m']:.1f} s median length" in text
    assert f"{found['k']} clusters" in text
    assert "2 cameras" in text
    # 2 cameras x 2 hours x 180 s; the pre-roll before an hour must not count twice.
    assert "12.0 minutes of video" in text
    score = one(connection, "SELECT sum(icss_mean * segment_count) / sum(segment_count) AS icss FROM clusters")
    assert f"{score['icss']:.2f} coherence (ICSS); random pairs 0.60" in text
    above = one(connection, "SELECT count(*) AS n FROM clusters WHERE icss_ci_low > baseline_mean")["n"]
    assert f"In {above} of 4 clusters the whole 95% interval lies above" in text
    assert "Release r1 (current) · made 2026-11-22 09:30 UTC · all times are UTC" in text


def test_each_camera_and_cluster_has_its_figures(page, connection):
    text = words(page)
    for row in run_query(
        connection, "SELECT camera, count(*) AS n, median(duration_s) AS m FROM primitives GROUP BY 1"
    ).to_pylist():
        assert f"{row['camera']} 6.0 min 3 {row['n']} {row['n'] / 6:.1f} {row['m']:.1f} s" in text
    for row in run_query(
        connection,
        "SELECT cluster_id, count(*) AS n, median(duration_s) AS m, any_value(cluster_icss) AS s "
        "FROM primitives GROUP BY 1",
    ).to_pylist():
        card = text[text.index(f"Cluster {row['cluster_id']} {row['n']} primitives") :]
        assert f"median {row['m']:.1f} s ICSS {row['s']:.2f}" in card[:90]
    codes = one(
        connection,
        "SELECT count(DISTINCT code) AS used, count(code) AS n, exp(entropy(code) * ln(2)) AS p FROM latent_stream",
    )
    assert (
        f"{codes['n']:,} samples (ten a second) carry a latent action code. {codes['used']} of 1,920 different" in text
    )
    assert f"the perplexity is {codes['p']:,.0f} :" in text


def test_what_could_not_be_used_is_listed_with_its_reason(page):
    text = words(page)
    assert "1 of 3 recordings is quarantined" in text
    assert "01 <notes>.mp4 no video stream: this is a text file 321 B 2026-11-22 01:00:00" in text
    # Per camera one gap before the footage and one from its end through the empty hour.
    assert "4 gaps without video inside the processed hours" in text
    assert "<notes>" not in page
    hours = figures_by_hour(page)
    assert hours["01 2026-11-21 05:00 UTC"].startswith("3.0 min of video")
    assert hours["01 2026-11-21 07:00 UTC"].startswith("0.0 s of video, 0 primitives; gap")
    assert hours["01 2026-11-21 04:00 UTC"] == "not processed"


def figures_by_hour(page: str) -> dict[str, str]:
    tips = [attrs["data-tip"] for tag, attrs in Page(page).tags if tag == "span" and "data-tip" in attrs]
    return dict(tip.split(": ", 1) for tip in tips if tip and "UTC: " in tip)


def test_an_hour_that_was_not_cut_yet_is_told_from_one_without_primitives(tmp_path):
    made = make_store(tmp_path / "s", cameras=("a",), hours=2, footage_s=60)
    for table in ("segments", "clips", "cluster_assignments"):
        made.store.delete(f"{table}/release={RELEASE}/camera=a/date=2026-11-21/hour=06")
    page = build_report(connect(made.store, release=RELEASE, tokenizer=TOKENIZER), release=ABOUT, generated_at=AT)
    hours = figures_by_hour(page)
    assert hours["a 2026-11-21 06:00 UTC"].endswith("; not cut into primitives yet")
    assert "not cut" not in hours["a 2026-11-21 07:00 UTC"]


def test_hours_that_are_missing_and_another_release_are_told(connection, page):
    assert "What is still missing" not in page and "Beside the current release" not in page
    told = build_report(
        connection,
        release=ABOUT,
        generated_at=AT,
        missing=["a|2026-11-21-05:00", "b|2026-11-21-06:00"],
        comparison=[("clusters", "6", "7 & <more>")],
    )
    text = " ".join(Page(told).text)
    assert "2 hours have no clustered primitives yet" in text
    assert "a|2026-11-21-05:00" in text and "b|2026-11-21-06:00" in text
    assert "7 & <more>" in text and "7 & <more>" not in told


def test_the_page_is_complete_in_itself(page):
    assert not re.search(r"(?:https?:)?//[a-z0-9]", re.sub(r"base64,[A-Za-z0-9+/=]+", "", page), re.IGNORECASE)
    assert "@import" not in page
    assert "url(" not in page
    parsed = Page(page)
    assert parsed.open == []
    for tag, attrs in parsed.tags:
        assert tag not in ("link", "iframe", "object", "embed")
        for name in ("src", "href"):
            if attrs.get(name):
                assert attrs[name].startswith(("data:image/jpeg;base64,", "#")), (tag, attrs)
    anchors = {attrs["href"][1:] for tag, attrs in parsed.tags if tag == "a"}
    assert anchors <= {attrs.get("id") for _, attrs in parsed.tags}
    assert len(anchors) == 9
    assert len(page) < 6_000_000


def test_contact_sheets_show_the_nearest_primitives_in_order(page, connection):
    nearest = run_query(
        connection,
        "SELECT segment_id FROM primitives WHERE cluster_id = 1 ORDER BY centroid_distance, segment_id LIMIT 6",
    )["segment_id"].to_pylist()
    card = page[page.index('id="cluster-1"') :]
    card = card[: card.index('<div class="card"') if '<div class="card"' in card[10:] else None]
    assert re.findall(r'<figure data-id="(\w+)"', page[page.index('id="cluster-1"') :])[:6] == nearest
    pictures = re.findall(r'alt="([\d:.]+) UTC" src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(pictures) > 4 * 6 * 2
    for when, content in pictures[:8]:
        assert re.fullmatch(r"0[56]:\d\d:\d\d\.[05]", when)
        image = cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_COLOR)
        assert image.shape[1] == 208


def test_frames_spread_over_the_primitive(made, connection):
    row = max(made.segments, key=lambda row: row["duration_s"])
    (item,) = figures.primitives_by_id(connection, [row["segment_id"]]).values()
    frames = figures.frames_of(connection, [item], 4)[item.segment_id]
    assert len(frames) == 4
    times = [frame.time_ns for frame in frames]
    assert times == sorted(set(times))
    assert all(item.start_ns - NS_PER_S // 4 <= time < item.stop_ns + NS_PER_S // 4 for time in times)
    assert times[-1] - times[0] > 0.5 * (item.stop_ns - item.start_ns)
    (stored,) = connection.execute("SELECT jpeg FROM keyframes WHERE time = make_timestamptz(?) AND camera = ?",
                                   [times[0] // 1000, item.camera]).fetchone()  # fmt: skip
    assert frames[0].jpeg == stored


def test_the_weight_free_encoder_is_never_passed_off_as_clip(page, tmp_path):
    assert "Not a vision-language model." in page
    assert "this score is not the paper's ICSS" in words(page)
    made = make_store(tmp_path / "s", cameras=("a",), hours=1, footage_s=60, encoder="open_clip:ViT-B-32/openai")
    real = build_report(connect(made.store, release=RELEASE, tokenizer=TOKENIZER), release=ABOUT, generated_at=AT)
    assert "Not a vision-language model." not in real
    assert "open_clip:ViT-B-32/openai" in real


@pytest.mark.parametrize(
    ("icss", "says"),
    [(0.5, "less alike"), (0.602, "no more alike"), (0.63, "somewhat more alike"), (0.75, "clearly more alike")],
)
def test_the_verdict_follows_the_score(connection, icss, says):
    page = build_report(connection, release=ABOUT, generated_at=AT, scores={"icss": icss, "baseline": 0.6})
    assert f"Primitives of one cluster look {says} than pairs drawn at random" in words(page)


def test_energy_is_drawn_with_its_thresholds_where_they_belong_to_it(page, connection):
    assert page.count('class="theta on"') >= 4
    assert "motion decoded from the latent actions, px per sample step · θon = 0.8 · θoff = 0.62" in words(page)
    stored = build_report(connection, release=ABOUT, generated_at=AT, thresholds=THRESHOLDS)
    assert 'class="theta on"' not in stored
    assert "The stored energy is shown, before smoothing and background correction" in stored
    of_paper = {camera: {**limits, "energy_form": "latent_action"} for camera, limits in THRESHOLDS.items()}
    stored = build_report(connection, release=ABOUT, generated_at=AT, thresholds=of_paper)
    assert 'class="theta on"' in stored
    assert "Latent Action Energy" in stored


def test_strips_hold_every_sample_and_primitive_of_the_footage(made, connection):
    strips, left_out = figures.strips(connection, None, {})
    assert left_out == 0
    for camera in ("01", "bench-2"):
        mine = [strip for strip in strips if strip.camera == camera]
        times, values = smoothed(connection, camera)
        drawn = np.concatenate([strip.values[np.isfinite(strip.values)] for strip in mine])
        assert np.array_equal(drawn, values[np.isfinite(values)].astype(np.float32))
        ids = {item.segment_id for strip in mine for item in strip.primitives}
        assert ids == {row["segment_id"] for row in made.segments if row["camera"] == camera}
        for strip in mine:
            assert strip.start_ns % (strip.stop_ns - strip.start_ns) == 0
    few, left_out = figures.strips(connection, {"01": (times.astype("datetime64[ns]"), values)}, {}, max_strips=4)
    assert len(few) + left_out >= 4
    assert len(few) <= 4
    with pytest.raises(InputError, match="camera 01"):
        figures.strips(connection, {"01": (times[1:], values)}, {})


def test_long_footage_becomes_an_overview_with_a_closer_look(tmp_path):
    made = make_store(tmp_path / "s", cameras=("a",), hours=3, footage_s=3600)
    connection = connect(made.store, release=RELEASE, tokenizer=TOKENIZER)
    limits = {"a": {"theta_on": 0.8, "theta_off": 0.62, "energy_form": "velocity"}}
    page = build_report(connection, release=ABOUT, generated_at=AT, map_points=made.points, thresholds=limits)
    assert "A closer look at the two busiest minutes" in page
    assert "3.0 hours of video" in words(page)
    assert page.count('class="strip overview"') > 3
    assert len(page) < 3_000_000
    strips, _ = figures.strips(connection, None, {"a": "velocity"}, max_strips=3)
    assert [strip.stop_ns - strip.start_ns for strip in strips] == [HOUR_NS] * 3
    near = figures.closer(strips)
    starts = np.array([item.start_ns for strip in strips for item in strip.primitives])
    busiest = max(
        int(((starts >= at) & (starts < at + 120 * NS_PER_S)).sum())
        for strip in strips
        for at in range(strip.start_ns, strip.stop_ns - 119 * NS_PER_S, 60 * NS_PER_S)
    )
    found = {item.segment_id for strip in near for item in strip.primitives if item.start_ns >= near[0].start_ns}
    assert len(found) == busiest


def test_a_strip_draws_a_primitive_where_it_lies():
    times = np.arange(600) * (NS_PER_S // 10) + FIVE
    values = np.ones(600)
    values[300:] = np.nan
    item = Primitive("s", "01", FIVE + 15 * NS_PER_S, FIVE + 30 * NS_PER_S, 15.0, 3)
    strip = Strip("01", FIVE, FIVE + 60 * NS_PER_S, times, values, [item])
    drawn = charts.energy_strip(strip, {"theta_on": 1.0, "theta_off": 0.5}, 2.0, tips=True)
    assert f'x="250.0" width="250.0" y="0" height="100" fill="{charts.colour(3)}"' in drawn
    assert 'y1="29.3" y2="29.3"' in drawn
    assert 'y1="50.0" y2="50.0"' in drawn
    grey = re.search(r'class="none" x="([\d.]+)" width="([\d.]+)"', drawn)
    assert grey is not None
    assert float(grey[1]) == pytest.approx(498.3, abs=0.1)
    assert float(grey[1]) + float(grey[2]) == pytest.approx(1000, abs=0.1)
    assert "cluster 3 · 01 · 2026-11-21 05:00:15.0–05:00:30.0 UTC · 15.0 s · s" in drawn


def test_histograms_count_everything_once():
    lengths = np.array([0.5, 0.5, 1.2, 3.0, 3.1, 99.0])
    edges = charts.duration_bins(np.array([*lengths[:5], *([1.0] * 995)]))
    drawn = charts.histogram(lengths, edges, "#000")
    assert sum(int(count) for count in re.findall(r": (\d+)\"", drawn)) == lengths.size


def test_clusters_keep_their_colour(page):
    for cluster in range(4):
        found = {
            match
            for match in re.findall(
                rf'class="dot c{cluster}" fill="(#\w+)"|class="band c{cluster}"[^>]*fill="(#\w+)"', page
            )
            for match in match
            if match
        }
        assert found == {charts.colour(cluster)}
    assert len({charts.colour(cluster) for cluster in range(9)}) == 9


def test_an_empty_store_says_that_nothing_was_processed(tmp_path):
    store = Store(str(tmp_path / "nothing"))
    page = build_report(connect(store), release={}, generated_at=AT)
    assert "Nothing has been processed yet." in page
    assert "Release none yet" in words(page)
    assert Page(page).open == []


def test_footage_without_primitives_and_without_models(tmp_path):
    made = make_store(tmp_path / "s", cameras=("a",), hours=1, footage_s=60)
    page = build_report(connect(made.store), release={}, generated_at=AT)
    text = words(page)
    assert "No action primitives have been found in this footage yet." in text
    assert "1.0 minutes of video" in text
    assert "0 action primitives" in text


def test_only_refused_recordings(tmp_path):
    from laps.tables import RECORDINGS

    store = Store(str(tmp_path / "s"))
    row = {
        "recording_id": "r", "camera": "a", "uri": "/x/<script>alert(1)</script>.mp4", "status": "quarantined",
        "reason": "empty & broken", "size_bytes": 0, "etag": "", "registered_at": AT,
    }  # fmt: skip
    store.write_table(RECORDINGS, "recordings/camera=a/r.parquet", rows_table(RECORDINGS, [row]))
    page = build_report(connect(store), release={}, generated_at=AT)
    assert "Nothing has been processed yet." in page
    assert "empty &amp; broken" in page
    assert "<script>alert" not in page


def test_errors_name_what_is_wrong(tmp_path, connection):
    with pytest.raises(InputError, match="no zone"):
        build_report(connection, release={}, generated_at=datetime(2026, 1, 1))
    made = make_store(tmp_path / "s", cameras=("a",), hours=1, footage_s=60)
    path = made.store.files("keyframes")[0]
    made.store.write_bytes(path, b"PAR1 nothing PAR1")
    with pytest.raises(StoreError, match="keyframes/camera=a"):
        build_report(connect(made.store, release=RELEASE, tokenizer=TOKENIZER), release=ABOUT, generated_at=AT)
