"""Label images among scans, and folders of whole data sets, are not taken for scans."""

import json

import numpy as np
import pytest

import finetune
from mim.caching import PrepareOptions, prepare_dataset
from mim.cases import find_dataset
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.volume import Volume
from small_sets import decathlon, nnunet, picture, put, read, scan

OPTIONS = PrepareOptions(patch_voxels=4000, stages=3, jobs=1)


@pytest.mark.parametrize(
    "place",
    ["labelsTr/case_0.nii.gz", "Masks/x.nrrd", "case_0_seg.nii.gz", "p0/case-label.nrrd"],
)
def test_a_label_image_beside_scans_is_refused_by_name_with_what_to_write(tmp_path, place):
    put(tmp_path / "images/case_0.nii.gz", scan(0)[0])
    put(tmp_path / place, scan(0)[1])
    with pytest.raises(InputError, match=r"label images.*cases\.csv with the columns image") as it:
        find_dataset(tmp_path)
    assert place in str(it.value)


def test_words_within_names_are_no_sign_of_labels(tmp_path):
    for name in ("masked/segment_1.nii.gz", "masked/label-free_scan.nii.gz"):
        put(tmp_path / name, scan(0)[0])
    assert len(find_dataset(tmp_path).cases) == 2


def test_the_folder_that_is_named_may_be_called_anything(tmp_path):
    put(tmp_path / "labels/case_0.nii.gz", scan(0)[0])
    assert len(find_dataset(tmp_path / "labels").cases) == 1


def test_folders_of_pictures_and_masks_are_no_classes(tmp_path):
    for index in range(2):
        picture(tmp_path / f"images/{index}.png", index)
        picture(tmp_path / f"masks/{index}.png", index)
    with pytest.raises(InputError, match="label images"):
        find_dataset(tmp_path)


def test_an_image_of_a_few_whole_numbers_is_left_out_with_the_way_out(tmp_path):
    for index in range(2):
        image, label = scan(index)
        put(tmp_path / "scans" / f"case_{index}.nii.gz", image)
        put(tmp_path / "scans" / f"tumor_{index}.nii.gz", label)
    prepare_dataset(tmp_path / "scans", tmp_path / "cache", OPTIONS)
    cases = read(tmp_path / "cache", "cases.json")
    assert [case["id"] for case in cases["cases"]] == ["case_0", "case_1"]
    reasons = {item["id"]: item["reason"] for item in cases["excluded"]}
    assert set(reasons) == {"tumor_0", "tumor_1"}
    assert "only values are 0, 1, 4" in reasons["tumor_0"] and "cases.csv" in reasons["tumor_0"]


def test_coarse_fractions_are_a_scan(tmp_path):
    for index in range(2):
        image, _ = scan(index)
        steps = np.round(image.array / 100, 0) / 4 + 0.1
        put(tmp_path / "scans" / f"case_{index}.nii.gz", Volume(steps, image.geometry))
    prepare_dataset(tmp_path / "scans", tmp_path / "cache", OPTIONS)
    assert len(read(tmp_path / "cache", "cases.json")["cases"]) == 2


def test_a_folder_of_data_sets_is_refused_and_one_of_them_named(tmp_path):
    decathlon(tmp_path / "Dataset001_Boxes", count=2)
    decathlon(tmp_path / "Dataset002_Boxes", count=2)
    with pytest.raises(InputError, match=r"Prepare one of them, as .*Dataset001_Boxes"):
        find_dataset(tmp_path)


def test_the_first_version_of_nnunet_lists_images_without_the_number_of_the_channel(tmp_path):
    data = nnunet(tmp_path / "Task001", {})
    description = {
        "modality": {"0": "T2", "1": "ADC"},
        "labels": {"0": "background", "1": "left", "4": "right"},
        "training": [
            {"image": f"./imagesTr/case_{i}.nii.gz", "label": f"./labelsTr/case_{i}.nii.gz"}
            for i in range(3)
        ],
        "test": [],
    }
    (data / "dataset.json").write_text(json.dumps(description))
    dataset = find_dataset(data)
    assert [(len(case.images), case.is_labeled) for case in dataset.cases] == [(2, True)] * 3
    assert dataset.inputs == ("T2", "ADC") and dataset.labels == {1: "left", 4: "right"}


def test_a_data_set_whose_label_images_are_missing_is_told_before_training(tmp_path, capsys):
    data = nnunet(tmp_path / "raw", {"background": 0, "left": 1, "right": 4})
    for path in (data / "labelsTr").iterdir():
        path.unlink()
    assert "(0 labelled)" in prepare_dataset(data, tmp_path / "cache", OPTIONS)
    (tmp_path / "recipe.toml").write_text("[network]\nfeatures = [4, 8]\nblocks = [1, 1]")
    places = [f"cache={tmp_path / 'cache'}", f"run={tmp_path / 'run'}", "device=cpu"]
    assert finetune.main([str(tmp_path / "recipe.toml"), *places]) == 2
    assert "No training subject" in (said := capsys.readouterr().err) and "labelsTr" in said


@pytest.mark.parametrize(
    "content",
    ['["a"]', '{"training": [{"label": "x"}]}', '{"training": 3}', '{"labels": ["a"]}',
     '{"modality": "MR", "training": [{"image": "a.nii.gz"}]}'],
)  # fmt: skip
def test_a_description_of_another_form_is_told_in_words(tmp_path, content):
    put(tmp_path / "imagesTr/a_0000.nii.gz", scan(0)[0])
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(InputError, match=r"dataset\.json"):
        find_dataset(tmp_path)
