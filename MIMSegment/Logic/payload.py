"""The voxel data of an image file: are they all there, and as they were written?

Compressed streams are inflated once, piece by piece, to where their checksum and length are
compared: ITK's readers do not look, and return wrong voxels.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from MIMSegment.Logic.errors import InputError

CHUNK = 1 << 24
_ZLIB_CHUNK = 1 << 16  # of compressed bytes, which become a thousand times as many at most
_ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS


@dataclass(frozen=True)
class Payload:
    """Where the voxels of an image file are.

    They are in ``files``, one after another. In each they begin after ``offset`` bytes (at its end
    if that is -1) and ``lines`` lines; ``compression`` is "gzip", "zlib" or "". Of the inflated
    bytes the first ``skip`` are none of them. ``size`` is how many bytes the header states in all,
    None where it is not known.
    """

    files: tuple[Path, ...]
    offset: int = 0
    lines: int = 0
    compression: str = ""
    skip: int = 0
    size: int | None = None


def check_payload(payload: Payload, path: Path) -> None:
    """Raise InputError unless the voxels of ``path`` are all there and undamaged."""
    found = 0
    for file in payload.files:
        if not file.is_file():
            raise InputError(
                f"{path} has its voxels in {file.name}, which is not there; put both into one "
                "folder."
            )
        with damage_told(file):
            found += _length(file, payload)
    if payload.size is not None and found < payload.size:
        raise cut_short(path, found, payload.size)


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Turn what reading a damaged file raises into an InputError that names it."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path} is {_damage(error)}; copy or download it again.") from None
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}); check its disk and whether you "
            "may read it, or copy it again."
        ) from None


def _damage(error: Exception) -> str:
    """In words: the libraries' own are about numbers and bytes."""
    if isinstance(error, EOFError):
        return "damaged or cut short (its compressed data have no end)"
    if any(word in str(error) for word in ("check", "Incorrect length")):  # CRC, Adler, length
        return "damaged (its checksum does not fit)"
    return "damaged (its compressed data cannot be read)"


def cut_short(path: Path, found: int, stated: int) -> InputError:
    """The error for a file with fewer bytes of voxels than its header states."""
    return InputError(
        f"{path} is cut short: {found} of {stated} bytes of voxels are there; copy or download it "
        "again."
    )


def bytes_to_end(stream: BinaryIO) -> int:
    """Read to the end, where a gzip stream compares its checksum; how many bytes there were."""
    length = 0
    while chunk := stream.read(CHUNK):
        length += len(chunk)
    return length


def _length(file: Path, payload: Payload) -> int:
    """How many bytes of voxels a file holds."""
    with open(file, "rb") as stream:
        if payload.offset < 0:
            return file.stat().st_size
        stream.seek(payload.offset)
        for _ in range(payload.lines):
            stream.readline()
        if payload.compression == "gzip":
            with gzip.GzipFile(fileobj=stream) as inflated:
                length = bytes_to_end(inflated)
        elif payload.compression == "zlib":
            length = _inflated_length(stream)
        else:
            length = file.stat().st_size - stream.tell()
    return max(0, length - payload.skip)


def _inflated_length(stream: BinaryIO) -> int:
    inflater, length = zlib.decompressobj(_ZLIB_OR_GZIP), 0
    while not inflater.eof:
        chunk = stream.read(_ZLIB_CHUNK)
        if not chunk:
            raise EOFError
        length += len(inflater.decompress(chunk))
    return length
