"""From a trained model of nnU-Net v2 to a verified model package.

The package carries nnU-Net's preprocessing, sliding window (half-patch steps, mirroring as trained)
and label rules, so that the engine gives what nnU-Net's own predictor gives. Isensee et al.,
Nature Methods 2021; nnU-Net 2.8.1.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mim.agreement import Agreement
from mim.bundle import ExportOptions
from mim.exporting import segmentation_card, segmentation_metadata
from mim.network_files import verified_lines, write_networks
from mim.nnunet_plans import (
    Head,
    NnunetError,
    Plans,
    read_head,
    read_inputs,
    read_patch,
    read_plans,
    read_preprocessing,
)
from mim.nnunet_weights import (
    Architecture,
    Checkpoint,
    build,
    find_folds,
    load_checkpoint,
    read_architecture,
)
from mim.postprocessing import Groups, named_groups, read_nnunet_postprocessing
from MIMSegment.Logic.labels import Label, labels_from_csv
from MIMSegment.Logic.package import write_package
from MIMSegment.Logic.spec import ModelSpec

CHECKPOINT = "checkpoint_final.pth"


@dataclass(frozen=True)
class NnunetModel:
    """A trained-model folder, read and understood; ``checkpoints`` of several folds are one
    ensemble."""

    plans: Plans
    head: Head
    spec: ModelSpec
    architecture: Architecture
    checkpoints: tuple[Path, ...]
    trainer: str


def export_nnunet(
    model_folder: str | Path,
    package_folder: str | Path,
    options: ExportOptions,
    folds: Sequence[str] = (),
    checkpoint: str = CHECKPOINT,
) -> str:
    """Write and verify a package of the model in ``model_folder``; returns the lines to show.

    ``folds`` names folds ("0", "all"), by default all numbered ones; ``checkpoint`` the file in
    each of them. Raises NnunetError, ExportError, PackageError or OutputError.
    """
    package_folder = Path(package_folder)
    model = read_model(model_folder, folds, checkpoint)
    labels = _labels(model, options)
    model = replace(
        model,
        spec=replace(model.spec, keep_largest_component=_postprocessing(model, labels, options)),
    )
    plan = {
        "name": model.plans.dataset_name,
        "labels": [{"value": label.value, "name": label.name} for label in model.head.labels],
    }
    title = options.title or plan["name"]
    words = f"{model.architecture.name} trained with nnU-Net v2"
    metadata = segmentation_metadata(title, model.spec, plan, {}, words, options)
    with tempfile.TemporaryDirectory() as scratch:
        files, agreements = {}, {}
        for path, name in zip(model.checkpoints, model.spec.models, strict=True):
            written, found = _export_fold(model, path, name, Path(scratch), options)
            files |= written
            agreements |= found
        package = write_package(
            package_folder,
            options.identifier(package_folder),
            title,
            model.spec,
            labels,
            files,
            _card(model, title, plan, options),
            f"{options.license}\n",
            metadata,
            options.phantom,
        )
    return _summary(model, verified_lines(package, agreements, "voxels"))


def read_model(
    folder: str | Path, folds: Sequence[str] = (), checkpoint: str = CHECKPOINT
) -> NnunetModel:
    """Read everything but the weights. Raises NnunetError for what cannot be converted."""
    plans = read_plans(folder)
    paths = find_folds(plans.folder, checkpoint, folds)
    first = load_checkpoint(paths[0])
    try:
        return _understand(plans, paths, first)
    except (TypeError, ValueError, AttributeError) as error:
        raise NnunetError(
            f"{plans.folder}: plans.json or dataset.json has a field of the wrong type ({error}); "
            "use the files that the model was trained with."
        ) from None


def _understand(plans: Plans, paths: Sequence[Path], first: Checkpoint) -> NnunetModel:
    configuration = plans.configuration(first.configuration)
    head = read_head(plans)
    source = plans.folder / "plans.json"
    patch = read_patch(plans, configuration)
    missing = 3 - len(patch)
    spec = {
        "inputs": read_inputs(plans, configuration),
        "preprocessing": read_preprocessing(plans, configuration),
        "patch": (1,) * missing + patch,
        "channel_labels": head.channel_labels,
        "head": head.kind,
        "overlap": 0.5,
        "mirror_axes": tuple(axis + missing for axis in first.mirror_axes),
        "dims": len(patch),
        "models": _model_names(paths),
        "provenance": _provenance(plans, first, paths),
    }
    return NnunetModel(
        plans,
        head,
        ModelSpec.from_dict(json.loads(json.dumps(ModelSpec(**spec).to_dict())), str(source)),
        read_architecture(configuration, len(patch), source),
        tuple(paths),
        first.trainer,
    )


def _export_fold(
    model: NnunetModel, path: Path, name: str, scratch: Path, options: ExportOptions
) -> tuple[dict[str, Path], dict[str, Agreement]]:
    spec, checkpoint = model.spec, load_checkpoint(path)
    planned = spec.provenance["configuration"]
    if checkpoint.configuration != planned:
        raise NnunetError(
            f"{path} was trained as {checkpoint.configuration}, the first fold as {planned}; an "
            "ensemble needs one configuration."
        )
    network = build(model.architecture, checkpoint, len(spec.inputs), len(spec.channel_labels))
    patch = spec.patch[3 - spec.dims :]
    several, name = spec.head == "regions", name.removesuffix(".onnx")
    return write_networks(
        network, len(spec.inputs), patch, scratch, options, several=several, name=name
    )


def _model_names(paths: Sequence[Path]) -> tuple[str, ...]:
    if len(paths) == 1:
        return ("models/model.onnx",)
    return tuple(f"models/{path.parent.name}.onnx" for path in paths)


def _provenance(plans: Plans, checkpoint: Checkpoint, paths: Sequence[Path]) -> dict:
    return {
        "framework": "nnU-Net v2",
        "data": plans.dataset_name,
        "trainer": checkpoint.trainer,
        "plans": str(plans.plans.get("plans_name", "")),
        "configuration": checkpoint.configuration,
        "folds": [path.parent.name.removeprefix("fold_") for path in paths],
        "checkpoint": paths[0].name,
    }


def _labels(model: NnunetModel, options: ExportOptions) -> list[Label]:
    if options.labels is None:
        return list(model.head.labels)
    try:
        text = Path(options.labels).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise NnunetError(f"{options.labels} cannot be read as text ({error}).") from None
    return labels_from_csv(text, options.labels)


def _postprocessing(model: NnunetModel, labels: Sequence[Label], options: ExportOptions) -> Groups:
    """First what nnU-Net found to be better, then what was asked for."""
    groups = named_groups(options.keep_largest_component, labels)
    if options.postprocessing is None:
        return groups
    return (*read_nnunet_postprocessing(options.postprocessing, model.head.labels), *groups)


def _card(model: NnunetModel, title: str, plan: dict, options: ExportOptions) -> str:
    provenance = model.spec.provenance
    return segmentation_card(title, model.spec, plan, {}, options) + (
        f"\nConverted from nnU-Net v2: {provenance['trainer']}, {provenance['configuration']}, "
        f"folds {', '.join(provenance['folds'])}. Please cite Isensee et al., nnU-Net, "
        "Nature Methods 18, 203-211 (2021), and the authors of the weights.\n"
    )


def _summary(model: NnunetModel, verified: Sequence[str]) -> str:
    inputs = ", ".join(f"{item.name} ({item.modality})" for item in model.spec.inputs)
    lines = [
        f"nnU-Net {model.architecture.name}, {model.spec.provenance['configuration']}, "
        f"{len(model.checkpoints)} fold(s); inputs: {inputs}.",
        *verified,
    ]
    found = sorted(model.plans.folder.glob("crossval_results_folds_*/postprocessing.json"))
    if found and not model.spec.keep_largest_component:
        lines.append(
            "nnU-Net's own post-processing is not part of the package; it would be with "
            f"--postprocessing {found[0]}"
        )
    if model.trainer != "nnUNetTrainer":
        lines.insert(
            1,
            f"Trained by {model.trainer}: its weights fit the planned network; if it changes "
            "layers without weights, compare a case with nnU-Net before use.",
        )
    return "\n".join(lines)
