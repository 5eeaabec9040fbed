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

RESAMPLES = 2000


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
        p = delong_p_value(first, second, positive, subjects)
        results[name] = p, auc(first, positive), difference
    return results


def auc_difference(
    a: np.ndarray, b: np.ndarray, positive: np.ndarray, subjects: Sequence[str]
) -> Difference:
    """AUC of the scores ``b`` minus that of ``a`` (cases,), with a bootstrap over subjects.

    Samples without both kinds of case do not count. NaN where there is no other, or one subject.
    """
    names, owner = np.unique(subjects, return_inverse=True)
    random, orders = np.random.default_rng(0), (DrawnAreas(a, positive), DrawnAreas(b, positive))
    drawn = []
    for _ in range(RESAMPLES):
        draw = random.integers(len(names), size=len(names))
        times = np.bincount(draw, minlength=len(names))[owner]
        first, second = (order.area(times) for order in orders)
        drawn.append(second - first)
    known = np.array(drawn)[np.isfinite(drawn)] if len(names) > 1 else np.empty(0)
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    mean = auc(b, positive) - auc(a, positive)
    return Difference(mean, float(low), float(high), len(a), len(names))


class DrawnAreas:
    """Areas of one model when its cases are drawn again and again: ``scores`` (n,) and whether each
    case is ``positive`` (n,), bool.

    The mid-ranks of Sun and Xu (IEEE Signal Processing Letters 21, 2014), for cases that occur
    several times: they are sorted once, an area then takes one pass, and no table of all pairs.
    """

    def __init__(self, scores: np.ndarray, positive: np.ndarray):
        self.order = np.argsort(scores, kind="stable")
        ordered = scores[self.order]
        self.positive = positive[self.order]
        # Where each run of equal scores begins: a tie is half won.
        self.starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])

    def area(self, times: np.ndarray) -> float:
        """The AUC when case i occurs ``times[i]`` times; NaN without both kinds of case."""
        times = times[self.order]
        above = np.add.reduceat(np.where(self.positive, times, 0), self.starts)
        below = np.add.reduceat(np.where(self.positive, 0, times), self.starts)
        pairs = int(above.sum()) * int(below.sum())
        won = above @ (2 * below.cumsum() - below)  # twice those below, and half of twice the equal
        return won / 2 / pairs if pairs else float("nan")
