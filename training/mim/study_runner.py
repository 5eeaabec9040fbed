"""Doing the runs of a study: in order, or several at once, each resumed where it stopped."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
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
    failed: dict[Path, str] = {}
    waiting, done = list(runs), 0
    with _pool(jobs) as pool:
        going: dict[Future, Run] = {}
        while waiting or going:
            ahead = {run.folder for run in (*waiting, *going.values())}
            for run in [r for r in waiting if r.after is None or r.after.folder not in ahead]:
                if len(going) == jobs:
                    break
                waiting.remove(run)
                if run.after is not None and run.after.folder in failed:
                    failed[run.folder] = f"{run.after.folder.name} failed"
                else:
                    going[pool.submit(_logged, execute, run)] = run
            for future in wait(going, return_when=FIRST_COMPLETED).done:
                run, done = going.pop(future), done + 1
                error = future.result()
                if error:
                    failed[run.folder] = error
                say(f"{done}/{len(runs)} {run.folder.name}{': ' + error if error else ''}")
    if failed:
        lines = "\n".join(f"  {folder / OUTPUT}: {error}" for folder, error in failed.items())
        raise TrainingError(
            f"{len(failed)} of {len(runs)} runs failed; the same command does them again:\n{lines}"
        )


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
        open(run.folder / OUTPUT, "a", buffering=1) as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        try:
            execute(run)
        except MIMSegmentError as error:
            print(f"error: {error}", file=sys.stderr)
            return str(error)
    return ""
