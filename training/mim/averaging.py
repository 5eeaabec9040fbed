"""The exponential moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class WeightAverage:
    """Weights averaged over the steps; the last ones weigh most (Polyak and Juditsky, 1992).

    Early on the average is shorter, so that the first weights, which are noise, are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.parameters = dict(model.named_parameters())
        self.values = {n: p.detach().clone() for n, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after update ``step`` (1 is the first)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current = [p.detach() for p in self.parameters.values()]
        torch._foreach_lerp_(list(self.values.values()), current, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it the model has the averaged weights."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name, parameter in self.parameters.items():
            parameter.data, self.values[name] = self.values[name], parameter.data

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Continue from an averaged state dict of the model."""
        for name, value in self.values.items():
            value.copy_(state[name])
