"""Runs in the peers' environment: the same network by MONAI, as its bundles segment a scan.

    .venv-bench/bin/python benchmarks/inference_monai.py IMAGE MODEL_FOLDER OUT.nii.gz

Spacing, intensities, SlidingWindowInferer with Gaussian weights, softmax, Invert, argmax;
weights, voxel size, intensities, windows and overlap are nnU-Net's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import nibabel
import numpy as np
import torch
from monai.inferers import SlidingWindowInferer
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    Compose,
    EnsureChannelFirstd,
    Invertd,
    LoadImaged,
    ScaleIntensityRanged,
    Spacingd,
)
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

CONFIGURATION = "3d_fullres"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("model", type=Path, help="nnU-Net's folder of the trained model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    plans = json.loads((arguments.model / "plans.json").read_text())
    labels = json.loads((arguments.model / "dataset.json").read_text())["labels"]
    configuration = plans["configurations"][CONFIGURATION]
    network = load_network(arguments.model, configuration, len(labels)).to(arguments.device)
    intensities = plans["foreground_intensity_properties_per_channel"]["0"]
    before, after = transforms(configuration["spacing"], intensities)
    inferer = SlidingWindowInferer(
        configuration["patch_size"][::-1], sw_batch_size=1, overlap=0.5, mode="gaussian"
    )

    def predict(tile: torch.Tensor) -> torch.Tensor:
        # MONAI's arrays are (x, y, z), nnU-Net's networks take (z, y, x).
        logits = network(tile.permute(0, 1, 4, 3, 2).contiguous())
        return logits.permute(0, 1, 4, 3, 2)

    with torch.inference_mode():
        data = before({"image": arguments.image})
        image = data["image"][None].to(arguments.device)
        data["logits"] = inferer(image, predict)[0].cpu()
        result = after(data)["logits"][0]
    labels = nibabel.Nifti1Image(result.numpy().astype(np.uint8), result.affine.numpy())
    nibabel.save(labels, arguments.out)


def transforms(spacing: list[float], ct: dict) -> tuple[Compose, Compose]:
    """What comes before and after the network; ``spacing`` is (z, y, x) in mm."""
    low, high = ct["percentile_00_5"], ct["percentile_99_5"]
    scaled = [(value - ct["mean"]) / ct["std"] for value in (low, high)]
    before = Compose([
        LoadImaged("image", reader="NibabelReader"),
        EnsureChannelFirstd("image"),
        Spacingd("image", pixdim=spacing[::-1], mode="bilinear"),
        ScaleIntensityRanged("image", low, high, *scaled, clip=True),
    ])  # fmt: skip
    after = Compose([
        Activationsd("logits", softmax=True),
        Invertd("logits", before, orig_keys="image", nearest_interp=False),
        AsDiscreted("logits", argmax=True),
    ])  # fmt: skip
    return before, after


def load_network(model: Path, configuration: dict, classes: int) -> torch.nn.Module:
    architecture = configuration["architecture"]
    network = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        classes,
        deep_supervision=False,
    )
    saved = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False)
    network.load_state_dict(saved["network_weights"])
    return network.eval()


if __name__ == "__main__":
    main()
