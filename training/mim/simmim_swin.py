"""SimMIM on the Swin transformer of MONAI's SwinUNETR.

Xie et al. (CVPR 2022, arXiv 2111.09886), in 3D as in MIM-Med3D (Chen et al., WACV 2023, arXiv
2204.11716): hidden tokens are replaced by a learnt one before the first stage, and two transposed
convolutions make voxels of the coarsest features.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from mim.masked_unet import Reconstruction, masked_error
from mim.swin import STRIDE, TOKEN, SwinEncoder

BLOCK = (16, 16, 16)  # voxels that are hidden together, where a recipe does not say it
_STEP = 4  # how much the first of the two transposed convolutions enlarges


class SimMIMSwin(nn.Module):
    """A Swin transformer that sees a learnt token in the place of each hidden one."""

    def __init__(self, network: SwinEncoder, in_channels: int, loss: Literal["l1", "l2"]):
        super().__init__()
        self.network, self.loss = network, loss
        self.mask_token = nn.Parameter(torch.zeros(1, network.swinViT.embed_dim, 1, 1, 1))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        # Kernels as large as the strides: every coarsest voxel restores its own cube.
        last = STRIDE // _STEP
        hidden = network.swinViT.embed_dim
        self.restore = nn.Sequential(
            nn.ConvTranspose3d(network.out_width, hidden, _STEP, _STEP),
            nn.GELU(),
            nn.ConvTranspose3d(hidden, in_channels, last, last),
        )

    def forward(self, images: Tensor, mask: Tensor, valid: Tensor | None = None) -> Reconstruction:
        """Restore what ``mask`` (b, 1, z, y, x) hides of ``images`` (b, c, z, y, x).

        ``valid`` (b, 1, z, y, x) leaves voxels that belong to no scan out of the loss.
        """
        prediction = self.restore(self.encode(images, mask)).float()
        scored = ~mask if valid is None else ~mask & valid
        loss, voxels = masked_error(prediction, images.float(), scored, self.loss)
        return Reconstruction(loss, prediction, mask, voxels)

    def encode(self, images: Tensor, mask: Tensor) -> Tensor:
        """The coarsest features of the visible part."""
        tokens = self.network.tokens(images)
        visible = mask[:, :, ::TOKEN, ::TOKEN, ::TOKEN]
        return self.network.encode(torch.where(visible, tokens, self.mask_token.to(tokens.dtype)))
