"""A file that is still arriving: ``name.part`` beside the target and what is known of it."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from MIMSegment.Logic.errors import Cancelled, OutputError
from MIMSegment.Logic.files import put_in_place, read_json_object, write_json

_BLOCK = 1 << 20


def sha256_of(path: Path, cancel: Callable[[], bool] = lambda: False) -> str:
    """SHA-256 of a file in lower-case hexadecimal; raises Cancelled."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            if cancel():
                raise Cancelled("The check of the file was canceled.")
            digest.update(block)
    return digest.hexdigest()


class PartialFile:
    """``target.part`` and ``target.part.json``, which says from where and of which file it is.

    Raises OutputError when the folder cannot be written; after a failed write (disk full) the
    part is removed, because a full disk endangers the user's other work more than a second
    download costs.
    """

    def __init__(self, target: Path, sha256: str, size: int | None) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self._sidecar = target.with_name(f"{target.name}.part.json")
        self._sha256 = sha256
        if self._known().get("sha256") != sha256 or self.size() > (size or math.inf):
            self.discard()

    def size(self) -> int:
        """The bytes that have arrived."""
        return self.path.stat().st_size if self.path.exists() else 0

    def validator(self, url: str) -> str | None:
        """The ETag or date under which ``url`` sent the first bytes; None if it did not."""
        known = self._known()
        return known.get("validator") if known.get("url") == url else None

    def begin(self, url: str, validator: str | None) -> None:
        """Start from zero with what ``url`` sends."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(b"")
        except OSError as error:
            raise self._failed(error) from error
        known = {"url": url, "validator": validator, "sha256": self._sha256}
        write_json(self._sidecar, known)

    @contextlib.contextmanager
    def appending(self):
        """A function that appends bytes; what it has taken is in the file afterwards."""
        try:
            # Unbuffered: no write can then fail later, out of reach of the handling below.
            file = self.path.open("ab", buffering=0)
        except OSError as error:
            raise self._failed(error) from error
        with file:
            yield lambda data: self._append(file, data)

    def finish(self) -> Path:
        """Move the complete part to the target."""
        try:
            with self.path.open("rb+") as file:
                os.fsync(file.fileno())
            put_in_place(self.path, self.target)
        except OSError as error:
            raise self._failed(error) from error
        self._sidecar.unlink(missing_ok=True)
        return self.target

    def discard(self) -> None:
        """Forget what has arrived."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
            self._sidecar.unlink(missing_ok=True)

    def _append(self, file: BinaryIO, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[file.write(view) :]
        except OSError as error:
            file.close()
            self.discard()
            raise self._failed(error, "; what had arrived of it was removed") from error

    def _failed(self, error: OSError, more: str = "") -> OutputError:
        return OutputError(
            f"{self.target} could not be written: {error.strerror or error}{more}; "
            "free some space or choose a folder that you may write to."
        )

    def _known(self) -> dict:
        return read_json_object(self._sidecar)
