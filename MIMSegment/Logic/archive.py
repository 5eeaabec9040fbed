"""Bringing a package's files in: from a folder, or a zip file that may be damaged or do harm."""

from __future__ import annotations

import errno
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from MIMSegment.Logic.diskspace import check_free_space, human_size
from MIMSegment.Logic.errors import Cancelled, OutputError, PackageError

_BLOCK = 1 << 20
# What zipfile raises on damaged files.
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError)
_LONGEST_NAME = 255  # bytes in one part of a path, the limit of all common file systems
_DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$"}
_DEVICES |= {f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789¹²³"}
_FORBIDDEN = set('<>:"|?*\\')


@dataclass(frozen=True)
class ArchiveLimits:
    """What a package may unpack to; ``ratio`` counts above ``ratio_from`` bytes only."""

    files: int = 10_000
    bytes: int = 16 * 10**9
    ratio: int = 100
    ratio_from: int = 100 * 10**6


def extract_archive(
    archive: Path,
    folder: Path,
    cancel: Callable[[], bool] = lambda: False,
    limits: ArchiveLimits = ArchiveLimits(),
) -> None:
    """Unpack ``archive`` into the existing empty ``folder``; the names are checked before.

    Names must be safe on every system: relative, no ``..``, links, devices, characters or endings
    that Windows refuses, no two that differ in case only. Finder's ``__MACOSX`` and ``.DS_Store``
    are left out. Raises PackageError (unsafe, damaged, too big), OutputError (disk) and Cancelled;
    what was written until then stays in ``folder``.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            entries = [i for i in content.infolist() if not _is_finder_file(i.filename)]
            _check_size(archive, entries, limits)
            paths = _checked_paths(archive, entries)
            total = sum(i.file_size for i in entries)
            check_free_space(folder, total, f"Unpacking {archive.name}")
            for info, path in zip(entries, paths, strict=True):
                _extract_entry(content, info, folder / path, cancel)
    except _DAMAGED as error:
        raise _damaged(archive, error) from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # a damaged offset, to a place before the file
            raise _damaged(archive, error) from error
        raise OutputError(
            f"{archive} could not be unpacked into {folder}: {error.strerror or error}."
        ) from error


def copy_folder(
    source: Path,
    folder: Path,
    cancel: Callable[[], bool] = lambda: False,
    limits: ArchiveLimits = ArchiveLimits(),
) -> None:
    """Copy the files of ``source`` into the existing empty ``folder``.

    Raises PackageError for links, special files and too much for a package, OutputError and
    Cancelled; what was written until then stays in ``folder``.
    """
    files = _regular_files(source, limits)
    check_free_space(folder, sum(f.stat().st_size for f in files), f"The copy of {source}")
    for file in files:
        target = folder / file.relative_to(source)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with file.open("rb") as reader, target.open("xb") as writer:
                _copy(reader, writer, cancel)
        except OSError as error:
            raise OutputError(
                f"{file} could not be copied to {target}: {error.strerror or error}."
            ) from error


def _damaged(archive: Path, error: Exception) -> PackageError:
    return PackageError(
        f"{archive} is not a zip file or is damaged ({error}); download or copy it again."
    )


def portable_path(name: str) -> PurePosixPath:
    """``name`` with ``/`` between its parts, if it is safe on every system; raises ValueError."""
    parts = name.removesuffix("/").split("/")
    for part in parts:
        if part in ("", ".", ".."):
            raise ValueError("leads out of the package")
        if _FORBIDDEN.intersection(part) or any(ord(c) < 32 for c in part):
            raise ValueError("has a character that is not allowed")
        if part[-1] in ". ":
            raise ValueError("ends in a dot or space")
        if part.split(".")[0].rstrip().lower() in _DEVICES:
            raise ValueError("is the name of a device")
        if len(part.encode("utf-8", "surrogatepass")) > _LONGEST_NAME:
            raise ValueError("is too long")
    return PurePosixPath(*parts)


def _is_finder_file(name: str) -> bool:
    return name.startswith("__MACOSX/") or name.rpartition("/")[2] == ".DS_Store"


def _regular_files(source: Path, limits: ArchiveLimits) -> list[Path]:
    files = []
    total = 0
    for path in source.rglob("*"):
        kind = stat.S_IFMT(path.lstat().st_mode)
        if kind == stat.S_IFDIR or path.name == ".DS_Store":
            continue
        if kind != stat.S_IFREG:
            raise PackageError(
                f"{path} is a link or a special file; a package holds plain files only."
            )
        files.append(path)
        total += path.stat().st_size
        if len(files) > limits.files or total > limits.bytes:
            raise PackageError(
                f"{source} holds more files or bytes than a package may have; choose the "
                "package's own folder."
            )
    return files


def _check_size(archive: Path, entries: list[zipfile.ZipInfo], limits: ArchiveLimits) -> None:
    total = sum(i.file_size for i in entries)
    packed = max(archive.stat().st_size, 1)
    if not any(not i.is_dir() for i in entries):
        raise PackageError(f"{archive} is empty; download or copy it again.")
    if len(entries) > limits.files:
        raise PackageError(
            f"{archive} holds {len(entries)} files, more than the {limits.files} that a package "
            "may have; it was not unpacked."
        )
    is_bomb = total > limits.ratio_from and total > limits.ratio * packed
    if total > limits.bytes or is_bomb:
        raise PackageError(
            f"{archive} ({human_size(packed)}) would unpack to {human_size(total)}, which no "
            "package does; it was not unpacked."
        )


def _checked_paths(archive: Path, entries: list[zipfile.ZipInfo]) -> list[PurePosixPath]:
    paths = []
    files: set[str] = set()
    folders: set[str] = set()
    for info in entries:
        try:
            path = _checked_path(info)
            key = _case_key(path)
            parents = {_case_key(parent) for parent in path.parents[:-1]}
            if info.is_dir():
                parents.add(key)
            elif key in files:
                raise ValueError("is there twice, or differs from another in case only")
            else:
                files.add(key)
            folders |= parents
            if (key in folders and key in files) or parents & files:
                raise ValueError("is both a file and a folder")
        except ValueError as error:
            raise PackageError(
                f"{archive} is not safe to unpack: {info.orig_filename!r:.200} {error}; nothing "
                "was written. Get the package from its source again, or ask who made it."
            ) from error
        paths.append(path)
    return paths


def _checked_path(info: zipfile.ZipInfo) -> PurePosixPath:
    if info.flag_bits & 0x1:
        raise ValueError("is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("is packed by another method than deflate")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ValueError("is a link or a device")
    # zipfile cuts names at NUL and turns a system's separator into "/"; judge the name as stored.
    return portable_path(info.orig_filename)


def _case_key(path: PurePosixPath) -> str:
    return unicodedata.normalize("NFC", str(path).casefold())


def _extract_entry(
    content: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, cancel: Callable[[], bool]
) -> None:
    if info.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with content.open(info) as source, target.open("xb") as file:
        _copy(source, file, cancel)


def _copy(source: BinaryIO, target: BinaryIO, cancel: Callable[[], bool]) -> None:
    while block := source.read(_BLOCK):
        if cancel():
            raise Cancelled("The installation was canceled; nothing was installed.")
        target.write(block)
