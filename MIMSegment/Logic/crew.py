"""A few threads that work on planes while the caller prepares the next ones."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

_MOST_THREADS = 4  # more would only wait for the memory
_MOST_BYTES = 1 << 29  # that all threads work on: planes of many classes are large
_WAITING = 1  # calls for each thread, beside the one it works on


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def multiply_in_one_thread() -> None:
    """Have NumPy's matrix products use one thread each, as several run in a `Crew` and would wait
    for each other. Has an effect before NumPy is imported only."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


class Crew:
    """Runs calls in up to ``threads`` threads, by default one for each core; fewer where a call
    needs much memory (``call_bytes``).

    For a ``with`` statement, whose end waits for all calls. The first error of a call is raised
    there or at a later `submit`; after an error of the caller itself nothing more is begun.
    """

    def __init__(self, threads: int | None = None, call_bytes: int = 0):
        size = min(threads or available_cores(), _MOST_THREADS)
        if call_bytes:
            size = min(size, max(1, _MOST_BYTES // call_bytes))
        self._pool = ThreadPoolExecutor(size)
        self._most = (1 + _WAITING) * size
        self._calls: deque[Future] = deque()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind, *exception) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def submit(self, call: Callable[..., None], *arguments) -> None:
        """Have ``call(*arguments)`` done; waits while too many calls do."""
        while len(self._calls) >= self._most:
            self._calls.popleft().result()
        self._calls.append(self._pool.submit(call, *arguments))

    def wait(self) -> None:
        """Return when all calls are done."""
        while self._calls:
            self._calls.popleft().result()
