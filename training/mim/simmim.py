"""SimMIM: all tokens are encoded, the hidden ones as a learnt token, and one layer restores voxels.

Xie et al., "SimMIM: a simple framework for masked image modeling" (CVPR 2022, arXiv 2111.09886), in
3D as in MIM-Med3D (Chen et al., WACV 2023, arXiv 2204.11716).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mim import architectures
from mim.data import Cache
from mim.masked_modelling import MaskedModelling, block_of_tokens
from mim.masked_unet import Reconstruction, masked_error
from mim.patches import patchify, token_mask, unpatchify
from mim.recipe import RecipeError, setting
from mim.simmim_swin import BLOCK, SimMIMSwin
from mim.swin import TOKEN
from mim.vit import VisionTransformer, initialize


@dataclass(frozen=True)
class SimMIMSettings:
    """How the restored voxels are judged."""

    loss: Literal["l1", "l2"] = setting("l1", "absolute or squared error")
    name: Literal["simmim"] = setting("simmim", "masked modelling with all tokens and one layer")


class SimMIM(nn.Module):
    """A transformer that sees a learnt token in the place of each hidden patch."""

    def __init__(self, network: VisionTransformer, settings: SimMIMSettings):
        super().__init__()
        self.network, self.settings = network, settings
        config = network.config
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.predict = nn.Linear(config.width, config.in_channels * math.prod(config.patch))
        initialize(self.predict)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(self, images: Tensor, mask: Tensor, valid: Tensor | None = None) -> Reconstruction:
        """Restore what ``mask`` (b, 1, [z,] y, x) hides of ``images`` (b, c, [z,] y, x).

        ``valid`` (b, 1, [z,] y, x) leaves voxels that belong to no scan out of the loss.
        """
        config, embedding = self.network.config, self.network.patch_embedding
        visible = token_mask(mask, config.patch)[:, :, None]
        content = embedding.project(patchify(images, config.patch))
        content = torch.where(visible, content, self.mask_token.to(content.dtype))
        tokens, _ = self.network.encode(content + embedding.position_embeddings)
        prediction = unpatchify(self.predict(tokens).float(), config.grid, config.patch)
        scored = ~mask if valid is None else ~mask & valid
        loss, voxels = masked_error(prediction, images.float(), scored, self.settings.loss)
        return Reconstruction(loss, prediction, mask, voxels)


def build_simmim(recipe: Any, cache: Cache, patch: Sequence[int]) -> MaskedModelling:
    """The method of a recipe; raises RecipeError for a network or mask that does not suit it."""
    if recipe.network.name not in ("vit", "swin"):
        raise RecipeError(
            f"method simmim pre-trains network vit or swin, not {recipe.network.name}."
        )
    network, config = architectures.restoring_network(recipe, cache, patch)
    if recipe.network.name == "vit":
        model, token, usual = SimMIM(network, recipe.method), network.config.patch, ()
    else:
        model = SimMIMSwin(network, cache.channels, recipe.method.loss)
        token, usual = (TOKEN,) * 3, BLOCK
    block = block_of_tokens(recipe.mask.block or usual, token, patch)
    return MaskedModelling(model, config, block, recipe.mask)
