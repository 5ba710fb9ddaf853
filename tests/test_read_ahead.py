"""Reading a recording by blocks: what a plain file gives, with few requests."""

from __future__ import annotations

import io
import threading
import time

import pytest
from fsspec.spec import AbstractBufferedFile
from hypothesis import given
from hypothesis import strategies as st

from resources.read_ahead import ReadAhead


class Source(AbstractBufferedFile):
    """A file of fsspec over bytes, which writes down the ranges that it is asked for."""

    def __init__(self, content: bytes, block_size: int, kept: int = 4) -> None:
        self.content = content
        self.asked: list[tuple[int, int]] = []
        self.lock = threading.Lock()
        super().__init__(
            None, "a", block_size=block_size, size=len(content), cache_type=ReadAhead.name,
            cache_options={"maxblocks": kept},
        )  # fmt: skip

    def _fetch_range(self, start: int, end: int) -> bytes:
        assert 0 <= start < end <= len(self.content)
        with self.lock:
            self.asked.append((start, end))
        return self.content[start:end]


STEPS = st.lists(st.tuples(st.integers(0, 120), st.integers(-1, 120)), max_size=30)


@given(st.binary(max_size=100), st.integers(1, 40), st.integers(1, 5), STEPS)
def test_any_reads_give_what_a_plain_file_gives(
    content: bytes, block_size: int, kept: int, steps: list[tuple[int, int]]
) -> None:
    plain, file = io.BytesIO(content), Source(content, block_size, kept)
    for place, size in steps:
        plain.seek(min(place, len(content)))
        file.seek(min(place, len(content)))
        assert file.read(size) == plain.read(size)
        assert file.tell() == plain.tell()
    assert all(end - start <= block_size for start, end in file.asked)
    file.close()


@given(st.integers(1, 300), st.integers(1, 50), st.integers(1, 60))
def test_a_reader_that_goes_forwards_asks_for_each_block_once(size: int, block_size: int, step: int) -> None:
    content = bytes(n % 251 for n in range(size))
    file = Source(content, block_size, kept=2)
    read = b"".join(iter(lambda: file.read(step), b""))
    assert read == content
    assert sorted(file.asked) == [(n, min(n + block_size, size)) for n in range(0, size, block_size)]
    file.close()


def test_looking_at_both_ends_and_reading_twice_costs_no_more() -> None:
    content = bytes(range(256)) * 4
    file = Source(content, 256)
    # As a demuxer does whose index is at the end: head, index, head again; and all of it once more.
    for _ in range(2):
        for place in (0, 1000, 8, 256):
            file.seek(place)
            file.read(16)
    file.close()
    assert len(file.asked) == len(set(file.asked)) <= 4


def test_a_jump_fetches_the_block_that_it_leads_to_and_nothing_else() -> None:
    file = Source(bytes(100), 10)
    for place in (0, 55, 20, 85):
        file.seek(place)
        file.read(1)
    time.sleep(0.05)  # for what nobody asked for
    assert file.asked == [(0, 10), (50, 60), (20, 30), (80, 90)]
    file.close()


def test_a_file_of_one_block_is_one_request() -> None:
    file = Source(bytes(100), 128)
    for place in (90, 0, 50, 99):
        file.seek(place)
        file.read()
    assert file.asked == [(0, 100)]
    file.close()


def test_an_error_of_the_next_block_comes_when_it_is_needed() -> None:
    class Broken(Source):
        def _fetch_range(self, start: int, end: int) -> bytes:
            if start >= 20:
                raise ConnectionError("gone")
            return super()._fetch_range(start, end)

    file = Broken(bytes(40), 10)
    assert file.read(20) == bytes(20)
    with pytest.raises(ConnectionError, match="gone"):
        file.read(1)
    file.seek(0)
    assert file.read(10) == bytes(10)
    file.close()
