"""NRRD and MetaImage (MHA) files, read by ITK; what it would misread without a word is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.image_header import find_payload
from MIMSegment.Logic.image_kind import told_by_content
from MIMSegment.Logic.payload import check_payload
from MIMSegment.Logic.shear import straightened
from MIMSegment.Logic.volume import Geometry, Volume, from_itk, itk, unstated_side


def read_itk_file(path: str | Path) -> Volume:
    """Read a NRRD or MetaImage file. Raises InputError, also for damaged or missing voxels,
    and GeometryError for a sheared grid.
    """
    path = Path(path)
    check_voxels(path)
    try:
        image = itk().ReadImage(str(path))
    except RuntimeError as error:
        told = told_by_content(path)
        if told and "ImageIO" in str(error):
            raise InputError(f"{path} cannot be read; {told}") from None
        reason = str(error).strip().splitlines()[-1].removeprefix("sitk::ERROR: ")
        raise InputError(
            f"{path} cannot be read ({reason.rstrip('.')}); save it again in the program that it "
            "comes from, with gzip or without compression."
        ) from None
    if "complex" in image.GetPixelIDTypeAsString():
        raise InputError(f"{path} holds complex numbers; save its magnitude as an image first.")
    volume = from_itk(image, str(path))
    shape = volume.geometry.shape
    matrix = straightened(volume.geometry.ijk_to_lps, shape, str(path), "SimpleITK.Resample")
    warnings = () if _states_side(image, path) else (unstated_side(path),)
    return replace(volume, geometry=Geometry(shape, matrix), warnings=warnings)


def check_voxels(path: Path) -> None:
    """Raise InputError unless all voxels that the header states are there, and undamaged."""
    payload = find_payload(path)
    if payload is not None:
        check_payload(payload, path)


def _states_side(image, path: Path) -> bool:
    """Whether the axes are the patient's: always in a MetaImage, by the field ``space`` in NRRD."""
    if not path.name.lower().endswith((".nrrd", ".nhdr")):
        return True
    return image.HasMetaDataKey("NRRD_space") and "superior" in image.GetMetaData("NRRD_space")
