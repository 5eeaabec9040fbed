"""Honest uncertainty: intervals that respect that images of one subject are not independent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def bootstrap_mean_ci(
    values: Sequence[float],
    subjects: Sequence[str],
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean of ``values`` and its percentile bootstrap interval, subjects drawn as wholes.

    Values that are NaN (a structure that neither prediction nor label has) do not count. With a
    single subject, or no value, the interval is NaN. Efron and Tibshirani, 1993, chapter 13.
    """
    values, subjects = np.asarray(values, float), np.asarray(subjects)
    known = np.isfinite(values)
    values, subjects = values[known], subjects[known]
    if not len(values):
        return float("nan"), float("nan"), float("nan")
    names, owner = np.unique(subjects, return_inverse=True)
    if len(names) < 2:
        return float(values.mean()), float("nan"), float("nan")
    sums = np.bincount(owner, values)
    counts = np.bincount(owner)
    draws = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(values.mean()), float(low), float(high)


def known_mean(values: Iterable[float]) -> float:
    """The mean of what is no NaN (a structure that neither prediction nor label has), or NaN."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
