"""Contrastive pre-training: the loss is the paper's, crops of all processes count, no collapse."""

import warnings

import pytest
import torch
from torch import multiprocessing, nn
from torch.nn import functional

from cache_fixture import write_cache
from mim.augment import SpatialSettings
from mim.contrastive import (
    Backbone,
    CollapseGuard,
    ContrastiveModel,
    ContrastiveSettings,
    embedding,
    nt_xent,
    spread,
    standardized,
)
from mim.contrastive_methods import Contrasting, FixedViews
from mim.data import Crops, UnlabeledVolumes, draw_crops, read_cache
from mim.device import Generators
from mim.intensity import IntensitySettings
from mim.loop import LoopSettings, TrainState, train
from mim.masked_contrastive import CombinedSettings, MaskedContrastiveModel
from mim.masking import MaskSettings, draw_mask
from mim.networks import NetworkConfig, build_network
from mim.optim import OptimizerSettings
from mim.recipe import RecipeError
from mim.run_log import TrainingError
from mim.sparse_unet import SparseMaskedUNet, SparseSettings
from mim.views import ViewSettings, resized_part, two_views
from mim.vit import VisionTransformer, ViTSettings, vit_config

CONFIG = NetworkConfig(1, 1, (4, 8), ((1, 1, 1), (2, 2, 2)), ((3, 3, 3),) * 2, (1, 1))


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(*shape, generator=generator), dim=1)


def reference(first, second, temperature):
    """The formula of the paper, one pair at a time."""
    z = torch.cat((first, second))
    total = 0.0
    for i in range(len(z)):
        partner = (i + len(first)) % len(z)
        logits = [(z[i] @ z[k] / temperature).exp() for k in range(len(z)) if k != i]
        total -= ((z[i] @ z[partner] / temperature).exp() / sum(logits)).log()
    return total / len(z)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_loss_is_that_of_the_paper(temperature):
    first, second = unit(5, 16), unit(5, 16, seed=1)
    ours, theirs = nt_xent(first, second, temperature), reference(first, second, temperature)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_loss_is_least_where_views_agree_and_crops_differ():
    views = functional.normalize(torch.eye(4), dim=1)
    same = functional.normalize(torch.ones(4, 4), dim=1)
    assert nt_xent(views, views, 0.1) < 0.01 < nt_xent(same, same, 0.1)


def contrast(first, second):
    features = standardized(torch.cat((first, second)))
    return nt_xent(*functional.normalize(features, dim=1).chunk(2), 0.5)


def _worker(rank, folder, results):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    first = unit(6, 8)[rank * 3 : rank * 3 + 3].requires_grad_()
    second = unit(6, 8, seed=1)[rank * 3 : rank * 3 + 3].requires_grad_()
    loss = contrast(first, second)
    loss.backward()
    # Plain lists: a tensor's memory goes with the process that sent it.
    results.put((rank, loss.item(), first.grad.tolist(), second.grad.tolist(), *validation(rank)))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_processes_equal_one_with_all_crops(tmp_path):
    results = multiprocessing.get_context("spawn").SimpleQueue()
    multiprocessing.spawn(_worker, (str(tmp_path), results), nprocs=2)
    parts = sorted(results.get() for _ in range(2))
    first, second = unit(6, 8).requires_grad_(), unit(6, 8, seed=1).requires_grad_()
    loss = contrast(first, second)
    loss.backward()
    assert loss.item() == pytest.approx((parts[0][1] + parts[1][1]) / 2, abs=1e-6)
    for index, whole in ((2, first.grad), (3, second.grad)):
        gathered = torch.tensor(parts[0][index] + parts[1][index]) / 2  # what DDP's mean gives
        assert torch.allclose(gathered, whole, atol=1e-6)
    # The fixed views, which every process holds, are not each other's negatives.
    assert [part[4] for part in parts] == pytest.approx([validation()[0]] * 2, abs=1e-6)
    # One that seems collapsed to a process does not stop it while the others wait for it.
    assert [part[5] for part in parts] == pytest.approx([0.11] * 2)


def validation(rank=0):
    """The loss of fixed views as a run computes it, and the spread where processes see others."""
    torch.manual_seed(0)
    settings = ContrastiveSettings(projection=4, hidden=8, standardize=True)
    model = ContrastiveModel(Own(), 3, settings).eval()
    fixed = batch(4).images, batch(4).images.flip(2)
    with torch.no_grad():
        loss = FixedViews(fixed, fixed[0], fixed, ()).loss(model)
    model.guard.spread.fill_(0.02 + 0.18 * rank)
    return loss, model.guard.check() if torch.distributed.is_initialized() else None


def test_spread_is_one_for_random_directions_and_zero_for_a_single_one():
    assert spread(unit(500, 64)).item() == pytest.approx(1, abs=0.05)
    assert spread(unit(1, 64).expand(50, -1)).item() == pytest.approx(0, abs=1e-6)


def test_guard_speaks_when_embeddings_have_collapsed():
    guard = CollapseGuard()
    guard.watch(unit(16, 32))
    assert guard.check() > 0.9
    for _ in range(60):
        guard.watch(unit(1, 32).expand(16, -1))
    with pytest.raises(TrainingError, match=r"collapsed.*0\.00.*loop\.batch"):
        guard.check()


@pytest.mark.parametrize("temperature", [0.1, 2.0])
def test_views_are_compared_at_the_temperature_of_the_recipe(temperature):
    model = ContrastiveModel(nn.Identity(), 8, ContrastiveSettings(temperature=temperature))
    found = model.compare(torch.randn(6, 8))
    assert found.loss.item() == pytest.approx(nt_xent(*found.embeddings, temperature).item())


class Own(nn.Module):
    """A network that says itself what its vector is."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 3)

    def embed(self, images):
        return self.layer(images.flatten(2).mean(2))


class Constant(Own):
    """A network for which all images are alike."""

    def embed(self, images):
        return super().embed(torch.zeros_like(images))


def test_training_on_features_that_are_all_the_same_is_stopped(tmp_path):
    settings = ContrastiveSettings(projection=4, hidden=4)
    method = Contrasting(
        ContrastiveModel(Constant(), 3, settings), {}, settings, SpatialSettings(), (1, 1, 1)
    )
    cache = read_cache(write_cache(tmp_path / "cache"))
    volumes = UnlabeledVolumes(cache, cache.train)
    watch = method.watch(volumes, (4, 4, 4), 2, torch.device("cpu"))
    optimizer, generators = OptimizerSettings(), Generators.seeded(0)
    loop = LoopSettings(steps=40, batch=2, validate_every=30, tensorboard=False)
    state = TrainState.fresh(method.model, optimizer, generators)
    with pytest.raises(TrainingError, match="collapsed"):
        train(
            state,
            lambda: draw_crops(volumes, (4, 4, 4), 2, generators.host),
            lambda crops: method.loss(crops, generators),
            loop,
            optimizer,
            tmp_path / "run",
            validate=lambda: {"validation_loss": watch.loss(method.model)},
        )
    assert state.step == 30  # the spread is the guard's 0.9 to that power


def test_features_that_hardly_differ_are_told_apart_once_they_are_standardized():
    torch.manual_seed(0)
    features = 1 + 0.01 * torch.randn(16, 8)
    alike, apart = (
        ContrastiveModel(nn.Identity(), 8, ContrastiveSettings(standardize=choice))
        for choice in (False, True)
    )
    apart.head.load_state_dict(alike.head.state_dict())
    assert spread(flat(alike.compare(features))) < 0.1 < 0.5 < spread(flat(apart.compare(features)))


def flat(contrast):
    return contrast.embeddings.flatten(0, 1)


def test_guard_does_not_count_validation():
    guard = CollapseGuard().eval()
    for _ in range(60):
        guard.watch(unit(1, 32).expand(16, -1))
    assert guard.check() == 1


@pytest.mark.parametrize("masked", [False, True])
def test_validation_stops_a_run_that_has_collapsed(tmp_path, masked):
    if masked:
        inner = SparseMaskedUNet(build_network(CONFIG), CONFIG, SparseSettings())
        model = MaskedContrastiveModel(inner, 8, CombinedSettings())
    else:
        model = ContrastiveModel(build_network(CONFIG), 8, ContrastiveSettings())
    method = Contrasting(
        model, CONFIG.to_dict(), ContrastiveSettings(), SpatialSettings(), (1, 1, 1),
        (4, 4, 4), MaskSettings() if masked else None,
    )  # fmt: skip
    cache = read_cache(write_cache(tmp_path / "cache"))
    watch = method.watch(UnlabeledVolumes(cache, cache.train), (8, 8, 8), 2, torch.device("cpu"))
    with torch.no_grad():
        assert watch.loss(model) > 0
        model.guard.spread.zero_()
        with pytest.raises(TrainingError, match="collapsed"):
            watch.loss(model)


def batch(count=8):
    """Crops that differ: each has its own pattern."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.randn(count, 1, 4, 4, 4, generator=generator)
    images = functional.interpolate(coarse, (8, 8, 8), mode="trilinear")
    valid = torch.ones(count, 1, 8, 8, 8, dtype=torch.bool)
    return Crops(images, valid, tuple(f"case_{i}" for i in range(count)))


def views(crops, generators):
    settings = (ViewSettings(), SpatialSettings(affine=0.5), IntensitySettings())
    return two_views(crops, *settings, (1, 1, 1), generators)


def test_training_lowers_the_loss_and_keeps_embeddings_apart():
    torch.manual_seed(0)
    model = ContrastiveModel(
        build_network(CONFIG), 8, ContrastiveSettings(projection=16, hidden=32)
    )
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    crops, generators, losses = batch(), Generators.seeded(0), []
    for _ in range(60):
        first, second = views(crops, generators)
        loss = model(first.images, second.images).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert model.guard.check() > 0.1


def test_views_differ_from_each_other_and_keep_the_shape():
    crops = batch(3)
    first, second = views(crops, Generators.seeded(0))
    assert first.images.shape == crops.images.shape == second.images.shape
    assert not torch.allclose(first.images, second.images, atol=0.1)
    assert first.cases == crops.cases


def test_same_seed_gives_same_views():
    pairs = [views(batch(3), Generators.seeded(4)) for _ in range(2)]
    assert torch.equal(pairs[0][1].images, pairs[1][1].images)


def test_resized_part_is_a_box_of_the_crop():
    ramp = torch.arange(16.0).expand(1, 1, 16, 16, 16).clone()
    crops = Crops(ramp, torch.ones_like(ramp, dtype=torch.bool), ("a",))
    part = resized_part(crops, ViewSettings(size=(0.5, 0.5)), torch.Generator().manual_seed(0))
    row = part.images[0, 0, 0, 0]
    assert torch.allclose(row.diff()[1:-1], torch.tensor(0.5), atol=1e-5)
    assert row.min() >= 0 and row.max() <= 15


def test_impossible_settings_are_refused():
    with pytest.raises(RecipeError, match="temperature"):
        ContrastiveSettings(temperature=0)
    with pytest.raises(RecipeError, match=r"views\.size"):
        ViewSettings(size=(0.8, 0.5))


def test_combined_loss_is_the_sum_and_blind_to_hidden_voxels():
    inner = SparseMaskedUNet(build_network(CONFIG), CONFIG, SparseSettings())
    with torch.no_grad():
        for parameter in inner.parameters():
            parameter.normal_(0, 0.3)
    model = MaskedContrastiveModel(inner, 8, CombinedSettings(contrast=0.5))
    first, second = (view.images for view in views(batch(4), Generators.seeded(0)))
    mask = draw_mask(torch.cat((first, second)), (4, 4, 4), 0.5, torch.Generator().manual_seed(0))
    result = model(first, second, mask)
    assert torch.allclose(result.loss, result.masked + 0.5 * result.contrast)
    other = torch.where(mask[:4], first, 7.0)
    changed = model(other, second, mask)
    assert torch.equal(changed.contrast, result.contrast)
    assert torch.equal(changed.prediction, result.prediction)
    result.loss.backward()
    assert inner.network.encoder.stem.convs[0].conv.weight.grad.any()


def test_padding_of_both_views_is_left_out_of_the_combined_loss():
    model = MaskedContrastiveModel(
        SparseMaskedUNet(build_network(CONFIG), CONFIG, SparseSettings()), 8, CombinedSettings()
    )
    images = torch.randn(4, 1, 8, 8, 8)
    mask = draw_mask(images, (4, 4, 4), 0.5, torch.Generator().manual_seed(0))
    valid = torch.ones_like(mask)
    valid[1, ..., 3:] = valid[2, :, 3:] = False
    result = model(*images.chunk(2), mask, valid)
    error = (result.prediction - images).square()[~mask & valid]
    assert result.masked.item() == pytest.approx(error.mean().item(), rel=1e-5)
    assert result.voxels == error.numel()


@pytest.mark.parametrize("name", ["resenc", "unetr", "swin", "own"])
def test_every_backbone_gives_one_vector_for_an_image(name):
    images = torch.randn(2, 1, 32, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nets = pytest.importorskip("monai.networks.nets")
        network, width = {
            "resenc": lambda: (build_network(CONFIG), 8),
            "unetr": lambda: (
                nets.UNETR(1, 2, (32,) * 3, 4, hidden_size=24, mlp_dim=24, num_heads=2),
                24,
            ),
            "swin": lambda: (nets.SwinUNETR(1, 2, feature_size=12), 192),
            "own": lambda: (Own(), 3),
        }[name]()
    vectors = embedding(network, images)
    assert vectors.shape == (2, width) and vectors.requires_grad


def test_the_same_transformer_as_for_masked_modelling_can_be_contrasted():
    settings = ViTSettings(patch=(16, 16, 16), width=24, depth=2, heads=2)
    backbone = Backbone(VisionTransformer(vit_config(settings, (32, 32, 32), 1)))
    assert embedding(backbone, torch.randn(2, 1, 32, 32, 32)).shape == (2, 24)
    assert "vit.blocks.1.attn.qkv.weight" in backbone.state_dict()  # UNETR's names
