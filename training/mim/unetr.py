"""MONAI's UNETR (Hatamizadeh et al., WACV 2022, arXiv 2103.10504) as a network of this program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from mim.recipe import RecipeError, setting

TOKEN = 16  # voxels of a token along each axis; UNETR knows no other, and has twelve blocks


@dataclass(frozen=True)
class UNETRSettings:
    """Its encoder must equal the transformer that was pre-trained."""

    width: int = setting(768, "length of a token")
    heads: int = setting(12, "attention heads")
    mlp_ratio: float = setting(4.0, "width of the hidden layer of a block, in widths of a token")
    features: int = setting(16, "channels of the decoder at full resolution")
    qkv_bias: bool = setting(False, "biases of queries, keys and values")
    name: Literal["unetr"] = setting("unetr", "UNETR: a vision transformer and a CNN decoder")


def configure_unetr(
    settings: UNETRSettings, plan: dict, patch: Sequence[int], in_channels: int, out_channels: int
) -> dict:
    """The configuration for crops of size ``patch``; RecipeError unless those are whole tokens."""
    if len(patch) != 3 or any(size % TOKEN for size in patch):
        raise RecipeError(f"UNETR needs a patch of multiples of {TOKEN}, not {tuple(patch)}.")
    sizes = {"size": list(patch), "in_channels": in_channels, "out_channels": out_channels}
    names = ("width", "heads", "mlp_ratio", "features", "qkv_bias")
    return {**sizes, **{name: getattr(settings, name) for name in names}}


def build_unetr(config: dict) -> nn.Module:
    """MONAI's UNETR for images (b, in_channels, *size), with what `architectures` asks for."""
    from monai.networks.nets import UNETR

    size = tuple(config["size"])

    class FixedUNETR(UNETR):
        """Its positions fix the size of the images."""

        divisor = None

        def check_patch(self, patch: Sequence[int]) -> None:
            if tuple(patch) != size:
                raise RecipeError(f"The network was made for {size}, not {tuple(patch)}.")

    network = FixedUNETR(
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
        img_size=size,
        feature_size=config["features"],
        hidden_size=config["width"],
        mlp_dim=int(config["width"] * config["mlp_ratio"]),
        num_heads=config["heads"],
        qkv_bias=config["qkv_bias"],
    )
    for block in network.vit.blocks:  # a norm that MONAI's forward pass never uses
        block.norm_cross_attn = nn.Identity()
    return network
