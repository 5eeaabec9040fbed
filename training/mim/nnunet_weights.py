"""The networks of an nnU-Net v2 model: checkpoints read without running code, weights strict."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mim.checkpoint import first_line
from mim.networks import ResidualEncoderUNet
from mim.nnunet_plans import NnunetError
from mim.plain_unet import PlainConvUNet
from mim.weight_files import numpy_scalars

_WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile
# Of the parts of a planned network only these compute what ours compute.
_FIXED = {
    "conv_bias": (True,),
    "norm_op_kwargs": ({"eps": 1e-5, "affine": True},),
    "dropout_op": (None,),
    "nonlin_kwargs": ({"inplace": True}, {}, None, {"negative_slope": 0.01, "inplace": True}),
    "nonlin_first": (False, None),
    "bottleneck_channels": (None,),
    "stem_channels": (None,),
    "block": (None,),
}
_READ = {
    "n_stages", "features_per_stage", "conv_op", "kernel_sizes", "strides", "norm_op", "nonlin",
    "n_conv_per_stage", "n_blocks_per_stage", "n_conv_per_stage_decoder", "dropout_op_kwargs",
    "deep_supervision",
}  # fmt: skip
_COUNTS = {"PlainConvUNet": "n_conv_per_stage", "ResidualEncoderUNet": "n_blocks_per_stage"}
_NETWORKS = {"PlainConvUNet": PlainConvUNet, "ResidualEncoderUNet": ResidualEncoderUNet}


@dataclass(frozen=True)
class Checkpoint:
    """What inference needs of a checkpoint of nnU-Net's trainer."""

    path: Path
    weights: Mapping[str, torch.Tensor]
    configuration: str
    trainer: str
    mirror_axes: tuple[int, ...]


@dataclass(frozen=True)
class Architecture:
    """A planned U-Net: class name and its sizes, one entry for each stage."""

    name: str
    features: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    encoder: tuple[int, ...]
    decoder: tuple[int, ...]


def find_folds(folder: Path, checkpoint: str, folds: Sequence[str] = ()) -> list[Path]:
    """Checkpoint files of the wanted ``folds`` ("0", "all"); of all numbered ones when none given.

    As in nnU-Net, fold_all counts only when asked for, or when there is no other. Raises
    NnunetError naming the file that is missing.
    """
    if folds:
        paths = [folder / f"fold_{fold}" / checkpoint for fold in folds]
    else:
        found = sorted(folder.glob(f"fold_*/{checkpoint}"))
        paths = [path for path in found if path.parent.name != "fold_all"] or found
    if not paths:
        raise NnunetError(
            f"{folder} has no fold_*/{checkpoint}; finish the training, or choose a checkpoint "
            "that is there with --checkpoint."
        )
    for path in paths:
        if not path.is_file():
            raise NnunetError(f"{path} is missing; choose folds that are there with --folds.")
    return paths


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint without running code from it. Raises NnunetError."""
    try:
        with torch.serialization.safe_globals(numpy_scalars()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise NnunetError(
            f"{path} holds more than numbers and is not opened, because it could run code "
            f"({first_line(error)}); save it again with nnU-Net v2."
        ) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise NnunetError(
            f"{path} is damaged or no PyTorch checkpoint ({first_line(error)}); copy it again."
        ) from None
    try:
        weights = {_plain(name): tensor for name, tensor in content["network_weights"].items()}
        axes = content.get("inference_allowed_mirroring_axes") or ()
        return Checkpoint(
            path,
            weights,
            content["init_args"]["configuration"],
            content["trainer_name"],
            tuple(int(axis) for axis in axes),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise NnunetError(
            f"{path} is no checkpoint of nnU-Net v2's trainer ({type(error).__name__}: {error})."
        ) from None


def read_architecture(configuration: Mapping, dims: int, source: Path) -> Architecture:
    """The planned network, in the present layout of plans or the one before it (2.0 to 2.4)."""
    try:
        return _architecture(configuration, dims, source)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NnunetError(
            f"{source}: the network's description is incomplete ({error}); use the plans.json of "
            "the training."
        ) from None


def build(
    architecture: Architecture, checkpoint: Checkpoint, channels: int, outputs: int
) -> nn.Module:
    """The network with a checkpoint's weights. Raises NnunetError when they do not fit."""
    network: nn.Module = _NETWORKS[architecture.name](
        channels,
        outputs,
        architecture.features,
        architecture.strides,
        architecture.kernel_sizes,
        architecture.encoder,
        architecture.decoder,
    )
    try:
        network.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        detail = str(error).splitlines()[min(1, len(str(error).splitlines()) - 1)].strip()
        raise NnunetError(
            f"{checkpoint.path}: the weights do not fit the planned {architecture.name} "
            f"({detail[:120]}); the trainer {checkpoint.trainer} built a network of its own, which "
            "cannot be converted."
        ) from None
    return network.eval()


def _architecture(configuration: Mapping, dims: int, source: Path) -> Architecture:
    if "architecture" in configuration:
        planned = configuration["architecture"]
        name, options = planned["network_class_name"].rsplit(".", 1)[-1], planned["arch_kwargs"]
    else:
        name, options = configuration["UNet_class_name"], _older_options(configuration)
    if name not in _COUNTS:
        raise NnunetError(
            f"{source}: the network {name!r} cannot be converted; MIM Segment knows "
            f"{' and '.join(_COUNTS)}."
        )
    _require_planned_parts(options, dims, source)
    stages = options["n_stages"]
    strides, kernels = (
        tuple(tuple(_repeated(entry, dims)) for entry in _repeated(options[key], stages))
        for key in ("strides", "kernel_sizes")
    )
    return Architecture(
        name,
        tuple(_repeated(options["features_per_stage"], stages)),
        strides,
        kernels,
        tuple(_repeated(options[_COUNTS[name]], stages)),
        tuple(_repeated(options["n_conv_per_stage_decoder"], stages - 1)),
    )


def _repeated(value: Any, count: int) -> list:
    """nnU-Net lets one number stand for all stages, or for all axes."""
    values = [value] * count if isinstance(value, int) else list(value)
    if len(values) != count:
        raise ValueError(f"{values} should have {count} entries")
    return values


def _older_options(configuration: Mapping) -> dict:
    """Network options of plans written before nnU-Net 2.5."""
    counts = configuration["n_conv_per_stage_encoder"]
    base, most = configuration["UNet_base_num_features"], configuration["unet_max_num_features"]
    return {
        "n_stages": len(counts),
        "features_per_stage": [min(base * 2**stage, most) for stage in range(len(counts))],
        "kernel_sizes": configuration["conv_kernel_sizes"],
        "strides": configuration["pool_op_kernel_sizes"],
        "n_conv_per_stage": counts,
        "n_blocks_per_stage": counts,
        "n_conv_per_stage_decoder": configuration["n_conv_per_stage_decoder"],
    }


def _require_planned_parts(options: Mapping, dims: int, source: Path) -> None:
    """Raise NnunetError for a network whose layers are not nnU-Net's own choice."""
    layers = {"conv_op": f"Conv{dims}d", "norm_op": f"InstanceNorm{dims}d", "nonlin": "LeakyReLU"}
    for key, expected in layers.items():
        found = str(options.get(key, expected)).rsplit(".", 1)[-1]
        if found != expected:
            raise NnunetError(
                f"{source}: the network's {key} is {found}; only {expected} can be converted."
            )
    for key in sorted(set(options) - set(layers) - _READ):
        if key not in _FIXED or options[key] not in _FIXED[key]:
            raise NnunetError(
                f"{source}: the network option {key} = {options[key]!r} cannot be converted."
            )


def _plain(name: str) -> str:
    for prefix in _WRAPPERS:
        name = name.removeprefix(prefix)
    return name
