"""Watching a masked auto-encoder: the same crops, the same masks, as a number and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mim.data import Crops, UnlabeledVolumes, draw_crops
from mim.masked_unet import MaskedAutoencoderUNet
from mim.masking import MaskSettings, draw_mask
from MIMSegment.Logic.files import replacing

# Not a recipe's business: runs can be compared only if they are all shown the same.
WATCH_SEED = 20220411
_LETTERS = 36  # of a name beside a picture of 2.6 inches


@dataclass(frozen=True)
class FixedCrops:
    """Crops and masks that stay the same over a run and, for one cache and patch, over all runs."""

    crops: Crops
    mask: Tensor

    @staticmethod
    def draw(
        volumes: UnlabeledVolumes,
        patch: Sequence[int],
        mask: MaskSettings,
        block: Sequence[int],
        count: int,
        device: torch.device,
    ) -> FixedCrops:
        crops, generator = fixed_crops(volumes, patch, count)
        drawn = draw_mask(crops.images, block, mask.ratio, generator, mask.strategy)
        return FixedCrops(crops.to(device), drawn.to(device))

    def loss(self, model: MaskedAutoencoderUNet) -> float:
        """The mean of the crops' losses, each by itself (so that memory stays small)."""
        losses = [
            model(self.crops.images[i : i + 1], self.mask[i : i + 1], self.crops.valid[i : i + 1])
            for i in range(len(self.mask))
        ]
        return float(torch.stack([result.loss for result in losses]).mean())

    def save_picture(
        self, model: MaskedAutoencoderUNet, path: Path, spacing: Sequence[float], rows: int = 4
    ) -> None:
        """Write original | masked | reconstruction, one row for each crop, as a PNG.

        See `draw_rows`. The reconstruction shows the input where it was visible.
        """
        images, mask, valid = self.crops.images[:rows], self.mask[:rows], self.crops.valid[:rows]
        with torch.no_grad():
            prediction = model(images, mask, valid).prediction
        # NaN is drawn in a color of its own: hidden voxels must not look like dark tissue.
        hidden = torch.where(mask, images, torch.nan)
        restored = torch.where(mask | ~valid, images, prediction)
        columns = {"original": images, "what the network saw": hidden, "reconstruction": restored}
        draw_rows(columns, self.crops.cases, spacing, path)


def fixed_crops(
    volumes: UnlabeledVolumes, patch: Sequence[int], count: int
) -> tuple[Crops, torch.Generator]:
    """The same ``count`` crops for every run, and a generator for what is to be fixed beside them.

    On the CPU: the same on every machine.
    """
    generator = torch.Generator().manual_seed(WATCH_SEED)
    crops = draw_crops(volumes, patch, count, generator)
    return Crops(crops.images.cpu(), crops.valid.cpu(), crops.cases), generator


def draw_rows(
    columns: Mapping[str, Tensor], cases: Sequence[str], spacing: Sequence[float], path: Path
) -> None:
    """Write images (n, c, [z,] y, x) side by side as a PNG, one row for each sample.

    The middle slice across the axis with the largest ``spacing`` (z, y, x), first channel, each row
    in the gray levels of its first image.
    """
    columns = {t: c.unsqueeze(2) if c.ndim == 4 else c for t, c in columns.items()}
    across = max(range(3), key=lambda axis: spacing[axis])
    in_plane = [mm for axis, mm in enumerate(spacing) if axis != across]
    slices = {
        title: tensor[:, 0].float().cpu().select(across + 1, tensor.shape[across + 2] // 2).numpy()
        for title, tensor in columns.items()
    }
    _draw(slices, cases, in_plane[0] / in_plane[1], path)


def _draw(columns: Mapping, cases: Sequence[str], aspect: float, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    originals = next(iter(columns.values()))
    rows, width = len(originals), len(columns)
    size = (2.5 * width, 2.6 * rows)
    figure, axes = pyplot.subplots(rows, width, squeeze=False, figsize=size, layout="constrained")
    gray = matplotlib.colormaps["gray"].with_extremes(bad="#3b5b7a")
    for column, (title, pictures) in enumerate(columns.items()):
        for row, picture in enumerate(pictures):
            low, high = originals[row].min(), originals[row].max()
            axes[row, column].imshow(picture, gray, aspect=aspect, vmin=low, vmax=high)
            axes[row, column].set(xticks=[], yticks=[])
        axes[0, column].set_title(title, fontsize=10)
    for row, case in enumerate(cases[: len(originals)]):
        axes[row, 0].set_ylabel(_short(case), fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
    pyplot.close(figure)


def _short(case: str) -> str:
    """A name that fits beside its row; names made of paths differ at their ends."""
    return case if len(case) <= _LETTERS else f"...{case[3 - _LETTERS :]}"
