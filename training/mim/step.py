"""One update of the weights. Nothing in it reads a number back from the device."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mim.mean_loss import MeanLoss
from mim.optim import OptimizerSettings
from mim.parallel import LossModule, data_parallel, whole, world_size
from mim.run_log import StepRecord
from mim.schedule import TransferSettings, pace
from mim.weight_copies import WeightCopies


class Batch(Protocol):
    """What the loop knows of a batch: a name for each sample."""

    cases: tuple[str, ...]


class Stepper:
    """Takes steps: draw, loss, gradient, clip, update; ``accumulate`` batches make one update.

    Together they make the mean that one large batch would: weighted gradients are added, and at the
    end, when the sum of the weights is known, divided by it. See `MeanLoss`; others weigh the same.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        compute_loss: Callable[[Any], Tensor | MeanLoss],
        settings: OptimizerSettings,
        transfer: TransferSettings,
        accumulate: int,
        bf16: bool,
    ):
        self.optimizer, self.settings, self.transfer = optimizer, settings, transfer
        self.accumulate, self.bf16 = accumulate, bf16
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.device = self.parameters[0].device
        self.loss = LossModule(model, compute_loss)
        self.forward: nn.Module | None = None
        self.encoder_learns: bool | None = None
        self.copies: WeightCopies | None = None

    def copy_weights(self) -> None:
        """From now on compute with `WeightCopies`, where they are faster and the same.

        A GPU casts in no time, several processes exchange the gradients of the weights themselves,
        and gradients that accumulate are better added in float32.
        """
        plain = world_size() == 1 and self.accumulate == 1 and self.device.type == "cpu"
        if plain and self.bf16 and isinstance(self.optimizer, torch.optim.AdamW):
            self.copies = WeightCopies(self.loss, self.optimizer)

    def step(self, draw: Callable[[], Batch], number: int, steps: int) -> StepRecord:
        """Take update ``number`` (1 is the first) of ``steps``."""
        begin, data_seconds = time.perf_counter(), 0.0
        now = pace(self.transfer, self.settings, number - 1, steps)
        self._set_encoder(now.encoder)
        for group in self.optimizer.param_groups:
            group["lr"] = now.lr * group["scale"]
        self.optimizer.zero_grad(set_to_none=True)
        if self.copies is not None:
            self.copies.zero_grad()
        parts, cases = [], []
        for micro in range(self.accumulate):
            before = time.perf_counter()
            batch = draw()
            data_seconds += time.perf_counter() - before
            cases += batch.cases
            parts.append(self._backward(batch, last=micro == self.accumulate - 1))
        loss = self._mean(parts)
        norm = self._update(self.settings.clip or math.inf)
        return StepRecord(number, now.lr, loss, norm, tuple(cases), begin, data_seconds)

    def _backward(self, batch: Batch, last: bool) -> MeanLoss:
        """Add the gradient of the batch's loss; between processes only once for each update.

        Of several batches the weighted one: what it is to be divided by is not known yet.
        """
        apart = hasattr(self.forward, "no_sync") and not last
        with self.forward.no_sync() if apart else contextlib.nullcontext():
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                loss = MeanLoss.of((self.copies or self.forward)(batch))
            (loss.mean if self.accumulate == 1 else loss.mean * loss.weight).backward()
        return MeanLoss(loss.mean.detach(), loss.weight)

    def _update(self, limit: float) -> Tensor:
        """Clip the gradient to a norm of ``limit`` and update; returns the norm before."""
        if self.copies is not None:
            return self.copies.update(limit)
        norm = whole(nn.utils.clip_grad_norm_(self.parameters, limit))
        self.optimizer.step()
        return norm

    def _mean(self, parts: Sequence[MeanLoss]) -> Tensor:
        """The loss of all batches of an update; makes the gradient that of it."""
        if len(parts) == 1:
            return parts[0].mean
        means, weights = (torch.stack(values) for values in zip(*parts, strict=True))
        each = 1 / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        torch._foreach_mul_(gradients, each)
        return (means * weights).sum() * each

    def _set_encoder(self, learns: bool) -> None:
        if learns == self.encoder_learns:
            return
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.requires_grad_(learns or not group["encoder"])
                parameter.grad = None
        self.encoder_learns = learns
        self.forward = data_parallel(self.loss)
