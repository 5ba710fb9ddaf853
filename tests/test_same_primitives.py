"""Partners of primitives in another cut: mutual, and only where more than half of the time is shared."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laps.errors import InputError
from laps.same_primitives import partners

Ranges = tuple[np.ndarray, np.ndarray]


@st.composite
def cuts(draw: st.DrawFn) -> Ranges:
    """Ranges one after the other, with or without gaps."""
    edges = sorted(draw(st.sets(st.integers(0, 60), max_size=20)))
    pairs = [pair for pair in pairwise(edges) if draw(st.booleans())]
    return np.array([a for a, _ in pairs], np.int64), np.array([b for _, b in pairs], np.int64)


def overlap(one: tuple[int, int], other: tuple[int, int]) -> float:
    shared = max(0, min(one[1], other[1]) - max(one[0], other[0]))
    return shared / (one[1] - one[0] + other[1] - other[0] - shared)


@given(cuts(), cuts())
def test_partners_are_those_that_share_more_than_half(mine: Ranges, theirs: Ranges) -> None:
    found = partners(*mine, *theirs)
    for place, one in enumerate(zip(*mine, strict=True)):
        shares = [overlap(one, other) for other in zip(*theirs, strict=True)]
        expected = [index for index, share in enumerate(shares) if share > 0.5]
        assert ([found[place]] if found[place] >= 0 else []) == expected


@given(cuts(), cuts())
def test_partners_are_mutual(mine: Ranges, theirs: Ranges) -> None:
    there, back = partners(*mine, *theirs), partners(*theirs, *mine)
    assert all(back[partner] == place for place, partner in enumerate(there) if partner >= 0)
    assert (there >= 0).sum() == (back >= 0).sum()


def test_overlapping_ranges_are_refused() -> None:
    one, other = np.array([0, 5]), np.array([6, 9])
    with pytest.raises(InputError, match="overlap"):
        partners(one, other, one, other)
