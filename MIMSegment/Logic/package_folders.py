"""Folders of model packages: finding the one inside, comparing two, and moving them in one step."""

from __future__ import annotations

import zipfile
from pathlib import Path

from MIMSegment.Logic.errors import OutputError, PackageError
from MIMSegment.Logic.files import put_in_place
from MIMSegment.Logic.package import METADATA, sha256


def package_root(folder: Path, source: Path) -> Path:
    """``folder``, or the one folder in it, that holds the metadata; raises PackageError."""
    if (folder / METADATA).is_file():
        return folder
    inner = [path.parents[1] for path in folder.glob(f"*/{METADATA}")]
    if len(inner) != 1:
        what = "holds several packages" if inner else f"is no package, it has no {METADATA}"
        raise PackageError(f"{source} {what}; choose one package's zip file or folder.")
    return inner[0]


def holds_package(path: Path) -> bool:
    """Whether ``path`` is a folder with a package in it, or any zip file."""
    if path.is_dir():
        return (path / METADATA).is_file() or any(path.glob(f"*/{METADATA}"))
    return path.is_file() and zipfile.is_zipfile(path)


def same_files(a: Path, b: Path) -> bool:
    """Whether two folders hold the same files with the same content."""

    def digests(folder: Path) -> dict[str, str]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): sha256(path) for path in files}

    return digests(a) == digests(b)


def swap(folder: Path, target: Path, aside: Path) -> None:
    """Move ``folder`` to ``target``, and what is there to ``aside``; back again when that fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        move(target, aside)
    try:
        move(folder, target)
    except (OSError, OutputError):
        if aside.exists():
            move(aside, target)
        raise


def move(source: Path, target: Path) -> None:
    """Rename a folder on one disk. Raises OutputError when it is in use, OSError otherwise."""
    try:
        put_in_place(source, target)
    except PermissionError as error:
        raise OutputError(
            f"{source} could not be moved to {target}: it is in use, or you may not write there; "
            "close the programs that use it and try again."
        ) from error
