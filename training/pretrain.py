"""Pre-train a network on unlabelled scans, by masked image modelling or a method it is compared to.

    python training/pretrain.py training/recipes/pretrain_cpu.toml cache=CACHE run=runs/first

Uses the images of the cache's training subjects only (self pre-training): no label, and nothing of
the subjects that are held back for testing. On several GPUs: torchrun --nproc-per-node 8 before it.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mim.architectures import cut_stages, network_choice
from mim.augment import SpatialSettings, augment_spatial
from mim.data import Cache, Crops, UnlabeledVolumes, draw_crops
from mim.device import Generators, Precision, resolve_device, seed_everything, uses_bf16
from mim.folds import FOLD, cache_of
from mim.limits import check_shared
from mim.loop import LoopSettings, TrainState, train
from mim.masking import MaskSettings
from mim.mean_loss import MeanLoss
from mim.memory import memory_told
from mim.methods import build_method, method_choice
from mim.more_caches import read_more
from mim.optim import OptimizerSettings
from mim.outputs import outputs_of
from mim.parallel import local_device, process_group, rank, shard
from mim.recipe import RecipeError, describe, load_recipe, section, setting
from mim.reconstruction import WATCH_SEED
from mim.runs import BEST, KEPT, LAST, continues, open_run, run_metadata
from mim.starting import go_on, start_from
from MIMSegment.Logic.errors import MIMSegmentError

_WRITTEN = f"""\
  {LAST}             weights and state, for finetune.py and --resume
  {BEST}             the same of the step with the lowest validation loss
  log.jsonl           loss of every step, validation loss
  recipe.json         the recipe as it was run
  reconstruction.png  masked scans and what the network made of them"""


@dataclass(frozen=True)
class PretrainRecipe:
    """Everything that decides a pre-training beside the data."""

    cache: str = setting("cache", "folder made by prepare.py", affects_result=False)
    run: str = setting("runs/pretrain", "folder for what this run writes", affects_result=False)
    pretrained: str = setting(
        "", "checkpoint to start from, ours or another program's; empty: from scratch"
    )
    fold: str = setting("", FOLD)
    more_caches: tuple[str, ...] = setting(
        (),
        "folders of other data sets with the same voxels and inputs, whose training subjects are "
        "learnt from too",
    )
    seed: int = setting(0, "of weights, crops, changes and masks")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1", affects_result=False)
    precision: Precision = setting("auto", "bf16, fp32, or bf16 where the hardware has it (auto)")
    patch: tuple[int, ...] = setting((), "crop (z, y, x) in voxels; empty: as planned for the data")
    validation_subjects: int = setting(
        4, "training subjects, at most a fifth, whose fixed crops only measure the loss"
    )
    validation_crops: int = setting(16, "how many fixed crops")
    memory_gib: float = setting(
        8.0, "images stay in the device's memory up to this size", affects_result=False
    )
    network: Any = network_choice("resenc_unet", "vit", "swin")
    mask: MaskSettings = section(MaskSettings)
    method: Any = method_choice()
    spatial: SpatialSettings = section(SpatialSettings)
    optimizer: OptimizerSettings = section(OptimizerSettings)
    loop: LoopSettings = section(LoopSettings)

    def __post_init__(self):
        check_shared(self.seed, self.patch, self.memory_gib)
        if self.validation_crops < 1 or self.validation_subjects < 0:
            raise RecipeError(
                "validation_crops must be at least 1, and validation_subjects not below 0."
            )


def pretrain(recipe: PretrainRecipe, resume: bool = False) -> None:
    """Run ``recipe``, or go on with it; raises MIMSegmentError with a sentence for the user."""
    device = local_device(resolve_device(recipe.device))
    with memory_told(device), process_group(device):
        _pretrain(recipe, device, resume)


def _pretrain(recipe: PretrainRecipe, device: torch.device, resume: bool) -> None:
    begin = time.perf_counter()
    cache = cache_of(recipe.cache, recipe.fold)
    more = read_more(cache, recipe.more_caches)
    bf16 = uses_bf16(recipe.precision, device)
    patch = _patch(recipe, cache)
    spacing = cache.plan["preprocessing"]["spacing"]

    seed_everything(recipe.seed)
    method = build_method(recipe, cache, patch)
    metadata = run_metadata(recipe.method.name, recipe, cache, method.network, more)
    started = ""
    if recipe.pretrained and not continues(recipe, resume):
        outputs = outputs_of(recipe.method.name, cache.plan)
        caches = (cache, *more)
        started = start_from(
            recipe.pretrained, method.model, caches, metadata, outputs, required=["encoder"]
        )
    model = method.model.to(device)
    if recipe.loop.shard:
        shard(model)

    generators = Generators.seeded(recipe.seed, device, rank())
    learn, spared = split_off_validation(cache.train, recipe.validation_subjects)
    volumes = UnlabeledVolumes(cache, learn, device, recipe.memory_gib, more)
    watched = UnlabeledVolumes(cache, spared, limit_gib=0)
    watch = method.watch(watched, patch, recipe.validation_crops, device)

    def draw() -> Crops:
        crops = draw_crops(volumes, patch, recipe.loop.micro_batch, generators.host).to(device)
        return augment_spatial(crops, recipe.spatial, spacing, generators)

    def compute_loss(crops: Crops) -> MeanLoss:
        return method.loss(crops, generators)

    validated: list[float] = []

    def validate() -> dict[str, float]:
        validated.append(watch.loss(model))
        return {"validation_loss": validated[-1]}

    run = Path(recipe.run)
    state = TrainState.fresh(model, recipe.optimizer, generators, ema=recipe.loop.ema)
    checkpoint = open_run(recipe, metadata, resume)
    if checkpoint:
        state.restore(checkpoint)
        go_on(metadata, checkpoint["metadata"])
    say = print if rank() == 0 else lambda text: None
    if started:
        say(started)
    subjects = len(learn) + sum(len(other.train) for other in more)
    sets = f" of {1 + len(more)} data sets" if more else ""
    if cut := cut_stages(recipe.network, method.network):
        say(cut)
    say(
        f"Pre-training on {len(volumes)} images of {subjects} subjects{sets}, crops of "
        f"{cache.extent(patch)}, {method}, "
        f"{'bfloat16' if bf16 else 'float32'} on {device}, "
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters."
    )
    speed = train(
        state,
        draw,
        compute_loss,
        recipe.loop,
        recipe.optimizer,
        run,
        bf16=bf16,
        validate=validate,
        metadata=metadata,
    )
    with state.averaged():
        watch.save_picture(model.eval(), run / "reconstruction.png", spacing)
    say(f"Pre-trained to step {state.step} in {time.perf_counter() - begin:.0f} s.")
    if validated:
        say(f"Validation loss {validated[-1]:.4f}, the lowest was {state.best:.4f}.")
    say(f"Speed: {speed.summary()}.\nIn {run}:\n{_WRITTEN}{_kept(recipe.loop)}")


def _kept(loop: LoopSettings) -> str:
    """The line about copies of the weights, where there are any."""
    steps = range(loop.keep_every, loop.steps + 1, loop.keep_every) if loop.keep_every else ()
    if not steps:
        return ""
    return (
        f"\n  {KEPT.format(steps[0])} to {KEPT.format(steps[-1])}: weights of every "
        f"{loop.keep_every} steps, to start other runs from (pretrained=)"
    )


def _patch(recipe: PretrainRecipe, cache: Cache) -> tuple[int, ...]:
    patch = recipe.patch or cache.patch
    if len(patch) != len(cache.patch):
        raise RecipeError(f"patch={patch}, but {recipe.cache} needs {len(cache.patch)} sizes.")
    block = recipe.mask.block
    if block and len(block) != len(patch):
        raise RecipeError(f"mask.block={block}, but a crop here has {len(patch)} sizes: {patch}.")
    return patch


def split_off_validation(subjects: Sequence[str], count: int) -> tuple[list[str], list[str]]:
    """Subjects to learn from and to validate on: ``count`` of them, at most a fifth.

    The same whatever a recipe's seed, so that validation losses of its seeds can be compared. Fewer
    than five subjects are too few to spare one; the loss is then measured on all of them.
    """
    subjects = sorted(subjects)
    watch = random.Random(WATCH_SEED).sample(subjects, min(count, len(subjects) // 5))
    learn = [subject for subject in subjects if subject not in watch]
    return learn, watch or learn


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0, or 2 after one line about what went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="keys and defaults:\n" + describe(PretrainRecipe),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", help="a .toml file, or the recipe.json of an earlier run")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as loop.steps=100")
    parser.add_argument("--resume", action="store_true", help="go on where the run in `run` ended")
    options = parser.parse_intermixed_args(arguments)
    try:
        pretrain(load_recipe(PretrainRecipe, options.recipe, options.overrides), options.resume)
    except MIMSegmentError as error:
        print(f"pretrain: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; --resume goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
