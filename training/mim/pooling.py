"""One vector for an image from a convolutional network's coarsest features."""

from __future__ import annotations

import torch
from torch import Tensor


def pool_mean(features: Tensor) -> Tensor:
    """(b, width, [z,] y, x) to (b, width)."""
    return features.flatten(2).mean(2)


def pool_max(features: Tensor) -> Tensor:
    """(b, width, [z,] y, x) to (b, width)."""
    return features.flatten(2).amax(2)


def pool_mean_max(features: Tensor) -> Tensor:
    """(b, width, [z,] y, x) to (b, 2 * width): means, then maxima.

    Instance normalization gives each channel the same mean in every image. Of something small, such
    as a lesion, hardly anything is left in the mean of what follows; the maximum still shows it.
    """
    return torch.cat((pool_mean(features), pool_max(features)), 1)


POOLING = {"mean": pool_mean, "max": pool_max, "mean_max": pool_mean_max}
