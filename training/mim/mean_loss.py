"""A loss that is a mean, and how much it weighs beside those of other batches."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class MeanLoss(NamedTuple):
    """``mean`` and the ``weight`` with which parts of a batch make the mean of the whole, scalars.

    The weight is the number of voxels that the mean is of, or the sum of their weights, as the mean
    of the processes; masks and padding change it from batch to batch. None: all batches of a run
    weigh the same.
    """

    mean: Tensor
    weight: Tensor | None = None

    @staticmethod
    def of(loss: Tensor | MeanLoss) -> MeanLoss:
        """``loss`` with a weight, which is 1 where it has none."""
        mean, weight = loss if isinstance(loss, MeanLoss) else (loss, None)
        return MeanLoss(mean, torch.ones_like(mean) if weight is None else weight)
