"""Parts of a data set under the names that people give them: none is a class, none is lost."""

import numpy as np
import pytest

from mim.caching import PrepareOptions, prepare_dataset
from mim.cases import find_dataset
from mim.split_names import sides
from MIMSegment.Logic.errors import InputError
from small_sets import picture, read, table


def pictures(folder, *places: str):
    """Write a picture to each place and give the data set that it makes."""
    for seed, place in enumerate(places):
        picture(folder / f"{place}.jpg", seed, shape=(8, 8))
    return folder


def split_of(dataset) -> dict[str, str]:
    return {case.id: case.split for case in dataset.cases}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("Training,Validation,Testing", "train,train,test"),
        ("tr,val,ts", "train,train,test"),
        ("TRAIN,valid,validation", "train,test,test"),
        ("train,control", "train,"),
    ],
)
def test_validation_is_trained_on_only_where_there_are_test_data(names, expected):
    assert sides(names.split(",")) == expected.split(",")


@pytest.mark.parametrize("names", [("Training", "Testing"), ("tr", "ts"), ("train", "validation")])
def test_folders_of_parts_are_no_classes(tmp_path, names):
    first, second = names
    places = [f"{part}/{group}/0" for part in names for group in ("glioma", "pituitary")]
    dataset = find_dataset(pictures(tmp_path, *places))
    assert dataset.classes == ("glioma", "pituitary")
    assert split_of(dataset) == {
        f"{first}_glioma_0": "train", f"{first}_pituitary_0": "train",
        f"{second}_glioma_0": "test", f"{second}_pituitary_0": "test",
    }  # fmt: skip


def test_a_folder_beside_parts_is_refused_as_it_may_be_either(tmp_path):
    data = pictures(tmp_path, "train/a/0", "train/b/0", "holdout/a", "holdout/b")
    with pytest.raises(InputError, match="holdout beside train: is it a class or a part"):
        find_dataset(data)


def test_test_pictures_without_classes_leave_validation_to_be_held_back(tmp_path):
    data = pictures(tmp_path, "train/a/0", "train/b/0", "val/a/0", "val/b/0", "test/0", "test/1")
    assert list(split_of(find_dataset(data)).values()) == ["train", "train", "test", "test"]


def test_a_class_called_like_a_part_keeps_its_pictures(tmp_path):
    dataset = find_dataset(pictures(tmp_path, "fcd/0", "healthy/0", "ts/0"))
    assert dataset.classes == ("fcd", "healthy", "ts")
    assert set(split_of(dataset).values()) == {""}


@pytest.mark.parametrize("names", [("train", "test"), ("train", "test", "samples")])
def test_parts_of_unlabeled_pictures_are_no_classes(tmp_path, names):
    assert not find_dataset(pictures(tmp_path, *(f"{name}/0" for name in names))).classes


def test_a_table_may_call_its_parts_in_any_of_these_ways(tmp_path):
    words = ("Training", "validation", "testing ", "", "ts", "tr")
    rows = [f"img/p{i}.png,{'ab'[i % 2]},{word}" for i, word in enumerate(words)]
    dataset = find_dataset(table(tmp_path, "\n".join(["image,class,split", *rows])))
    assert [case.split for case in dataset.cases] == ["train", "train", "test", "", "test", "train"]


@pytest.mark.parametrize(
    ("held_back", "said", "count"),
    [
        (0.25, "held back: 2 subjects drawn at random from all labelled ones (--held-back 0", 2),
        (0.0, "held back: nobody.", 0),
    ],
)
def test_a_split_that_names_no_test_part_is_told_with_what_is_done(
    tmp_path, held_back, said, count
):
    rows = [f"img/p{i}.png,{'ab'[i % 2]},train" for i in range(6)]
    data = table(tmp_path / "x", "\n".join(["image,class,split", *rows]))
    options = PrepareOptions(stages=3, jobs=1, picture_size=32, held_back=held_back)
    told = prepare_dataset(data, tmp_path / "cache", options)
    assert f"own split has no usable test part; {said}" in told
    assert len(read(tmp_path / "cache", "split.json")["held_back"]) == count


def test_a_part_that_is_not_understood_is_refused_with_table_column_and_words(tmp_path):
    rows = [f"img/p{i}.png,{'ab'[i % 2]},{word}" for i, word in enumerate(("train", "held", "3"))]
    with pytest.raises(InputError, match=r"labels\.csv: column Fold has '3', 'held'; write train"):
        find_dataset(table(tmp_path, "\n".join(["image,class,Fold", *rows])))


def test_medmnist_without_test_images_holds_back_its_validation_images(tmp_path):
    arrays = {}
    for split, count in (("train", 3), ("val", 2)):
        arrays[f"{split}_images"] = np.zeros((count, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2)[:, None].astype(np.uint8)
    np.savez(tmp_path / "mini.npz", **arrays)
    found = split_of(find_dataset(tmp_path / "mini.npz"))
    assert {n for n, split in found.items() if split == "test"} == {"val_000000", "val_000001"}
