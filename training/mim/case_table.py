"""Per-case results as a CSV table that other programs can read: a row for a case and structure."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mim.segmentation_metrics import StructureMetrics
from mim.statistics import bootstrap_mean_ci, few_subjects, span
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.files import write_csv

METRICS = ("dice", "nsd", "hd95", "volume_error")
_SAME_VOLUME = 1e-4  # tables hold six digits
_BEST = {"dice": 1.0, "nsd": 1.0, "hd95": 0.0}
_COLUMNS = ("case", "subject", "structure", *METRICS, "volume", "reference_volume")


def write_cases(
    path: str | Path, cases: Sequence[tuple[str, str, Mapping[str, StructureMetrics]]]
) -> None:
    """Write (case, subject, metrics by structure) rows; hd95 in mm, volumes in mL."""
    rows = [
        [case, subject, structure, *(f"{getattr(values, name):.6g}" for name in _COLUMNS[3:])]
        for case, subject, metrics in cases
        for structure, values in metrics.items()
    ]
    write_csv(path, _COLUMNS, rows)


def read_cases(path: str | Path) -> list[dict]:
    """The rows of such a table, numbers as floats. Raises InputError naming the file."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            for name in _COLUMNS[3:]:
                row[name] = float(row[name])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no table written by evaluate.py segment ({error}).") from None
    if not rows:
        raise InputError(f"{path} has no row.")
    return rows


def of_shared_structures(
    tables: Mapping[str, Sequence[dict]],
) -> tuple[dict[str, list[dict]], list[str]]:
    """The rows of structures that all ``tables`` (by name) have, and the names of the others.

    Methods can be compared on the same structures only. Raises InputError when none is left.
    """
    structures = [dict.fromkeys(row["structure"] for row in rows) for rows in tables.values()]
    shared = set(structures[0]).intersection(*structures[1:])
    if not shared:
        raise InputError(
            f"{', '.join(tables)} have no structure in common; they cannot be compared."
        )
    kept = {
        name: [row for row in rows if row["structure"] in shared] for name, rows in tables.items()
    }
    return kept, sorted({name for names in structures for name in names} - shared)


def check_same_references(tables: Mapping[str, Sequence[dict]]) -> None:
    """Raise InputError where one case has another volume of a structure in its reference: then the
    ``tables`` (by name) are of other data, or of other labels, and are no pairs."""
    first: dict[tuple[str, str], tuple[str, float]] = {}
    for name, rows in tables.items():
        for row in rows:
            volume, case, structure = row["reference_volume"], row["case"], row["structure"]
            other, known = first.setdefault((case, structure), (name, volume))
            if abs(volume - known) > _SAME_VOLUME * max(volume, known):
                raise InputError(
                    f"{other} and {name} were measured by other labels: in {case}, {structure} has "
                    f"{known:g} mL in the reference of one, {volume:g} mL in that of the other. "
                    "Measure both on the same data."
                )


def with_credit(tables: Mapping[str, Sequence[dict]]) -> dict[str, list[dict]]:
    """The rows with the best figures where a method rightly does not find what another invents.

    Neither its result nor the reference has the structure, so it has no figure of its own; left
    out, the case would not count against the one that is wrong there.
    """
    known = {
        (metric, row["case"], row["structure"])
        for rows in tables.values()
        for row in rows
        for metric in _BEST
        if np.isfinite(row[metric])
    }

    def credited(row: dict) -> dict:
        better = {
            metric: best
            for metric, best in _BEST.items()
            if not np.isfinite(row[metric]) and (metric, row["case"], row["structure"]) in known
        }
        return row | better

    return {name: [credited(row) for row in rows] for name, rows in tables.items()}


def case_means(rows: Sequence[dict], metric: str) -> tuple[dict[str, float], dict[str, str]]:
    """Mean of ``metric`` over the structures of each case, NaN left out, and the case's subject."""
    by_case: dict[str, list[float]] = {}
    for row in rows:
        by_case.setdefault(row["case"], []).append(row[metric])
    means = {
        case: float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
        for case, values in by_case.items()
    }
    return means, {row["case"]: row["subject"] for row in rows}


def summarize_cases(rows: Sequence[dict]) -> dict:
    """Mean of each metric with its 95 % interval over subjects: overall and for each structure."""
    summary: dict = {
        "cases": len({row["case"] for row in rows}),
        "subjects": len({row["subject"] for row in rows}),
        "mean": {},
        "structures": {},
    }
    for metric in METRICS:
        means, subjects = case_means(rows, metric)
        summary["mean"][metric] = _interval(list(means.values()), [subjects[c] for c in means])
    for structure in dict.fromkeys(row["structure"] for row in rows):
        own = [row for row in rows if row["structure"] == structure]
        owners = [row["subject"] for row in own]
        summary["structures"][structure] = {
            metric: _interval([row[metric] for row in own], owners) for metric in METRICS
        }
    return summary


def _interval(values: Sequence[float], subjects: Sequence[str]) -> dict:
    mean, low, high = bootstrap_mean_ci(values, subjects)
    return {"mean": mean, "ci95": [low, high]}


def format_summary(summary: dict) -> str:
    """The summary as lines of text."""
    rows = [("mean", summary["mean"]), *summary["structures"].items()]
    count = f"{summary['cases']} cases"
    width = max(len(count), *(len(name) for name, _ in rows))
    lines = [f"{count:{width}}  Dice (95 % interval)     NSD    HD95 mm  volume error mL"]
    for name, metrics in rows:
        dice, interval = metrics["dice"]["mean"], f"({span(*metrics['dice']['ci95'])})"
        lines.append(
            f"{name:{width}}  {dice:.3f} {interval:16}   {metrics['nsd']['mean']:.3f}  "
            f"{metrics['hd95']['mean']:7.2f}  {metrics['volume_error']['mean']:+.2f}"
        )
    lines += filter(None, [few_subjects(summary["subjects"])])
    return "\n".join(lines)
