"""VolumeFusion: segment how strongly two crops were mixed (Wang et al., arXiv 2306.16925).

Boxes of one crop are blended into another with weights k/K, k = 1...K; the network classifies every
voxel by its k, 0 where nothing was blended in. A pre-training that has the form of segmentation,
classes and loss included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mim import architectures
from mim.data import Cache, Crops, UnlabeledVolumes
from mim.device import Generators
from mim.distortions import intensity_range
from mim.mean_loss import MeanLoss
from mim.recipe import RecipeError, setting
from mim.reconstruction import draw_rows, fixed_crops


@dataclass(frozen=True)
class FusionSettings:
    """How much is blended in, and where."""

    levels: int = setting(4, "K, the number of weights above 0; the network has K + 1 classes")
    boxes: tuple[int, int] = setting((10, 40), "number of boxes in a crop")
    size: tuple[float, float] = setting((0.1, 0.5), "edge of a box, a fraction of the crop's")
    name: Literal["volume_fusion"] = setting("volume_fusion", "segmenting how two crops were mixed")

    def __post_init__(self):
        if self.levels < 1 or not 1 <= self.boxes[0] <= self.boxes[1]:
            raise RecipeError("method.levels and boxes must be at least 1, and boxes must rise.")
        if not 0 < self.size[0] <= self.size[1] <= 1:
            raise RecipeError(f"method.size must rise and lie between 0 and 1, not {self.size}.")


class Fused(NamedTuple):
    """``loss`` is a scalar; ``prediction`` holds the logits (b, K + 1, [z,] y, x)."""

    loss: Tensor
    prediction: Tensor


class FusionModel(nn.Module):
    """A segmentation network under soft Dice and cross-entropy."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, levels: Tensor, valid: Tensor) -> Fused:
        """``levels`` int64 (b, [z,] y, x); only ``valid`` (b, 1, [z,] y, x) voxels count."""
        logits = self.network(images).float()
        return Fused(segmentation_loss(logits, levels, valid[:, 0]), logits)


def segmentation_loss(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """1 - mean soft Dice of all classes, plus cross-entropy, over the valid voxels of the batch."""
    counted = valid[:, None]
    probability = logits.softmax(1) * counted
    classes = torch.arange(logits.shape[1], device=logits.device)
    truth = (target[:, None] == classes.view(-1, *(1 for _ in target.shape[1:]))) & counted
    axes = (0, *range(2, logits.ndim))
    overlap, total = (probability * truth).sum(axes), (probability + truth).sum(axes)
    dice = (2 * overlap + 1e-5) / (total + 1e-5)
    entropy = functional.cross_entropy(logits, target, reduction="none")
    return 1 - dice.mean() + (entropy * valid).sum() / valid.sum().clamp(min=1)


@dataclass
class VolumeFusion:
    """The method as `pretrain.py` uses it."""

    model: FusionModel
    network: dict
    settings: FusionSettings

    def __str__(self) -> str:
        return f"pairs of crops mixed with {self.settings.levels} weights"

    def loss(self, crops: Crops, generators: Generators) -> MeanLoss:
        return MeanLoss(self.model(*fuse(crops, self.settings, generators.host)).loss)

    def watch(
        self, volumes: UnlabeledVolumes, patch: Sequence[int], count: int, device: torch.device
    ) -> FixedFusions:
        crops, generator = fixed_crops(volumes, patch, max(count, 2))
        inputs = tuple(tensor.to(device) for tensor in fuse(crops, self.settings, generator))
        return FixedFusions(inputs, crops.cases)


@dataclass(frozen=True)
class FixedFusions:
    """Mixtures that stay the same."""

    inputs: tuple[Tensor, Tensor, Tensor]
    cases: tuple[str, ...]

    def loss(self, model: nn.Module) -> float:
        singles = zip(*(tensor.split(1) for tensor in self.inputs), strict=True)
        return float(torch.stack([model(*single).loss for single in singles]).mean())

    def save_picture(
        self, model: nn.Module, path: Path, spacing: Sequence[float], rows: int = 4
    ) -> None:
        """Mixture | levels | predicted levels."""
        images, levels, valid = (tensor[:rows] for tensor in self.inputs)
        with torch.no_grad():
            predicted = model(images, levels, valid).prediction.argmax(1)
        # A row has one scale of gray: levels are drawn from its darkest to its brightest.
        low, high = intensity_range(images)
        step = (high - low) / levels.max()
        columns = {
            "mixture": images,
            "levels": low + step * levels[:, None],
            "predicted": low + step * predicted[:, None],
        }
        draw_rows(columns, self.cases, spacing, path)


def fuse(
    crops: Crops, settings: FusionSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Blend each crop's neighbor in the batch into it: mixtures (b, c, [z,] y, x), levels
    (b, [z,] y, x), valid voxels (b, 1, [z,] y, x). ``generator`` is on the CPU."""
    shape, device = crops.images.shape[2:], crops.images.device
    levels = torch.stack([_levels(shape, settings, generator) for _ in crops.cases])
    levels = levels.to(device, non_blocking=True)
    share = levels[:, None] / settings.levels
    images = torch.lerp(crops.images, crops.images.roll(1, 0), share)
    valid = crops.valid & (crops.valid.roll(1, 0) | (levels[:, None] == 0))
    return images, levels, valid


def _levels(shape: Sequence[int], settings: FusionSettings, generator: torch.Generator) -> Tensor:
    levels = torch.zeros(*shape, dtype=torch.int64)
    low, high = settings.boxes
    count = int(torch.randint(low, high + 1, (), generator=generator))
    small, large = settings.size
    for _ in range(count):
        level, *edges = torch.rand(1 + 2 * len(shape), generator=generator).tolist()
        box = []
        for axis, size in enumerate(shape):
            edge = max(1, round(size * (small + (large - small) * edges[2 * axis])))
            start = int(edges[2 * axis + 1] * (size - edge + 1))
            box.append(slice(start, start + edge))
        levels[tuple(box)] = 1 + int(level * settings.levels)
    return levels


def build_volume_fusion(recipe: Any, cache: Cache, patch: Sequence[int]) -> VolumeFusion:
    """Raises RecipeError for a batch of one crop, which has no other to be mixed with."""
    if recipe.loop.micro_batch < 2:
        raise RecipeError("Volume fusion mixes pairs of crops: set loop.batch to 2 or more.")
    classes = recipe.method.levels + 1
    network, config = architectures.restoring_network(recipe, cache, patch, classes)
    return VolumeFusion(FusionModel(network), config, recipe.method)
