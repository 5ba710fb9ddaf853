"""``laps doctor``: whether this installation can work, and what to do where it cannot."""

from __future__ import annotations

import json
import sys

import click

_MARKS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "problem": ("PROBLEM", "red")}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object with all findings, for scripts.")
def doctor(as_json: bool) -> None:
    """Say what is wrong with this installation, and what to do.

    Packages, codecs, weights, store, landing zone, room and Dagster with what it loads are looked at. The exit code is
    1 where something will fail, else 0 (also with notes).
    """
    from laps_dagster.doctor import examine

    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            mark, colour = _MARKS[finding.level]
            click.echo(f"{click.style(f'{mark:8}', fg=colour)}{finding.subject:16}{finding.said}")
            if finding.fix:
                click.echo(f"{'':24}{finding.fix}")
    problems = sum(finding.level == "problem" for finding in findings)
    if as_json:
        click.echo(json.dumps({"problems": problems, "findings": [one.as_dict() for one in findings]}, indent=2))
    elif problems:
        click.echo(f"\n{problems} problem{'' if problems == 1 else 's'}", err=True)
    sys.exit(1 if problems else 0)
