"""The DICOM files that were segmented, read again for what refers to them.

De-identified files often lack what the standard asks for. What may be empty is empty then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from MIMSegment.Logic.errors import InputError, OutputError

if TYPE_CHECKING:
    from pydicom import Dataset

_REFERRED_TO = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")
_MAY_BE_EMPTY = (  # of type 2 in the modules Patient and General Study (PS3.3 C.7.1.1, C.7.2.1)
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
_SEXES = ("M", "F", "O")


def read_source(path: Path, tags: Sequence[str] | None = None) -> Dataset:
    """The file, or only these ``tags`` of it; with or without the preamble and the file meta
    information of DICOM's file format, as the images themselves are read. Raises InputError."""
    from pydicom import dcmread

    try:
        return dcmread(path, force=True, specific_tags=None if tags is None else list(tags))
    except Exception as error:  # pydicom raises whatever the bytes lead it to
        raise InputError(
            f"{path} cannot be read any more ({getattr(error, 'strerror', None) or error}); put it "
            "back, or open the images anew."
        ) from None


def read_sources(paths: Sequence[Path]) -> list[Dataset]:
    """The files of a series, with all that an image derived from them takes from them.

    Missing and invalid values that may be empty are empty. A series without a frame of reference
    gets one, the same each time: its files lie where they say in one space of their own, and
    nothing else is said to lie in it. Raises InputError, and OutputError for a file that nothing
    can refer to.
    """
    from pydicom.uid import generate_uid

    sources = [_completed(read_source(path), path) for path in paths]
    if not any(source.get("FrameOfReferenceUID") for source in sources):
        uid = generate_uid(entropy_srcs=["frame of reference", sources[0].SeriesInstanceUID])
        for source in sources:
            source.FrameOfReferenceUID = uid
    return sources


def patient_of(files: Sequence[Path]) -> str:
    """The patient's ID in the first of the files, to tell people apart and for nothing else; "" for
    de-identified ones and without files. Raises InputError."""
    if not files:
        return ""
    return str(read_source(files[0], ["PatientID"]).get("PatientID") or "").strip()


def other_patient(files: Sequence[Path], others: Sequence[Path]) -> bool:
    """Whether the files say that they are of two people; false where that is not known."""
    with contextlib.suppress(InputError):
        return len({patient_of(files), patient_of(others)} - {""}) == 2
    return False


def _completed(source: Dataset, path: Path) -> Dataset:
    missing = next((keyword for keyword in _REFERRED_TO if not source.get(keyword)), None)
    if missing:
        raise OutputError(
            f"{path} has no {missing}, to which a DICOM SEG refers; export .seg.nrrd instead."
        )
    for keyword in _MAY_BE_EMPTY:
        if not _is_valid(keyword, source.get(keyword)):
            setattr(source, keyword, "")
    return source


def _is_valid(keyword: str, value: object) -> bool:
    from pydicom.valuerep import DA, TM

    kinds = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}
    if keyword in kinds:
        with contextlib.suppress(ValueError, TypeError):
            return kinds[keyword](value) is not None
        return False
    return value in _SEXES if keyword == "PatientSex" else value is not None
