"""Models Genesis: a network undoes distortions of a crop (Zhou et al., MICCAI 2019, Medical Image
Analysis 2021).

Three kinds: intensities through a random monotonic curve; voxels shuffled inside small windows;
boxes painted over, inside (in-painting) or everywhere else (out-painting). The loss is over the
whole crop. Written from the paper; the shuffle goes over a grid of windows at once instead of
thousands of windows in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mim import architectures
from mim.augment import check_probabilities
from mim.data import PAD_VALUE, Cache, Crops, UnlabeledVolumes
from mim.device import Generators
from mim.distortions import for_samples, intensity_curves, painted_over, shuffled_windows
from mim.masked_unet import Reconstruction, masked_error
from mim.mean_loss import MeanLoss
from mim.recipe import setting
from mim.reconstruction import draw_rows, fixed_crops


@dataclass(frozen=True)
class GenesisSettings:
    """How often each distortion comes; the paper's probabilities."""

    curve: float = setting(0.9, "probability of passing intensities through a random curve")
    shuffle: float = setting(0.5, "probability of shuffling voxels inside small windows")
    paint: float = setting(0.9, "probability of painting boxes over, in one of two ways")
    inside: float = setting(0.2, "of these: the share painted inside the boxes, not around them")
    loss: Literal["l2", "l1"] = setting("l2", "squared or absolute error")
    name: Literal["models_genesis"] = setting("models_genesis", "undoing distortions of a crop")

    def __post_init__(self):
        check_probabilities(
            curve=self.curve, shuffle=self.shuffle, paint=self.paint, inside=self.inside
        )


class RestoringModel(nn.Module):
    """A U-Net from a distorted crop to the crop."""

    def __init__(self, network: nn.Module, settings: GenesisSettings):
        super().__init__()
        self.network = network
        self.settings = settings

    def forward(self, distorted: Tensor, images: Tensor, valid: Tensor) -> Reconstruction:
        """All (b, c, [z,] y, x), ``valid`` with one channel; the mask returned is ``valid``."""
        prediction = self.network(distorted).float()
        loss, voxels = masked_error(prediction, images.float(), valid, self.settings.loss)
        return Reconstruction(loss, prediction, valid, voxels)


@dataclass
class ModelsGenesis:
    """The method as `pretrain.py` uses it."""

    model: RestoringModel
    network: dict
    settings: GenesisSettings

    def __str__(self) -> str:
        return "distorted crops restored"

    def loss(self, crops: Crops, generators: Generators) -> MeanLoss:
        distorted = distort(crops, self.settings, generators)
        found = self.model(distorted, crops.images, crops.valid)
        return MeanLoss(found.loss, found.voxels)

    def watch(
        self, volumes: UnlabeledVolumes, patch: Sequence[int], count: int, device: torch.device
    ) -> FixedDistortions:
        crops, generator = fixed_crops(volumes, patch, count)
        distorted = distort(crops, self.settings, Generators(generator, generator))
        return FixedDistortions(crops.to(device), distorted.to(device))


@dataclass(frozen=True)
class FixedDistortions:
    """Crops and their distortions that stay the same."""

    crops: Crops
    distorted: Tensor

    def loss(self, model: nn.Module) -> float:
        images, valid = self.crops.images, self.crops.valid
        triples = zip(self.distorted.split(1), images.split(1), valid.split(1), strict=True)
        return float(torch.stack([model(*triple).loss for triple in triples]).mean())

    def save_picture(
        self, model: nn.Module, path: Path, spacing: Sequence[float], rows: int = 4
    ) -> None:
        images, distorted = self.crops.images[:rows], self.distorted[:rows]
        with torch.no_grad():
            restored = model(distorted, images, self.crops.valid[:rows]).prediction
        columns = {"original": images, "what the network saw": distorted, "restored": restored}
        draw_rows(columns, self.crops.cases, spacing, path)


def distort(crops: Crops, settings: GenesisSettings, generators: Generators) -> Tensor:
    """A distorted version (b, c, [z,] y, x) of each crop; padding stays padding."""
    count, host = len(crops.images), generators.host
    drawn = torch.rand(4, count, generator=host)
    images = crops.images
    for chance, draw, distortion in (
        (settings.curve, drawn[0], intensity_curves),
        (settings.shuffle, drawn[1], shuffled_windows),
    ):
        chosen = for_samples(draw < chance, images)
        images = torch.where(chosen, distortion(images, generators), images)
    paint, inside = drawn[2] < settings.paint, drawn[3] < settings.inside
    images = painted_over(images, paint, inside, generators)
    return torch.where(crops.valid, images, PAD_VALUE)


def build_models_genesis(recipe: Any, cache: Cache, patch: Sequence[int]) -> ModelsGenesis:
    network, config = architectures.restoring_network(recipe, cache, patch)
    return ModelsGenesis(RestoringModel(network, recipe.method), config, recipe.method)
