"""Random changes of place and form of batches of crops, on the device the crops are on.

Decisions (whether, by how much) are drawn on the host, so that nothing is read back from the device
and an operation that no sample needs is not run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from mim.data import Crops
from mim.device import Generators
from mim.recipe import RecipeError, setting

# Beyond this ratio of voxel sizes a rotation out of the plane of the slices would mix slices that
# are far apart with voxels that are close (the rule of nnU-Net, Isensee et al. 2021).
_ANISOTROPIC = 3.0


@dataclass(frozen=True)
class SpatialSettings:
    """Changes of place and form; the label moves with the image."""

    flip: tuple[bool, bool, bool] = setting(
        (True, True, True), "mirror along (z, y, x) with probability 1/2; not where sides matter"
    )
    affine: float = setting(0.3, "probability of rotating and scaling a crop")
    rotation: float = setting(20.0, "largest angle about each axis, degrees")
    scale: tuple[float, float] = setting((0.8, 1.25), "factor of size, the same for all axes")
    stretch: float = setting(0.1, "largest further change of size along each axis, a fraction")

    def __post_init__(self):
        check_probabilities(affine=self.affine)
        if not 0 < self.scale[0] <= self.scale[1] or not 0 <= self.stretch < 1:
            raise RecipeError("scale must rise from above 0, and stretch lie between 0 and 1.")


def augment_spatial(
    crops: Crops, settings: SpatialSettings, spacing: Sequence[float], generators: Generators
) -> Crops:
    """Mirror, rotate and scale; labels, if there are any, follow by nearest neighbor.

    ``spacing`` (z, y, x) makes rotations rigid in millimetres. What comes in from outside a crop
    is padding: `PAD_VALUE`, not valid, label 0. Pictures are turned in their plane.
    """
    if crops.images.ndim == 4:
        volumes = crops.as_volumes()
        return augment_spatial(volumes, settings, spacing, generators).as_pictures()
    crops = _flip(crops, settings.flip, generators.host)
    count = len(crops.images)
    chosen = torch.rand(count, generator=generators.host) < settings.affine
    matrices = _affines(count, settings, crops.images.shape[2:], spacing, generators.host)
    return _warp(crops, chosen, matrices) if chosen.any() else crops


def thick_axis(shape: Sequence[int], spacing: Sequence[float]) -> int | None:
    """The axis of (z, y, x) that is no direction to turn or blur into: thick slices, one slice."""
    if min(shape) == 1:
        return min(range(3), key=lambda axis: shape[axis])
    if max(spacing) > _ANISOTROPIC * min(spacing):
        return max(range(3), key=lambda axis: spacing[axis])
    return None


def check_probabilities(**values: float) -> None:
    """Raise RecipeError naming the first value that is no probability."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise RecipeError(f"{name} is a probability, from 0 to 1, not {value}.")


def _flip(crops: Crops, axes: Sequence[bool], generator: torch.Generator) -> Crops:
    drawn = (torch.rand(len(crops.images), 3, generator=generator) < 0.5).tolist()
    flips = [[axis - 3 for axis in range(3) if axes[axis] and row[axis]] for row in drawn]
    tensors = {
        name: torch.stack([one.flip(axes) for one, axes in zip(tensor, flips, strict=True)])
        for name, tensor in crops.on_grid().items()
    }
    return replace(crops, **tensors)


def _affines(
    count: int,
    settings: SpatialSettings,
    shape: Sequence[int],
    spacing: Sequence[float],
    generator: torch.Generator,
) -> Tensor:
    """Matrices (count, 3, 3) over (x, y, z) in -1...1, as ``affine_grid`` takes them."""
    drawn = torch.rand(count, 7, generator=generator, dtype=torch.float64)
    angles = (drawn[:, :3] * 2 - 1) * math.radians(settings.rotation)
    flat = thick_axis(shape, spacing)
    if flat is not None:
        through = 2 - flat  # in (x, y, z) order
        angles[:, [axis for axis in range(3) if axis != through]] = 0.0
    low, high = math.log(settings.scale[0]), math.log(settings.scale[1])
    size = (low + (high - low) * drawn[:, 3:4]).exp()
    size = size * (1 + settings.stretch * (drawn[:, 4:] * 2 - 1))
    # From -1...1 to mm, turn and shrink, and back: sampling twice as densely enlarges.
    extent = torch.tensor([n * mm for n, mm in zip(shape, spacing, strict=True)][::-1]).double()
    matrix = _rotations(angles) / size[:, None, :]
    return (matrix * extent / extent[:, None]).float()


def _rotations(angles: Tensor) -> Tensor:
    """Rotation matrices (n, 3, 3) from angles (n, 3) about the x, y and z axes in turn."""
    result = torch.eye(3, dtype=angles.dtype).expand(len(angles), 3, 3)
    for axis in range(3):
        first, second = (other for other in range(3) if other != axis)
        turn = torch.eye(3, dtype=angles.dtype).repeat(len(angles), 1, 1)
        cosine, sine = angles[:, axis].cos(), angles[:, axis].sin()
        turn[:, first, first], turn[:, first, second] = cosine, -sine
        turn[:, second, first], turn[:, second, second] = sine, cosine
        result = turn @ result
    return result


def _warp(crops: Crops, chosen: Tensor, matrices: Tensor) -> Crops:
    """Move the ``chosen`` samples (bool (b,), on the host); shapes never depend on how many."""
    images = crops.images
    theta = torch.cat((matrices, torch.zeros(len(images), 3, 1)), 2)
    theta = theta.to(images.device, non_blocking=True)
    moves = chosen.view(-1, 1, 1, 1, 1).to(images.device, non_blocking=True)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    tensors = crops.on_grid()
    for name, tensor in tensors.items():  # zeros are padding for all of them
        mode = "bilinear" if name == "images" else "nearest"
        moved = functional.grid_sample(tensor.float(), grid, mode, "zeros", align_corners=False)
        tensors[name] = torch.where(moves, moved.to(tensor.dtype), tensor)
    return replace(crops, **tensors)
