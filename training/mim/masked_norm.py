"""Instance normalization over the visible voxels of a masked image.

Masked *moments*: sums weighted by the mask instead of a gather of the visible voxels. Shapes stay
fixed, nothing is read back from the device, samples may hide different numbers of voxels, and
`torch.compile` fuses the whole into the passes that a dense norm needs.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SAMPLED = 64  # every so many voxels give the first guess of the mean


def masked_instance_norm(
    x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5
) -> Tensor:
    """Normalize each sample's channels by their visible voxels; hidden voxels become 0.

    ``x`` (b, c, [z,] y, x), ``mask`` (b, 1, [z,] y, x) True = visible, ``weight`` and ``bias``
    (c,). Moments are in float32. A sample without a visible voxel gives zeros. A mask that serves
    several times is best given as float32, which is what it is turned into.
    """
    visible = mask.to(torch.float32).flatten(2)
    return _MaskedNorm.apply(x.flatten(2), visible, weight, bias, eps).view_as(x)


class _MaskedNorm(torch.autograd.Function):
    """Of (b, c, voxels), forward and backward with two passes over the image each; what autograd
    would make of the forward pass takes several more."""

    @staticmethod
    def forward(
        ctx, x: Tensor, visible: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        values, count = x.float(), visible.sum(2, keepdim=True).clamp(min=1)
        # About a guess of the mean: E[x²] - E[x]² alone loses all digits where the mean is large.
        guess = _mean(values[:, :, ::_SAMPLED], visible[:, :, ::_SAMPLED])
        shifted = values - guess
        weighted = shifted * visible
        first = weighted.sum(2, keepdim=True) / count
        second = (weighted * shifted).sum(2, keepdim=True) / count
        mean, scale = guess + first, torch.rsqrt((second - first.square()).clamp(min=0) + eps)
        ctx.save_for_backward(x, visible, weight, mean, scale, count)
        normalized = (values - mean) * (scale * weight[:, None]) + bias[:, None]
        return (normalized * visible).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        x, visible, weight, mean, scale, count = ctx.saved_tensors
        centered, upstream = x.float() - mean, gradient.float()
        counted = upstream * visible
        total = counted.sum(2, keepdim=True)
        along = (counted * centered).sum(2, keepdim=True) * scale  # with the normalized image
        through = upstream - total / count - centered * (scale * along / count)
        inner = through * visible * (scale * weight[:, None])
        return inner.to(x.dtype), None, along.sum((0, 2)), total.sum((0, 2)), None


def _mean(values: Tensor, visible: Tensor) -> Tensor:
    return (values * visible).sum(2, keepdim=True) / visible.sum(2, keepdim=True).clamp(min=1)
