"""One model trained by several processes: data-parallel, or sharded where it is too large.

``torchrun --nproc-per-node 8 training/pretrain.py ...`` starts the processes; without it there is
one and nothing here does anything.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn

from mim.mean_loss import MeanLoss
from mim.recipe import RecipeError

# What FSDP2 gathers, computes and drops as one: the blocks of a transformer.
_UNITS = ("TransformerBlock", "SwinTransformerBlock", "Block")


def rank() -> int:
    """Number of this process, 0 where there is one."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def require_one_process(what: str) -> None:
    """Raise RecipeError where several processes were started for ``what``, which is one's work."""
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started > 1:
        raise RecipeError(
            f"{what} trains in one process, but {started} were started (WORLD_SIZE) and would all "
            f"write the same folder. Start it without torchrun, on one GPU; study.py --jobs does "
            f"several runs side by side."
        )


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started, if it did; leave them at the end."""
    started = "RANK" in os.environ and not distributed.is_initialized()
    if started:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
        if started:
            # Gloo's threads may still hold tensors of the last exchange, which abort an interpreter
            # that is ending; a barrier holds none.
            distributed.barrier()
    finally:
        if started:
            gc.collect()  # wrapped models hold the group in cycles
            distributed.destroy_process_group()


def local_device(device: torch.device) -> torch.device:
    """The device of this process: on a machine with several GPUs one for each process."""
    if device.type != "cuda" or "LOCAL_RANK" not in os.environ:
        return device
    own = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(own)
    return own


def gather(value: Any) -> list:
    """``value`` of every process, in their order, to every process."""
    if world_size() == 1:
        return [value]
    values: list = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of ``values`` over the processes, to every process."""
    if world_size() > 1:
        distributed.all_reduce(values)
        values /= world_size()
    return values


def mean_count(chosen: Tensor) -> Tensor:
    """How many values of the mask ``chosen`` are true, the mean of the processes, float32.

    Sums divided by it are shares of the mean over all processes' values, however many each has:
    the processes' losses and gradients are averaged afterwards.
    """
    return mean_over_processes(chosen.sum().float())


class LossModule(nn.Module):
    """``compute_loss`` as a module, so that one wrapper sees whatever it calls of ``model``."""

    def __init__(self, model: nn.Module, compute_loss: Callable[[Any], Tensor | MeanLoss]):
        super().__init__()
        self.model, self.compute_loss = model, compute_loss

    def forward(self, batch: Any) -> Tensor | MeanLoss:
        return self.compute_loss(batch)


def data_parallel(loss: LossModule) -> nn.Module:
    """``loss`` with gradients that are averaged over the processes; itself where there is one.

    Made anew when other parameters learn: it takes note of those that require gradients.
    """
    if world_size() == 1 or is_sharded(loss.model):
        return loss
    return nn.parallel.DistributedDataParallel(loss, find_unused_parameters=True)


def shard(model: nn.Module) -> None:
    """Split weights, gradients and optimizer state of ``model`` over the processes, in place.

    FSDP2 (Zhao et al., VLDB 2023): each transformer block is gathered when it computes and dropped
    afterwards. Raises RecipeError where there is one process or no transformer block.
    """
    from torch.distributed.fsdp import fully_shard

    if world_size() == 1:
        raise RecipeError("loop.shard needs several processes; start them with torchrun.")
    units = [module for module in model.modules() if type(module).__name__ in _UNITS]
    if not units:
        raise RecipeError(
            "loop.shard is for large vision transformers; this network has no transformer block. "
            "Leave it out: torchrun then trains data-parallel."
        )
    for unit in units:
        fully_shard(unit)
    fully_shard(model)


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard` was applied to ``model``."""
    from torch.distributed.tensor import DTensor

    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def whole(value: Tensor) -> Tensor:
    """A tensor that may be spread over the processes as an ordinary one."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def whole_state(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Any], dict[str, Any]]:
    """State dicts of model and optimizer, gathered where they are sharded."""
    if not is_sharded(model):
        return model.state_dict(), optimizer.state_dict()
    from torch.distributed.checkpoint import state_dict

    options = state_dict.StateDictOptions(full_state_dict=True, cpu_offload=True)
    if not optimizer.state:  # to ask for its state would make it take an empty step
        return state_dict.get_model_state_dict(model, options=options), {}
    return state_dict.get_state_dict(model, optimizer, options=options)


def load_whole_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, weights: dict, state: dict
) -> None:
    """Undo `whole_state`."""
    if not is_sharded(model):
        model.load_state_dict(weights)
        optimizer.load_state_dict(state)
        return
    from torch.distributed.checkpoint import state_dict

    options = state_dict.StateDictOptions(full_state_dict=True)
    state_dict.set_model_state_dict(model, weights, options=options)
    if state:
        state_dict.set_optimizer_state_dict(model, optimizer, state, options=options)
