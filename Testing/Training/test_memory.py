"""A memory that is not enough is told in a sentence with the ways out."""

from pathlib import Path

import pytest
import torch

import finetune
import pretrain
from cache_fixture import write_cache
from mim.memory import MemoryFullError, memory_told

RECIPES = Path(__file__).resolve().parents[2] / "training" / "recipes"


@pytest.mark.parametrize("command", [pretrain, finetune], ids=["pretrain", "finetune"])
def test_a_crop_larger_than_the_memory_ends_in_one_line(command, tmp_path, capsys):
    cache = write_cache(tmp_path / "cache")
    plan = cache / "plan.json"
    plan.write_text(
        plan.read_text().replace('"strides"', '"labels": [{"value": 1, "name": "a"}], "strides"')
    )
    name = command.__name__
    arguments = [str(RECIPES / f"{name}_cpu.toml"), f"cache={cache}", f"run={tmp_path / 'run'}",
                 "network.features=4,8,8", "network.blocks=1,1,1", "device=cpu",
                 "loop.tensorboard=false", "patch=65536,65536,65536"]  # fmt: skip
    assert command.main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"{name}: error: The memory of this computer is not enough.")
    assert all(way in error for way in ("memory_gib=0", "--resume", "loop.accumulate", "patch"))


def test_a_full_gpu_is_told_by_its_name_and_other_errors_stay_what_they_are():
    device = torch.device("cuda:1")
    with pytest.raises(MemoryFullError, match="memory of cuda:1 is"), memory_told(device):
        raise torch.OutOfMemoryError("CUDA out of memory.")
    with pytest.raises(RuntimeError, match="shapes"), memory_told(device):
        raise RuntimeError("shapes do not fit")
