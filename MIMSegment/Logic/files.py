"""Writing files so that a failure never leaves half of one behind."""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import math
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from MIMSegment.Logic.errors import FileInUse, OutputError

_LONGEST_ENDING = 8
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_NEARLY_NOTHING = 1 << 16  # bytes free, from which a failure is put down to them
_WINDOWS = sys.platform == "win32"
_WAITS = (0.1, 0.2, 0.4, 0.8)  # seconds between tries to replace a file on Windows


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` with its ending in lower case, as libraries want it;
    move it there on success.

    Its name is short, so that ``path`` may have the longest that the disk takes. Raises OutputError
    naming ``path`` when it cannot be written; the temporary file is removed and an existing
    ``path`` stays as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".mimsegment-{secrets.token_hex(4)}{_ending(path)}")
    try:
        yield temporary
        put_in_place(temporary, path)
    except (OSError, RuntimeError) as error:
        raise not_written(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def put_in_place(source: Path, target: Path) -> None:
    """Rename ``source`` to ``target`` on the same disk, replacing a file there. Raises OSError.

    On Windows a virus scanner holds new files open for a moment, which is waited for.
    """
    for wait in (*_WAITS, None):
        try:
            return os.replace(source, target)
        except PermissionError:
            if wait is None or not _WINDOWS:
                raise
            time.sleep(wait)


def read_json_object(path: Path) -> dict:
    """What ``write_json`` wrote; empty when it is missing or damaged, for what can be made anew."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_json(path: str | Path, value) -> None:
    """Write ``value`` to ``path``, whole or not at all. Raises OutputError."""
    write_text(path, json_text(value, indent=1) + "\n")


def json_text(value, indent: int | None = None) -> str:
    """``value`` as JSON that every program reads: null for NaN and infinity, which JSON lacks."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8, whole or not at all. Raises OutputError."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: str | Path, columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Write a table with a header to ``path``, whole or not at all. Raises OutputError.

    Names of files that are not in UTF-8 are written as the disk has them.
    """
    with (
        replacing(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def make_folder(folder: Path) -> None:
    """Make ``folder`` and what is missing of those above it. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(folder, error) from error


def check_writable(path: Path) -> None:
    """Raise OutputError unless a file could be made or replaced at ``path``; its folder exists."""
    try:
        with contextlib.suppress(FileNotFoundError):
            path.stat()  # fails for a name that is too long
            if path.is_dir():
                raise OutputError(f"{path} is a folder; choose the name of a file.")
            if _WINDOWS:  # which replaces no file that is open or write-protected
                path.open("r+b").close()
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise not_written(path, error) from error


def not_written(path: Path, error: Exception) -> OutputError:
    """The error to raise when writing ``path`` failed: what is wrong, and the way out.

    Libraries seldom say that the disk is full, so it is looked at, before anything is removed.
    """
    if getattr(error, "errno", None) in _NO_SPACE or nearly_full(path.parent):
        return OutputError(
            f"{path} could not be written: No space left on the disk of {path.parent}; free some "
            "space there, or choose another folder."
        )
    if _WINDOWS and isinstance(error, PermissionError) and path.is_file():
        return FileInUse(
            f"{path} could not be written: it is open in another program, or write-protected; "
            "close it there, or choose another name."
        )
    lines = str(error).strip().splitlines()
    reason = getattr(error, "strerror", None) or (lines[-1] if lines else type(error).__name__)
    return OutputError(
        f"{path} could not be written: {reason}; choose a folder that you may write to."
    )


def nearly_full(folder: Path) -> bool:
    """Whether the disk of ``folder`` has so little room that a failure is put down to it."""
    try:
        return shutil.disk_usage(folder).free < _NEARLY_NOTHING
    except OSError:
        return False


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that were killed; only where no other one writes."""
    for path in folder.glob(".mimsegment-????????.*"):
        with contextlib.suppress(OSError):
            path.unlink()


def _finite(value):
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _ending(path: Path) -> str:
    """``.nii.gz``, ``.seg.nrrd``; not what only follows a dot in a long name."""
    return "".join(part for part in path.suffixes[-2:] if len(part) <= _LONGEST_ENDING).lower()
