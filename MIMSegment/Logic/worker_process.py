"""The parent's hold on one worker process: start it, hear it, stop it, explain its end."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path

from MIMSegment.Logic import processes
from MIMSegment.Logic.job_folder import CANCEL, EVENTS, STDERR
from MIMSegment.Logic.worker import MUTE, READING

_WORKER = Path(__file__).resolve().with_name("worker.py")
_KILL_AFTER = 0.3  # seconds from the request to stop; the worker gives itself 0.15
_LOG_SIZE = 16_000  # bytes
_BAD_FILE = (
    "A file of it is probably damaged: copy or download it again, or open it in another program "
    "and save it anew."
)


class WorkerProcess:
    """A running `worker` on the job in ``folder``. Raises OSError when it cannot be started.

    Its output goes to files in the folder: they need no thread to be read and fill no pipe.
    """

    def __init__(self, folder: Path, python: str, env: Mapping[str, str]):
        self._folder = folder
        self._pid: int | None = None
        self._stop_time: float | None = None
        self._rest = b""
        command = [python, str(_WORKER), str(folder)]
        with open(folder / EVENTS, "ab") as stdout, open(folder / STDERR, "ab") as stderr:
            self._process = processes.start(command, env, stdout, stderr)
        with contextlib.suppress(OSError):  # it may have ended already
            self._process.stdin.write(b"parent\n")  # see Watchdog
        self._events = open(folder / EVENTS, "rb")  # noqa: SIM115

    def ended(self) -> bool:
        """Whether it is dead."""
        return self._process.poll() is not None

    def read_events(self) -> list[dict]:
        """The events since the last call."""
        *lines, self._rest = (self._rest + self._events.read()).split(b"\n")
        events = []
        for line in lines:
            with contextlib.suppress(ValueError):  # a line cut by a full disk
                events.append(json.loads(line))
        for event in events:
            if event["event"] == "started":
                self._pid = event["pid"]
        return events

    def request_stop(self) -> None:
        """Ask it to end; `enforce_stop` then has to be called now and again."""
        self._stop_time = time.monotonic()
        try:
            (self._folder / CANCEL).touch()
        except OSError:
            self.kill()

    def enforce_stop(self) -> None:
        """Kill it when it was asked to end and has not done so in time."""
        if self._stop_time is not None and time.monotonic() > self._stop_time + _KILL_AFTER:
            self.kill()

    def kill(self) -> None:
        """Kill it, with the interpreter behind a launcher."""
        processes.kill(self._process, self._pid)

    def release(self) -> None:
        """Let go of an ended process, so that its folder can be removed."""
        self.kill()  # a launcher can die without its interpreter
        self._process.stdin.close()
        self._events.close()

    def read_log(self, names: Mapping[str, str]) -> str:
        """The end of its stderr, each key of ``names`` replaced by its value."""
        try:
            text = (self._folder / STDERR).read_bytes()[-_LOG_SIZE:].decode("utf-8", "replace")
        except OSError:  # `failure` says why
            return ""
        return replaced(text, {str(self._folder): "<job>", **names, str(Path.home()): "~"})

    def failure(self, step: str, log: str, study: str = "") -> str:
        """A sentence on why it has ended at ``step`` without a word, and a way out; ``study`` names
        what it reads."""
        code = self._process.returncode
        if not self._folder.exists():
            return folder_is_gone(self._folder)
        if code == MUTE:
            return (
                f"The disk of {self._folder.parent} is full; free some space there, or set TMPDIR "
                "(TEMP on Windows) to another folder."
            )
        if step == READING:
            what, way_out = processes.describe_end(code, _BAD_FILE)
            return f"The process that was reading {study} {what}. {way_out}"
        what, way_out = processes.describe_end(code)
        last = log.strip().splitlines()[-1:] if code > 0 else []
        reason = f": {last[0].strip().rstrip('.')}" if last else ""
        return f"The segmentation {what}{reason}; last step: {step}. {way_out}"


def replaced(text: str, names: Mapping[str, str]) -> str:
    """``text`` with each key of ``names`` replaced by its value, also where Python quotes it, which
    doubles the backslashes of Windows."""
    for name, placeholder in names.items():
        for spelled in dict.fromkeys((name, name.replace("\\", "\\\\"))):
            if spelled:
                pattern = rf"(?<!\w){re.escape(spelled)}(?!\w)"
                text = re.sub(pattern, lambda _, p=placeholder: p, text)
    return text


def folder_is_gone(folder: Path) -> str:
    """A sentence on a job whose folder somebody else has removed, and a way out."""
    return (
        f"The temporary folder {folder} was removed before the segmentation was done, perhaps by a "
        "program that cleans up; run it again, or set TMPDIR (TEMP on Windows) to another folder."
    )
