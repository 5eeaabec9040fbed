"""Real DICOM series, plain and awkward."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from dicom_writer import everything_said
from MIMSegment.Logic.dicom import read_series, scan, scan_all
from MIMSegment.Logic.errors import GeometryError, InputError
from MIMSegment.Logic.volume import from_itk, read_volume

pytestmark = pytest.mark.real_data


def itk_series(folder):
    """The folder as ITK's own series reader sees it, which is right for plain stacks."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


@pytest.mark.parametrize(
    "folder",
    [
        "liver_ct_chaos_dicom/dicom",
        "prostate_mpmri_prostatex/dicom/ProstateX-0000/t2w",
        "prostate_mpmri_prostatex/dicom/ProstateX-0000/adc",
        "prostate_mpmri_prostatex/dicom/ProstateX-0218/hbv",
        "brain_tumor_dicom_tcia/Study1/t1post",
        "brain_tumor_dicom_tcia/Study1/hippocampus_crop",
        "dicom_awkward/ct_head_axial_slicer",
        "dicom_awkward/sagittal_t2_prostatex0000",
        "dicom_awkward/dicom_seg_dcmqi/24x38x3/image",
        "dicom_awkward/dicom_seg_dcmqi/ct-3slice",
        "dicom_awkward/rtstruct_rtutils/oriented_data",
    ],
)
def test_plain_series_equal_what_itk_reads(data_dir, folder):
    volume = read_volume(data_dir / folder)
    expected = from_itk(itk_series(data_dir / folder))
    if expected.geometry.orientation != volume.geometry.orientation:  # ITK sorted the other way
        expected = expected.reoriented(volume.geometry.orientation)
    assert volume.geometry.is_close(expected.geometry, 1e-3)
    assert np.allclose(volume.array, expected.array, rtol=1e-6, atol=1e-4)
    assert volume.array.dtype.kind == "i" or volume.array.dtype.kind == expected.array.dtype.kind
    assert volume.warnings == ()


def test_chaos_spacing_comes_from_positions(data_dir):
    volume = read_volume(data_dir / "liver_ct_chaos_dicom" / "dicom")
    assert volume.geometry.spacing == pytest.approx((2.0, 0.7265625, 0.7265625))
    assert volume.header["SliceThickness"] == pytest.approx(3.2)
    label = read_volume(next((data_dir / "liver_ct_chaos_dicom" / "labelsTr").glob("*.nii.gz")))
    if label.geometry.orientation != volume.geometry.orientation:
        label = label.reoriented(volume.geometry.orientation)
    assert label.geometry.is_close(volume.geometry)
    inside = volume.array[label.array == 1]
    assert 120 < inside.mean() < 160 and inside.std() < 60


def test_missing_slice_prostatex0000_hbv_is_refused(data_dir):
    with pytest.raises(GeometryError, match=r"1 slice is missing .*1-0[57].dcm"):
        read_volume(data_dir / "dicom_awkward" / "missing_slice_prostatex0000_hbv")


@pytest.mark.parametrize(
    ("name", "spacing", "reason"),
    [
        ("missing_slice_prostatex0000_hbv", 3.176, "missing"),
        ("multi_b_value_one_series_prostatex0000_dwi", 0.964, "3 image volumes"),
        ("gantry_tilt_and_variable_spacing_ge_ct", 7.104, "unevenly spaced"),
    ],
)
def test_what_itk_gets_wrong_without_a_word_is_refused(data_dir, name, spacing, reason):
    folder = data_dir / "dicom_awkward" / name
    assert itk_series(folder).GetSpacing()[2] == pytest.approx(spacing, abs=1e-3)
    with pytest.raises(InputError, match=reason):
        read_volume(folder)


def test_multi_b_value_one_series_prostatex0000_dwi_is_three_volumes(data_dir):
    folder = data_dir / "dicom_awkward" / "multi_b_value_one_series_prostatex0000_dwi"
    found = scan(folder)
    assert [s.b_value for s in found] == [50, 400, 800]
    means = []
    for series in found:
        volume = read_series(series)
        assert volume.array.shape == (1, 19, 128, 84)
        assert volume.geometry.spacing[0] == pytest.approx(3.0, abs=1e-3)
        means.append(volume.array.mean())
    assert means[0] > means[1] > means[2]  # diffusion takes signal away
    with pytest.raises(InputError, match="b 400"):
        read_volume(folder)


def test_gantry_tilt_and_variable_spacing_ge_ct_is_refused(data_dir):
    folder = data_dir / "dicom_awkward" / "gantry_tilt_and_variable_spacing_ge_ct"
    with pytest.raises(GeometryError, match="unevenly spaced"):
        read_volume(folder)


@pytest.mark.parametrize("names", [("01", "02", "03", "04"), ("15", "16", "17", "18")])
def test_the_even_parts_of_the_tilted_ge_ct_are_straightened(data_dir, tmp_path, names):
    folder = data_dir / "dicom_awkward" / "gantry_tilt_and_variable_spacing_ge_ct"
    for name in names:
        (tmp_path / f"{name}.dcm").write_bytes((folder / f"{name}.dcm").read_bytes())
    volume = read_volume(tmp_path)
    assert any("18.5°" in warning for warning in volume.warnings)
    gram = volume.geometry.direction.T @ volume.geometry.direction
    assert np.allclose(gram, np.eye(3), atol=1e-9)
    middle = pydicom.dcmread(folder / f"{names[2]}.dcm")
    k, row, column = 2, 250, 260  # a pixel in the middle of the original slice
    place = np.array(middle.ImagePositionPatient, float)
    along, down = np.array(middle.ImageOrientationPatient, float).reshape(2, 3)
    place = place + along * column * middle.PixelSpacing[1] + down * row * middle.PixelSpacing[0]
    index = np.linalg.inv(volume.geometry.ijk_to_lps) @ [*place, 1]
    assert index[2] == pytest.approx(k, abs=1e-3)
    low, part = int(index[1]), index[1] % 1
    neighbors = volume.array[0, k, low : low + 2, round(index[0])].astype(float)
    expected = middle.pixel_array[row - 1 : row + 2, column].astype(float)
    value = neighbors @ [1 - part, part]
    assert expected.min() - 2 <= value <= expected.max() + 2


def test_enhanced_multiframe_is_divided_into_its_volumes(data_dir):
    folder = data_dir / "dicom_awkward" / "enhanced_multiframe"
    siemens = scan(folder / "siemens_xa10")
    assert [(s.part, s.shape) for s in siemens] == [
        (f"time {n} of 4", (6, 64, 64)) for n in range(1, 5)
    ]
    raw = pydicom.dcmread(folder / "siemens_xa10" / "6_3.dcm").pixel_array
    volume = read_volume(folder / "siemens_xa10" / "6_3.dcm")
    assert np.array_equal(volume.array[0], raw)
    assert volume.geometry.spacing == pytest.approx((2.4, 3.375, 3.375), abs=1e-4)
    philips = {s.part: read_series(s) for s in scan(folder / "philips")}
    assert sorted(philips) == ["T1/FIELD_MAP/REAL", "T1/M/MAGNITUDE"]
    field = philips["T1/FIELD_MAP/REAL"]
    assert field.array.shape == (1, 32, 64, 64)
    assert -500 <= field.array.min() < 0 < field.array.max() <= 500


def test_dicom_seg_dcmqi_sets_segmentations_apart_from_images(data_dir):
    folder = data_dir / "dicom_awkward" / "dicom_seg_dcmqi"
    found = scan_all(folder)
    assert sorted(s.shape for s in found.series) == [(3, 38, 24), (3, 38, 24), (3, 512, 512)]
    assert {f.name for s in found.skipped for f in s.files} == {
        "liver.dcm", "partial_overlaps.dcm", "sparse-labelmap-ppv5.dcm",
    }  # fmt: skip
    assert all("segmentation" in s.reason for s in found.skipped)
    with pytest.raises(InputError, match=r"liver.dcm is a segmentation"):
        read_volume(folder / "liver.dcm")


def test_a_legacy_converted_ct_equals_its_source_slices(data_dir):
    folder = data_dir / "dicom_awkward" / "dicom_seg_dcmqi" / "24x38x3"
    slices, multiframe = read_volume(folder / "image"), read_volume(folder / "multiframe")
    assert multiframe.geometry.is_close(slices.geometry)
    assert np.array_equal(multiframe.array, slices.array)


def test_dicom_seg_highdicom_holds_no_image(data_dir):
    folder = data_dir / "dicom_awkward" / "dicom_seg_highdicom"
    assert scan(folder) == []
    with pytest.raises(InputError, match="segmentation"):
        read_volume(folder)
    with pytest.raises(InputError, match=r"dx_image.dcm is a projection"):
        read_volume(folder / "dx_image.dcm")


def test_rtstruct_rtutils_reads_images_beside_contours(data_dir):
    folder = data_dir / "dicom_awkward" / "rtstruct_rtutils"
    volume = read_volume(folder / "mock_data")
    assert volume.array.shape == (1, 2, 512, 512)
    contours = scan_all(folder / "mock_data").skipped
    assert {f.name for s in contours for f in s.files} == {
        "rt.dcm",
        "non_existent_reference_rt.dcm",
    }
    assert all("contours" in s.reason for s in contours)
    with pytest.raises(InputError, match="single slice"):
        read_volume(folder / "one_slice_data")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("MR_truncated.dcm", "less than expected"),
        ("no_meta.dcm", "no image that can be read"),
        ("rtstruct.dcm", "radiotherapy contours"),
        ("rtdose.dcm", "radiotherapy dose"),
        ("liver_1frame.dcm", "segmentation"),
        ("SC_rgb_rle_16bit.dcm", "secondary capture"),
        ("JPEG-lossy.dcm", "secondary capture"),
        ("JPEG2000.dcm", "secondary capture"),
        ("JPGExtended.dcm", "secondary capture"),
        ("image_dfl.dcm", "secondary capture"),
        ("CT_small.dcm", "single slice"),
        ("693_J2KI.dcm", "single slice"),
    ],
)
def test_transfer_syntaxes_pydicom_are_refused_with_the_reason(data_dir, tmp_path, name, what):
    source = data_dir / "dicom_awkward" / "transfer_syntaxes_pydicom" / name
    (tmp_path / name).write_bytes(source.read_bytes())
    with pytest.raises(InputError, match=what) as caught:
        found = scan(tmp_path)
        if what == "less than expected":
            read_series(found[0])
        read_volume(tmp_path / name)
    assert name in str(caught.value) or "slice" in what


@pytest.mark.parametrize(
    "name",
    [
        "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_expb.dcm",
        "MR_small_implicit.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_padded.dcm",
    ],
)  # fmt: skip
def test_one_image_in_every_encoding_has_the_same_pixels(data_dir, tmp_path, name):
    folder = data_dir / "dicom_awkward" / "transfer_syntaxes_pydicom"
    (tmp_path / name).write_bytes((folder / name).read_bytes())
    read = read_series(scan(tmp_path)[0])
    expected = pydicom.dcmread(folder / "MR_small.dcm").pixel_array
    assert np.array_equal(read.array[0, 0], expected)


@pytest.mark.parametrize("name", ["693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm"])
def test_lossy_and_mislabeled_jpeg_2000_give_hounsfield_units(data_dir, tmp_path, name):
    source = data_dir / "dicom_awkward" / "transfer_syntaxes_pydicom" / name
    (tmp_path / name).write_bytes(source.read_bytes())
    read = read_series(scan(tmp_path)[0]).array[0]
    assert np.array_equal(read, sitk.GetArrayFromImage(sitk.ReadImage(str(source))))
    assert read.dtype == np.int16


def test_no_awkward_file_is_without_a_statement(data_dir):
    """Every folder, and every file of the folder of single files, is named in a test."""
    stated = Path(__file__).read_text(encoding="utf-8")
    awkward = data_dir / "dicom_awkward"
    single_files = (awkward / "transfer_syntaxes_pydicom").iterdir()
    names = [path.name for path in (*awkward.iterdir(), *single_files) if path.suffix != ".md"]
    assert len(names) == 10 + 21
    assert not [name for name in names if name not in stated]


def test_no_real_folder_makes_the_scan_say_who_the_patient_is(data_dir):
    folder = data_dir / "dicom_awkward"
    names = set()
    for file in folder.rglob("*.dcm"):
        dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True)
        removed = dataset.get("PatientIdentityRemoved") == "YES"
        pseudonym = str(dataset.get("PatientID", "")) if removed else None
        for keyword in ("PatientName", "PatientID", "AccessionNumber", "PatientBirthDate"):
            value = str(dataset.get(keyword, ""))
            if (
                value != pseudonym
                and len(value) > 3
                and not value.isdigit()
                and value.lower() not in str(file).lower()
            ):
                names.add(value)
    said = everything_said(folder)
    assert names
    assert not [name for name in names if name in said]
