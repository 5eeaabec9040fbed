"""DICOM SEG, read back by highdicom and pydicom, on real series: oblique MR and CT."""

import numpy as np
import pytest

from dicom_writer import noise, write_series
from MIMSegment.Logic.audit import Provenance
from MIMSegment.Logic.dicom import read_series, scan
from MIMSegment.Logic.dicom_seg import write_dicom_seg
from MIMSegment.Logic.errors import OutputError
from MIMSegment.Logic.labels import Code, Label
from MIMSegment.Logic.review_items import ReviewItem, Verdict
from MIMSegment.Logic.reviewed_case import CaseInput, ReviewedCase
from MIMSegment.Logic.volume import Volume
from plausibility_cases import LABELS

SERIES = ["prostate_mpmri_prostatex/dicom/ProstateX-0000/t2w", "liver_ct_chaos_dicom/dicom"]


def make_case(volume, files, edited=(2,)):
    """Boxes of three of four labels on the image's grid."""
    array = np.zeros(volume.geometry.shape, np.uint8)
    array[3:9, 20:60, 30:90] = 1
    array[5:12, 100:140, 30:77] = 2
    array[4:6, 30:40, 40:50] = 7
    table = tuple(label for label in LABELS if label.value != 4)
    items = tuple(
        ReviewItem(str(s.value), s.value, s.name, s.color, 1.0, None,
                   Verdict.ACCEPTED, "", (), edited=s.value in edited)
        for s in table
    )  # fmt: skip
    labels = Volume(array[None], volume.geometry)
    made = Provenance("test", "1.2.0")
    inputs = (CaseInput("T2w", volume, files),)
    return ReviewedCase("Test", labels, table, items, made, inputs=inputs)


@pytest.mark.real_data
@pytest.mark.parametrize("folder", SERIES)
def test_seg_comes_back_with_voxels_codes_algorithm_and_references(data_dir, tmp_path, folder):
    import highdicom
    import pydicom

    (series,) = scan(data_dir / folder)
    volume, path = read_series(series), tmp_path / "result.dcm"
    case = make_case(volume, series.files)
    write_dicom_seg(case, path)
    seg, source = highdicom.seg.segread(path), pydicom.dcmread(series.files[0])
    assert seg.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert seg.StudyInstanceUID == source.StudyInstanceUID
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    uids = [str(frame.uid) for frame in series.frames]
    found = seg.get_pixels_by_source_instance(uids, combine_segments=False)
    for number, label in enumerate(case.table, 1):
        item = seg.get_segment_description(number)
        assert np.array_equal(found[..., number - 1] > 0, case.labels.array[0] == label.value)
        assert item.segment_label == label.name
        assert item.segmented_property_type.value == label.type.value
        assert item.SegmentAlgorithmName == "test"
        assert item.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == "1.2.0"
        expected = "SEMIAUTOMATIC" if label.value == 2 else "AUTOMATIC"
        assert item.SegmentAlgorithmType == expected
    kidney = pydicom.dcmread(path).SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
    assert kidney.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Right"


def test_many_structures_take_no_mask_of_the_image_each(tmp_path, monkeypatch):
    import highdicom

    write_series(tmp_path / "ct", noise((6, 40, 40)), modality="CT")
    (series,) = scan(tmp_path / "ct")
    volume, path = read_series(series), tmp_path / "x.dcm"
    array = np.zeros(volume.geometry.shape, np.uint8)
    table = tuple(Label(3 * n, f"structure {n}") for n in range(1, 13))
    for n, label in enumerate(table):
        array[n % 6, 3 * n : 3 * n + 3, :20] = label.value
    items = tuple(
        ReviewItem(str(s.value), s.value, s.name, s.color, 1.0, None, Verdict.ACCEPTED, "", (),
                   edited=False)
        for s in table
    )  # fmt: skip
    case = ReviewedCase("Test", Volume(array[None], volume.geometry), table, items,
                        Provenance("test", "1.2.0"),
                        inputs=(CaseInput("CT", volume, series.files),))  # fmt: skip
    given, make = [], highdicom.seg.Segmentation

    def noted(**arguments):
        given.append(arguments["pixel_array"].nbytes)
        return make(**arguments)

    monkeypatch.setattr(highdicom.seg, "Segmentation", noted)
    write_dicom_seg(case, path)
    assert given == [array.nbytes]
    uids = [str(frame.uid) for frame in series.frames]
    found = highdicom.seg.segread(path).get_pixels_by_source_instance(uids, combine_segments=True)
    assert np.array_equal(np.array([0, *(label.value for label in table)])[found], array)


def test_images_that_are_not_dicom_are_refused_with_the_way_out(tmp_path):
    volume = Volume(np.zeros((1, 20, 200, 200)), _grid())
    with pytest.raises(OutputError, match=r"not opened from DICOM files; export \.seg\.nrrd"):
        write_dicom_seg(make_case(volume, ()), tmp_path / "x.dcm")
    assert not list(tmp_path.iterdir())


def _grid():
    from MIMSegment.Logic.volume import Geometry

    return Geometry.from_parts((20, 200, 200), (1.0, 1.0, 1.0))


@pytest.mark.real_data
def test_a_result_on_another_grid_is_refused(data_dir, tmp_path):
    (series,) = scan(data_dir / SERIES[0])
    volume = read_series(series)
    moved = volume.geometry.cropped((0, 5, 5), volume.geometry.shape)
    case = make_case(Volume(volume.array, moved), series.files)
    with pytest.raises(OutputError, match="does not lie on the slices"):
        write_dicom_seg(case, tmp_path / "x.dcm")
    assert not list(tmp_path.iterdir())


@pytest.mark.real_data
def test_a_structure_without_codes_is_written_as_tissue(data_dir, tmp_path):
    import pydicom

    (series,) = scan(data_dir / SERIES[0])
    case = make_case(read_series(series), series.files)
    bare = tuple(Label(label.value, label.name) for label in case.table)
    write_dicom_seg(ReviewedCase(case.title, case.labels, bare, case.items, case.provenance,
                                 inputs=case.inputs), tmp_path / "x.dcm")  # fmt: skip
    segment = pydicom.dcmread(tmp_path / "x.dcm").SegmentSequence[0]
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == Code("", "85756007", "").value


@pytest.mark.real_data
def test_no_half_file_is_left_on_a_full_disk(data_dir, full_disk):
    (series,) = scan(data_dir / SERIES[0])
    with pytest.raises(OutputError, match=r"x\.dcm could not be written: No space left"):
        write_dicom_seg(make_case(read_series(series), series.files), full_disk / "x.dcm")
    assert [path.name for path in full_disk.iterdir()] == ["filling"]
