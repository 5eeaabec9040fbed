"""Is one method better than another: paired differences, and ranks over data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mim.statistics import bootstrap_mean_ci
from MIMSegment.Logic.errors import InputError

NO_HARM = 0.01  # one Dice point, or one hundredth of AUC: so much worse still is no harm


@dataclass(frozen=True)
class Difference:
    """Mean of B − A over cases with its interval; ``cases`` and ``subjects`` that both have."""

    mean: float
    low: float
    high: float
    cases: int
    subjects: int

    def verdict(self, margin: float = 0.0) -> str:
        """In words: better or worse when the interval excludes 0, else whether harm is excluded.

        ``margin`` is how much worse still counts as no harm (0.01 is one Dice point).
        """
        if self.low > 0:
            return "better"
        if self.high < 0:
            return "worse"
        return "no harm" if self.low > -margin else "undecided"


def paired_difference(
    a: Mapping[str, float],
    b: Mapping[str, float],
    subjects: Mapping[str, str],
    resamples: int = 10_000,
) -> Difference:
    """Bootstrap over subjects of the difference of two methods on the same cases.

    ``a`` and ``b`` map a case to its score, ``subjects`` a case to its subject. Cases that only one
    of them has, or where a score is NaN, do not count. Raises InputError when none is left.
    """
    shared = [c for c in sorted(a) if c in b and np.isfinite(a[c]) and np.isfinite(b[c])]
    if not shared:
        raise InputError("The two results have no case with a score in common.")
    owners = [subjects[case] for case in shared]
    mean, low, high = bootstrap_mean_ci(
        [b[case] - a[case] for case in shared], owners, resamples=resamples
    )
    return Difference(mean, low, high, len(shared), len(set(owners)))


@dataclass(frozen=True)
class Rank:
    """Mean rank of a method over data sets (1 is best), with its interval."""

    mean: float
    low: float
    high: float


def mean_ranks(
    scores: Mapping[str, Mapping[str, Mapping[str, float]]],
    subjects: Mapping[str, Mapping[str, str]],
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Rank]:
    """Ranks of methods by mean score on each data set, averaged; ties share their mean rank.

    ``scores[data set][method][case]`` and ``subjects[data set][case]``; every method must have
    every case of a data set, or InputError is raised, also where one has no score at all. The
    interval is a bootstrap over the subjects within each data set: how stable the ranks are with
    other patients of the same data sets; NaN where one of these has a single subject.
    """
    methods = list(next(iter(scores.values())))
    tables = [
        _table(name, by_method, methods, subjects[name]) for name, by_method in scores.items()
    ]
    found = np.mean([_ranks(*(part.sum(-1) for part in table)) for table in tables], axis=0)
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(resamples):
        ranks = []
        for sums, counts in tables:
            chosen = rng.integers(sums.shape[1], size=sums.shape[1])
            ranks.append(_ranks(sums[:, chosen].sum(-1), counts[:, chosen].sum(-1)))
        drawn.append(np.mean(ranks, axis=0))
    known = [ranks for ranks in drawn if np.isfinite(ranks).all()]
    if not known or any(sums.shape[1] < 2 for sums, _ in tables):
        known = [np.full(len(methods), np.nan)]
    low, high = np.quantile(known, [0.025, 0.975], axis=0)
    return {
        method: Rank(float(found[i]), float(low[i]), float(high[i]))
        for i, method in enumerate(methods)
    }


def _ranks(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Of the methods' means, 1 is the highest; NaN where a method has no score."""
    from scipy.stats import rankdata

    if not counts.all():
        return np.full(len(sums), np.nan)
    return rankdata(-np.round(sums / counts, 10))


def _table(
    name: str,
    by_method: Mapping[str, Mapping[str, float]],
    methods: Sequence[str],
    subjects: Mapping[str, str],
) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts of the known scores (method, subject)."""
    if set(by_method) != set(methods):
        raise InputError(f"{name} does not have the same methods as the other data sets.")
    cases = sorted(by_method[methods[0]])
    for method in methods:
        if sorted(by_method[method]) != cases:
            raise InputError(f"{name}: {method} and {methods[0]} were not measured on equal cases.")
    scores = np.array([[by_method[method][case] for case in cases] for method in methods], float)
    _, owner = np.unique([subjects[case] for case in cases], return_inverse=True)
    known = np.isfinite(scores)
    for method, has in zip(methods, known.any(1), strict=True):
        if not has:
            raise InputError(f"{name}: {method} has no case with a score.")
    sums = [np.bincount(owner, row) for row in np.where(known, scores, 0)]
    return np.array(sums), np.array([np.bincount(owner, row) for row in known])
