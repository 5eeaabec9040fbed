"""A residual encoder under a linear classifier, for volumes or images.

The encoder is that of the Residual Encoder U-Net, tensor names included, so that whatever
pre-trained the U-Net starts the classifier too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from mim.networks import Encoder, NetworkConfig, NetworkSettings, initialize, network_config
from mim.pooling import POOLING, WIDTHS
from mim.recipe import RecipeError, setting


@dataclass(frozen=True)
class ClassifierSettings:
    """What a recipe says about the classifier; strides and kernels follow from the plan."""

    features: tuple[int, ...] = setting(
        (32, 64, 128, 256, 320, 320), "channels of each resolution stage, finest first"
    )
    blocks: tuple[int, ...] = setting(
        (1, 3, 4, 6, 6, 6), "residual blocks of each stage, as many entries as features"
    )
    dropout: float = setting(0.0, "share of the pooled features left out in training")
    pooling: Literal["mean", "max", "mean_max", "center"] = setting(
        "mean_max",
        "over space, of the coarsest features; the mean alone sees little; center: also of the "
        "middle, for crops around a lesion",
    )
    strides: tuple[tuple[int, ...], ...] = setting(
        (), "downsampling (z, y, x) on entering each stage; empty: as planned for the data"
    )
    kernel_sizes: tuple[tuple[int, ...], ...] = setting(
        (), "convolution size (z, y, x) of each stage; empty: as planned for the data"
    )
    name: Literal["resenc_classifier"] = setting(
        "resenc_classifier", "residual encoder and linear classifier"
    )

    def __post_init__(self):
        if not self.features or len(self.blocks) != len(self.features):
            raise RecipeError("network.blocks and network.features need one entry for each stage.")
        if min(*self.features, *self.blocks) < 1 or not 0 <= self.dropout < 1:
            raise RecipeError("network.features and blocks must be at least 1, dropout in 0...1.")


class ResidualEncoderClassifier(nn.Module):
    """Encoder, pooling over space (of `pooling.POOLING`), linear layer.

    Input (b, in_channels, [z,] y, x), output logits (b, classes). ``divisor`` is the total stride.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        features: Sequence[int],
        strides: Sequence[Sequence[int]],
        kernel_sizes: Sequence[Sequence[int]],
        blocks: Sequence[int],
        dropout: float = 0.0,
        pooling: str = "mean_max",
    ):
        super().__init__()
        self.divisor = tuple(math.prod(axis) for axis in zip(*strides, strict=True))
        self.encoder = Encoder(in_channels, features, strides, kernel_sizes, blocks)
        self.dropout = nn.Dropout(dropout)
        self.pool = POOLING[pooling]
        self.head = nn.Linear(WIDTHS[pooling] * features[-1], classes)
        self.apply(initialize)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.dropout(self.embed(images)))

    def embed(self, images: Tensor) -> Tensor:
        """The pooled features (b, width) under the classifier."""
        return self.pool(self.encoder(images)[-1])

    def check_patch(self, patch: Sequence[int]) -> None:
        """Raise RecipeError when ``patch`` is not a multiple of the total stride."""
        if any(size % divisor for size, divisor in zip(patch, self.divisor, strict=True)):
            raise RecipeError(
                f"The patch {tuple(patch)} must be a multiple of {self.divisor}, the network's "
                f"total stride; change patch or network.strides."
            )


def configure_classifier(
    settings: ClassifierSettings, plan: dict, patch, in_channels: int, out_channels: int
) -> dict:
    """As `architectures.Architecture.configure` asks; ``out_channels`` are the classes."""
    like_unet = NetworkSettings(
        settings.features, settings.blocks, 1, settings.strides, settings.kernel_sizes
    )
    config = network_config(like_unet, plan, in_channels, out_channels).to_dict()
    for name in ("decoder_convs", "deep_supervision"):
        del config[name]
    return {**config, "dropout": settings.dropout, "pooling": settings.pooling}


def build_classifier(config: dict) -> ResidualEncoderClassifier:
    """The network of a configuration of `configure_classifier`, with fresh weights."""
    # NetworkConfig turns the lists of JSON into tuples.
    own = ("name", "dropout", "pooling")
    plain = {key: value for key, value in config.items() if key not in own}
    sizes = NetworkConfig.from_dict(plain)
    return ResidualEncoderClassifier(
        sizes.in_channels,
        sizes.out_channels,
        sizes.features,
        sizes.strides,
        sizes.kernel_sizes,
        sizes.blocks,
        config["dropout"],
        config["pooling"],
    )
