"""Instance normalization over the visible voxels of a masked image.

Masked *moments*: sums weighted by the mask instead of a gather of the visible voxels. Shapes stay
fixed, nothing is read back from the device, samples may hide different numbers of voxels, and
`torch.compile` fuses the whole into the passes that a dense norm needs.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_instance_norm(
    x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5
) -> Tensor:
    """Normalize each sample's channels by their visible voxels; hidden voxels become 0.

    ``x`` (b, c, [z,] y, x), ``mask`` (b, 1, [z,] y, x) True = visible, ``weight`` and ``bias``
    (c,). Moments are in float32. A sample without a visible voxel gives zeros.
    """
    axes = tuple(range(2, x.ndim))
    shape = (1, -1, *(1 for _ in axes))
    visible = mask.to(torch.float32)
    values = x.float()
    count = visible.sum(axes, keepdim=True).clamp(min=1)
    mean = (values * visible).sum(axes, keepdim=True) / count
    # Two passes: E[x²] - E[x]² loses all digits where the mean is large.
    centered = (values - mean) * visible
    variance = centered.square().sum(axes, keepdim=True) / count
    scaled = centered * torch.rsqrt(variance + eps) * weight.view(shape)
    return (scaled + bias.view(shape) * visible).to(x.dtype)
