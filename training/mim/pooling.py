"""One vector for an image from a convolutional network's coarsest features.

``WIDTHS`` says how many times the features' width the vector of each of ``POOLING`` has.
"""

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


def pool_center(features: Tensor) -> Tensor:
    """(b, width, [z,] y, x) to (b, 4 * width): `pool_mean_max` of the whole and of its middle third
    along each axis.

    For crops around the thing to classify. Without it a network cannot tell the thing from its
    likes nearby: pooling forgets where a feature was.
    """
    middle = features
    for axis, size in enumerate(features.shape[2:], 2):
        third = -(-size // 3)
        middle = middle.narrow(axis, (size - third) // 2, third)
    return torch.cat((pool_mean_max(features), pool_mean_max(middle)), 1)


POOLING = {"mean": pool_mean, "max": pool_max, "mean_max": pool_mean_max, "center": pool_center}
WIDTHS = {"mean": 1, "max": 1, "mean_max": 2, "center": 4}
