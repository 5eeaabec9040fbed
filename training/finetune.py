"""Train a segmentation network, from a pre-trained checkpoint or from scratch.

    python training/finetune.py RECIPE [key=value ...] [--resume]

The run folder gets recipe.json, log.jsonl, last.pt and results.json: the Dice of every held-back
subject on its own image's grid. The last weights are the ones that are measured; nothing is chosen
by looking at the held-back subjects.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mim import architectures
from mim.architectures import network_choice
from mim.augment import SpatialSettings, augment_spatial
from mim.data import Cache, LabeledVolumes, draw_labeled_crops, read_cache
from mim.device import Generators, Precision, resolve_device, seed_everything, uses_bf16
from mim.evaluation import evaluate_cases, summarize, table, torch_predictor
from mim.intensity import IntensitySettings, augment_intensity
from mim.layers import layer_scales
from mim.loop import LoopSettings, TrainState, train
from mim.optim import OptimizerSettings
from mim.recipe import RecipeError, describe, load_recipe, section, setting
from mim.runs import LAST, open_run, run_metadata
from mim.schedule import TransferSettings
from mim.transfer import load_pretrained, part_of
from MIMSegment.Logic.errors import MIMSegmentError
from MIMSegment.Logic.files import replacing


@dataclass(frozen=True)
class FinetuneRecipe:
    """Everything that a fine-tuning run depends on."""

    cache: str = setting("cache", "folder that prepare.py wrote", affects_result=False)
    run: str = setting("runs/finetune", "folder to write", affects_result=False)
    pretrained: str = setting("", "checkpoint of pretrain.py to start from; empty: from scratch")
    parts: tuple[str, ...] = setting(("encoder", "decoder"), "what to take from it")
    subjects: int = setting(
        0, "labelled subjects to train on, the same first n for every arm; 0: all"
    )
    seed: int = setting(0, "of weights, order of subjects, crops and augmentation")
    device: str = setting("auto", "auto, cpu, cuda or cuda:1", affects_result=False)
    precision: Precision = setting("auto", "bf16 where the hardware multiplies in it, or fp32")
    patch: tuple[int, ...] = setting((), "crop (z, y, x) in voxels; empty: as planned for the data")
    foreground: float = setting(0.5, "share of crops centered on a structure, classes in turn")
    network: Any = network_choice("resenc_unet", "unetr")
    spatial: SpatialSettings = section(SpatialSettings)
    intensity: IntensitySettings = section(IntensitySettings)
    transfer: TransferSettings = section(TransferSettings)
    optimizer: OptimizerSettings = section(OptimizerSettings)
    loop: LoopSettings = section(LoopSettings)


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0, or 2 after one line about what went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"keys and their defaults:\n{describe(FinetuneRecipe)}",
    )
    parser.add_argument("recipe", help="TOML file, for example training/recipes/finetune_cpu.toml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the recipe")
    parser.add_argument("--resume", action="store_true", help="continue the run where it stopped")
    arguments = parser.parse_args(argv)
    try:
        recipe = load_recipe(FinetuneRecipe, arguments.recipe, arguments.overrides)
        results = finetune(recipe, arguments.resume)
    except MIMSegmentError as error:
        print(f"finetune: error: {error}", file=sys.stderr)
        return 2
    print(table(results) if results["cases"] else "No held-back subject has a label: no Dice.")
    print(f"Wrote {recipe.run}: {LAST}, log.jsonl, results.json, recipe.json")
    return 0


def finetune(recipe: FinetuneRecipe, resume: bool = False) -> dict:
    """Train by ``recipe``; returns what results.json holds: `evaluation.summarize` and the rows."""
    cache = read_cache(recipe.cache)
    if recipe.patch:
        cache = replace(cache, plan={**cache.plan, "patch": list(recipe.patch)})
    if not cache.plan["labels"]:
        raise RecipeError(f"{recipe.cache} has no labels to train on; pretrain.py needs none.")
    device = resolve_device(recipe.device)
    bf16 = uses_bf16(recipe.precision, device)
    seed_everything(recipe.seed)
    patch, classes = cache.plan["patch"], len(cache.plan["labels"]) + 1
    config = architectures.configure(recipe.network, cache.plan, patch, cache.channels, classes)
    network = architectures.build(config).to(device)
    network.check_patch(patch)
    metadata = run_metadata("segmentation", recipe, cache, config)
    checkpoint = open_run(recipe, metadata, resume)
    encoder = tuple(n for n, _ in network.named_parameters() if part_of(n) == "encoder")
    state = TrainState.fresh(
        network,
        recipe.optimizer,
        Generators.seeded(recipe.seed, device),
        ema=recipe.loop.ema,
        scales=layer_scales(network, encoder, recipe.transfer.layer_decay, recipe.transfer.head_lr),
        encoder=encoder,
    )
    if checkpoint is not None:
        state.restore(checkpoint)
    elif recipe.pretrained:
        print(load_pretrained(network, recipe.pretrained, recipe.parts).summary())
    volumes = LabeledVolumes(cache, training_subjects(cache, recipe), device)
    train(
        state,
        lambda: draw(volumes, cache.plan, recipe, state.generators),
        segmentation_loss(network),
        recipe.loop,
        recipe.optimizer,
        Path(recipe.run),
        bf16=bf16,
        transfer=recipe.transfer,
        metadata=metadata,
    )
    with state.averaged():
        results = evaluate(network, cache, bf16)
    results["training_subjects"] = len(training_subjects(cache, recipe))
    with replacing(Path(recipe.run) / "results.json") as temporary:
        temporary.write_text(json.dumps(results, indent=1) + "\n")
    return results


def training_subjects(cache: Cache, recipe: FinetuneRecipe) -> list[str]:
    """The subjects of the training split that have labels, or the first ``recipe.subjects``.

    The order depends on the seed alone, so subsets are nested and the same for every arm.
    """
    labeled = sorted({c["subject"] for c in cache.cases_of(cache.train) if c["label"]})
    random.Random(recipe.seed).shuffle(labeled)
    if recipe.subjects > len(labeled):
        raise RecipeError(f"subjects={recipe.subjects}, but only {len(labeled)} have labels.")
    return labeled[: recipe.subjects or None]


def draw(volumes: LabeledVolumes, plan: dict, recipe: FinetuneRecipe, generators: Generators):
    """A batch of augmented crops."""
    crops = draw_labeled_crops(
        volumes, plan["patch"], recipe.loop.micro_batch, generators.host, recipe.foreground
    )
    spacing = plan["preprocessing"]["spacing"]
    crops = augment_spatial(crops, recipe.spatial, spacing, generators)
    return augment_intensity(crops, recipe.intensity, spacing, generators)


def segmentation_loss(network: torch.nn.Module) -> Callable[..., Tensor]:
    """Soft Dice over the foreground classes plus cross-entropy, in float32."""
    from monai.losses import DiceCELoss

    criterion = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)

    def compute_loss(crops) -> Tensor:
        logits = network(crops.images)
        with torch.autocast(logits.device.type, enabled=False):
            return criterion(logits.float(), crops.labels)

    return compute_loss


def evaluate(network: torch.nn.Module, cache: Cache, bf16: bool) -> dict:
    """Dice on the held-back subjects that have a label."""
    held_back = set(cache.held_back)
    entries = [c for c in cache.cases if c["subject"] in held_back and c["label"]]
    rows = evaluate_cases(entries, cache.plan, torch_predictor(network, bf16))
    return {**summarize(rows), "rows": rows}


if __name__ == "__main__":
    sys.exit(main())
