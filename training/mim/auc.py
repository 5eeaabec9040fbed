"""The area under the ROC curve, with the interval and the paired test of DeLong et al. (1988), and
sensitivity at a fixed specificity.

Images of one subject are not independent: where ``subjects`` says whose each case is, they count as
Obuchowski (Biometrics 53, 1997) has it, which with one image of each subject is DeLong's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc, sqrt

import numpy as np

_Z95 = 1.959963984540054


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; NaN where only one of the two kinds of case occurs, the
    interval also where one of them is of a single subject."""

    value: float
    low: float
    high: float


def auc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """The share of (positive, negative) pairs in which the positive scores higher; ties half."""
    placed, _ = _placements(scores, positive)
    return float(placed.mean()) if len(placed) else float("nan")


def delong_interval(
    scores: Sequence[float], positive: Sequence[bool], subjects: Sequence[str] | None = None
) -> Estimate:
    """The area with its interval, normal and cut at 0 and 1.

    Where all cases are told apart the variance is 0, and the interval says nothing.
    """
    return delong_mean_interval([scores], positive, subjects)


def delong_mean_interval(
    runs: Sequence[Sequence[float]],
    positive: Sequence[bool],
    subjects: Sequence[str] | None = None,
) -> Estimate:
    """The mean area of several models, such as one for each seed, scored on the same cases.

    Their placements are averaged for each case, so that the interval is about other cases, with
    these models.
    """
    pairs = [_placements(scores, positive) for scores in runs]
    placements = [np.mean(values, axis=0) for values in zip(*pairs, strict=True)]
    if not len(placements[0]):
        return Estimate(float("nan"), float("nan"), float("nan"))
    value = float(placements[0].mean())
    margin = _Z95 * sqrt(_variance(placements, positive, subjects))
    low, high = np.clip([value - margin, value + margin], 0, 1)
    return Estimate(value, float(low), float(high))


def delong_p_value(
    first: Sequence[float],
    second: Sequence[float],
    positive: Sequence[bool],
    subjects: Sequence[str] | None = None,
) -> float:
    """Two-sided p that two models, scored on the same cases, have the same area.

    NaN where one of the two kinds of case does not occur, or is of a single subject.
    """
    pairs = zip(_placements(first, positive), _placements(second, positive), strict=True)
    differences = [a - b for a, b in pairs]
    if not len(differences[0]):
        return float("nan")
    variance = _variance(differences, positive, subjects)
    gap = float(differences[0].mean())
    if np.isnan(variance):
        return float("nan")
    if variance == 0:
        return 1.0 if gap == 0 else 0.0
    return erfc(abs(gap) / sqrt(variance) / sqrt(2))


def sensitivity_at_specificity(
    scores: Sequence[float],
    positive: Sequence[bool],
    specificity: float = 0.9,
    subjects: Sequence[str] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """The share of positives found where at least ``specificity`` of the negatives are not.

    Of all thresholds ("positive" means above it) that leave so many negatives, the lowest counts.
    The interval is a percentile bootstrap of the subjects of positives and of those of negatives,
    each drawn among themselves; the threshold is found anew in each sample.
    """
    scores, positive = np.asarray(scores, float), np.asarray(positive, bool)
    owner = _owners(positive, subjects)
    sides = [(scores[side], np.unique(owner[side], return_inverse=True)[1])
             for side in (positive, ~positive)]  # fmt: skip
    value = _found(*(values for values, _ in sides), specificity)
    if any(not len(owners) or owners.max() == 0 for _, owners in sides):
        return Estimate(value, float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    drawn = [_found(*(_drawn(*side, rng) for side in sides), specificity) for _ in range(resamples)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def _found(above: np.ndarray, below: np.ndarray, specificity: float) -> float:
    if not (len(above) and len(below)):
        return float("nan")
    rank = max(0, int(np.ceil(specificity * len(below) - 1e-9)) - 1)  # of the threshold's negative
    return float((above > np.partition(below, rank)[rank]).mean())


def _drawn(values: np.ndarray, owners: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The values of subjects drawn as wholes; ``owners`` counts them from 0."""
    count = owners.max() + 1
    return np.repeat(values, np.bincount(rng.integers(count, size=count), minlength=count)[owners])


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


def _variance(
    placements: Sequence[np.ndarray], positive: Sequence[bool], subjects: Sequence[str] | None
) -> float:
    """Of the mean of ``placements``, of positives and of negatives; NaN from a single subject."""
    positive = np.asarray(positive, bool)
    owner = _owners(positive, subjects)
    total, sums, variance = owner.max() + 1, [], 0.0
    for values, own in zip(placements, (owner[positive], owner[~positive]), strict=True):
        count = len(np.unique(own))
        if count < 2:
            return float("nan")
        sums.append(np.bincount(own, values - values.mean(), total) / len(values))
        variance += count / (count - 1) * float(np.square(sums[-1]).sum())
    # A subject with images of both kinds: what is odd about it enters both.
    return max(0.0, variance + 2 * total / (total - 1) * float(sums[0] @ sums[1]))


def _owners(positive: np.ndarray, subjects: Sequence[str] | None) -> np.ndarray:
    """Whose each case is, as numbers from 0."""
    if subjects is None:
        return np.arange(len(positive))
    return np.unique(subjects, return_inverse=True)[1]
