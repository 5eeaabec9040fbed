"""What a study consists of: every combination of its grid, arms and seeds as named runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from mim.folds import fold_names
from mim.recipe import RecipeError, normalized, setting, table

_SIDES = ("pretrain", "finetune", "both")


@dataclass(frozen=True)
class StudyRecipe:
    """The grid, and the recipes of its runs."""

    cache: str = setting("cache", "folder that prepare.py wrote", affects_result=False)
    run: str = setting("runs/study", "folder to write", affects_result=False)
    seeds: tuple[int, ...] = setting((0, 1, 2), "of weights, subsets and order")
    folds: int = setting(
        0,
        "parts of a cross-validation of the training subjects, each held back in turn; 0: measure "
        "on the subjects that the cache holds back",
    )
    arms: dict = table(
        "starting points by name: a list of a pre-training's recipe (in training/recipes) and "
        "key=value changes to it; an empty list is training from scratch; finetune.key=value "
        "changes the arm's fine-tuning"
    )
    baseline: str = setting("scratch", "the arm that all others are compared with")
    finetune: str = setting("finetune_cpu.toml", "recipe of the fine-tuning")
    finetune_overrides: tuple[str, ...] = setting((), "key=value changes to it")
    grid: dict = table(
        "axes: finetune.KEY, pretrain.KEY, both.KEY or cache, each with a list of values; every "
        "combination is measured"
    )
    target: float = setting(
        0.0, "score of which the first step is compared; 0: 95 % of the baseline's last"
    )

    def __post_init__(self):
        if not self.seeds or self.baseline not in self.arms or len(self.arms) < 2:
            raise RecipeError(
                "A study needs seeds, and in [arms] the baseline and at least one arm to compare."
            )
        if self.folds < 0 or self.folds == 1:
            raise RecipeError(f"folds={self.folds}: write two or more, or 0 for none.")
        for axis, values in self.grid.items():
            if axis != "cache" and axis.partition(".")[0] not in _SIDES:
                raise RecipeError(
                    f"grid.{axis}: write finetune.{axis}, pretrain.{axis} or both.{axis}."
                )
            if not isinstance(values, list) or not values:
                raise RecipeError(f"grid.{axis} must be a list of values.")


@dataclass(frozen=True)
class Run:
    """One command: ``kind`` is pretrain or finetune, ``after`` the run it starts from."""

    kind: str
    folder: Path
    recipe: str
    overrides: tuple[str, ...]
    after: Run | None = None


@dataclass(frozen=True)
class Cell:
    """One combination of the grid: ``runs[arm][seed]`` holds a fine-tuning for each fold."""

    values: Mapping[str, Any]
    runs: Mapping[str, Sequence[Sequence[Run]]] = field(hash=False)


def cells_of(recipe: StudyRecipe) -> list[Cell]:
    """All combinations; runs that would be the same in several of them are one."""
    plan = _Plan(recipe)
    cells = []
    for values in product(*recipe.grid.values()):
        cell = dict(zip(recipe.grid, values, strict=True))
        runs = {
            arm: [plan.finetunings(arm, cell, seed) for seed in recipe.seeds] for arm in recipe.arms
        }
        cells.append(Cell(cell, runs))
    return cells


def runs_of(cells: Sequence[Cell]) -> list[Run]:
    """Every run once, pre-trainings before what starts from them; seed by seed.

    Raises RecipeError where two different runs would have one folder.
    """
    ordered: dict[Path, Run] = {}
    seeds = range(max(len(runs) for cell in cells for runs in cell.runs.values()))
    for seed, cell in product(seeds, cells):
        for runs in cell.runs.values():
            for run in runs[seed]:
                for part in (run.after, run):
                    if part is not None:
                        known = ordered.setdefault(part.folder, part)
                        _check_one_run(known, part)
    return list(ordered.values())


def _check_one_run(first: Run, second: Run) -> None:
    if set(first.overrides) != set(second.overrides):
        both = " and ".join(sorted(set(first.overrides) ^ set(second.overrides)))
        raise RecipeError(
            f"{first.folder.name} would be two runs ({both}); an axis needs values that differ in "
            "the names of folders: give the caches different names."
        )


def name_of(axis: str, value: Any) -> str:
    """An axis with its value as a part of a folder's name, and as a table shows it."""
    if isinstance(value, list):
        text = "x".join(map(str, value))
    elif axis == "cache":
        text = Path(str(value)).name
    else:
        text = "all" if axis.endswith(".subjects") and value == 0 else str(value)
    return f"{axis.rpartition('.')[2]}={text}"


class _Plan:
    """Makes the runs of a recipe; equal pre-trainings of several arms are one."""

    def __init__(self, recipe: StudyRecipe):
        self.recipe, self.root = recipe, Path(recipe.run)
        self.owner: dict[tuple, str] = {}

    def finetunings(self, arm: str, cell: Mapping, seed: int) -> list[Run]:
        """One for each fold."""
        return [self._finetuning(arm, cell, seed, fold) for fold in fold_names(self.recipe.folds)]

    def _finetuning(self, arm: str, cell: Mapping, seed: int, fold: str) -> Run:
        recipe = self.recipe
        before = self._pretraining(arm, cell, seed, fold)
        sides = ("finetune", "both", "cache")
        if before is not None:
            sides = (*sides, "pretrain")
        changes = (
            *map(normalized, recipe.finetune_overrides),
            *_own(recipe.arms[arm], finetune=True),
            *_changes(cell, ("finetune", "both")),
            *self._common(cell, seed, fold),
        )
        if before is not None:
            changes = (*changes, f"pretrained={before.folder / 'last.pt'}")
        folder = self._folder(arm, cell, seed, fold, sides)
        return Run("finetune", folder, recipe.finetune, (*changes, f"run={folder}"), before)

    def _pretraining(self, arm: str, cell: Mapping, seed: int, fold: str) -> Run | None:
        entries = self.recipe.arms[arm]
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise RecipeError(f"arms.{arm} must be a list of texts.")
        changes = _own(entries, finetune=False)
        if not changes:
            return None
        source, *changes = changes
        if "=" in source:
            raise RecipeError(f"arms.{arm} must begin with a recipe, not with {source}.")
        owner = self.owner.setdefault((source, *changes), arm)
        sides = ("pretrain", "both", "cache")
        folder = self._folder(f"pretrain-{owner}", cell, seed, fold, sides)
        changes += [*_changes(cell, ("pretrain", "both")), *self._common(cell, seed, fold)]
        return Run("pretrain", folder, source, (*changes, f"run={folder}"))

    def _common(self, cell: Mapping, seed: int, fold: str) -> tuple[str, ...]:
        common = f"cache={cell.get('cache', self.recipe.cache)}", f"seed={seed}"
        return (*common, f"fold={fold}") if fold else common

    def _folder(self, name: str, cell: Mapping, seed: int, fold: str, sides: Sequence[str]) -> Path:
        parts = [name_of(*item) for item in cell.items() if item[0].partition(".")[0] in sides]
        parts += [f"seed{seed}", *([f"fold{fold.partition('/')[0]}"] if fold else [])]
        return self.root / re.sub(r"[^\w.=+-]+", "_", "-".join([name, *parts]))


def _own(entries: Sequence[str], finetune: bool) -> tuple[str, ...]:
    """The entries of an arm for one of its two commands."""
    prefix = "finetune."
    chosen = (entry for entry in map(normalized, entries) if entry.startswith(prefix) == finetune)
    return tuple(entry.removeprefix(prefix) for entry in chosen)


def _changes(cell: Mapping, sides: Sequence[str]) -> Iterator[str]:
    for axis, value in cell.items():
        side, _, key = axis.partition(".")
        if side in sides and key:
            yield f"{key}={value if isinstance(value, str) else json.dumps(value)}"
