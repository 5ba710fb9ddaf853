"""Where somebody who is called reads what a failed check or run means and what to do.

That page is a file of the repository. Only who runs a deployment knows where it can be read in a browser, so the
address comes from the environment (``LAPS_DOCS_URL``); without it the path is all that can be said.
"""

import os

import dagster as dg

DOCS_URL = "LAPS_DOCS_URL"
PAGE = "docs/alarms.md"
WHAT_TO_DO = "what to do"


def place(section: str) -> str:
    """A section of the page: its URL where ``LAPS_DOCS_URL`` is set, else its path."""
    base = os.environ.get(DOCS_URL, "").rstrip("/")
    return f"{base}/{PAGE}#{section}" if base else f"{PAGE}#{section}"


def what_to_do(section: str) -> dict[str, dg.MetadataValue]:
    """The metadata of a check's evaluation that leads there: a link where there is something to click."""
    there = place(section)
    linked = bool(os.environ.get(DOCS_URL))
    return {WHAT_TO_DO: dg.MetadataValue.url(there) if linked else dg.MetadataValue.text(there)}


def see(section: str) -> str:
    """The sentence of a check's description that leads there; definitions are the same in every deployment."""
    return f"What it means and what to do: {PAGE}#{section}"
