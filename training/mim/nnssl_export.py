"""A pre-trained network as a checkpoint of nnssl, which nnU-Net fine-tunes.

The folder has the layout of an OpenMind repository: ``checkpoint_final.pth`` with the full key set
of nnssl's trainer (nnU-Net opens it with ``weights_only=True``), ``adaptation_plan.json`` and
``config.json``. Every tensor stands there under all the names that dynamic-network-architectures
gives it, so that nnU-Net loads encoder and stem strictly, and ``nnUNetv2_train
-pretrained_weights`` finds the decoder too.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from mim.checkpoint import (
    CheckpointError,
    first_line,
    load_checkpoint,
    save_plain,
    trained_weights,
)
from mim.networks import NetworkConfig, build_network
from mim.weight_files import unwrapped
from MIMSegment.Logic.errors import OutputError
from MIMSegment.Logic.files import make_folder, write_json

CHECKPOINT = "checkpoint_final.pth"
_CLASS = "ResidualEncoderUNet"
_SCHEMES = {
    "zscore": "ZScoreNormalization",
    "ct": "CTNormalization",
    "rescale_to_01": "RescaleTo01Normalization",
    "rgb_to_01": "RGBTo01Normalization",
    "none": "NoNormalization",
}
_PAPERS = (
    "Wald, T., et al. (2025). Revisiting MAE pre-training for 3D medical image segmentation. CVPR.",
    "Isensee, F., et al. (2024). nnU-Net revisited: a call for rigorous validation in 3D medical "
    "image segmentation. MICCAI.",
)


def export_nnssl(checkpoint: str | Path, folder: str | Path) -> str:
    """Write the pre-trained network of ``checkpoint`` (pretrain.py) into ``folder``.

    Returns the lines to show. Raises CheckpointError for a checkpoint of another kind of network,
    OutputError where ``folder`` holds such a checkpoint already or cannot be written.
    """
    folder = Path(folder)
    content = load_checkpoint(checkpoint)
    network, config = _network(content, checkpoint)
    if (folder / CHECKPOINT).exists():
        raise OutputError(f"{folder} holds a {CHECKPOINT} already; choose another folder.")
    plan = adaptation_plan(config, content["metadata"])
    make_folder(folder)
    method = _method(content["metadata"])
    save_plain(folder / CHECKPOINT, _content(network, plan, content, method))
    write_json(folder / "adaptation_plan.json", {**plan, "trainer_name": _trainer(method)})
    write_json(folder / "config.json", {"library": "MIM Segment", "architecture": _CLASS})
    names, patch = len(network.state_dict()), plan["recommended_downstream_patchsize"]
    return (
        f"Wrote {folder}: {CHECKPOINT} ({names} names of "
        f"{len(list(network.parameters()))} tensors), adaptation_plan.json, config.json.\n"
        f"{_CLASS}, {config.in_channels} input channel(s), patch {'×'.join(map(str, patch))}, "
        f"spacing {_spacing(content['metadata'])} mm (z, y, x).\n"
        f"nnU-Net: nnUNetv2_preprocess_like_nnssl -d ID -n NAME -pc {folder / CHECKPOINT} "
        f"-am like_pretrained"
    )


def adaptation_plan(config: NetworkConfig, metadata: dict) -> dict:
    """What nnssl says about a pre-training and nnU-Net reads: plain JSON values."""
    patch = [int(n) for n in metadata["recipe"].get("patch") or metadata["plan"]["patch"]]
    stages = len(config.features)
    return {
        "architecture_plans": {
            "arch_class_name": _CLASS,
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": list(config.features),
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [list(kernel) for kernel in config.kernel_sizes],
                "strides": [list(stride) for stride in config.strides],
                "n_blocks_per_stage": list(config.blocks),
                "n_conv_per_stage_decoder": [config.decoder_convs] * (stages - 1),
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "arch_kwargs_requiring_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "pretrain_plan": _pretrain_plan(config, metadata, patch),
        "pretrain_num_input_channels": config.in_channels,
        "recommended_downstream_patchsize": patch,
        "key_to_encoder": "encoder.stages",
        "key_to_stem": "encoder.stem",
        "keys_to_in_proj": [
            "encoder.stem.convs.0.conv",
            "encoder.stem.convs.0.all_modules.0",
        ],
        "key_to_lpe": None,
    }


def _network(content: dict, checkpoint: str | Path) -> tuple[nn.Module, NetworkConfig]:
    try:
        config = NetworkConfig.from_dict(content["metadata"]["network"])
        network = build_network(config)
        state = unwrapped(trained_weights(content))
        network.load_state_dict({name: state[name] for name in network.state_dict()})
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{checkpoint} holds no residual encoder U-Net ({first_line(error)}); "
            f"nnU-Net can take only such a network over."
        ) from None
    if len(config.strides[0]) != 3:
        raise CheckpointError(f"{checkpoint} is a network for images; nnssl's are for volumes.")
    return network, config


def _content(network: nn.Module, plan: dict, content: dict, method: str) -> dict:
    return {
        "network_weights": network.state_dict(),
        "optimizer_state": {},
        "grad_scaler_state": None,
        "logging": {},
        "_best_ema": None,
        "current_epoch": int(content.get("step", 0)),
        "init_args": {"configuration_name": next(iter(plan["pretrain_plan"]["configurations"]))},
        "trainer_name": _trainer(method),
        "nnssl_adaptation_plan": plan,
        "citations": [{"type": "Pretraining", "name": method, "apa_citations": list(_PAPERS)}],
    }


def _pretrain_plan(config: NetworkConfig, metadata: dict, patch: list[int]) -> dict:
    plan = metadata["plan"]
    planned = plan["preprocessing"].get("normalization") or [{}] * config.in_channels
    spacing = _spacing(metadata)
    return {
        "dataset_name": str(plan.get("name", "unknown")),
        "plans_name": "mimsegment",
        "original_median_spacing_after_transp": spacing,
        "original_median_shape_after_transp": patch,
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "MIM Segment",
        "configurations": {
            "3d_fullres": {
                "data_identifier": "mimsegment",
                "preprocessor_name": "DefaultPreprocessor",
                "spacing_style": "median",
                "spacing": spacing,
                "normalization_schemes": [_SCHEMES[n.get("scheme", "zscore")] for n in planned],
                "use_mask_for_norm": [n.get("nonzero", False) for n in planned],
                "patch_size": patch,
                "batch_size": int(metadata["recipe"].get("loop", {}).get("batch", 2)),
            }
        },
    }


def _spacing(metadata: dict) -> list[float]:
    return [float(mm) for mm in metadata["plan"]["preprocessing"]["spacing"]]


def _method(metadata: dict) -> str:
    return str(metadata["recipe"].get("method", {}).get("name") or metadata["kind"])


def _trainer(method: str) -> str:
    return f"MIMSegment_{method}"
