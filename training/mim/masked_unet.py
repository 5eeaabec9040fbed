"""Masked auto-encoding of a convolutional U-Net.

The dense base of Wald et al. (CVPR 2025, arXiv 2410.23132), after He et al. (MAE, CVPR 2022):
blocks of the image are hidden, the network restores them, the loss sees hidden voxels only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from mim.mean_loss import MeanLoss
from mim.networks import ResidualEncoderUNet
from mim.parallel import mean_count
from mim.recipe import setting


@dataclass(frozen=True)
class MethodSettings:
    """How hidden voxels enter the network and how their reconstruction is judged."""

    loss: Literal["l2", "l1"] = setting("l2", "squared or absolute error, normalized intensities")
    fill: Literal["zero", "token"] = setting(
        "zero", "hidden voxels become 0 (the normalized mean) or a learnt value for each channel"
    )
    name: Literal["masked_unet"] = setting("masked_unet", "dense masked auto-encoding of a U-Net")


class Reconstruction(NamedTuple):
    """``loss`` is the mean over as many voxels as ``voxels`` says, both scalars; ``prediction`` has
    the images' shape; ``mask`` True = visible."""

    loss: Tensor
    prediction: Tensor
    mask: Tensor
    voxels: Tensor


class MaskedAutoencoderUNet(nn.Module):
    """A U-Net that learns to restore hidden blocks.

    The mask is applied to the image *before* the first convolution: afterwards it would be too
    late, as every convolution near a block's edge would have seen into it.
    """

    def __init__(self, network: ResidualEncoderUNet, in_channels: int, settings: MethodSettings):
        super().__init__()
        self.network = network
        self.settings = settings
        if settings.fill == "token":
            self.mask_token = nn.Parameter(torch.zeros(1, in_channels, *[1] * len(network.divisor)))

    def forward(self, images: Tensor, mask: Tensor, valid: Tensor | None = None) -> Reconstruction:
        """Restore ``images`` (b, c, z, y, x) from what ``mask`` (b, 1, z, y, x) leaves visible.

        ``valid`` (b, 1, z, y, x) leaves voxels that belong to no scan (padding) out of the loss.
        """
        prediction = self.restore(images, mask).float()
        scored = ~mask if valid is None else ~mask & valid
        loss, voxels = masked_error(prediction, images.float(), scored, self.settings.loss)
        return Reconstruction(loss, prediction, mask, voxels)

    def restore(self, images: Tensor, mask: Tensor) -> Tensor:
        """What the network makes of the visible part, of the images' shape."""
        return self.decode(self.encode(images, mask), mask)

    def encode(self, images: Tensor, mask: Tensor) -> list[Tensor]:
        """The encoder's outputs for the visible part, the finest first."""
        return self.network.encoder(self.hide(images, mask))

    def decode(self, skips: list[Tensor], mask: Tensor) -> Tensor:
        """The image (b, c, z, y, x) restored from what `encode` returned."""
        return self.network.decoder(skips)

    def hide(self, images: Tensor, mask: Tensor) -> Tensor:
        """The images as the network sees them: masked voxels replaced, whatever they hold."""
        fill = self.mask_token if self.settings.fill == "token" else images.new_zeros(())
        return torch.where(mask, images, fill.to(images.dtype))


def masked_error(prediction: Tensor, target: Tensor, scored: Tensor, kind: str) -> MeanLoss:
    """Mean error over the scored voxels and all channels, and how many they are; 0 for none.

    Of several processes the mean of what they return is that over all their voxels.
    """
    difference = prediction - target
    error = difference.abs() if kind == "l1" else difference.square()
    total = torch.where(scored, error, 0.0).sum()
    count = mean_count(scored)
    return MeanLoss(total / (count * target.shape[1]).clamp(min=1), count)
