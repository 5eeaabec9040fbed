"""Train a network to segment or to classify, from a pre-trained checkpoint or from scratch.

    python training/finetune.py RECIPE [key=value ...] [--resume]

The cache decides the task. The run folder gets recipe.json, log.jsonl, last.pt and results.json:
the Dice of every held-back subject on its own image's grid, or AUC with DeLong's interval. The last
weights are the ones that are measured; nothing is chosen by looking at the held-back subjects.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mim import architectures
from mim.architectures import network_choice
from mim.augment import SpatialSettings, augment_spatial
from mim.class_results import class_table
from mim.classification import Classification, ClassWeights
from mim.data import Cache, Crops
from mim.device import Generators, Precision, resolve_device, seed_everything, uses_bf16
from mim.evaluation import table
from mim.folds import FOLD, cache_of
from mim.intensity import IntensitySettings, augment_intensity
from mim.layers import layer_scales
from mim.learning_curve import WATCHED
from mim.limits import check_shared
from mim.loop import LoopSettings, TrainState, train
from mim.memory import memory_told
from mim.optim import OptimizerSettings
from mim.outputs import outputs_of
from mim.parallel import require_one_process
from mim.recipe import RecipeError, describe, load_recipe, section, setting
from mim.runs import LAST, open_run, run_metadata
from mim.schedule import TransferSettings
from mim.segmentation import Segmentation
from mim.sides import mirrored_sides
from mim.sources import SOURCES, check_moved, require_originals, with_sources
from mim.starting import go_on, start_from
from mim.subsets import stratified
from mim.transfer import PARTS, part_of
from MIMSegment.Logic.errors import MIMSegmentError
from MIMSegment.Logic.files import write_json


class EvaluationError(MIMSegmentError):
    """The network is trained, but could not be measured."""


@dataclass(frozen=True)
class FinetuneRecipe:
    """Everything that a fine-tuning run depends on."""

    cache: str = setting("cache", "folder that prepare.py wrote", affects_result=False)
    run: str = setting("runs/finetune", "folder to write", affects_result=False)
    sources: tuple[str, ...] = setting((), SOURCES, affects_result=False)
    pretrained: str = setting(
        "", "checkpoint to start from, ours or another program's; empty: from scratch"
    )
    parts: tuple[str, ...] = setting(PARTS, "what to take from it: encoder, decoder, or both")
    fold: str = setting("", FOLD)
    subjects: int = setting(
        0, "labelled subjects to train on, the same first n for every arm; 0: all"
    )
    seed: int = setting(0, "of weights, order of subjects, crops and augmentation")
    device: str = setting("auto", "auto, cpu, cuda or cuda:1", affects_result=False)
    precision: Precision = setting("auto", "bf16 where the hardware multiplies in it, or fp32")
    patch: tuple[int, ...] = setting((), "crop (z, y, x) in voxels; empty: as planned for the data")
    foreground: float = setting(0.5, "share of crops centered on a structure, classes in turn")
    deep_supervision: bool = setting(
        False, "outputs at every resolution of the decoder learn, where the network has them"
    )
    class_weights: ClassWeights = setting(
        "none", "of classification: none, or balanced, rare classes as much as common ones"
    )
    memory_gib: float = setting(
        8.0,
        "images, and as much of labels, stay in the device's memory up to this size",
        affects_result=False,
    )
    watch: int = setting(
        0,
        "held-back images whose score is logged every loop.validate_every steps, to see how fast "
        "a run learns; nothing is chosen by it; 0: none",
        affects_result=False,
    )
    network: Any = network_choice(
        "resenc_unet", "unetr", "swin_unetr", "resenc_classifier", "vit_classifier"
    )
    spatial: SpatialSettings = section(SpatialSettings)
    intensity: IntensitySettings = section(IntensitySettings)
    transfer: TransferSettings = section(TransferSettings)
    optimizer: OptimizerSettings = section(OptimizerSettings)
    loop: LoopSettings = section(LoopSettings)

    def __post_init__(self):
        check_shared(self.seed, self.patch, self.memory_gib)
        check_moved(self.sources)
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown or not self.parts:
            raise RecipeError(
                f"parts names what to take of the pre-training: {' and '.join(PARTS)}, or one of "
                f"them; not {', '.join(unknown) or 'nothing'}."
            )
        if self.subjects < 0 or self.watch < 0:
            raise RecipeError(f"subjects and watch are counts: {self.subjects}, {self.watch}.")
        if not 0 <= self.foreground <= 1:
            raise RecipeError(f"foreground is a share, from 0 to 1, not {self.foreground}.")
        if self.loop.shard:
            raise RecipeError("loop.shard is for pretrain.py; finetune.py trains in one process.")


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
    arguments = parser.parse_intermixed_args(argv)
    try:
        recipe = load_recipe(FinetuneRecipe, arguments.recipe, arguments.overrides)
        results = finetune(recipe, arguments.resume)
    except MIMSegmentError as error:
        print(f"finetune: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; --resume goes on from the last checkpoint", file=sys.stderr)
        return 130
    print(class_table(results) if "auc_per_class" in results else table(results))
    print(f"Wrote {recipe.run}: {LAST}, log.jsonl, results.json, recipe.json")
    return 0


def finetune(recipe: FinetuneRecipe, resume: bool = False) -> dict:
    """Train by ``recipe``; returns what results.json holds, see `Segmentation` or `Classification`.

    Raises MIMSegmentError with a sentence for the user.
    """
    require_one_process("finetune.py")
    device = resolve_device(recipe.device)
    with memory_told(device):
        return _finetune(recipe, device, resume)


def _finetune(recipe: FinetuneRecipe, device: torch.device, resume: bool) -> dict:
    cache = with_sources(cache_of(recipe.cache, recipe.fold), recipe.sources)
    if recipe.patch:
        cache = cache.with_patch(recipe.patch)
    task = task_of(cache, recipe)
    require_originals(task.originals(), cache)
    bf16 = uses_bf16(recipe.precision, device)
    seed_everything(recipe.seed)
    config = network_for(task, cache, recipe)
    network = architectures.build(config).to(device)
    network.check_patch(cache.patch)
    metadata = run_metadata(task.kind, recipe, cache, config)
    checkpoint = open_run(recipe, metadata, resume)
    if checkpoint is None and recipe.pretrained:
        parts = [part for part in task.parts if part in recipe.parts]
        if not parts:
            raise RecipeError(f"For {task.kind} write parts={','.join(task.parts)}.")
        outputs = outputs_of(task.kind, cache.plan) if len(parts) == len(task.parts) else ()
        print(start_from(recipe.pretrained, network, (cache,), metadata, outputs, parts))
    state = _fresh_state(network, recipe, device)  # averages begin with what was loaded
    if checkpoint is not None:
        state.restore(checkpoint)
        go_on(metadata, checkpoint["metadata"])
    subjects = training_subjects(task, cache, recipe)
    task.load(subjects, device, recipe.memory_gib)
    if cut := architectures.cut_stages(recipe.network, config):
        print(cut)
    if mirrored := mirrored_sides(cache.plan, recipe.spatial.flip):
        print(mirrored)
    print(f"Fine-tuning on {len(subjects)} subjects, crops of {cache.extent(cache.patch)}.")
    watch = task.watch(recipe.watch) if recipe.watch else None
    speed = train(
        state,
        lambda: draw(task, cache, recipe, state.generators),
        task.loss(network),
        recipe.loop,
        recipe.optimizer,
        Path(recipe.run),
        bf16=bf16,
        transfer=recipe.transfer,
        validate=watch and (lambda: {WATCHED: watch(network)}),
        metadata=metadata,
    )
    print(f"Trained to step {state.step}. Speed: {speed.summary()}.")
    results = _measured(task, network, state, recipe, bf16)
    results["training_subjects"] = len(subjects)
    write_json(Path(recipe.run) / "results.json", results)
    return results


def _measured(
    task: Segmentation | Classification,
    network: nn.Module,
    state: TrainState,
    recipe: FinetuneRecipe,
    bf16: bool,
) -> dict:
    """`task.evaluate`; an error says that the weights are not lost."""
    try:
        with state.averaged():
            return task.evaluate(network, bf16)
    except MIMSegmentError as error:
        raise EvaluationError(
            f"{error} The trained weights are in {Path(recipe.run) / LAST}; when that is mended, "
            "--resume measures them again."
        ) from error


def _fresh_state(network: nn.Module, recipe: FinetuneRecipe, device: torch.device) -> TrainState:
    encoder = tuple(n for n, _ in network.named_parameters() if part_of(n) == "encoder")
    scales = layer_scales(network, encoder, recipe.transfer.layer_decay, recipe.transfer.head_lr)
    return TrainState.fresh(
        network,
        recipe.optimizer,
        Generators.seeded(recipe.seed, device),
        ema=recipe.loop.ema,
        scales=scales,
        encoder=encoder,
    )


def task_of(cache: Cache, recipe: FinetuneRecipe) -> Segmentation | Classification:
    """What the cache's targets are for; raises RecipeError when it has none."""
    if cache.plan.get("classes"):
        return Classification(cache, recipe.class_weights)
    if cache.plan["labels"]:
        return Segmentation(cache, recipe.foreground)
    raise RecipeError(f"{recipe.cache} has no labels to train on; pretrain.py needs none.")


def network_for(task: Segmentation | Classification, cache: Cache, recipe: FinetuneRecipe) -> dict:
    """The configuration of the network; raises RecipeError when it does not fit the task."""
    name = recipe.network.name
    if name not in task.networks:
        known = " or ".join(task.networks)
        raise RecipeError(
            f"For {task.kind} write network.name={known}, not {name}; such recipes are "
            f"{task.recipes}."
        )
    config = architectures.configure(
        recipe.network, cache.plan, cache.patch, cache.channels, task.outputs
    )
    if recipe.deep_supervision:
        if "deep_supervision" not in config:
            raise RecipeError(f"{name} has one output; leave out deep_supervision.")
        config["deep_supervision"] = True
    return config


def training_subjects(
    task: Segmentation | Classification, cache: Cache, recipe: FinetuneRecipe
) -> list[str]:
    """The subjects of the training split that have labels, or the first ``recipe.subjects``.

    The order depends on the seed alone, so subsets are nested and the same for every arm. Each of
    them has the classes, or sets of structures, in the proportions of the whole.
    """
    labeled: dict[str, list[dict]] = {}
    for case in cache.cases_of(cache.train):
        if task.is_labeled(case):
            labeled.setdefault(case["subject"], []).append(case)
    if not labeled:
        raise RecipeError(
            f"No training subject of {recipe.cache} has a label. Are the label images where the "
            "data set says, as in labelsTr? prepare.py counts the labelled volumes that it finds."
        )
    strata = {subject: task.stratum(cases) for subject, cases in labeled.items()}
    order = stratified(strata, recipe.seed)
    if recipe.subjects > len(order):
        raise RecipeError(f"subjects={recipe.subjects}, but only {len(order)} have labels.")
    return order[: recipe.subjects or None]


def draw(
    task: Segmentation | Classification,
    cache: Cache,
    recipe: FinetuneRecipe,
    generators: Generators,
) -> Crops:
    """A batch of augmented crops with their targets."""
    crops = task.draw(recipe.loop.micro_batch, generators.host).to(generators.device.device)
    spacing = cache.plan["preprocessing"]["spacing"]
    crops = augment_spatial(crops, recipe.spatial, spacing, generators)
    return augment_intensity(crops, recipe.intensity, spacing, generators)


if __name__ == "__main__":
    sys.exit(main())
