"""A trained-model folder in the format of nnU-Net v2, made without nnU-Net."""

import json
from pathlib import Path

import numpy as np
import torch

from mim.networks import ResidualEncoderUNet
from mim.plain_unet import PlainConvUNet

RESAMPLING = "resample_data_or_seg_to_shape"


def architecture(dims: int = 3, name: str = "PlainConvUNet") -> dict:
    """The network as the planner describes it: three stages of two and one convolutions."""
    counts = "n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage"
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
        "arch_kwargs": {
            "n_stages": 3,
            "features_per_stage": [4, 6, 8],
            "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
            "kernel_sizes": [[1, 3, 3][-dims:], [3] * dims, [3] * dims],
            "strides": [[1] * dims, [1, 2, 2][-dims:], [2] * dims],
            counts: [2, 2, 1],
            "n_conv_per_stage_decoder": [1, 2],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def configuration(dims: int = 3, channels: int = 1, name: str = "PlainConvUNet") -> dict:
    """One configuration of plans.json."""
    resampling = {"is_seg": False, "order_z": 0, "force_separate_z": None}
    return {
        "preprocessor_name": "DefaultPreprocessor",
        "patch_size": [4, 16, 16][-dims:],
        "spacing": [3.0, 1.0, 1.0][-dims:],
        "normalization_schemes": ["ZScoreNormalization"] * channels,
        "use_mask_for_norm": [False] * channels,
        "resampling_fn_data": RESAMPLING,
        "resampling_fn_data_kwargs": {**resampling, "order": 3},
        "resampling_fn_probabilities": RESAMPLING,
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "resampling_fn_seg": RESAMPLING,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "architecture": architecture(dims, name),
    }


def plans(**configurations: dict) -> dict:
    """plans.json around ``configurations``."""
    intensities = {"mean": 50.0, "std": 20.0, "percentile_00_5": -100.0, "percentile_99_5": 300.0}
    return {
        "dataset_name": "Dataset900_Test",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": intensities},
        "configurations": configurations,
    }


def dataset(channels=("T2",), labels=None, **more) -> dict:
    """dataset.json."""
    return {
        "channel_names": {str(i): name for i, name in enumerate(channels)},
        "labels": labels or {"background": 0, "gland": 1, "lesion": 2},
        "file_ending": ".nii.gz",
        **more,
    }


def network(
    dims: int = 3,
    channels: int = 1,
    outputs: int = 3,
    name: str = "PlainConvUNet",
    seed: int | None = None,
):
    """The network of `architecture` with random weights of a size that matters."""
    options = architecture(dims, name)["arch_kwargs"]
    kind = {"PlainConvUNet": PlainConvUNet, "ResidualEncoderUNet": ResidualEncoderUNet}[name]
    net = kind(channels, outputs, options["features_per_stage"], options["strides"],
               options["kernel_sizes"], (2, 2, 1), (1, 2))  # fmt: skip
    generator = torch.Generator().manual_seed(outputs if seed is None else seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return net.eval()


def write_model(
    folder: Path,
    plans_table: dict,
    dataset_table: dict,
    networks: dict[str, torch.nn.Module],
    configuration_name: str = "3d_fullres",
    mirror_axes=(0, 1, 2),
    **more,
) -> Path:
    """The folder with one checkpoint for each of ``networks`` (fold to network)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans_table))
    (folder / "dataset.json").write_text(json.dumps(dataset_table))
    for fold, net in networks.items():
        checkpoint = {
            "network_weights": net.state_dict(),
            "optimizer_state": {"state": {}, "param_groups": []},
            "grad_scaler_state": None,
            "logging": {"mean_fg_dice": [np.float64(0.5)], "train_losses": [np.float32(-0.2)]},
            "_best_ema": np.float64(0.5),
            "current_epoch": 1000,
            "init_args": {
                "plans": plans_table,
                "configuration": configuration_name,
                "fold": fold,
                "dataset_json": dataset_table,
                "device": torch.device("cpu"),
            },
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": mirror_axes,
            **more,
        }
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder
