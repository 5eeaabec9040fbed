"""Masks for masked image modelling. One convention everywhere: ``True`` means visible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mim.mask_strategies import Strategy, hiding_order
from mim.recipe import RecipeError, setting


@dataclass(frozen=True)
class MaskSettings:
    """Which part of an image is hidden."""

    ratio: tuple[float, float] = setting(
        (0.75, 0.75), "masked fraction of the blocks, drawn for each sample between these two"
    )
    strategy: Strategy = setting(
        "random",
        "which blocks: random; one contiguous box; a slab of slices; a regular grid; or those near "
        "the crop's center",
    )
    block: tuple[int, ...] = setting(
        (),
        "block size (z, y, x) in voxels; empty: one voxel of the network's coarsest stage, which "
        "follows the data's anisotropy",
    )

    def __post_init__(self):
        if not 0 < self.ratio[0] <= self.ratio[1] < 1:
            raise RecipeError(f"mask.ratio must rise and lie between 0 and 1, not {self.ratio}.")
        if self.block and (len(self.block) not in (2, 3) or min(self.block) < 1):
            raise RecipeError(
                f"mask.block must be empty or a size of at least 1 for each axis: {self.block}."
            )


def grid_shape(shape: Sequence[int], block: Sequence[int]) -> tuple[int, ...]:
    """How many blocks cover ``shape`` along each axis; the last may reach beyond its end."""
    return tuple(-(-size // edge) for size, edge in zip(shape, block, strict=True))


def block_mask(
    batch: int,
    grid: Sequence[int],
    ratio: float | tuple[float, float],
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    strategy: Strategy = "random",
) -> Tensor:
    """Draw which blocks are visible: bool (batch, 1, *grid), in the order of ``strategy``.

    Of N blocks exactly ⌊(1 − ratio)·N⌋ are visible in every sample, at least one and at most
    N − 1; with ``ratio`` = (low, high) each sample draws its own ratio uniformly from it. Nothing
    is read back from the device, and shapes depend on the arguments alone.
    """
    count = int(torch.Size(grid).numel())
    low, high = (ratio, ratio) if isinstance(ratio, float | int) else ratio
    drawn = torch.rand(batch, 1, generator=generator, device=device, dtype=torch.float64)
    visible = _visible(count, low + (high - low) * drawn)
    order = hiding_order(strategy, batch, grid, generator, device)
    return (order >= count - visible).view(batch, 1, *grid)


def visible_blocks(count: int, ratio: float) -> int:
    """How many of ``count`` blocks `block_mask` leaves visible."""
    return int(_visible(count, torch.tensor(ratio, dtype=torch.float64)))


def _visible(count: int, ratio: Tensor) -> Tensor:
    # The small number keeps (1 - 0.9) * 10 from being floored to 0.
    return ((1 - ratio) * count + 1e-6).floor().clamp(1, max(1, count - 1))


def upsample_mask(mask: Tensor, block: Sequence[int], shape: Sequence[int]) -> Tensor:
    """A block mask (b, 1, *grid) at voxels: (b, 1, *shape), blocks at the far ends cut off."""
    factors = tuple(map(float, block))
    # "nearest" rounds down to the block before where 1 / 55 * 55 is less than 1.
    grown = functional.interpolate(mask.to(torch.uint8), scale_factor=factors, mode="nearest-exact")
    return grown[(..., *(slice(size) for size in shape))].bool()


def draw_mask(
    images: Tensor,
    block: Sequence[int],
    ratio: float | tuple[float, float],
    generator: torch.Generator,
    strategy: Strategy = "random",
) -> Tensor:
    """A mask (b, 1, z, y, x) for a batch of ``images``: `block_mask` at voxels, on their device.

    Raises RecipeError where they are a single block, of which nothing can be hidden.
    """
    shape = images.shape[2:]
    grid = grid_shape(shape, block)
    if max(grid) == 1:
        raise RecipeError(
            f"The crop {tuple(shape)} is one block of {tuple(block)} voxels, of which nothing can "
            "be hidden; make mask.block smaller, or patch larger."
        )
    mask = block_mask(len(images), grid, ratio, generator, images.device, strategy)
    return upsample_mask(mask, block, shape)
