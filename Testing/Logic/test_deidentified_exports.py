"""DICOM SEG and training cases of files that lack what de-identification takes away."""

import json
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from dicom_writer import write_series
from MIMSegment.Logic.dicom import read_series, scan
from MIMSegment.Logic.dicom_seg import write_dicom_seg
from MIMSegment.Logic.dicom_source import other_patient
from MIMSegment.Logic.errors import InputError, OutputError
from MIMSegment.Logic.reviewed_case import CaseInput
from MIMSegment.Logic.training_case import write_training_case
from MIMSegment.Logic.volume import Volume
from reviewed_cases import prostate_case, prostate_labels

PATIENT = {"PatientSex": "M", "StudyDate": "20200101", "StudyTime": "101500", "StudyID": "7"}
EMPTIED = [
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName",
]  # fmt: skip


def case_of(folder, edit):
    """A review of a series that ``edit`` has changed, slice by slice."""
    array = np.random.default_rng(0).integers(0, 500, (20, 60, 60)).astype(np.int16)
    for file in write_series(folder, array, spacing=(3, 1, 1), tags=PATIENT):
        dataset = pydicom.dcmread(file)
        edit(dataset)
        dataset.save_as(file)
    (series,) = scan(folder)
    volume = read_series(series)
    labels = Volume(prostate_labels()[None], volume.geometry)
    return replace(prostate_case(), labels=labels, inputs=(CaseInput("T2w", volume, series.files),))


def without(*keywords):
    def edit(dataset):
        for keyword in keywords:
            if keyword in dataset:
                delattr(dataset, keyword)

    return edit


def seg_of(case, path):
    import highdicom

    write_dicom_seg(case, path)
    seg = highdicom.seg.segread(path)
    uids = [pydicom.dcmread(file, force=True).SOPInstanceUID for file in case.inputs[0].files]
    found = seg.get_pixels_by_source_instance(uids, combine_segments=True)
    assert np.array_equal(found, case.labels.array[0])
    return seg


@pytest.mark.parametrize("missing", [EMPTIED, ["AccessionNumber"], ["PatientSex"]])
def test_what_may_be_empty_in_a_seg_may_be_missing_in_its_images(tmp_path, missing):
    seg = seg_of(case_of(tmp_path / "series", without(*missing)), tmp_path / "seg.dcm")
    assert all(keyword in seg and not seg.get(keyword) for keyword in missing)


def test_what_is_no_date_and_no_sex_is_empty_in_a_seg(tmp_path):
    def edit(dataset):
        dataset["PatientBirthDate"]._value = "00000000"
        dataset["PatientSex"]._value = "ANON"

    seg = seg_of(case_of(tmp_path / "series", edit), tmp_path / "seg.dcm")
    assert (seg.PatientBirthDate, seg.PatientSex, seg.StudyDate) == ("", "", "20200101")


def test_images_without_a_frame_of_reference_get_the_same_one_in_each_seg(tmp_path):
    case = case_of(tmp_path / "series", without("FrameOfReferenceUID"))
    one, two = (seg_of(case, tmp_path / name).FrameOfReferenceUID for name in ("1.dcm", "2.dcm"))
    other = case_of(tmp_path / "other", without("FrameOfReferenceUID"))
    assert one == two != seg_of(other, tmp_path / "3.dcm").FrameOfReferenceUID


def test_files_without_preamble_are_exported(tmp_path):
    case = case_of(tmp_path / "series", lambda dataset: None)
    for file in case.inputs[0].files:
        bare = pydicom.Dataset()
        bare.update(pydicom.dcmread(file))
        bare.save_as(file, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert seg_of(case, tmp_path / "seg.dcm").PatientID == "ID-4711-X"
    write_training_case(case, tmp_path / "training")
    index = json.loads((tmp_path / "training" / "dataset.json").read_text())
    (subject,) = index["subjects"].values()
    assert subject.startswith("subject_")


def test_images_that_nothing_can_refer_to_are_named_with_what_they_lack(tmp_path):
    case = case_of(tmp_path / "series", without("StudyInstanceUID"))
    with pytest.raises(OutputError, match=r"000\.dcm has no StudyInstanceUID.*export \.seg\.nrrd"):
        write_dicom_seg(case, tmp_path / "seg.dcm")


def test_images_that_are_gone_are_named(tmp_path):
    case = case_of(tmp_path / "series", lambda dataset: None)
    case.inputs[0].files[0].unlink()
    for write in (write_dicom_seg, write_training_case):
        with pytest.raises(InputError, match=r"000\.dcm cannot be read any more"):
            write(case, tmp_path / "result")
    assert not list((tmp_path / "result").rglob("*.nii.gz"))


def test_two_patients_are_told_apart_where_their_images_name_them(tmp_path):
    files = {}
    for name, patient in (("a", "11"), ("a2", "11"), ("b", "12"), ("none", "")):

        def edit(dataset, patient=patient):
            dataset.PatientID = patient

        files[name] = case_of(tmp_path / name, edit).inputs[0].files
    assert other_patient(files["a"], files["b"]) and not other_patient(files["a"], files["a2"])
    assert not other_patient(files["a"], files["none"]) and not other_patient(files["a"], ())
    assert not other_patient(files["a"], [tmp_path / "gone.dcm"])
