"""The folds of nnU-Net's splits_final.json: the same patients are held back here and there."""

import json

import pytest

import finetune
import prepare
from mim.cases import find_dataset, with_names
from mim.checkpoint import load_checkpoint
from mim.data import read_cache
from mim.folds import cache_of
from mim.recipe import RecipeError
from mim.seen import seen_images
from small_sets import decathlon, nnunet, read

CASES = [f"case_{number}" for number in range(6)]
# As of nnU-Net: every case is in val once. Case 5 has no part in the second fold.
FOLDS = [
    {"train": ["case_2", "case_3", "case_4", "case_5"], "val": ["case_0", "case_1"]},
    {"train": ["case_0", "case_1"], "val": ["case_2", "case_3", "case_4"]},
]
SMALL = ["network.features=4,8,8", "network.blocks=1,1,1", "device=cpu", "precision=fp32",
         "loop.steps=1", "loop.tensorboard=false"]  # fmt: skip


def prepared(root, folds, *more, subjects=None):
    """Prepare six cases with these folds; the command's status."""
    if not (root / "scans").exists():
        decathlon(root / "scans", count=6, subjects=subjects)
    text = folds if isinstance(folds, str) else json.dumps(folds)
    (root / "splits_final.json").write_text(text)
    command = [str(root / "scans"), str(root / "cache"), "--jobs", "1", "--stages", "3",
               "--patch-voxels", "4000", "--splits", str(root / "splits_final.json")]  # fmt: skip
    return prepare.main([*command, *more])


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    root = tmp_path_factory.mktemp("splits")
    assert prepared(root, FOLDS) == 0
    return root


def test_the_folds_of_the_file_are_the_folds_of_the_cache(work):
    for index, fold in enumerate(FOLDS):
        cache = cache_of(work / "cache", f"{index}/2")
        assert set(cache.train) == set(fold["train"]) and set(cache.held_back) == set(fold["val"])
    assert set(read_cache(work / "cache").train) == set(CASES)
    assert read(work / "cache", "split.json")["held_back"] == []


def test_a_fold_is_trained_and_measured_on_the_cases_of_the_file(work):
    (work / "recipe.toml").write_text("")
    places = [f"cache={work / 'cache'}", f"run={work / 'run'}", "fold=1/2"]
    assert finetune.main([str(work / "recipe.toml"), *places, *SMALL]) == 0
    rows = json.loads((work / "run/results.json").read_text())["rows"]
    assert {row["id"] for row in rows} == set(FOLDS[1]["val"])
    seen = load_checkpoint(work / "run/last.pt")["metadata"]["seen"]
    assert seen == seen_images(cache_of(work / "cache", "1/2")) and len(seen) == 2


def test_other_numbers_of_folds_are_refused(work):
    with pytest.raises(RecipeError, match=r"prepared with 2 folds \(--splits\); write 0/2"):
        cache_of(work / "cache", "0/5")


def test_unlabelled_subjects_train_in_every_fold(work):
    from mim.folds import with_fold

    cache = read_cache(work / "cache")
    cases = [{**c, "label": None} if c["id"] == "case_5" else c for c in cache.cases]
    assert "case_5" in with_fold(cache.restricted_to(cases), "1/2").train


def test_subjects_that_are_excluded_are_in_no_fold(tmp_path):
    assert prepared(tmp_path, FOLDS, "--exclude", "case_0") == 0
    folds = read(tmp_path / "cache", "split.json")["folds"]
    assert folds[0]["held_back"] == ["case_1"] and folds[1]["train"] == ["case_1"]


def test_a_patient_on_both_sides_of_a_fold_is_refused(tmp_path, capsys):
    subjects = {name: "anna" if name in ("case_1", "case_2") else name for name in CASES}
    assert prepared(tmp_path, FOLDS, subjects=subjects) == 2
    error = capsys.readouterr().err
    assert "fold 0 has subject anna in train and val at once" in error
    assert not (tmp_path / "cache").exists()


def test_names_of_other_cases_and_of_those_for_testing_are_refused(tmp_path, capsys):
    strange = [FOLDS[0], {**FOLDS[1], "val": ["case_2", "case_7"]}]
    assert prepared(tmp_path, strange) == 2
    error = capsys.readouterr().err
    assert "fold 1 names case_7, which is no case" in error and "case_0" in error
    (tmp_path / "test.txt").write_text("case_3")
    assert prepared(tmp_path, FOLDS, "--test-list", str(tmp_path / "test.txt")) == 2
    assert "case_3, which is held back for testing" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["no json", "{}", "[]", json.dumps(FOLDS[:1]), '[{"train": []}]'])
def test_what_is_no_list_of_folds_is_refused_by_name(tmp_path, capsys, text):
    assert prepared(tmp_path, text) == 2
    assert "splits_final.json" in capsys.readouterr().err


def test_names_with_spaces_are_those_of_the_files(tmp_path):
    nnunet(tmp_path / "scans", {"background": 0, "left": 1, "right": 4}, count=2)
    for folder, ending in (("imagesTr", "_0000"), ("imagesTr", "_0001"), ("labelsTr", "")):
        for number in range(2):
            path = tmp_path / "scans" / folder / f"case_{number}{ending}.nii.gz"
            path.rename(path.with_name(f"Käse {number}{ending}.nii.gz"))
    folds = [{"train": ["Käse 0"], "val": ["Käse 1"]}, {"train": ["Käse 1"], "val": ["Käse 0"]}]
    assert prepared(tmp_path, folds) == 0
    assert cache_of(tmp_path / "cache", "0/2").held_back == ("Käse_1",)
    cases = find_dataset(tmp_path / "scans").cases
    assert [case.id for case in with_names(cases, ["Käse 1"])] == ["Käse_1"]
