"""Scores of a segmentation against truth, never without what chance would score.

====================  ==============================================================================================
score                 what is matched
====================  ==============================================================================================
``boundary_greedy``   as the reference implementation scores: all starts above 0 and all ends below the duration,
                      each true boundary taking its nearest unused prediction, in order of time
``boundary``          the same boundaries, those that touching segments share counted once, matched one to one so
                      that as many as possible lie within the tolerance
``typed``             starts with starts and ends with ends, matched one to one, best possible
``segment``           segments with segments, by intersection over union (IoU), one to one, best possible
mAP                   segments ranked by confidence, see :mod:`laps.evaluation.average_precision`
====================  ==============================================================================================

Beside each stand the same score of predictions that have not looked at the video: boundaries or segments at equal
spacing and at random, as many as there are in truth and as many as were predicted, and the best metronome (a
boundary every P seconds) over all P from 1 to 10 s. Whether a method is better than another, or than chance, is asked
of :func:`compare`, which gives the difference with an interval; clusters are held against labels by :func:`agreement`.
"""

from laps.evaluation.average_precision import Candidates, average_precision
from laps.evaluation.bootstrap import Comparison, Interval, block_counts, compare, interval
from laps.evaluation.chance import (
    METRONOME_PERIODS_S,
    best_metronome,
    equal_spacing,
    metronome,
    random_segments,
)
from laps.evaluation.clusters import Agreement, BesideShuffled, agreement, true_labels
from laps.evaluation.documents import (
    BACKGROUND_LABELS,
    Document,
    Marks,
    marks,
    parse_truth,
    recording_duration_s,
    truth_from_cycle_ends,
)
from laps.evaluation.matching import Segment, intersection_over_union, match_greedy, match_points, match_segments
from laps.evaluation.scores import Matching, Metric, Score
from laps.evaluation.scoring import (
    CHANCES,
    DEFAULT_IOUS,
    DEFAULT_MAP_IOUS,
    DEFAULT_TOLERANCES_S,
    evaluate,
    evaluate_recordings,
)
from laps.evaluation.table import render

__all__ = [
    "BACKGROUND_LABELS",
    "CHANCES",
    "DEFAULT_IOUS",
    "DEFAULT_MAP_IOUS",
    "DEFAULT_TOLERANCES_S",
    "METRONOME_PERIODS_S",
    "Agreement",
    "BesideShuffled",
    "Candidates",
    "Comparison",
    "Document",
    "Interval",
    "Marks",
    "Matching",
    "Metric",
    "Score",
    "Segment",
    "agreement",
    "average_precision",
    "best_metronome",
    "block_counts",
    "compare",
    "equal_spacing",
    "evaluate",
    "evaluate_recordings",
    "intersection_over_union",
    "interval",
    "marks",
    "match_greedy",
    "match_points",
    "match_segments",
    "metronome",
    "parse_truth",
    "random_segments",
    "recording_duration_s",
    "render",
    "true_labels",
    "truth_from_cycle_ends",
]
