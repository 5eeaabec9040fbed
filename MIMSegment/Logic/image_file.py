"""Writing ITK images so that what stands at the target is complete."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from MIMSegment.Logic.errors import OutputError
from MIMSegment.Logic.files import replacing
from MIMSegment.Logic.volume import Volume, itk, to_itk

WRITABLE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha")
"""Formats of one file each: header and data appear together or not at all."""
_NIFTI_HEADER = 352  # bytes before the voxels in a single file without extensions


def write_image(image, path: str | Path) -> None:
    """Write a SimpleITK image by file ending. Raises OutputError; an old file then stays."""
    if not str(path).lower().endswith(WRITABLE_SUFFIXES):
        raise OutputError(f"{path} must end in {', '.join(WRITABLE_SUFFIXES)}.")
    with replacing(path) as temporary:
        itk().WriteImage(image, str(temporary), useCompression=True)
        _check_nifti(temporary, image)


def write_channels(volume: Volume, path: str | Path) -> None:
    """Write one channel as a 3D image, several as a 4D one. Raises OutputError.

    A vector image would become a 5D NIfTI, which few programs read.
    """
    images = [to_itk(Volume(channel[None], volume.geometry)) for channel in volume.array]
    write_image(images[0] if len(images) == 1 else itk().JoinSeries(images), path)


def _check_nifti(path: Path, image) -> None:
    """ITK's NIfTI writer does not say when the disk was full: the file's own length does."""
    if path.name.endswith((".nii", ".nii.gz")):
        values = image.GetNumberOfPixels() * image.GetNumberOfComponentsPerPixel()
        expected = _NIFTI_HEADER + values * image.GetSizeOfPixelComponent()
        if path.name.endswith(".gz"):
            complete = path.stat().st_size and _length_in_gzip(path) == expected % 2**32
        else:
            complete = path.stat().st_size == expected
        if not complete:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _length_in_gzip(path: Path) -> int:
    """The length modulo 2³² that the last four bytes state (RFC 1952)."""
    with path.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        return int.from_bytes(file.read(4), "little")
