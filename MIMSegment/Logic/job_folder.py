"""The private temporary folder of a job: made, recognized, removed.

Its name says which process on which computer owns it, so that what a dead process has left can be
told from what a live one needs.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import tempfile
from pathlib import Path

from MIMSegment.Logic.errors import OutputError
from MIMSegment.Logic.processes import is_running, start_time

JOB, CANCEL, EVENTS, STDERR = "job.json", "cancel", "events.jsonl", "stderr.txt"
_NAME = re.compile(r"mimsegment-job-(?P<host>[0-9a-f]+)-(?P<pid>[0-9]+)-(?P<start>[0-9A-Za-z]+)-.*")


def create_folder(parent: Path | None = None) -> Path:
    """A new folder that only this user can open, in ``parent`` or the system's temporary folder.

    Raises OutputError when none can be made.
    """
    owner = f"mimsegment-job-{_host()}-{os.getpid()}-{start_time(os.getpid())}-"
    try:
        return Path(tempfile.mkdtemp(prefix=owner, dir=parent))
    except OSError as error:
        where = parent or "The temporary folder"
        raise OutputError(
            f"{where} cannot be written to ({error.strerror or error}); free space there, or set "
            "the environment variable TMPDIR (TEMP on Windows) to another folder."
        ) from None


def remove_folder(folder: Path) -> bool:
    """Remove a job's folder; false while another process still holds one of its files."""
    for _ in range(3):  # a file written during the removal would keep the folder
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return True
    return False


def remove_stale_folders(parent: Path | None = None) -> None:
    """Remove the job folders of this user whose owner on this computer has died."""
    for folder in Path(parent or tempfile.gettempdir()).glob("mimsegment-job-*"):
        owner = _NAME.fullmatch(folder.name)
        if owner is None or owner["host"] != _host() or not _is_own_folder(folder):
            continue
        if not is_running(int(owner["pid"]), owner["start"]):
            remove_folder(folder)


def _is_own_folder(folder: Path) -> bool:
    if folder.is_symlink() or not folder.is_dir():
        return False
    return not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()


def _host() -> str:
    """This computer or container: process ids mean nothing elsewhere, folders may be shared."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]
