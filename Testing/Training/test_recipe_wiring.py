"""What a recipe says arrives where it is computed: masks, crops, rates, weights, precision."""

import inspect
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import finetune
import pretrain
from cache_fixture import with_targets, write_cache
from mim import contrastive, contrastive_methods, masked_modelling, reconstruction
from mim.data import UnlabeledVolumes, draw_crops, read_cache
from mim.device import Generators
from mim.masking import draw_mask
from mim.methods import build_method
from mim.patches import token_mask
from mim.recipe import RecipeError, load_recipe

PATCH, BLOCK = (16, 16, 16), (8, 4, 4)
UNET = ("network.features=4,8,8", "network.blocks=1,1,1")
VIT = ("network.name=vit", "network.patch=4,4,4", "network.width=24", "network.depth=1",
       "network.heads=2")  # fmt: skip
MAE = ("method.decoder_width=16", "method.decoder_depth=1", "method.decoder_heads=2")
NETWORKS = {"mae": (*VIT, *MAE), "simmim": VIT}
MASKED = ("masked_unet", "s3d", "mae", "simmim")
AS_DRAWN = ("spatial.flip=false,false,false", "spatial.affine=0")
AS_BRIGHT = tuple(
    f"intensity.{change}=0"
    for change in ("noise", "blur", "low_resolution", "brightness", "contrast", "gamma")
)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """An empty recipe, and a cache of labelled scans that are smaller than the crops."""
    root = tmp_path_factory.mktemp("wiring")
    (root / "recipe.toml").write_text("")
    write_cache(root / "cache", shape=(12, 14, 12))
    plan = with_targets(read_cache(root / "cache"), "labels").plan
    (root / "cache/plan.json").write_text(json.dumps(plan))
    return root


BAD_OF_BOTH = [
    ("seed=-1", "seed"),
    ("seed=4294967296", "seed"),
    ("patch=0,0,0", "patch"),
    ("patch=16", "patch"),
    ("memory_gib=-1", "memory_gib"),
    ("optimizer.betas=0.9,1.0", "optimizer.betas"),
    ("optimizer.betas=-0.1,0.9", "optimizer.betas"),
    ("optimizer.momentum=0", "momentum"),
    ("optimizer.momentum=1", "momentum"),
]
BAD = [
    *((command, *case) for command in (pretrain, finetune) for case in BAD_OF_BOTH),
    (pretrain, "validation_subjects=-1", "validation_subjects"),
    (pretrain, "validation_crops=0", "validation_crops"),
    (finetune, "parts=encodr", "parts names .*encoder and decoder.*not encodr"),
    (finetune, "parts=[]", "parts names .*not nothing"),
    (finetune, "subjects=-1", "subjects"),
    (finetune, "watch=-1", "watch"),
    (finetune, "foreground=1.5", "foreground"),
    (finetune, "foreground=-0.1", "foreground"),
    (finetune, "loop.shard=true", r"loop\.shard is for pretrain\.py"),
    (finetune, "intensity.contrast_factor=-1,1", "contrast_factor"),
    (finetune, "intensity.noise_deviation=-1", "noise_deviation"),
    (finetune, "intensity.brightness_shift=-1", "brightness_shift"),
]


def recipe_of(work, command, *changes):
    kind = pretrain.PretrainRecipe if command is pretrain else finetune.FinetuneRecipe
    common = (f"cache={work / 'cache'}", f"run={work / 'run'}", "device=cpu", "loop.batch=8")
    return load_recipe(kind, work / "recipe.toml", [*common, *changes])


def method_of(work, name, *changes):
    network = NETWORKS.get(name, UNET)
    recipe = recipe_of(work, pretrain, f"method.name={name}", *network, *changes)
    return build_method(recipe, read_cache(work / "cache"), PATCH)


def volumes_of(work):
    cache = read_cache(work / "cache")
    return UnlabeledVolumes(cache, cache.train)


@torch.no_grad()
def learn_and_watch(method, volumes):
    """The crops that the method learnt from, and what it watches."""
    crops = draw_crops(volumes, PATCH, 2, torch.Generator().manual_seed(0))
    method.loss(crops, Generators.seeded(0))
    watch = method.watch(volumes, PATCH, 2, torch.device("cpu"))
    watch.loss(method.model)
    return crops, watch


@pytest.fixture
def masks(monkeypatch):
    """What masks were drawn: the arguments by name, and ``mask``."""
    found = []

    def drawn(*args, **kwargs):
        bound = inspect.signature(draw_mask).bind(*args, **kwargs)
        bound.apply_defaults()
        found.append(SimpleNamespace(**bound.arguments, mask=draw_mask(*args, **kwargs)))
        return found[-1].mask

    for module in (masked_modelling, reconstruction, contrastive_methods):
        monkeypatch.setattr(module, "draw_mask", drawn)
    return found


@pytest.mark.parametrize("name", [*MASKED, "masked_contrastive"])
def test_masks_of_training_and_validation_are_those_of_the_recipe(work, masks, name):
    ratio = (0.5, 0.5) if name == "mae" else (0.3, 0.8)
    method = method_of(
        work, name, "mask.block=8,4,4", "mask.strategy=slab", f"mask.ratio={ratio[0]},{ratio[1]}"
    )
    learn_and_watch(method, volumes_of(work))
    assert [(call.block, call.ratio, call.strategy) for call in masks] == [
        (BLOCK, ratio, "slab")
    ] * 2


def test_mae_encodes_every_token_of_the_visible_blocks(work, masks, monkeypatch):
    method, seen = method_of(work, "mae", "mask.block=8,8,8"), []
    encode = method.model.network.encode
    monkeypatch.setattr(
        method.model.network, "encode", lambda t: seen.append(t.shape[1]) or encode(t)
    )
    learn_and_watch(method, volumes_of(work))
    assert set(seen) == {16}  # 2 blocks of 8, of 8 tokens each
    assert all(token_mask(call.mask, (4, 4, 4)).sum(1).eq(16).all() for call in masks)


@torch.no_grad()
@pytest.mark.parametrize("name", MASKED)
def test_padding_is_neither_learnt_nor_watched(work, masks, name):
    method = method_of(work, name)
    crops, watch = learn_and_watch(method, volumes_of(work))
    losses = {
        "learnt": (crops, masks[0].mask, lambda c: method.loss(c, Generators.seeded(0)).mean),
        "watched": (watch.crops, watch.mask, lambda c: replace(watch, crops=c).loss(method.model)),
    }
    for crops, mask, loss in losses.values():
        padding, scan = ~mask & ~crops.valid, ~mask & crops.valid
        assert padding.any() and scan.any()
        as_it_is, *changed = (
            float(loss(replace(crops, images=torch.where(where, 5.0, crops.images))))
            for where in (torch.zeros_like(mask), padding, scan)
        )
        assert changed[0] == pytest.approx(as_it_is, rel=1e-5) and changed[1] > 2 * as_it_is


@pytest.mark.parametrize("name", ["simclr", "masked_contrastive"])
def test_views_are_compared_at_the_temperature_of_the_recipe(work, name, monkeypatch):
    compare, seen = contrastive.nt_xent, []

    def compared(first, second, temperature, *rest):
        seen.append(temperature)
        return compare(first, second, temperature, *rest)

    monkeypatch.setattr(contrastive, "nt_xent", compared)
    learn_and_watch(method_of(work, name, "method.temperature=0.2"), volumes_of(work))
    assert seen == [0.2, 0.2]


@pytest.mark.parametrize(("command", "change", "message"), BAD)
def test_a_value_that_cannot_be_is_refused_before_anything_is_read(work, command, change, message):
    with pytest.raises(RecipeError, match=message):
        recipe_of(work, command, change)


@pytest.mark.parametrize("change", ["optimizer.betas=0,0", "foreground=1", "foreground=0"])
def test_values_at_the_edge_of_what_can_be_are_taken(work, change):
    recipe_of(work, finetune, change)


class Handed(Exception):
    """What a command hands to the loop, raised before the first step."""


def handed(work, monkeypatch, command, *changes):
    """``state``, ``draw`` and ``options`` as the command gives them to `loop.train`."""

    def train(state, draw, compute_loss, loop, optimizer, run, **options):
        raise Handed(SimpleNamespace(state=state, draw=draw, options=options))

    monkeypatch.setattr(command, "train", train)
    run = pretrain.pretrain if command is pretrain else finetune.finetune
    with pytest.raises(Handed) as found:
        run(recipe_of(work, command, *UNET, *changes))
    return found.value.args[0]


def test_each_process_of_a_pretraining_draws_its_own_crops_and_masks(work, monkeypatch):
    drawn, noise = [], []
    for process in (0, 1, 1):
        monkeypatch.setattr(pretrain, "rank", lambda number=process: number)
        given = handed(work, monkeypatch, pretrain, *AS_DRAWN)
        drawn.append(given.draw().images)
        noise.append(torch.rand(9, generator=given.state.generators.device))
    for first, second, again in (drawn, noise):
        assert not torch.equal(first, second) and torch.equal(second, again)


@pytest.mark.parametrize(
    ("command", "change"),
    [
        (pretrain, "spatial.flip=true,true,true"),
        (pretrain, "spatial.affine=1"),
        (finetune, "spatial.flip=true,true,true"),
        (finetune, "spatial.affine=1"),
        (finetune, "intensity.brightness=1"),
    ],
)
def test_crops_are_changed_as_the_recipe_says(work, monkeypatch, command, change):
    none = (*AS_DRAWN, *AS_BRIGHT) if command is finetune else AS_DRAWN
    before, after = (
        handed(work, monkeypatch, command, *none, *changes).draw() for changes in ((), (change,))
    )
    assert before.cases == after.cases
    assert not torch.equal(before.images, after.images)
    moved = change.startswith("spatial")
    assert torch.equal(before.valid, after.valid) != moved
    if command is finetune:
        assert torch.equal(before.labels, after.labels) != moved


@pytest.mark.parametrize("command", [pretrain, finetune])
def test_the_loop_computes_in_the_precision_of_the_recipe(work, monkeypatch, command):
    found = [
        handed(work, monkeypatch, command, f"precision={name}").options["bf16"]
        for name in ("bf16", "fp32")
    ]
    assert found == [True, False]


def test_layers_learn_at_the_rates_of_the_recipe(work, monkeypatch):
    rates = ("transfer.layer_decay=0.5", "transfer.head_lr=10")
    state = handed(work, monkeypatch, finetune, *rates).state
    scales = {
        parameter: group["scale"]
        for group in state.optimizer.param_groups
        for parameter in group["params"]
    }
    expected = {"encoder.stem": 0.5**4, "encoder.stages.0": 0.5**3, "encoder.stages.1": 0.5**2,
                "encoder.stages.2": 0.5, "decoder": 10}  # fmt: skip
    for name, parameter in state.model.named_parameters():
        (rate,) = (rate for start, rate in expected.items() if name.startswith(f"{start}."))
        assert scales[parameter] == rate, name


def test_as_many_crops_are_centered_on_a_structure_as_the_recipe_says(work, monkeypatch):
    shares = []
    for foreground in (0, 1):
        changes = (f"foreground={foreground}", "patch=4,4,4", "loop.batch=32", *AS_DRAWN)
        crops = handed(work, monkeypatch, finetune, *changes).draw()
        shares.append((crops.labels > 0).flatten(1).any(1).float().mean().item())
    assert shares[0] < 0.95 and shares[1] == 1


@pytest.mark.parametrize(("weights", "rare"), [("none", 1.0), ("balanced", 2.0)])
def test_rare_classes_count_as_the_recipe_says(work, weights, rare):
    cache = with_targets(read_cache(work / "cache"), "one class")
    task = finetune.task_of(cache, recipe_of(work, finetune, f"class_weights={weights}"))
    task.load(cache.train[:3], torch.device("cpu"), limit_gib=1)  # of classes 0, 1 and 0
    crops = task.draw(8, torch.Generator().manual_seed(0))
    logits = torch.tensor([2.0, 0.0]).expand(8, 2)
    each = torch.tensor([1.0, rare])[crops.targets]
    expected = -(each * logits.log_softmax(1)[0, crops.targets]).sum() / each.sum()
    assert 0 < crops.targets.sum() < 8
    assert task.loss(lambda images: logits)(crops).mean.item() == pytest.approx(expected.item())
