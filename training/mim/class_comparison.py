"""Two classifiers on the same images: the difference of their AUC, by DeLong and by bootstrap."""

from __future__ import annotations

import ast
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mim.auc import auc, delong_p_value
from mim.comparison import Difference
from MIMSegment.Logic.errors import InputError


def read_classes(path: str | Path) -> dict[str, dict] | None:
    """The rows by case of a table of `classifier_evaluation.write_classes`: case, subject, target
    (a class, or 0 and 1 for each), then the classes. None for anything else."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = {row["case"]: row for row in csv.DictReader(file)}
        for row in rows.values():
            row["target"] = ast.literal_eval(row["target"])
            row.update((name, float(row[name])) for name in list(row)[3:])
    except (OSError, KeyError, TypeError, ValueError, SyntaxError):
        return None
    return rows


def compare_classes(
    a: dict[str, dict], b: dict[str, dict]
) -> dict[str, tuple[float, float, Difference]]:
    """Of each class DeLong's p, the AUC of ``a`` and the difference of B, on the cases of both.

    Raises InputError without a case in common, and for other classes or targets.
    """
    pairs = [(a[case], b[case]) for case in sorted(a.keys() & b.keys())]
    if not pairs or any(list(x) != list(y) or x["target"] != y["target"] for x, y in pairs):
        raise InputError("The two tables share no case, or differ in classes or in a case's class.")
    subjects, results = [row["subject"] for row, _ in pairs], {}
    for index, name in enumerate(list(pairs[0][0])[3:]):
        targets = [row["target"] for row, _ in pairs]
        positive = np.array([t == index if isinstance(t, int) else t[index] > 0 for t in targets])
        first, second = np.array([[x[name], y[name]] for x, y in pairs]).T
        difference = auc_difference(first, second, positive, subjects)
        p = delong_p_value(first, second, positive)
        results[name] = p, auc(first, positive), difference
    return results


def auc_difference(
    a: np.ndarray, b: np.ndarray, positive: np.ndarray, subjects: Sequence[str]
) -> Difference:
    """AUC of the scores ``b`` minus that of ``a`` (cases,), with a bootstrap over subjects.

    Samples without both kinds of case do not count. NaN where there is no other, or one subject.
    """
    names, owner = np.unique(subjects, return_inverse=True)
    draws = np.random.default_rng(0).integers(len(names), size=(2000, len(names)))
    times = np.array([np.bincount(draw, minlength=len(names)) for draw in draws], float)[:, owner]
    above, below = times[:, positive], times[:, ~positive]
    gap = _wins(b, positive) - _wins(a, positive)
    won, pairs = ((above @ gap) * below).sum(1), above.sum(1) * below.sum(1)
    known = won[pairs > 0] / pairs[pairs > 0] if len(names) > 1 else won[:0]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    mean = auc(b, positive) - auc(a, positive)
    return Difference(mean, float(low), float(high), len(a), len(names))


def _wins(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """(positives, negatives): 1 where the positive scores higher, a tie is half; AUC its mean."""
    return (np.sign(scores[positive][:, None] - scores[~positive]) + 1) / 2
