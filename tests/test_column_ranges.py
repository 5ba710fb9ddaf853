"""Which bytes are asked for when columns of a Parquet file are read, and what is kept of them."""

from __future__ import annotations

import pytest

import resources.column_ranges
from resources.column_ranges import ColumnRanges

CONTENT = bytes(range(256)) * 16
BLOCK = 1024


def cache_of(size: int) -> tuple[ColumnRanges, list[tuple[int, int]]]:
    asked: list[tuple[int, int]] = []

    def fetch(start: int, stop: int) -> bytes:
        asked.append((start, stop))
        return CONTENT[start:stop]

    return ColumnRanges(BLOCK, fetch, size), asked


def test_a_file_that_is_no_longer_than_a_block_is_asked_for_once():
    cache, asked = cache_of(BLOCK)
    assert cache._fetch(1000, 2000) == CONTENT[1000:1024] and cache._fetch(0, 10) == CONTENT[:10]
    cache.fetch_at_once([(0, 500), (500, 1024)])
    assert cache._fetch(700, 701) == CONTENT[700:701] and cache._fetch(BLOCK, BLOCK + 1) == b""
    assert asked == [(0, BLOCK)]


def test_ranges_are_asked_for_once_and_joined_as_they_are_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resources.column_ranges, "GAP_BYTES", 10)
    cache, asked = cache_of(len(CONTENT))
    assert cache._fetch(4000, None) == CONTENT[4000:]
    cache.fetch_at_once([(0, 100), (105, 200), (1000, 1800), (1800, 2600)])
    assert sorted(asked) == [(0, 200), (1000, 1800), (1800, 2600), (4000, len(CONTENT))]
    asked.clear()
    assert cache._fetch(50, 150) == CONTENT[50:150] and cache._fetch(1000, 2600) == CONTENT[1000:2600]
    assert asked == []
    assert cache._fetch(2500, 2700) == CONTENT[2500:2700] and asked == [(2500, 2700)]


def test_of_much_nothing_is_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resources.column_ranges, "MOST_BYTES", 1000)
    cache, asked = cache_of(len(CONTENT))
    cache.fetch_at_once([(0, 600), (2000, 2600)])
    assert asked == []
    assert cache._fetch(0, 600) == CONTENT[:600] and cache._parts == []
