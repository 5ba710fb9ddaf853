"""p50 and p95 of the cookbook's queries on a year of a factory, and what opening the catalog costs.

Each is read in three ways: from the files of the camera hours alone, through the compacted copies as the catalog does
it, and, as the reference, from a single file for each table. Makes the store first where the folder has none.

    python -m bench.catalog --s3 --out docs/catalog_speed.md
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from bench.catalog.cookbook import COOKBOOK, queries
from bench.catalog.generate import Generator, Size
from bench.catalog.measure import WAYS, Times, adopt_copies, make_copies, measure_opening, measure_queries
from resources.s3_server import BUCKET, STORE, serve
from resources.store import Store

GOAL_S = 0.1
_WHY = """\
What takes longer than that with compacted copies, and why: pauses, repeats, sequences, outliers and what follows what
sort a million rows; the most typical examples and coverage group all rows; the nearest neighbours read 256 numbers of
each primitive, one gigabyte; what two cameras saw at once has hundreds of thousands of rows. With a condition on
`camera` and `date` they read a day and not the year. Opening the catalog lists every file of every table, which is
what makes it right at every moment; a prompt or a notebook pays it once.
"""
_MARKER = "made"


def prepare(folder: Path, size: Size, seed: int) -> Store:
    """The store of this size, with copies; made where it is not there yet."""
    store = Store(str(folder / BUCKET / "store"))
    asked = {"size": repr(size), "seed": seed}
    if not store.exists(_MARKER):
        Generator(store, size, seed).fill()
        store.write_json(_MARKER, asked)
    if store.read_json(_MARKER) != asked:
        raise SystemExit(f"{folder} holds a store of another size: {store.read_json(_MARKER)}")
    spent = make_copies(store)
    print(f"compacted: {spent:.0f} CPU seconds", flush=True)
    return store


@contextmanager
def place(folder: Path, s3: bool) -> Iterator[Store]:
    """The store on the local disk, or the same files through an S3 server."""
    if not s3:
        yield Store(str(folder / BUCKET / "store"))
        return
    with serve(folder) as server:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        os.environ.update(server.environment())
        store, local = Store(STORE), Store(str(folder / BUCKET / "store"))
        adopt_copies(store)
        try:
            yield store
        finally:
            adopt_copies(local)


def measure(
    folder: Path, s3: bool, chosen: dict[str, str], options: argparse.Namespace
) -> tuple[dict[str, Times], dict[str, dict[str, Times]]]:
    """Opening by way, and queries by heading and way."""
    opening: dict[str, Times] = {}
    found: dict[str, dict[str, Times]] = {heading: {} for heading in chosen}
    with place(folder, s3) as store:
        for way in options.ways:
            opening[way] = measure_opening(store, way, runs=options.runs, budget_s=options.budget)
            print(f"{'S3' if s3 else 'local'}, {way}: opened in {opening[way].quantile(0.5):.2f} s", flush=True)
            times = measure_queries(
                store, way, chosen, runs=options.runs, longest_s=options.longest, budget_s=options.budget
            )
            for heading, one in times:
                found[heading][way] = one
                print(f"  {heading}: {_cell(one)} ms", flush=True)
    return opening, found


def _cell(times: Times) -> str:
    """p50 / p95 in milliseconds."""
    if times.stopped:
        return f"> {times.seconds[0] * 1000:,.0f}"
    p50, p95 = (times.quantile(share) for share in (0.5, 0.95))
    text = f"{p50 * 1000:,.0f} / {p95 * 1000:,.0f}"
    return f"**{text}**" if p50 < GOAL_S else text


def table(opening: dict[str, Times], found: dict[str, dict[str, Times]]) -> str:
    """Markdown: a line for each query."""
    ways = list(opening)
    lines = [f"| query | rows | {' | '.join(ways)} |", f"|---|--:|{'--:|' * len(ways)}"]
    lines.append(f"| *opening the catalog* | | {' | '.join(_cell(opening[way]) for way in ways)} |")
    for heading, times in found.items():
        whole = [one.rows for one in times.values() if not one.stopped]
        rows = f"{max(whole):,}" if whole else "-"
        lines.append(f"| {heading} | {rows} | {' | '.join(_cell(times[way]) for way in ways)} |")
    return "\n".join(lines)


def page(tables: dict[str, str], options: argparse.Namespace) -> str:
    """The page of the docs."""
    size = f"{options.primitives:,} primitives in {options.hours:,} camera hours of {options.cameras} cameras"
    about = [
        "# How fast the catalog answers",
        "",
        f"Made by `python -m bench.catalog {shlex.join(sys.argv[1:])}`; do not edit. {size}, as "
        f"`bench/catalog/generate.py` makes them (seed {options.seed}). Every query of "
        "[the cookbook](cookbook.md) as it stands there, over all cameras and the whole time. "
        f"Milliseconds, p50 / p95 of up to {options.runs} runs on one connection after a first one that is "
        f"not counted; **bold** where p50 is below {GOAL_S * 1000:.0f} ms. A query that took longer than "
        f"{options.longest:.0f} s was interrupted (>).",
        "",
        "- *hours*: a file for each table and camera hour, without compacted copies;",
        "- *compacted*: the catalog after `laps compact`;",
        "- *one file*: the reference, a single file for each table with all its rows.",
        "",
        f"Commit {_commit()}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {_processor()}, {os.cpu_count()} cores, "
        f"{platform.system()}, Python {platform.python_version()}, DuckDB {duckdb.__version__}. Load average at the "
        f"end: {os.getloadavg()[1]:.1f}; figures of a machine that was busy with other work are too high.",
        "",
        _WHY.strip(),
    ]
    for name, text in tables.items():
        about += ["", f"## {name}", "", text]
    return "\n".join(about) + "\n"


def _commit() -> str:
    root = Path(__file__).parent
    said = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=False
    )
    changed = subprocess.run(
        ["git", "status", "--porcelain", "-uno"], cwd=root, capture_output=True, check=False
    ).stdout
    return f"{said.stdout.strip() or 'unknown'}{' with changes' if changed else ''}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(".laps/bench_catalog"))
    parser.add_argument("--primitives", type=int, default=Size.primitives)
    parser.add_argument("--hours", type=int, default=Size.hours)
    parser.add_argument("--cameras", type=int, default=Size.cameras)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, default=15, help="most runs of a query")
    parser.add_argument("--budget", type=float, default=5.0, help="seconds after which a query is not run again")
    parser.add_argument("--longest", type=float, default=20.0, help="seconds after which a query is interrupted")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--only", default="", help="only queries whose heading holds this text")
    parser.add_argument("--s3", action="store_true", help="measure also on an S3 server, which is started for it")
    parser.add_argument("--out", type=Path, help="page to write")
    options = parser.parse_args()
    folder = options.folder.absolute()
    chosen = {heading: sql for heading, sql in queries(COOKBOOK.read_text("utf-8")).items() if options.only in heading}
    prepare(folder, Size(options.primitives, options.hours, options.cameras), options.seed)
    tables = {"Local disk": table(*measure(folder, False, chosen, options))}
    if options.s3:
        tables["S3 (`rclone serve s3` on the same machine)"] = table(*measure(folder, True, chosen, options))
    text = page(tables, options)
    print(f"\n{text}")
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
