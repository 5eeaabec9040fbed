"""Images as sequences of patches, and the places of patches as vectors. In 3D and in 2D."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def patchify(images: Tensor, patch: Sequence[int]) -> Tensor:
    """Cut images (b, c, [z,] y, x) into patches (b, n, c * voxels), in the order of the grid.

    Within a patch the channel varies slowest, as in the weights of a convolution.
    """
    dims = len(patch)
    batch, channels, *shape = images.shape
    split = [n for size, edge in zip(shape, patch, strict=True) for n in (size // edge, edge)]
    grid, within = range(2, 2 + 2 * dims, 2), range(3, 3 + 2 * dims, 2)
    blocks = images.reshape(batch, channels, *split).permute(0, *grid, 1, *within)
    return blocks.reshape(batch, -1, channels * math.prod(patch))


def unpatchify(patches: Tensor, grid: Sequence[int], patch: Sequence[int]) -> Tensor:
    """The images (b, c, [z,] y, x) that `patchify` cut into ``patches``."""
    dims = len(patch)
    blocks = patches.reshape(len(patches), *grid, -1, *patch)
    order = [axis for i in range(dims) for axis in (1 + i, 2 + dims + i)]
    shape = [size * edge for size, edge in zip(grid, patch, strict=True)]
    return blocks.permute(0, 1 + dims, *order).reshape(len(patches), -1, *shape)


def token_mask(mask: Tensor, patch: Sequence[int]) -> Tensor:
    """A voxel mask (b, 1, [z,] y, x) of blocks of whole patches, for each patch: (b, n)."""
    corners = (slice(None, None, edge) for edge in patch)
    return mask[(slice(None), 0, *corners)].flatten(1)


def take(tokens: Tensor, ids: Tensor) -> Tensor:
    """Of ``tokens`` (b or 1, n, width) those at ``ids`` (b, m): (b, m, width)."""
    width = tokens.shape[2]
    return tokens.expand(len(ids), -1, -1).gather(1, ids[:, :, None].expand(-1, -1, width))


def normalize_patches(patches: Tensor, eps: float = 1e-6) -> tuple[Tensor, Tensor, Tensor]:
    """Every patch with mean 0 and variance 1 over its voxels and channels (He et al., CVPR 2022).

    Returns the normalized patches, and means and deviations to undo it.
    """
    variance, mean = torch.var_mean(patches, 2, correction=0, keepdim=True)
    deviation = (variance + eps).sqrt()
    return (patches - mean) / deviation, mean, deviation


def sincos_positions(grid: Sequence[int], width: int) -> Tensor:
    """Fixed positions (1, tokens, width): sines and cosines of each coordinate.

    Axes of one token say nothing and take no room, so that a volume of one slice has the positions
    of an image. What ``width`` leaves over when shared by the axes is 0 (Vaswani et al., 2017).
    """
    axes = [axis for axis, size in enumerate(grid) if size > 1] or [len(grid) - 1]
    frequencies = width // (2 * len(axes))
    scale = 10_000 ** (-torch.arange(frequencies, dtype=torch.float64) / max(1, frequencies))
    places = torch.meshgrid(*(torch.arange(n).double() for n in grid), indexing="ij")
    angles = [places[axis].flatten()[:, None] * scale for axis in axes]
    waves = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], 1)
    return torch.nn.functional.pad(waves, (0, width - waves.shape[1]))[None].float()
