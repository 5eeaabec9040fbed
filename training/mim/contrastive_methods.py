"""SimCLR, and masked modelling with contrast, as methods of `pretrain.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mim import architectures
from mim.augment import SpatialSettings
from mim.contrastive import Backbone, ContrastiveModel, ContrastiveSettings, embedding
from mim.data import Cache, Crops, UnlabeledVolumes
from mim.device import Generators
from mim.masked_contrastive import CombinedSettings, MaskedContrastiveModel
from mim.masking import MaskSettings, draw_mask
from mim.mean_loss import MeanLoss
from mim.networks import NetworkConfig
from mim.parallel import rank
from mim.recipe import RecipeError
from mim.reconstruction import draw_rows, fixed_crops
from mim.sparse_unet import SparseMaskedUNet
from mim.views import two_views


@dataclass
class Contrasting:
    """Views of the same crop agree; with a ``mask`` both views are masked, and restored too.

    ``model`` is called with both views and, where there is a mask, it and the valid voxels.
    """

    model: nn.Module
    network: dict
    settings: ContrastiveSettings
    spatial: SpatialSettings
    spacing: Sequence[float]
    block: tuple[int, ...] = ()
    mask: MaskSettings | None = None

    def __str__(self) -> str:
        masked = f"masked blocks of {self.block} voxels and " if self.mask else ""
        return f"{masked}two views of each crop"

    def loss(self, crops: Crops, generators: Generators) -> MeanLoss:
        found = self.model(*self.inputs(crops, generators)[0])
        return MeanLoss(found.loss, getattr(found, "voxels", None))

    def watch(
        self, volumes: UnlabeledVolumes, patch: Sequence[int], count: int, device: torch.device
    ) -> FixedViews:
        crops, generator = fixed_crops(volumes, patch, max(count, 2))
        inputs, views = self.inputs(crops, Generators(generator, generator))
        inputs = tuple(tensor.to(device) for tensor in inputs)
        return FixedViews(inputs, crops.images, views, crops.cases)

    def inputs(
        self, crops: Crops, generators: Generators
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, Tensor]]:
        """What the model takes of ``crops``, and the two views."""
        s = self.settings
        first, second = two_views(
            crops, s.views, self.spatial, s.intensity, self.spacing, generators
        )
        views = first.images, second.images
        if self.mask is None:
            return views, views
        ratio, strategy = self.mask.ratio, self.mask.strategy
        mask = draw_mask(torch.cat(views), self.block, ratio, generators.device, strategy)
        return (*views, mask, torch.cat((first.valid, second.valid))), views


@dataclass(frozen=True)
class FixedViews:
    """Crops and views that stay the same: the loss among them all, and a picture of some."""

    inputs: tuple[Tensor, ...]
    originals: Tensor
    views: tuple[Tensor, Tensor]
    cases: tuple[str, ...]

    def loss(self, model: nn.Module) -> float:
        """Of ``model`` in evaluation, which compares these crops alone, however many processes.

        Raises TrainingError when the embeddings have collapsed since the last time.
        """
        model.guard.check()
        return float(model(*self.inputs).loss)

    def save_picture(
        self, model: nn.Module, path: Path, spacing: Sequence[float], rows: int = 4
    ) -> None:
        """Original | first view | second view, one row for each crop."""
        first, second = (view[:rows] for view in self.views)
        columns = {"original": self.originals[:rows], "first view": first, "second view": second}
        draw_rows(columns, self.cases, spacing, path)


def build_simclr(recipe: Any, cache: Cache, patch: Sequence[int]) -> Contrasting:
    """SimCLR on the encoder of any network; raises RecipeError for a batch without negatives."""
    _check_negatives(recipe)
    channels = cache.channels
    config = architectures.configure(recipe.network, cache.plan, patch, channels, channels)
    network = architectures.build(config)
    network.check_patch(patch)
    backbone = Backbone(network)
    with torch.no_grad():
        width = embedding(backbone, torch.zeros(1, channels, *patch)).shape[1]
    model = ContrastiveModel(backbone, width, recipe.method)
    spacing = cache.plan["preprocessing"]["spacing"]
    return Contrasting(model, config, recipe.method, recipe.spatial, spacing)


def build_masked_contrastive(recipe: Any, cache: Cache, patch: Sequence[int]) -> Contrasting:
    """S3D with a contrastive loss on its bottleneck."""
    _check_negatives(recipe)
    settings: CombinedSettings = recipe.method
    network, config = architectures.restoring_network(recipe, cache, patch)
    inner = SparseMaskedUNet(network, NetworkConfig.from_dict(config), settings.masked)
    model = MaskedContrastiveModel(inner, config["features"][-1], settings)
    return Contrasting(
        model,
        config,
        settings,
        recipe.spatial,
        cache.plan["preprocessing"]["spacing"],
        recipe.mask.block or network.divisor,
        recipe.mask,
    )


def _check_negatives(recipe: Any) -> None:
    """Raise RecipeError where there are none, warn where fewer than the batch promises."""
    loop = recipe.loop
    if loop.micro_batch < 2:
        raise RecipeError(
            "Contrast needs other crops in the same batch: set loop.batch to 2 or more (8 and more "
            "work better) without loop.accumulate eating it up."
        )
    if loop.accumulate > 1 and rank() == 0:
        print(
            f"WARNING: with loop.accumulate={loop.accumulate} a crop is told apart from the "
            f"{loop.batch // loop.accumulate - 1} others of its part, not from {loop.batch - 1}: "
            "it is no substitute for a large batch here; more processes are (torchrun)."
        )
