"""S3D: masked auto-encoding of a Residual Encoder U-Net that computes on visible voxels only.

Wald et al., "Revisiting MAE pre-training for 3D medical image segmentation" (CVPR 2025,
arXiv 2410.23132), after SparK (Tian et al., ICLR 2023, arXiv 2301.03580). Sparse convolutions are
emulated: what a convolution puts on hidden voxels is multiplied by 0, and norms see visible voxels
only. The image is masked *before* the first convolution, so that no hidden voxel reaches a feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mim.masked_norm import masked_instance_norm
from mim.masked_unet import MaskedAutoencoderUNet, MethodSettings
from mim.networks import NetworkConfig, ResidualEncoderUNet
from mim.recipe import setting

Rung = Literal["dense", "sparse", "token", "densify"]


@dataclass(frozen=True)
class SparseSettings(MethodSettings):
    """`MethodSettings`, and how far up the ladder of the paper's ablation the network goes."""

    sparsity: Rung = setting(
        "densify",
        "dense; sparse convolutions and norms; and a mask token in each skip; and a norm and "
        "convolution that make the skips dense. Each rung includes those before it",
    )
    name: Literal["s3d"] = setting("s3d", "masked auto-encoding that computes on visible voxels")


class SparseMaskedUNet(MaskedAutoencoderUNet):
    """`MaskedAutoencoderUNet` whose encoder works on visible voxels.

    The network itself is the plain one and its tensors keep their published names; tokens and
    densifying layers lie beside it and are dropped after pre-training.
    """

    settings: SparseSettings

    def __init__(
        self, network: ResidualEncoderUNet, config: NetworkConfig, settings: SparseSettings
    ):
        super().__init__(network, config.in_channels, settings)
        self.strides = config.strides
        if settings.sparsity in ("token", "densify"):
            self.tokens = nn.ParameterList(_token(n, config) for n in config.features)
        if settings.sparsity == "densify":
            self.densifiers = nn.ModuleList(
                _Densifier(n, kernel, first=i == 0)
                for i, (n, kernel) in enumerate(
                    zip(config.features, config.kernel_sizes, strict=True)
                )
            )

    def encode(self, images: Tensor, mask: Tensor) -> list[Tensor]:
        if self.settings.sparsity == "dense":
            return super().encode(images, mask)
        masks = stage_masks(mask, self.strides)
        return sparse_encode(self.network.encoder, self.hide(images, mask), masks)

    def decode(self, skips: list[Tensor], mask: Tensor) -> Tensor:
        if self.settings.sparsity != "dense":
            skips = self._fill(skips, stage_masks(mask, self.strides))
        return super().decode(skips, mask)

    def _fill(self, skips: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        """What the decoder sees of each stage: hidden places filled, as the rung says."""
        if self.settings.sparsity == "sparse":
            return skips
        if self.settings.sparsity == "token":
            pairs = zip(skips, masks, self.tokens, strict=True)
            return [torch.where(mask, x, token.to(x.dtype)) for x, mask, token in pairs]
        parts = zip(self.densifiers, skips, masks, self.tokens, strict=True)
        return [densify(x, mask, token) for densify, x, mask, token in parts]


def stage_masks(mask: Tensor, strides: Sequence[Sequence[int]]) -> list[Tensor]:
    """The voxel ``mask`` (b, 1, [z,] y, x) at every stage's resolution, the finest first.

    A coarse voxel is visible when any of the voxels it covers is. With blocks of whole coarse
    voxels that is exact; at stages coarser than the blocks nearly everything is visible.
    """
    pool = functional.max_pool3d if mask.ndim == 5 else functional.max_pool2d
    masks, current = [], mask.float()
    for stride in strides:
        if max(stride) > 1:
            current = pool(current, tuple(stride), tuple(stride))
        masks.append(current > 0)
    return masks


def sparse_encode(encoder: nn.Module, images: Tensor, masks: Sequence[Tensor]) -> list[Tensor]:
    """The encoder's stage outputs, computed on visible voxels; hidden ones are 0.

    ``images`` are masked already; ``masks`` come from `stage_masks`.
    """
    x, visible = images, [mask.float() for mask in masks]  # once for all norms of a stage
    for unit in encoder.stem.convs:
        x = _unit(unit, x, visible[0])
    outputs = []
    for stage, mask in zip(encoder.stages, visible, strict=True):
        for block in stage.blocks:
            main = _unit(block.conv2, _unit(block.conv1, x, mask), mask)
            x = block.nonlin2(main + _skip(block.skip, x, mask))
        outputs.append(x)
    return outputs


def _unit(unit: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    """Convolution, masked norm and, where the unit has one, activation.

    The norm writes 0 to hidden voxels, which is the sparse convolution's output there.
    """
    x = masked_instance_norm(unit.conv(x), mask, unit.norm.weight, unit.norm.bias, unit.norm.eps)
    return unit.nonlin(x) if hasattr(unit, "nonlin") else x


def _skip(skip: nn.Sequential, x: Tensor, mask: Tensor) -> Tensor:
    for part in skip:
        x = _unit(part, x, mask) if hasattr(part, "conv") else part(x) * mask.to(x.dtype)
    return x


class _Densifier(nn.Module):
    """Masked norm, tokens on hidden voxels, convolution (none at the finest stage)."""

    def __init__(self, features: int, kernel: Sequence[int], first: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        if not first:
            conv = nn.Conv3d if len(kernel) == 3 else nn.Conv2d
            self.conv = conv(features, features, kernel, padding=[k // 2 for k in kernel])

    def forward(self, x: Tensor, mask: Tensor, token: Tensor) -> Tensor:
        x = masked_instance_norm(x, mask, self.weight, self.bias)
        x = torch.where(mask, x, token.to(x.dtype))
        return self.conv(x) if hasattr(self, "conv") else x


def _token(features: int, config: NetworkConfig) -> nn.Parameter:
    dims = len(config.kernel_sizes[0])
    return nn.Parameter(nn.init.trunc_normal_(torch.zeros(1, features, *[1] * dims), std=0.02))
