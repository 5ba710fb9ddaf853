"""A tokenizer for tests that need one, whatever it is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from laps.tokenizer import TokenizerConfig


@contextmanager
def narrow_heads() -> Iterator[None]:
    """In this process the preset ``small`` has a third of its head's width and 7 x 7 classes of motion, not 15 x 15.

    The head takes most of the time in which a few steps are trained and the codes' motion is worked out.
    """
    small = TokenizerConfig.small

    def narrow(tracker_id: str, **changes: Any) -> TokenizerConfig:
        return small(tracker_id, **{"head_width": 32, "classes_per_axis": 7, **changes})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TokenizerConfig, "small", staticmethod(narrow))
        yield
