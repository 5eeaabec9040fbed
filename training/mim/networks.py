"""The Residual Encoder U-Net of nnU-Net (Isensee et al., MICCAI 2024, arXiv 2404.09556).

Kernels and strides of three entries make a 3D network, of two a 2D one.

Tensor names, shapes and results equal those of ``ResidualEncoderUNet`` in the library
dynamic-network-architectures, aliases included, so that a state dict goes both ways strictly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mim.recipe import RecipeError, setting

_SLOPE = 0.01

Shape = tuple[int, ...]


@dataclass(frozen=True)
class NetworkSettings:
    """What a recipe says about the network; the rest follows from the data's plan."""

    features: tuple[int, ...] = setting(
        (32, 64, 128, 256, 320, 320),
        "channels of each resolution stage, finest first; a plan with fewer stages uses the first",
    )
    blocks: tuple[int, ...] = setting(
        (1, 3, 4, 6, 6, 6), "residual blocks of each encoder stage, as many entries as features"
    )
    decoder_convs: int = setting(1, "convolutions of each decoder stage")
    strides: tuple[Shape, ...] = setting(
        (), "downsampling (z, y, x) on entering each stage; empty: as planned for the data"
    )
    kernel_sizes: tuple[Shape, ...] = setting(
        (), "convolution size (z, y, x) of each stage; empty: as planned for the data"
    )

    name: Literal["resenc_unet"] = setting("resenc_unet", "Residual Encoder U-Net")

    def __post_init__(self):
        if not self.features or len(self.blocks) != len(self.features):
            raise RecipeError(
                f"network.blocks has {len(self.blocks)} entries and network.features "
                f"{len(self.features)}; both need one for each stage."
            )
        if min(*self.features, *self.blocks, self.decoder_convs) < 1:
            raise RecipeError("network.features, blocks and decoder_convs must be at least 1.")


@dataclass(frozen=True)
class NetworkConfig:
    """Everything `build_network` needs; kept in every checkpoint."""

    in_channels: int
    out_channels: int
    features: tuple[int, ...]
    strides: tuple[Shape, ...]
    kernel_sizes: tuple[Shape, ...]
    blocks: tuple[int, ...]
    decoder_convs: int = 1
    deep_supervision: bool = False

    def to_dict(self) -> dict:
        return asdict(self)

    @staticmethod
    def from_dict(values: dict) -> NetworkConfig:
        """Read what `to_dict` wrote, also after a way through JSON, where tuples are lists."""
        known = {key: _tuples(value) for key, value in values.items() if key != "name"}
        return NetworkConfig(**known)


def network_config(
    settings: NetworkSettings,
    plan: dict,
    in_channels: int,
    out_channels: int,
    deep_supervision: bool = False,
) -> NetworkConfig:
    """Combine a recipe's settings with a plan's ``strides`` and ``kernel_sizes``.

    The network has as many stages as both the settings and the strides provide for.
    """
    strides = settings.strides or _tuples(plan["strides"])
    kernels = settings.kernel_sizes or _tuples(plan.get("kernel_sizes", [[3, 3, 3]] * len(strides)))
    stages = min(len(settings.features), len(strides), len(kernels))
    return NetworkConfig(
        in_channels,
        out_channels,
        settings.features[:stages],
        strides[:stages],
        kernels[:stages],
        settings.blocks[:stages],
        settings.decoder_convs,
        deep_supervision,
    )


def build_network(config: NetworkConfig) -> ResidualEncoderUNet:
    """The network of ``config`` with fresh weights (He initialization, from torch's global RNG)."""
    return ResidualEncoderUNet(**asdict(config))


class ResidualEncoderUNet(nn.Module):
    """U-Net with residual blocks in the encoder, plain convolutions in the decoder.

    ``strides``, ``kernel_sizes`` and ``blocks`` have one entry for each of ``features``; the first
    stride is 1. Input (b, in_channels, z, y, x) with extents that are multiples of ``divisor``;
    output (b, out_channels, z, y, x), or with ``deep_supervision`` a list of outputs, the finest
    first, one for each decoder stage. ``decoder_convs`` is one number, or one for each decoder
    stage, the coarsest first.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        features: Sequence[int],
        strides: Sequence[Shape],
        kernel_sizes: Sequence[Shape],
        blocks: Sequence[int],
        decoder_convs: int | Sequence[int] = 1,
        deep_supervision: bool = False,
    ):
        super().__init__()
        self.divisor = total_stride(features, strides, kernel_sizes, blocks)
        self.encoder = Encoder(in_channels, features, strides, kernel_sizes, blocks)
        self.decoder = UNetDecoder(
            self.encoder, out_channels, features, strides, kernel_sizes, decoder_convs
        )
        self.decoder.deep_supervision = deep_supervision
        self.apply(initialize)

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        return self.decoder(self.encoder(images))

    def check_patch(self, patch: Sequence[int]) -> None:
        """Raise RecipeError when ``patch`` (z, y, x) is not a multiple of the total stride."""
        if any(size % divisor for size, divisor in zip(patch, self.divisor, strict=True)):
            raise RecipeError(
                f"The patch {tuple(patch)} (z, y, x) must be a multiple of {self.divisor}, the "
                f"network's total stride; change patch or network.strides."
            )


def total_stride(
    features: Sequence[int],
    strides: Sequence[Shape],
    kernel_sizes: Sequence[Shape],
    repeats: Sequence[int],
) -> Shape:
    """What a U-Net of these stages divides each axis by. Raises ValueError when they do not fit
    together; ``repeats`` are the blocks or convolutions of each stage."""
    if len({len(features), len(strides), len(kernel_sizes), len(repeats)}) != 1:
        raise ValueError("features, strides, kernel_sizes and blocks or convs must be equally long")
    if math.prod(strides[0]) != 1 or len(features) < 2:
        raise ValueError("the first stride must be 1 and there must be at least two stages")
    return tuple(math.prod(axis) for axis in zip(*strides, strict=True))


class _ConvNormAct(nn.Module):
    """Convolution, instance norm and (unless ``activate`` is false) leaky ReLU.

    ``all_modules`` repeats the parts in order: these aliases belong to the published names.
    """

    def __init__(self, inputs, outputs, kernel, stride=1, bias=True, activate=True):
        super().__init__()
        padding = tuple((size - 1) // 2 for size in kernel)
        self.conv = _layer("Conv", kernel)(inputs, outputs, kernel, stride, padding, bias=bias)
        self.norm = _layer("InstanceNorm", kernel)(outputs, eps=1e-5, affine=True)
        parts = [self.conv, self.norm]
        if activate:
            self.nonlin = nn.LeakyReLU(_SLOPE, inplace=True)
            parts.append(self.nonlin)
        self.all_modules = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.all_modules(x)


class _ResidualBlock(nn.Module):
    """Two convolutions beside a skip path that pools and projects where shapes change."""

    def __init__(self, inputs, outputs, kernel, stride):
        super().__init__()
        self.conv1 = _ConvNormAct(inputs, outputs, kernel, stride)
        self.conv2 = _ConvNormAct(outputs, outputs, kernel, activate=False)
        self.nonlin2 = nn.LeakyReLU(_SLOPE, inplace=True)
        self.skip = nn.Sequential()
        if math.prod(stride) != 1:
            self.skip.append(_layer("AvgPool", kernel)(stride, stride))
        if inputs != outputs:
            point = (1,) * len(kernel)
            self.skip.append(_ConvNormAct(inputs, outputs, point, bias=False, activate=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.nonlin2(self.conv2(self.conv1(x)) + self.skip(x))


class _Blocks(nn.Module):
    """One encoder stage."""

    def __init__(self, blocks: Sequence[nn.Module]):
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class ConvStack(nn.Module):
    """``count`` convolutions, the first with ``stride``: the stem, or a stage without residuals."""

    def __init__(self, inputs: int, outputs: int, kernel: Shape, count: int = 1, stride=1):
        super().__init__()
        first = _ConvNormAct(inputs, outputs, kernel, stride)
        rest = [_ConvNormAct(outputs, outputs, kernel) for _ in range(count - 1)]
        self.convs = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)


class Encoder(nn.Module):
    """Stem and residual stages; returns every stage's output, the finest first."""

    def __init__(self, in_channels, features, strides, kernels, blocks):
        super().__init__()
        self.stem = ConvStack(in_channels, features[0], kernels[0])
        stages, inputs = [], features[0]
        for outputs, stride, kernel, count in zip(features, strides, kernels, blocks, strict=True):
            first = _ResidualBlock(inputs, outputs, kernel, stride)
            point = (1,) * len(kernel)
            rest = [_ResidualBlock(outputs, outputs, kernel, point) for _ in range(count - 1)]
            stages.append(_Blocks([first, *rest]))
            inputs = outputs
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs


class UNetDecoder(nn.Module):
    """Transposed convolution, concatenation with the skip, convolutions; coarsest stage first.

    Holds the encoder as a second name for it, as the published state dicts do.
    """

    deep_supervision: bool = False

    def __init__(self, encoder, out_channels, features, strides, kernels, convs):
        super().__init__()
        self.encoder = encoder
        self.stages, self.transpconvs, self.seg_layers = (nn.ModuleList() for _ in range(3))
        up, head = _layer("ConvTranspose", kernels[0]), _layer("Conv", kernels[0])
        counts = [convs] * (len(features) - 1) if isinstance(convs, int) else convs
        for i, count in zip(range(len(features) - 1, 0, -1), counts, strict=True):
            below, here = features[i], features[i - 1]
            self.transpconvs.append(up(below, here, strides[i], strides[i]))
            self.stages.append(ConvStack(2 * here, here, kernels[i - 1], count))
            self.seg_layers.append(head(here, out_channels, 1))

    def forward(self, skips: list[Tensor]) -> Tensor | list[Tensor]:
        """``skips`` are the encoder's outputs, the finest first."""
        x, outputs = skips[-1], []
        last = len(self.stages) - 1
        for i, (up, stage) in enumerate(zip(self.transpconvs, self.stages, strict=True)):
            x = stage(torch.cat((up(x), skips[-i - 2]), 1))
            if self.deep_supervision or i == last:
                outputs.append(self.seg_layers[i](x))
        return outputs[::-1] if self.deep_supervision else outputs[0]


def initialize(module: nn.Module) -> None:
    """He initialization; residual branches start at zero, so that blocks start as identities."""
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, a=_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, _ResidualBlock):
        nn.init.zeros_(module.conv2.norm.weight)


def _layer(name: str, kernel: Shape) -> type[nn.Module]:
    """torch's layer of that name for as many dimensions as ``kernel`` has."""
    return getattr(nn, f"{name}{len(kernel)}d")


def _tuples(value):
    return tuple(_tuples(entry) for entry in value) if isinstance(value, list | tuple) else value
