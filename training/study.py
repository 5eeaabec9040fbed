"""Compare starting points of fine-tuning: a grid of runs that ends in a table with intervals.

    python training/study.py training/recipes/study_hippocampus.toml cache=CACHE run=runs/study

For every seed one pre-training (on the images of the training subjects, without labels); for every
seed, number of labelled subjects and starting point one fine-tuning. Both arms of a pair share
seed, subjects, steps and data order. A run that is finished is not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from finetune import FinetuneRecipe, finetune
from mim.recipe import RecipeError, describe, load_recipe, setting
from mim.runs import LAST
from mim.statistics import bootstrap_mean_ci
from MIMSegment.Logic.errors import MIMSegmentError
from MIMSegment.Logic.files import replacing
from pretrain import PretrainRecipe, pretrain

RECIPES = Path(__file__).resolve().parent / "recipes"
SCRATCH, PRETRAINED = "scratch", "pretrained"


@dataclass(frozen=True)
class StudyRecipe:
    """The grid and the recipes of its runs."""

    cache: str = setting("cache", "folder that prepare.py wrote", affects_result=False)
    run: str = setting("runs/study", "folder to write", affects_result=False)
    seeds: tuple[int, ...] = setting((0, 1, 2), "of weights, subsets and order")
    subjects: tuple[int, ...] = setting((8, 0), "numbers of labelled training subjects; 0: all")
    pretrain: str = setting("pretrain_cpu.toml", "recipe of the pre-training, in recipes/")
    pretrain_overrides: tuple[str, ...] = setting((), "key=value changes to it")
    finetune: str = setting("finetune_cpu.toml", "recipe of the fine-tuning, in recipes/")
    finetune_overrides: tuple[str, ...] = setting((), "key=value changes to it")

    def __post_init__(self):
        if not self.seeds or not self.subjects:
            raise RecipeError("seeds and subjects need at least one entry each.")


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0, or 2 after one line about what went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"keys and their defaults:\n{describe(StudyRecipe)}",
    )
    parser.add_argument("recipe", help="TOML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the recipe")
    arguments = parser.parse_args(argv)
    try:
        recipe = load_recipe(StudyRecipe, arguments.recipe, arguments.overrides)
        rows = run_study(recipe)
    except MIMSegmentError as error:
        print(f"study: error: {error}", file=sys.stderr)
        return 2
    print(format_table(rows))
    print(f"Wrote {Path(recipe.run) / 'study.json'}")
    return 0


def run_study(recipe: StudyRecipe) -> list[dict]:
    """Do every run that is not done yet; returns, and writes to study.json, the table's rows."""
    root = Path(recipe.run)
    for seed in recipe.seeds:
        _pretrain_once(recipe, root, seed)
        for subjects, arm in product(recipe.subjects, (SCRATCH, PRETRAINED)):
            _finetune_once(recipe, root, seed, subjects, arm)
    rows = [compare(root, recipe.seeds, subjects) for subjects in recipe.subjects]
    with replacing(root / "study.json") as temporary:
        temporary.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


def compare(root: Path, seeds: Sequence[int], subjects: int) -> dict:
    """One row: mean Dice of both arms over seeds, and their paired difference with an interval.

    The interval is a bootstrap over held-back subjects of the difference averaged over seeds.
    """
    dice = {
        arm: np.array([_dice_by_case(root, seed, subjects, arm) for seed in seeds])
        for arm in (SCRATCH, PRETRAINED)
    }
    owners = [row["subject"] for row in _results(root, seeds[0], subjects, SCRATCH)["rows"]]
    difference = (dice[PRETRAINED] - dice[SCRATCH]).mean(axis=0)
    mean, low, high = bootstrap_mean_ci(difference, owners)
    return {
        "subjects": _results(root, seeds[0], subjects, SCRATCH)["training_subjects"],
        "seeds": list(seeds),
        **{f"dice_{arm}": float(values.mean()) for arm, values in dice.items()},
        **{f"dice_{arm}_by_seed": values.mean(axis=1).tolist() for arm, values in dice.items()},
        "difference": mean,
        "difference_ci95": [low, high],
    }


def format_table(rows: Sequence[dict]) -> str:
    """The rows as text."""
    lines = ["labelled subjects   scratch           pre-trained       difference (95 % interval)"]
    for row in rows:
        arms = (
            f"{row[f'dice_{arm}']:.3f} ± {np.std(row[f'dice_{arm}_by_seed'], ddof=1):.3f}"
            if len(row["seeds"]) > 1
            else f"{row[f'dice_{arm}']:.3f}"
            for arm in (SCRATCH, PRETRAINED)
        )
        low, high = row["difference_ci95"]
        columns = "".join(f"{arm:18s}" for arm in arms)
        lines.append(
            f"{row['subjects']:17d}   {columns}{row['difference']:+.4f} ({low:+.4f} to {high:+.4f})"
        )
    count = len(rows[0]["seeds"])
    lines.append(f"Mean Dice of held-back images; ± is the deviation over {count} seeds.")
    return "\n".join(lines)


def _pretrain_once(recipe: StudyRecipe, root: Path, seed: int) -> None:
    run = root / f"pretrain-seed{seed}"
    overrides = [*recipe.pretrain_overrides, f"cache={recipe.cache}", f"run={run}", f"seed={seed}"]
    if not (run / "reconstruction.png").exists():
        pretrain(load_recipe(PretrainRecipe, RECIPES / recipe.pretrain, overrides), resume=True)


def _finetune_once(recipe: StudyRecipe, root: Path, seed: int, subjects: int, arm: str) -> None:
    run = _finetune_folder(root, seed, subjects, arm)
    start = root / f"pretrain-seed{seed}" / LAST if arm == PRETRAINED else ""
    overrides = [
        *recipe.finetune_overrides,
        f"cache={recipe.cache}",
        f"run={run}",
        f"seed={seed}",
        f"subjects={subjects}",
        f"pretrained={start}",
    ]
    if not (run / "results.json").exists():
        print(f"\n{run.name}")
        finetune(load_recipe(FinetuneRecipe, RECIPES / recipe.finetune, overrides), resume=True)


def _finetune_folder(root: Path, seed: int, subjects: int, arm: str) -> Path:
    return root / f"{arm}-{subjects or 'all'}subjects-seed{seed}"


def _results(root: Path, seed: int, subjects: int, arm: str) -> dict:
    path = _finetune_folder(root, seed, subjects, arm) / "results.json"
    return json.loads(path.read_text())


def _dice_by_case(root: Path, seed: int, subjects: int, arm: str) -> list[float]:
    rows = _results(root, seed, subjects, arm)["rows"]
    return [float(np.nanmean(list(row["dice"].values()))) for row in rows]


if __name__ == "__main__":
    sys.exit(main())
