"""Optimizers and learning-rate schedules; a schedule is a pure function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from mim.recipe import RecipeError, setting


@dataclass(frozen=True)
class OptimizerSettings:
    """How weights are updated, and how fast."""

    name: Literal["adamw", "sgd"] = setting("adamw", "AdamW, or SGD with Nesterov momentum")
    lr: float = setting(1e-3, "highest learning rate")
    weight_decay: float = setting(0.01, "pull of weights to 0; biases and norms are left out")
    betas: tuple[float, float] = setting((0.9, 0.95), "AdamW's moments")
    momentum: float = setting(0.99, "SGD's momentum")
    schedule: Literal["cosine", "poly", "constant"] = setting(
        "cosine", "fall after the warm-up: half a cosine to 0, (1 - t) ** 0.9, or none"
    )
    warmup: int = setting(50, "steps in which the learning rate rises linearly")
    clip: float = setting(12.0, "largest norm of the gradient; 0: no limit")

    def __post_init__(self):
        if self.lr <= 0 or self.warmup < 0 or self.clip < 0 or self.weight_decay < 0:
            raise RecipeError(
                "optimizer.lr must be above 0, and warmup, clip and weight_decay not below it."
            )


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """The optimizer of ``settings`` over the trainable parameters of ``model``."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.name == "sgd":
        return torch.optim.SGD(groups, settings.lr, momentum=settings.momentum, nesterov=True)
    return torch.optim.AdamW(groups, settings.lr, betas=settings.betas)


def learning_rate(settings: OptimizerSettings, step: int, steps: int) -> float:
    """The learning rate of update ``step`` (0 is the first) in a run of ``steps`` updates."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, steps - settings.warmup)
    if settings.schedule == "cosine":
        return settings.lr * 0.5 * (1 + math.cos(math.pi * done))
    if settings.schedule == "poly":
        return settings.lr * (1 - done) ** 0.9
    return settings.lr
