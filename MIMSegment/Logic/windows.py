"""Where sliding windows lie and how much each voxel of one counts."""

from __future__ import annotations

import math

import numpy as np


def window_starts(size: int, patch: int, overlap: float) -> list[int]:
    """First voxels of windows of ``patch`` that cover ``size`` evenly, sharing >= ``overlap``.

    The rule is nnU-Net's: the fewest windows whose step is at most patch * (1 - overlap), spread
    so that the first begins at 0 and the last ends at ``size``. No two are the same: a step is a
    voxel at least, as from slice to slice of a 2D network.
    """
    if size <= patch:
        return [0]
    count = math.ceil((size - patch) / max(1.0, patch * (1 - overlap))) + 1
    step = (size - patch) / (count - 1)
    return [round(step * i) for i in range(count)]


def gaussian_weights(patch: int) -> np.ndarray:
    """Importance of each voxel along one axis: a Gaussian of sigma patch / 8, at most 1.

    The weight of a voxel of a window is the product of its three; Isensee et al., nnU-Net, 2021.
    """
    distance = np.arange(patch) - patch // 2
    return np.exp(-0.5 * (distance / (patch / 8)) ** 2).astype(np.float32)


def weight_sum(size: int, patch: int, starts: list[int]) -> np.ndarray:
    """Sum of the window weights at each voxel along one axis.

    Windows form a grid and their weights are products, so the sum over all windows at a voxel is
    the product of the three axes' sums, and no volume of weights is ever stored.
    """
    total = np.zeros(size, np.float32)
    for start in starts:
        total[start : start + patch] += gaussian_weights(patch)
    return total
