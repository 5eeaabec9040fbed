"""A program as a process of its own: how long it takes and how much memory its whole tree holds."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_INTERVAL = 0.5  # seconds between two looks at the memory, each of which costs some 30 ms
_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Measurement:
    """``seconds`` from start to end, ``cpu_seconds`` of all its processes, ``peak_bytes`` of
    memory that they held at one time."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def measure(command: Sequence[str | Path]) -> Measurement:
    """Run ``command`` to its end, with no limit on its threads but its own; Linux only.

    Memory that processes share is counted once (proportional set size). What the command prints
    goes to stderr. Raises SystemExit when it fails.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _LIMITS}
    before = _cpu_seconds()
    began = time.perf_counter()
    process = subprocess.Popen([*map(str, command)], env=environment, stdout=sys.stderr)
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(_proportional_bytes, _tree(process.pid))))
        time.sleep(_INTERVAL)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(
            f"{command[0]} ended with {process.returncode}: {' '.join(map(str, command))}"
        )
    return Measurement(seconds, _cpu_seconds() - before, peak)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _tree(root: int) -> list[int]:
    """``root`` and all its descendants."""
    found, waiting = [], [root]
    while waiting:
        found.append(pid := waiting.pop())
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                waiting += map(int, path.read_text().split())
            except OSError:  # the thread has just ended
                continue
    return found


def _proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # the process has just ended
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
