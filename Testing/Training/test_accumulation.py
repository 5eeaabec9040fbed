"""Parts of a batch that are accumulated make the same update as the whole, however they differ."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch

from cache_fixture import write_cache
from mim import masked_modelling, models_genesis
from mim.classification import ClassifiedCrops, classification_loss
from mim.data import Crops, read_cache
from mim.device import Generators, seed_everything
from mim.masking import draw_mask
from mim.methods import build_method
from mim.optim import OptimizerSettings, build_optimizer
from mim.recipe import load_recipe
from mim.schedule import TransferSettings
from mim.step import Stepper
from pretrain import PretrainRecipe

UNET = ["network.features=4,8,8", "network.blocks=1,1,1"]
VIT = ["network.patch=8,8,8", "network.width=24", "network.depth=1", "network.heads=2"]
SWIN = ["network.width=12", "network.depths=1,1,1,1", "network.window=2,2,2", "patch=32,32,32"]
MAE = ["method.decoder_width=16", "method.decoder_depth=1", "method.decoder_heads=2"]
METHODS = {
    "masked_unet": UNET,
    "s3d": UNET,
    "models_genesis": UNET,
    "mae": ["network.name=vit", *VIT, *MAE],
    "mae of normalized patches": ["network.name=vit", *VIT, *MAE, "method.target=normalized"],
    "simmim": ["network.name=vit", *VIT],
    "simmim on swin": ["network.name=swin", *SWIN],
}
OPTIMIZER = OptimizerSettings("sgd", lr=0.02, warmup=0, momentum=0.9, weight_decay=0)


@dataclass(frozen=True)
class MaskedCrops(Crops):
    """Crops with the mask that the method is to draw for them."""

    mask: torch.Tensor

    def part(self, rows):
        fields = {name: getattr(self, name)[rows] for name in ("images", "valid", "cases", "mask")}
        return replace(self, **fields)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return read_cache(write_cache(tmp_path_factory.mktemp("parts") / "cache", subjects=4))


def method_and_batch(cache, name, folder, monkeypatch):
    """A method with fresh weights, and four crops of which each has more padding."""
    (folder / "recipe.toml").write_text("")
    changes = [f"method.name={name.split()[0]}", *METHODS[name]]
    recipe = load_recipe(PretrainRecipe, folder / "recipe.toml", changes)
    patch = recipe.patch or cache.patch
    seed_everything(0)
    method = build_method(recipe, cache, patch)
    images = torch.randn(4, cache.channels, *patch)
    valid = torch.ones(4, 1, *patch, dtype=torch.bool)
    for i in range(4):
        valid[i, ..., patch[-1] - 4 * i :] = i == 0
    block = getattr(method, "block", (8, 8, 8))
    mask = draw_mask(images, block, 0.5, torch.Generator().manual_seed(0))
    drawn = []
    monkeypatch.setattr(masked_modelling, "draw_mask", lambda *_: drawn[-1].mask)
    monkeypatch.setattr(models_genesis, "distort", lambda crops, *_: crops.images * 0.5)

    def loss(crops):
        drawn.append(crops)
        return method.loss(crops, Generators.seeded(0))

    return method.model.train(), loss, MaskedCrops(images, valid, ("case",) * 4, mask)


def update(model, loss, parts):
    """Loss, norm of the gradient and weights after an update by the accumulated ``parts``."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stepper = Stepper(
        model, build_optimizer(model, OPTIMIZER), loss, OPTIMIZER, TransferSettings(), len(parts),
        bf16=False,
    )  # fmt: skip
    waiting = iter(parts)
    record = stepper.step(lambda: next(waiting), 1, 1)
    after = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(before)
    return record.loss.item(), record.norm.item(), after


def assert_same(found, expected):
    assert found[:2] == pytest.approx(expected[:2], rel=2e-6)
    for name, value in expected[2].items():
        torch.testing.assert_close(found[2][name], value, rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize("name", METHODS)
def test_padded_parts_make_the_update_of_the_whole_batch(cache, name, tmp_path, monkeypatch):
    model, loss, batch = method_and_batch(cache, name, tmp_path, monkeypatch)
    whole = update(model, loss, [batch])
    assert whole[1] > 0
    assert_same(update(model, loss, [batch.part(slice(0, 2)), batch.part(slice(2, 4))]), whole)
    singles = [batch.part(slice(i, i + 1)) for i in range(4)]
    assert_same(update(model, loss, singles), whole)


def test_a_part_in_which_nothing_is_scored_changes_nothing(cache, tmp_path, monkeypatch):
    model, loss, batch = method_and_batch(cache, "masked_unet", tmp_path, monkeypatch)
    empty = replace(batch, valid=torch.zeros_like(batch.valid))
    assert_same(update(model, loss, [batch, empty]), update(model, loss, [batch]))
    nothing = update(model, loss, [empty, empty])
    assert nothing[:2] == (0, 0)
    torch.testing.assert_close(nothing[2], dict(model.state_dict()), rtol=0, atol=0)


def test_weighted_classes_make_the_update_of_the_whole_batch():
    seed_everything(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    loss = classification_loss(model, torch.tensor([0.3, 1.0, 5.0]))
    images, targets = torch.randn(4, 1, 4, 4), torch.tensor([0, 0, 1, 2])
    batches = [
        ClassifiedCrops(images[rows], images[rows] > 0, ("case",) * 4, targets[rows])
        for rows in (slice(0, 4), slice(0, 2), slice(2, 4))
    ]
    assert_same(update(model, loss, batches[1:]), update(model, loss, batches[:1]))


def test_losses_without_a_weight_are_averaged():
    model = torch.nn.Linear(1, 1, bias=False)

    def loss(batch):
        return model(batch.value).sum()

    parts = [SimpleNamespace(value=torch.tensor([[v]]), cases=("case",)) for v in (1.0, 2.0, 6.0)]
    found = update(model, loss, parts)
    assert found[:2] == pytest.approx((3 * model.weight.item(), 3.0))


@pytest.mark.parametrize("name", ["simclr", "masked_contrastive"])
def test_contrast_says_that_accumulated_parts_leave_fewer_crops_to_tell_apart(
    cache, name, tmp_path, capsys
):
    (tmp_path / "recipe.toml").write_text("")
    changes = [f"method.name={name}", *UNET, "loop.batch=8"]
    for accumulate, said in ((1, ""), (2, "the 3 others of its part, not from 7")):
        more = [*changes, f"loop.accumulate={accumulate}"]
        recipe = load_recipe(PretrainRecipe, tmp_path / "recipe.toml", more)
        build_method(recipe, cache, cache.patch)
        assert said in (printed := capsys.readouterr().out)
        assert bool(said) == ("WARNING" in printed)
