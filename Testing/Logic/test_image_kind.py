"""Files with a wrong ending are told what they are."""

import gzip

import numpy as np
import pytest

from dicom_writer import noise, write_series
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.volume import Geometry, Volume, read_volume, write_volume


@pytest.fixture
def kinds(tmp_path):
    """The bytes of one image in each format."""
    volume = Volume(np.ones((1, 4, 5, 6), np.int16), Geometry.from_parts((4, 5, 6), (1, 1, 1)))
    found = {"": b""}
    for ending in (".nii", ".nii.gz", ".nrrd", ".mha"):
        write_volume(volume, tmp_path / f"image{ending}")
        found[ending] = (tmp_path / f"image{ending}").read_bytes()
    found[".nrrd.gz"] = gzip.compress(found[".nrrd"])
    found[".dcm"] = write_series(tmp_path / "series", noise())[0].read_bytes()
    return found


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.nii.gz", ".nrrd", "it is a NRRD file: give its name the ending .nrrd"),
        ("a.nii", ".mha", "it is a MetaImage file: give its name the ending .mha"),
        ("a.nii", ".dcm", "it is a DICOM file: give its name the ending .dcm"),
        ("a.nrrd", ".nii.gz", "it is a NIfTI file: give its name the ending .nii.gz"),
        ("a.mha", ".nii", "it is a NIfTI file: give its name the ending .nii"),
        ("a.img", ".nii", "it is a NIfTI file: give its name the ending .nii"),
        ("a.nrrd.gz", ".nrrd.gz", "it is a compressed NRRD file: unpack it first"),
        ("a.nii.gz", "", "it is empty: copy or download it again"),
        ("a.nrrd", "", "it is empty: copy or download it again"),
        ("a", "", "it is empty: copy or download it again"),
    ],
)
def test_a_file_with_the_wrong_ending_is_told_what_it_is(kinds, tmp_path, name, content, said):
    path = tmp_path / "wrong" / name
    path.parent.mkdir()
    path.write_bytes(kinds[content])
    with pytest.raises(InputError) as error:
        read_volume(path)
    assert name in str(error.value) and said in str(error.value)
