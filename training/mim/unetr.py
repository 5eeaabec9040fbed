"""MONAI's UNETR (Hatamizadeh et al., WACV 2022, arXiv 2103.10504) as a network of this program."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from mim.recipe import RecipeError, setting

_LEVELS = 4  # upsamplings that lead from tokens to voxels


@dataclass(frozen=True)
class UNETRSettings:
    """Its encoder must equal the transformer that was pre-trained; it has twelve blocks."""

    patch: tuple[int, int, int] = setting((16, 16, 16), "voxels (z, y, x) of a token")
    width: int = setting(768, "length of a token")
    heads: int = setting(12, "attention heads")
    mlp_ratio: float = setting(4.0, "width of the hidden layer of a block, in widths of a token")
    features: int = setting(16, "channels of the decoder at full resolution")
    qkv_bias: bool = setting(False, "biases of queries, keys and values")
    name: Literal["unetr"] = setting("unetr", "UNETR: a vision transformer and a CNN decoder")

    def __post_init__(self):
        if min(self.patch) < 1:
            raise RecipeError(f"network.patch is at least 1 along each axis, not {self.patch}.")
        if min(self.width, self.heads, self.features) < 1 or self.width % self.heads:
            raise RecipeError(
                "network.width must be a multiple of network.heads, and features at least 1: "
                f"{self.width}, {self.heads}, {self.features}."
            )
        if self.mlp_ratio <= 0:
            raise RecipeError(f"network.mlp_ratio must be above 0, not {self.mlp_ratio}.")


def configure_unetr(
    settings: UNETRSettings, plan: dict, patch: Sequence[int], in_channels: int, out_channels: int
) -> dict:
    """The configuration for crops of size ``patch``; RecipeError unless those are whole tokens."""
    token = settings.patch
    if len(patch) != 3 or any(n % edge for n, edge in zip(patch, token, strict=True)):
        raise RecipeError(f"UNETR needs a patch of whole tokens of {token}, not {tuple(patch)}.")
    sizes = {"size": list(patch), "in_channels": in_channels, "out_channels": out_channels}
    names = ("width", "heads", "mlp_ratio", "features", "qkv_bias")
    shared = {name: getattr(settings, name) for name in names}
    return {**sizes, "patch": list(token), **shared}


def build_unetr(config: dict) -> nn.Module:
    """MONAI's UNETR for images (b, in_channels, *size), with what `architectures` asks for.

    Tokens of other sizes than MONAI's 16 voxels are upsampled by other factors, see `upsampling`.
    """
    from monai.networks.nets import UNETR

    size, token = tuple(config["size"]), tuple(config.get("patch", (16, 16, 16)))

    class FixedUNETR(UNETR):
        """Its positions fix the size of the images."""

        divisor = None

        def check_patch(self, patch: Sequence[int]) -> None:
            if tuple(patch) != size:
                raise RecipeError(f"The network was made for {size}, not {tuple(patch)}.")

    network = FixedUNETR(
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
        # With MONAI's tokens this size has as many of them.
        img_size=tuple(16 * n // edge for n, edge in zip(size, token, strict=True)),
        feature_size=config["features"],
        hidden_size=config["width"],
        mlp_dim=int(config["width"] * config["mlp_ratio"]),
        num_heads=config["heads"],
        qkv_bias=config["qkv_bias"],
    )
    for block in network.vit.blocks:  # a norm that MONAI's forward pass never uses
        block.norm_cross_attn = nn.Identity()
    if token != (16, 16, 16):
        _use_tokens(network, size, token, config)
    return network


def upsampling(edge: int) -> tuple[int, int, int, int]:
    """Factors of the four upsamplings, the one next to the tokens first; their product is ``edge``.

    16 is 2 · 2 · 2 · 2, 12 is 1 · 3 · 2 · 2, and 32 is 4 · 2 · 2 · 2: where fewer than four are
    needed the coarsest leave the axis alone, larger factors come before smaller ones.
    """
    factors = []
    divisor = 2
    while edge > 1:
        if edge % divisor:
            divisor += 1
        else:
            factors.append(divisor)
            edge //= divisor
    while len(factors) > _LEVELS:
        factors = sorted([math.prod(factors[:2]), *factors[2:]])
    return (1,) * (_LEVELS - len(factors)) + tuple(reversed(factors))


def _use_tokens(network: nn.Module, size: tuple, token: tuple, config: dict) -> None:
    """Change the layers of ``network`` that depend on the size of a token."""
    from monai.networks.blocks import PatchEmbeddingBlock
    from monai.networks.blocks.dynunet_block import get_conv_layer

    network.vit.patch_embedding = PatchEmbeddingBlock(
        config["in_channels"], size, token, config["width"], config["heads"]
    )
    factors = list(zip(*map(upsampling, token), strict=True))
    for level, name in _upsamplings(network):
        factor = factors[level]
        old = network.get_submodule(name).conv
        new = get_conv_layer(
            3, old.in_channels, old.out_channels, factor, factor, conv_only=True, is_transposed=True
        )
        network.set_submodule(name, new)


def _upsamplings(network: nn.Module) -> Iterator[tuple[int, str]]:
    """The transposed convolutions: level (0 next to the tokens) and name."""
    for encoder in ("encoder4", "encoder3", "encoder2"):
        yield 0, f"{encoder}.transp_conv_init"
        for block in range(len(network.get_submodule(encoder).blocks)):
            yield block + 1, f"{encoder}.blocks.{block}.0"
    for level, decoder in enumerate(("decoder5", "decoder4", "decoder3", "decoder2")):
        yield level, f"{decoder}.transp_conv"
