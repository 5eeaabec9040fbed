"""Doing the runs of a study: in order, or several at once, each resumed where it stopped."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mim.run_log import TrainingError
from mim.study_grid import Run
from MIMSegment.Logic.errors import MIMSegmentError

OUTPUT = "output.log"


def do_runs(
    runs: Sequence[Run], execute: Callable[[Run], None], jobs: int, say: Callable[[str], None]
) -> None:
    """Call ``execute`` of every run, in ``jobs`` processes; each writes FOLDER/output.log.

    A run waits for the one it starts from. Where one fails the others go on; at the end
    TrainingError names those that failed. ``execute`` must be importable.
    """
    queue = _Queue(list(runs), len(runs))
    while queue.waiting:
        with _pool(jobs) as pool:
            _do_until_broken(queue, pool, execute, jobs, say)
    if queue.failed:
        failed = queue.failed.items()
        lines = "\n".join(f"  {folder / OUTPUT}: {error}" for folder, error in failed)
        raise TrainingError(
            f"{len(failed)} of {len(runs)} runs failed; the same command does them again:\n{lines}"
        )


@dataclass
class _Queue:
    """The runs that are still to begin, how many have ended, and why some have failed."""

    waiting: list[Run]
    total: int
    ended: int = 0
    failed: dict[Path, str] = field(default_factory=dict)

    def next(self, going: Collection[Run]) -> Run | None:
        """A run that can begin, taken out; those after a failed one fail with it."""
        ahead = {run.folder for run in (*self.waiting, *going)}
        for run in list(self.waiting):
            if run.after is not None and run.after.folder in ahead:
                continue
            self.waiting.remove(run)
            if run.after is None or run.after.folder not in self.failed:
                return run
            self.failed[run.folder] = f"{run.after.folder.name} failed"
        return None


def _do_until_broken(
    queue: _Queue,
    pool: ProcessPoolExecutor,
    execute: Callable[[Run], None],
    jobs: int,
    say: Callable[[str], None],
) -> None:
    """Do the runs of ``queue``; returns early when a process was killed, which ends its pool."""
    going: dict[Future, Run] = {}
    broken = False
    while going or not broken:
        while not broken and len(going) < jobs and (run := queue.next(going.values())):
            try:
                going[pool.submit(_logged, execute, run)] = run
            except BrokenProcessPool:  # it ended between two runs
                queue.waiting.insert(0, run)
                broken = True
        if not going:
            return
        for future in wait(going, return_when=FIRST_COMPLETED).done:
            run = going.pop(future)
            queue.ended += 1
            error, is_broken = _outcome(future)
            broken = broken or is_broken
            if error:
                queue.failed[run.folder] = error
            say(f"{queue.ended}/{queue.total} {run.folder.name}{': ' + error if error else ''}")


def _outcome(future: Future) -> tuple[str, bool]:
    """Why a run failed, or nothing; and whether its process was ended from outside."""
    try:
        return future.result(), False
    except BrokenProcessPool:
        return "its process, or one beside it, was ended from outside (out of memory?)", True


def _pool(jobs: int) -> ProcessPoolExecutor:
    # Spawned: a forked process cannot use a GPU, nor torch's threads.
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // jobs)
    return ProcessPoolExecutor(jobs, context, _begin, (threads,))


def _begin(threads: int) -> None:
    """In a new process: its share of the cores, and an end with the study that began it.

    A process that outlived a killed study would write into the folders of the one after it.
    """
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()

    def leave() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


def _logged(execute: Callable[[Run], None], run: Run) -> str:
    """Execute a run with its output in a file; returns why it failed, or nothing."""
    run.folder.mkdir(parents=True, exist_ok=True)
    with (
        open(run.folder / OUTPUT, "a", buffering=1, encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        try:
            execute(run)
        except MIMSegmentError as error:
            print(f"error: {error}", file=sys.stderr)
            return str(error)
        except Exception as error:  # such as a GPU's memory that is full
            traceback.print_exc()
            return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return ""
