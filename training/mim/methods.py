"""Pre-training methods by name, and what `pretrain.py` asks of each of them.

A method is a model, the configuration of the network inside it that fine-tuning rebuilds, a loss on
a batch of unlabelled crops, and something to watch: a validation loss that means the same at every
step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from mim import architectures
from mim.contrastive import ContrastiveSettings
from mim.contrastive_methods import build_masked_contrastive, build_simclr
from mim.data import Cache, Crops, UnlabeledVolumes
from mim.device import Generators
from mim.mae import MAESettings, build_mae
from mim.masked_contrastive import CombinedSettings
from mim.masked_modelling import MaskedModelling
from mim.masked_unet import MaskedAutoencoderUNet, MethodSettings
from mim.mean_loss import MeanLoss
from mim.models_genesis import GenesisSettings, build_models_genesis
from mim.networks import NetworkConfig
from mim.recipe import RecipeError, choice
from mim.simmim import SimMIMSettings, build_simmim
from mim.sparse_unet import SparseMaskedUNet, SparseSettings
from mim.volume_fusion import FusionSettings, build_volume_fusion


class Watch(Protocol):
    """Fixed crops on which a method is measured."""

    def loss(self, model: nn.Module) -> float:
        """Mean loss of the crops; the same numbers for the same weights."""

    def save_picture(self, model: nn.Module, path: Path, spacing: Sequence[float]) -> None:
        """Show what the model makes of a few crops as a PNG at ``path``."""


class Method(Protocol):
    """One way to pre-train. ``str(method)`` says in a few words what it does."""

    model: nn.Module
    network: dict

    def loss(self, crops: Crops, generators: Generators) -> MeanLoss:
        """The loss to descend; all chance comes from ``generators``."""

    def watch(
        self, volumes: UnlabeledVolumes, patch: Sequence[int], count: int, device: torch.device
    ) -> Watch:
        """Draw ``count`` fixed crops to validate on."""


def _unet(recipe: Any, cache: Cache, patch: Sequence[int]) -> tuple[nn.Module, dict]:
    if recipe.network.name != "resenc_unet":
        raise RecipeError(
            f"method {recipe.method.name} pre-trains network resenc_unet, not "
            f"{recipe.network.name}; for a transformer write method.name=mae or simmim."
        )
    return architectures.restoring_network(recipe, cache, patch)


def _masked_unet(recipe: Any, cache: Cache, patch: Sequence[int]) -> Method:
    network, config = _unet(recipe, cache, patch)
    model = MaskedAutoencoderUNet(network, cache.channels, recipe.method)
    return MaskedModelling(model, config, recipe.mask.block or network.divisor, recipe.mask)


def _s3d(recipe: Any, cache: Cache, patch: Sequence[int]) -> Method:
    network, config = _unet(recipe, cache, patch)
    model = SparseMaskedUNet(network, NetworkConfig.from_dict(config), recipe.method)
    return MaskedModelling(model, config, recipe.mask.block or network.divisor, recipe.mask)


@dataclass(frozen=True)
class MethodKind:
    """``build(recipe, cache, patch)`` makes the method of a recipe whose section ``method`` is of
    the type ``settings``; raises RecipeError when recipe and network do not go together."""

    settings: type
    build: Callable[[Any, Cache, Sequence[int]], Method]


METHODS: dict[str, MethodKind] = {
    "masked_unet": MethodKind(MethodSettings, _masked_unet),
    "s3d": MethodKind(SparseSettings, _s3d),
    "mae": MethodKind(MAESettings, build_mae),
    "simmim": MethodKind(SimMIMSettings, build_simmim),
    "simclr": MethodKind(ContrastiveSettings, build_simclr),
    "masked_contrastive": MethodKind(CombinedSettings, build_masked_contrastive),
    "models_genesis": MethodKind(GenesisSettings, build_models_genesis),
    "volume_fusion": MethodKind(FusionSettings, build_volume_fusion),
}


def method_choice() -> Any:
    """Declare a recipe's section ``method``: any of METHODS."""
    return choice({name: kind.settings for name, kind in METHODS.items()}, "masked_unet")


def build_method(recipe: Any, cache: Cache, patch: Sequence[int]) -> Method:
    """The method that ``recipe`` names, with fresh weights, on the CPU."""
    return METHODS[recipe.method.name].build(recipe, cache, patch)
