"""A device that training cannot use is a sentence, not a traceback from the middle of a run."""

import pytest
import torch

from mim.device import resolve_device
from mim.recipe import RecipeError


@pytest.mark.parametrize("name", ["mps", "meta", "xpu:0", "gpu", ""])
def test_other_devices_are_refused_with_those_that_there_are(name):
    with pytest.raises(RecipeError, match="write auto, cpu, cuda or cuda:1"):
        resolve_device(name)


@pytest.mark.parametrize(("count", "known"), [(0, []), (1, ["cuda", "cuda:0"]), (2, ["cuda:1"])])
def test_a_gpu_is_one_that_is_there(count, known, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert all(resolve_device(name) == torch.device(name) for name in known)
    assert resolve_device("auto") == torch.device("cuda" if count else "cpu")
    with pytest.raises(RecipeError, match=f"device cuda:{count} is not there"):
        resolve_device(f"cuda:{count}")
