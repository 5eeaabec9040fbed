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


def test_a_package_is_not_measured_unwarned_on_what_it_has_learnt_from(work, capsys, tmp_path):
    cache = read_cache(work / "cache")
    assert fine_tune(work, "cache", "packaged", work / "pre/last.pt") == 0
    package = tmp_path / "package"
    assert export.main([str(work / "packaged/last.pt"), str(package), "--license", "none"]) == 0

    def measure(out, *more):
        command = ["segment", str(package), str(work / "copy"), "-o", str(out), *more]
        assert evaluate.main(command) == 0
        summary = json.loads((out / "summary.json").read_text())
        return summary["learnt_from"], capsys.readouterr().err

    learnt, error = measure(tmp_path / "all")
    assert learnt == sorted(cache.train)
    assert f"has learnt from {len(learnt)} of these cases ({learnt[0]}, " in error
    learnt, error = measure(tmp_path / "new", "--cases", *cache.held_back)
    assert learnt == [] and "warning: the package" not in error


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
