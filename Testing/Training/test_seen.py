"""Nothing is measured on images that the pre-training has learnt from, whatever they are called."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import evaluate
import export
import finetune
import pretrain
from mim.caching import PrepareOptions, prepare_dataset
from mim.case_table import read_cases
from mim.checkpoint import load_checkpoint, save_checkpoint
from mim.data import read_cache
from mim.recipe import RecipeError
from mim.seen import check_unseen, seen_images
from small_sets import decathlon, put, scan

RECIPES = Path(__file__).resolve().parents[2] / "training" / "recipes"
SMALL = ["network.features=4,8,8", "network.blocks=1,1,1", "device=cpu", "precision=fp32",
         "loop.steps=1", "loop.tensorboard=false"]  # fmt: skip
OPTIONS = PrepareOptions(patch_voxels=4000, stages=3, jobs=1, held_back=0.4)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A data set prepared and pre-trained on; a copy of it with another split and voxel size; and
    other images under the same names."""
    root = tmp_path_factory.mktemp("seen")
    decathlon(root / "data", count=5)
    shutil.copytree(root / "data", root / "copy")
    shutil.copytree(root / "data", root / "other")
    for index in range(5):
        for part, volume in zip(("imagesTr", "labelsTr"), scan(100 + index), strict=True):
            put(root / f"other/{part}/case_{index}.nii.gz", volume)
    prepare_dataset(root / "data", root / "cache", OPTIONS)
    another = replace(OPTIONS, seed=1, spacing=(3.0, 1.5, 1.5))
    for name in ("copy", "other"):
        prepare_dataset(root / name, root / f"{name}_cache", another)
    recipe = str(RECIPES / "pretrain_cpu.toml")
    assert pretrain.main([recipe, f"cache={root / 'cache'}", f"run={root / 'pre'}", *SMALL]) == 0
    return root


def fine_tune(root, cache, run, start):
    return finetune.main(
        [str(RECIPES / "finetune_cpu.toml"), f"cache={root / cache}", f"run={root / run}",
         f"pretrained={start}", *SMALL]
    )  # fmt: skip


@pytest.fixture(scope="module")
def package(work):
    """What finetune.py and export.py make of the cache."""
    assert fine_tune(work, "cache", "packaged", work / "pre/last.pt") == 0
    folder = work / "package"
    assert export.main([str(work / "packaged/last.pt"), str(folder), "--license", "none"]) == 0
    return folder


def measure(package, work, out, *more):
    """The status of evaluate.py on the copy, its summary and the cases of its table."""
    command = ["segment", str(package), str(work / "copy"), "-o", str(out), *more]
    status = evaluate.main(command)
    if status:
        return status, {}, set()
    summary = json.loads((out / "summary.json").read_text())
    return status, summary, {row["case"] for row in read_cases(out / "cases.csv")}


def test_a_package_is_measured_only_on_what_it_has_not_learnt_from(work, package, capsys, tmp_path):
    cache = read_cache(work / "cache")
    _, summary, measured = measure(package, work, tmp_path / "new")
    assert measured == set(cache.held_back) and summary["cases"] == len(measured)
    assert summary["left_out"] == sorted(cache.train) and summary["learnt_from"] == []
    error = capsys.readouterr().err
    assert f"left out 3 cases that the package has learnt from ({sorted(cache.train)[0]}, " in error
    assert "warning" not in error


def test_training_images_are_measured_when_asked_for_and_warned_of(work, package, capsys, tmp_path):
    cache = read_cache(work / "cache")
    _, summary, measured = measure(package, work, tmp_path / "all", "--with-training")
    assert measured == {*cache.train, *cache.held_back}
    assert summary["learnt_from"] == sorted(cache.train) and summary["left_out"] == []
    assert "warning: the package has learnt from 3 of these cases" in capsys.readouterr().err


def test_nothing_is_measured_where_everything_has_been_learnt_from(work, package, capsys, tmp_path):
    cases = ["--cases", *read_cache(work / "cache").train]
    assert measure(package, work, tmp_path / "out", *cases)[0] == 2
    error = capsys.readouterr().err
    assert "has learnt from all 3 cases" in error and "--with-training" in error
    assert not (tmp_path / "out").exists()


def test_a_package_that_does_not_tell_is_measured_on_everything(work, package, capsys, tmp_path):
    shutil.copytree(package, tmp_path / "package")
    path = tmp_path / "package/configs/metadata.json"
    metadata = json.loads(path.read_text())
    del metadata["mimsegment"]["training_images"]
    path.write_text(json.dumps(metadata))
    _, summary, measured = measure(tmp_path / "package", work, tmp_path / "out")
    assert len(measured) == 5 and "left_out" not in summary
    assert "learnt from" not in capsys.readouterr().err


def test_another_split_of_the_same_images_is_refused_wherever_they_lie(work, capsys):
    before, now = read_cache(work / "cache"), read_cache(work / "copy_cache")
    (leaked,) = set(before.train) & set(now.held_back)
    assert fine_tune(work, "copy_cache", "x", work / "pre/last.pt") == 2
    error = capsys.readouterr().err
    assert f"has learnt from 1 of the 2 subjects that {now.folder} holds back ({leaked})" in error
    assert "--seed" in error and "pre-train again" in error


def test_other_images_of_equal_names_are_another_data_set_and_both_are_remembered(work):
    assert fine_tune(work, "other_cache", "fine", work / "pre/last.pt") == 0
    seen = load_checkpoint(work / "fine/last.pt")["metadata"]["seen"]
    both = (seen_images(read_cache(work / name)) for name in ("cache", "other_cache"))
    assert seen == sorted(set().union(*both)) and len(seen) == 6
    with pytest.raises(RecipeError, match=r"fine/last\.pt has learnt from 1 of the 2"):
        check_unseen(read_cache(work / "copy_cache"), seen, work / "fine/last.pt")


def pre_train(root, cache, run, start):
    return pretrain.main(
        [str(RECIPES / "pretrain_cpu.toml"), f"cache={root / cache}", f"run={root / run}",
         f"pretrained={start}", *SMALL]
    )  # fmt: skip


def test_a_pre_training_that_goes_on_elsewhere_has_seen_the_images_of_both(work):
    assert pre_train(work, "other_cache", "pre2", work / "pre/last.pt") == 0
    seen = load_checkpoint(work / "pre2/last.pt")["metadata"]["seen"]
    both = (seen_images(read_cache(work / name)) for name in ("cache", "other_cache"))
    assert seen == sorted(set().union(*both)) and len(seen) == 6


def test_a_pre_training_does_not_start_from_what_has_seen_the_held_back_subjects(work, capsys):
    assert pre_train(work, "copy_cache", "y", work / "pre/last.pt") == 2
    assert "has learnt from 1 of the 2 subjects" in capsys.readouterr().err
    assert not (work / "y").exists()


def test_a_checkpoint_that_does_not_tell_what_it_has_seen_is_loaded(work, tmp_path):
    content = load_checkpoint(work / "pre/last.pt")
    del content["metadata"]["seen"]
    save_checkpoint(tmp_path / "old.pt", content)
    assert fine_tune(work, "copy_cache", "old", tmp_path / "old.pt") == 0


def test_a_copy_of_a_training_image_among_the_held_back_ones_is_no_other_split(work):
    cache = read_cache(work / "cache")
    twin = next(case for case in cache.cases if case["subject"] == cache.train[0])
    cases = [
        {**case, "digests": twin["digests"]} if case["subject"] in cache.held_back else case
        for case in cache.cases
    ]
    check_unseen(cache.restricted_to(cases), seen_images(cache), "last.pt")
