"""Optimizers and learning-rate schedules; a schedule is a pure function of the step."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from mim.recipe import RecipeError, setting

Fall = Literal["cosine", "poly", "constant"]

# Of mask and class tokens, positions and Swin's table of relative ones, which are no vectors.
_PLACES = re.compile(r"token|position")


@dataclass(frozen=True)
class OptimizerSettings:
    """How weights are updated, and how fast."""

    name: Literal["adamw", "sgd"] = setting("adamw", "AdamW, or SGD with Nesterov momentum")
    lr: float = setting(1e-3, "highest learning rate")
    weight_decay: float = setting(
        0.01, "pull of weights to 0; biases, norms, tokens and positions are left out"
    )
    betas: tuple[float, float] = setting((0.9, 0.95), "AdamW's moments")
    momentum: float = setting(0.99, "SGD's momentum")
    schedule: Fall = setting(
        "cosine", "fall after the warm-up: half a cosine to 0, (1 - t) ** 0.9, or none"
    )
    warmup: int = setting(50, "steps in which the learning rate rises linearly")
    clip: float = setting(12.0, "largest norm of the gradient; 0: no limit")

    def __post_init__(self):
        if self.lr <= 0 or self.warmup < 0 or self.clip < 0 or self.weight_decay < 0:
            raise RecipeError(
                "optimizer.lr must be above 0, and warmup, clip and weight_decay not below it."
            )
        if not all(0 <= beta < 1 for beta in self.betas) or not 0 < self.momentum < 1:
            raise RecipeError(
                f"optimizer.betas must be at least 0 and below 1, momentum between 0 and 1, not "
                f"{self.betas} and {self.momentum}."
            )


def build_optimizer(
    model: nn.Module,
    settings: OptimizerSettings,
    scales: Mapping[str, float] | None = None,
    encoder: str | tuple[str, ...] | None = None,
) -> torch.optim.Optimizer:
    """The optimizer of ``settings`` over the trainable parameters of ``model``.

    Each of its groups says its ``scale`` of the learning rate, from ``scales`` by name (1 where
    that is None), and whether it belongs to the ``encoder`` (names that start
    so).
    """
    groups: dict[tuple, dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = settings.weight_decay if _decays(name, parameter) else 0.0
        scale = scales[name] if scales else 1.0
        inside = encoder is not None and name.startswith(encoder)
        group = {"params": [], "weight_decay": decay, "scale": scale, "encoder": inside}
        groups.setdefault((inside, scale, decay), group)["params"].append(parameter)
    chosen = list(groups.values())
    if settings.name == "sgd":
        return torch.optim.SGD(chosen, settings.lr, momentum=settings.momentum, nesterov=True)
    # Fused: one kernel, and no step count is read back from the device.
    return torch.optim.AdamW(chosen, settings.lr, betas=settings.betas, fused=True)


def _decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether it is a weight that multiplies. Vectors are biases and norms; these, tokens and
    positions decay would only pull away from their task."""
    return parameter.ndim > 1 and not _PLACES.search(name)


def learning_rate(settings: OptimizerSettings, step: int, steps: int) -> float:
    """The learning rate of update ``step`` (0 is the first) in a run of ``steps`` updates."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, steps - settings.warmup)
    return settings.lr * fall(settings.schedule, done)


def fall(schedule: Fall, done: float) -> float:
    """The share of the highest rate when the fraction ``done`` of its fall is over."""
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if schedule == "poly":
        return (1 - done) ** 0.9
    return 1.0
