"""The Dagster code location and the ``laps`` command."""
