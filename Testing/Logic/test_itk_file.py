"""NRRD and MetaImage files that ITK would misread without a word."""

import bz2

import numpy as np
import pytest

from MIMSegment.Logic.errors import GeometryError, InputError
from MIMSegment.Logic.volume import Geometry, Volume, read_volume, write_volume

SHAPE = (8, 30, 40)
VALUES = np.random.default_rng(0).integers(0, 200, SHAPE).astype("<i2")


def write_nrrd(path, space: str, third_axis="(0,0,2)"):
    """An uncompressed NRRD with the line ``space`` ("" for none) in its header."""
    directions = f"space directions: (1,0,0) (0,1,0) {third_axis}"
    header = (
        f"NRRD0004\ntype: short\ndimension: 3\nsizes: 40 30 8\nencoding: raw\nendian: little\n"
        f"{space}\n{directions}\n" if space else
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 40 30 8\nencoding: raw\nendian: little\n"
        "spacings: 1 1 2\n"
    )  # fmt: skip
    path.write_bytes(header.encode() + b"\n" + VALUES.tobytes())
    return path


def sheared(path, degrees: float):
    """A file of that ending whose slices are stacked at a slant."""
    matrix = np.diag([1.0, 1, 2, 1])
    matrix[1, 2] = 2 * np.tan(np.radians(degrees))
    write_volume(Volume(VALUES[None], Geometry(SHAPE, matrix)), path)
    return path


@pytest.mark.parametrize("name", ["scan.nrrd", "scan.mha", "scan.nii.gz"])
def test_a_path_from_the_working_folder_is_read_like_a_whole_one(tmp_path, monkeypatch, name):
    (tmp_path / "study").mkdir()
    write_volume(Volume(VALUES[None], Geometry(SHAPE, np.eye(4))), tmp_path / "study" / name)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(read_volume(f"study/{name}").array[0], VALUES)


def test_voxels_beside_a_header_are_found_from_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "study").mkdir()
    path = write_nrrd(tmp_path / "study/scan.nhdr", "space: left-posterior-superior")
    header, _, voxels = path.read_bytes().partition(b"\n\n")
    path.write_bytes(header + b"\ndata file: scan.raw\n\n")
    path.with_name("scan.raw").write_bytes(voxels)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(read_volume("study/scan.nhdr").array[0], VALUES)


@pytest.mark.parametrize("name", ["tilt.nrrd", "tilt.mha"])
@pytest.mark.parametrize("degrees", [18.0, -7.0, 3.0])
def test_a_sheared_grid_is_refused_with_its_angle_and_a_way_out(tmp_path, name, degrees):
    path = sheared(tmp_path / name, degrees)
    with pytest.raises(
        GeometryError, match=rf"{name} has a sheared grid \(axes {abs(degrees)}.*DICOM folder inst"
    ):
        read_volume(path)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_shear_far_below_a_voxel_is_taken_as_rounding(tmp_path, name):
    geometry = read_volume(sheared(tmp_path / name, 0.02)).geometry
    assert np.allclose(geometry.direction.T @ geometry.direction, np.eye(3), atol=1e-9)


@pytest.mark.parametrize("space", ["", "space dimension: 3", "space: 3D-right-handed"])
def test_a_nrrd_that_does_not_state_the_patients_left_is_read_with_a_warning(tmp_path, space):
    volume = read_volume(write_nrrd(tmp_path / "a.nrrd", space))
    assert volume.geometry.orientation == "LPS"
    assert any("a.nrrd does not state which side is left" in w for w in volume.warnings)


@pytest.mark.parametrize("space", ["right-anterior-superior", "LPS", "left-anterior-superior"])
def test_a_nrrd_that_states_the_patients_left_is_read_without_a_warning(tmp_path, space):
    volume = read_volume(write_nrrd(tmp_path / "a.nrrd", f"space: {space}"))
    sides = {"r": "RAS", "L": "LPS", "l": "LAS"}
    assert volume.geometry.orientation == sides[space[0]]
    assert volume.warnings == ()


_HEADER = b"""NRRD0004
type: short
dimension: 3
space: left-posterior-superior
sizes: 4 3 2
space directions: (1,0,0) (0,1,0) (0,0,1)
kinds: domain domain domain
endian: little
encoding: %s
space origin: (0,0,0)

"""


def test_an_encoding_that_itk_lacks_is_refused_with_a_way_out(tmp_path):
    voxels = np.arange(24, dtype=np.int16)
    path = tmp_path / "scan.nrrd"
    path.write_bytes(_HEADER % b"bzip2" + bz2.compress(voxels.tobytes()))
    with pytest.raises(InputError, match=r"scan\.nrrd.*bzip2.*save it again.*gzip"):
        read_volume(path)


def test_voxels_in_text_are_read_and_missing_ones_noticed(tmp_path):
    voxels, path = [str(n) for n in range(24)], tmp_path / "scan.nrrd"
    path.write_bytes(_HEADER % b"text" + " ".join(voxels).encode())
    np.testing.assert_array_equal(read_volume(path).array.ravel(), np.arange(24))
    path.write_bytes(_HEADER % b"text" + " ".join(voxels[:20]).encode())
    with pytest.raises(InputError, match=r"scan\.nrrd cannot be read"):
        read_volume(path)
