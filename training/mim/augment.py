"""Random changes of batches of crops, as tensor operations on the device the crops are on.

Decisions (whether, by how much) are drawn on the host, so that an operation that no sample needs is
not run and nothing is read back from the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from mim.data import PAD_VALUE, Crops
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
        _check_probabilities(affine=self.affine)
        if not 0 < self.scale[0] <= self.scale[1] or not 0 <= self.stretch < 1:
            raise RecipeError("scale must rise from above 0, and stretch lie between 0 and 1.")


@dataclass(frozen=True)
class IntensitySettings:
    """Changes of brightness; each is a probability, followed by its extent."""

    noise: float = setting(0.15, "probability of Gaussian noise")
    noise_deviation: float = setting(0.15, "largest standard deviation of the noise")
    blur: float = setting(0.1, "probability of Gaussian blur")
    blur_sigma: tuple[float, float] = setting((0.5, 1.0), "its width in voxels")
    brightness: float = setting(0.2, "probability of adding a constant")
    brightness_shift: float = setting(0.3, "largest constant, in either direction")
    contrast: float = setting(0.2, "probability of spreading intensities about their mean")
    contrast_factor: tuple[float, float] = setting((0.75, 1.33), "by this factor")
    gamma: float = setting(0.2, "probability of raising intensities, scaled to 0...1, to a power")
    gamma_power: tuple[float, float] = setting((0.7, 1.5), "this power")

    def __post_init__(self):
        _check_probabilities(
            noise=self.noise,
            blur=self.blur,
            brightness=self.brightness,
            contrast=self.contrast,
            gamma=self.gamma,
        )


def augment_spatial(
    crops: Crops, settings: SpatialSettings, spacing: Sequence[float], generators: Generators
) -> Crops:
    """Mirror, rotate and scale; labels, if there are any, follow by nearest neighbor.

    ``spacing`` (z, y, x) makes rotations rigid in millimetres. What comes in from outside a crop
    is padding: `PAD_VALUE`, not valid, label 0.
    """
    crops = _flip(crops, settings.flip, generators.host)
    chosen = _chosen(len(crops.images), settings.affine, generators.host)
    if not chosen:
        return crops
    matrices = _affines(len(chosen), settings, crops.images.shape[2:], spacing, generators.host)
    return _warp(crops, chosen, matrices)


def augment_intensity(crops: Crops, settings: IntensitySettings, generators: Generators) -> Crops:
    """Noise, blur, brightness, contrast and gamma, each on some samples; the padding stays."""
    images = crops.images.clone()
    host = generators.host
    for i in _chosen(len(images), settings.noise, host):
        noise = torch.randn(
            images[i].shape, generator=generators.device, device=images.device, dtype=images.dtype
        )
        images[i] += noise * _uniform(0, settings.noise_deviation, host)
    for i in _chosen(len(images), settings.blur, host):
        images[i] = _blur(images[i], _uniform(*settings.blur_sigma, host))
    for i in _chosen(len(images), settings.brightness, host):
        images[i] += _uniform(-settings.brightness_shift, settings.brightness_shift, host)
    for i in _chosen(len(images), settings.contrast, host):
        images[i] = _contrast(images[i], _uniform(*settings.contrast_factor, host))
    for i in _chosen(len(images), settings.gamma, host):
        images[i] = _gamma(images[i], _uniform(*settings.gamma_power, host))
    return replace(crops, images=torch.where(crops.valid, images, PAD_VALUE))


def _check_probabilities(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise RecipeError(f"{name} is a probability, from 0 to 1, not {value}.")


def _chosen(count: int, probability: float, generator: torch.Generator) -> list[int]:
    drawn = torch.rand(count, generator=generator).tolist()
    return [i for i, value in enumerate(drawn) if value < probability]


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _tensors(crops: Crops) -> dict[str, Tensor]:
    return {name: value for name, value in vars(crops).items() if isinstance(value, Tensor)}


def _flip(crops: Crops, axes: Sequence[bool], generator: torch.Generator) -> Crops:
    drawn = (torch.rand(len(crops.images), 3, generator=generator) < 0.5).tolist()
    flips = [[axis - 3 for axis in range(3) if axes[axis] and row[axis]] for row in drawn]
    tensors = {
        name: torch.stack([one.flip(axes) for one, axes in zip(tensor, flips, strict=True)])
        for name, tensor in _tensors(crops).items()
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
    if max(spacing) > _ANISOTROPIC * min(spacing):
        through = 2 - max(range(3), key=lambda axis: spacing[axis])  # in (x, y, z) order
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


def _warp(crops: Crops, chosen: list[int], matrices: Tensor) -> Crops:
    images = crops.images
    theta = torch.cat((matrices, torch.zeros(len(chosen), 3, 1)), 2)
    shape = (len(chosen), images.shape[1], *images.shape[2:])
    grid = functional.affine_grid(theta.to(images.device), shape, align_corners=False)
    tensors = {name: tensor.clone() for name, tensor in _tensors(crops).items()}
    for name, tensor in tensors.items():  # zeros are padding for all of them
        mode = "bilinear" if name == "images" else "nearest"
        moved = functional.grid_sample(
            tensor[chosen].float(), grid, mode, "zeros", align_corners=False
        )
        tensor[chosen] = moved.to(tensor.dtype)
    return replace(crops, **tensors)


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (c, z, y, x) as shifted sums: faster here than a depthwise convolution."""
    weights = [math.exp(-0.5 * (shift / sigma) ** 2) for shift in (-2, -1, 0, 1, 2)]
    for axis in (1, 2, 3):
        size = image.shape[axis]
        padding = [2 if axis == 3 - i // 2 else 0 for i in range(6)]
        padded = functional.pad(image[None], padding, "replicate")[0]
        image = sum(
            padded.narrow(axis, i, size) * (weight / sum(weights))
            for i, weight in enumerate(weights)
        )
    return image


def _contrast(image: Tensor, factor: float) -> Tensor:
    mean = image.mean((1, 2, 3), keepdim=True)
    return (image - mean) * factor + mean


def _gamma(image: Tensor, power: float) -> Tensor:
    low = image.amin((1, 2, 3), keepdim=True)
    width = (image.amax((1, 2, 3), keepdim=True) - low).clamp(min=1e-6)
    return ((image - low) / width) ** power * width + low
