"""The LAPS method: from video frames to action primitives, usable in a notebook.

Nothing here knows of Dagster or of a store: functions take arrays, file objects and plain configuration and
return arrays and rows. ``assets/`` and ``resources/`` connect them to the outside world.
"""

__version__ = "0.1.0"
