"""Honest uncertainty: intervals that respect that images of one subject are not independent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

# How often, in 100, the interval of so many subjects holds the true mean: what
# benchmarks/interval_coverage.py measures.
_COVERAGE = {2: 50, 3: 74, 4: 80, 5: 83, 6: 84, 7: 87, 8: 88, 9: 88}


def bootstrap_mean_ci(
    values: Sequence[float] | np.ndarray,
    subjects: Sequence[str],
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean of ``values`` and its percentile bootstrap interval, subjects drawn as wholes.

    ``values`` are of cases, or of several runs on the same cases (runs, cases): then it is the mean
    of the runs' means. Values that are NaN (a structure that neither prediction nor label has) do
    not count. With a single subject, or no value, the interval is NaN. Efron and Tibshirani, 1993,
    chapter 13.
    """
    values = np.atleast_2d(np.asarray(values, float))
    used = np.isfinite(values).any(axis=0)
    values, subjects = values[:, used], np.asarray(subjects)[used]
    mean = known_mean(map(known_mean, values))
    names, owner = np.unique(subjects, return_inverse=True)
    if len(names) < 2:
        return mean, float("nan"), float("nan")
    draws = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    means = np.array([_drawn_means(run, owner, draws) for run in values])
    counts = np.isfinite(means).sum(axis=0)
    means = np.nansum(means, axis=0)[counts > 0] / counts[counts > 0]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return mean, float(low), float(high)


def _drawn_means(values: np.ndarray, owner: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Mean of the known ``values`` of every draw of subjects; NaN where it has none."""
    known, size = np.isfinite(values), owner.max() + 1
    sums = np.bincount(owner[known], values[known], size)[draws].sum(axis=1)
    counts = np.bincount(owner[known], minlength=size)[draws].sum(axis=1)
    return np.divide(sums, counts, out=np.full(len(draws), np.nan), where=counts > 0)


def known_mean(values: Iterable[float]) -> float:
    """The mean of what is no NaN (a structure that neither prediction nor label has), or NaN."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def span(low: float, high: float, form: str = ".3f") -> str:
    """An interval for a sentence: "0.812 to 0.934", and a dash where there is none."""
    return f"{low:{form}} to {high:{form}}" if np.isfinite([low, high]).all() else "–"


def few_subjects(count: int) -> str:
    """What an interval of `bootstrap_mean_ci` from ``count`` subjects is worth, as a sentence;
    nothing where they are ten or more."""
    if count not in _COVERAGE:
        return ""
    return (
        f"From {count} subjects a bootstrap interval is too narrow: it holds the true mean in "
        f"about {_COVERAGE[count]} of 100 cases, not in 95."
    )
