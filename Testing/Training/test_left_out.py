"""What is not trained on: test images, cases without one of their images; each is said."""

import json

import pytest

import prepare
from mim.caching import PrepareOptions, prepare_dataset
from mim.cases import find_dataset
from MIMSegment.Logic.errors import InputError
from small_sets import decathlon, nnunet, picture, put, read, scan

OPTIONS = PrepareOptions(patch_voxels=4000, stages=3, jobs=1)
COMMAND = ["--jobs", "1", "--patch-voxels", "4000", "--stages", "3"]


def nnunet_with_tests(folder):
    """Raw data of nnU-Net with a labelled and an unlabelled test image."""
    data = nnunet(folder, {"background": 0, "left": 1, "right": 4})
    for index, name in enumerate(("known", "unknown")):
        image, label = scan(10 + index)
        for channel in range(2):
            put(data / f"imagesTs/{name}_{channel:04d}.nii.gz", image)
        if name == "known":
            put(data / f"labelsTs/{name}.nii.gz", label)
    return data


def left_out(cache):
    return {item["id"]: item["reason"] for item in read(cache, "cases.json")["excluded"]}


def case_ids(cache):
    return [case["id"] for case in read(cache, "cases.json")["cases"]]


def test_labelled_test_images_of_nnunet_are_held_back_and_the_others_not_used(tmp_path, capsys):
    data = nnunet_with_tests(tmp_path / "raw")
    assert prepare.main([str(data), str(tmp_path / "cache"), *COMMAND]) == 0
    split = read(tmp_path / "cache", "split.json")
    assert split == {"train": ["case_0", "case_1", "case_2"], "held_back": ["known"]}
    assert "unknown" not in case_ids(tmp_path / "cache")
    assert "unknown_0000.nii.gz is a test image" in left_out(tmp_path / "cache")["unknown"]
    assert "Test images without labels, not used: 1 " in capsys.readouterr().out


def test_unlabelled_test_images_train_where_that_is_asked_for(tmp_path):
    data = nnunet_with_tests(tmp_path / "raw")
    command = [str(data), str(tmp_path / "cache"), *COMMAND, "--pretrain-on-test-images"]
    assert prepare.main(command) == 0
    split = read(tmp_path / "cache", "split.json")
    assert "unknown" in split["train"] and split["held_back"] == ["known"]
    assert left_out(tmp_path / "cache") == {}


def test_a_test_list_never_brings_test_images_into_training(tmp_path):
    data = nnunet_with_tests(tmp_path / "raw")
    (tmp_path / "test.txt").write_text("case_1\nunknown_0000.nii.gz\n")
    command = [str(data), str(tmp_path / "cache"), *COMMAND, "--test-list"]
    assert prepare.main([*command, str(tmp_path / "test.txt")]) == 0
    assert read(tmp_path / "cache", "split.json")["held_back"] == ["case_1", "known"]


@pytest.mark.parametrize("labelled", [False, True])
def test_test_images_of_the_decathlon_are_treated_alike(tmp_path, labelled):
    decathlon(tmp_path / "data")
    image, label = scan(20)
    put(tmp_path / "data/imagesTs/case_20.nii.gz", image)
    put(tmp_path / "data/labelsTs/case_20.nii.gz", label)
    entry = {"image": "./imagesTs/case_20.nii.gz", "label": "./labelsTs/case_20.nii.gz"}
    description = json.loads((tmp_path / "data/dataset.json").read_text())
    description["test"] = [entry if labelled else entry["image"]]
    (tmp_path / "data/dataset.json").write_text(json.dumps(description))
    prepare_dataset(tmp_path / "data", tmp_path / "cache", OPTIONS)
    split = read(tmp_path / "cache", "split.json")
    assert "case_20" not in split["train"]
    assert (split["held_back"] == ["case_20"]) == labelled
    assert ("case_20" in left_out(tmp_path / "cache")) != labelled
    assert len(split["held_back"]) >= 1


def test_a_session_without_one_of_the_inputs_is_left_out_by_name(tmp_path, capsys):
    image, _ = scan(0)
    for subject, suffixes in (("01", ("T1w", "FLAIR")), ("02", ("T1w", "T2w")), ("03", ("T1w",))):
        for suffix in suffixes:
            name = f"sub-{subject}/anat/sub-{subject}_{suffix}.nii.gz"
            put(tmp_path / "study" / name, image)
    command = [str(tmp_path / "study"), str(tmp_path / "cache"), *COMMAND]
    assert prepare.main([*command, "--inputs", "T1w", "FLAIR", "--exclude", "sub-03"]) == 0
    assert case_ids(tmp_path / "cache") == ["sub-01"]
    (found,) = left_out(tmp_path / "cache").items()  # nothing of the excluded subject
    assert found[0] == "sub-02" and "no FLAIR, only T1w, T2w" in found[1]
    printed = capsys.readouterr().out
    assert found[1] in printed and "1 volumes left out" in printed


def test_a_row_without_an_image_is_left_out_by_name(tmp_path):
    image, label = scan(0)
    for name in ("t2_0", "adc_0", "t2_1"):
        put(tmp_path / f"{name}.nii.gz", image)
    put(tmp_path / "mask.nii.gz", label)
    (tmp_path / "cases.csv").write_text(
        "image_T2w,image_ADC,label,subject\n"
        "t2_0.nii.gz,adc_0.nii.gz,mask.nii.gz,a\n"
        "t2_1.nii.gz,,mask.nii.gz,b\n"
        ",,mask.nii.gz,c\n"
    )
    prepare_dataset(tmp_path, tmp_path / "cache", OPTIONS)
    assert case_ids(tmp_path / "cache") == ["t2_0"]
    reasons = left_out(tmp_path / "cache")
    assert "row 3 (t2_1) has no image_ADC" in reasons["t2_1"]
    assert "cases.csv" in reasons["t2_1"] and "no image_T2w, image_ADC" in reasons["row 4"]


def test_a_table_without_any_image_is_an_error_that_says_so(tmp_path):
    picture(tmp_path / "a.png", 0)
    (tmp_path / "cases.csv").write_text("image,class\n,a\n,b\n")
    with pytest.raises(InputError, match=r"row 2 has no image"):
        prepare_dataset(tmp_path, tmp_path / "cache", OPTIONS)
    assert not find_dataset(tmp_path).cases
