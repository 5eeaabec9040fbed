"""The vision transformer (Dosovitskiy et al., ICLR 2021) for volumes and images.

Tensor names and shapes are those of MONAI's ``ViT``, which is the encoder of its ``UNETR``, so that
weights go both ways. (MONAI's blocks hold one more norm, ``norm_cross_attn``, that computes
nothing.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mim.patches import patchify, sincos_positions, take
from mim.recipe import RecipeError, setting


@dataclass(frozen=True)
class ViTSettings:
    """What a recipe says about the transformer; sizes and channels follow from the data."""

    patch: tuple[int, ...] = setting(
        (16, 16, 16), "voxels (z, y, x) of a token; two numbers (y, x) for images"
    )
    width: int = setting(768, "length of a token")
    depth: int = setting(12, "number of transformer blocks")
    heads: int = setting(12, "attention heads")
    mlp_ratio: float = setting(4.0, "width of the hidden layer of a block, in widths of a token")
    positions: Literal["learnt", "sincos"] = setting(
        "learnt", "positions of tokens: learnt, or fixed sines and cosines"
    )
    qkv_bias: bool = setting(False, "biases of queries, keys and values")
    drop_path: float = setting(
        0.0, "probability that the last block is skipped in training (the first: 0)"
    )
    name: Literal["vit"] = setting("vit", "vision transformer")

    def __post_init__(self):
        if len(self.patch) not in (2, 3) or min(self.patch) < 1:
            raise RecipeError(f"network.patch needs two or three sizes, not {self.patch}.")
        if min(self.width, self.depth, self.heads) < 1 or self.width % self.heads:
            raise RecipeError(
                f"network.width must be a multiple of network.heads: {self.width}, {self.heads}."
            )
        if not 0 <= self.drop_path < 1 or self.mlp_ratio <= 0:
            raise RecipeError("network.drop_path is below 1 and mlp_ratio above 0.")


@dataclass(frozen=True)
class ViTConfig:
    """Everything that builds a transformer for images (in_channels, *size)."""

    in_channels: int
    size: tuple[int, ...]
    patch: tuple[int, ...]
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    positions: str = "learnt"
    qkv_bias: bool = False
    drop_path: float = 0.0

    @property
    def grid(self) -> tuple[int, ...]:
        """Tokens along each axis."""
        return tuple(n // edge for n, edge in zip(self.size, self.patch, strict=True))

    def to_dict(self) -> dict:
        return asdict(self)

    @staticmethod
    def from_dict(values: dict) -> ViTConfig:
        """Read what `to_dict` wrote; other keys are left to others."""
        known = {key: values[key] for key in ViTConfig.__dataclass_fields__ if key in values}
        return ViTConfig(**{**known, "size": tuple(values["size"]), "patch": tuple(known["patch"])})


def vit_config(settings: ViTSettings, size: Sequence[int], in_channels: int) -> ViTConfig:
    """The configuration for crops of ``size``; raises RecipeError when patches do not fill it."""
    patch = (1,) * (len(size) - len(settings.patch)) + settings.patch
    if len(patch) != len(size) or any(n % edge for n, edge in zip(size, patch, strict=True)):
        raise RecipeError(
            f"The crop {tuple(size)} is not made of whole tokens of {patch} voxels (z, y, x); "
            f"change patch or network.patch."
        )
    fields = (f for f in ViTConfig.__dataclass_fields__ if hasattr(settings, f) and f != "patch")
    shared = {field: getattr(settings, field) for field in fields}
    return ViTConfig(in_channels=in_channels, size=tuple(size), patch=patch, **shared)


class VisionTransformer(nn.Module):
    """Tokens of an image, or of the visible part of it, after every block.

    ``divisor`` is None: positions fix the size of the images.
    """

    divisor = None

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.config = config
        self.patch_embedding = PatchEmbedding(config)
        self.blocks = transformer_blocks(
            config.depth, config.width, config.heads, config.mlp_ratio, config.qkv_bias,
            config.drop_path,
        )  # fmt: skip
        self.norm = nn.LayerNorm(config.width)
        self.apply(initialize)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The normalized tokens (b, n, width) of ``images`` and those after each block."""
        patches = patchify(images, self.config.patch)
        return self.encode(self.patch_embedding(patches))

    def encode(self, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The same from embedded ``tokens`` (b, n, width), all of an image or some."""
        hidden = []
        for block in self.blocks:
            tokens = block(tokens)
            hidden.append(tokens)
        return self.norm(tokens), hidden

    def check_patch(self, patch: Sequence[int]) -> None:
        """Raise RecipeError when images of ``patch`` voxels are not what it was made for."""
        if tuple(patch) != self.config.size:
            raise RecipeError(f"The network was made for {self.config.size}, not {tuple(patch)}.")


class PatchEmbedding(nn.Module):
    """Raw patches to tokens: a linear map and positions. Only what is given is computed.

    The weight has the shape of a convolution's, as in the files of others; ``grid`` are the tokens
    along each axis.
    """

    def __init__(self, config: ViTConfig):
        super().__init__()
        conv = nn.Conv3d if len(config.patch) == 3 else nn.Conv2d
        self.patch_embeddings = conv(config.in_channels, config.width, config.patch, config.patch)
        self.grid = config.grid
        fixed = config.positions == "sincos"
        shape = (1, math.prod(config.grid), config.width)
        values = sincos_positions(config.grid, config.width) if fixed else torch.zeros(shape)
        self.position_embeddings = nn.Parameter(values, requires_grad=not fixed)
        if not fixed:
            nn.init.trunc_normal_(self.position_embeddings, std=0.02)

    def forward(self, patches: Tensor, ids: Tensor | None = None) -> Tensor:
        """Tokens (b, m, width) of ``patches`` (b, m, c * voxels) at the places ``ids`` (b, m)."""
        positions = self.position_embeddings
        return self.project(patches) + (positions if ids is None else take(positions, ids))

    def project(self, patches: Tensor) -> Tensor:
        """The patches' content alone."""
        layer = self.patch_embeddings
        return functional.linear(patches, layer.weight.flatten(1), layer.bias)


def transformer_blocks(
    depth: int, width: int, heads: int, mlp_ratio: float, qkv_bias: bool, drop_path: float = 0.0
) -> nn.ModuleList:
    """Blocks whose probability of being skipped rises linearly from 0 to ``drop_path``."""
    rates = [drop_path * i / max(1, depth - 1) for i in range(depth)]
    hidden = int(width * mlp_ratio)
    return nn.ModuleList(TransformerBlock(width, heads, hidden, qkv_bias, r) for r in rates)


class TransformerBlock(nn.Module):
    """Attention and a perceptron, each after a norm and beside a skip path."""

    def __init__(self, width: int, heads: int, hidden: int, qkv_bias: bool, drop_path: float):
        super().__init__()
        self.mlp = _Perceptron(width, hidden)
        self.norm1 = nn.LayerNorm(width)
        self.attn = _SelfAttention(width, heads, qkv_bias)
        self.norm2 = nn.LayerNorm(width)
        self.drop_path = drop_path

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self._sometimes(self.attn(self.norm1(tokens)))
        return tokens + self._sometimes(self.mlp(self.norm2(tokens)))

    def _sometimes(self, branch: Tensor) -> Tensor:
        """Stochastic depth (Huang et al., ECCV 2016): drop the branch of some samples."""
        if not self.training or not self.drop_path:
            return branch
        keep = 1 - self.drop_path
        shape = (len(branch), *(1 for _ in branch.shape[1:]))
        return branch * branch.new_empty(shape).bernoulli_(keep) / keep


class _SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int, qkv_bias: bool):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.out_proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, count, width = tokens.shape
        qkv = self.qkv(tokens).view(batch, count, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = _attention(query, key, value)
        return self.out_proj(attended.transpose(1, 2).reshape(batch, count, width))


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(Q K' / sqrt(width)) V of (b, heads, tokens, width).

    On the CPU always in float32: torch's backward pass in bfloat16 takes up to twelve times as
    long there, and no less below about 1000 tokens.
    """
    if query.device.type != "cpu":
        return functional.scaled_dot_product_attention(query, key, value)
    with torch.autocast("cpu", enabled=False):
        parts = (part.float() for part in (query, key, value))
        return functional.scaled_dot_product_attention(*parts).to(query.dtype)


class _Perceptron(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.linear2(functional.gelu(self.linear1(tokens)))


def initialize(module: nn.Module) -> None:
    """Xavier's uniform weights (He et al., CVPR 2022); the embedding is linear, and so treated."""
    if isinstance(module, PatchEmbedding):
        nn.init.xavier_uniform_(module.patch_embeddings.weight.data.flatten(1))
        nn.init.zeros_(module.patch_embeddings.bias)
    elif isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
