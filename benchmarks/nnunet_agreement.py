"""Does a converted nnU-Net model give nnU-Net's own labels? Prints one JSON line.

    .venv-bench/bin/python benchmarks/nnunet_agreement.py [--steps 60] [--only NAME ...]

The environment is that of `make bench-setup`. nnU-Net plans each data set of synthetic blobs,
builds the network, saves the checkpoints and predicts; we convert the model folder and segment the
same files. For each plan: share of equal labels (also among voxels that are not background in
both), largest difference of preprocessed intensities and of logits before resampling. nnU-Net adds
up windows in half precision; the keys ``full_precision_*`` compare with nnU-Net made to use single
precision, where only rounding is left.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "training")]
CASES = 5  # nnU-Net's planner needs some
FOLDER_VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


@dataclass(frozen=True)
class Task:
    """A data set and how nnU-Net is to plan it; spacings and shapes are (z, y, x) of the file."""

    name: str
    channels: tuple[str, ...]
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]
    test_spacing: tuple[float, float, float]
    test_shape: tuple[int, int, int]
    labels: dict = field(default_factory=lambda: {"background": 0, "large": 1, "small": 2})
    regions: tuple[int, ...] = ()
    planner: str = "ExperimentPlanner"
    configuration: str = "3d_fullres"
    reader: str = "SimpleITKIO"
    file_ending: str = ".nii.gz"
    masked: bool = False
    folds: int = 1


_SAGITTAL = {
    "channels": ("T2",),
    "spacing": (0.8, 0.8, 4.0),
    "shape": (72, 64, 18),
    "test_spacing": (0.9, 0.7, 4.6),
    "test_shape": (66, 90, 19),
}
TASKS = (
    Task("anisotropic_mr", **_SAGITTAL),
    Task("anisotropic_mr_2d", **_SAGITTAL, configuration="2d"),
    Task(
        "ct_resenc",
        channels=("CT",),
        spacing=(1.5, 1.2, 1.2),
        shape=(48, 56, 56),
        test_spacing=(2.5, 0.9, 0.9),
        test_shape=(33, 90, 84),
        planner="nnUNetPlannerResEncM",
        file_ending=".nrrd",
    ),
    Task(
        "regions_mr",
        channels=("T1", "T1c", "T2", "FLAIR"),
        spacing=(1.0, 1.0, 1.0),
        shape=(48, 56, 52),
        test_spacing=(1.3, 1.0, 0.9),
        test_shape=(40, 60, 64),
        labels={"background": 0, "whole": [1, 2], "core": [2]},
        regions=(1, 2),
        reader="NibabelIOWithReorient",
        masked=True,
        folds=2,
    ),
)

LEAST_AGREEMENT = 0.999


def main() -> int:
    """Compare all plans; 1 when labels differ in more than one voxel of a thousand."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60, help="training steps (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=[t.name for t in TASKS], metavar="NAME")
    arguments = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory(prefix="mimsegment-benchmark-") as scratch:
        folders = {v: str(Path(scratch) / v) for v in FOLDER_VARIABLES}
        os.environ.update(folders, nnUNet_n_proc_DA="1", nnUNet_def_n_proc="1")
        for number, task in enumerate(TASKS, start=801):
            if not arguments.only or task.name in arguments.only:
                with contextlib.redirect_stdout(sys.stderr):
                    results[task.name] = compare(task, number, Path(scratch), arguments.steps)
    print(json.dumps(results))
    return int(min(r["label_agreement"] for r in results.values()) < LEAST_AGREEMENT)


def compare(task: Task, number: int, scratch: Path, steps: int) -> dict:
    """Train with nnU-Net, predict with both; the figures of one plan."""
    dataset = f"Dataset{number}_{task.name}"
    write_dataset(task, scratch / "nnUNet_raw" / dataset)
    model = train(task, number, dataset, scratch, steps)
    files = write_case(
        task, scratch / task.name, "test", task.test_shape, task.test_spacing, 99, tilted=True
    )[:-1]
    ours = predict_with_package(model, files, scratch / f"{task.name}_package")
    result = figures(predict_with_nnunet(model, files, scratch / f"{task.name}_half"), ours)
    with full_precision():
        exact = figures(predict_with_nnunet(model, files, scratch / f"{task.name}_full"), ours)
    compared = ("label_agreement", "logit_max_difference")
    return {**result, **{f"full_precision_{key}": exact[key] for key in compared}}


@contextlib.contextmanager
def full_precision():
    """nnU-Net's sliding window with sums and weights that are not rounded to half precision."""
    import torch
    from nnunetv2.inference import predict_from_raw_data as module

    weights = module.compute_gaussian

    def compute_gaussian(*args, **options):
        return weights(*args, **{**options, "dtype": torch.float64})

    compute_gaussian.cache_clear = weights.cache_clear
    with (
        mock.patch.object(module, "compute_gaussian", compute_gaussian),
        mock.patch.object(torch, "half", torch.float32),
    ):
        yield


def figures(peer: dict, ours: dict) -> dict:
    """How near the two results are."""
    equal = peer["labels"] == ours["labels"]
    structure = (peer["labels"] > 0) | (ours["labels"] > 0)
    return {
        "label_agreement": round(float(equal.mean()), 6),
        "label_agreement_in_structures": round(float(equal[structure].mean()), 6),
        "structure_share": round(float(structure.mean()), 4),
        "preprocessed_max_difference": float(np.abs(peer["image"] - ours["image"]).max()),
        "logit_max_difference": float(np.abs(peer["logits"] - ours["logits"]).max()),
        "logit_range": float(np.ptp(peer["logits"])),
        "grid": list(peer["image"].shape[1:]),
        "patch": ours["patch"],
    }


def blobs(task: Task, shape, spacing, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An image (c, z, y, x) and its labels: two nested ellipsoids in noise, air around."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    size = np.array(shape) * spacing
    points = np.stack(
        np.meshgrid(*((np.arange(n) + 0.5) * s for n, s in zip(shape, spacing, strict=True)),
                    indexing="ij")
    )  # fmt: skip

    def ellipsoid(center, radius):
        offset = (points - np.reshape(center, (3, 1, 1, 1))) / np.reshape(radius, (3, 1, 1, 1))
        return (offset**2).sum(0) < 1

    body = ellipsoid(size / 2, size * 0.46)
    center = size / 2 + rng.uniform(-0.08, 0.08, 3) * size
    large, small = ellipsoid(center, size * 0.25), ellipsoid(center + 0.04 * size, size * 0.12)
    labels = (large * 1 + (large & small) * 1).astype(np.uint8)
    image = np.zeros((len(task.channels), *shape), np.float32)
    for channel, out in enumerate(image):
        tissue = np.choose(labels, [40 + 10 * channel, 120, 220 - 30 * channel]).astype(np.float32)
        texture = gaussian_filter(rng.normal(size=shape), 1) * 60
        out[...] = np.where(body, tissue + texture, 0 if task.masked else -900)
    if not task.masked:
        image[:, :2], image[:, :, -3:] = 0, 0  # padding that nnU-Net crops
    return image, labels


def write_case(task: Task, folder: Path, name: str, shape, spacing, seed: int, tilted=False):
    """Write one file for each channel and the labels; returns their paths."""
    import SimpleITK as sitk

    folder.mkdir(parents=True, exist_ok=True)
    image, labels = blobs(task, shape, spacing, seed)
    paths = []
    for index, array in enumerate((*np.round(image).astype(np.int16), labels)):
        last = index == len(image)
        path = folder / f"{name}{'' if last else f'_{index:04d}'}{task.file_ending}"
        out = sitk.GetImageFromArray(array)
        out.SetSpacing([float(s) for s in reversed(spacing)])
        if tilted:
            angle = 0.1
            c, s = np.cos(angle), np.sin(angle)
            out.SetDirection([c, -s, 0, s, c, 0, 0, 0, -1])
            out.SetOrigin((-30, 20, 100))
        sitk.WriteImage(out, str(path))
        paths.append(path)
    return paths


def write_dataset(task: Task, folder: Path) -> None:
    for index in range(CASES):
        *_, labels = write_case(
            task, folder / "imagesTr", f"case{index}", task.shape, task.spacing, index
        )
        (folder / "labelsTr").mkdir(exist_ok=True)
        labels.rename(folder / "labelsTr" / labels.name)
    description = {
        "channel_names": {str(i): name for i, name in enumerate(task.channels)},
        "labels": task.labels,
        "numTraining": CASES,
        "file_ending": task.file_ending,
        "overwrite_image_reader_writer": task.reader,
    }
    if task.regions:
        description["regions_class_order"] = list(task.regions)
    (folder / "dataset.json").write_text(json.dumps(description))


def train(task: Task, number: int, dataset: str, scratch: Path, steps: int) -> Path:
    """Plan with nnU-Net, shrink the network for the CPU, train, save with nnU-Net's trainer."""
    import torch
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.manual_seed(0)
    extract_fingerprints([number], num_processes=1, check_dataset_integrity=False)
    plans_name = plan_experiments([number], task.planner)
    preprocess([number], plans_name, (task.configuration,), (1,))
    plans = json.loads(
        (scratch / "nnUNet_preprocessed" / dataset / f"{plans_name}.json").read_text()
    )
    shrink(plans["configurations"][task.configuration])
    raw = json.loads((scratch / "nnUNet_raw" / dataset / "dataset.json").read_text())
    folder = None
    for fold in range(task.folds):
        settings = {**plans, "continue_training": False}
        trainer = nnUNetTrainer(settings, task.configuration, fold, raw, torch.device("cpu"))
        trainer.initialize()
        fit(trainer, task, steps)
        trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
        folder = Path(trainer.output_folder).parent
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(raw))
    return folder


def shrink(configuration: dict) -> None:
    """Few channels and blocks, and a patch smaller than the image, so that windows overlap."""
    options = configuration["architecture"]["arch_kwargs"]
    options["features_per_stage"] = [min(8 * 2**i, 32) for i in range(options["n_stages"])]
    if "n_blocks_per_stage" in options:
        options["n_blocks_per_stage"] = [1, 2] + [1] * (options["n_stages"] - 2)
    divisor = np.prod(options["strides"], axis=0)
    patch = np.array(configuration["patch_size"])
    smaller = np.maximum(patch * 2 // 3 // divisor, 1) * divisor
    smaller[0] = smaller[0] if smaller[0] > 4 else patch[0]
    configuration["patch_size"] = [int(n) for n in smaller]


def fit(trainer, task: Task, steps: int) -> None:
    """Plain steps on random crops of the cases as nnU-Net preprocessed them."""
    import torch

    patch = trainer.configuration_manager.patch_size
    stored = trainer.dataset_class(trainer.preprocessed_dataset_folder)
    cases = [[np.asarray(part[:]) for part in stored.load_case(c)[:2]] for c in stored.identifiers]
    trainer.set_deep_supervision_enabled(False)
    optimizer = torch.optim.Adam(trainer.network.parameters(), 3e-3)
    rng = np.random.default_rng(trainer.fold)
    for _ in range(steps):
        batch = [crop(*cases[rng.integers(CASES)], patch, rng) for _ in range(2)]
        images = torch.from_numpy(np.stack([b[0] for b in batch]))
        labels = torch.from_numpy(np.stack([b[1] for b in batch])).long().clamp(min=0)
        logits = trainer.network(images)
        if task.regions:
            regions = [v for v in task.labels.values() if v != 0]
            target = torch.stack([torch.isin(labels, torch.tensor(r)) for r in regions], 1).float()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
        else:
            loss = torch.nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"{task.name}: loss {float(loss):.4f}", file=sys.stderr)


def crop(image: np.ndarray, labels: np.ndarray, patch, rng) -> tuple[np.ndarray, np.ndarray]:
    """A random crop of ``patch``, padded where the image is smaller; one slice for 2D."""
    flat = len(patch) == 2
    size = (1, *patch) if flat else patch
    missing = [max(p - n, 0) for p, n in zip(size, image.shape[1:], strict=True)]
    pad = [(0, 0), *((0, m) for m in missing)]
    image, labels = np.pad(image, pad), np.pad(labels, pad)
    start = [rng.integers(n - p + 1) for n, p in zip(image.shape[1:], size, strict=True)]
    block = tuple(slice(s, s + p) for s, p in zip(start, size, strict=True))
    image, labels = image[(slice(None), *block)], labels[(0, *block)]
    return (image[:, 0], labels[0]) if flat else (image, labels)


def predict_with_nnunet(model: Path, files: list[Path], out: Path) -> dict:
    """Labels, preprocessed image and logits of nnU-Net's predictor, mirroring included."""
    import SimpleITK as sitk
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), None)
    out.mkdir()
    names = [str(f) for f in files]
    predictor.predict_from_files_sequential([names], [str(out / "labels")])
    preprocessor = predictor.configuration_manager.preprocessor_class(verbose=False)
    image = preprocessor.run_case(
        names,
        None,
        predictor.plans_manager,
        predictor.configuration_manager,
        predictor.dataset_json,
    )[0]
    logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(image))
    result = next(out.glob("labels.*"))
    return {
        "labels": sitk.GetArrayFromImage(sitk.ReadImage(str(result))),
        "image": image,
        "logits": logits.float().numpy(),
    }


def predict_with_package(model: Path, files: list[Path], package: Path) -> dict:
    """The same of the converted package and our engine."""
    import export
    from MIMSegment.Logic.engine import predict_planes, segment
    from MIMSegment.Logic.package import load_package
    from MIMSegment.Logic.preprocess import prepare
    from MIMSegment.Logic.runtime import OnnxSession
    from MIMSegment.Logic.volume import Volume, read_volume

    if export.main(["--from-nnunet", str(model), str(package), "--license", "none"]):
        raise SystemExit("conversion failed")
    package = load_package(package)
    sessions = [OnnxSession(path) for path in package.model_paths]
    volumes = [read_volume(file) for file in files]
    volume = Volume(np.concatenate([v.array for v in volumes]), volumes[0].geometry)
    image, _ = prepare(volume, package.spec.preprocessing)
    planes = list(predict_planes(image, package.spec, sessions))
    return {
        "labels": segment(volume, package.spec, sessions).labels,
        "image": image,
        "logits": np.stack(planes, axis=1),
        "patch": list(package.spec.patch),
    }


if __name__ == "__main__":
    sys.exit(main())
