"""Folds of a cross-validation: every labelled subject is held back once, and only then unseen."""

import json
from dataclasses import replace

import numpy as np
import pytest

import finetune
import pretrain
import study
from cache_fixture import write_cache
from mim.caching import PrepareOptions, prepare_dataset
from mim.checkpoint import load_checkpoint
from mim.data import read_cache
from mim.folds import cache_of, with_fold
from mim.recipe import RecipeError
from mim.seen import seen_images
from mim.study_grid import StudyRecipe, cells_of, runs_of
from mim.study_scores import Scores
from small_sets import decathlon

SMALL = ["network.features=4,8,8", "network.blocks=1,1,1", "device=cpu", "precision=fp32",
         "loop.steps=2", "loop.tensorboard=false"]  # fmt: skip


@pytest.fixture
def cache(tmp_path):
    return read_cache(write_cache(tmp_path / "cache", subjects=13, held_back=2))


def test_every_training_subject_is_held_back_once_and_the_caches_own_never_take_part(cache):
    folds = [with_fold(cache, f"{index}/4") for index in range(4)]
    held_back = [subject for fold in folds for subject in fold.held_back]
    assert sorted(held_back) == sorted(cache.train)
    assert sorted(len(fold.held_back) for fold in folds) == [2, 3, 3, 3]
    for fold in folds:
        assert set(fold.train) == set(cache.train) - set(fold.held_back)


def test_subjects_without_a_label_train_in_every_fold(cache):
    plain = ("subject_3", "subject_9")
    cases = [{**c, "label": None} if c["subject"] in plain else c for c in cache.cases]
    folds = [with_fold(cache.restricted_to(cases), f"{index}/3") for index in range(3)]
    assert all(set(plain) <= set(fold.train) for fold in folds)
    assert sum(len(fold.held_back) for fold in folds) == len(cache.train) - 2


@pytest.mark.parametrize(
    ("positive", "negative", "folds"), [(10, 30, 5), (10, 40, 5), (25, 75, 4), (40, 60, 5)]
)
def test_each_fold_holds_back_every_class_in_proportion(cache, positive, negative, folds):
    names = [f"s{i}" for i in range(positive + negative)]
    cases = [
        {"subject": n, "label": None, "target": int(i < positive)} for i, n in enumerate(names)
    ]
    both = replace(cache, cases=tuple(cases), train=tuple(names), held_back=())
    held_back = [with_fold(both, f"{index}/{folds}").held_back for index in range(folds)]
    assert sorted(sum(held_back, ())) == sorted(names)
    for found in held_back:
        assert abs(sum(int(name[1:]) < positive for name in found) - positive / folds) < 1


def test_no_fold_is_the_split_as_it_was_prepared(cache):
    assert cache_of(cache.folder) == cache


@pytest.mark.parametrize("fold", ["0", "5/5", "1/1", "-1/5", "a/b", "0/5/6"])
def test_what_is_no_fold_is_refused_with_an_example(cache, fold):
    with pytest.raises(RecipeError, match=r"write 0/5 for the first of five"):
        with_fold(cache, fold)


def test_more_folds_than_labelled_subjects_are_refused(cache):
    with pytest.raises(RecipeError, match="has 11 labelled training subjects, too few for 12"):
        with_fold(cache, "0/12")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A cross-validation of one seed in two folds, of a cache that holds nobody back."""
    root = tmp_path_factory.mktemp("folds")
    decathlon(root / "data", count=5)
    options = PrepareOptions(patch_voxels=4000, stages=3, jobs=1, held_back=0)
    prepare_dataset(root / "data", root / "cache", options)
    (root / "study.toml").write_text(
        f"""
        seeds = [0]
        folds = 2
        finetune = "finetune_cpu.toml"
        finetune_overrides = {[*SMALL, "loop.validate_every=1", "watch=2"]}
        [arms]
        scratch = []
        masked = {["pretrain_cpu.toml", "validation_crops=2", *SMALL]}
        """
    )
    arguments = [str(root / "study.toml"), f"cache={root / 'cache'}", f"run={root / 'run'}"]
    assert study.main(arguments) == 0
    return root


def test_a_study_measures_every_subject_by_the_network_that_has_not_seen_it(finished):
    cache = read_cache(finished / "cache")
    rows = json.loads((finished / "run/study.json").read_text())["rows"]
    assert [(row["cases"], row["subjects"]) for row in rows] == [(5, 5), (5, 5)]
    for index in range(2):
        fold = with_fold(cache, f"{index}/2")
        for run in ("pretrain-masked", "masked", "scratch"):
            folder = finished / f"run/{run}-seed0-fold{index}"
            seen = load_checkpoint(folder / "last.pt")["metadata"]["seen"]
            assert seen == seen_images(fold)
        results = json.loads((folder / "results.json").read_text())
        assert sorted(row["subject"] for row in results["rows"]) == list(fold.held_back)


def test_scores_and_curves_are_means_over_the_folds(finished):
    folders = tuple(finished / f"run/masked-seed0-fold{index}" for index in range(2))
    both = Scores((folders,))
    parts = [Scores(((folder,),)) for folder in folders]
    dice = [row["dice"].values() for part in parts for row in part.results[0]["rows"]]
    assert both.by_seed == pytest.approx([np.mean([np.mean(list(case)) for case in dice])])
    steps, scores = both.curves[0]
    assert steps == [1, 2]
    assert scores == pytest.approx(np.mean([part.curves[0][1] for part in parts], axis=0))


def test_a_pre_training_of_another_fold_is_refused(finished, tmp_path, capsys):
    before = finished / "run/pretrain-masked-seed0-fold0/last.pt"
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("")
    common = [f"cache={finished / 'cache'}", f"run={tmp_path / 'run'}", f"pretrained={before}"]
    assert finetune.main([str(recipe), *common, "fold=1/2", *SMALL]) == 2
    error = capsys.readouterr().err
    assert "has learnt from 2 of the 2 subjects" in error and "with its fold" in error


def test_a_fold_that_cannot_be_stops_before_anything_is_written(finished, tmp_path, capsys):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("")
    common = [f"cache={finished / 'cache'}", f"run={tmp_path / 'run'}", "fold=9/5"]
    assert pretrain.main([str(recipe), *common]) == 2
    assert "fold=9/5" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_folds_of_a_study_are_runs_of_their_own():
    arms = {"scratch": [], "mae": ["pre.toml"]}
    runs = runs_of(cells_of(StudyRecipe(seeds=(0,), arms=arms, run="R", folds=2)))
    assert [run.folder.name for run in runs] == [
        "scratch-seed0-fold0", "scratch-seed0-fold1", "pretrain-mae-seed0-fold0",
        "mae-seed0-fold0", "pretrain-mae-seed0-fold1", "mae-seed0-fold1",
    ]  # fmt: skip
    assert "fold=1/2" in runs[-1].overrides and "fold=1/2" in runs[-1].after.overrides


def test_one_fold_is_no_cross_validation():
    with pytest.raises(RecipeError, match="two or more"):
        StudyRecipe(arms={"scratch": [], "mae": ["pre.toml"]}, folds=1)


def test_classes_of_all_folds_are_scored_together(tmp_path):
    def fold(name, probabilities, targets):
        rows = [
            {"id": f"{name}{i}", "subject": f"{name}{i}", "target": t, "probabilities": [1 - p, p]}
            for i, (p, t) in enumerate(zip(probabilities, targets, strict=True))
        ]
        (tmp_path / name).mkdir()
        content = {"auc_mean": 1.0, "classes": ["well", "sick"], "rows": rows, "cases": len(rows)}
        (tmp_path / name / "results.json").write_text(json.dumps(content))
        return tmp_path / name

    folders = fold("a", [0.1, 0.2, 0.4], [0, 0, 1]), fold("b", [0.3, 0.5, 0.6], [0, 0, 1])
    scores = Scores((folders,))
    assert scores.by_seed == pytest.approx([7 / 8])  # of eight pairs, 0.4 and 0.5 are the wrong way
    assert scores.results[0]["cases"] == 6
