"""Every case has a name of its own: files of the cache are called by it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mim.caching import PrepareOptions, prepare_dataset
from mim.cases import find_dataset
from MIMSegment.Logic.errors import InputError
from small_sets import decathlon, nnunet, picture, put, read, scan

OPTIONS = PrepareOptions(patch_voxels=4000, stages=3, jobs=1)
LABELS = {"background": 0, "left": 1, "right": 4}


def test_nnunet_test_case_called_like_a_training_case_is_kept_apart(tmp_path):
    data = nnunet(tmp_path / "raw", LABELS)
    for channel in range(2):
        put(data / f"imagesTs/case_0_{channel:04d}.nii.gz", scan(7, shape=(12, 24, 18))[0])
    prepare_dataset(data, tmp_path / "cache", replace(OPTIONS, pretrain_on_test_images=True))
    cases = {case["id"]: case for case in read(tmp_path / "cache", "cases.json")["cases"]}
    assert set(cases) == {"case_0", "case_1", "case_2", "imagesTs_case_0"}
    for name, case in cases.items():
        image = np.load(tmp_path / "cache" / case["image"])
        assert image.shape == (2, 12, 24 if name == "imagesTs_case_0" else 20, 18)
        assert list(image.shape) == case["shape"] and case["subject"] == name
    assert cases["case_0"]["label"] and not cases["imagesTs_case_0"]["label"]


def test_decathlon_test_image_called_like_a_training_image_is_kept_apart(tmp_path):
    decathlon(tmp_path, count=2)
    description = json.loads((tmp_path / "dataset.json").read_text())
    description["test"] = ["./imagesTs/case_0.nii.gz", "./imagesTs/case_9.nii.gz"]
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    cases = find_dataset(tmp_path).cases
    assert [case.id for case in cases] == ["case_0", "case_1", "imagesTs_case_0", "case_9"]
    assert [case.image.parent.name for case in cases] == ["imagesTr"] * 2 + ["imagesTs"] * 2


def test_a_listed_subject_goes_with_the_name_or_with_that_of_the_test_image(tmp_path):
    decathlon(tmp_path, count=2, subjects={"case_0": 1, "case_1": 2, "imagesTs_case_1": 3})
    description = json.loads((tmp_path / "dataset.json").read_text())
    description["test"] = ["./imagesTs/case_0.nii.gz", "./imagesTs/case_1.nii.gz"]
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    assert [case.subject for case in find_dataset(tmp_path).cases] == ["1", "2", "1", "3"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("p1/scan.nii.gz", "p1_scan.nii.gz"),
        ("p1/scan.nii.gz", "p1/scan.nrrd"),
        ("sub-01/anat/sub-01_T1w.nii", "sub-01/anat/sub-01_T1w.nii.gz"),
    ],
)
def test_two_images_of_one_name_are_refused_with_both_files(tmp_path, first, second):
    for place in (first, second):
        put(tmp_path / place, scan(0)[0])
    with pytest.raises(InputError, match="rename one") as error:
        find_dataset(tmp_path)
    assert first in str(error.value) and second in str(error.value)


@pytest.mark.parametrize("listed", [True, False])
def test_two_pictures_that_differ_in_their_ending_are_refused_with_both_files(tmp_path, listed):
    for place in ("a/x.png", "a/x.jpg", "b/y.png"):
        picture(tmp_path / place, 0)
    if listed:
        (tmp_path / "cases.csv").write_text("image,class\na/x.png,a\na/x.jpg,a\nb/y.png,b\n")
    with pytest.raises(InputError, match="rename one") as error:
        find_dataset(tmp_path)
    assert "a/x.png" in str(error.value) and "a/x.jpg" in str(error.value)


def test_an_image_that_is_listed_twice_is_refused(tmp_path):
    decathlon(tmp_path, count=2)
    description = json.loads((tmp_path / "dataset.json").read_text())
    description["test"] = ["imagesTr/case_1.nii.gz"]
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match=r"case_1\.nii\.gz is in .* more than once"):
        find_dataset(tmp_path)
