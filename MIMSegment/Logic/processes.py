"""Child processes on Linux, macOS and Windows: start quietly, recognize, kill, explain their end.

The Python of 3D Slicer (``PythonSlicer``) is a launcher whose child is the real interpreter, so a
started process and the process that works may be two.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_WINDOWS = sys.platform == "win32"
_MEMORY = "The computer probably ran out of memory; close other programs, or use a smaller model."
_LIBRARY = (
    "Run it again on another device; if that fails too, install the program part that calculates "
    "(ONNX Runtime or OpenVINO) again."
)
_SIGNALS = {
    "SIGKILL": ("was killed", _MEMORY),
    "SIGSEGV": ("crashed with a memory access violation", _LIBRARY),
    "SIGBUS": ("crashed with a memory access violation", _LIBRARY),
    "SIGABRT": ("aborted", _LIBRARY),
    "SIGILL": ("used an instruction that this processor does not have", _LIBRARY),
    "SIGFPE": ("crashed with an arithmetic error", _LIBRARY),
    "SIGTERM": ("was terminated by another program", "Run it again."),
}
_NT_STATUS = {
    0xC0000005: ("crashed with a memory access violation", _LIBRARY),
    0xC0000017: ("ran out of memory", _MEMORY),
    0xC000001D: ("used an instruction that this processor does not have", _LIBRARY),
    0xC00000FD: ("crashed with a stack overflow", _LIBRARY),
    0xC0000135: ("did not find a library (DLL)", _LIBRARY),
    0xC0000409: ("aborted", _LIBRARY),
}
_STILL_ACTIVE = 259


def start(command: list[str], env: Mapping[str, str], stdout, stderr) -> subprocess.Popen:
    """Start ``command`` in a process group of its own, without a console window.

    ``env`` is added to this process's environment; text streams are UTF-8 and unbuffered. Its stdin
    is a pipe whose other end closes when this process dies. Raises OSError.
    """
    environment = {
        **os.environ,
        "PYTHONIOENCODING": "utf-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",  # else the folder of a script hides libraries of the same names
        **env,
    }
    if _WINDOWS:
        group = {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    else:
        group = {"start_new_session": True}
    return subprocess.Popen(
        command, bufsize=0, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr, env=environment,
        **group,
    )  # fmt: skip


def kill(process: subprocess.Popen, worker: int | None) -> None:
    """Kill what `start` started: the launcher and the interpreter, whose id is ``worker``."""
    with contextlib.suppress(OSError):  # it may have ended meanwhile
        if not _WINDOWS:
            os.killpg(process.pid, signal.SIGKILL)
        elif worker is not None:
            os.kill(worker, signal.SIGTERM)  # Windows: TerminateProcess
    process.kill()


def start_time(process_id: int) -> str | None:
    """When a process started, as letters and digits; None when it does not run.

    Together with the process id it names a process for good, as ids are used again.
    """
    if _WINDOWS:
        return _windows_start_time(process_id)
    try:
        state_and_more = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _ps_start_time(process_id)
    return None if state_and_more[0] in "ZX" else state_and_more[19]


def is_running(process_id: int, started: str) -> bool:
    """Whether the process with this id and `start_time` still runs."""
    return start_time(process_id) == started


def describe_end(code: int, after_crash: str = _LIBRARY) -> tuple[str, str]:
    """What the exit code of a failed process means, ``"was killed (SIGKILL)"``, and a way out;
    ``after_crash`` is the one when native code has failed."""
    what, name, way_out = "ended without a result", f"exit code {code}", "Run it again."
    if _WINDOWS and code & 0xFFFFFFFF in _NT_STATUS:
        name = f"0x{code & 0xFFFFFFFF:08X}"
        what, way_out = _NT_STATUS[code & 0xFFFFFFFF]
    elif not _WINDOWS and (code < 0 or 128 < code < 160):  # a launcher reports 128 + signal
        name = _signal_name(-code if code < 0 else code - 128)
        what, way_out = _SIGNALS.get(name, ("was stopped by a signal", "Run it again."))
    return f"{what} ({name})", after_crash if way_out is _LIBRARY else way_out


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _ps_start_time(process_id: int) -> str | None:
    """macOS: by ``ps``, which answers in the time zone and language it is told."""
    answer = subprocess.run(
        ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(process_id)],
        env={**os.environ, "TZ": "UTC0", "LC_ALL": "C"}, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    running = answer and not answer[0].startswith("Z")
    return re.sub(r"\W", "", "".join(answer[1:])) if running else None


def _windows_start_time(process_id: int) -> str | None:
    import ctypes
    from ctypes import wintypes

    kernel = ctypes.WinDLL("kernel32")
    kernel.OpenProcess.restype = wintypes.HANDLE
    kernel.OpenProcess.argtypes = [wintypes.DWORD, wintypes.BOOL, wintypes.DWORD]
    kernel.GetExitCodeProcess.argtypes = [wintypes.HANDLE, wintypes.LPDWORD]
    kernel.GetProcessTimes.argtypes = [wintypes.HANDLE, *[ctypes.POINTER(wintypes.FILETIME)] * 4]
    kernel.CloseHandle.argtypes = [wintypes.HANDLE]
    handle = kernel.OpenProcess(0x1000, False, process_id)  # PROCESS_QUERY_LIMITED_INFORMATION
    if not handle:
        return None
    try:
        code, times = wintypes.DWORD(), [wintypes.FILETIME() for _ in range(4)]
        kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        if code.value != _STILL_ACTIVE:
            return None
        kernel.GetProcessTimes(handle, *map(ctypes.byref, times))
        return f"{(times[0].dwHighDateTime << 32) + times[0].dwLowDateTime}"
    finally:
        kernel.CloseHandle(handle)
