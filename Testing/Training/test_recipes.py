"""The shipped recipes: each builds what it names, pairs fit together, the docs name them all."""

import re
from pathlib import Path

import pytest
import torch

from finetune import FinetuneRecipe, network_for, task_of
from mim import architectures
from mim.data import Cache
from mim.methods import METHODS, build_method
from mim.recipe import load_recipe
from mim.study_grid import StudyRecipe, cells_of, runs_of
from mim.transfer import load_pretrained
from pretrain import PretrainRecipe

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "training" / "recipes"
PRETRAIN = sorted(path.stem for path in RECIPES.glob("*pretrain*.toml"))
FINETUNE = sorted(path.stem for path in RECIPES.glob("*finetune*.toml"))
# What a fine-tuning recipe is started from, and the share of its encoder that is then pre-trained.
PAIRS = [
    ("pretrain_cpu", "finetune_cpu"),
    ("phantom_pretrain", "phantom_finetune"),
    ("pretrain_mae_cpu", "finetune_unetr_cpu"),
    ("pretrain_mae_vit", "finetune_unetr"),
    ("pretrain_simmim_vit", "finetune_unetr"),
    ("pretrain_simclr_vit", "finetune_unetr"),
    ("pretrain_simmim_swin", "finetune_swin_unetr"),
    ("pretrain_mae_xray", "finetune_xray"),
    ("pretrain_mae_xray_cpu", "finetune_xray_cpu"),
    ("pretrain_simclr_xray_cpu", "finetune_xray_cpu"),
    ("pretrain_lesions", "finetune_lesions"),
    ("pretrain_lesions_contrast", "finetune_lesions"),
    ("pretrain_lesions_simclr", "finetune_lesions"),
    ("pretrain_mae_ct_organs", "finetune_ct_organs"),
    ("pretrain_mae_brain_tumors", "finetune_brain_tumors"),
    ("pretrain_s3d", "finetune_s3d"),
    ("pretrain_openmind_mae", "finetune_s3d"),
    ("pretrain_models_genesis", "finetune_s3d"),
    ("pretrain_volume_fusion", "finetune_s3d"),
]
PAIRS += [(name.replace("finetune", "pretrain"), name) for name in FINETUNE if "real" in name]
CHANNELS = {"pretrain_mae_brain_tumors": 4, "finetune_brain_tumors": 4}


def cache_for(name):
    """A cache of the kind that the recipe is for, without files."""
    lesions = "lesions" in name and "real" not in name
    dims, classes = (2 if "xray" in name else 3), "xray" in name or lesions
    stages = 4 if "cpu" in name or "phantom" in name else 6
    step = (2,) * dims
    plan = {
        "patch": [64] * 3 if dims == 3 else [1, 224, 224],
        "dims": dims,
        "preprocessing": {"spacing": [1.0] * 3},
        "strides": [(1,) * dims, *[step] * (stages - 1)],
        "kernel_sizes": [(3,) * dims] * stages,
        "labels": [] if classes else [{"value": 1, "name": "a"}, {"value": 2, "name": "b"}],
        "classes": ["well", "sick"] if classes else [],
        "multi_label": False,
    }
    if lesions:
        plan |= {"patch": [16, 32, 32]}
        plan["strides"] = [(1, 1, 1), (1, 2, 2), (2, 2, 2)]
        plan["kernel_sizes"] = [(1, 3, 3), (3, 3, 3), (3, 3, 3)]
    case = {"id": "a", "subject": "s", "shape": [CHANNELS.get(name, 1), *plan["patch"]]}
    return Cache(Path("none"), (case,), plan, {}, ("s",), ())


def small(kind, name):
    """The recipe with narrow layers; as many of them, in the same places."""
    path = RECIPES / f"{name}.toml"
    network = load_recipe(kind, path).network
    if hasattr(network, "features") and isinstance(network.features, tuple):
        count = len(network.features)
        changes = [f"network.features={[8] * count}", f"network.blocks={[1] * count}"]
    elif hasattr(network, "window"):
        changes = ["network.width=12", "network.heads=[3, 6, 12, 24]"]
    else:
        changes = ["network.width=24"]
    if kind is PretrainRecipe and load_recipe(kind, path).method.name == "mae":
        changes += ["method.decoder_width=24", "method.decoder_heads=4"]
    return load_recipe(kind, path, changes)


def pretrained(name):
    cache = cache_for(name)
    recipe = small(PretrainRecipe, name)
    return build_method(recipe, cache, recipe.patch or cache.patch)


def fine_tuned(name):
    cache, recipe = cache_for(name), small(FinetuneRecipe, name)
    cache = cache.with_patch(recipe.patch) if recipe.patch else cache
    network = architectures.build(network_for(task_of(cache, recipe), cache, recipe))
    network.check_patch(cache.patch)
    return network


@pytest.mark.parametrize("name", PRETRAIN)
def test_pretraining_recipe_builds_its_method(name):
    method = pretrained(name)
    assert method.network["name"] == small(PretrainRecipe, name).network.name
    assert sum(p.numel() for p in method.model.parameters() if p.requires_grad) > 0


@pytest.mark.parametrize("name", FINETUNE)
def test_finetuning_recipe_builds_its_network(name):
    assert sum(p.numel() for p in fine_tuned(name).parameters()) > 0


@pytest.mark.parametrize(("start", "goal"), PAIRS)
def test_recipes_that_belong_together_hand_on_the_whole_encoder(start, goal, tmp_path):
    torch.save({"model": pretrained(start).model.state_dict()}, tmp_path / "last.pt")
    report = load_pretrained(fine_tuned(goal), tmp_path / "last.pt", ("encoder",))
    assert report.shares["encoder"] == 1, report.summary()


OWN = ("cache=", "run=", "seed=", "pretrained=", "subjects=", "parts=")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("study*.toml")), ids=lambda path: path.stem)
def test_every_run_of_a_study_builds_what_it_names(path):
    recipe = load_recipe(StudyRecipe, path, ["seeds=0"])
    runs, built = runs_of(cells_of(recipe)), set()
    assert len({run.folder for run in runs}) == len(runs)
    for run in runs:
        same = (run.recipe, *(text for text in run.overrides if not text.startswith(OWN)))
        if same in built:
            continue
        built.add(same)
        kind = PretrainRecipe if run.kind == "pretrain" else FinetuneRecipe
        settings = load_recipe(kind, RECIPES / run.recipe, run.overrides)
        cache = cache_for(Path(run.recipe).stem)
        if run.kind == "pretrain":
            build_method(settings, cache, settings.patch or cache.patch)
            continue
        cache = cache.with_patch(settings.patch) if settings.patch else cache
        network = architectures.build(network_for(task_of(cache, settings), cache, settings))
        network.check_patch(cache.patch)


def test_the_study_of_masks_is_one_command_for_ratio_and_patch_and_decoder():
    recipe = load_recipe(StudyRecipe, RECIPES / "study_masks.toml", ["seeds=0"])
    ratios = [values[0] for values in recipe.grid["pretrain.mask.ratio"]]
    assert min(ratios) == 0.125 and max(ratios) == 0.875
    names = [run.folder.name for run in runs_of(cells_of(recipe)) if run.kind == "pretrain"]
    assert len(names) == 4 * 2 * 2
    assert "pretrain-mae-ratio=0.125x0.125-patch=8x8x8-decoder_depth=4-seed0" in names


def test_every_finetuning_recipe_has_something_to_start_from():
    from_files = {"finetune_lesions_imagenet"}  # torchvision's
    assert {goal for _, goal in PAIRS} | from_files == set(FINETUNE)


def table_of_methods():
    """Rows of the table in docs/methods.md: method and the names in backticks of each cell."""
    text = (ROOT / "docs" / "methods.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    rows = {}
    for line in lines:
        cells = [re.findall(r"`([^`]+)`", cell) for cell in line.strip("|").split("|")]
        rows.setdefault(cells[0][0], cells)
    return rows


def test_the_table_of_methods_names_every_method_and_files_that_exist():
    rows = table_of_methods()
    assert set(METHODS) <= set(rows)
    for method in METHODS:
        _, file, recipes, tests, *_ = rows[method]
        assert all((ROOT / "training" / "mim" / f"{name}.py").is_file() for name in file), method
        assert recipes and all((RECIPES / f"{name}.toml").is_file() for name in recipes), method
        files = [ROOT / "Testing" / "Training" / f"{name}.py" for name in tests]
        assert files and all(path.is_file() for path in files), method


def test_every_recipe_is_in_the_tables_of_methods_or_studies():
    pages = (ROOT / "docs" / name for name in ("methods.md", "real-packages.md"))
    named = set(re.findall(r"\b(\w+)(?=`|\.toml)", "".join(page.read_text() for page in pages)))
    assert {path.stem for path in RECIPES.glob("*.toml")} - named == set()
