"""Entry point of ``laps``: the list of subcommands, and how errors are shown."""

from __future__ import annotations

import errno
import importlib
import keyword
import os
import sys

import click

from laps import __version__
from laps.errors import LapsError
from laps_dagster.instance import records_error
from resources.urls import refuse_credentials

# Subcommand -> module that holds it. Listed here so that `laps --help` and a quick command import nothing heavy.
COMMANDS = {
    "demo": "laps_dagster.cli.demo",
    "ingest": "laps_dagster.cli.ingest",
    "quarantine": "laps_dagster.cli.quarantine",
    "import": "laps_dagster.cli.imports",
    "backfill": "laps_dagster.cli.backfill",
    "promote": "laps_dagster.cli.releases",
    "releases": "laps_dagster.cli.releases",
    "discard": "laps_dagster.cli.releases",
    "status": "laps_dagster.cli.status",
    "doctor": "laps_dagster.cli.doctor",
    "alarm": "laps_dagster.cli.alarm",
    "camera": "laps_dagster.cli.camera",
    "forget": "laps_dagster.cli.forget",
    "retention": "laps_dagster.cli.retention",
    "dev": "laps_dagster.cli.dev",
    "compact": "laps_dagster.cli.compact",
    "sql": "laps_dagster.cli.sql",
    "report": "laps_dagster.cli.report",
    "name": "laps_dagster.cli.names",
    "export": "laps_dagster.cli.export",
    "train": "laps_dagster.cli.single",
    "segment": "laps_dagster.cli.single",
    "evaluate": "laps_dagster.cli.single",
    "benchmark": "laps_dagster.cli.benchmark",
    "calibrate": "laps_dagster.cli.single",
    "simulate": "laps_dagster.cli.simulate",
}


class LazyGroup(click.Group):
    """A group whose subcommands are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        # A command that is named like a keyword of Python stands there with an underscore.
        name = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        command = getattr(importlib.import_module(COMMANDS[cmd_name]), name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="laps")
@click.option("--store", metavar="PATH|URL", help="Store to use. Default: LAPS_STORE, then ./.laps.")
def laps(store: str | None) -> None:
    """Action primitives and latent action sequences from workstation video."""
    if store:
        # Through the environment, so that worker processes and Dagster's resources see the same store.
        os.environ["LAPS_STORE"] = store


def main() -> None:
    """Run the command; a deliberate error is one line on standard error and exit code 1."""
    try:
        for argument in sys.argv[1:]:
            # Before click, whose own messages repeat what they do not understand.
            refuse_credentials(argument)
            refuse_credentials(argument.partition("=")[2])  # --store=URL
        laps(prog_name="laps")
    except LapsError as error:
        click.echo(f"laps: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        # A disk that is full names no file; what names neither is a fault of this program.
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        click.echo(f"laps: {where}{error.strerror}", err=True)
        sys.exit(1)
    except Exception as error:
        said = records_error(error)
        if said is None:
            raise
        click.echo(f"laps: {said}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
