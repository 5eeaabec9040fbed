"""Two views of the same crops for contrastive pre-training, made on the device they are on.

Random resized crops, mirrors, rotations and intensity changes, as SimCLR found to matter (Chen et
al., ICML 2020); color has no place here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from mim.augment import SpatialSettings, augment_spatial
from mim.data import Crops
from mim.device import Generators
from mim.intensity import IntensitySettings, augment_intensity
from mim.recipe import RecipeError, setting


@dataclass(frozen=True)
class ViewSettings:
    """What a view may keep of a crop."""

    size: tuple[float, float] = setting(
        (0.5, 1.0), "edge of the part that a view shows, a fraction of the crop's, for each axis"
    )

    def __post_init__(self):
        if not 0 < self.size[0] <= self.size[1] <= 1:
            raise RecipeError(f"views.size must rise and lie between 0 and 1, not {self.size}.")


def two_views(
    crops: Crops,
    views: ViewSettings,
    spatial: SpatialSettings,
    intensity: IntensitySettings,
    spacing: Sequence[float],
    generators: Generators,
) -> tuple[Crops, Crops]:
    """Two random versions of each crop, of the crops' own shape; ``spacing`` (z, y, x) in mm."""

    def view() -> Crops:
        seen = resized_part(crops, views, generators.host)
        seen = augment_spatial(seen, spatial, spacing, generators)
        return augment_intensity(seen, intensity, spacing, generators)

    return view(), view()


def resized_part(crops: Crops, settings: ViewSettings, generator: torch.Generator) -> Crops:
    """A random box of each crop, enlarged to the crop's shape; padding stays padding."""
    images = crops.images
    dims = images.ndim - 2
    drawn = torch.rand(len(images), 2, dims, generator=generator)
    low, high = settings.size
    scale = low + (high - low) * drawn[:, 0]
    shift = (1 - scale) * (2 * drawn[:, 1] - 1)
    theta = torch.cat((torch.diag_embed(scale), shift[:, :, None]), 2)
    theta = theta.to(images.device, non_blocking=True)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return replace(
        crops,
        images=_sample(images, grid, "bilinear"),
        valid=_sample(crops.valid.float(), grid, "nearest") > 0.5,
    )


def _sample(tensor: Tensor, grid: Tensor, mode: str) -> Tensor:
    return functional.grid_sample(tensor.float(), grid, mode, "border", align_corners=False)
