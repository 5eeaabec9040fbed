"""Crops are not mirrored without a word where structures differ by their side alone."""

from pathlib import Path

import pytest

import finetune
from mim.caching import PrepareOptions, prepare_dataset
from mim.sides import mirrored_sides
from small_sets import decathlon

RECIPES = Path(__file__).resolve().parents[2] / "training" / "recipes"


def plan(*names, orientation="LPS"):
    labels = [{"value": i, "name": name} for i, name in enumerate(names, 1)]
    return {"labels": labels, "preprocessing": {"orientation": orientation}}


@pytest.mark.parametrize(
    "names", [("left kidney", "right kidney"), ("kidney_left", "kidney_right")]
)
def test_mirroring_from_side_to_side_is_warned_of_with_the_setting_that_ends_it(names):
    said = mirrored_sides(plan("liver", *names), (True, False, True))
    assert all(name in said for name in names) and "spatial.flip=true,false,false" in said


def test_the_axis_between_the_sides_follows_the_orientation():
    pair = ("left lung", "right lung")
    assert not mirrored_sides(plan(*pair), (True, True, False))
    assert mirrored_sides(plan(*pair, orientation="PSR"), (True, False, False))
    assert not mirrored_sides(plan(*pair, orientation="PSR"), (False, True, True))


@pytest.mark.parametrize("names", [("liver", "spleen"), ("left kidney",), ("left lung", "liver")])
def test_structures_without_a_counterpart_may_be_mirrored(names):
    assert not mirrored_sides(plan(*names), (True, True, True))


def test_fine_tuning_says_so_before_it_trains(tmp_path, capsys):
    decathlon(tmp_path / "data", count=3)
    options = PrepareOptions(patch_voxels=4000, stages=3, jobs=1)
    prepare_dataset(tmp_path / "data", tmp_path / "cache", options)
    arguments = [str(RECIPES / "finetune_cpu.toml"), f"cache={tmp_path / 'cache'}",
                 "network.features=4,8,8", "network.blocks=1,1,1", "device=cpu", "precision=fp32",
                 "loop.steps=1", "loop.tensorboard=false"]  # fmt: skip
    for flip, warned in (("true,true,true", True), ("true,true,false", False)):
        more = [f"run={tmp_path / flip}", f"spatial.flip={flip}"]
        assert finetune.main([*arguments, *more]) == 0
        assert ("labels a right box as left box" in capsys.readouterr().out) is warned
