"""From fine-tuning checkpoints to a verified model package."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mim.agreement import ExportError
from mim.bundle import NETWORKS, ExportOptions, bundle_metadata, model_card
from mim.classifier_export import export_classifier
from mim.ensemble import Member, provenance_of, read_members, results_together, seen_by
from mim.evaluation import model_spec
from mim.folds import cache_of
from mim.mirroring import flipped_axes, mirroring_in_words
from mim.network_files import trained_network, verified_lines, write_networks
from mim.plausibility_ranges import for_inputs, known_expectations
from mim.postprocessing import groups_in_words, named_groups
from mim.reconstruction_export import export_reconstruction
from mim.regions import output_labels
from mim.statistics import span
from MIMSegment.Logic.expectations import Expectations
from MIMSegment.Logic.labels import Label, default_color, labels_from_csv
from MIMSegment.Logic.package import write_package
from MIMSegment.Logic.spec import ModelSpec


def export_checkpoints(
    checkpoints: Sequence[str | Path], folder: str | Path, options: ExportOptions
) -> str:
    """Write and verify the package of a fine-tuned network, or of several that segment together.

    Returns the lines to show. Raises CheckpointError, ExportError, PackageError or OutputError.
    """
    members, folder = read_members(checkpoints), Path(folder)
    if members[0].metadata["kind"] == "classification":
        for asked, option in (
            (options.mirror, "--mirror"),
            (options.keep_largest_component, "--keep-largest-component"),
        ):
            if asked:
                raise ExportError(f"{members[0].path} classifies; {option} is for segmentation.")
        return export_classifier(members[0].content, members[0].results, folder, options)
    return _export_segmenters(members, folder, options)


def _export_segmenters(members: Sequence[Member], folder: Path, options: ExportOptions) -> str:
    metadata, results = members[0].metadata, results_together(members)
    plan, title = metadata["plan"], options.title or metadata["plan"]["name"]
    labels = _labels(plan, metadata, options)
    spec = replace(
        _spec(members, flipped_axes(members) if options.mirror else ()),
        keep_largest_component=named_groups(options.keep_largest_component, labels),
    )
    words = NETWORKS[metadata["network"].get("name", "resenc_unet")]
    with tempfile.TemporaryDirectory() as scratch:
        files, agreements = {}, {}
        for member, name in zip(members, spec.models, strict=True):
            written, found = write_networks(
                trained_network(member.content),
                len(spec.inputs),
                spec.patch[3 - spec.dims :],
                Path(scratch),
                options,
                several=spec.head == "regions",
                name=name.removesuffix(".onnx"),
            )
            files |= written
            agreements |= found
        expectations = _expectations(metadata, options, Path(scratch), files)
        package = write_package(
            folder,
            options.identifier(folder),
            title,
            spec,
            labels,
            files,
            segmentation_card(title, spec, plan, results, options),
            f"{options.license}\n",
            segmentation_metadata(title, spec, plan, results, words, options),
            options.phantom,
            expectations,
            seen_by(members),
        )
    lines = verified_lines(package, agreements, "voxels")
    return "\n".join([_checks(package.expectations), *lines])


def segmentation_metadata(
    title: str, spec: ModelSpec, plan: dict, results: dict, network: str, options: ExportOptions
) -> dict:
    """The fields that MONAI's schema for bundles asks for."""
    names = output_labels(plan)
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
        f"Structures: {', '.join(output_labels(plan).values())}",
        f"Working voxel size: {spec.preprocessing.spacing} mm (z, y, x)",
    ]
    several = len(spec.models) > 1
    if several:
        facts += [f"Networks: {len(spec.models)}, whose outputs are averaged"]
    if spec.mirror_axes:
        facts += [mirroring_in_words(spec.mirror_axes)]
    if spec.keep_largest_component:
        facts += [groups_in_words(spec.keep_largest_component, output_labels(plan))]
    trained = results.get("training_subjects")
    facts += [f"Trained on: {plan['name']}" + (f", {trained} subjects" if trained else "")]
    measured = ""
    if results.get("cases"):
        without = [
            *["mirroring"] * bool(spec.mirror_axes),
            *["post-processing"] * bool(spec.keep_largest_component),
        ]
        measured = (
            f"Mean Dice on {results['cases']} held-back images of {results['subjects']} subjects: "
            f"{results['dice_mean']:.3f} (95 % interval {span(*results['dice_ci95'])})"
            + ("; of single networks, not of their average" if several else "")
            + (f"; without {' and '.join(without)}." if without else ".")
        )
    return model_card(title, spec.inputs, facts, measured, options)


def _spec(members: Sequence[Member], mirror_axes: Sequence[int]) -> ModelSpec:
    """The specification of the plan that all share, with a file for each network."""
    names = [f"models/model_{number}.onnx" for number in range(len(members))]
    spec = {
        **model_spec(members[0].metadata["plan"]).to_dict(),
        "models": names if len(members) > 1 else ["models/model.onnx"],
        "mirror_axes": mirror_axes,
        "provenance": provenance_of(members),
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
        Label(value, name, color=default_color(value))
        for value, name in output_labels(plan).items()
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
