"""Whose images they are, in a folder that has no list of its subjects.

A patient's images must never be on both sides of a split. DICOM says whose an image is; else the
sub-folder that holds it does.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath

from mim.cases import case_id, is_dicom


def common_folder(folder: Path, images: Iterable[Path]) -> Path:
    """The folder at or below ``folder`` that holds all ``images``, the parts of none of them."""
    parents = [path.parent if path != folder else folder for path in images]
    return Path(os.path.commonpath(parents))


def subjects_of(places: Mapping[Path, PurePath], ids: Mapping[Path, str]) -> dict[Path, str]:
    """The subject of each image file or DICOM folder.

    ``places`` are their paths from the folder that holds the patients' folders, ``ids`` their
    cases' names. The patient is told by DICOM's PatientID; an image without one belongs to the only
    patient of its folder, of the nearest that holds DICOM images, and is nobody's ("") where that
    folder holds several. Where there is no DICOM the outermost sub-folder is the subject, and a
    file in none is one of its own. A patient is called by that folder or by a case, never by name
    or ID.
    """
    patients = {path: patient_id(path) for path in places if path.is_dir()}
    around = _patients_by_folder(places, patients)
    owners = {path: patients.get(path) or _only(place, around) for path, place in places.items()}
    names = _names(places, ids, owners)
    return {
        path: names.get(owner, "") if owner is not None else _folder(places[path]) or ids[path]
        for path, owner in owners.items()
    }


def patient_id(folder: Path) -> str:
    """PatientID of a folder's first DICOM file; empty where it has none. Tells who it is: it must
    stay in memory."""
    import pydicom

    first = next(p for p in sorted(folder.iterdir()) if p.is_file() and is_dicom(p))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom quotes odd values in its warnings
        try:
            header = pydicom.dcmread(first, stop_before_pixels=True, specific_tags=["PatientID"])
            return str(header.get("PatientID") or "").strip()
        except Exception:  # pydicom has no base class for what a damaged file makes it raise
            return ""


def _patients_by_folder(
    places: Mapping[Path, PurePath], patients: Mapping[Path, str]
) -> dict[PurePath, set[str]]:
    around: dict[PurePath, set[str]] = {}
    for path, patient in patients.items():
        for folder in (places[path], *_folders(places[path])) if patient else ():
            around.setdefault(folder, set()).add(patient)
    return around


def _only(place: PurePath, around: Mapping[PurePath, set[str]]) -> str | None:
    """The patient of the nearest folder with DICOM images; "" for several, None for no folder."""
    found = next((around[folder] for folder in _folders(place) if folder in around), None)
    if found is None:
        return None
    return next(iter(found)) if len(found) == 1 else ""


def _names(
    places: Mapping[Path, PurePath], ids: Mapping[Path, str], owners: Mapping[Path, str | None]
) -> dict[str, str]:
    """What each patient is called: by an outermost folder of theirs alone, else by a case."""
    first: dict[str, Path] = {}
    outermost: dict[str, set[str]] = {}
    for path, owner in owners.items():
        if owner:
            first.setdefault(owner, path)
            outermost.setdefault(owner, set()).add(_folder(places[path]))
    names = {}
    for owner, path in first.items():
        folder = _folder(places[path])
        shared = sum(folder in folders for folders in outermost.values()) > 1
        own = folder and outermost[owner] == {folder} and not shared
        names[owner] = folder if own else ids[path]
    return names


def _folders(place: PurePath) -> list[PurePath]:
    """The folders around an image, the nearest first, without the one that holds all patients."""
    return list(place.parents)[:-1]


def _folder(place: PurePath) -> str:
    return case_id(place.parts[0]) if len(place.parts) > 1 else ""
