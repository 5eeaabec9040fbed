"""How many windows go through the network at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from MIMSegment.Logic.errors import OutOfMemory
from MIMSegment.Logic.phrases import counted

T = TypeVar("T")
_WORTH_IT = 0.95  # a larger batch must bring the time per window at least to this fraction


class BatchSize:
    """Starts at one window and doubles up to ``limit`` while that is faster and fits.

    On a CPU one window fills the cores, so the default limit is 1. ``report`` gets a sentence when
    memory ran out and the batch was made smaller.
    """

    def __init__(self, limit: int = 1, report: Callable[[str], None] | None = None, size: int = 1):
        self.size, self._limit = size, limit
        self._report = report or (lambda sentence: None)
        self._best = float("inf")
        self._growing = True

    def attempt(self, run: Callable[[], T], count: int) -> T | None:
        """``run()`` on ``count`` windows, at most the current size; None when memory ran out and
        the size was halved.

        Raises OutOfMemory when even one window is too much.
        """
        began = time.perf_counter()
        try:
            result = run()
        except OutOfMemory:
            if self.size == 1:
                raise
            self.size //= 2
            self._growing = False
            self._report(f"Little memory: now {counted(self.size, 'part')} at once.")
            return None
        if count == self.size:  # the last ones of a row may be fewer, and tell nothing
            self._learn((time.perf_counter() - began) / count)
        return result

    def _learn(self, seconds_per_window: float) -> None:
        if not self._growing or self.size >= self._limit:
            return
        self._growing = seconds_per_window < _WORTH_IT * self._best
        self._best = min(self._best, seconds_per_window)
        if self._growing:
            self.size *= 2
        else:
            self.size = max(1, self.size // 2)
