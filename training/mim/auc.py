"""The area under the ROC curve, with the interval and the paired test of DeLong et al. (1988), and
sensitivity at a fixed specificity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc, sqrt

import numpy as np

_Z95 = 1.959963984540054


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; NaN where only one of the two kinds of case occurs."""

    value: float
    low: float
    high: float


def auc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """The share of (positive, negative) pairs in which the positive scores higher; ties half."""
    placed, _ = _placements(scores, positive)
    return float(placed.mean()) if len(placed) else float("nan")


def delong_interval(scores: Sequence[float], positive: Sequence[bool]) -> Estimate:
    """The area with its interval, normal and cut at 0 and 1.

    Where all cases are told apart the variance is 0, and the interval says nothing.
    """
    return delong_mean_interval([scores], positive)


def delong_mean_interval(runs: Sequence[Sequence[float]], positive: Sequence[bool]) -> Estimate:
    """The mean area of several models, such as one for each seed, scored on the same cases.

    Their placements are averaged for each case, so that the interval is about other cases, with
    these models.
    """
    pairs = [_placements(scores, positive) for scores in runs]
    of_positives, of_negatives = (np.mean(values, axis=0) for values in zip(*pairs, strict=True))
    if not len(of_positives):
        return Estimate(float("nan"), float("nan"), float("nan"))
    value = float(of_positives.mean())
    margin = _Z95 * sqrt(_variance(of_positives) + _variance(of_negatives))
    return Estimate(value, max(0.0, value - margin), min(1.0, value + margin))


def delong_p_value(
    first: Sequence[float], second: Sequence[float], positive: Sequence[bool]
) -> float:
    """Two-sided p that two models, scored on the same cases, have the same area.

    NaN where only one of the two kinds of case occurs.
    """
    pairs = zip(_placements(first, positive), _placements(second, positive), strict=True)
    differences = [a - b for a, b in pairs]
    if not len(differences[0]):
        return float("nan")
    variance = sum(_variance(difference) for difference in differences)
    gap = float(differences[0].mean())
    if variance == 0:
        return 1.0 if gap == 0 else 0.0
    return erfc(abs(gap) / sqrt(variance) / sqrt(2))


def sensitivity_at_specificity(
    scores: Sequence[float],
    positive: Sequence[bool],
    specificity: float = 0.9,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """The share of positives found where at least ``specificity`` of the negatives are not.

    Of all thresholds ("positive" means above it) that leave so many negatives, the lowest counts.
    The interval is a percentile bootstrap of positives and negatives, each drawn among themselves;
    the threshold is found anew in each sample.
    """
    scores, positive = np.asarray(scores, float), np.asarray(positive, bool)
    above, below = scores[positive], scores[~positive]
    if not (len(above) and len(below)):
        return Estimate(float("nan"), float("nan"), float("nan"))
    rank = max(0, int(np.ceil(specificity * len(below) - 1e-9)) - 1)  # of the threshold's negative

    def found(above: np.ndarray, below: np.ndarray) -> float:
        return float((above > np.partition(below, rank)[rank]).mean())

    rng = np.random.default_rng(seed)
    drawn = (
        [rng.choice(values, len(values)) for values in (above, below)] for _ in range(resamples)
    )
    low, high = np.quantile([found(*pair) for pair in drawn], [0.025, 0.975])
    return Estimate(found(above, below), float(low), float(high))


def _placements(scores: Sequence[float], positive: Sequence[bool]):
    """For each positive the share of negatives below it, for each negative that of positives above.

    Empty where one of them is missing.
    """
    from scipy.stats import rankdata

    scores, positive = np.asarray(scores, float), np.asarray(positive, bool)
    above, below = scores[positive], scores[~positive]
    if not (len(above) and len(below)):
        return np.empty(0), np.empty(0)
    ranks = rankdata(np.concatenate([above, below]))
    of_positives = (ranks[: len(above)] - rankdata(above)) / len(below)
    of_negatives = 1 - (ranks[len(above) :] - rankdata(below)) / len(above)
    return of_positives, of_negatives


def _variance(placements: np.ndarray) -> float:
    return float(placements.var(ddof=1) / len(placements)) if len(placements) > 1 else 0.0
