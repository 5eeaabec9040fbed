"""From a fine-tuning checkpoint to a verified model package."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

from mim.bundle import (
    NETWORKS,
    ExportOptions,
    bundle_metadata,
    model_card,
    provenance,
    results_of,
)
from mim.checkpoint import CheckpointError, load_checkpoint
from mim.classifier_export import export_classifier
from mim.evaluation import model_spec
from mim.folds import cache_of
from mim.network_files import trained_network, verified_lines, write_networks
from mim.plausibility_ranges import for_inputs, known_expectations
from mim.reconstruction_export import export_reconstruction
from MIMSegment.Logic.expectations import Expectations
from MIMSegment.Logic.labels import Label, default_color, labels_from_csv
from MIMSegment.Logic.package import write_package
from MIMSegment.Logic.spec import ModelSpec


def export_checkpoint(checkpoint: str | Path, folder: str | Path, options: ExportOptions) -> str:
    """Write and verify the package of a fine-tuned network; returns the lines to show.

    Raises CheckpointError, ExportError, PackageError or OutputError.
    """
    checkpoint, folder = Path(checkpoint), Path(folder)
    content = load_checkpoint(checkpoint)
    kind = content["metadata"]["kind"]
    if kind == "classification":
        return export_classifier(content, results_of(checkpoint), folder, options)
    if kind != "segmentation":
        raise CheckpointError(
            f"{checkpoint} is a {kind} checkpoint; fine-tune it with finetune.py first."
        )
    return _export_segmenter(content, checkpoint, folder, options)


def _export_segmenter(content: dict, checkpoint: Path, folder: Path, options: ExportOptions) -> str:
    metadata, results = content["metadata"], results_of(checkpoint)
    plan, title = metadata["plan"], options.title or metadata["plan"]["name"]
    network, spec = trained_network(content), _spec_with_provenance(plan, metadata)
    words = NETWORKS[metadata["network"].get("name", "resenc_unet")]
    with tempfile.TemporaryDirectory() as scratch:
        files, agreements = write_networks(
            network,
            len(spec.inputs),
            spec.patch[3 - spec.dims :],
            Path(scratch),
            options,
            several=spec.head == "regions",
        )
        expectations = _expectations(metadata, options, Path(scratch), files)
        package = write_package(
            folder,
            options.identifier(folder),
            title,
            spec,
            _labels(plan, metadata, options),
            files,
            segmentation_card(title, spec, plan, results, options),
            f"{options.license}\n",
            segmentation_metadata(title, spec, plan, results, words, options),
            options.phantom,
            expectations,
            metadata.get("seen", ()),
        )
    lines = verified_lines(package, agreements, "voxels")
    return "\n".join([_checks(package.expectations), *lines])


def segmentation_metadata(
    title: str, spec: ModelSpec, plan: dict, results: dict, network: str, options: ExportOptions
) -> dict:
    """The fields that MONAI's schema for bundles asks for."""
    names = {label["value"]: label["name"] for label in plan["labels"]}
    channels = {str(n): names.get(v, "background") for n, v in enumerate(spec.channel_labels)}
    shape = spec.patch[3 - spec.dims :]
    prediction = {
        "type": "image",
        "format": "labels",
        "num_channels": len(channels),
        "spatial_shape": list(shape),
        "is_patch_data": True,
        "channel_def": channels,
    }
    return bundle_metadata(
        title,
        options,
        f"Segmentation: {', '.join(names.values())}",
        network,
        spec.inputs,
        shape,
        prediction,
        {"mean_dice": results["dice_mean"]} if results.get("cases") else {},
    )


def segmentation_card(
    title: str, spec: ModelSpec, plan: dict, results: dict, options: ExportOptions
) -> str:
    """The model card: structures, working voxel size, training data, Dice."""
    facts = [
        f"Structures: {', '.join(label['name'] for label in plan['labels'])}",
        f"Working voxel size: {spec.preprocessing.spacing} mm (z, y, x)",
        f"Trained on: {plan['name']}, {results.get('training_subjects', '?')} subjects",
    ]
    measured = ""
    if results.get("cases"):
        low, high = results["dice_ci95"]
        measured = (
            f"Mean Dice on {results['cases']} held-back images of {results['subjects']} subjects: "
            f"{results['dice_mean']:.3f} (95 % interval {low:.3f} to {high:.3f})."
        )
    return model_card(title, spec.inputs, facts, measured, options)


def _spec_with_provenance(plan: dict, metadata: dict) -> ModelSpec:
    spec = {**model_spec(plan).to_dict(), "provenance": provenance(metadata)}
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
        cache_of(folder, metadata["recipe"].get("fold", "")),
        plan["preprocessing"],
        path,
        options.half_weights,
    )
    files[known.model] = path
    return replace(expectations or Expectations(), reconstruction=known)


def _labels(plan: dict, metadata: dict, options: ExportOptions) -> list[Label]:
    """From --labels, else the cache's labels.csv, else the plan's names."""
    path = Path(options.labels or Path(metadata["recipe"]["cache"]) / "labels.csv")
    if options.labels or path.is_file():
        return labels_from_csv(path.read_text(encoding="utf-8"), str(path))
    return [
        Label(item["value"], item["name"], color=default_color(item["value"]))
        for item in plan["labels"]
    ]


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
