"""What a study found: a row for each combination and arm, as numbers and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mim.comparison import NO_HARM, Difference
from mim.convergence import area_under_curve, speed_up
from mim.statistics import few_subjects, span
from mim.study_grid import Cell, name_of
from mim.study_scores import Scores


def rows_of(cell: Cell, baseline: str, target: float = 0.0) -> list[dict[str, Any]]:
    """A row for each arm, the baseline first; see `_row` for the keys."""
    scores = {
        arm: Scores(tuple(tuple(Path(run.folder) for run in folds) for folds in seeds))
        for arm, seeds in cell.runs.items()
    }
    base = scores.pop(baseline)
    target = target or 0.95 * _last_on_curves(base)
    rows = [_row(cell, baseline, base, target)]
    for arm, found in scores.items():
        rows.append(_row(cell, arm, found, target) | _against(found, base, target))
    return rows


def _row(cell: Cell, arm: str, scores: Scores, target: float) -> dict[str, Any]:
    curves = scores.curves
    low, high = scores.interval()
    row = {
        "cell": dict(cell.values),
        "arm": arm,
        "metric": scores.metric,
        "score": float(np.mean(scores.by_seed)),
        "score_ci95": [low, high],
        "score_by_seed": scores.by_seed,
        "training_subjects": scores.results[0].get("training_subjects"),
        "cases": scores.results[0]["cases"],
        "subjects": scores.results[0]["subjects"],
    }
    if all(len(steps) > 1 for steps, _ in curves):
        row |= {
            "area_under_curve": float(np.mean([area_under_curve(*curve) for curve in curves])),
            "curve_steps": curves[0][0],
            "curves_by_seed": [values for _, values in curves],
            "target": target,
        }
    return row


def _against(scores: Scores, baseline: Scores, target: float) -> dict[str, Any]:
    """Difference, verdict and how many times fewer steps the arm needs to the target."""
    result = scores.results[0]
    difference = Difference(*scores.difference(baseline), result["cases"], result["subjects"])
    row = {
        "difference": difference.mean,
        "difference_ci95": [difference.low, difference.high],
        "difference_by_seed": scores.differences_by_seed(baseline),
        "verdict": difference.verdict(NO_HARM),
    }
    if all(len(steps) > 1 for steps, _ in (*scores.curves, *baseline.curves)):
        row["speed_up"] = asdict(speed_up(baseline.curves, scores.curves, target))
    return row


def _last_on_curves(scores: Scores) -> float:
    last = [values[-1] for _, values in scores.curves if values]
    return float(np.mean(last)) if last else float("nan")


def format_table(rows: Sequence[Mapping[str, Any]], seeds: int) -> str:
    """The rows as a table in Markdown, and how to read it."""
    axes = list(rows[0]["cell"])
    titles = [*(axis.rpartition(".")[2] for axis in axes), "arm", rows[0]["metric"]]
    titles += ["95 % interval", "difference (95 % interval)", "", "area under curve", "speed-up"]
    lines = [_line(titles), _line(["---"] * len(titles))]
    for row in rows:
        cells = [name_of(axis, row["cell"][axis]).partition("=")[2] for axis in axes]
        deviation = f" ± {np.std(row['score_by_seed'], ddof=1):.3f}" if seeds > 1 else ""
        cells += [row["arm"], f"{row['score']:.3f}{deviation}", span(*row["score_ci95"])]
        cells += [_difference(row), _verdict(row), _area(row), _speed_up(row)]
        lines.append(_line(cells))
    lines += [
        "",
        f"Mean over {seeds} seed(s), ± their deviation, on {rows[0]['cases']} images of "
        f"{rows[0]['subjects']} held-back subjects. Intervals are about other subjects, with these "
        "seeds; how much hangs on the seeds, ± and the number of them that are ahead tell. A "
        "structure that only one of two arms invents counts as right for the other in their "
        "difference. Speed-up: steps of the baseline over steps of the arm to the target, of the "
        "seeds in which both reached it.",
    ]
    lines += filter(None, [few_subjects(rows[0]["subjects"])])
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _difference(row: Mapping[str, Any]) -> str:
    if "difference" not in row:
        return ""
    low, high = row["difference_ci95"]
    interval = f" ({low:+.3f} to {high:+.3f})" if np.isfinite([low, high]).all() else ""
    return f"{row['difference']:+.3f}{interval}"


def _verdict(row: Mapping[str, Any]) -> str:
    """ "better, ahead in 3 of 3 seeds"."""
    seeds = row.get("difference_by_seed", ())
    ahead = f", ahead in {sum(gain > 0 for gain in seeds)} of {len(seeds)} seeds"
    return row.get("verdict", "") + (ahead if len(seeds) > 1 else "")


def _area(row: Mapping[str, Any]) -> str:
    return f"{row['area_under_curve']:.3f}" if "area_under_curve" in row else ""


def _speed_up(row: Mapping[str, Any]) -> str:
    found = row.get("speed_up")
    if not found:
        return ""
    if not found["reached"]:
        return "target not reached"
    interval = f" ({found['low']:.2f} to {found['high']:.2f})" if found["reached"] > 1 else ""
    return f"{found['ratio']:.2f}×{interval}, {found['reached']}/{found['runs']}"
