"""Measuring a package that segments on a data set with labels."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mim.cases import Case, Dataset, find_dataset, say_left_out, with_names
from mim.evaluation import where_known
from mim.lesion_metrics import CaseDetections, average_precision, froc, match_by_size
from mim.protocols import Protocol
from mim.seen import TrainingImageCheck
from mim.segmentation_metrics import structure_metrics
from mim.structures import Structures, Values, structures_of
from MIMSegment.Logic.engine import Segmentation
from MIMSegment.Logic.errors import GeometryError, InputError, MIMSegmentError
from MIMSegment.Logic.files import make_folder
from MIMSegment.Logic.inference import InferenceOptions, run_package
from MIMSegment.Logic.package import ModelPackage
from MIMSegment.Logic.segmentation_file import write_segmentation
from MIMSegment.Logic.volume import read_volume

Save = Callable[[Case, Segmentation], None]


@dataclass(frozen=True)
class EvaluationOptions:
    """What is measured, and how.

    ``cases`` keeps those with these names, a ``protocol`` those with its numbers; ``tolerance`` of
    the surface Dice is in mm; ``lesions`` names the structure whose connected parts are measured as
    objects; ``with_training`` measures cases that the package has learnt from as well.
    """

    protocol: Protocol | None = None
    cases: tuple[str, ...] = ()
    tolerance: float = 2.0
    lesions: str | None = None
    with_training: bool = False
    inference: InferenceOptions = InferenceOptions()


@dataclass
class Measured:
    """What was measured on which cases: (case, subject, metrics by structure) of every case, and
    its lesions if asked for. ``missing`` are numbers of a protocol's cases that there were not,
    ``failed`` the cases that could not be measured, and why."""

    structures: Structures
    learnt: TrainingImageCheck
    cases: list[tuple[str, str, dict]] = field(default_factory=list)
    detections: list[CaseDetections] = field(default_factory=list)
    missing: tuple[int, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)


def evaluate_package(
    package: ModelPackage,
    data: str | Path,
    options: EvaluationOptions,
    save: Save = lambda case, found: None,
) -> Measured:
    """Segment the labelled cases of ``data`` and measure them; ``save`` gets each result.

    A case that cannot be read, or fails, does not stop the others. Raises InputError when no case
    is left, there is no such structure or the protocol does not understand the data set's labels.
    """
    dataset, lesions = find_dataset(data), None
    say_left_out(dataset)
    if options.protocol:
        structures = options.protocol.for_package(package, dataset)
    else:
        structures = structures_of(package, dataset)
    if options.lesions:
        lesions = _lesion_values(options.lesions, package, dataset)
    learnt = TrainingImageCheck(package.metadata, options.with_training)
    cases = _chosen(dataset, options)
    measured = Measured(structures, learnt, missing=_missing(cases, options.protocol))
    for case in tqdm(cases, "evaluate", unit="case"):
        try:
            _measure(case, package, dataset.ignore, options, lesions, measured, save)
        except MIMSegmentError as error:
            measured.failed[case.id] = str(error)
    learnt.require_others(len(cases), data)
    if not measured.cases:
        raise InputError(f"No case of {data} could be measured: {_first(measured.failed)}")
    return measured


def _measure(
    case: Case,
    package: ModelPackage,
    ignore: int | None,
    options: EvaluationOptions,
    lesions: tuple[Values, Values] | None,
    measured: Measured,
    save: Save,
) -> None:
    """Add a case to ``measured``, unless the package has learnt from it."""
    volume, label = case.read(), read_volume(case.label)
    if not volume.geometry.is_close(label.geometry):
        raise GeometryError(f"{case.label} does not lie on the grid of {case.image}.")
    if not measured.learnt.admits(case, volume):
        return
    found = run_package(volume, package, options.inference)
    save(case, found)
    truth, structures = label.array[0], measured.structures
    labels = where_known(found.labels, truth, ignore)
    spacing, tolerance = volume.geometry.spacing, options.tolerance
    metrics = structure_metrics(
        labels, truth, structures.found, spacing, tolerance, structures.truth
    )
    measured.cases.append((case.id, case.subject or case.id, metrics))
    if lesions:
        pair = zip((labels, truth), lesions, strict=True)
        measured.detections.append(match_by_size(*(np.isin(*side) for side in pair)))


def _first(failed: Mapping[str, str]) -> str:
    return next(iter(failed.values()), "there is none.")


def saving(folder: Path, package: ModelPackage) -> Save:
    """Writes each result to ``folder``/CASE.seg.nrrd, which Slicer opens with names and colors."""

    def save(case: Case, found: Segmentation) -> None:
        make_folder(folder)
        path = folder / f"{case.id}.seg.nrrd"
        write_segmentation(found, package.labels, path, f"{package.id} {package.version}")

    return save


def detection_figures(cases: Sequence[CaseDetections]) -> dict:
    """PI-CAI's figures. A segmentation has no confidence of its own; the larger is the surer."""
    return {
        "lesions": sum(case.reference_lesions for case in cases),
        "average_precision": round(average_precision(cases), 4),
        "sensitivity_at_false_lesions_per_case": {
            str(rate): round(share, 4) for rate, share in froc(cases).items()
        },
        "confidence": "size in voxels",
    }


def _lesion_values(name: str, package: ModelPackage, dataset: Dataset) -> tuple[Values, Values]:
    """The values of a structure in a result and in a reference; raises InputError."""
    structures = structures_of(package, dataset)
    if name not in structures.found:
        names = dict.fromkeys([*structures.found, *(label.name for label in package.labels)])
        who, others = (dataset.name, structures.found) if name in names else (package.title, names)
        raise InputError(f"{who} has no {name!r}, it has {', '.join(others)}.")
    return structures.found[name], structures.truth[name]


def _chosen(dataset: Dataset, options: EvaluationOptions) -> list[Case]:
    labelled = [case for case in dataset.cases if case.label is not None]
    if not labelled:
        raise InputError(f"{dataset.name} names no label image, which a result is compared with.")
    chosen = with_names(labelled, options.cases)
    if options.protocol and options.protocol.cases:
        chosen = [case for case in chosen if _number(case.id) in options.protocol.cases]
    if not chosen:
        known = ", ".join(case.id for case in labelled[:8])
        raise InputError(f"No labelled case is left to evaluate; {dataset.name} has {known} ...")
    return chosen


def _missing(cases: Sequence[Case], protocol: Protocol | None) -> tuple[int, ...]:
    there = {_number(case.id) for case in cases}
    return tuple(n for n in (protocol.cases if protocol else ()) if n not in there)


def _number(name: str) -> int | None:
    numbers = re.findall(r"\d+", name)
    return int(numbers[-1]) if numbers else None
