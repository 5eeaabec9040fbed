"""The plain U-Net of nnU-Net (Isensee et al., Nature Methods 2021), in 3D or 2D.

Tensor names, shapes and results equal those of ``PlainConvUNet`` in the library
dynamic-network-architectures, aliases included, so that a state dict goes both ways strictly.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mim.networks import ConvStack, Shape, UNetDecoder, initialize, total_stride


class PlainConvUNet(nn.Module):
    """U-Net of stacked convolutions; strided convolutions go down, transposed ones up.

    ``strides``, ``kernel_sizes`` (two or three numbers each) and ``convs`` have one entry for each
    of ``features``; the first stride is 1. ``decoder_convs`` has one for each decoder stage, the
    coarsest first. Input (b, in_channels, [z,] y, x) with extents that are multiples of
    ``divisor``; output (b, out_channels, [z,] y, x).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        features: Sequence[int],
        strides: Sequence[Shape],
        kernel_sizes: Sequence[Shape],
        convs: Sequence[int],
        decoder_convs: Sequence[int],
    ):
        super().__init__()
        self.divisor = total_stride(features, strides, kernel_sizes, convs)
        self.encoder = _PlainEncoder(in_channels, features, strides, kernel_sizes, convs)
        self.decoder = UNetDecoder(
            self.encoder, out_channels, features, strides, kernel_sizes, decoder_convs
        )
        self.apply(initialize)

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(self.encoder(images))


class _PlainEncoder(nn.Module):
    """Stages of convolutions; returns every stage's output, the finest first."""

    def __init__(self, in_channels, features, strides, kernels, convs):
        super().__init__()
        inputs = [in_channels, *features[:-1]]
        stages = zip(inputs, features, kernels, convs, strides, strict=True)
        # Each stage is a sequence of one: the published names have that level.
        self.stages = nn.Sequential(*(nn.Sequential(ConvStack(*stage)) for stage in stages))

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs
