"""NIfTI files against nibabel, and those that ITK would misread without a word."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest

from MIMSegment.Logic.errors import GeometryError, InputError
from MIMSegment.Logic.nifti import read_nifti
from MIMSegment.Logic.volume import read_volume

RAS_TO_LPS = np.diag([-1.0, -1, 1, 1])


def affine(seed: int = 0) -> np.ndarray:
    """A random oblique RAS affine without shear, perhaps left-handed."""
    random = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(random.normal(size=(3, 3)))
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * random.uniform(0.4, 5, 3)
    matrix[:3, 3] = random.uniform(-200, 200, 3)
    return matrix


def values(shape=(5, 6, 7), dtype=np.int16, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 120, shape).astype(dtype)


def save(path, array, matrix=None, kind=nib.Nifti1Image, change=None):
    image = kind(array, affine() if matrix is None else matrix)
    if change:
        change(image.header)
    nib.save(image, path)
    return path


def patch(path, offset: int, content: bytes):
    """Overwrite bytes of an uncompressed file."""
    data = bytearray(path.read_bytes())
    data[offset : offset + len(content)] = content
    path.write_bytes(data)
    return path


def agrees(volume, path) -> bool:
    image = nib.load(path)
    expected = np.asanyarray(image.dataobj)
    expected = expected.reshape(*expected.shape[:3], -1).T
    same_place = np.abs(RAS_TO_LPS @ image.affine - volume.geometry.ijk_to_lps).max() < 1e-4
    return same_place and np.allclose(volume.array, expected, rtol=1e-6, atol=1e-6)


# Geometry


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_random_oblique_grids_agree_with_nibabel(tmp_path, seed, name):
    path = save(tmp_path / name, values(seed=seed), affine(seed))
    volume = read_volume(path)
    assert agrees(volume, path)
    assert volume.warnings == ()


def test_nifti_2_agrees_with_nibabel(tmp_path):
    path = save(tmp_path / "a.nii.gz", values(), affine(3), nib.Nifti2Image)
    assert agrees(read_volume(path), path)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_big_endian_files_come_in_native_order(tmp_path, kind):
    header = kind.header_class(endianness=">")
    header.set_data_dtype(np.int16)
    array = values().astype(">i2")
    nib.save(kind(array, affine(), header), tmp_path / "a.nii")
    assert nib.load(tmp_path / "a.nii").header.endianness == ">"
    volume = read_volume(tmp_path / "a.nii")
    assert agrees(volume, tmp_path / "a.nii")
    assert volume.array.dtype == np.dtype(np.int16)


@pytest.mark.parametrize("seed", range(6))
def test_qform_alone_gives_the_geometry(tmp_path, seed):
    def only_qform(header):
        header.set_qform(affine(seed), code=1)
        header.set_sform(None, code=0)

    path = save(tmp_path / "a.nii", values(), affine(seed), change=only_qform)
    assert agrees(read_volume(path), path)


def test_a_half_turn_in_the_qform_is_not_tilted_by_rounding(tmp_path):
    matrix = np.diag([-5.078, -5.078, 2.5, 1])

    def only_qform(header):
        header.set_qform(matrix, code=1)
        header.set_sform(None, code=0)

    path = save(tmp_path / "a.nii", values((128, 128, 4)), matrix, change=only_qform)
    for place in (256, 260, 264):  # the quaternion
        stored = struct.unpack("<f", path.read_bytes()[place : place + 4])[0]
        patch(path, place, struct.pack("<f", stored * (1 - 6e-8)))
    assert np.allclose(read_volume(path).geometry.direction, np.diag([1, 1, 1]), atol=1e-7)


def test_sform_is_used_where_both_disagree_and_the_user_is_told(tmp_path):
    moved = affine(1)
    moved[0, 3] += 12

    def both(header):
        header.set_qform(moved, code=1)
        header.set_sform(affine(1), code=2)

    path = save(tmp_path / "a.nii", values(), affine(1), change=both)
    volume = read_volume(path)
    assert np.allclose(volume.geometry.ijk_to_lps, RAS_TO_LPS @ affine(1), atol=1e-4)
    assert any("12.0 mm" in w and "sform was used" in w for w in volume.warnings)


def test_two_voxel_sizes_in_one_header_are_told(tmp_path):
    path = patch(save(tmp_path / "a.nii", values(), np.eye(4)), 252, struct.pack("<2h", 0, 2))
    assert read_volume(path).warnings == ()
    patch(path, 80, struct.pack("<3f", 0.5, 0.5, 3))  # pixdim
    assert "1 × 1 × 1 mm (sform) and 0.5 × 0.5 × 3 mm (pix" in read_volume(path).warnings[0]


def test_without_any_orientation_the_convention_is_assumed_and_told(tmp_path):
    path = save(tmp_path / "a.nii", values(), np.diag([0.5, 0.75, 3, 1]))
    patch(path, 252, bytes(4))  # qform_code and sform_code
    volume = read_volume(path)
    assert volume.geometry.orientation == "LPS"
    assert volume.geometry.spacing == pytest.approx((3, 0.75, 0.5))
    assert any("which side is left" in warning for warning in volume.warnings)


@pytest.mark.parametrize("degrees", [18.5, -7.0, 1.0])
def test_a_sheared_grid_is_refused_with_its_angle(tmp_path, degrees):
    matrix = affine(2)
    shear = np.eye(4)
    shear[1, 2] = np.tan(np.radians(degrees))
    scale = np.diag([0.8, 0.8, 0.8, 1.0])
    matrix[:3, :3] /= np.linalg.norm(matrix[:3, :3], axis=0)
    path = save(tmp_path / "tilt.nii", values((60, 60, 40)), matrix @ scale @ shear)
    with pytest.raises(GeometryError, match=rf"tilt.nii has a sheared grid \(axes {abs(degrees)}"):
        read_volume(path)


def test_shear_far_below_a_voxel_is_taken_as_rounding(tmp_path):
    matrix = np.diag([1.0, 1, 1, 1])
    matrix[1, 2] = 1e-4
    path = save(tmp_path / "a.nii", values((60, 60, 40)), matrix)
    geometry = read_volume(path).geometry
    gram = geometry.direction.T @ geometry.direction
    assert np.allclose(gram, np.eye(3), atol=1e-9)
    assert np.allclose(geometry.ijk_to_lps, RAS_TO_LPS @ matrix, atol=4e-3)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_an_orientation_that_cannot_be_inverted_is_refused(tmp_path, bad):
    path = save(tmp_path / "a.nii", values())
    for row in (280, 296, 312):  # first column of the sform
        patch(path, row, struct.pack("<f", bad))
    with pytest.raises(GeometryError, match="cannot be inverted"):
        read_volume(path)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000), ("micron", 0.001)])
def test_lengths_are_brought_to_millimeters(tmp_path, unit, factor):
    for code in ("sform", "qform"):

        def change(header, code=code):
            header.set_xyzt_units(unit)
            header.set_qform(affine(), code=int(code == "qform"))
            header.set_sform(affine(), code=int(code == "sform"))

        path = save(tmp_path / f"{code}.nii", values(), change=change)
        expected = np.diag([factor] * 3 + [1]) @ RAS_TO_LPS @ affine()
        assert np.allclose(read_nifti(path).geometry.ijk_to_lps, expected, rtol=1e-5)


# Values


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_every_plain_type_keeps_its_type_and_values(tmp_path, dtype):
    array = values(dtype=dtype)
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(array, affine(), dtype=np.dtype(dtype)), path)
    volume = read_volume(path)
    assert volume.array.dtype == np.dtype(dtype)
    assert np.array_equal(volume.array[0], array.T)


@pytest.mark.parametrize(("slope", "intercept"), [(0.25, -3.5), (2.0, 0.0), (1.0, -1024.0)])
def test_scaling_is_applied_as_the_header_says(tmp_path, slope, intercept):
    path = save(tmp_path / "a.nii", values())
    patch(path, 112, struct.pack("<2f", slope, intercept))
    volume = read_volume(path)
    assert volume.array.dtype == np.float32
    assert np.allclose(volume.array[0], values().T * slope + intercept)
    assert agrees(volume, path)


@pytest.mark.parametrize("slope", [0.0, np.nan])
def test_an_unset_scaling_leaves_integers_alone(tmp_path, slope):
    path = save(tmp_path / "a.nii", values())
    patch(path, 112, struct.pack("<2f", slope, 7.0))
    volume = read_volume(path)
    assert volume.array.dtype == np.int16
    assert np.array_equal(volume.array[0], values().T)


def test_scaled_32_bit_integers_keep_their_precision(tmp_path):
    array = values(dtype=np.int32) + 2**24 + 1
    path = save(tmp_path / "a.nii", array)
    patch(path, 112, struct.pack("<2f", 1.0, 1.0))
    assert np.array_equal(read_volume(path).array[0], array.T + 1)


def test_the_fourth_axis_becomes_channels(tmp_path):
    path = save(tmp_path / "a.nii.gz", values((5, 6, 7, 3)))
    volume = read_volume(path)
    assert volume.array.shape == (3, 7, 6, 5)
    assert agrees(volume, path)


def test_vectors_along_the_fifth_axis_become_channels(tmp_path):
    array = values((5, 6, 7, 1, 3))
    volume = read_volume(save(tmp_path / "a.nii", array))
    assert np.array_equal(volume.array, array[:, :, :, 0].T)


def test_time_and_vectors_at_once_are_refused(tmp_path):
    path = save(tmp_path / "a.nii", values((5, 6, 7, 2, 3)))
    with pytest.raises(InputError, match="5D image"):
        read_volume(path)


def test_a_single_slice_is_refused(tmp_path):
    with pytest.raises(InputError, match="single slice"):
        read_volume(save(tmp_path / "a.nii", values((5, 6, 1))))
    with pytest.raises(InputError, match="single slice"):
        read_volume(save(tmp_path / "b.nii", values((5, 6))))


@pytest.mark.parametrize(
    ("dtype", "what"),
    [
        (np.complex64, "complex"), (np.complex128, "complex"),
        (np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]), "colors"),
        (np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1"), ("A", "u1")]), "colors"),
    ],
)  # fmt: skip
def test_complex_and_color_values_are_refused(tmp_path, dtype, what):
    path = save(tmp_path / "a.nii.gz", np.zeros((4, 4, 4), dtype))
    with pytest.raises(InputError, match=rf"a.nii.gz holds {what}"):
        read_volume(path)


# Damage


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("keep", [0, 10, 200, 347, 0.5, 0.99])
def test_a_file_cut_short_is_refused_by_name(tmp_path, name, keep):
    path = save(tmp_path / name, values((40, 40, 40), seed=1))
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(InputError, match=name):
        read_volume(path)


def test_a_wrong_checksum_is_noticed(tmp_path):
    path = save(tmp_path / "a.nii.gz", values((40, 40, 40)))
    data = bytearray(path.read_bytes())
    data[-8] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        read_volume(path)


def test_flipped_bits_in_the_compressed_stream_are_noticed(tmp_path):
    path = save(tmp_path / "a.nii.gz", values((40, 40, 40)))
    original = path.read_bytes()
    for place in np.linspace(40, len(original) - 9, 40).astype(int):
        damaged = bytearray(original)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.nii\.gz"):
            read_volume(path)


def test_an_impossible_size_is_refused(tmp_path):
    path = save(tmp_path / "a.nii", values())
    patch(path, 42, struct.pack("<3h", 0, -4, 7))
    with pytest.raises(InputError, match="impossible size"):
        read_volume(path)


def test_an_absurd_size_does_not_take_all_memory(tmp_path):
    path = save(tmp_path / "a.nii", values())
    patch(path, 40, struct.pack("<5h", 4, 32767, 32767, 32767, 32767))
    with pytest.raises(InputError, match=r"a\.nii"):
        read_volume(path)


def test_half_of_an_image_pair_is_refused(tmp_path):
    path = save(tmp_path / "a.nii", values())
    patch(path, 344, b"ni1\0")
    with pytest.raises(InputError, match="pair"):
        read_volume(path)


def test_something_else_under_the_name_is_refused(tmp_path):
    path = tmp_path / "a.nii"
    path.write_bytes(b"<html>" * 200)
    with pytest.raises(InputError, match="is not a NIfTI file"):
        read_volume(path)


@pytest.mark.parametrize("name", ["packed.nii", "plain.nii.gz"])
def test_compression_is_told_by_content_not_by_name(tmp_path, name):
    source = save(tmp_path / "source.nii", values())
    data = source.read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(data) if name == "packed.nii" else data)
    assert np.array_equal(read_volume(tmp_path / name).array[0], values().T)


# Real files


@pytest.mark.real_data
def test_a_sheared_ct_is_not_accepted(data_dir):
    with pytest.raises(GeometryError, match=r"shear.nii.gz has a sheared grid \(axes 18.5°"):
        read_volume(data_dir / "nifti_awkward" / "shear.nii.gz")


@pytest.mark.real_data
def test_a_complex_image_is_refused(data_dir):
    with pytest.raises(InputError, match=r"complex.nii.gz holds complex numbers"):
        read_volume(data_dir / "nifti_awkward" / "complex.nii.gz")


@pytest.mark.real_data
def test_axes_in_unusual_order_are_kept(data_dir):
    path = data_dir / "nifti_awkward" / "AIL.nii.gz"
    volume = read_volume(path)
    assert agrees(volume, path)
    assert volume.geometry.orientation == "AIL"


@pytest.mark.real_data
def test_scribbles_lie_on_the_image_they_were_drawn_on(data_dir):
    folder = data_dir / "nifti_awkward"
    drawing = read_volume(folder / "draw.nii.gz")
    assert agrees(drawing, folder / "draw.nii.gz")
    assert drawing.geometry.is_close(read_volume(folder / "AIL.nii.gz").geometry)


@pytest.mark.real_data
def test_a_file_without_orientation_is_read_with_a_warning(data_dir):
    import SimpleITK as sitk

    path = data_dir / "nifti_awkward" / "minimal.nii.gz"
    volume = read_volume(path)
    image = sitk.ReadImage(str(path))
    assert np.array_equal(volume.array[0], sitk.GetArrayFromImage(image))
    assert np.allclose(volume.geometry.direction, np.reshape(image.GetDirection(), (3, 3)))
    assert np.allclose(volume.geometry.origin, image.GetOrigin())
    assert volume.geometry.spacing == pytest.approx(image.GetSpacing()[::-1])
    assert any("which side is left" in warning for warning in volume.warnings)


@pytest.mark.real_data
def test_a_label_image_of_eleven_classes_keeps_its_values(data_dir):
    path = data_dir / "nifti_awkward" / "torsoLabel.nii.gz"
    volume = read_volume(path)
    assert agrees(volume, path)
    assert volume.array.dtype == np.uint8
    assert len(np.unique(volume.array)) == 12


@pytest.mark.real_data
@pytest.mark.parametrize(
    "pattern",
    [
        "hippocampus_mr/imagesTr/*.nii.gz", "headneck_ct_openkbp/imagesTr/*.nii.gz",
        "prostate_t2_promise12/imagesTr/*.nii.gz", "brain_lgg_mr/imagesTr/*.nii.gz",
        "organs_ct_totalsegmentator/**/*.nii.gz", "liver_ct_chaos_dicom/labelsTr/*.nii.gz",
        "brain_labelmap_synthseg/**/*.nii.gz", "spleen_ct_msd_lowres/**/*.nii.gz",
        "prostate_mpmri_prostatex/labels/*/*.nii.gz",
    ],
)  # fmt: skip
def test_real_files_agree_with_nibabel(data_dir, pattern):
    paths = sorted(data_dir.glob(pattern))[:2]
    assert paths
    for path in paths:
        assert agrees(read_volume(path), path)
