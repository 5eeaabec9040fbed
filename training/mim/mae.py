"""Masked auto-encoding with vision transformers (He et al., CVPR 2022, arXiv 2111.06377).

The encoder sees the visible tokens only, and not even the patches of the others are embedded; a
light decoder restores what is hidden. In 3D as in MIM-Med3D (Chen et al., WACV 2023, arXiv
2204.11716: raw voxels, absolute error) and SelfMedMAE (Zhou et al., ISBI 2023, arXiv 2203.05573:
normalized patches, squared error).
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
from mim.masked_unet import Reconstruction
from mim.masking import visible_blocks
from mim.mean_loss import MeanLoss
from mim.parallel import mean_count
from mim.patches import normalize_patches, patchify, sincos_positions, take, token_mask, unpatchify
from mim.recipe import RecipeError, setting
from mim.vit import VisionTransformer, initialize, transformer_blocks


@dataclass(frozen=True)
class MAESettings:
    """The decoder, what it is to restore, and how that is judged."""

    decoder_width: int = setting(512, "length of a token in the decoder")
    decoder_depth: int = setting(8, "transformer blocks of the decoder; one is cheap and enough")
    decoder_heads: int = setting(8, "attention heads of the decoder")
    target: Literal["raw", "normalized"] = setting(
        "raw", "voxels as they are, or each patch with mean 0 and variance 1"
    )
    loss: Literal["l2", "l1"] = setting("l2", "squared or absolute error")
    name: Literal["mae"] = setting("mae", "masked auto-encoding of a vision transformer")

    def __post_init__(self):
        if min(self.decoder_width, self.decoder_depth, self.decoder_heads) < 1:
            raise RecipeError("method.decoder_width, decoder_depth and decoder_heads must be > 0.")
        if self.decoder_width % self.decoder_heads:
            raise RecipeError("method.decoder_width must be a multiple of decoder_heads.")


class MaskedAutoencoderViT(nn.Module):
    """``visible`` tokens of every image are seen; all masks must leave that many."""

    def __init__(self, network: VisionTransformer, settings: MAESettings, visible: int):
        super().__init__()
        self.network, self.settings, self.visible = network, settings, visible
        self.decoder = _Decoder(network, settings)

    def forward(self, images: Tensor, mask: Tensor, valid: Tensor | None = None) -> Reconstruction:
        """Restore what ``mask`` (b, 1, [z,] y, x) hides of ``images`` (b, c, [z,] y, x).

        ``valid`` (b, 1, [z,] y, x) leaves voxels that belong to no scan (padding) out of the loss.
        The reconstruction's ``prediction`` is 0 where the image was visible, and None in training,
        where nobody looks at it.
        """
        config = self.network.config
        patches = patchify(images, config.patch)
        # A stable sort keeps the order of the grid; no number is read back from the device.
        order = (
            token_mask(mask, config.patch)
            .to(torch.uint8)
            .argsort(dim=1, descending=True, stable=True)
        )
        seen, hidden = order[:, : self.visible], order[:, self.visible :]
        tokens = self.encode(patches, seen)
        prediction = self.decoder(tokens, seen, hidden).float()
        truth = take(patches, hidden).float()
        scored = None if valid is None else take(patchify(valid, config.patch), hidden)
        loss, voxels = self._error(prediction, truth, scored)
        shown = None if self.training else self._place(prediction, truth, hidden)
        return Reconstruction(loss, shown, mask, voxels)

    def encode(self, patches: Tensor, seen: Tensor) -> Tensor:
        """The encoder's tokens (b, m, width) of the patches at the places ``seen`` (b, m)."""
        embedded = self.network.patch_embedding(take(patches, seen), seen)
        return self.network.encode(embedded)[0]

    def _error(self, prediction: Tensor, truth: Tensor, scored: Tensor | None) -> MeanLoss:
        if self.settings.target == "normalized":
            truth, _, _ = normalize_patches(truth)
        difference = prediction - truth
        error = difference.abs() if self.settings.loss == "l1" else difference.square()
        channels = self.network.config.in_channels
        if scored is None:
            return MeanLoss(error.mean(), error.new_full((), error.numel() / channels))
        error = error.unflatten(2, (channels, -1)) * scored[:, :, None]
        count = mean_count(scored)
        return MeanLoss(error.sum() / (count * channels).clamp(min=1), count)

    def _place(self, prediction: Tensor, truth: Tensor, hidden: Tensor) -> Tensor:
        """The predicted patches as an image, in its own intensities."""
        if self.settings.target == "normalized":
            _, mean, deviation = normalize_patches(truth)
            prediction = prediction * deviation + mean
        config = self.network.config
        width = prediction.shape[2]
        whole = prediction.new_zeros(len(prediction), math.prod(config.grid), width)
        whole = whole.scatter(1, hidden[:, :, None].expand(-1, -1, width), prediction)
        return unpatchify(whole, config.grid, config.patch)


class _Decoder(nn.Module):
    """From the visible tokens to the voxels of the hidden ones.

    Attention knows no order, so that the hidden tokens are simply appended; their last
    representations alone become voxels.
    """

    def __init__(self, network: VisionTransformer, settings: MAESettings):
        super().__init__()
        config, width = network.config, settings.decoder_width
        self.embed = nn.Linear(config.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        positions = sincos_positions(config.grid, width)
        self.register_buffer("positions", positions, persistent=False)
        self.blocks = transformer_blocks(
            settings.decoder_depth, width, settings.decoder_heads, config.mlp_ratio, config.qkv_bias
        )
        self.norm = nn.LayerNorm(width)
        self.predict = nn.Linear(width, config.in_channels * math.prod(config.patch))
        self.apply(initialize)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(self, tokens: Tensor, seen: Tensor, hidden: Tensor) -> Tensor:
        known = self.embed(tokens) + take(self.positions, seen)
        unknown = self.mask_token + take(self.positions, hidden)
        tokens = torch.cat((known, unknown.to(known.dtype)), 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.predict(self.norm(tokens[:, seen.shape[1] :]))


def build_mae(recipe: Any, cache: Cache, patch: Sequence[int]) -> MaskedModelling:
    """The method of a recipe; raises RecipeError for masks that do not suit it."""
    if recipe.network.name != "vit":
        raise RecipeError(f"method mae pre-trains network vit, not {recipe.network.name}.")
    network, config = architectures.restoring_network(recipe, cache, patch)
    low, high = recipe.mask.ratio
    if low != high:
        raise RecipeError(
            f"method mae needs one mask.ratio for all samples, so that all have as many visible "
            f"tokens; write mask.ratio={low},{low}."
        )
    block = block_of_tokens(recipe.mask.block, network.config.patch, patch)
    blocks = math.prod(n // edge for n, edge in zip(patch, block, strict=True))
    each = math.prod(block) // math.prod(network.config.patch)
    model = MaskedAutoencoderViT(network, recipe.method, visible_blocks(blocks, low) * each)
    return MaskedModelling(model, config, block, recipe.mask)
