"""Grey values of CT and PET, classic and enhanced, and what states them in no usable way."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_writer import AXIAL, noise, write_enhanced, write_series
from MIMSegment.Logic.dicom import read_series, scan, scan_all
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.volume import read_volume

SHARED = {
    "PlaneOrientationSequence": {"ImageOrientationPatient": list(AXIAL.ravel())},
    "PixelMeasuresSequence": {"PixelSpacing": [0.5, 0.75], "SliceThickness": 4},
}
FRAME_TYPE = {
    "CT": "CTImageFrameTypeSequence", "PT": "PETFrameTypeSequence",
}  # fmt: skip


def frame(k, **macros):
    return {"PlanePositionSequence": {"ImagePositionPatient": [1.0, 2.0, 4.0 * k]}, **macros}


def rescaled(slope, intercept, kind):
    return {"RescaleSlope": slope, "RescaleIntercept": intercept, "RescaleType": kind}


def lookup_table():
    table = Dataset()
    table.LUTDescriptor = [2, 0, 16]
    table.ModalityLUTType = "HU"
    table.LUTData = np.array([0, 1], "<u2").tobytes()
    return table


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_values_behind_a_lookup_table_are_refused(tmp_path, modality):
    files = write_series(tmp_path, noise(), modality=modality,
                         tags={"ModalityLUTSequence": [lookup_table()]})  # fmt: skip
    (skipped,) = scan_all(tmp_path).skipped
    assert len(skipped.files) == 5
    for path in (tmp_path, files[2]):
        with pytest.raises(InputError, match="stored through a lookup table; export it with plain"):
            read_volume(path)


def test_an_empty_lookup_table_means_nothing(tmp_path):
    array = noise()
    write_series(tmp_path, array, tags={"ModalityLUTSequence": []})
    assert np.array_equal(read_volume(tmp_path).array[0], array)


def invert(file):
    dataset = pydicom.dcmread(file)
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.save_as(file)


def test_slices_of_which_some_are_inverted_are_refused(tmp_path):
    invert(write_series(tmp_path, noise(dtype=np.uint16))[3])
    with pytest.raises(InputError, match=r"some slices are stored inverted and some are not.*exp"):
        read_volume(tmp_path)


@pytest.mark.parametrize("modality", ["CT", "PT"])
def test_values_with_a_unit_stay_where_only_some_slices_are_shown_inverted(tmp_path, modality):
    array = noise(dtype=np.uint16)
    invert(write_series(tmp_path, array, modality=modality, tags={"RescaleIntercept": -9})[3])
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array[0], array.astype(int) - 9)
    assert volume.warnings == ()


def test_activity_has_the_factor_of_its_own_slice(tmp_path):
    array = noise(dtype=np.uint16)
    write_series(
        tmp_path,
        array,
        modality="PT",
        slice_tags=lambda k: {"RescaleSlope": 0.25 + k, "RescaleIntercept": 0},
    )
    volume = read_volume(tmp_path)
    assert volume.header["Modality"] == "PT"
    assert np.allclose(volume.array[0], [array[k] * (0.25 + k) for k in range(5)])


def test_enhanced_ct_is_read_in_hounsfield_units(tmp_path):
    array = noise(dtype=np.uint16, high=4000)
    order = [3, 0, 4, 1, 2]
    shared = {
        **SHARED,
        "PixelValueTransformationSequence": rescaled(1, -1024, "HU"),
        "CTImageFrameTypeSequence": {"FrameType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]},
    }
    write_enhanced(tmp_path / "a.dcm", array[order], [frame(k) for k in order], shared, "CT")
    volume = read_volume(tmp_path)
    assert volume.array.dtype == np.int16
    assert np.array_equal(volume.array[0], array.astype(int) - 1024)
    assert volume.geometry.spacing == pytest.approx((4, 0.5, 0.75))
    assert np.allclose(volume.geometry.origin, (1, 2, 0))
    assert volume.header["Modality"] == "CT"
    assert volume.header["ImageType"] == ("ORIGINAL", "PRIMARY", "VOLUME", "NONE")


def test_enhanced_pet_has_the_factor_of_each_frame(tmp_path):
    array = noise(dtype=np.uint16)
    frames = [
        frame(k, PixelValueTransformationSequence=rescaled(0.5 + k, 0, "US")) for k in range(5)
    ]
    write_enhanced(tmp_path / "a.dcm", array, frames, SHARED, "PT")
    volume = read_volume(tmp_path / "a.dcm")
    assert volume.header["Modality"] == "PT"
    assert np.allclose(volume.array[0], [array[k] * (0.5 + k) for k in range(5)])


@pytest.mark.parametrize("modality", FRAME_TYPE)
def test_reconstructions_in_one_enhanced_object_are_told_apart(tmp_path, modality):
    array = noise((2, 5, 6, 7), dtype=np.uint16)
    kinds = ("VOLUME", "MAXIMUM")
    frames = [
        frame(k, **{FRAME_TYPE[modality]: {"FrameType": ["ORIGINAL", "PRIMARY", "BODY", kind]}})
        for kind in kinds
        for k in range(5)
    ]
    write_enhanced(tmp_path / "a.dcm", array.reshape(10, 6, 7), frames, SHARED, modality)
    found = {series.part: series for series in scan(tmp_path)}
    assert set(found) == {f"BODY/{kind}" for kind in kinds}
    for values, kind in zip(array, kinds, strict=True):
        assert np.array_equal(read_series(found[f"BODY/{kind}"]).array[0], values)


@pytest.mark.parametrize("modality", ["CT", "PT"])
def test_a_frame_missing_in_an_enhanced_object_is_noticed(tmp_path, modality):
    places = [0, 1, 2, 4, 5, 6]
    array = noise((6, 6, 7), dtype=np.uint16)
    write_enhanced(tmp_path / "a.dcm", array, [frame(k) for k in places], SHARED, modality)
    with pytest.raises(InputError, match="1 slice is missing"):
        read_volume(tmp_path)


def test_an_inverted_display_leaves_enhanced_hounsfield_units_alone(tmp_path):
    array = noise(dtype=np.uint16)
    write_enhanced(tmp_path / "a.dcm", array, [frame(k) for k in range(5)], SHARED, "CT")
    invert(tmp_path / "a.dcm")
    assert np.array_equal(read_volume(tmp_path).array[0], array)
