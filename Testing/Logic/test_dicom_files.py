"""DICOM files: grey values, encodings, multi-frame objects, damage, what is no image, privacy."""

import os

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from dicom_writer import (
    AXIAL,
    SECRETS,
    everything_said,
    image_dataset,
    noise,
    write_enhanced,
    write_series,
)
from MIMSegment.Logic.dicom import read_series, scan, scan_all
from MIMSegment.Logic.errors import InputError, MIMSegmentError
from MIMSegment.Logic.volume import read_volume

# Grey values


def test_whole_rescale_factors_keep_small_integers(tmp_path):
    array = noise(dtype=np.uint16, high=4000)
    write_series(tmp_path, array, modality="CT",
                 tags={"RescaleSlope": 1, "RescaleIntercept": -1024})  # fmt: skip
    volume = read_volume(tmp_path)
    assert volume.array.dtype == np.int16
    assert np.array_equal(volume.array[0], array.astype(int) - 1024)


def test_rescaled_values_beyond_16_bits_do_not_wrap(tmp_path):
    array = noise(dtype=np.uint16, high=65000)
    write_series(tmp_path, array, tags={"RescaleSlope": 3, "RescaleIntercept": 5})
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array[0], array.astype(int) * 3 + 5)


def test_each_slice_has_its_own_rescale_factors(tmp_path):
    array = noise(dtype=np.uint16)
    write_series(
        tmp_path, array,
        slice_tags=lambda k: {"RescaleSlope": 0.5 + k / 4, "RescaleIntercept": k},
    )  # fmt: skip
    volume = read_volume(tmp_path)
    expected = [array[k] * (0.5 + k / 4) + k for k in range(5)]
    assert np.allclose(volume.array[0], expected)


def test_inverted_grey_is_turned_around_with_a_warning(tmp_path):
    array = noise(dtype=np.uint16, high=4096)
    write_series(tmp_path, array, tags={"PhotometricInterpretation": "MONOCHROME1"})
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array[0], int(array.max()) + int(array.min()) - array.astype(int))
    assert any("MONOCHROME1" in warning for warning in volume.warnings)


def test_hounsfield_units_stay_whatever_the_display_convention(tmp_path):
    array = noise()
    write_series(tmp_path, array, modality="CT",
                 tags={"PhotometricInterpretation": "MONOCHROME1"})  # fmt: skip
    assert np.array_equal(read_volume(tmp_path).array[0], array)


def test_unsigned_and_signed_slices_in_one_series_keep_their_values(tmp_path):
    array = noise((4, 5, 5), dtype=np.uint16, high=60000)
    files = write_series(tmp_path, array)
    dataset = pydicom.dcmread(files[1])
    dataset.PixelRepresentation = 1
    dataset.PixelData = np.full((5, 5), -7, np.int16).tobytes()
    dataset.save_as(files[1])
    values = read_volume(tmp_path).array[0]
    assert (values[1] == -7).all()
    assert np.array_equal(values[[0, 2, 3]], array[[0, 2, 3]])


@pytest.mark.parametrize("signed", [True, False])
def test_unused_bits_of_12_bit_pixels_do_not_reach_the_values(tmp_path, signed):
    true = np.random.default_rng(0).integers(*((-2048, 2048) if signed else (0, 4096)), (3, 8, 8))
    stored = (true & 0x0FFF) | (0 if signed else 0x3000)  # no sign extension; an overlay
    write_series(
        tmp_path, stored.astype(np.uint16),
        tags={"PixelRepresentation": int(signed), "BitsStored": 12, "HighBit": 11},
    )  # fmt: skip
    assert np.array_equal(read_volume(tmp_path).array[0], true)


# Enhanced multi-frame objects


def enhanced(tmp_path, order, groups=("M", "FIELD_MAP")):
    """Two volumes in one file, frames in the given order, each volume with its own rescale."""
    arrays = noise((len(groups), 5, 6, 7), dtype=np.uint16)
    frames, pixels = [], []
    for n, k in order:
        pixels.append(arrays[n, k])
        frames.append({
            "PlanePositionSequence": {"ImagePositionPatient": [1.0, 2.0, 4.0 * k]},
            "MRImageFrameTypeSequence": {"FrameType": ["ORIGINAL", "PRIMARY", "T1", groups[n]]},
            "PixelValueTransformationSequence": {
                "RescaleSlope": 1.5 + n, "RescaleIntercept": -10 * n, "RescaleType": "US",
            },
        })  # fmt: skip
    shared = {
        "PlaneOrientationSequence": {"ImageOrientationPatient": list(AXIAL.ravel())},
        "PixelMeasuresSequence": {"PixelSpacing": [0.5, 0.75], "SliceThickness": 4},
        "MREchoSequence": {"EffectiveEchoTime": 5.5},
        "MRTimingAndRelatedParametersSequence": {"RepetitionTime": 9.0, "FlipAngle": 12},
    }
    write_enhanced(tmp_path / "enhanced.dcm", np.stack(pixels), frames, shared)
    return arrays


def test_enhanced_multiframe_is_divided_ordered_and_rescaled_by_frame(tmp_path):
    order = [(n, k) for k in (3, 1, 4, 0, 2) for n in (1, 0)]
    arrays = enhanced(tmp_path, order)
    found = {series.part: series for series in scan(tmp_path)}
    assert set(found) == {"T1/M", "T1/FIELD_MAP"}
    for n, name in enumerate(("T1/M", "T1/FIELD_MAP")):
        volume = read_series(found[name])
        assert np.allclose(volume.array[0], arrays[n] * (1.5 + n) - 10 * n)
        assert volume.geometry.spacing == pytest.approx((4, 0.5, 0.75))
        assert np.allclose(volume.geometry.origin, (1, 2, 0))
        assert volume.header["EchoTime"] == 5.5
        assert volume.header["RepetitionTime"] == 9.0
    with pytest.raises(InputError, match="2 image volumes"):
        read_volume(tmp_path / "enhanced.dcm")


def test_an_enhanced_file_of_one_volume_reads_at_once(tmp_path):
    arrays = enhanced(tmp_path, [(0, k) for k in range(5)], groups=("M",))
    assert np.allclose(read_volume(tmp_path / "enhanced.dcm").array[0], arrays[0] * 1.5)


# Files


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_a_folder_is_passed_over(tmp_path):
    write_series(tmp_path, noise())
    os.mkfifo(tmp_path / "pipe")
    (series,) = scan(tmp_path)
    assert series.number_of_slices == 5


def test_a_series_with_several_numbers_is_listed_with_the_others(tmp_path):
    write_series(tmp_path / "a", noise(), tags={"SeriesNumber": [1, 2]})
    write_series(tmp_path / "b", noise(), tags={"SeriesNumber": 3})
    assert [series.header["SeriesNumber"] for series in scan(tmp_path)] == [(1, 2), 3]


def test_files_that_are_not_dicom_are_passed_over(tmp_path):
    array = noise()
    write_series(tmp_path, array)
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG" + bytes(200))
    assert np.array_equal(read_volume(tmp_path).array[0], array)


@pytest.mark.parametrize("content", [b"", b"plain text", b"\x08\x00" * 100])
def test_a_file_that_is_no_image_is_refused(tmp_path, content):
    (tmp_path / "thing.bin").write_bytes(content)
    with pytest.raises(InputError, match=r"thing.bin holds no image"):
        read_volume(tmp_path / "thing.bin")
    with pytest.raises(InputError, match="no image"):
        read_volume(tmp_path)


def test_a_file_without_preamble_is_read(tmp_path):
    array = noise()
    for file in write_series(tmp_path, array):
        content = pydicom.dcmread(file)
        file.unlink()
        bare = pydicom.Dataset(content)
        bare.save_as(file, implicit_vr=True, little_endian=True)
        assert file.read_bytes()[:2] == b"\x08\x00"
    assert np.array_equal(read_volume(tmp_path).array[0], array)


def test_big_endian_pixels_come_in_native_order(tmp_path):
    array = noise()
    for k, file in enumerate(write_series(tmp_path, array)):
        dataset = pydicom.dcmread(file)
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
        dataset.PixelData = array[k].astype(">i2").tobytes()
        dataset["PixelData"].VR = "OW"
        pydicom.dcmwrite(file, dataset, little_endian=False, implicit_vr=False,
                         enforce_file_format=True)  # fmt: skip
    volume = read_volume(tmp_path)
    assert volume.array.dtype == np.dtype(np.int16)
    assert np.array_equal(volume.array[0], array)


def test_pixels_cut_short_are_refused_by_file_name(tmp_path):
    file = write_series(tmp_path, noise())[2]
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"002.dcm has pixels that cannot be decoded"):
        read_volume(tmp_path)


def test_a_file_without_pixels_is_refused(tmp_path):
    file = write_series(tmp_path, noise())[2]
    dataset = pydicom.dcmread(file)
    del dataset.PixelData
    dataset.save_as(file)
    with pytest.raises(InputError, match=r"002.dcm holds no pixels"):
        read_volume(tmp_path)


@pytest.mark.parametrize("keep", [140, 200, 400])
def test_a_file_cut_short_in_its_header_is_told(tmp_path, keep):
    file = write_series(tmp_path, noise())[4]
    file.write_bytes(file.read_bytes()[:keep])
    volume = read_volume(tmp_path)
    assert volume.array.shape == (1, 4, 6, 7)
    assert any("004.dcm is damaged" in warning for warning in volume.warnings)


def test_scrambled_bytes_never_raise_anything_but_our_errors(tmp_path):
    random = np.random.default_rng(3)
    files = write_series(tmp_path, noise((3, 4, 4)))
    original = files[1].read_bytes()
    for _ in range(60):
        damaged = bytearray(original)
        for place in random.integers(132, len(damaged), 12):
            damaged[place] = random.integers(256)
        files[1].write_bytes(bytes(damaged))
        for series in scan(tmp_path):
            try:
                read_series(series)
            except MIMSegmentError as error:
                assert not any(secret in str(error) for secret in SECRETS)


@pytest.mark.parametrize("compressor", ["JPEG2000", "JPEG"])
def test_losslessly_compressed_pixels_are_decoded_without_optional_plugins(tmp_path, compressor):
    array = noise((3, 32, 40), dtype=np.uint16, high=3000)
    for k, file in enumerate(write_series(tmp_path, array)):
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.UseCompressionOn()
        writer.SetCompressor(compressor)
        writer.SetFileName(str(tmp_path / "compressed.dcm"))
        writer.Execute(sitk.GetImageFromArray(array[k]))
        compressed = pydicom.dcmread(tmp_path / "compressed.dcm")
        dataset = pydicom.dcmread(file)
        dataset.file_meta.TransferSyntaxUID = compressed.file_meta.TransferSyntaxUID
        assert dataset.file_meta.TransferSyntaxUID.is_compressed
        dataset["PixelData"] = compressed["PixelData"]
        dataset.RescaleSlope, dataset.RescaleIntercept = 2, -k
        (tmp_path / "compressed.dcm").unlink()
        dataset.save_as(file)
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array[0], [array[k].astype(int) * 2 - k for k in range(3)])


def test_run_length_encoded_pixels_are_decoded(tmp_path):
    array = noise((3, 16, 16))
    for file in write_series(tmp_path, array):
        dataset = pydicom.dcmread(file)
        dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
        dataset.save_as(file)
    assert np.array_equal(read_volume(tmp_path).array[0], array)


def test_an_encoding_that_cannot_be_decoded_is_named(tmp_path):
    for file in write_series(tmp_path, noise()):
        dataset = pydicom.dcmread(file)
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
        dataset.PixelData = pydicom.encaps.encapsulate([dataset.PixelData])
        dataset["PixelData"].is_undefined_length = True
        dataset.save_as(file)
    with pytest.raises(InputError, match=r"000.dcm is compressed as MPEG2.*export"):
        read_volume(tmp_path)


# What is not an image

OTHERS = {
    "a segmentation": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4", "Modality": "SEG"},
    "radiotherapy contours": {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.3", "Modality": "RTSTRUCT",
    },
    "a radiotherapy dose": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.2", "Modality": "RTDOSE"},
    "a report": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.33", "Modality": "SR"},
    "a list of key images": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.59", "Modality": "KO"},
    "a secondary capture": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
    "a projection": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1", "Modality": "DX"},
    "a localizer": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    "a mosaic": {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]},
    "a color image": {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"},
}  # fmt: skip


@pytest.mark.parametrize("reason", OTHERS)
def test_what_is_no_image_is_set_apart_with_the_reason(tmp_path, reason):
    array = noise()
    write_series(tmp_path / "image", array)
    other = write_series(tmp_path / "other", noise(), tags=OTHERS[reason])
    found = scan_all(tmp_path)
    assert len(found.series) == 1
    assert len(found.skipped) == 1
    assert found.skipped[0].reason.startswith(reason)
    assert len(found.skipped[0].files) == 5
    assert np.array_equal(read_volume(tmp_path).array[0], array)
    with pytest.raises(InputError, match=rf"000.dcm is {reason}"):
        read_volume(other[0])


# Privacy


def test_nothing_about_the_patient_is_ever_said_or_kept(tmp_path):
    write_series(tmp_path / "good", noise())
    write_series(tmp_path / "gap", noise((9, 4, 4)))[4].unlink()
    write_series(tmp_path / "other", noise(), tags=OTHERS["a report"])
    cut = write_series(tmp_path / "cut", noise())[1]
    cut.write_bytes(cut.read_bytes()[:-9])
    lost = write_series(tmp_path / "lost", noise())[1]
    lost.write_bytes(lost.read_bytes()[:500])
    write_series(tmp_path / "tilt", noise(), positions=[(0, 0.4 * k, 2.0 * k) for k in range(5)])
    said = everything_said(tmp_path)
    assert "missing" in said and "a report" in said and "damaged" in said and "tilt" in said
    for secret in (*SECRETS, "DOE", "JANE"):
        assert secret not in said


@pytest.mark.parametrize("text", ["T2 tra Doe", "Jane Doe T2", "T2 ID-4711-X", "DOE^JANE t2"])
def test_a_name_typed_into_the_description_is_taken_out(tmp_path, text):
    write_series(tmp_path, noise(), tags={"SeriesDescription": text, "ProtocolName": text})
    said = everything_said(tmp_path).lower()
    assert "t2" in said
    for secret in ("doe", "jane", "id-4711"):
        assert secret not in said


def test_header_fields_and_title_describe_the_series(tmp_path):
    write_series(
        tmp_path, noise(),
        tags={
            "SeriesNumber": 4, "SeriesDescription": "t1_post", "ProtocolName": "brain",
            "EchoTime": 10.0, "RepetitionTime": 650.0, "ContrastBolusAgent": "9 ml",
        },
    )  # fmt: skip
    series = scan(tmp_path)[0]
    assert series.title == "4: t1_post, MR, axial, 5 slices of 6×7"
    kept = [series.header[k] for k in ("EchoTime", "RepetitionTime", "ContrastBolusAgent")]
    assert kept == [10, 650, "9 ml"]
    assert series.protocol == "brain"
    header = read_series(series).header
    assert header["Modality"] == "MR"
    assert header["SeriesInstanceUID"] == series.uid
    assert header["EchoTime"] == 10.0
    assert not any(key.startswith(("Patient", "Accession")) for key in header)


def test_image_dataset_holds_the_secrets_that_the_tests_look_for():
    dataset = image_dataset(noise())
    assert str(dataset.PatientName) == SECRETS[0]
