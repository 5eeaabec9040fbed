"""A bundled sample study as a scanner would send it: one DICOM series for each sequence."""

from pathlib import Path

import numpy as np

from dicom_writer import write_series
from MIMSegment.Logic.samples import sample_study
from MIMSegment.Logic.volume import read_volume

PATIENT = {
    "PatientName": "Phantom",
    "PatientID": "PHANTOM",
    "PatientBirthDate": "",
    "PatientSex": "O",
    "AccessionNumber": "",
    "StudyID": "1",
    "StudyDate": "20260101",
    "StudyTime": "120000",
    "ReferringPhysicianName": "",
}


def write_phantom_dicom(sample_id: str, folder: Path) -> Path:
    """Write the sample study into ``folder``, which is returned; a sub-folder for each series."""
    for number, (name, path) in enumerate(sample_study(sample_id).files.items(), 1):
        volume = read_volume(path)
        geometry = volume.geometry
        write_series(
            folder / name,
            volume.array[0].astype(np.int16),
            spacing=geometry.spacing,
            origin=geometry.origin,
            orientation=geometry.direction[:, :2].T,
            tags={**PATIENT, "SeriesDescription": name, "SeriesNumber": number},
        )
    return folder
