"""MONAI's Swin transformer and SwinUNETR (Hatamizadeh et al., 2022, arXiv 2201.01266) as networks.

The transformer alone, which is what is pre-trained, holds its tensors under the names that they
have in SwinUNETR.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from mim.recipe import RecipeError, setting

TOKEN = 2  # voxels of a token along each axis; SwinUNETR knows no other
STRIDE = 32  # of the coarsest features: the token, then halved by each of four stages
_SHARED = ("width", "depths", "heads", "window", "mlp_ratio", "drop_path", "convs")


@dataclass(frozen=True)
class SwinSettings:
    """What a recipe says about the transformer; a SwinUNETR's must equal the pre-trained one's."""

    width: int = setting(48, "length of a token in the first stage; it doubles in each")
    depths: tuple[int, ...] = setting((2, 2, 2, 2), "transformer blocks of the four stages")
    heads: tuple[int, ...] = setting((3, 6, 12, 24), "attention heads of the four stages")
    window: tuple[int, int, int] = setting((7, 7, 7), "tokens (z, y, x) that attend to each other")
    mlp_ratio: float = setting(4.0, "width of the hidden layer of a block, in widths of a token")
    drop_path: float = setting(
        0.0, "probability that the last block is skipped in training (the first: 0)"
    )
    convs: bool = setting(False, "a residual convolution before each stage (SwinUNETR v2, VoCo)")
    name: Literal["swin"] = setting("swin", "the Swin transformer of SwinUNETR")

    def __post_init__(self):
        if len(self.depths) != 4 or len(self.heads) != 4 or min(*self.depths, *self.heads) < 1:
            raise RecipeError("network.depths and network.heads need four entries of at least 1.")
        if (
            self.width < 1
            or self.width % 12
            or any(self.width * 2**i % n for i, n in enumerate(self.heads))
        ):
            raise RecipeError(
                f"network.width must be a multiple of 12, and of each entry of heads in its stage: "
                f"{self.width}, {self.heads}."
            )
        if not 0 <= self.drop_path < 1 or min(self.window) < 1 or self.mlp_ratio <= 0:
            raise RecipeError("network.drop_path is below 1, window and mlp_ratio are above 0.")


@dataclass(frozen=True)
class SwinUNETRSettings(SwinSettings):
    """The same numbers; the decoder's channels follow from ``width``."""

    name: Literal["swin_unetr"] = setting("swin_unetr", "SwinUNETR: Swin and a CNN decoder")


class SwinEncoder(nn.Module):
    """MONAI's Swin transformer, from tokens that may have been changed before they are encoded.

    ``divisor`` is None: what is exported holds the windows of one size of images.
    """

    divisor = None

    def __init__(self, transformer: nn.Module):
        super().__init__()
        self.swinViT = transformer

    @property
    def out_width(self) -> int:
        """Channels of the coarsest features."""
        return 2 * self.swinViT.num_features

    def tokens(self, images: Tensor) -> Tensor:
        """Images (b, c, z, y, x) as tokens (b, width, z / 2, y / 2, x / 2)."""
        return self.swinViT.patch_embed(images)

    def encode(self, tokens: Tensor) -> Tensor:
        """The coarsest features (b, out_width, z / 32, y / 32, x / 32), as SwinUNETR takes them."""
        swin = self.swinViT
        for stage in range(1, 5):
            if swin.use_v2:
                tokens = getattr(swin, f"layers{stage}c")[0](tokens.contiguous())
            tokens = getattr(swin, f"layers{stage}")[0](tokens.contiguous())
        return swin.proj_out(tokens, normalize=True)

    def forward(self, images: Tensor) -> Tensor:
        return self.encode(self.tokens(images))

    def check_patch(self, patch: Sequence[int]) -> None:
        """Raise RecipeError for images that four halvings of whole tokens do not fit."""
        check_swin_patch(patch)


def check_swin_patch(patch: Sequence[int]) -> None:
    """Raise RecipeError unless ``patch`` has three sizes that are multiples of 32."""
    if len(patch) != 3 or any(size % STRIDE for size in patch):
        raise RecipeError(f"Swin needs a patch of multiples of {STRIDE}, not {tuple(patch)}.")


def configure_swin(
    settings: SwinSettings, plan: dict, patch: Sequence[int], in_channels: int, out_channels: int
) -> dict:
    """As `architectures.Architecture.configure` asks, for the transformer and for SwinUNETR."""
    check_swin_patch(patch)
    values = {name: getattr(settings, name) for name in _SHARED}
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
    return {"in_channels": in_channels, "out_channels": out_channels, **plain}


def build_swin(config: dict) -> SwinEncoder:
    """The transformer of a configuration, with fresh weights."""
    return SwinEncoder(build_swin_unetr(config).swinViT)


def build_swin_unetr(config: dict) -> nn.Module:
    """SwinUNETR for images (b, in_channels, z, y, x), with what `architectures` asks for."""
    from monai.networks.nets import SwinUNETR

    class CheckedSwinUNETR(SwinUNETR):
        """SwinUNETR that says which crops it takes."""

        divisor = None

        def check_patch(self, patch: Sequence[int]) -> None:
            check_swin_patch(patch)
            if math.prod(patch) == STRIDE**3:
                raise RecipeError(
                    f"SwinUNETR cannot normalize the single coarsest voxel of {tuple(patch)}; "
                    f"make the patch larger along one axis."
                )

    return CheckedSwinUNETR(
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
        patch_size=TOKEN,
        depths=tuple(config["depths"]),
        num_heads=tuple(config["heads"]),
        window_size=tuple(config["window"]),
        mlp_ratio=config["mlp_ratio"],
        feature_size=config["width"],
        dropout_path_rate=config["drop_path"],
        use_v2=config["convs"],
    )
