"""A vision transformer under a linear classifier, for volumes or images.

The transformer's tensors have the names that they have in UNETR, so that whatever pre-trained the
one starts the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from mim.recipe import RecipeError, setting
from mim.vit import VisionTransformer, ViTConfig, ViTSettings, vit_config


@dataclass(frozen=True)
class ViTClassifierSettings(ViTSettings):
    """The transformer must equal the one that was pre-trained."""

    dropout: float = setting(0.0, "share of the pooled features left out in training")
    name: Literal["vit_classifier"] = setting(
        "vit_classifier", "vision transformer and linear classifier"
    )

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.dropout < 1:
            raise RecipeError(f"network.dropout is at least 0 and below 1, not {self.dropout}.")


class ViTClassifier(nn.Module):
    """Transformer, mean over its tokens, linear layer.

    Input (b, in_channels, [z,] y, x) of the configured size, output logits (b, classes).
    ``divisor`` is None: positions fix the size of the images.
    """

    divisor = None

    def __init__(self, config: ViTConfig, classes: int, dropout: float = 0.0):
        super().__init__()
        self.vit = VisionTransformer(config)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(config.width, classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.dropout(self.embed(images)))

    def embed(self, images: Tensor) -> Tensor:
        """The pooled features (b, width) under the classifier."""
        return self.vit(images)[0].mean(1)

    def check_patch(self, patch: Sequence[int]) -> None:
        """Raise RecipeError when images of ``patch`` voxels are not what it was made for."""
        self.vit.check_patch(patch)


def configure_vit_classifier(
    settings: ViTClassifierSettings,
    plan: dict,
    patch: Sequence[int],
    in_channels: int,
    classes: int,
) -> dict:
    """As `architectures.Architecture.configure` asks."""
    config = vit_config(settings, patch, in_channels).to_dict()
    return {**config, "classes": classes, "dropout": settings.dropout}


def build_vit_classifier(config: dict) -> ViTClassifier:
    """The network of a configuration of `configure_vit_classifier`, with fresh weights."""
    return ViTClassifier(ViTConfig.from_dict(config), config["classes"], config["dropout"])
