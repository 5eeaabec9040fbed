"""What test_study_grid.py lets other processes do: it must be importable there."""

import os
import signal
import time

from MIMSegment.Logic.errors import InputError


def note(run):
    """Write when the run began and ended, and in which process; fail where it is told to."""
    begin = time.monotonic()
    print(f"doing {run.folder.name}")
    time.sleep(0.2)
    if "broken" in run.folder.name:
        raise InputError("the scanner is broken")
    if "full" in run.folder.name:
        raise RuntimeError("CUDA out of memory\nsee there")
    if "killed" in run.folder.name:
        os.kill(os.getpid(), signal.SIGKILL)
    (run.folder / "done").write_text(f"{begin} {time.monotonic()} {os.getpid()}")


def meet(run):
    """As `note`; "pretrain" and "scratch" each wait until the other has begun."""
    other = {"pretrain": "scratch", "scratch": "pretrain"}.get(run.folder.name)
    (run.folder / "begun").touch()
    deadline = time.monotonic() + 60
    while other and not (run.folder.parent / other / "begun").exists():
        assert time.monotonic() < deadline, f"{other} has not begun beside {run.folder.name}"
        time.sleep(0.01)
    note(run)


def wait_long(run):
    """Say in which process, and stay there."""
    (run.folder / "process").write_text(str(os.getpid()))
    time.sleep(600)
