"""bfloat16 copies of a network's matrices: a step computes with them, the update renews them.

Autocast copies each weight to bfloat16 and its gradient back to float32 in every step. A CPU that
multiplies in bfloat16 takes as long for that as for the products of a few crops. Here the copies
live on from step to step, and one compiled pass over a matrix reads the bfloat16 gradient and
writes weight, moments and copy. The float32 weights remain those of the network (mixed precision
with master weights, Micikevicius et al., ICLR 2018), so that checkpoints, averages and validation
know nothing of the copies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mim.vit import PatchEmbedding


class WeightCopies:
    """Copies of the weights of the linear maps of ``module`` that ``optimizer`` (AdamW) has.

    On the CPU only: an update reads its count of steps. The numbers are those of autocast; of a
    weight that is used several times the gradients are added in bfloat16.
    """

    def __init__(self, module: nn.Module, optimizer: torch.optim.AdamW):
        self.module, self.optimizer = module, optimizer
        known = [p for group in optimizer.param_groups for p in group["params"]]
        linear = set(_matrices(module)) & set(known)
        self.weights = {n: p for n, p in module.named_parameters() if p in linear}
        self.copies = {p: nn.Parameter(p.detach().bfloat16()) for p in self.weights.values()}
        self.others = [p for p in known if p not in linear]

    def __call__(self, *inputs: Any) -> Any:
        """What ``module`` gives with the copies in place of its weights."""
        for weight, copy in self.copies.items():
            copy.requires_grad_(weight.requires_grad)
        copies = {name: self.copies[weight] for name, weight in self.weights.items()}
        return functional_call(self.module, copies, inputs)

    def zero_grad(self) -> None:
        """Forget the gradient of the copies."""
        for copy in self.copies.values():
            copy.grad = None

    @torch.no_grad()
    def update(self, limit: float) -> Tensor:
        """Clip the norm of all gradients together to ``limit`` and update all weights.

        Returns the norm before, a scalar, as `nn.utils.clip_grad_norm_` does.
        """
        others = [p.grad for p in self.others if p.grad is not None]
        copied = [c.grad for c in self.copies.values() if c.grad is not None]
        squares = [_sum_of_squares(g.flatten()) for g in (*others, *copied)]
        norm = torch.stack(squares).sum().sqrt()
        scale = (limit / (norm + 1e-6)).clamp(max=1.0)
        if others:
            torch._foreach_mul_(others, scale)
        self.optimizer.step()  # passes over the copied: their own gradient is None
        for weight, copy, group in self._learning():
            state = self._state(weight)
            tensors = (weight, copy, copy.grad, state["exp_avg"], state["exp_avg_sq"])
            factors = _factors(group, float(state["step"]), scale)
            _adamw(*(t.view(-1) for t in tensors), factors, *group["betas"], group["eps"])
        return norm

    def _learning(self) -> Iterator[tuple[Tensor, Tensor, dict]]:
        """Weight, copy and group of the optimizer, of the copies that have a gradient."""
        for group in self.optimizer.param_groups:
            for weight in group["params"]:
                copy = self.copies.get(weight)
                if copy is not None and copy.grad is not None:
                    yield weight, copy, group

    def _state(self, weight: Tensor) -> dict[str, Tensor]:
        """The optimizer's own state of ``weight``, its step counted; as torch makes it."""
        state = self.optimizer.state[weight]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = (torch.zeros_like(weight) for _ in range(2))
        state["step"] += 1
        return state


def _matrices(module: nn.Module) -> Iterator[Tensor]:
    """The weights of linear layers (out, in) and of patch embeddings (out, in, z, y, x)."""
    for layer in module.modules():
        if isinstance(layer, PatchEmbedding):  # linear, with the weight of a convolution
            layer = layer.patch_embeddings
        elif not isinstance(layer, nn.Linear):
            continue
        if layer.weight.is_contiguous():  # the update sees it as a flat array
            yield layer.weight


def _factors(group: dict, step: float, scale: Tensor) -> Tensor:
    """What update number ``step`` multiplies with, (4,): weight, first moment, root of the second
    moment, gradient."""
    first, second = (1 - beta**step for beta in group["betas"])
    rate = group["lr"]
    values = (1 - rate * group["weight_decay"], rate / first, 1 / math.sqrt(second))
    return torch.cat((torch.tensor(values, dtype=torch.float32), scale[None]))


@torch.compile(dynamic=True)
def _sum_of_squares(values: Tensor) -> Tensor:
    """Of a flat tensor of any type, added up in float32."""
    return values.float().square().sum()


@torch.compile(dynamic=True)
def _adamw(
    weight: Tensor,
    copy: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    factors: Tensor,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    """AdamW (Loshchilov and Hutter, ICLR 2019) of flat tensors, in place; see `_factors`."""
    gradient = gradient.float() * factors[3]
    first.lerp_(gradient, 1 - beta1)
    second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    weight.mul_(factors[0]).sub_(factors[1] * first / (second.sqrt() * factors[2] + eps))
    copy.copy_(weight)
