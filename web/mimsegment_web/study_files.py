"""Where a study's results are kept on the server, and the studies that lie ready there."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from MIMSegment.Logic.audit import Provenance
from MIMSegment.Logic.volume import is_image_of_folder
from MIMSegment.Logic.workflow_state import Export

_ENDINGS = {
    Export.SCENE: ".mrb",
    Export.DICOM_SEG: ".dcm",
    Export.SEGMENTATION: ".seg.nrrd",
    Export.LABELS: ".nii.gz",
    Export.REPORT: ".html",
    Export.TABLE: ".csv",
}
_LONGEST = 60
_BEGINNING = 4096  # bytes: a DICOM file has its study's and series' UIDs there


def study_folder(root: Path, paths: Sequence[Path], title: str = "") -> Path:
    """The folder for the results of the study at ``paths``, named by ``title`` or the first path.

    The same for the same files, wherever they lie: an upload comes to a new place each time. The
    beginning of each file counts, as files of two patients may have equal names and sizes.
    """
    digest = hashlib.sha256()
    for name, size, beginning in sorted(_listing(paths)):
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
        digest.update(beginning)
    return root / f"{_plain(title or paths[0].name)}-{digest.hexdigest()[:8]}"


def export_path(folder: Path, package: str, kind: Export) -> Path:
    """A name in ``folder`` that no file has yet."""
    stem, ending, number = _plain(package), _ENDINGS[kind], 1
    path = folder / f"{stem}{ending}"
    while path.exists():
        number += 1
        path = folder / f"{stem}_{number}{ending}"
    return path


def training_folder(root: Path, made: Provenance) -> Path:
    """Where the reviewed cases of one model are collected, from all studies."""
    return root / f"training-{_plain(made.package)}-{_plain(made.version)}"


def studies_in(folder: Path | None) -> list[Path]:
    """The sub-folders and image files that may be studies, by name; hidden ones are left out."""
    if folder is None or not folder.is_dir():
        return []
    inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    found = [p for p in inside if p.is_dir() or is_image_of_folder(p.name)]
    return sorted(found, key=lambda path: path.name.lower())


def _listing(paths: Sequence[Path]) -> list[tuple[str, int, bytes]]:
    """Name, size and beginning of each file; an unreadable one has none."""
    files = []
    for path in paths:
        inside = path.rglob("*") if path.is_dir() else [path]
        files += [(f.name, f.stat().st_size, _beginning(f)) for f in inside if f.is_file()]
    return files


def _beginning(file: Path) -> bytes:
    try:
        with open(file, "rb") as opened:
            return opened.read(_BEGINNING)
    except OSError:
        return b""


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:_LONGEST] or "study"
