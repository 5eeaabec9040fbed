"""Random changes of brightness of batches of crops, as batched operations on their device.

Decisions are drawn on the host, once for each sample whatever they are, so that nothing is read
back from the device. A change that any sample needs is computed for the whole batch, with neutral
numbers for the others: shapes never vary. Kinds and order follow nnU-Net (Isensee et al., 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from mim.augment import check_probabilities, thick_axis
from mim.data import PAD_VALUE, Crops
from mim.device import Generators
from mim.recipe import RecipeError, setting


@dataclass(frozen=True)
class IntensitySettings:
    """Changes of brightness; each is a probability, followed by its extent."""

    noise: float = setting(0.15, "probability of Gaussian noise")
    noise_deviation: float = setting(0.15, "largest standard deviation of the noise")
    blur: float = setting(0.1, "probability of Gaussian blur")
    blur_sigma: tuple[float, float] = setting((0.5, 1.0), "its width in voxels")
    low_resolution: float = setting(0.1, "probability of lowering the resolution")
    low_resolution_zoom: tuple[float, float] = setting((0.5, 1.0), "to this share of the voxels")
    brightness: float = setting(0.2, "probability of adding a constant to each channel")
    brightness_shift: float = setting(0.3, "largest constant, in either direction")
    contrast: float = setting(0.2, "probability of spreading intensities about their mean")
    contrast_factor: tuple[float, float] = setting((0.75, 1.33), "by this factor")
    gamma: float = setting(0.2, "probability of raising intensities, scaled to 0...1, to a power")
    gamma_power: tuple[float, float] = setting((0.7, 1.5), "this power")

    def __post_init__(self):
        kinds = ("noise", "blur", "low_resolution", "brightness", "contrast", "gamma")
        check_probabilities(**{kind: getattr(self, kind) for kind in kinds})
        if not 0 < self.low_resolution_zoom[0] <= self.low_resolution_zoom[1] <= 1:
            raise RecipeError("intensity.low_resolution_zoom must rise from above 0 to at most 1.")
        if min(*self.blur_sigma, *self.gamma_power, *self.contrast_factor) <= 0:
            raise RecipeError(
                "intensity.blur_sigma, gamma_power and contrast_factor must be above 0."
            )
        if min(self.noise_deviation, self.brightness_shift) < 0:
            raise RecipeError("intensity.noise_deviation and brightness_shift must not be below 0.")


def augment_intensity(
    crops: Crops, settings: IntensitySettings, spacing: Sequence[float], generators: Generators
) -> Crops:
    """Noise, blur and lower resolution, brightness, contrast, gamma; the padding stays.

    ``spacing`` (z, y, x) tells across which slices nothing is blurred: those that are thick.
    """
    if crops.images.ndim == 4:
        volumes = crops.as_volumes()
        return augment_intensity(volumes, settings, spacing, generators).as_pictures()
    images, host, device = crops.images, generators.host, generators.device
    shape = (len(images), images.shape[1])
    s = settings
    noise = _amounts(shape, s.noise, (0.0, s.noise_deviation), 0.0, host)
    blur = _amounts((shape[0], 1), s.blur, s.blur_sigma, 0.0, host)
    zoom = _amounts((shape[0], 1), s.low_resolution, s.low_resolution_zoom, 1.0, host)
    reach = s.brightness_shift
    shift = _amounts(shape, s.brightness, (-reach, reach), 0.0, host)
    factor = _amounts(shape, s.contrast, s.contrast_factor, 1.0, host)
    power = _amounts(shape, s.gamma, s.gamma_power, 1.0, host)
    if noise is not None:
        normal = torch.randn(images.shape, generator=device, device=images.device)
        images = images + normal * _on(images, noise)
    if blur is not None or zoom is not None:
        images = _soften(images, blur, zoom, thick_axis(images.shape[2:], spacing))
    if shift is not None:
        images = images + _on(images, shift)
    if factor is not None:
        mean = images.mean((2, 3, 4), keepdim=True)
        images = (images - mean) * _on(images, factor) + mean
    if power is not None:
        images = _gamma(images, _on(images, power))
    return replace(crops, images=torch.where(crops.valid, images, PAD_VALUE))


def _amounts(
    shape: tuple[int, int],
    probability: float,
    extent: tuple[float, float],
    neutral: float,
    generator: torch.Generator,
) -> Tensor | None:
    """Numbers (b, c) for a change that each sample has with ``probability``; None for none."""
    chosen = torch.rand(shape[0], 1, generator=generator) < probability
    low, high = extent
    drawn = low + (high - low) * torch.rand(shape, generator=generator)
    return torch.where(chosen, drawn, neutral) if chosen.any() else None


def _on(images: Tensor, amounts: Tensor) -> Tensor:
    return amounts[:, :, None, None, None].to(images.device, non_blocking=True)


def _soften(images: Tensor, sigma: Tensor | None, zoom: Tensor | None, thick: int | None) -> Tensor:
    """Blur and coarser sampling: both are linear and separable, so one matrix for each axis."""
    for axis, letter in enumerate("zyx"):
        size = images.shape[axis + 2]
        if axis == thick or size == 1:
            continue
        matrix = torch.eye(size).expand(len(images), size, size)
        if sigma is not None:
            matrix = _blurring(size, sigma[:, 0]) @ matrix
        if zoom is not None:
            matrix = _coarsening(size, zoom[:, 0]) @ matrix
        matrix = matrix.to(images.device, non_blocking=True)
        images = torch.einsum(f"bczyx,bo{letter}->bc{'zyx'.replace(letter, 'o')}", images, matrix)
    return images


def _blurring(size: int, sigma: Tensor) -> Tensor:
    """Matrices (b, size, size) of a Gaussian of ``sigma`` (b,) voxels; 0 is the identity."""
    position = torch.arange(size)
    distance = (position[:, None] - position).square()
    weights = torch.exp(-0.5 * distance / sigma.clamp(min=1e-3).square()[:, None, None])
    return weights / weights.sum(2, keepdim=True)


def _coarsening(size: int, zoom: Tensor) -> Tensor:
    """Matrices (b, size, size): nearest voxels on a grid ``zoom`` (b,) as fine, linear in between.

    A zoom of 1 is the identity.
    """
    coarse = (size * zoom).round().clamp(min=1)[:, None]
    place = (torch.arange(size) + 0.5) * coarse / size - 0.5
    place = place.clamp(min=0).minimum(coarse - 1)
    below = place.floor()
    above = (below + 1).minimum(coarse - 1)
    share = (place - below)[..., None]

    def source(index: Tensor) -> Tensor:
        voxel = ((index + 0.5) * size / coarse).floor().long().clamp(0, size - 1)
        return functional.one_hot(voxel, size).float()

    return source(below) * (1 - share) + source(above) * share


def _gamma(images: Tensor, power: Tensor) -> Tensor:
    low = images.amin((2, 3, 4), keepdim=True)
    width = (images.amax((2, 3, 4), keepdim=True) - low).clamp(min=1e-6)
    return ((images - low) / width) ** power * width + low
