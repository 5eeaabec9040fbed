"""A pre-training learns from several data sets, and never from what one of them holds back."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import pretrain
from cache_fixture import write_cache
from mim.caching import PrepareOptions, prepare_dataset
from mim.checkpoint import load_checkpoint
from mim.data import UnlabeledVolumes, draw_crops, read_cache
from mim.folds import with_fold
from mim.more_caches import read_more
from mim.recipe import RecipeError
from mim.seen import seen_images
from small_sets import decathlon, put, scan

RECIPES = Path(__file__).resolve().parents[2] / "training" / "recipes"
SMALL = ["network.features=4,8,8", "network.blocks=1,1,1", "device=cpu", "precision=fp32",
         "loop.steps=4", "loop.tensorboard=false", "validation_crops=2"]  # fmt: skip
OPTIONS = PrepareOptions(patch_voxels=4000, stages=3, jobs=1, held_back=0.4)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Caches of two data sets, whose files have the same names, and of a copy of the first."""
    root = tmp_path_factory.mktemp("more")
    for name in ("first", "second"):
        decathlon(root / name, count=5)
    for index in range(5):
        for part, volume in zip(("imagesTr", "labelsTr"), scan(50 + index), strict=True):
            put(root / f"second/{part}/case_{index}.nii.gz", volume)
    shutil.copytree(root / "first", root / "copy")
    for name in ("first", "second"):
        prepare_dataset(root / name, root / f"{name}_cache", OPTIONS)
    prepare_dataset(root / "copy", root / "copy_cache", replace(OPTIONS, seed=1))
    return root


def test_crops_come_from_all_data_sets(work):
    first, second = (read_cache(work / f"{name}_cache") for name in ("first", "second"))
    volumes = UnlabeledVolumes(first, first.train, more=[second])
    assert len(volumes) == 6 and len(set(volumes.ids)) == 6
    drawn = {
        case
        for seed in range(8)
        for case in draw_crops(volumes, (8, 8, 8), 8, torch.Generator().manual_seed(seed)).cases
    }
    assert drawn == set(volumes.ids)


def test_a_pre_training_knows_what_it_has_seen_of_each(work, capsys):
    more = f"more_caches=['{work / 'second_cache'}']"
    common = [f"cache={work / 'first_cache'}", f"run={work / 'run'}", more, *SMALL]
    assert pretrain.main([str(RECIPES / "pretrain_cpu.toml"), *common]) == 0
    assert "6 images of 6 subjects of 2 data sets" in capsys.readouterr().out
    first, second = (read_cache(work / f"{name}_cache") for name in ("first", "second"))
    seen = load_checkpoint(work / "run/last.pt")["metadata"]["seen"]
    assert seen == seen_images(first, [second]) and len(seen) == 6


def test_a_copy_with_another_split_would_leak_and_is_refused(work):
    cache = read_cache(work / "first_cache")
    assert set(cache.held_back) != set(read_cache(work / "copy_cache").held_back)
    with pytest.raises(RecipeError, match=r"first_cache holds back.*copy_cache.*--exclude"):
        read_more(cache, [work / "copy_cache"])


def test_what_another_cache_holds_back_is_not_learnt_from_in_ones_own(work):
    cache = read_cache(work / "copy_cache")
    own = replace(cache, train=(*cache.train, *cache.held_back), held_back=())
    with pytest.raises(RecipeError, match=r"first_cache holds back.*copy_cache.*--exclude"):
        read_more(own, [work / "first_cache"])


def test_a_fold_still_spares_what_its_cache_holds_back(work):
    fold = with_fold(read_cache(work / "first_cache"), "0/2")
    with pytest.raises(RecipeError, match="first_cache holds back"):
        read_more(fold, [work / "copy_cache"])


def test_a_run_does_not_go_on_with_images_that_it_did_not_begin_with(work, tmp_path, capsys):
    shutil.copytree(work / "second_cache", tmp_path / "more")
    common = [f"cache={work / 'first_cache'}", f"run={tmp_path / 'run'}", *SMALL]
    common += [f"more_caches=['{tmp_path / 'more'}']", "loop.steps=2"]
    assert pretrain.main([str(RECIPES / "pretrain_cpu.toml"), *common]) == 0
    cases = json.loads((tmp_path / "more/cases.json").read_text())
    for case in cases["cases"]:
        case["digests"] = [digest[::-1] for digest in case["digests"]]
    (tmp_path / "more/cases.json").write_text(json.dumps(cases))
    assert pretrain.main([str(RECIPES / "pretrain_cpu.toml"), *common, "--resume"]) == 2
    assert "3 training images that it did not begin with" in capsys.readouterr().err


def test_a_run_does_not_go_on_with_a_cache_that_was_prepared_otherwise(work, tmp_path, capsys):
    shutil.copytree(work / "second_cache", tmp_path / "more")
    common = [f"cache={work / 'first_cache'}", f"run={tmp_path / 'run'}", *SMALL]
    common += [f"more_caches=['{tmp_path / 'more'}']", "loop.steps=2"]
    assert pretrain.main([str(RECIPES / "pretrain_cpu.toml"), *common]) == 0
    other = replace(OPTIONS, normalization=("rescale_to_01",))
    prepare_dataset(work / "second", tmp_path / "other", other)
    shutil.rmtree(tmp_path / "more")
    (tmp_path / "other").rename(tmp_path / "more")
    assert pretrain.main([str(RECIPES / "pretrain_cpu.toml"), *common, "--resume"]) == 2
    assert f"one of the caches {tmp_path / 'more'} has changed" in capsys.readouterr().err


def test_an_image_that_two_caches_train_on_is_refused_and_so_is_one_cache_twice(work, tmp_path):
    cache = read_cache(work / "first_cache")
    split = json.loads((work / "copy_cache/split.json").read_text())
    both = sorted({*split["train"]} & {*cache.train})
    shutil.copytree(work / "copy_cache", tmp_path / "overlapping")
    (tmp_path / "overlapping/split.json").write_text(json.dumps({"train": both, "held_back": []}))
    with pytest.raises(RecipeError, match=rf"overlapping has images of {len(both)}.*first_cache"):
        read_more(cache, [tmp_path / "overlapping"])
    with pytest.raises(RecipeError, match="out of more_caches"):
        read_more(cache, [work / "first_cache"])
    second = work / "second_cache"
    with pytest.raises(RecipeError, match="out of more_caches"):
        read_more(cache, [second, second])


def test_pictures_of_other_sizes_are_refused(tmp_path):
    for name, side in (("small", 16), ("large", 32)):
        write_cache(tmp_path / name, pictures=True, patch=(1, side, side))
    with pytest.raises(RecipeError, match=r"pictures of \(pixels\) \(32, 32\).*\(16, 16\)"):
        read_more(read_cache(tmp_path / "small"), [tmp_path / "large"])


def test_images_of_other_voxels_are_refused_with_the_way_out(work, tmp_path):
    shutil.copytree(work / "second_cache", tmp_path / "cache")
    plan = json.loads((tmp_path / "cache/plan.json").read_text())
    plan["preprocessing"]["spacing"] = [3.0, 2.0, 2.0]
    (tmp_path / "cache/plan.json").write_text(json.dumps(plan))
    with pytest.raises(RecipeError, match=r"voxels of \(mm\) \[3.0, 2.0, 2.0\].*prepare.py --like"):
        read_more(read_cache(work / "first_cache"), [tmp_path / "cache"])
