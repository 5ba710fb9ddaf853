"""A simulated workstation: recordings with known truth, for the demo, the tests and the benches.

One worker, one bench, two cameras. :func:`plan` gives the timeline of action primitives, :func:`render` the
frames that a camera sees of it, :func:`record` writes them as mp4 with their truth beside them. Everything derives
from the scenario's seed: equal scenarios give equal frames, in one pass or in parts.

The truth is for scoring only; it never reaches training or calibration.
"""

from laps.simulation.choreography import Action, plan
from laps.simulation.record import record, truth
from laps.simulation.render import Renderer, render
from laps.simulation.scenario import DISTRACTORS, LABELS, SCENARIOS, VIEWS, RestStyle, Scenario

__all__ = [
    "DISTRACTORS",
    "LABELS",
    "SCENARIOS",
    "VIEWS",
    "Action",
    "Renderer",
    "RestStyle",
    "Scenario",
    "plan",
    "record",
    "render",
    "truth",
]
