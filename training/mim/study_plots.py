"""Pictures of a study: scores along its grid, and how they came about step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mim.study_grid import name_of
from MIMSegment.Logic.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 3
_MOST_BANDS = 4  # arms whose ranges can still be told apart where they overlap
_INCHES_PER_SCORE = 0.35
_INCHES_PER_LINE = 0.36  # of what is written below a combination, slanted
_HALF_GROUP = 0.38  # of the distance between two combinations


def plot_scores(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write `draw_scores` as a PNG."""
    _save(draw_scores(rows), path)


def plot_curves(rows: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Write `draw_curves` as a PNG; False without curves."""
    figure = draw_curves(rows)
    if figure is not None:
        _save(figure, path)
    return figure is not None


def draw_scores(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Every arm's score in every combination with its interval, and beside it a ring for each seed.

    A dotted line goes through the score of each combination's baseline, which is its first row. Of
    one combination the arms' names are written below them, of several there is a legend.
    """
    cells, arms = _names(rows)
    lines = 1 + max(cell.count("\n") for cell in cells)
    inches = max(_INCHES_PER_SCORE * len(arms), _INCHES_PER_LINE * lines)
    width = max(6.0, 1.2 + inches * len(cells))
    figure, axes = _pyplot().subplots(figsize=(width, 4.8), layout="constrained")
    for number, cell in enumerate(cells):
        own = [row for row in rows if _cell_name(row) == cell]
        ends = number - _HALF_GROUP, number + _HALF_GROUP
        axes.plot(ends, [own[0]["score"]] * 2, ":", color="gray", linewidth=1)
        for row in own:
            at, color = number + _shift(arms, row["arm"]), f"C{arms.index(row['arm'])}"
            beside = at + 0.5 * _HALF_GROUP / len(arms)
            seeds = row["score_by_seed"]
            axes.plot([at, at], row["score_ci95"], color=color, linewidth=2)
            axes.plot([beside] * len(seeds), seeds, "o", color=color, ms=4, fillstyle="none")
            axes.plot(at, row["score"], "o", color=color, ms=7)
    if len(cells) == 1:
        _write_below(axes, [_shift(arms, arm) for arm in arms], arms)
    else:
        _write_below(axes, range(len(cells)), cells)
        for number, arm in enumerate(arms):
            axes.plot([], [], "o", color=f"C{number}", label=arm)
    axes.plot([], [], ":", color="gray", label=rows[0]["arm"] if len(cells) == 1 else "baseline")
    key = "dot: mean of the seeds, bar: its 95 % interval, ring: a seed"
    axes.set_title(key, fontsize="small", color="dimgray")
    axes.set_ylabel(f"{rows[0]['metric']} of held-back images")
    axes.grid(axis="y", alpha=0.3)
    _legend(figure, axes)
    return figure


def _shift(arms: Sequence[str], arm: str) -> float:
    """Where an arm is drawn, from the middle of its combination."""
    return (arms.index(arm) - (len(arms) - 1) / 2) * 2 * _HALF_GROUP / len(arms)


def _write_below(axes, places: Sequence[float], labels: Sequence[str]) -> None:
    axes.set_xticks(places, labels)
    if max(len(line) for label in labels for line in label.split("\n")) * len(labels) > 60:
        axes.tick_params("x", rotation=40)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")


def draw_curves(rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """The held-back score against steps, a panel for each combination; None without curves.

    The line is the mean of the seeds; of few arms a band shows the range of their seeds.
    """
    rows = [row for row in rows if "curve_steps" in row]
    if not rows:
        return None
    cells, arms = _names(rows)
    columns = min(_COLUMNS, len(cells))
    lines = -(-len(cells) // columns)
    size = max(6.0, 4.2 * columns), max(4.2, 3.2 * lines)
    figure, grid = _pyplot().subplots(
        lines, columns, figsize=size, squeeze=False, layout="constrained", sharey=True
    )
    bands = len(arms) <= _MOST_BANDS
    for axes, cell in zip(grid.flat, cells, strict=False):
        for row in (row for row in rows if _cell_name(row) == cell):
            color, values = f"C{arms.index(row['arm'])}", np.array(row["curves_by_seed"])
            # The baseline, the first row, is seen also where others run along it.
            style = {"linestyle": "--", "zorder": 3} if row["arm"] == rows[0]["arm"] else {}
            axes.plot(row["curve_steps"], values.mean(0), color=color, label=row["arm"], **style)
            if bands:
                ends = values.min(0), values.max(0)
                axes.fill_between(row["curve_steps"], *ends, color=color, alpha=0.15, linewidth=0)
        axes.axhline(row["target"], color="gray", linestyle=":", linewidth=1, label="target")
        axes.set_title(cell, fontsize="medium")
        axes.set_xlabel("steps of fine-tuning")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    for axes in grid.flat[len(cells) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel(f"{rows[0]['metric']}, mean{' and range' if bands else ''} of seeds")
    _legend(figure, grid[0, 0])
    return figure


def _names(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """The combinations and the arms, in the order of the rows."""
    cells = dict.fromkeys(_cell_name(row) for row in rows)
    return list(cells), list(dict.fromkeys(row["arm"] for row in rows))


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
