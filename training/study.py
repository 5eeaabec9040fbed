"""Compare starting points of training: a grid of runs that ends in a table with intervals.

    python training/study.py training/recipes/study_hippocampus.toml cache=CACHE run=runs/study

A study has arms (from scratch, a pre-training, another), axes (labelled subjects, mask ratio, patch
size, depth of the decoder, crop, cache of another voxel size) and seeds. Every combination becomes
a named folder; all arms of a combination and seed share subjects, steps and order of the data. A
run that is finished is not run again, one that was stopped goes on. It ends in study.json,
study.md, scores.png and, with finetune.watch, curves.png.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from finetune import FinetuneRecipe, finetune
from mim.checkpoint import read_metadata
from mim.folds import cache_of
from mim.recipe import RecipeError, describe, differences, load_recipe
from mim.runs import LAST, changed_data
from mim.seen import seen_images
from mim.study_grid import Cell, Run, StudyRecipe, cells_of, runs_of
from mim.study_plots import plot_curves, plot_scores
from mim.study_runner import do_runs
from mim.study_table import format_table, rows_of
from MIMSegment.Logic.errors import MIMSegmentError
from MIMSegment.Logic.files import write_json, write_text
from pretrain import PretrainRecipe, pretrain

RECIPES = Path(__file__).resolve().parent / "recipes"


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0, or 2 after one line about what went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"keys and their defaults:\n{describe(StudyRecipe)}",
    )
    parser.add_argument("recipe", help="TOML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the recipe")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="name the runs and stop")
    arguments = parser.parse_intermixed_args(argv)
    try:
        recipe = load_recipe(StudyRecipe, arguments.recipe, arguments.overrides)
        if arguments.list:
            print("\n".join(run.folder.name for run in runs_of(cells_of(recipe))))
            return 0
        rows = run_study(recipe, max(1, arguments.jobs))
    except MIMSegmentError as error:
        print(f"study: error: {error}", file=sys.stderr)
        return 2
    print(format_table(rows, len(recipe.seeds)))
    curves = ", curves.png" if any("curve_steps" in row for row in rows) else ""
    print(f"Wrote {recipe.run}: study.json, study.md, scores.png{curves}")
    return 0


def run_study(recipe: StudyRecipe, jobs: int = 1) -> list[dict[str, Any]]:
    """Do every run that is not done yet; writes and returns the rows of `study_table.rows_of`."""
    cells = cells_of(recipe)
    runs = [run for run in runs_of(cells) if not is_done(run)]
    do_runs(runs, execute, jobs, lambda text: print(text, flush=True))
    return report(recipe, cells)


def report(recipe: StudyRecipe, cells: list[Cell]) -> list[dict[str, Any]]:
    """Write what the finished runs say into ``recipe.run``."""
    rows = [row for cell in cells for row in rows_of(cell, recipe.baseline, recipe.target)]
    root = Path(recipe.run)
    content = {"seeds": list(recipe.seeds), "baseline": recipe.baseline, "rows": rows}
    write_json(root / "study.json", content)
    write_text(root / "study.md", format_table(rows, len(recipe.seeds)) + "\n")
    plot_scores(rows, root / "scores.png")
    plot_curves(rows, root / "curves.png")
    return rows


def execute(run: Run) -> None:
    """Begin a run, or go on with it."""
    if run.kind == "pretrain":
        pretrain(_recipe(run), resume=True)
    else:
        finetune(_recipe(run), resume=True)


def is_done(run: Run) -> bool:
    """Whether a run is finished; raises RecipeError where its folder holds that of another recipe,
    of other data, or of one that started from another pre-training."""
    recipe, path = _recipe(run), run.folder / "recipe.json"
    if not path.exists():
        return False
    changes = differences(recipe, _moved(run, json.loads(path.read_text(encoding="utf-8"))))
    if changes:
        raise RecipeError(
            f"{run.folder} holds a run of another recipe ({'; '.join(changes)}); write run=OTHER, "
            "or remove the folder."
        )
    if (run.folder / LAST).exists():
        _check_origin(run, recipe, read_metadata(run.folder / LAST))
    if run.kind == "finetune":
        return (run.folder / "results.json").exists()
    return (run.folder / "reconstruction.png").exists()


def _moved(run: Run, stored: dict) -> dict:
    """``stored`` as it is where the whole study was moved: what it starts from is beside it."""
    before = Path(stored.get("pretrained", ""))
    if run.after is None or before.parts[-2:] != (run.after.folder.name, LAST):
        return stored
    return stored | {"pretrained": str(run.after.folder / LAST)}


def _check_origin(run: Run, recipe: PretrainRecipe | FinetuneRecipe, before: dict) -> None:
    """Raise RecipeError where a run, begun or finished, is of other data or weights than now."""
    change = ""
    if Path(recipe.cache).is_dir():  # finished runs need it no more
        cache = cache_of(recipe.cache, recipe.fold)
        if run.kind == "finetune" and recipe.patch:
            cache = cache.with_patch(recipe.patch)
        now = {"plan": cache.plan, "fingerprint": cache.fingerprint, "seen": seen_images(cache)}
        change = changed_data(recipe.cache, now, before)
    if not change and run.after is not None and before.get("start"):
        changes = differences(_recipe(run.after), before["start"])
        if changes:
            change = f"the pre-training that it started from was another ({'; '.join(changes)})"
    if change:
        raise RecipeError(
            f"{run.folder} holds a run that does not belong to this study: {change}; write "
            "run=OTHER, or remove the folder."
        )


def _recipe(run: Run) -> PretrainRecipe | FinetuneRecipe:
    source = Path(run.recipe)
    kind = PretrainRecipe if run.kind == "pretrain" else FinetuneRecipe
    return load_recipe(kind, source if source.exists() else RECIPES / source, run.overrides)


if __name__ == "__main__":
    sys.exit(main())
