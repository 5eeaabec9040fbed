"""From a fine-tuning checkpoint to a verified model package."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import tempfile
import warnings
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import torch

from mim import architectures
from mim.checkpoint import CheckpointError, load_checkpoint, trained_weights
from mim.data import read_cache
from mim.evaluation import model_spec
from mim.onnx_export import Agreement, export_onnx, verify_onnx
from mim.onnx_half import round_to_half, store_half
from mim.plausibility_ranges import for_inputs, known_expectations
from mim.reconstruction_export import export_reconstruction
from MIMSegment.Logic.expectations import Expectations
from MIMSegment.Logic.labels import Label, default_color, labels_from_csv
from MIMSegment.Logic.package import METADATA, ModelPackage, write_package
from MIMSegment.Logic.spec import ModelSpec

# The address that MONAI's bundles name; verification uses our copy of its rules, without a network.
SCHEMA_URL = "https://project-monai.github.io/schema/meta_schema_20240725.json"
SCHEMA = Path(__file__).with_name("bundle_schema.json")


@dataclass(frozen=True)
class ExportOptions:
    """What `export.py` lets one choose."""

    id: str | None = None
    title: str | None = None
    version: str = "1.0.0"
    authors: str = "unknown"
    license: str = "unknown"
    labels: str | None = None
    phantom: bool = False
    half_weights: bool = False
    reconstruction: str | None = None


def export_checkpoint(checkpoint: str | Path, folder: str | Path, options: ExportOptions) -> str:
    """Write and verify the package; returns the lines to show.

    Raises CheckpointError, ExportError, PackageError or OutputError.
    """
    checkpoint, folder = Path(checkpoint), Path(folder)
    content = load_checkpoint(checkpoint)
    metadata = content["metadata"]
    if metadata["kind"] != "segmentation":
        raise CheckpointError(
            f"{checkpoint} is a {metadata['kind']} checkpoint; fine-tune it with finetune.py first."
        )
    network = architectures.build(inference_config(metadata["network"]))
    network.load_state_dict(trained_weights(content))
    plan, results = metadata["plan"], _results(checkpoint)
    spec = _spec_with_provenance(plan, metadata)
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model.onnx"
        files = {spec.models[0]: model}
        if options.half_weights:
            round_to_half(network)
        export_onnx(network, len(spec.inputs), spec.patch, network.divisor, model)
        if options.half_weights:
            store_half(model)
        agreement = verify_onnx(network, model, _test_tiles(spec))
        expectations = _expectations(metadata, options, Path(scratch), files)
        title = options.title or plan["name"]
        package = write_package(
            folder,
            options.id or re.sub(r"[^a-z0-9._-]+", "-", folder.name.lower()).strip("-."),
            title,
            spec,
            _labels(checkpoint, plan, metadata, options),
            files,
            model_card(title, spec, plan, results, options),
            f"{options.license}\n",
            bundle_metadata(title, spec, plan, results, options),
            options.phantom,
            expectations,
        )
    verify_metadata(package)
    return _summary(package, agreement)


def inference_config(config: dict) -> dict:
    """The configuration with the finest output alone, the only one that is asked for then."""
    return {**config, "deep_supervision": False} if "deep_supervision" in config else config


def bundle_metadata(title: str, spec: ModelSpec, plan: dict, results: dict, options) -> dict:
    """The fields that MONAI's schema for bundles asks for."""
    import monai

    names = {label["value"]: label["name"] for label in plan["labels"]}
    common = {"spatial_shape": list(spec.patch), "dtype": "float32", "is_patch_data": True}
    return {
        "schema": SCHEMA_URL,
        "version": options.version,
        "changelog": {options.version: "exported"},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {},
        "optional_packages_version": {"onnxruntime": "1.23.0"},
        "task": f"Segmentation: {', '.join(names.values())}",
        "description": f"{title}: residual encoder U-Net for 3D images.",
        "authors": options.authors,
        "copyright": f"Copyright (c) {options.authors}",
        "intended_use": "Research only. Not a medical device.",
        "eval_metrics": {"mean_dice": results["dice_mean"]} if results.get("cases") else {},
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "modality": "/".join(dict.fromkeys(i.modality for i in spec.inputs)),
                    "num_channels": len(spec.inputs),
                    "value_range": [],
                    **common,
                    "channel_def": {str(n): i.name for n, i in enumerate(spec.inputs)},
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "labels",
                    "num_channels": len(spec.channel_labels),
                    "value_range": [],
                    **common,
                    "channel_def": {
                        str(n): names.get(v, "background")
                        for n, v in enumerate(spec.channel_labels)
                    },
                }
            },
        },
    }


def model_card(title: str, spec: ModelSpec, plan: dict, results: dict, options) -> str:
    """Plain words on what the model is, what it was trained on and how good it was."""
    lines = [
        f"# {title}",
        "",
        "Research use only. Not a medical device.",
        "",
        f"- Inputs: {', '.join(f'{i.name} ({i.modality})' for i in spec.inputs)}",
        f"- Structures: {', '.join(label['name'] for label in plan['labels'])}",
        f"- Working voxel size: {spec.preprocessing.spacing} mm (z, y, x)",
        f"- Trained on: {plan['name']}, {results.get('training_subjects', '?')} subjects",
        f"- Licence of the weights: {options.license}",
        f"- Exported: {date.today().isoformat()}",
        "",
    ]
    if options.phantom:
        lines += ["**Trained on digital phantoms. It must not be used on people.**", ""]
    if results.get("cases"):
        low, high = results["dice_ci95"]
        lines += [
            f"Mean Dice on {results['cases']} held-back images of {results['subjects']} subjects: "
            f"{results['dice_mean']:.3f} (95 % interval {low:.3f} to {high:.3f}).",
            "",
        ]
    lines.append("Not validated on scanners, protocols or patients other than the above.")
    return "\n".join(lines) + "\n"


def verify_metadata(package: ModelPackage) -> None:
    """MONAI's own check of a bundle's metadata, against a local copy of the schema's rules."""
    from monai.bundle import verify_metadata as check

    quiet = contextlib.redirect_stdout(io.StringIO())
    with quiet, warnings.catch_warnings(), _silenced("monai.apps", "monai.bundle.scripts"):
        warnings.simplefilter("ignore")
        check(meta_file=str(package.path / METADATA), filepath=str(SCHEMA))


@contextlib.contextmanager
def _silenced(*loggers: str):
    """MONAI's loggers print every argument."""
    before = [(logging.getLogger(name), logging.getLogger(name).disabled) for name in loggers]
    try:
        for logger, _ in before:
            logger.disabled = True
        yield
    finally:
        for logger, disabled in before:
            logger.disabled = disabled


def _spec_with_provenance(plan: dict, metadata: dict) -> ModelSpec:
    spec = model_spec(plan).to_dict()
    recipe = metadata["recipe"]
    spec["provenance"] = {
        "data": plan["name"],
        "recipe_hash": metadata["recipe_hash"],
        "steps": metadata["step"],
        "pretrained": bool(recipe.get("pretrained")),
    }
    return ModelSpec.from_dict(json.loads(json.dumps(spec)), "the checkpoint's plan")


def _expectations(
    metadata: dict, options: ExportOptions, scratch: Path, files: dict
) -> Expectations | None:
    """The ranges of the training data; with --reconstruction its network is added to ``files``."""
    plan, folder = metadata["plan"], metadata["recipe"]["cache"]
    expectations = known_expectations(metadata["fingerprint"], folder)
    if expectations is not None:
        expectations = for_inputs(expectations, plan["inputs"])
    if options.reconstruction is None:
        return expectations
    path = scratch / "reconstruction.onnx"
    known = export_reconstruction(
        options.reconstruction,
        read_cache(folder),
        plan["preprocessing"],
        path,
        options.half_weights,
    )
    files[known.model] = path
    return replace(expectations or Expectations(), reconstruction=known)


def _labels(checkpoint: Path, plan: dict, metadata: dict, options: ExportOptions) -> list[Label]:
    """From --labels, else the cache's labels.csv, else the plan's names."""
    path = Path(options.labels or Path(metadata["recipe"]["cache"]) / "labels.csv")
    if options.labels or path.is_file():
        return labels_from_csv(path.read_text(encoding="utf-8"), str(path))
    return [
        Label(item["value"], item["name"], color=default_color(item["value"]))
        for item in plan["labels"]
    ]


def _test_tiles(spec: ModelSpec) -> list[np.ndarray]:
    """Smooth and rough noise of the size of normalized intensities, one and two at a time."""
    rng = np.random.default_rng(0)
    rough = rng.normal(size=(1, len(spec.inputs), *spec.patch)).astype(np.float32)
    smooth = np.cumsum(rng.normal(size=(2, len(spec.inputs), *spec.patch)), axis=-1)
    return [rough, (smooth / smooth.std()).astype(np.float32)]


def _results(checkpoint: Path) -> dict:
    path = checkpoint.with_name("results.json")
    return json.loads(path.read_text()) if path.is_file() else {}


def _summary(package: ModelPackage, agreement: Agreement) -> str:
    size = sum(path.stat().st_size for path in package.model_paths) / 1e6
    return (
        f"{_checks(package.expectations)}\n"
        f"ONNX against PyTorch: largest difference {agreement.max_difference:.1e}, same label in "
        f"{agreement.label_agreement:.4%} of voxels.\n"
        "MONAI's verify_metadata: no error.\n"
        f"Wrote {package.path} ({package.id} {package.version}, {size:.1f} MB)"
    )


def _checks(expectations: Expectations) -> str:
    """A line on what the package's plausibility checks know."""
    if not expectations.images:
        return "Plausibility: no ranges, as the cache is not there any more or is older than they."
    line = f"Plausibility: ranges of {expectations.images} training images"
    known = expectations.reconstruction
    if known is None:
        return f"{line}, no reconstruction network."
    low, median, high = (f"{100 * error:.0f} %" for error in known.errors)
    return (
        f"{line}; the reconstruction network misses {median} of what is hidden from it "
        f"({low} to {high} on {known.images} held-back images)."
    )
