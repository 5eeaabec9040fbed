"""What the tests of jobs share: looking at a worker from beside, and lines that make it hang."""

import json
import sys
from pathlib import Path

import pytest

from MIMSegment.Logic.inference import InferenceOptions
from waiting import PATIENCE, wait_until

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = PATIENCE
BUSY = "import time; time.sleep(600)"
BLOCKED = "import ctypes; ctypes.PyDLL(None).sleep(600)"  # holds the interpreter's lock
NO_STDIN = '"$PYTHON" "$@" < /dev/null\nexit $?'
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="shell scripts and signals")
CPU = InferenceOptions(device="cpu")
ONE_THREAD = InferenceOptions(device="cpu", threads=1)


def poll_until(condition, queue) -> None:
    """Poll the queue until ``condition()`` is true."""

    def met() -> bool:
        queue.poll()
        return condition()

    wait_until(met)


def events(folder: Path) -> list[dict]:
    """What the only job's worker has written, read beside the queue."""
    (path,) = folder.glob("*/events.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def has_event(folder: Path, kind: str):
    def written() -> bool:
        found = any(folder.glob("*/events.jsonl"))
        return found and any(event["event"] == kind for event in events(folder))

    return written


def worker_pid(folder: Path) -> int:
    return events(folder)[0]["pid"]


def hanging(how: str) -> str:
    """Lines for `interpreter`: the engine does one window and then hangs."""
    return f"def hang(*args):\n    args[3](1, 5)\n    {how}\ninference.segment = hang"


def run(queue, volume, package):
    job = queue.submit(volume, package.path, CPU)
    assert queue.wait(job, TIMEOUT)
    return job
