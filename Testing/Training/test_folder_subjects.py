"""Whose images a folder holds that lists no subjects: one patient is one subject."""

import numpy as np
import pytest

import prepare
from dicom_writer import SECRETS, write_series
from mim.caching import PrepareOptions, prepare_dataset
from mim.cases import find_dataset
from MIMSegment.Logic.errors import InputError
from small_sets import picture, put, read, scan

OPTIONS = PrepareOptions(patch_voxels=1000, stages=2, jobs=1)


def series(folder, patient, seed):
    """A DICOM series of 8 slices; ``patient`` is the PatientID, None for none."""
    array = np.random.default_rng(seed).integers(0, 900, (8, 16, 16)).astype(np.int16)
    tags = {"PatientID": "" if patient is None else patient}
    write_series(folder, array, spacing=(2, 1, 1), tags=tags)


def patients(folder, names=("north", "south", "west"), ids=("ID-1", "ID-2", "ID-3")):
    """A folder for each patient with a series of each sequence."""
    for number, (name, patient) in enumerate(zip(names, ids, strict=True)):
        for sequence in ("t2w", "adc"):
            series(folder / name / sequence, patient, 2 * number + len(sequence))
    return folder


def subjects(dataset):
    return {case.id: case.subject for case in dataset.cases}


def test_all_series_of_a_patient_are_read_and_lie_on_one_side_of_the_split(tmp_path):
    data = patients(tmp_path / "scans")
    command = [str(data), str(tmp_path / "cache"), "--held-back", "0.4", "--jobs", "1"]
    assert prepare.main([*command, "--stages", "2", "--patch-voxels", "1000"]) == 0
    cases = {case["id"]: case for case in read(tmp_path / "cache", "cases.json")["cases"]}
    assert len(cases) == 6 and cases["north_t2w"]["shape"] == [1, 8, 16, 16]
    split = read(tmp_path / "cache", "split.json")
    assert sorted(split["train"] + split["held_back"]) == ["north", "south", "west"]
    assert all(case["subject"] == name.split("_")[0] for name, case in cases.items())


def test_a_patient_is_told_by_the_header_wherever_the_series_lie(tmp_path):
    for number, (place, patient) in enumerate(
        (("a/t2w", "ID-1"), ("a/adc", "ID-2"), ("b/t2w", "ID-2"), ("c", "ID-1"))
    ):
        series(tmp_path / "scans" / place, patient, number)
    found = subjects(find_dataset(tmp_path / "scans"))
    assert found["a_t2w"] == found["c"] != found["a_adc"] == found["b_t2w"]


def test_name_and_id_of_the_patient_are_neither_said_nor_stored(tmp_path, capfd):
    data = patients(tmp_path / "scans", ids=(SECRETS[1], "ID-4712-Y", "ID-4713-Z"))
    prepare_dataset(data, tmp_path / "cache", OPTIONS)
    stored = "".join(path.read_text() for path in (tmp_path / "cache").glob("*.json"))
    said = "".join(capfd.readouterr())
    for word in (*SECRETS, "4712", "4713"):
        assert word not in said + stored


def test_without_an_id_the_patient_is_the_outermost_folder(tmp_path):
    data = patients(tmp_path / "scans", ids=(None, None, "ID-3"))
    found = subjects(find_dataset(data))
    assert found["north_t2w"] == found["north_adc"] == "north"
    assert set(found.values()) == {"north", "south", "west"}


def test_other_images_belong_to_the_patient_of_the_folder_that_they_lie_in(tmp_path):
    data = tmp_path / "scans"
    for number, name in enumerate(("one", "two")):
        series(data / "all" / name / "t2w", f"ID-{number}", number)
        put(data / "all" / name / "adc.nii.gz", scan(number)[0])
    series(data / "else", "ID-0", 5)
    put(data / "all/whose.nii.gz", scan(9)[0])
    found = subjects(find_dataset(data))
    assert found["all_one_adc"] == found["all_one_t2w"] == found["else"]
    assert found["all_two_adc"] == found["all_two_t2w"] != found["else"]
    assert found["all_whose"] == ""  # of one of two patients
    prepare_dataset(data, tmp_path / "cache", OPTIONS)
    (excluded,) = read(tmp_path / "cache", "cases.json")["excluded"]
    assert "whose.nii.gz" in excluded["reason"] and "held back" in excluded["reason"]


def test_files_in_a_folder_for_each_patient_share_a_subject_and_flat_ones_do_not(tmp_path):
    for place in ("p1/t2.nii.gz", "p1/later/t2.nii.gz", "p2/t2.nii.gz", "alone.nii.gz"):
        put(tmp_path / "scans/inner" / place, scan(0)[0])
    found = subjects(find_dataset(tmp_path / "scans"))  # what holds all of them is no patient
    assert list(found.values()) == ["inner_alone", "p1", "p1", "p2"]


@pytest.mark.parametrize("kind", ["volumes", "dicom", "pictures"])
def test_a_patient_of_two_classes_is_one_subject(tmp_path, kind):
    for name, patient in (("benign", "p1"), ("benign", "p2"), ("cancer", "p1")):
        place = tmp_path / "set" / name / patient
        if kind == "volumes":
            put(place / "t2.nii.gz", scan(0)[0])
        elif kind == "dicom":
            series(place / "t2", patient, 0)
        else:
            picture(place / "a.png", 0)
    dataset = find_dataset(tmp_path / "set", classes_from_folders=True)
    assert [case.target for case in dataset.cases] == [0, 0, 1]
    first, other, again = (case.subject for case in dataset.cases)
    assert first == again != other


def test_a_patient_in_the_training_and_test_folders_of_classes_is_refused(tmp_path):
    for place in ("train/a/p1", "train/b/p2", "test/a/p1", "test/b/p3"):
        put(tmp_path / "set" / place / "t2.nii.gz", scan(0)[0])
    options = PrepareOptions(patch_voxels=1000, stages=2, jobs=1, classes_from_folders=True)
    with pytest.raises(InputError, match="p1 is in training and test"):
        prepare_dataset(tmp_path / "set", tmp_path / "cache", options)


@pytest.mark.real_data
def test_the_series_of_two_prostate_patients_are_two_subjects(data_dir):
    dataset = find_dataset(data_dir / "prostate_mpmri_prostatex/dicom")
    assert len(dataset.cases) == 6 and len({case.subject for case in dataset.cases}) == 2


def test_a_folder_that_was_taken_for_a_patient_is_named(tmp_path):
    for place in ("site/one", "site/two", "site/three", "lone/four"):
        put(tmp_path / f"scans/{place}.nii.gz", scan(len(place))[0])
    summary = prepare_dataset(tmp_path / "scans", tmp_path / "cache", OPTIONS)
    assert "1 subject has several volumes" in summary and "(site: 3)" in summary
    assert "column group" in summary
    put(tmp_path / "flat/one.nii.gz", scan(0)[0])
    put(tmp_path / "flat/two.nii.gz", scan(1)[0])
    assert "several volumes" not in prepare_dataset(tmp_path / "flat", tmp_path / "new", OPTIONS)
