"""A run's folder is never overwritten without a word, nor continued by another recipe."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from mim.checkpoint import CheckpointError, load_checkpoint
from mim.device import Generators
from mim.loop import TrainState
from mim.optim import OptimizerSettings
from mim.recipe import RecipeError, setting
from mim.runs import open_run
from mim.weight_files import read_weights


@dataclass(frozen=True)
class Recipe:
    run: str = setting("", "folder", affects_result=False)
    cache: str = setting("cache", "data", affects_result=False)
    seed: int = setting(0, "seed")


def opened(run, resume, recipe=None, **changes):
    """Open a run as a command does; ``changes`` are to what the checkpoint says of itself."""
    from mim.recipe import recipe_hash, to_dict

    recipe = recipe or Recipe(run=str(run))
    metadata = {
        "kind": "test",
        "plan": {"patch": [8, 8, 8]},
        "fingerprint": {"cases": 3},
        "recipe": to_dict(recipe),
        "recipe_hash": recipe_hash(recipe),
        **changes,
    }
    return open_run(recipe, metadata, resume), metadata


def saved_run(run, step=5):
    checkpoint, metadata = opened(run, False)
    assert checkpoint is None
    torch.manual_seed(0)
    state = TrainState.fresh(nn.Linear(2, 1), OptimizerSettings(), Generators.seeded(0))
    state.step = step
    state.save(run / "last.pt", metadata)
    return run


def test_run_is_not_overwritten_without_a_word(tmp_path):
    with pytest.raises(RecipeError, match="--resume"):
        opened(saved_run(tmp_path), False)


def test_run_is_continued_with_its_own_recipe_only(tmp_path):
    run = saved_run(tmp_path)
    assert opened(run, True)[0]["step"] == 5
    way_out = rf"seed was 0, is now 4.*run=OTHER pretrained={run / 'last.pt'}, without --resume"
    with pytest.raises(RecipeError, match=way_out):
        opened(run, True, Recipe(run=str(run), seed=4))
    with pytest.raises(RecipeError, match="run of test, not of other"):
        opened(run, True, kind="other")
    with pytest.raises(RecipeError, match="cache cache has changed"):
        opened(run, True, fingerprint={"cases": 4})


def test_resume_without_a_checkpoint_starts_anew(tmp_path):
    assert opened(tmp_path, True)[0] is None


def test_half_written_checkpoints_of_killed_runs_are_removed(tmp_path):
    run = saved_run(tmp_path)
    (run / ".0a1b2c3d.last.pt").write_bytes(b"half")
    opened(run, True)
    assert not list(run.glob(".*"))


def test_a_run_that_never_took_a_step_may_be_begun_again(tmp_path):
    assert opened(saved_run(tmp_path, step=0), False)[0] is None


@pytest.mark.parametrize("read", [load_checkpoint, read_weights])
def test_a_run_given_for_a_checkpoint_is_told_with_the_checkpoint_in_it(tmp_path, read):
    for name in ("best.pt", "last.pt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"is a folder; name a checkpoint in it: .*last\.pt"):
        read(tmp_path)
