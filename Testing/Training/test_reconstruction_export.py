"""The network that says whether a scan looks familiar, exported and measured on held-back scans."""

from pathlib import Path

import numpy as np
import pytest

import pretrain
from mim.caching import PrepareOptions, prepare_dataset
from mim.checkpoint import CheckpointError, load_checkpoint
from mim.data import read_cache
from mim.folds import with_fold
from mim.recipe import RecipeError
from mim.reconstruction_export import export_reconstruction
from MIMSegment.Logic.reconstruction import measure
from MIMSegment.Logic.runtime import OnnxSession
from small_sets import decathlon

RECIPES = Path(__file__).resolve().parents[2] / "training" / "recipes"
SMALL = ["network.features=4,8,8", "network.blocks=1,1,1", "device=cpu", "precision=fp32",
         "loop.steps=3", "loop.tensorboard=false", "validation_crops=2"]  # fmt: skip


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A cache with three scans held back, and a pre-training on the others."""
    root = tmp_path_factory.mktemp("reconstruction")
    decathlon(root / "data", count=8)
    options = PrepareOptions(patch_voxels=4000, stages=3, jobs=1, held_back=0.375)
    prepare_dataset(root / "data", root / "cache", options)
    recipe = str(RECIPES / "pretrain_cpu.toml")
    assert pretrain.main([recipe, f"cache={root / 'cache'}", f"run={root / 'pre'}", *SMALL]) == 0
    return root


def export(work, cache, path):
    preprocessing = cache.plan["preprocessing"]
    return export_reconstruction(work / "pre/last.pt", cache, preprocessing, path, False)


def test_the_range_is_what_the_file_makes_of_the_scans_that_were_held_back(work, tmp_path):
    cache = read_cache(work / "cache")
    known = export(work, cache, tmp_path / "model.onnx")
    assert known.images == len(cache.held_back) == 3
    session = OnnxSession(tmp_path / "model.onnx")
    errors = []
    for case in cache.cases_of(cache.held_back):
        image = np.load(cache.folder / case["image"]).astype(np.float32)
        errors.append(measure(image, known.patch, known.block, known.ratio, session).total)
    assert known.errors == pytest.approx(np.quantile(errors, (0.05, 0.5, 0.95)), abs=1e-4)
    assert known.ratio == load_checkpoint(work / "pre/last.pt")["metadata"]["recipe"]["mask"][
        "ratio"
    ][0]  # fmt: skip


def test_it_is_never_measured_on_scans_that_the_network_has_learnt_from(work, tmp_path):
    fold = with_fold(read_cache(work / "cache"), "0/2")
    with pytest.raises(RecipeError, match="has learnt from 3 of the 6 subjects"):
        export(work, fold, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_too_few_scans_are_refused_with_the_way_out(work, tmp_path):
    with pytest.raises(CheckpointError, match=r"holds 2 images back, too few.*--held-back"):
        export(work, with_fold(read_cache(work / "cache"), "1/2"), tmp_path / "model.onnx")
