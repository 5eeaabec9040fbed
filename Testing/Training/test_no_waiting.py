"""A step of every method and task waits for nothing: no number is read back from the device, and
nothing is copied to it with waiting."""

import pytest
import torch

from cache_fixture import with_targets, write_cache
from device_reads import no_waiting
from finetune import FinetuneRecipe, draw, network_for, task_of
from mim import architectures
from mim.augment import augment_spatial
from mim.averaging import WeightAverage
from mim.data import UnlabeledVolumes, draw_crops, read_cache
from mim.device import Generators, seed_everything
from mim.loop import TrainState
from mim.methods import METHODS, build_method
from mim.recipe import load_recipe
from mim.schedule import TransferSettings
from mim.step import Stepper
from pretrain import PretrainRecipe

UNET = ["network.features=4,8,8", "network.blocks=1,1,1"]
VIT = ["network.patch=8,8,8", "network.width=24", "network.depth=1", "network.heads=2"]
SWIN = ["network.width=12", "network.depths=1,1,1,1", "network.window=2,2,2", "patch=32,32,32"]
MAE = ["method.decoder_width=16", "method.decoder_depth=1", "method.decoder_heads=2"]
PRETRAININGS = {
    **{name: [f"method.name={name}", *UNET] for name in METHODS if name not in ("mae", "simmim")},
    "mae": ["method.name=mae", "network.name=vit", *VIT, *MAE],
    "simmim": ["method.name=simmim", "network.name=vit", *VIT],
    "simmim on swin": ["method.name=simmim", "network.name=swin", *SWIN],
    "simclr on vit": ["method.name=simclr", "network.name=vit", *VIT],
}
FINETUNINGS = {
    "labels": [*UNET, "deep_supervision=true"],
    "regions": UNET,
    "one class": ["network.name=resenc_classifier", *UNET, "class_weights=balanced"],
    "several findings": ["network.name=vit_classifier", *VIT],
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = write_cache(tmp_path_factory.mktemp("waiting") / "cache", subjects=4)
    return read_cache(folder)


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text("[spatial]\naffine = 1.0\n")
    return path


def load(kind, recipe_file, changes):
    return load_recipe(kind, recipe_file, [*changes, "loop.batch=2", "optimizer.warmup=0"])


def pretraining(cache, recipe_file, name, device="cpu"):
    """One step as pretrain.py takes it, and the tensors and generator of the device."""
    recipe = load(PretrainRecipe, recipe_file, PRETRAININGS[name])
    seed_everything(0)
    patch = recipe.patch or cache.patch
    method = build_method(recipe, cache, patch)
    model = method.model.to(device).train()
    generators = Generators.seeded(0, device)
    volumes = UnlabeledVolumes(cache, cache.train, device)
    spacing = cache.plan["preprocessing"]["spacing"]

    def batch():
        crops = draw_crops(volumes, patch, 2, generators.host).to(torch.device(device))
        return augment_spatial(crops, recipe.spatial, spacing, generators)

    state = TrainState.fresh(model, recipe.optimizer, generators)
    step = stepper(state, lambda crops: method.loss(crops, generators), recipe)
    return lambda: step(batch), [*tensors_of(model), *volumes.images], generators


def finetuning(cache, recipe_file, name, device="cpu"):
    recipe = load(FinetuneRecipe, recipe_file, FINETUNINGS[name])
    seed_everything(0)
    cache = with_targets(cache, name)
    task = task_of(cache, recipe)
    network = architectures.build(network_for(task, cache, recipe)).to(device).train()
    generators = Generators.seeded(0, device)
    task.load(cache.train, torch.device(device), 8.0)
    state = TrainState.fresh(network, recipe.optimizer, generators)
    step = stepper(state, task.loss(network), recipe)
    volumes = getattr(task.volumes, "volumes", task.volumes)
    tensors = [*tensors_of(network), *volumes.images, *getattr(task.volumes, "labels", ())]
    return lambda: step(lambda: draw(task, cache, recipe, generators)), tensors, generators


def tensors_of(module):
    return [*module.parameters(), *module.buffers()]


def stepper(state, loss, recipe):
    steps = Stepper(
        state.model, state.optimizer, loss, recipe.optimizer, TransferSettings(), 1, bf16=True
    )
    average = WeightAverage(state.model, 0.9)

    def step(batch):
        steps.step(batch, 1, 2)
        average.update(1)

    return step


@pytest.mark.parametrize("name", PRETRAININGS)
def test_a_step_of_pretraining_waits_for_nothing(cache, recipe_file, name):
    step, tensors, generators = pretraining(cache, recipe_file, name)
    with no_waiting(tensors, [generators.device]) as watched:
        step()
    assert watched.operations > 100


@pytest.mark.parametrize("name", FINETUNINGS)
def test_a_step_of_finetuning_waits_for_nothing(cache, recipe_file, name):
    step, tensors, generators = finetuning(cache, recipe_file, name)
    with no_waiting(tensors, [generators.device]) as watched:
        step()
    assert watched.operations > 100


@pytest.mark.parametrize(
    "read",
    [
        lambda x: float(x.square().sum()),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: (x > 0).nonzero(),
        lambda x: torch.equal(x, 2 * x),
    ],
)
def test_reading_is_noticed_and_the_host_may_read_its_own(read):
    own, followed = torch.rand(4), torch.rand(4)
    with no_waiting([followed]):
        read(own)
        with pytest.raises(AssertionError, match="read back"):
            read(followed)


@pytest.mark.parametrize(
    "get", [lambda x: x.cpu(), lambda x: x.tolist(), lambda x: x.detach().numpy()]
)
def test_what_the_host_gets_of_the_device_is_noticed(get):
    own, followed = torch.rand(4), torch.rand(4)
    with no_waiting([followed]):
        get(own)
        with pytest.raises(AssertionError, match="read back"):
            get(2 * followed)


@pytest.mark.parametrize(
    "copy",
    [
        lambda own, there: own.to(there.device),
        lambda own, there: own.to(device=there.device, dtype=torch.float64),
        lambda own, there: own.to(there),
        lambda own, there: torch.tensor([1.0, 2.0], device=there.device),
        lambda own, there: torch.as_tensor([1.0, 2.0], device=there.device),
    ],
)
def test_a_copy_that_waits_is_noticed(copy):
    with no_waiting([there := torch.rand(4)]), pytest.raises(AssertionError, match="waits"):
        copy(torch.rand(4), there)


def test_a_copy_that_does_not_wait_is_on_the_device_and_its_source_on_the_host():
    own, there = torch.rand(4), torch.rand(4)
    with no_waiting([there]):
        moved = own.to(there.device, non_blocking=True)
        own.double().tolist()
        assert torch.zeros(2, device=there.device).to(torch.float64).dtype == torch.float64
        with pytest.raises(AssertionError, match="read back"):
            float(moved.sum())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize(
    ("make", "name"),
    [*((pretraining, n) for n in PRETRAININGS), *((finetuning, n) for n in FINETUNINGS)],
)
def test_a_step_on_the_gpu_does_not_synchronize(cache, recipe_file, make, name):
    step, *_ = make(cache, recipe_file, name, "cuda")
    step()  # libraries choose their algorithms at the first call
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
