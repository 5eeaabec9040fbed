"""What a file holds whatever its name says: for files that got the wrong ending."""

from __future__ import annotations

import contextlib
import gzip
import re
import zlib
from pathlib import Path

_HEAD = 352  # bytes that tell a kind
_METAIMAGE = re.compile(rb"\s*(ObjectType|NDims|Comment)\s*=")


def told_by_content(path: Path) -> str:
    """What ``path`` is and what to do, as the end of a sentence; "" where its contents are what its
    ending says, or unknown."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(_HEAD)
    except OSError:
        return ""
    if not head:
        return "it is empty: copy or download it again."
    zipped = head[:2] == b"\x1f\x8b"
    if zipped:
        head = b""
        with contextlib.suppress(OSError, EOFError, zlib.error), gzip.open(path) as stream:
            head = stream.read(_HEAD)
    kind, ending = _kind(head)
    if zipped and kind == "NIfTI":
        ending += ".gz"
    elif zipped and kind:
        return f"it is a compressed {kind} file: unpack it first, as with gunzip."
    if not kind or path.name.lower().endswith(ending):
        return ""
    return f"by its contents it is a {kind} file: give its name the ending {ending}."


def _kind(head: bytes) -> tuple[str, str]:
    """The kind of file that begins with ``head``, and its usual ending; empty if unknown."""
    if head[:4] == b"NRRD":
        return "NRRD", ".nrrd"
    if head[344:347] == b"n+1" or head[4:7] == b"n+2":
        return "NIfTI", ".nii"
    if head[128:132] == b"DICM":
        return "DICOM", ".dcm"
    return ("MetaImage", ".mha") if _METAIMAGE.match(head) else ("", "")
