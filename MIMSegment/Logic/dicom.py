"""DICOM series as volumes."""

from __future__ import annotations

from pathlib import Path

from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.volume import Volume, from_itk, itk


def read_dicom(path: str | Path) -> Volume:
    """Read the only image series of a folder, or the series of one of its files."""
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    reader = itk().ImageSeriesReader()
    uids = reader.GetGDCMSeriesIDs(str(folder))
    if len(uids) != 1:
        raise InputError(f"{folder} holds {len(uids)} DICOM series; give the folder of one.")
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), uids[0]))
    return from_itk(reader.Execute(), str(folder))
