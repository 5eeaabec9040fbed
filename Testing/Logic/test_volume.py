import numpy as np
import pytest

from MIMSegment.Logic.errors import GeometryError, InputError
from MIMSegment.Logic.volume import (
    Geometry,
    Volume,
    axes_to,
    read_volume,
    write_volume,
)


def oblique(seed: int) -> Geometry:
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return Geometry.from_parts((5, 7, 9), rng.uniform(0.5, 4, 3), rng.normal(0, 80, 3), rotation)


def world(geometry: Geometry, z: int, y: int, x: int) -> np.ndarray:
    return (geometry.ijk_to_lps @ [x, y, z, 1])[:3]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".nii.gz"])
def test_oblique_geometry_and_values_survive_writing_and_reading(tmp_path, seed, ending):
    geometry = oblique(seed)
    array = np.random.default_rng(seed).integers(-1000, 3000, (1, *geometry.shape), np.int16)
    write_volume(Volume(array, geometry), tmp_path / f"image{ending}")
    again = read_volume(tmp_path / f"image{ending}")
    assert np.array_equal(again.array, array)
    assert np.allclose(again.geometry.ijk_to_lps, geometry.ijk_to_lps, atol=1e-3)
    assert again.geometry.is_close(geometry)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("orientation", ["LPS", "RAS", "PIR"])
def test_reorienting_moves_no_voxel_in_the_patient(seed, orientation):
    geometry = oblique(seed)
    array = np.arange(np.prod(geometry.shape), dtype=np.float32).reshape(1, *geometry.shape)
    turned = Volume(array, geometry).reoriented(orientation)
    assert turned.geometry.orientation == orientation
    for value, (z, y, x) in zip(
        (0, array.size - 1, 100),
        ((0, 0, 0), (4, 6, 8), np.unravel_index(100, geometry.shape)),
        strict=True,
    ):
        place = np.argwhere(turned.array[0] == value)[0]
        assert np.allclose(world(turned.geometry, *place), world(geometry, z, y, x), atol=1e-9)


def test_orientation_code_of_a_slicer_axial_grid_is_lps():
    assert Geometry.from_parts((2, 3, 4), (3, 1, 1)).orientation == "LPS"
    assert axes_to(Geometry.from_parts((2, 3, 4), (3, 1, 1)), "RAS")[1] == (False, True, True)


def test_resized_grid_fills_the_same_box():
    geometry = oblique(1)
    fine = geometry.resized((10, 7, 3))
    corner = world(geometry, 0, 0, 0) - geometry.ijk_to_lps[:3, :3] @ [0.5, 0.5, 0.5]
    assert np.allclose(world(fine, 0, 0, 0) - fine.ijk_to_lps[:3, :3] @ [0.5, 0.5, 0.5], corner)
    assert np.allclose(
        np.multiply(fine.shape, fine.spacing), np.multiply(geometry.shape, geometry.spacing)
    )


def test_grids_that_differ_by_a_shifted_origin_are_not_close():
    geometry = oblique(2)
    shifted = Geometry(geometry.shape, geometry.ijk_to_lps + np.eye(4)[:, [3]] * 0)
    moved = geometry.ijk_to_lps.copy()
    moved[0, 3] += 0.5
    assert geometry.is_close(shifted)
    assert not geometry.is_close(Geometry(geometry.shape, moved))
    assert not geometry.is_close(Geometry((5, 7, 8), geometry.ijk_to_lps))


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda a: a.__setitem__((0, 2, 2, 2), np.nan), "NaN"),
        (lambda a: a.__setitem__((0, 1, 1, 1), np.inf), "NaN or infinite"),
    ],
)
def test_values_that_are_no_numbers_are_refused_by_name(tmp_path, spoil, word):
    array = np.ones((1, 4, 5, 6), np.float32)
    spoil(array)
    path = tmp_path / "broken.nrrd"
    write_volume(Volume(array, Geometry.from_parts((4, 5, 6), (1, 1, 1))), path)
    with pytest.raises(InputError, match=word) as error:
        read_volume(path)
    assert "broken.nrrd" in str(error.value)


def test_a_voxel_size_in_another_unit_is_refused(tmp_path):
    """As micrometers that are taken for millimeters; the working grid would fill any memory."""
    volume = Volume(np.ones((1, 40, 50, 60)), Geometry.from_parts((40, 50, 60), (1000, 700, 700)))
    write_volume(volume, tmp_path / "huge.nrrd")
    with pytest.raises(GeometryError, match=r"huge\.nrrd has voxels of 700 × 700 × 1000 mm"):
        read_volume(tmp_path / "huge.nrrd")


def test_missing_truncated_and_flat_images_are_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_volume(tmp_path / "nothing.nrrd")
    (tmp_path / "cut.nrrd").write_bytes(b"NRRD0004\ntype: short\n")
    with pytest.raises(InputError, match=r"cut\.nrrd"):
        read_volume(tmp_path / "cut.nrrd")
    flat = Volume(np.ones((1, 1, 5, 6), np.uint8), Geometry.from_parts((1, 5, 6), (1, 1, 1)))
    write_volume(flat, tmp_path / "flat.nrrd")
    with pytest.raises(InputError, match="single slice"):
        read_volume(tmp_path / "flat.nrrd")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    from MIMSegment.Logic.errors import OutputError

    path = tmp_path / "result.nrrd"
    volume = Volume(np.ones((1, 4, 5, 6), np.uint8), Geometry.from_parts((4, 5, 6), (1, 1, 1)))
    write_volume(volume, path)
    before = path.read_bytes()
    import SimpleITK

    def fail(image, name, **options):
        with open(name, "wb") as half:
            half.write(b"half")
        raise RuntimeError("disk full")

    monkeypatch.setattr(SimpleITK, "WriteImage", fail)
    with pytest.raises(OutputError, match="disk full"):
        write_volume(volume, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
