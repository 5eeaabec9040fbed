"""T2w, ADC and b-value series of one patient, on three oblique grids, wherever they lie.

The network thresholds the mean of its inputs, so that a misplaced one shows at once.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from MIMSegment.Logic.alignment import combine
from MIMSegment.Logic.cli import main
from MIMSegment.Logic.inference import InferenceOptions, run_package
from MIMSegment.Logic.spec import Normalization
from MIMSegment.Logic.volume import (
    Geometry,
    Volume,
    from_itk,
    itk,
    read_volume,
    to_itk,
    write_volume,
)
from tiny_package import threshold_spec, write_threshold_package

pytestmark = pytest.mark.real_data
NAMES, FOLDERS = ("T2w", "ADC", "DWI"), ("t2w", "adc", "hbv")
WIDTHS = (400.0, 2000.0, 100.0)  # gray value that becomes 1: usual inside a prostate
ALIKE = 0.9999  # of the voxels: points on an image's border may fall on either side of it
CPU = InferenceOptions(device="cpu", threads=1)

MOVED = np.eye(4)
MOVED[:3, :3] = Rotation.from_euler("zyx", [25, 10, -5], degrees=True).as_matrix()
MOVED[:3, 3] = (40.0, -70.0, 15.0)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    spec = threshold_spec(inputs=3, patch=(19, 128, 128))
    scales = tuple(Normalization("ct", std=w, lower=0.0, upper=w) for w in WIDTHS)
    preprocessing = replace(spec.preprocessing, normalization=scales)
    folder = tmp_path_factory.mktemp("prostate") / "package"
    return write_threshold_package(folder, replace(spec, preprocessing=preprocessing), use_all=True)


@pytest.fixture(scope="module")
def folder(data_dir):
    return data_dir / "prostate_mpmri_prostatex" / "dicom" / "ProstateX-0000"


@pytest.fixture(scope="module")
def series(folder):
    return [read_volume(folder / name) for name in FOLDERS]


@pytest.fixture(scope="module")
def expected(folder, package, tmp_path_factory):
    """The result on the series as they come from the scanner."""
    out = tmp_path_factory.mktemp("expected") / "out.nrrd"
    assert segment([folder], package, out) == 0
    return read_volume(out)


def segment(inputs, package, out) -> int:
    options = ["-m", package.path, "-o", out, "-q", "--device", "cpu"]
    return main([str(word) for word in ("segment", *inputs, *options)])


def moved(volume, matrix) -> Volume:
    geometry = Geometry(volume.geometry.shape, matrix @ volume.geometry.ijk_to_lps)
    return replace(volume, geometry=geometry)


def alike(one, other) -> float:
    assert 0.02 < (one == 3).mean() < 0.98, "the threshold shows nothing"
    return float((one == other).mean())


def test_the_series_lie_on_different_oblique_grids(series):
    t2w, adc, dwi = (volume.geometry for volume in series)
    assert np.abs(t2w.direction - np.round(t2w.direction)).max() > 0.05
    assert t2w.shape != adc.shape and t2w.spacing != pytest.approx(adc.spacing)
    assert not np.allclose(t2w.origin, dwi.origin, atol=1)


def test_they_give_what_inputs_aligned_beforehand_give(series, package, expected, tmp_path):
    """Aligned by SimpleITK itself, which knows nothing of our code."""
    sitk, reference = itk(), to_itk(series[0])
    paths = []
    for name, volume in zip(NAMES, series, strict=True):
        image = sitk.Cast(to_itk(volume), sitk.sitkFloat32)
        low = float(volume.array.min())
        on_t2w = sitk.Resample(image, reference, sitk.Transform(), sitk.sitkLinear, low)
        paths.append(tmp_path / f"{name}.nrrd")
        write_volume(from_itk(on_t2w), paths[-1])
    assert segment(paths, package, tmp_path / "out.nrrd") == 0
    result = read_volume(tmp_path / "out.nrrd")
    assert result.geometry.is_close(expected.geometry)
    assert alike(expected.array, result.array) >= ALIKE


def test_a_rigidly_moved_copy_gives_the_same_in_its_place(series, package, expected, tmp_path):
    paths = [tmp_path / f"{name}.nrrd" for name in NAMES]
    for path, volume in zip(paths, series, strict=True):
        write_volume(moved(volume, MOVED), path)
    assert segment(paths, package, tmp_path / "out.nrrd") == 0
    result = read_volume(tmp_path / "out.nrrd")
    assert result.geometry.is_close(Geometry(expected.geometry.shape,
                                             MOVED @ expected.geometry.ijk_to_lps))  # fmt: skip
    assert alike(expected.array, result.array) >= ALIKE


def test_series_that_a_parent_transform_puts_in_place_give_the_same(series, package, expected):
    """As in a scene after a registration: ADC and b-value images lie elsewhere by themselves."""
    mrml = pytest.importorskip("MIMSegment.Logic.scene", reason="needs slicer-core")
    from MIMSegment.Logic.scene_inputs import VolumeSource
    from scene_cases import put_under

    scene = mrml.new_scene()
    sources = []
    for name, volume in zip(NAMES, series, strict=True):
        away = volume if name == "T2w" else moved(volume, np.linalg.inv(MOVED))
        node = mrml.add_volume(scene, away, name)
        if name != "T2w":
            ras = np.diag([-1.0, -1.0, 1.0, 1.0])
            put_under(scene, node, ras @ MOVED @ ras)
        sources.append(VolumeSource(node))
    result = run_package(combine([source.read() for source in sources]), package, CPU)
    assert result.geometry.is_close(expected.geometry)
    assert alike(expected.array[0], result.labels) >= ALIKE


def test_a_series_that_is_out_of_place_would_show(series, package, expected):
    shift = np.eye(4)
    shift[0, 3] = 6.0
    images = [series[0], moved(series[1], shift), series[2]]
    result = run_package(combine(images), package, CPU)
    assert alike(expected.array[0], result.labels) < 0.99
