"""Small DICOM files for tests, written from arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

from MIMSegment.Logic.dicom import read_dicom, read_series, scan_all
from MIMSegment.Logic.errors import MIMSegmentError

SECRETS = ("DOE^JANE", "ID-4711-X", "19510203", "ACC-0815")
_CLASSIC = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "PT": PositronEmissionTomographyImageStorage,
}
_ENHANCED = {
    "CT": EnhancedCTImageStorage,
    "MR": EnhancedMRImageStorage,
    "PT": EnhancedPETImageStorage,
}
AXIAL = np.array([[1.0, 0, 0], [0, 1, 0]])


def write_series(
    folder: Path,
    array: np.ndarray,
    *,
    spacing=(2.0, 0.5, 0.75),
    origin=(-10.0, 20.0, 30.0),
    orientation=AXIAL,
    positions=None,
    names=None,
    modality="MR",
    series_uid=None,
    tags=None,
    slice_tags=None,
) -> list[Path]:
    """Write ``array`` (z, y, x) of 16-bit integers as one file per slice.

    ``spacing`` (z, y, x) in mm; ``positions`` (n, 3) replace those that follow from it. ``tags``
    are set in every file, ``slice_tags(k)`` in that of slice k.
    """
    folder.mkdir(parents=True, exist_ok=True)
    uid = series_uid or generate_uid()
    normal = np.cross(*orientation)
    files = []
    for k, values in enumerate(array):
        position = np.add(origin, normal * spacing[0] * k) if positions is None else positions[k]
        dataset = image_dataset(values, modality)
        dataset.SeriesInstanceUID = uid
        dataset.InstanceNumber = k + 1
        dataset.ImagePositionPatient = [float(p) for p in position]
        dataset.ImageOrientationPatient = [float(v) for v in np.ravel(orientation)]
        dataset.PixelSpacing = [float(spacing[1]), float(spacing[2])]
        dataset.SliceThickness = 99.0
        for keyword, value in {**(tags or {}), **(slice_tags(k) if slice_tags else {})}.items():
            setattr(dataset, keyword, value)
        files.append(folder / (names[k] if names else f"{k:03d}.dcm"))
        dataset.save_as(files[-1], enforce_file_format=True)
    return files


def image_dataset(values: np.ndarray, modality: str = "MR") -> FileDataset:
    """An image of one (rows, columns) or many (n, rows, columns) frames, with a patient."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = _CLASSIC[modality]
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = "1.2.3.4"
    dataset.SeriesInstanceUID = generate_uid()
    dataset.FrameOfReferenceUID = "1.2.3.5"
    dataset.Modality = modality
    dataset.SeriesDescription = "test series"
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate, dataset.AccessionNumber = (
        SECRETS
    )
    dataset.Rows, dataset.Columns = values.shape[-2:]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.PixelData = np.ascontiguousarray(values).tobytes()
    return dataset


def write_enhanced(
    path: Path, array: np.ndarray, frames: list[dict], shared: dict, modality: str = "MR"
) -> None:
    """An enhanced MR, CT or PET image of ``array`` (n, y, x).

    ``frames`` (one each) and ``shared`` map macro sequence keywords to the attributes inside.
    """
    dataset = image_dataset(array, modality)
    dataset.SOPClassUID = _ENHANCED[modality]
    dataset.NumberOfFrames = len(array)
    dataset.SharedFunctionalGroupsSequence = Sequence([_groups(shared)])
    dataset.PerFrameFunctionalGroupsSequence = Sequence([_groups(frame) for frame in frames])
    dataset.save_as(path, enforce_file_format=True)


def _groups(macros: dict) -> Dataset:
    group = Dataset()
    for macro, attributes in macros.items():
        item = Dataset()
        for keyword, value in attributes.items():
            setattr(item, keyword, value)
        setattr(group, macro, Sequence([item]))
    return group


def noise(shape=(5, 6, 7), dtype=np.int16, seed=0, high=1000) -> np.ndarray:
    """Random integers up to ``high``, of both signs if the type has them."""
    low = -high if np.dtype(dtype).kind == "i" else 0
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def everything_said(path) -> str:
    """All text that a user or a log can see of a folder."""
    found = scan_all(path)
    said = [repr(s.title) + repr(s.header) + repr(s.warnings) for s in found.series]
    said += [repr(s) for s in found.skipped]
    for series in found.series:
        try:
            volume = read_series(series)
            said += [volume.source, repr(volume.warnings), repr(volume.header)]
        except MIMSegmentError as error:
            said.append(str(error))
    try:
        read_dicom(path)
    except MIMSegmentError as error:
        said.append(str(error))
    return "\n".join(said)
