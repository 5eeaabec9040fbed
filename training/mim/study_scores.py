"""The scores of one run, and of several seeds against a baseline, whatever the task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from mim.auc import auc, delong_mean_interval
from mim.class_results import summarize_classes
from mim.evaluation import summarize
from mim.figures_file import parse_figures, read_figures
from mim.learning_curve import WATCHED
from mim.statistics import bootstrap_mean_ci, known_mean
from MIMSegment.Logic.errors import InputError

RESULTS, LOG = "results.json", "log.jsonl"
_RESAMPLES = 1000


@dataclass(frozen=True)
class Scores:
    """Finished fine-tunings of one arm; every seed has a folder for each fold (or just one).

    All seeds are measured on the same cases: those of all its folds together.
    """

    folders: tuple[tuple[Path, ...], ...]

    @cached_property
    def results(self) -> list[dict]:
        """What each seed's results.json says; of several folds, their cases together."""
        return [
            _together([read_figures(folder / RESULTS) for folder in folds])
            for folds in self.folders
        ]

    @property
    def metric(self) -> str:
        """AUC or Dice."""
        return "AUC" if "auc_mean" in self.results[0] else "Dice"

    @property
    def by_seed(self) -> list[float]:
        """The mean score of each seed."""
        key = "auc_mean" if self.metric == "AUC" else "dice_mean"
        return [result[key] for result in self.results]

    @property
    def subjects(self) -> list[str]:
        """Whose each case is."""
        return [row["subject"] for row in self.results[0]["rows"]]

    @property
    def curves(self) -> list[tuple[list[int], list[float]]]:
        """Steps and scores while each seed learnt, of several folds their mean; empty without
        finetune.watch."""
        return [_mean_curve([_curve(folder) for folder in folds]) for folds in self.folders]

    def interval(self) -> tuple[float, float]:
        """Of the mean over seeds: DeLong's for two classes, else a bootstrap over subjects."""
        if self.metric == "Dice":
            return bootstrap_mean_ci([_case_means(dice) for dice in self._dice], self.subjects)[1:]
        truth, scores = self._areas_of
        if truth.shape[1] == 1:
            found = delong_mean_interval(scores[..., 0], truth[:, 0], self.subjects)
            return found.low, found.high
        return bootstrap_over_subjects(self._area, self.subjects)[1:]

    def difference(self, baseline: Scores) -> tuple[float, float, float]:
        """Mean over seeds of this arm's score less the baseline's, with a bootstrap over subjects.

        A structure that one of the two rightly does not find, where the other invents it, has the
        Dice 1 here. Raises InputError unless both were measured on the same cases.
        """
        _check_same_cases([*self.results, *baseline.results], [*self.folders, *baseline.folders])
        if self.metric == "Dice":
            return bootstrap_mean_ci(self._gains(baseline), self.subjects)

        def gain(cases: np.ndarray) -> float:
            return self._area(cases) - baseline._area(cases)

        return bootstrap_over_subjects(gain, self.subjects)

    def differences_by_seed(self, baseline: Scores) -> list[float]:
        """The mean difference of each seed."""
        if self.metric == "Dice":
            return [known_mean(gains) for gains in self._gains(baseline)]
        return [a - b for a, b in zip(self.by_seed, baseline.by_seed, strict=True)]

    def _gains(self, baseline: Scores) -> np.ndarray:
        """(seeds, cases), the mean over the structures that one of the two has; or NaN."""
        pairs = zip(self._dice, baseline._dice, strict=True)
        return np.array([_case_means(_credited(a, b) - _credited(b, a)) for a, b in pairs])

    @cached_property
    def _dice(self) -> list[np.ndarray]:
        """(cases, structures) of each seed; NaN where neither network nor reader has one."""
        names = [name for row in self.results[0]["rows"][:1] for name in row["dice"]]
        return [
            np.array([[row["dice"][name] for name in names] for row in result["rows"]], float)
            for result in self.results
        ]

    @cached_property
    def _areas_of(self) -> tuple[np.ndarray, np.ndarray]:
        """Truth (cases, n) and probabilities (seeds, cases, n) of the classes that areas are of.

        Of two classes that exclude each other one is enough, both have the same area. A class that
        no case has, or every one, has none.
        """
        targets = np.array([row["target"] for row in self.results[0]["rows"]])
        scores = np.array([[r["probabilities"] for r in run["rows"]] for run in self.results])
        if targets.ndim == 2:
            truth = targets > 0.5
        else:
            truth = targets[:, None] == np.arange(len(self.results[0]["classes"]))
        of = truth.any(0) & ~truth.all(0)
        if targets.ndim == 1 and len(of) == 2:
            of[0] = False
        return truth[:, of], scores[..., of]

    def _area(self, cases: np.ndarray) -> float:
        """Mean over seeds and classes; NaN where a class does not occur among ``cases``."""
        truth, scores = (values[..., cases, :] for values in self._areas_of)
        areas = [auc(s[:, i], truth[:, i]) for s in scores for i in range(truth.shape[1])]
        return float(np.mean(areas)) if areas else float("nan")


def _case_means(dice: np.ndarray) -> np.ndarray:
    """(cases,) of (cases, structures)."""
    return np.array([known_mean(row) for row in dice])


def _credited(dice: np.ndarray, other: np.ndarray) -> np.ndarray:
    """``dice`` with 1 where it has none and the ``other`` has."""
    return np.where(np.isnan(dice) & np.isfinite(other), 1.0, dice)


def _check_same_cases(results: Sequence[dict], folders: Sequence[Sequence[Path]]) -> None:
    """Raise InputError unless all ``results``, of the runs in ``folders``, have the same cases."""
    cases = [[row["id"] for row in result["rows"]] for result in results]
    for own, (folder, *_) in zip(cases, folders, strict=True):
        if own != cases[0]:
            raise InputError(
                f"{folder} was measured on other cases than {folders[0][0]}, so that they cannot "
                "be compared: the cache was prepared anew in between. Write run=OTHER, or remove "
                "the folders of the former cache."
            )


def bootstrap_over_subjects(
    statistic: Callable[[np.ndarray], float], subjects: Sequence[str], seed: int = 0
) -> tuple[float, float, float]:
    """``statistic`` of all cases, and the percentile interval with subjects drawn as wholes.

    It gets the indices of the cases; draws for which it is NaN do not count. With a single subject
    the interval is NaN.
    """
    names, owner = np.unique(subjects, return_inverse=True)
    if len(names) < 2:
        return statistic(np.arange(len(owner))), float("nan"), float("nan")
    members = [np.flatnonzero(owner == i) for i in range(len(names))]
    random, drawn = np.random.default_rng(seed), []
    for _ in range(_RESAMPLES):
        chosen = random.integers(len(names), size=len(names))
        drawn.append(statistic(np.concatenate([members[i] for i in chosen])))
    known = [value for value in drawn if np.isfinite(value)]
    low, high = np.quantile(known, [0.025, 0.975]) if known else (np.nan, np.nan)
    return statistic(np.arange(len(owner))), float(low), float(high)


def _curve(folder: Path) -> tuple[list[int], list[float]]:
    steps, scores = [], []
    for text in (folder / LOG).read_text(encoding="utf-8").splitlines():
        line = parse_figures(text)
        if WATCHED in line:
            steps.append(line["step"])
            scores.append(line[WATCHED])
    return steps, scores


def _mean_curve(
    curves: Sequence[tuple[list[int], list[float]]],
) -> tuple[list[int], list[float]]:
    """The mean of the folds at every step, which are the same steps in all of them."""
    return curves[0][0], np.mean([scores for _, scores in curves], axis=0).tolist()


def _together(results: Sequence[dict]) -> dict:
    """The results of several folds as those of one run that was measured on all their cases.

    An AUC is that of all scores together, though each fold's network gave its own.
    """
    if len(results) == 1:
        return results[0]
    rows = [row for result in results for row in result["rows"]]
    if "classes" in results[0]:
        probabilities = np.array([row["probabilities"] for row in rows])
        return results[0] | summarize_classes(probabilities, rows, results[0]["classes"])
    return results[0] | summarize(rows) | {"rows": rows}
