"""Masked image modelling and contrast together: one encoder pass serves both.

Both views are masked; the decoder restores what was hidden, and the bottlenecks of the two masked
views of a crop must agree. MIM alone is the weakest and contrast the strongest pre-training for
classification in OpenMind (arXiv 2412.17041); the two losses ask for different things of the
encoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from mim.contrastive import ContrastiveModel, ContrastiveSettings
from mim.masked_unet import MaskedAutoencoderUNet, masked_error
from mim.pooling import pool_mean
from mim.recipe import RecipeError, section, setting
from mim.sparse_unet import SparseSettings


@dataclass(frozen=True)
class CombinedSettings(ContrastiveSettings):
    """`ContrastiveSettings`, and how much they count."""

    contrast: float = setting(0.1, "weight of the contrastive loss; that of the masked one is 1")
    masked: SparseSettings = section(SparseSettings)
    name: Literal["masked_contrastive"] = setting(
        "masked_contrastive", "S3D whose bottleneck is compared between two masked views"
    )

    def __post_init__(self):
        super().__post_init__()
        if self.contrast < 0:
            raise RecipeError(f"method.contrast must be 0 or more, not {self.contrast}.")


class Combined(NamedTuple):
    """``loss`` = ``masked`` + weight · ``contrast``, scalars; ``masked`` is the mean over as many
    voxels as ``voxels`` says; ``prediction`` (2b, c, [z,] y, x)."""

    loss: Tensor
    masked: Tensor
    contrast: Tensor
    prediction: Tensor
    voxels: Tensor


class MaskedContrastiveModel(nn.Module):
    """A masked auto-encoder of a U-Net whose bottleneck is compared between views."""

    def __init__(self, model: MaskedAutoencoderUNet, width: int, settings: CombinedSettings):
        super().__init__()
        self.model = model
        self.contrastive = ContrastiveModel(nn.Identity(), width, settings)
        self.weight = settings.contrast

    @property
    def guard(self):
        return self.contrastive.guard

    def forward(
        self, first: Tensor, second: Tensor, mask: Tensor, valid: Tensor | None = None
    ) -> Combined:
        """Two views (b, c, [z,] y, x) of the same crops; ``mask`` and ``valid`` are of both, the
        second after the first: (2b, 1, [z,] y, x)."""
        images = torch.cat((first, second))
        skips = self.model.encode(images, mask)
        prediction = self.model.decode(skips, mask).float()
        scored = ~mask if valid is None else ~mask & valid
        masked, voxels = masked_error(prediction, images.float(), scored, self.model.settings.loss)
        contrast = self.contrastive.compare(pool_mean(skips[-1])).loss
        return Combined(masked + self.weight * contrast, masked, contrast, prediction, voxels)
