"""The child process that runs one job: ``python worker.py JOB_FOLDER`` (see `job_files`).

Its stdout carries one JSON object per line and nothing else:

    {"event": "started", "pid": 4711}
    {"event": "stage", "message": "Checking the model"}
    {"event": "notice", "message": "Out of memory on cuda."}      to be shown with the result too
    {"event": "device", "description": "ONNX Runtime 1.31.1, CPU, 2 threads, float32"}
    {"event": "window", "done": 12, "of": 80, "time": 3.2}        seconds on the worker's clock
    {"event": "result"}   {"event": "cancelled"}
    {"event": "error", "kind": "PackageError", "message": "..."}

A study that the job names by its files is read here, at the stage `READING`.

It stops within a window when the file ``cancel`` appears, or when its parent dies; in the latter
case it removes the job's folder, as nobody else is left to do it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import select
import sys
import threading
import time
import traceback
import types
from pathlib import Path

DONE, FAILED, STOPPED, MUTE = 0, 2, 3, 74
"""Exit codes; MUTE is sysexits' EX_IOERR: the events could not be written."""
READING = "Reading the images"
_INTERVAL = 0.02  # seconds between two looks at the cancel flag
_PARENT_INTERVAL = 1.0
_GRACE = 0.15  # seconds for the main thread to stop by itself


def main(arguments: list[str]) -> int:
    """Run the job in the folder ``arguments[0]``; returns the exit code."""
    folder = Path(arguments[0])
    events = Events()  # before any import that might print
    faulthandler.enable()
    watchdog = Watchdog(folder)
    try:
        events.send("started", pid=os.getpid())
        code = _run_and_report(folder, events, watchdog)
    except OSError:
        code = MUTE
    return watchdog.leave(code)


class Events:
    """JSON lines on what was stdout; what anything else prints there goes to stderr from now on.

    The redirection is the operating system's, so it holds for native libraries as well.
    """

    def __init__(self):
        self._descriptor = os.dup(1)
        os.dup2(2, 1)
        self._end_of_cut_line = ""

    def send(self, event: str, **fields) -> None:
        """Write one line in one piece. Raises OSError when the disk is full."""
        line = self._end_of_cut_line + json.dumps({"event": event, **fields}) + "\n"
        cut = os.write(self._descriptor, line.encode("ascii")) < len(line)
        self._end_of_cut_line = "\n" if cut else ""
        if cut:
            raise OSError("The event was written in part.")


class Watchdog:
    """A thread that stops the job on request or when the parent has died.

    ``sessions`` are the running networks, which have ``terminate()``. Cancellation is cooperative
    because killing ``PythonSlicer``, a launcher, would not reach this interpreter.
    """

    def __init__(self, folder: Path):
        self.sessions = ()
        self._folder = folder
        self._stop = threading.Event()
        self._orphaned = False
        self._next_look = 0.0
        # A thread that reads a pipe on Windows blocks every library that asks what stdin is.
        self._listening = sys.platform != "win32"
        self._greeted = False
        self._lock = threading.Lock()
        self._parent = json.loads((folder / "job.json").read_text(encoding="ascii"))["parent"]
        threading.Thread(target=self._watch, daemon=True).start()

    def stopping(self) -> bool:
        """Whether the job is to end."""
        return self._stop.is_set()

    def leave(self, code: int) -> int:
        """The last thing to call: removes the folder when nobody else will; returns ``code``."""
        from MIMSegment.Logic.job_folder import remove_folder
        from MIMSegment.Logic.processes import is_running

        # Looked at directly: the parent may have died since the watching thread's last look.
        if self._orphaned or not is_running(*self._parent) or self._parent_gone():
            remove_folder(self._folder)
        return code

    def _watch(self) -> None:
        while not (self._folder / "cancel").exists():
            if self._parent_gone():
                self._orphaned = True
                break
        self._stop.set()
        deadline = time.monotonic() + _GRACE
        while time.monotonic() < deadline:
            for session in self.sessions:  # asked again, as they may have been made just now
                session.terminate()
            time.sleep(_INTERVAL)
        os._exit(self.leave(STOPPED))

    def _parent_gone(self) -> bool:
        """Wait one interval; true when the parent is dead or has closed its end of stdin."""
        with self._lock:  # a second reader of stdin would wait for ever
            closed = self._stdin_closed()
        if closed or not self._folder.exists():
            return True
        if time.monotonic() < self._next_look:
            return False
        self._next_look = time.monotonic() + _PARENT_INTERVAL
        from MIMSegment.Logic.processes import is_running

        return not is_running(*self._parent)

    def _stdin_closed(self) -> bool:
        """Wait one interval; an end of stdin counts only after the parent's greeting, as a launcher
        may not pass it on."""
        if not self._listening:
            time.sleep(_INTERVAL)
            return self._greeted
        try:
            ready, _, _ = select.select([0], [], [], _INTERVAL)
            data = os.read(0, 64) if ready else None
        except (OSError, ValueError):
            data = b""
        self._greeted = self._greeted or bool(data)
        self._listening = data != b""
        return self._greeted and not self._listening


def _run_and_report(folder: Path, events: Events, watchdog: Watchdog) -> int:
    from MIMSegment.Logic.errors import Cancelled, MIMSegmentError

    try:
        _run(folder, events, watchdog)
    except Cancelled:
        events.send("cancelled")
        return STOPPED
    except MIMSegmentError as error:
        events.send("error", kind=type(error).__name__, message=" ".join(str(error).split()))
    except MemoryError:
        traceback.print_exc()
        message = "The computer ran out of memory; close other programs, or use a smaller model."
        events.send("error", kind="MemoryError", message=message)
    except Exception as error:
        if watchdog.stopping():  # whatever broke, broke because of that
            return STOPPED
        traceback.print_exc()
        message = f"The run failed for an unforeseen reason ({type(error).__name__}); "
        message += "please send the report to the developers."
        events.send("error", kind=type(error).__name__, message=message)
    else:
        events.send("result")
        return DONE
    return FAILED


def _run(folder: Path, events: Events, watchdog: Watchdog) -> None:
    from MIMSegment.Logic.crew import multiply_in_one_thread

    multiply_in_one_thread()
    from MIMSegment.Logic.inference import run_package
    from MIMSegment.Logic.job_files import StudyFiles, read_job, write_result
    from MIMSegment.Logic.package import load_package

    def show(done: int, total: int) -> None:
        with contextlib.suppress(OSError):  # a full disk matters only for the result
            events.send("window", done=done, of=total, time=time.monotonic())

    study, path, options = read_job(folder)
    if isinstance(study, StudyFiles):
        package, volume = _read_study(folder, study, path, events)
    else:
        events.send("stage", message="Checking the model")
        package, volume = load_package(path), study
    events.send("stage", message="Loading the model")

    def opened(sessions) -> None:
        watchdog.sessions = sessions
        events.send("device", description=sessions[0].description)

    def report(sentence: str) -> None:
        events.send("stage", message=sentence)

    def warn(sentence: str) -> None:
        events.send("notice", message=sentence)

    result = run_package(volume, package, options, report, show, watchdog.stopping, opened, warn)
    events.send("stage", message="Writing the result")
    write_result(folder, result)


def _read_study(folder: Path, files, path: Path, events: Events):
    """The package, and the study's volume; the facts about the study are left for the caller."""
    import tempfile

    from MIMSegment.Logic.inputs import read_package_and_study
    from MIMSegment.Logic.job_files import write_study
    from MIMSegment.Logic.matching import Answer

    tempfile.tempdir = str(folder)  # what a reader that crashes leaves behind goes with the job
    events.send("stage", message=READING)
    package, study = read_package_and_study(path, files.inputs, files.series, Answer.TABLE)
    write_study(folder, study)
    return package, study.volume


def _become_part_of_the_package() -> None:
    """Make ``MIMSegment.Logic`` importable, but not by ``MIMSegment.py``, which needs Slicer."""
    package = types.ModuleType("MIMSegment")
    package.__path__ = [str(Path(__file__).resolve().parents[1])]
    sys.modules["MIMSegment"] = package


if __name__ == "__main__":
    _become_part_of_the_package()
    # At once: tearing down a large session takes longer than a cancel may.
    os._exit(main(sys.argv[1:]))
