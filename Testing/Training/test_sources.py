"""The original images of a cache that was prepared on another computer."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import finetune
from cache_fixture import write_cache
from mim.caching import PrepareOptions, prepare_dataset
from mim.checkpoint import load_checkpoint
from mim.data import read_cache
from mim.recipe import RecipeError, load_recipe
from mim.sources import originals, with_sources
from small_sets import decathlon, read

SMALL = ["network.features=4,8,8", "network.blocks=1,1,1", "device=cpu", "precision=fp32",
         "loop.steps=3", "loop.tensorboard=false"]  # fmt: skip


@pytest.fixture
def work(tmp_path):
    """A cache whose scans have moved from the folder ``old`` to ``new`` since."""
    decathlon(tmp_path / "old/scans", count=4)
    options = PrepareOptions(patch_voxels=4000, stages=3, jobs=1)
    prepare_dataset(tmp_path / "old/scans", tmp_path / "cache", options)
    (tmp_path / "old").rename(tmp_path / "new")
    (tmp_path / "recipe.toml").write_text("")
    return tmp_path


def fine(work, *more):
    places = [f"cache={work / 'cache'}", f"run={work / 'run'}"]
    return finetune.main([str(work / "recipe.toml"), *places, *SMALL, *more])


def held_back_label(work, folder):
    (subject,) = read(work / "cache", "split.json")["held_back"]
    return work / folder / f"scans/labelsTr/{subject}.nii.gz"


def test_missing_originals_of_the_held_back_stop_a_run_before_it_begins(work, capsys):
    assert fine(work) == 2
    error = capsys.readouterr().err
    first = held_back_label(work, "old").parents[1] / "imagesTr" / held_back_label(work, "old").name
    assert f"{first} does not exist (2 of 2 such files)" in error and "sources=OLD,NEW" in error
    assert not (work / "run").exists()


def test_originals_are_read_where_the_recipe_says_that_they_are_now(work):
    assert fine(work, f"sources={work / 'old'},{work / 'new'}") == 0
    assert read(work / "run", "results.json")["cases"] == 1


def test_a_trained_run_that_could_not_be_measured_is_measured_by_resume(work, capsys):
    moved = f"sources={work / 'old'},{work / 'new'}"
    label = held_back_label(work, "new")
    label.rename(work / "label")
    label.write_bytes(b"cut off in the copy")
    assert fine(work, moved) == 2
    error = capsys.readouterr().err
    assert f"trained weights are in {work / 'run/last.pt'}" in error and "--resume" in error
    weights = load_checkpoint(work / "run/last.pt")
    assert weights["step"] == 3 and not (work / "run/results.json").exists()
    shutil.move(work / "label", label)
    assert fine(work, moved, "--resume") == 0
    assert read(work / "run", "results.json")["cases"] == 1
    again = load_checkpoint(work / "run/last.pt")
    assert all(again["model"][name].equal(weights["model"][name]) for name in weights["model"])


def test_a_beginning_that_no_path_has_is_refused_with_one_that_it_has(work, capsys):
    assert fine(work, f"sources=/elsewhere,{work / 'new'}") == 2
    error = capsys.readouterr().err
    assert "begins with /elsewhere" in error and str(work / "old/scans/imagesTr") in error


@pytest.mark.parametrize("sources", ["/one", "/one,/two,/three", ",/two"])
def test_what_is_not_two_beginnings_is_refused_with_an_example(tmp_path, sources):
    (tmp_path / "recipe.toml").write_text("")
    with pytest.raises(RecipeError, match="old and the new beginning"):
        load_recipe(finetune.FinetuneRecipe, tmp_path / "recipe.toml", [f"sources={sources}"])


def moved(tmp_path, sources, source, label=None):
    """The originals of a case with these files."""
    cache = read_cache(write_cache(tmp_path / "cache", subjects=3))
    case = {**cache.cases[0], "source": source, "source_label": label}
    return originals(with_sources(replace(cache, cases=(case,)), sources).cases)


def test_channels_and_label_move_and_folders_count_whole(tmp_path):
    files = ["/data/a_0000.nii", "/database/a_0001.nii"]
    found = moved(tmp_path, ("/data", "/scratch/x"), files, "/data/labels/a.nii")
    expected = ["/scratch/x/a_0000.nii", "/database/a_0001.nii", "/scratch/x/labels/a.nii"]
    assert [Path(path) for path in found] == [Path(path) for path in expected]


@pytest.mark.parametrize("old", ["D:\\scans", "d:/Scans/"])
def test_paths_of_windows_are_moved_elsewhere(tmp_path, old):
    found = moved(tmp_path, (old, "/scratch"), "D:\\scans\\imagesTr\\a.nii")
    assert found == [str(Path("/scratch/imagesTr/a.nii"))]


def test_another_place_of_the_originals_is_no_other_recipe(work):
    assert fine(work, f"sources={work / 'old'},{work / 'new'}") == 0
    (work / "new").rename(work / "newer")
    assert fine(work, f"sources={work / 'old'},{work / 'newer'}", "--resume") == 0
    recipe = json.loads((work / "run/recipe.json").read_text())
    assert recipe["sources"] == [str(work / "old"), str(work / "newer")]
