"""Networks by name: from a recipe's settings to a configuration, from a configuration to a network.

A configuration is a plain dictionary with the key ``name`` and everything else that the network
needs; it is kept in every checkpoint, so that a checkpoint alone can be built and exported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from mim import networks
from mim.classifier import ClassifierSettings, build_classifier, configure_classifier
from mim.data import Cache
from mim.recipe import RecipeError, choice
from mim.swin import (
    SwinSettings,
    SwinUNETRSettings,
    build_swin,
    build_swin_unetr,
    configure_swin,
)
from mim.unetr import UNETRSettings, build_unetr, configure_unetr
from mim.vit import VisionTransformer, ViTConfig, ViTSettings, vit_config
from mim.vit_classifier import (
    ViTClassifierSettings,
    build_vit_classifier,
    configure_vit_classifier,
)


@dataclass(frozen=True)
class Architecture:
    """A kind of network.

    ``configure(settings, plan, patch, in_channels, out_channels)`` returns the configuration
    without its name, ``build(configuration)`` the network with fresh weights. A network has
    ``divisor`` (patch sizes must be multiples of it, z y x) and ``check_patch(patch)``, which
    raises RecipeError for a patch that it cannot take.
    """

    settings: type
    configure: Callable[[Any, dict, Sequence[int], int, int], dict]
    build: Callable[[dict], nn.Module]


def _configure_resenc(settings, plan, patch, in_channels, out_channels) -> dict:
    return networks.network_config(settings, plan, in_channels, out_channels).to_dict()


def _build_resenc(config: dict) -> nn.Module:
    return networks.build_network(networks.NetworkConfig.from_dict(config))


def _configure_vit(settings, plan, patch, in_channels, out_channels) -> dict:
    return vit_config(settings, patch, in_channels).to_dict()


def _build_vit(config: dict) -> nn.Module:
    return VisionTransformer(ViTConfig.from_dict(config))


ARCHITECTURES: dict[str, Architecture] = {
    "resenc_unet": Architecture(networks.NetworkSettings, _configure_resenc, _build_resenc),
    "vit": Architecture(ViTSettings, _configure_vit, _build_vit),
    "unetr": Architecture(UNETRSettings, configure_unetr, build_unetr),
    "swin": Architecture(SwinSettings, configure_swin, build_swin),
    "swin_unetr": Architecture(SwinUNETRSettings, configure_swin, build_swin_unetr),
    "resenc_classifier": Architecture(ClassifierSettings, configure_classifier, build_classifier),
    "vit_classifier": Architecture(
        ViTClassifierSettings, configure_vit_classifier, build_vit_classifier
    ),
}


def network_choice(*names: str) -> Any:
    """Declare a recipe's section ``network``: one of ``names``, the first by default."""
    return choice({name: ARCHITECTURES[name].settings for name in names}, names[0])


def configure(
    settings: Any, plan: dict, patch: Sequence[int], in_channels: int, out_channels: int
) -> dict:
    """The configuration that a recipe's ``network`` section and the data's plan lead to."""
    architecture = ARCHITECTURES[settings.name]
    config = architecture.configure(settings, plan, patch, in_channels, out_channels)
    return {"name": settings.name, **config}


def cut_stages(settings: Any, config: dict) -> str:
    """A warning where a recipe's network has more stages than its configuration; else empty.

    A plan for few stages would make another network of a recipe without a word.
    """
    features = getattr(settings, "features", ())
    cut = features[len(config["features"]) :] if isinstance(features, tuple) and features else ()
    if not cut:
        return ""
    whose = "network.strides or kernel_sizes have" if settings.strides else "the cache's plan has"
    return (
        f"WARNING: network.features has {len(features)} stages, {whose} {len(config['features'])}: "
        f"the coarsest ({', '.join(map(str, cut))} channels) are left out. prepare.py --stages "
        f"{len(features)} with larger --patch-voxels plans for all of them."
    )


def build(config: dict) -> nn.Module:
    """The network of a configuration, with fresh weights from torch's global generator.

    Raises RecipeError for a name that this version does not know.
    """
    name = config.get("name", "resenc_unet")
    if name not in ARCHITECTURES:
        raise RecipeError(f"The network {name!r} is unknown; update MIM Segment to use it.")
    return ARCHITECTURES[name].build(config)


def restoring_network(
    recipe: Any, cache: Cache, patch: Sequence[int], out_channels: int | None = None
) -> tuple[nn.Module, dict]:
    """A recipe's network with fresh weights, and its configuration.

    It returns images of ``out_channels``, by default as many as the cache's have. Raises
    RecipeError for a patch that it cannot take.
    """
    channels = cache.channels
    config = configure(recipe.network, cache.plan, patch, channels, out_channels or channels)
    network = build(config)
    network.check_patch(patch)
    return network, config
