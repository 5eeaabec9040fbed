"""Pictures of a study: scores along its grid, and how they came about step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mim.study_grid import name_of
from MIMSegment.Logic.files import replacing

_COLUMNS = 3


def plot_scores(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Every arm's score in every combination, with its interval and a dot for each seed."""
    pyplot = _pyplot()
    labels = list(dict.fromkeys(_cell_name(row) for row in rows))
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    width = max(6.0, 1.2 + 0.35 * len(labels) * len(arms))
    figure, axes = pyplot.subplots(figsize=(width, 4.2), layout="constrained")
    for number, arm in enumerate(arms):
        shift = (number - (len(arms) - 1) / 2) * 0.7 / len(arms)
        color = f"C{number}"
        for row in (row for row in rows if row["arm"] == arm):
            at = labels.index(_cell_name(row)) + shift
            axes.plot([at, at], row["score_ci95"], color=color, linewidth=2)
            seeds = row["score_by_seed"]
            axes.plot([at] * len(seeds), seeds, ".", color=color, alpha=0.5, markersize=5)
            axes.plot(at, row["score"], "o", color=color, markersize=7)
        axes.plot([], [], "o", color=color, label=arm)
    axes.set_xticks(range(len(labels)), labels, rotation=0 if len(labels) < 7 else 60)
    axes.set_ylabel(f"{rows[0]['metric']} of held-back images")
    axes.grid(axis="y", alpha=0.3)
    _legend(figure, axes)
    _save(figure, path)


def plot_curves(rows: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """The held-back score against steps, a panel for each combination; False without curves."""
    rows = [row for row in rows if "curve_steps" in row]
    if not rows:
        return False
    labels = list(dict.fromkeys(_cell_name(row) for row in rows))
    columns = min(_COLUMNS, len(labels))
    lines = -(-len(labels) // columns)
    figure, grid = _pyplot().subplots(
        lines, columns, figsize=(4.2 * columns, 3.2 * lines), squeeze=False, layout="constrained",
        sharey=True,
    )  # fmt: skip
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    for axes, label in zip(grid.flat, labels, strict=False):
        for row in (row for row in rows if _cell_name(row) == label):
            color, values = f"C{arms.index(row['arm'])}", np.array(row["curves_by_seed"])
            axes.plot(row["curve_steps"], values.mean(0), color=color, label=row["arm"])
            axes.fill_between(
                row["curve_steps"], values.min(0), values.max(0), color=color, alpha=0.15
            )
            axes.axhline(row["target"], color="gray", linestyle=":", linewidth=1)
        axes.set_title(label, fontsize="medium")
        axes.set_xlabel("steps of fine-tuning")
        axes.grid(alpha=0.3)
    for axes in grid.flat[len(labels) :]:
        axes.set_visible(False)
    grid[0, 0].set_ylabel(f"{rows[0]['metric']} (mean, range of seeds)")
    _legend(figure, grid[0, 0])
    _save(figure, path)
    return True


def _legend(figure, axes) -> None:
    """The arms above the picture, where they cover none of it."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=min(5, len(labels)), fontsize="small"
    )


def _cell_name(row: Mapping[str, Any]) -> str:
    return "\n".join(name_of(*item).replace("=", " ") for item in row["cell"].items()) or "all data"


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    _pyplot().close(figure)
