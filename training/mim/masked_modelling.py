"""Restoring what a mask hides: the loop's side of every masked method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from mim.data import Crops, UnlabeledVolumes
from mim.device import Generators
from mim.masking import MaskSettings, draw_mask
from mim.mean_loss import MeanLoss
from mim.recipe import RecipeError
from mim.reconstruction import FixedCrops


@dataclass
class MaskedModelling:
    """Restoring what a mask hides.

    ``model(images, mask, valid)`` returns a Reconstruction; masks (b, 1, z, y, x), True = visible,
    are drawn once for each batch in blocks of ``block`` voxels (z, y, x).
    """

    model: nn.Module
    network: dict
    block: tuple[int, ...]
    mask: MaskSettings

    def __str__(self) -> str:
        return f"masked blocks of {self.block} voxels"

    def loss(self, crops: Crops, generators: Generators) -> MeanLoss:
        mask = draw_mask(
            crops.images, self.block, self.mask.ratio, generators.device, self.mask.strategy
        )
        found = self.model(crops.images, mask, crops.valid)
        return MeanLoss(found.loss, found.voxels)

    def watch(
        self, volumes: UnlabeledVolumes, patch: Sequence[int], count: int, device: torch.device
    ) -> FixedCrops:
        return FixedCrops.draw(volumes, patch, self.mask, self.block, count, device)


def block_of_tokens(
    block: Sequence[int], token: Sequence[int], patch: Sequence[int]
) -> tuple[int, ...]:
    """The masked ``block`` for tokens of ``token`` voxels, one token if it is empty.

    Raises RecipeError unless it is made of whole tokens and fills crops of size ``patch``.
    """
    block = tuple(block) or tuple(token)
    fits = len(block) == len(token) and all(
        edge % cell == 0 and size % edge == 0
        for edge, cell, size in zip(block, token, patch, strict=True)
    )
    if not fits:
        raise RecipeError(
            f"mask.block must be whole tokens of {tuple(token)} voxels and fill the crop "
            f"{tuple(patch)}, not {block}."
        )
    return block
