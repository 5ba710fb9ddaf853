"""Coherence and the HTML report of a release, from what lies in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass
