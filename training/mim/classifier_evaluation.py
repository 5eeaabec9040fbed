"""Measuring a classifier's package on a data set with classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mim.cases import Case, Dataset, find_dataset, say_left_out, with_names
from mim.class_results import summarize_classes
from mim.classifier_package import ClassifierPackage, classify_cases
from mim.seen import TrainingImageCheck
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.files import make_folder, write_csv, write_json
from MIMSegment.Logic.runtime import open_session


def evaluate_classifier(
    package: ClassifierPackage,
    data: str | Path,
    names: Sequence[str] = (),
    device: str = "auto",
    with_training: bool = False,
) -> dict:
    """`summarize_classes` of the cases of ``data`` that have a class, or of those of ``names``.

    Those that the package has learnt from are left out, but for ``with_training``. Raises
    InputError when none is left or the data set has other classes than the package.
    """
    dataset = find_dataset(data)
    _check_classes(package, dataset)
    say_left_out(dataset)
    cases = [case for case in dataset.cases if case.target is not None]
    cases = with_names(cases, names)
    if not cases:
        raise InputError(f"{data} has no case with a class that could be evaluated.")
    session = open_session(package.model, device, precision="float32" if device == "cpu" else None)
    learnt = TrainingImageCheck(package.metadata, with_training)
    found = classify_cases(package.spec, cases, session, learnt.admits)
    learnt.require_others(len(cases), data)
    entries = [_entry(case) for case in cases if case.id in found]
    probabilities = np.stack(list(found.values()))
    summary = summarize_classes(probabilities, entries, package.spec.classes)
    return {**summary, **learnt.summary()}


def write_classes(folder: Path, summary: dict) -> None:
    """cases.csv (case, subject, target and a probability for each class) and summary.json."""
    make_folder(folder)
    columns = ["case", "subject", "target", *summary["classes"]]
    rows = [[r["id"], r["subject"], r["target"], *r["probabilities"]] for r in summary["rows"]]
    write_csv(folder / "cases.csv", columns, rows)
    rest = {key: value for key, value in summary.items() if key != "rows"}
    write_json(folder / "summary.json", rest)


def _check_classes(package: ClassifierPackage, dataset: Dataset) -> None:
    if tuple(dataset.classes) != package.spec.classes:
        raise InputError(
            f"{dataset.name} has the classes {', '.join(dataset.classes) or 'none'}, "
            f"{package.id} tells apart {', '.join(package.spec.classes)}."
        )


def _entry(case: Case) -> dict:
    return {"id": case.id, "subject": case.subject or case.id, "target": case.target}
