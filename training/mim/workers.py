"""Processes that share the work of `prepare.py`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from MIMSegment.Logic.errors import InputError


@contextlib.contextmanager
def workers(jobs: int = 0) -> Iterator[Executor]:
    """Yield ``jobs`` processes, 0 for one on each core. Raises InputError where one is killed."""
    count = jobs or os.cpu_count() or 1
    try:
        with ProcessPoolExecutor(count) as pool:
            yield pool
    except BrokenProcessPool:
        way_out = f"with fewer processes, --jobs {count // 2}" if count > 1 else "with more memory"
        raise InputError(
            f"One of {count} processes was killed, most often because memory ran out: each holds a "
            f"whole image several times. Run the command again {way_out}."
        ) from None
