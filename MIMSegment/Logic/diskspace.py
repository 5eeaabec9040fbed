"""Is there room for what is about to be written?"""

from __future__ import annotations

import shutil
from pathlib import Path

from MIMSegment.Logic.errors import OutputError


def human_size(size: float) -> str:
    """``size`` in bytes as people read it, in powers of 1000: ``512 bytes``, ``1.5 GB``."""
    if size < 1000:
        return f"{size:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.5:
            return f"{size:.3g} {unit}"
    return f"{size / 1000:.4g} TB"


def check_free_space(folder: Path, needed: int, purpose: str) -> None:
    """Raise OutputError unless the disk of ``folder`` has ``needed`` bytes free.

    ``folder`` need not exist yet. ``purpose`` begins the message, such as ``liver.zip``.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"{purpose} needs {human_size(needed)} on the disk of {folder}, which has only "
            f"{human_size(free)} free; free some space there, or choose another folder."
        )
