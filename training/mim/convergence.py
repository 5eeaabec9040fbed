"""How fast a method learns: steps to a target, area under the learning curve, and their ratios."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def steps_to_target(steps: Sequence[float], scores: Sequence[float], target: float) -> float:
    """The first step at which the score reaches ``target``, linear in between; inf if it never is.

    ``steps`` rise. A curve that starts at or above the target needs ``steps[0]``.
    """
    steps, scores = np.asarray(steps, float), np.asarray(scores, float)
    reached = np.flatnonzero(scores >= target)
    if not len(reached):
        return float("inf")
    last = reached[0]
    if last == 0:
        return float(steps[0])
    share = (target - scores[last - 1]) / (scores[last] - scores[last - 1])
    return float(steps[last - 1] + share * (steps[last] - steps[last - 1]))


def area_under_curve(steps: Sequence[float], scores: Sequence[float]) -> float:
    """Mean score over the steps, by trapezoids."""
    steps = np.asarray(steps, float)
    return float(np.trapezoid(scores, steps) / (steps[-1] - steps[0]))


@dataclass(frozen=True)
class SpeedUp:
    """Steps of the baseline divided by steps of the method, to the same target.

    ``reached`` counts the pairs of runs in which both got there; the ratio is over those.
    """

    ratio: float
    low: float
    high: float
    reached: int
    runs: int


def speed_up(
    baseline: Sequence[tuple[Sequence[float], Sequence[float]]],
    method: Sequence[tuple[Sequence[float], Sequence[float]]],
    target: float,
    resamples: int = 10_000,
    seed: int = 0,
) -> SpeedUp:
    """Geometric mean of the ratio over pairs of runs (steps, scores), with a bootstrap over pairs.

    Runs are paired by position (the same seed). With fewer than two pairs that reached the target
    the interval is NaN, with none the ratio is too.
    """
    logs = []
    for (a_steps, a_scores), (b_steps, b_scores) in zip(baseline, method, strict=True):
        a, b = (
            steps_to_target(a_steps, a_scores, target),
            steps_to_target(b_steps, b_scores, target),
        )
        if np.isfinite([a, b]).all() and a > 0 and b > 0:
            logs.append(np.log(a / b))
    low = high = ratio = float("nan")
    if logs:
        ratio = float(np.exp(np.mean(logs)))
    if len(logs) > 1:
        draws = np.random.default_rng(seed).integers(len(logs), size=(resamples, len(logs)))
        means = np.asarray(logs)[draws].mean(axis=1)
        low, high = (float(v) for v in np.exp(np.quantile(means, [0.025, 0.975])))
    return SpeedUp(ratio, low, high, len(logs), len(baseline))
