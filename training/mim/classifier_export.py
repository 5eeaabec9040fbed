"""From a fine-tuned classifier to a verified package."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from mim.bundle import NETWORKS, ExportOptions, bundle_metadata, model_card, provenance
from mim.classifier_package import KIND, ClassifierSpec, load_classifier
from mim.network_files import trained_network, verified_lines, write_networks
from mim.statistics import span
from MIMSegment.Logic.package import write_bundle


def export_classifier(content: dict, results: dict, folder: Path, options: ExportOptions) -> str:
    """Write the package of a checkpoint's ``content``; ``results`` is results.json of its run.

    Returns the lines to show. Raises ExportError, PackageError or OutputError.
    """
    metadata = content["metadata"]
    network, spec = trained_network(content), _spec(metadata)
    title = options.title or metadata["plan"]["name"]
    words = NETWORKS[metadata["network"]["name"]]
    ours = {
        "kind": KIND,
        "id": options.identifier(folder),
        "title": title,
        "phantom": options.phantom,
        "model": spec.to_dict(),
        "training_images": list(metadata.get("seen", ())),
    }
    with tempfile.TemporaryDirectory() as scratch:
        files, agreements = write_networks(
            network, len(spec.inputs), spec.shape, Path(scratch), options, several=spec.multi_label
        )
        texts = {
            "docs/README.md": _card(title, spec, metadata["plan"], results, options),
            "LICENSE": f"{options.license}\n",
        }
        monai = _metadata(title, spec, words, results, options)
        package = write_bundle(folder, files, texts, ours, monai, load_classifier)
    return "\n".join(verified_lines(package, agreements, "images"))


def _spec(metadata: dict) -> ClassifierSpec:
    plan = metadata["plan"]
    spec = {
        "inputs": plan["inputs"],
        "preprocessing": plan["preprocessing"],
        "patch": plan["patch"],
        "classes": plan["classes"],
        "multi_label": plan["multi_label"],
        "dims": plan["dims"],
        "provenance": provenance(metadata),
    }
    return ClassifierSpec.from_dict(json.loads(json.dumps(spec)), "the checkpoint's plan")


def _metadata(
    title: str, spec: ClassifierSpec, words: str, results: dict, options: ExportOptions
) -> dict:
    prediction = {
        "type": "probabilities",
        "format": "classes",
        "num_channels": len(spec.classes),
        "spatial_shape": [],
        "is_patch_data": False,
        "channel_def": {str(n): name for n, name in enumerate(spec.classes)},
    }
    metrics = {"mean_auc": results["auc_mean"]} if results.get("cases") else {}
    task = f"Classification: {', '.join(spec.classes)}"
    return bundle_metadata(
        title, options, task, words, spec.inputs, spec.shape, prediction, metrics
    )


def _card(
    title: str, spec: ClassifierSpec, plan: dict, results: dict, options: ExportOptions
) -> str:
    kind = "findings, each there or not" if spec.multi_label else "classes, one of them"
    size = " x ".join(map(str, spec.shape))
    voxels = f"voxels of {spec.preprocessing['spacing']} mm" if spec.dims == 3 else "pixels"
    facts = [
        f"Tells apart ({kind}): {', '.join(spec.classes)}",
        f"Looks at the middle {size} {voxels}; returns logits",
        f"Trained on: {plan['name']}, {results.get('training_subjects', '?')} subjects",
    ]
    return model_card(title, spec.inputs, facts, _measured(results), options)


def _measured(results: dict) -> str:
    if not results.get("cases"):
        return ""
    areas = [
        f"{name} {found['auc']:.3f} ({span(*found['ci95'])})"
        for name, found in results["auc_per_class"].items()
    ]
    return (
        f"AUC on {results['cases']} held-back images of {results['subjects']} subjects, with "
        f"DeLong's 95 % interval: {', '.join(areas)}."
    )
