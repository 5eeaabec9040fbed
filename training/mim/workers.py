"""Processes that share the work of `prepare.py`."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from MIMSegment.Logic.errors import InputError


@contextlib.contextmanager
def workers(jobs: int = 0) -> Iterator[Executor]:
    """Yield ``jobs`` processes, 0 for one on each core. Raises InputError where one is killed."""
    count = jobs or os.cpu_count() or 1
    try:
        with ProcessPoolExecutor(count, _context()) as pool:
            yield pool
    except BrokenProcessPool:
        way_out = f"with fewer processes, --jobs {count // 2}" if count > 1 else "with more memory"
        raise InputError(
            f"One of {count} processes was killed, most often because memory ran out: each holds a "
            f"whole image several times. Run the command again {way_out}."
        ) from None


def _context() -> multiprocessing.context.BaseContext:
    """Processes are forked from one that has no threads: a fork of the caller, where PyTorch may
    have begun some, can wait for a lock that nobody will give back."""
    if "forkserver" not in multiprocessing.get_all_start_methods():  # Windows
        return multiprocessing.get_context()
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mim.inspection"])
    with _imports_of_this_process():
        forkserver.ensure_running()
    return context


@contextlib.contextmanager
def _imports_of_this_process() -> Iterator[None]:
    """Let the server find the modules that it is to load beforehand; Python 3.11 does not."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
