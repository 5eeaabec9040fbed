"""Runs in the peers' environment: nnU-Net plans, trains a little and saves the benchmark's model.

    .venv-bench/bin/python benchmarks/inference_model.py FOLDER [--steps 60]

FOLDER holds ``case_0000.nii.gz`` and ``labels.nii.gz`` (see `inference_case`); the model folder is
``FOLDER/model``. The plan is the one of nnU-Net's ResEnc-M planner for such images at 1.5 mm.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path

import numpy as np

CLASSES = 15
SPACING = (1.5, 1.5, 1.5)
CROP = 64  # voxels: of training only
DATASET = "Dataset900_Benchmark"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=60, help="of training (default: %(default)s)")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(folder / "nnunet" / name)
    plans, dataset = plan(folder)
    train(plans, dataset, folder, arguments.steps)


def plan(folder: Path) -> tuple[dict, dict]:
    """plans.json and dataset.json for a data set of images like the case's."""
    import SimpleITK as sitk
    from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiments, preprocess

    raw = folder / "nnunet" / "raw" / DATASET
    for part, name in (("imagesTr", "case_0000.nii.gz"), ("labelsTr", "labels.nii.gz")):
        (raw / part).mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / name, raw / part / name.replace("labels", "case"))
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{f"class {i}": i for i in range(1, CLASSES)}},
        "numTraining": 1,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
    }
    (raw / "dataset.json").write_text(json.dumps(dataset))
    image = sitk.ReadImage(str(folder / "case_0000.nii.gz"))
    array, labels = (
        sitk.GetArrayFromImage(i) for i in (image, sitk.ReadImage(str(folder / "labels.nii.gz")))
    )
    inside = array[labels > 0]
    low, median, high = np.percentile(inside, (0.5, 50, 99.5))
    intensities = {
        "mean": float(inside.mean()), "std": float(inside.std()), "median": float(median),
        "min": float(inside.min()), "max": float(inside.max()),
        "percentile_00_5": float(low), "percentile_99_5": float(high),
    }  # fmt: skip
    fingerprint = {
        "spacings": [list(reversed(image.GetSpacing()))],
        "shapes_after_crop": [list(array.shape)],
        "foreground_intensity_properties_per_channel": {"0": intensities},
        "median_relative_size_after_cropping": 1.0,
    }
    preprocessed = folder / "nnunet" / "preprocessed" / DATASET
    preprocessed.mkdir(parents=True, exist_ok=True)
    (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    name = plan_experiments([900], "nnUNetPlannerResEncM", overwrite_target_spacing=SPACING)
    preprocess([900], name, ("3d_fullres",), (1,))
    return json.loads((preprocessed / f"{name}.json").read_text()), dataset


def train(plans: dict, dataset: dict, folder: Path, steps: int) -> None:
    """Some steps on crops of the case, so that the labels mean something; saved by nnU-Net."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.manual_seed(0)
    settings = {**plans, "continue_training": False}
    trainer = nnUNetTrainer(settings, "3d_fullres", 0, dataset, torch.device("cpu"))
    trainer.initialize()
    print("patch", trainer.configuration_manager.patch_size, "parameters",
          sum(p.numel() for p in trainer.network.parameters()))  # fmt: skip
    stored = trainer.dataset_class(trainer.preprocessed_dataset_folder)
    image, labels = (np.asarray(part[:]) for part in stored.load_case(stored.identifiers[0])[:2])
    trainer.set_deep_supervision_enabled(False)
    optimizer = torch.optim.Adam(trainer.network.parameters(), 3e-4)
    rng = np.random.default_rng(0)
    for step in range(steps):
        start = [int(rng.integers(n - CROP + 1)) for n in image.shape[1:]]
        block = tuple(slice(s, s + CROP) for s in start)
        with torch.autocast("cpu", torch.bfloat16):
            logits = trainer.network(torch.from_numpy(image[(None, slice(None), *block)]))
        target = torch.from_numpy(labels[(slice(None), *block)]).long().clamp(min=0)
        loss = torch.nn.functional.cross_entropy(logits.float(), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            print(f"step {step}: loss {float(loss.detach()):.3f}", flush=True)
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    model = Path(trainer.output_folder).parent
    (model / "plans.json").write_text(json.dumps(plans))
    (model / "dataset.json").write_text(json.dumps(dataset))
    shutil.rmtree(folder / "model", ignore_errors=True)
    shutil.copytree(model, folder / "model")


if __name__ == "__main__":
    main()
