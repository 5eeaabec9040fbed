"""What a classification reports: areas under ROC curves, sensitivities, a row for each image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mim.auc import delong_interval, sensitivity_at_specificity
from mim.statistics import span

SPECIFICITY = 0.9


def summarize_classes(
    probabilities: np.ndarray, entries: Sequence[dict], classes: Sequence[str]
) -> dict:
    """Figures of each class against the rest, their mean, accuracy, and ``rows`` of the images.

    ``probabilities`` (cases, classes) belong to ``entries``, cases of cases.json; the intervals are
    over subjects.
    """
    targets = np.asarray([entry["target"] for entry in entries])
    several = targets.ndim == 2
    truth = targets > 0.5 if several else targets.reshape(-1, 1) == np.arange(len(classes))
    owners = [entry["subject"] for entry in entries]
    figures = {
        name: _of_class(probabilities[:, i], truth[:, i], owners) for i, name in enumerate(classes)
    }
    areas = [figure["auc"] for figure in figures.values() if np.isfinite(figure["auc"])]
    right = (probabilities > 0.5) == truth if several else probabilities.argmax(1) == targets
    return {
        "auc_mean": float(np.mean(areas)) if areas else float("nan"),
        "accuracy": float(right.mean()) if len(entries) else float("nan"),
        "auc_per_class": figures,
        "classes": list(classes),
        "cases": len(entries),
        "subjects": len(set(owners)),
        "rows": [_row(*pair) for pair in zip(entries, probabilities, strict=True)],
    }


def class_table(summary: dict) -> str:
    """The summary as lines of text."""
    if not summary["cases"]:
        return "No held-back subject has a class: no AUC."
    figures = summary["auc_per_class"]
    width = max(len(name) for name in (*figures, "mean"))
    lines = [
        f"AUC on {summary['cases']} held-back images of {summary['subjects']} subjects "
        f"(accuracy {summary['accuracy']:.3f}; sensitivity at {SPECIFICITY:.0%} specificity):",
        f"  {'mean':{width}}  {summary['auc_mean']:.3f}",
    ]
    for name, found in figures.items():
        lines.append(
            f"  {name:{width}}  {found['auc']:.3f}  (95 % interval {span(*found['ci95'])})"
            f"  sensitivity {found['sensitivity']:.3f}"
        )
    return "\n".join(lines)


def _of_class(scores: np.ndarray, positive: np.ndarray, subjects: Sequence[str]) -> dict:
    area = delong_interval(scores, positive, subjects)
    sensitivity = sensitivity_at_specificity(scores, positive, SPECIFICITY, subjects)
    return {
        "auc": area.value,
        "ci95": [area.low, area.high],
        "sensitivity": sensitivity.value,
        "sensitivity_ci95": [sensitivity.low, sensitivity.high],
        "specificity": SPECIFICITY,
        "positive": int(positive.sum()),
    }


def _row(entry: dict, probabilities: np.ndarray) -> dict:
    return {
        "id": entry["id"],
        "subject": entry["subject"],
        "target": entry["target"],
        "probabilities": [float(p) for p in probabilities],
    }
