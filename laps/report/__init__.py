"""The report: one HTML page on what was processed and what was found, readable without a network."""

from laps.report.page import build_report

__all__ = ["build_report"]
