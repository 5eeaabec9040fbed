"""Wheels into a folder of their own by pip, with progress, cancellation and a clear end."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from MIMSegment.Logic import processes
from MIMSegment.Logic.errors import Cancelled, DeviceError
from MIMSegment.Logic.files import nearly_full

Progress = Callable[[int, str], None]
"""Bytes downloaded so far, and what is being done."""

Cancel = Callable[[], bool]

# A launcher such as PythonSlicer is not the process that works, so that one says who it is.
_PIP = (
    "import os, runpy, sys; print('pid', os.getpid(), flush=True); sys.argv[0] = 'pip'; "
    "runpy.run_module('pip', run_name='__main__', alter_sys=True)"
)
_DISK_FULL = ("[Errno 28]", "[WinError 112]", "No space left on device")
_INTERVAL = 0.1  # seconds between two looks at what pip says
_RAW_PROGRESS_SINCE = (24, 1)


def pip_install(
    folder: Path,
    scratch: Path,
    packages: Sequence[str],
    constraints: Sequence[str] = (),
    options: Sequence[str] = (),
    progress: Progress = lambda done, message: None,
    cancelled: Cancel = lambda: False,
    python: str | Path = sys.executable,
    env: Mapping[str, str] | None = None,
) -> None:
    """Install ``packages`` (wheels only) into ``folder``; downloads go through ``scratch``.

    The packages of the running Python stay as they are. Raises DeviceError with pip's own reason,
    OSError for a full disk, and Cancelled within a moment of ``cancelled()`` turning true.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "constraints.txt").write_text("\n".join(constraints) + "\n", encoding="utf-8")
    arguments = [
        "install", "--target", str(folder), "--constraint", str(scratch / "constraints.txt"),
        "--only-binary", ":all:", "--no-input", "--no-cache-dir", "--disable-pip-version-check",
        *options, *packages,
    ]  # fmt: skip
    pip = _Pip(python, scratch, env or {}, cancelled)
    if pip.version() >= _RAW_PROGRESS_SINCE:
        arguments[1:1] = ["--progress-bar", "raw"]
    report = _Report(progress)
    if pip.run(arguments, report.hear):
        if report.disk_full:
            raise _no_space(folder)
        raise DeviceError(
            f"pip could not install {', '.join(packages)}: {report.error()} Check the connection "
            "to the internet, and the proxy if there is one."
        )


class _Pip:
    """pip in a child process. Its output goes through a file, so that no thread is needed."""

    def __init__(
        self, python: str | Path, scratch: Path, env: Mapping[str, str], cancelled: Cancel
    ):
        self._python, self._output, self._cancelled = str(python), scratch / "pip.log", cancelled
        place = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))
        self._env = {**place, "PIP_USER": "0", **env}

    def version(self) -> tuple[int, ...]:
        """Of pip. Raises DeviceError without one."""
        lines: list[str] = []
        if self.run(["--version"], lines.append):
            raise DeviceError(
                f"{self._python} has no pip; install it with `{self._python} -m ensurepip`."
            )
        found = re.search(r"^pip (\d+)\.(\d+)", "\n".join(lines), re.MULTILINE)
        return tuple(map(int, found.groups())) if found else (0,)

    def run(self, arguments: Sequence[str], hear: Callable[[str], None]) -> int:
        """The exit code; ``hear`` gets every line that pip prints. OSError for a full disk."""
        with open(self._output, "wb") as output:
            try:
                process = processes.start(
                    [self._python, "-c", _PIP, *arguments], self._env, output, output
                )
            except OSError as error:
                raise DeviceError(
                    f"{self._python} could not be started ({error.strerror or error})."
                ) from None
        pid = None
        try:
            for line in self._lines_until_end(process):
                if pid is None and line.startswith("pid "):
                    pid = int(line[4:])
                else:
                    hear(line)
        finally:
            processes.kill(process, pid)
            process.stdin.close()
            process.wait()
        if process.returncode and nearly_full(self._output.parent):  # pip cannot say so there
            raise _no_space(self._output)
        return process.returncode

    def _lines_until_end(self, process: subprocess.Popen) -> Iterator[str]:
        """What the process prints; raises Cancelled between two looks."""
        rest, ended = b"", False
        with open(self._output, "rb") as output:
            while not ended:
                ended = process.poll() is not None  # asked first, so that no line is lost
                *lines, rest = (rest + output.read()).split(b"\n")
                yield from (line.decode("utf-8", "replace").strip() for line in lines)
                if self._cancelled():
                    raise Cancelled("The installation was stopped; nothing was changed.")
                if not ended:
                    time.sleep(_INTERVAL)


def _no_space(path: Path) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


class _Report:
    """Understands what pip prints. ``disk_full`` turns true when it says so."""

    def __init__(self, progress: Progress):
        self.disk_full = False
        self._progress = progress
        self._finished, self._current = 0, 0
        self._message, self._errors = "Asking for the packages", []

    def hear(self, line: str) -> None:
        """Take in one line."""
        self.disk_full = self.disk_full or any(words in line for words in _DISK_FULL)
        if line.startswith("ERROR:"):
            self._errors.append(line.removeprefix("ERROR:").strip())
        elif counted := re.fullmatch(r"Progress (\d+) of \d+", line):
            self._current = int(counted[1])
            self._progress(self._finished + self._current, self._message)
        elif line.startswith(("Downloading ", "Installing collected")):
            self._finished, self._current = self._finished + self._current, 0
            self._message = " ".join(line.split()[:2]) if line[0] == "D" else "Unpacking"
            self._progress(self._finished, self._message)

    def error(self) -> str:
        """pip's reasons in one line."""
        return " ".join(self._errors)[:600] or "it ended without saying why."
