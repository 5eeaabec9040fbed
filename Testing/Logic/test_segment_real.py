"""The command line on real, awkward files: a right result on their own grid, or one line why not.

The network is a threshold, so the right result is known voxel by voxel.
"""

from dataclasses import replace

import nibabel
import numpy as np
import pytest

from MIMSegment.Logic.cli import main
from MIMSegment.Logic.matching import InputSpec
from MIMSegment.Logic.spec import Normalization
from MIMSegment.Logic.volume import read_volume
from tiny_package import threshold_spec, write_threshold_package

pytestmark = pytest.mark.real_data
LIMIT = 100  # grey value above which the threshold package finds its structure


@pytest.fixture
def package(tmp_path):
    """Finds everything above LIMIT in any MR image, at the image's own voxel size."""
    spec = threshold_spec(patch=(32, 128, 128))
    scale = Normalization("ct", mean=LIMIT - 0.5, std=1.0, lower=-1e6, upper=1e6)
    preprocessing = replace(spec.preprocessing, normalization=(scale,))
    spec = replace(spec, inputs=(InputSpec("MRI", "MR"),), preprocessing=preprocessing)
    return write_threshold_package(tmp_path / "package", spec)


def run(package, out, source, *more):
    options = ["-m", str(package.path), "-o", str(out), "-q", "--device", "cpu"]
    return main(["segment", str(source), *more, *options])


def ras_affine(geometry):
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ geometry.ijk_to_lps


@pytest.mark.parametrize("ending", [".seg.nrrd", ".nii.gz", ".nrrd"])
def test_oblique_dicom_gives_a_result_on_its_own_grid(data_dir, package, tmp_path, ending):
    folder = data_dir / "prostate_mpmri_prostatex/dicom/ProstateX-0000/t2w"
    assert run(package, tmp_path / f"out{ending}", folder) == 0
    source, result = read_volume(folder), read_volume(tmp_path / f"out{ending}")
    assert source.geometry.shape == (19, 384, 384)
    assert abs(source.geometry.direction - np.round(source.geometry.direction)).max() > 0.05
    assert np.allclose(result.geometry.ijk_to_lps, source.geometry.ijk_to_lps, atol=1e-3)
    assert np.array_equal(result.array == 3, source.array > LIMIT)


@pytest.mark.parametrize("name", ["AIL", "draw", "torsoLabel"])
def test_nifti_of_any_axis_order_gives_a_result_on_its_own_grid(data_dir, package, tmp_path, name):
    path = data_dir / "nifti_awkward" / f"{name}.nii.gz"
    assert run(package, tmp_path / "out.nii.gz", path) == 0
    source, result = nibabel.load(path), nibabel.load(tmp_path / "out.nii.gz")
    assert np.allclose(result.affine, source.affine, atol=1e-3)
    expected = np.asarray(source.dataobj) > LIMIT
    assert np.array_equal(np.asarray(result.dataobj) == 3, expected)


def test_nifti_without_orientation_is_segmented_and_the_doubt_is_said(
    data_dir, package, tmp_path, capsys
):
    path = data_dir / "nifti_awkward" / "minimal.nii.gz"
    assert run(package, tmp_path / "out.nii.gz", path) == 0
    assert "which side is left" in capsys.readouterr().err
    source = np.asarray(nibabel.load(path).dataobj)
    result = np.asarray(nibabel.load(tmp_path / "out.nii.gz").dataobj)
    assert np.array_equal(result == 3, source > LIMIT)


@pytest.mark.parametrize(("name", "reason"), [("shear", "sheared"), ("complex", "complex")])
def test_what_cannot_be_placed_is_refused_in_one_line(
    data_dir, package, tmp_path, capsys, name, reason
):
    path = data_dir / "nifti_awkward" / f"{name}.nii.gz"
    assert run(package, tmp_path / "out.nii.gz", path) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert reason in line and path.name in line
    assert not (tmp_path / "out.nii.gz").exists()


def test_no_awkward_nifti_is_without_a_statement(data_dir):
    stated = {"AIL", "draw", "torsoLabel", "minimal", "shear", "complex"}
    files = (data_dir / "nifti_awkward").glob("*.nii.gz")
    assert {path.name.removesuffix(".nii.gz") for path in files} == stated


def test_a_package_that_does_not_fit_is_refused_in_one_line(data_dir, tmp_path, capsys):
    prostate = write_threshold_package(tmp_path / "three", threshold_spec(inputs=3))
    ct = write_threshold_package(tmp_path / "ct")
    study = data_dir / "prostate_mpmri_prostatex/dicom/ProstateX-0000"
    for package, source, reason in (
        (prostate, data_dir / "nifti_awkward/AIL.nii.gz", "needs 3"),
        (prostate, study / "t2w", "ADC"),
        (ct, study / "t2w", "CT"),
    ):
        assert run(package, tmp_path / "out.nii.gz", source) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert reason in line
    assert run(prostate, tmp_path / "out.nii.gz", study) == 0  # all three are there
    assert "DWI: " in capsys.readouterr().out


def test_wrong_geometry_never_comes_back_with_the_right_voxels(data_dir, package, tmp_path):
    """The grid of the result is the header's, read independently."""
    path = data_dir / "nifti_awkward" / "AIL.nii.gz"
    run(package, tmp_path / "out.nrrd", path)
    assert np.allclose(
        ras_affine(read_volume(tmp_path / "out.nrrd").geometry),
        nibabel.load(path).affine,
        atol=1e-3,
    )
