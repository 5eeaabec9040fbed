"""SimMIM on Swin: what is seen, what is scored, and that the whole encoder arrives in SwinUNETR."""

import pytest
import torch

import pretrain
from cache_fixture import write_cache
from mim import architectures
from mim.checkpoint import load_checkpoint
from mim.contrastive import Backbone, embedding
from mim.data import read_cache
from mim.masking import draw_mask
from mim.methods import build_method
from mim.recipe import RecipeError, load_recipe
from mim.simmim_swin import SimMIMSwin
from mim.swin import SwinSettings, SwinUNETRSettings
from mim.transfer import load_pretrained

SIZE = (32, 64, 32)
TINY = {"width": 12, "depths": (1, 1, 1, 1), "window": (4, 4, 4)}
SMALL = ["network.width=12", "network.depths=1,1,1,1", "network.window=4,4,4", "device=cpu",
         "precision=fp32", "loop.tensorboard=false"]  # fmt: skip


def built(settings, outputs=1):
    torch.manual_seed(0)
    config = architectures.configure(settings, {}, SIZE, 1, outputs)
    return architectures.build(config)


def model(loss="l1"):
    return SimMIMSwin(built(SwinSettings(**TINY)), 1, loss)


def images(seed=0, batch=1):
    return torch.randn(batch, 1, *SIZE, generator=torch.Generator().manual_seed(seed))


def draw(block=(16, 16, 16), ratio=0.75):
    return draw_mask(images(), block, ratio, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("garbage", [1e4, float("nan")])
def test_what_is_hidden_changes_no_feature_and_what_is_visible_does(garbage):
    network, mask = model(), draw()
    spoiled = torch.where(mask, images(), torch.tensor(garbage))
    features = network.encode(images(), mask)
    assert torch.equal(features, network.encode(spoiled, mask))
    spoiled = torch.where(mask, images(1), images())
    assert not torch.allclose(features, network.encode(spoiled, mask), atol=1e-3)


@pytest.mark.parametrize(("block", "ratio"), [((2, 2, 2), 0.6), ((16, 16, 16), 0.75)])
def test_exactly_the_tokens_of_hidden_blocks_become_the_learnt_one(block, ratio, monkeypatch):
    network, seen = model(), []
    encode = network.network.encode
    monkeypatch.setattr(network.network, "encode", lambda t: seen.append(t) or encode(t))
    network.encode(images(), draw(block, ratio))
    replaced = (seen[0] == network.mask_token).all(1)
    tokens = 16 * 32 * 16
    step = tokens // replaced[0].numel() * (block[0] // 2) ** 3
    visible = int((1 - ratio) * (tokens // step) + 1e-6) * step
    assert int(replaced.sum()) == tokens - visible
    kept = network.network.tokens(images())
    assert torch.equal(seen[0].permute(0, 2, 3, 4, 1)[~replaced],
                       kept.permute(0, 2, 3, 4, 1)[~replaced])  # fmt: skip


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_the_loss_is_of_hidden_voxels_only_and_padding_is_left_out(loss):
    network, mask = model(loss).eval(), draw()
    result = network(images(), mask)
    error = (result.prediction - images()).abs() if loss == "l1" else None
    error = (result.prediction - images()).square() if error is None else error
    assert torch.allclose(result.loss, error[~mask].mean(), atol=1e-5)
    valid = torch.ones_like(mask)
    valid[..., 20:] = False
    assert torch.allclose(network(images(), mask, valid).loss, error[~mask & valid].mean())


def test_the_transformer_computes_what_monais_does():
    encoder = built(SwinSettings(**TINY, convs=True))
    theirs = encoder.swinViT(images())[-1]
    assert torch.equal(encoder(images()), theirs) and theirs.shape[1] == encoder.out_width
    assert torch.equal(embedding(Backbone(encoder), images()), theirs.flatten(2).mean(2))


def test_one_batch_can_be_learnt():
    network, mask = model(), draw()
    scan = torch.nn.functional.avg_pool3d(images(), 8).repeat_interleave(8, 2)
    scan = scan.repeat_interleave(8, 3).repeat_interleave(8, 4) * 20
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    losses = []
    for _ in range(25):
        loss = network(scan, mask).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0], losses[::6]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swin") / "cache"
    return write_cache(folder, shape=(32, 60, 32), patch=SIZE)


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "swin.toml"
    path.write_text("[method]\nname = 'simmim'\n")
    return path


def test_a_pretraining_arrives_in_swin_unetr_with_every_tensor(
    cache, recipe_file, tmp_path, capsys
):
    run = [f"run={tmp_path}", "loop.steps=2", "loop.batch=1", "validation_crops=1"]
    arguments = [str(recipe_file), f"cache={cache}", "network.name=swin", *run, *SMALL]
    assert pretrain.main(arguments) == 0, capsys.readouterr().err
    assert (tmp_path / "reconstruction.png").stat().st_size > 5000
    content = load_checkpoint(tmp_path / "last.pt")
    assert content["metadata"]["network"]["name"] == "swin"
    target = built(SwinUNETRSettings(**TINY), 3)
    report = load_pretrained(target, tmp_path / "last.pt", ("encoder",))
    encoder = {k: v for k, v in content["model"].items() if k.startswith("network.swinViT.")}
    learnt = [name for name in encoder if "relative_position_index" not in name]
    assert report.shares["encoder"] == 1 and not report.adapted
    assert f"loaded   {len(learnt):4d} tensors" in report.summary()
    assert "encoder 100.0%" in report.summary()
    prefix = "network.swinViT."
    built(SwinUNETRSettings(**TINY), 3).swinViT.load_state_dict(
        {name.removeprefix(prefix): tensor for name, tensor in encoder.items()}, strict=True
    )
    for name, tensor in target.swinViT.state_dict().items():
        assert torch.equal(tensor, content["model"][prefix + name]), name


def test_blocks_follow_the_recipe_and_are_16_voxels_without_it(cache, recipe_file):
    def method(*more):
        overrides = [f"cache={cache}", "network.name=swin", *SMALL, *more]
        recipe = load_recipe(pretrain.PretrainRecipe, recipe_file, overrides)
        return build_method(recipe, read_cache(cache), SIZE)

    assert method().block == (16, 16, 16)
    assert method("mask.block=32,32,32").block == (32, 32, 32)
    with pytest.raises(RecipeError, match="whole tokens"):
        method("mask.block=3,3,3")


@pytest.mark.parametrize(
    ("settings", "patch", "message"),
    [
        (SwinSettings(), (48, 64, 32), "multiples of 32"),
        (SwinUNETRSettings(**TINY), (32, 32, 32), "coarsest voxel"),
    ],
)
def test_crops_that_do_not_fit_are_refused(settings, patch, message):
    with pytest.raises(RecipeError, match=message):
        architectures.build(architectures.configure(settings, {}, patch, 1, 1)).check_patch(patch)


@pytest.mark.parametrize("width", [0, -12, 20])
def test_widths_that_heads_do_not_share_are_refused(width):
    with pytest.raises(RecipeError, match=r"network\.width must be a multiple of 12"):
        SwinSettings(width=width)
