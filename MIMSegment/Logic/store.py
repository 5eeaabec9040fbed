"""The model packages on this computer: install, import, find, list and remove them.

<root>/<id>/<version>/    an installed package, whole and checked
<root>/licenses.json      licenses that the user has acknowledged
<root>/.downloads         downloads that go on where they were cut
<root>/.staging           what is being installed; moved to its place in one step
<root>/.locks
"""

from __future__ import annotations

import contextlib
import difflib
import os
import secrets
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from MIMSegment.Logic.archive import copy_folder, extract_archive, portable_path
from MIMSegment.Logic.catalog import BUNDLED_CATALOG, CatalogEntry, version_key
from MIMSegment.Logic.catalog_rules import ID, VERSION
from MIMSegment.Logic.diskspace import check_free_space
from MIMSegment.Logic.download import Cancel, Progress, download
from MIMSegment.Logic.errors import MIMSegmentError, OutputError, PackageError
from MIMSegment.Logic.file_lock import file_lock
from MIMSegment.Logic.license_record import LicenseRecord
from MIMSegment.Logic.package import METADATA, load_package
from MIMSegment.Logic.package_folders import (
    holds_package,
    move,
    package_root,
    same_files,
    swap,
)
from MIMSegment.Logic.phrases import joined

HOME_VARIABLE = "MIMSEGMENT_HOME"
_UNFINISHED_KEPT_SECONDS = 30 * 24 * 3600


class Identified(Protocol):
    """What a validator returns: at least the package's id and version."""

    id: str
    version: str


@dataclass(frozen=True)
class InstalledPackage:
    """One version of one package, in the folder ``path``."""

    id: str
    version: str
    path: Path


def data_home(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """The folder of everything that MIM Segment keeps for this user.

    ``$MIMSEGMENT_HOME`` if set, else ``MIMSegment`` in the system's folder for such data.
    """
    if environ.get(HOME_VARIABLE):
        return Path(environ[HOME_VARIABLE]).expanduser().absolute()
    if platform == "win32":
        base, fallback = environ.get("LOCALAPPDATA", ""), Path.home() / "AppData" / "Local"
    elif platform == "darwin":
        base, fallback = "", Path.home() / "Library" / "Application Support"
    else:
        base, fallback = environ.get("XDG_DATA_HOME", ""), Path.home() / ".local" / "share"
    # The XDG specification has relative paths ignored.
    return (Path(base) if os.path.isabs(base) else fallback) / "MIMSegment"


class PackageStore:
    """The packages under ``root``, by default ``packages`` in ``data_home()``.

    ``validate`` reads a package folder and raises PackageError unless it is whole. Packages that
    came with the program lie in the folders of ``bundled`` and are found by name too. Nothing is
    created before the first installation. Several programs may use one store at the same time.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        validate: Callable[[Path], Identified] = load_package,
        bundled: Path = BUNDLED_CATALOG.parent,
    ) -> None:
        self._root = Path(root).absolute() if root else data_home() / "packages"
        self._validate = validate
        self._bundled = bundled
        self.licenses = LicenseRecord(self._root / "licenses.json")

    def location(self) -> Path:
        """The folder that holds the packages; it may not exist yet."""
        return self._root

    def installed(self) -> list[InstalledPackage]:
        """All installed versions, by id, the newest of each first."""
        found = [
            InstalledPackage(path.parents[2].name, path.parents[1].name, path.parents[1])
            for path in self._root.glob(f"[!.]*/*/{METADATA}")
        ]
        found.sort(key=lambda package: version_key(package.version), reverse=True)
        return sorted(found, key=lambda package: package.id)

    def bundled(self) -> list[InstalledPackage]:
        """The packages that came with the program, by id; damaged ones are left out."""
        found = []
        for path in sorted(self._bundled.glob(f"[!.]*/{METADATA}")):
            with contextlib.suppress(MIMSegmentError):
                package = self._validate(path.parents[1])
                found.append(InstalledPackage(package.id, package.version, path.parents[1]))
        return found

    def install(
        self,
        entry: CatalogEntry,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> Path:
        """Download, check and install a package of the catalog; its folder.

        A whole installation of the same version is left as it is, a damaged one replaced; what
        came with the program (``entry.folder``) is only checked.
        ``progress`` and ``cancel`` as in ``download``. Raises PackageError (also when the license
        must be acknowledged first, see ``licenses``), OutputError and Cancelled; nothing is ever
        half-installed, and a cut or canceled download goes on from there the next time.
        """
        cancel = cancel or (lambda: False)
        name = f"{entry.id}@{entry.version}"
        if self.licenses.is_missing(entry):
            raise PackageError(
                f"The license {entry.license} of {entry.title} must be read and accepted "
                f"before the download: {entry.license_url}"
            )
        if entry.folder is not None:
            self._validate(entry.folder)
            return entry.folder
        with self._lock(name, cancel):
            target = self._folder_of(entry.id, entry.version)
            if self._is_whole(target):
                return target
            archive = self._root / ".downloads" / f"{name}.zip"
            self._drop_old_downloads(archive.parent)
            # Weights hardly compress: the zip and its content lie side by side for a moment.
            there = sum(path.stat().st_size for path in archive.parent.glob(f"{name}.zip*"))
            check_free_space(
                self._root, 2 * entry.size_bytes - there, f"The installation of {name}"
            )
            download(entry.urls, archive, entry.sha256, entry.size_bytes, progress, cancel)
            try:
                path = self._add(archive, cancel, expected=(entry.id, entry.version))
            except PackageError:
                archive.unlink(missing_ok=True)
                raise
            archive.unlink(missing_ok=True)
            return path

    def import_file(
        self, source: str | Path, replace: bool = False, cancel: Cancel | None = None
    ) -> Path:
        """Install a package from a zip file or folder, which stays as it is; the new folder.

        The package may lie in one top folder. If the same version is installed with other content,
        it is kept and PackageError raised, unless ``replace``. Raises PackageError, OutputError
        and Cancelled; nothing is ever half-installed.
        """
        source = Path(source).expanduser().absolute()
        if not source.exists():
            raise PackageError(f"{source} does not exist.")
        if source.is_dir():
            source = package_root(source, source)
        elif not zipfile.is_zipfile(source):
            raise PackageError(
                f"{source} is no zip file, or a damaged one; choose the package's zip file, or the "
                f"folder that holds {METADATA}."
            )
        return self._add(source, cancel or (lambda: False), replace=replace)

    def find(self, name_or_path: str | Path) -> Path:
        """The folder of a package given as folder, zip file, ``id`` (newest) or ``id@version``.

        A zip file is imported first. Raises PackageError when there is no such package, with the
        nearest names, or when a name is both an installed package and a local one.
        """
        name = str(name_or_path)
        path = Path(os.path.expanduser(name))  # leaves the ~ of an unknown user as it is
        installed = self._named(name)
        is_own = bool(installed) and path.absolute().is_relative_to(self._root)
        local = path if holds_package(path) and not is_own else None
        is_path = path.name != name or isinstance(name_or_path, Path)
        if local and installed and not is_path:
            raise PackageError(
                f"{name!r} is an installed package and also {path.absolute()}; write "
                f"{installed[0].id}@{installed[0].version} or .{os.sep}{name}."
            )
        if local:
            return package_root(local, local) if local.is_dir() else self.import_file(local)
        if installed:
            return installed[0].path
        if bundled := _with_name(self.bundled(), name):
            return bundled[0].path
        if path.exists():
            raise PackageError(
                f"{path} is no package, or a damaged one: its zip file, or the folder that holds "
                f"{METADATA}, is wanted."
            )
        raise self._unknown(name)

    def remove(self, id: str, version: str | None = None) -> None:
        """Remove a version of a package, or all of them. Raises PackageError and OutputError."""
        wanted = id if version is None else f"{id}@{version}"
        if not self._named(wanted):
            raise self._unknown(wanted)
        with self._lock("store"), self._staging() as staging:
            for package in self._named(wanted):
                with self._explained():
                    move(package.path, staging / f"{package.id}@{package.version}")
                with contextlib.suppress(OSError):
                    package.path.parent.rmdir()

    def _add(
        self,
        source: Path,
        cancel: Cancel,
        replace: bool = False,
        expected: tuple[str, str] | None = None,
    ) -> Path:
        """Copy or unpack ``source``, check it, move it to its place."""
        with self._lock("store", cancel), self._staging() as staging:
            content = staging / "content"
            with self._explained():
                content.mkdir()
            if source.is_dir():
                copy_folder(source, content, cancel)
            else:
                extract_archive(source, content, cancel)
            folder = package_root(content, source)
            identity = self._checked_identity(folder, source)
            if expected and identity != expected:
                raise PackageError(
                    f"The file that the catalog lists as {'@'.join(expected)} is "
                    f"{'@'.join(identity)}; it was not installed."
                )
            target = self._folder_of(*identity)
            if not replace and self._is_whole(target):
                if not same_files(folder, target):
                    raise PackageError(
                        f"{source} was not installed: another package is installed as "
                        f"{'@'.join(identity)}; remove that one first, or give this one another "
                        "version."
                    )
                return target
            with self._explained():
                swap(folder, target, staging / "replaced")
            return target

    def _checked_identity(self, folder: Path, source: Path) -> tuple[str, str]:
        try:
            package = self._validate(folder)
        except PackageError as error:
            reason = str(error).replace(str(folder), source.name)
            raise PackageError(f"{source} was not installed. {reason}") from error
        for field, value, pattern in (
            ("id", package.id, ID),
            ("version", package.version, VERSION),
        ):
            try:
                portable_path(value)
                is_safe = pattern.fullmatch(value) is not None
            except ValueError:
                is_safe = False
            if not is_safe:
                raise PackageError(
                    f"{source} was not installed: its {field} {value!r:.80} cannot be the name of "
                    "a folder on every system; use lower-case letters, digits, dots and dashes."
                )
        return package.id, package.version

    def _is_whole(self, folder: Path) -> bool:
        if not folder.exists():
            return False
        try:
            self._validate(folder)
        except MIMSegmentError:
            return False
        return True

    def _folder_of(self, id: str, version: str) -> Path:
        return self._root / id / version

    def _named(self, name: str) -> list[InstalledPackage]:
        """The installed versions that ``id`` or ``id@version`` means, the newest first."""
        return _with_name(self.installed(), name)

    def _unknown(self, name: str) -> PackageError:
        packages = self.installed() + self.bundled()
        names = sorted({p.id for p in packages} | {f"{p.id}@{p.version}" for p in packages})
        near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
        if near:
            hint = f"did you mean {' or '.join(near)}?"
        elif packages:
            hint = f"there {_are(packages)}."
        else:
            hint = "none is installed yet."
        return PackageError(
            f"There is no model package {name!r}; {hint} `mimsegment models list` shows all "
            "that can be had."
        )

    @contextlib.contextmanager
    def _lock(self, name: str, cancel: Cancel = lambda: False) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            with self._explained():
                locks = self._root / ".locks"
                locks.mkdir(parents=True, exist_ok=True)
                stack.enter_context(file_lock(locks / f"{name}.lock", cancel))
            yield

    @contextlib.contextmanager
    def _staging(self) -> Iterator[Path]:
        """An empty folder on the store's disk, removed at the end. Needs the lock ``store``."""
        parent = self._root / ".staging"
        # Only the holder of the lock has anything here; the rest was left by a crash.
        shutil.rmtree(parent, ignore_errors=True)
        staging = parent / secrets.token_hex(4)
        with self._explained():
            staging.mkdir(parents=True)
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"Packages cannot be stored in {self._root}: {error.strerror or error}; choose a "
                f"folder that you may write to with the environment variable {HOME_VARIABLE}."
            ) from error

    def _drop_old_downloads(self, folder: Path) -> None:
        oldest = time.time() - _UNFINISHED_KEPT_SECONDS
        for path in folder.glob("*"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < oldest:
                    path.unlink()


def _are(packages: list[InstalledPackage]) -> str:
    names = sorted({package.id for package in packages})
    return f"{'is' if len(names) == 1 else 'are'} {joined(names)}"


def _with_name(packages: list[InstalledPackage], name: str) -> list[InstalledPackage]:
    id, _, version = name.lower().partition("@")
    return [p for p in packages if p.id == id and version in ("", p.version.lower())]
