"""What a process and everything that it starts uses: CPU time and memory, while it runs."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

import psutil

MIB = 2**20


@dataclass(frozen=True)
class Peak:
    """Most memory at one look, resident MiB; pages that several processes share count in each of them."""

    all_mib: float = 0.0
    largest_mib: float = 0.0
    processes: int = 0


class Watch:
    """Looks at a process and everything below it, every so often, in a thread of its own; a context manager.

    CPU time of processes too short to be met is not lost: the kernel adds that of a child which has ended, with its
    own children, to the parent that waited for it, and these sums are read. (Of a child that nobody waits for it is
    lost. Dagster's code server waits for its runs, a run for the processes that it starts.) Peaks between two looks
    are missed.

    Args:
        pid: the process.
        every_s: seconds between looks.

    Attributes:
        cpu_of: CPU seconds of every process that was met, with its ended children, when it was last met.
    """

    def __init__(self, pid: int, every_s: float = 1.0) -> None:
        self.process = psutil.Process(pid)
        self.every_s = every_s
        self.cpu_of: dict[int, float] = {}
        self._peak = Peak()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True, name="watch processes")

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def cpu_s(self) -> float:
        """CPU seconds of the process and all that it started, until now."""
        total = 0.0
        for one in self._processes():
            with suppress(psutil.NoSuchProcess):
                total += _cpu_s(one)
        return total

    def peak(self) -> Peak:
        """Most memory since the last call; the next begins anew."""
        peak, self._peak = self._peak, Peak()
        return peak

    def _look(self) -> None:
        while not self._stop.wait(self.every_s):
            sizes = []
            for one in self._processes():
                with suppress(psutil.NoSuchProcess):
                    sizes.append(one.memory_info().rss / MIB)
                    self.cpu_of[one.pid] = _cpu_s(one)
            if sizes:
                known = self._peak
                self._peak = Peak(
                    max(known.all_mib, sum(sizes)),
                    max(known.largest_mib, *sizes),
                    max(known.processes, len(sizes)),
                )

    def _processes(self) -> list[psutil.Process]:
        try:
            return [self.process, *self.process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system + times.children_user + times.children_system
