"""Detection of lesions as objects: average precision and FROC, by the rules of PI-CAI.

A predicted lesion can hit a reference lesion when they overlap by at least a tenth (intersection
over union). The assignment is one to one, with as many hits as possible and then as much overlap.
A predicted lesion that overlaps so but is left over, such as the other half of one that was hit, is
neither hit nor false. Saha et al., "Artificial intelligence and radiologists in prostate cancer
detection on MRI (PI-CAI)", Lancet Oncology 2024, with the defaults of their picai_eval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MINIMUM_OVERLAP = 0.1


@dataclass(frozen=True)
class CaseDetections:
    """What was found in one case.

    ``confidences`` of the predicted lesions, ``hits`` whether each of them is a reference lesion
    (None: it counts neither way), and the number of ``reference_lesions``, hit or missed.
    """

    confidences: tuple[float, ...]
    hits: tuple[bool | None, ...]
    reference_lesions: int

    @property
    def confidence(self) -> float:
        """Of the case as a whole: its most suspicious lesion's, 0 without any."""
        return max(self.confidences, default=0.0)


def match_lesions(
    predicted: np.ndarray, confidences: Sequence[float], reference: np.ndarray
) -> CaseDetections:
    """Match the lesions of one case.

    ``predicted`` (z, y, x) holds 0 and the lesion numbers 1..n, with ``confidences`` in that order;
    ``reference`` is a mask whose connected components are the lesions. Raises ValueError when the
    shapes or the number of confidences do not fit.
    """
    from scipy.ndimage import generate_binary_structure, label

    count = int(predicted.max(initial=0))
    if predicted.shape != reference.shape or count != len(confidences):
        raise ValueError(f"{count} lesions, {len(confidences)} confidences, or shapes differ")
    lesions, number = label(reference != 0, generate_binary_structure(3, 3))
    where = (predicted > 0) | (
        lesions > 0
    )  # of a whole scan the numbers below would fill gigabytes
    pairs = predicted[where].astype(np.int64) * (number + 1) + lesions[where]
    both = np.bincount(pairs, minlength=(count + 1) * (number + 1)).reshape(count + 1, number + 1)
    shared = both[1:, 1:]
    union = both[1:].sum(1)[:, None] + both[:, 1:].sum(0)[None, :] - shared
    hits = assign(shared / np.maximum(union, 1))
    return CaseDetections(tuple(map(float, confidences)), hits, number)


def assign(overlap: np.ndarray) -> tuple[bool | None, ...]:
    """The ``hits`` of `CaseDetections` from the ``overlap`` (predicted, reference) of lesions."""
    from scipy.optimize import linear_sum_assignment

    enough = overlap >= MINIMUM_OVERLAP
    # 1 for each pair: no overlap that could be won makes up for a hit that is lost.
    rows, columns = linear_sum_assignment(np.where(enough, 1 + overlap, 0), maximize=True)
    hit = set(rows[enough[rows, columns]])
    return tuple(
        True if row in hit else None if candidate else False
        for row, candidate in enumerate(enough.any(1))
    )


def match_by_size(predicted: np.ndarray, reference: np.ndarray) -> CaseDetections:
    """`match_lesions` of two masks (z, y, x): connected parts are lesions, larger are surer."""
    from scipy.ndimage import generate_binary_structure, label

    lesions, count = label(predicted, generate_binary_structure(3, 3))
    return match_lesions(lesions, np.bincount(lesions.ravel(), minlength=count + 1)[1:], reference)


def average_precision(cases: Sequence[CaseDetections]) -> float:
    """Area under precision against recall over all lesions; NaN when no case has a lesion."""
    _, hits, misses = _thresholds(cases)
    lesions = sum(case.reference_lesions for case in cases)
    if not lesions:
        return float("nan")
    recall = np.concatenate([[0.0], hits / lesions])
    precision = hits / np.maximum(hits + misses, 1)
    return float(np.sum(np.diff(recall) * precision))


def froc(
    cases: Sequence[CaseDetections], rates: Sequence[float] = (0.125, 0.25, 0.5, 1, 2, 4, 8)
) -> dict[float, float]:
    """Share of lesions found at each mean number of false lesions per case (``rates``)."""
    _, hits, misses = _thresholds(cases)
    lesions = sum(case.reference_lesions for case in cases)
    if not lesions:
        return {rate: float("nan") for rate in rates}
    per_case = misses / len(cases)
    return {rate: float(np.max(hits[per_case <= rate], initial=0)) / lesions for rate in rates}


def _thresholds(cases: Sequence[CaseDetections]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidences in falling order, each once, with hits and false lesions at or above each."""
    lesions = [pair for c in cases for pair in zip(c.confidences, c.hits, strict=True)]
    confidences = np.array([sure for sure, hit in lesions if hit is not None], float)
    hit = np.array([hit for _, hit in lesions if hit is not None], bool)
    levels, where = np.unique(-confidences, return_inverse=True)
    hits = np.bincount(where, hit, len(levels)).cumsum()
    misses = np.bincount(where, ~hit, len(levels)).cumsum()
    return -levels, hits, misses
