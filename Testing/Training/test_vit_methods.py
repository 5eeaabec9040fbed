"""MAE and SimMIM on vision transformers: what is seen, what is scored, what arrives in UNETR."""

import math
from itertools import product

import pytest
import torch

from mim import architectures
from mim.mae import MAESettings, MaskedAutoencoderViT
from mim.masking import block_mask, upsample_mask, visible_blocks
from mim.optim import OptimizerSettings, build_optimizer
from mim.patches import (
    normalize_patches,
    patchify,
    sincos_positions,
    token_mask,
    unpatchify,
)
from mim.recipe import RecipeError
from mim.simmim import SimMIM, SimMIMSettings
from mim.transfer import load_pretrained
from mim.unetr import UNETRSettings, upsampling
from mim.vit import VisionTransformer, ViTSettings, vit_config

SIZE, PATCH, CHANNELS = (8, 16, 12), (2, 4, 6), 2
GRID = (4, 4, 2)
TINY = ViTSettings(patch=PATCH, width=24, depth=2, heads=2)


def transformer(**settings):
    torch.manual_seed(0)
    chosen = ViTSettings(**{**TINY.__dict__, **settings})
    return VisionTransformer(vit_config(chosen, SIZE, CHANNELS))


def images(seed=0, batch=2):
    return torch.randn(batch, CHANNELS, *SIZE, generator=torch.Generator().manual_seed(seed))


def draw(ratio=0.75, batch=2):
    blocks = block_mask(batch, GRID, ratio, torch.Generator().manual_seed(1))
    return upsample_mask(blocks, PATCH, SIZE)


def mae(ratio=0.75, **settings):
    defaults = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
    visible = visible_blocks(32, ratio)
    return MaskedAutoencoderViT(transformer(), MAESettings(**{**defaults, **settings}), visible)


@pytest.mark.parametrize("patch", [(2, 4, 6), (1, 8, 3), (8, 16, 12), (4, 1, 1)])
def test_patches_put_together_are_the_image(patch):
    grid = [n // p for n, p in zip(SIZE, patch, strict=True)]
    assert torch.equal(unpatchify(patchify(images(), patch), grid, patch), images())


def test_patches_of_pictures_put_together_are_the_picture():
    picture = torch.randn(2, 3, 12, 8)
    assert torch.equal(unpatchify(patchify(picture, (4, 2)), (3, 4), (4, 2)), picture)


def test_normalized_targets_have_mean_0_and_variance_1():
    patches, mean, deviation = normalize_patches(patchify(5 + 3 * images(), PATCH))
    assert torch.allclose(patches.mean(2), torch.zeros(()), atol=1e-5)
    assert torch.allclose(patches.var(2, correction=0), torch.ones(()), atol=1e-4)
    back = unpatchify(patches * deviation + mean, GRID, PATCH)
    assert torch.allclose(back, 5 + 3 * images(), atol=1e-5)


@pytest.mark.parametrize("ratio", [0.125, 0.5, 0.6, 0.75, 0.875])
def test_the_encoder_sees_exactly_the_visible_tokens(ratio, monkeypatch):
    model, seen = mae(ratio), []
    original = model.network.encode
    monkeypatch.setattr(model.network, "encode", lambda t: seen.append(t.shape) or original(t))
    mask = draw(ratio)
    model(images(), mask)
    assert seen == [(2, int((1 - ratio) * 32 + 1e-6), 24)]
    assert token_mask(mask, PATCH).sum(1).tolist() == [seen[0][1]] * 2


@pytest.mark.parametrize("garbage", [1e4, float("nan")])
def test_what_is_hidden_changes_no_feature(garbage):
    model, mask = mae(), draw()
    spoiled = torch.where(mask, images(), torch.tensor(garbage))

    def features(x):
        order = token_mask(mask, PATCH).to(torch.uint8).argsort(dim=1, descending=True, stable=True)
        return model.encode(patchify(x, PATCH), order[:, : model.visible])

    assert torch.equal(features(images()), features(spoiled))


def test_a_visible_token_is_encoded_with_the_position_of_its_own_place():
    model = mae()
    patches, everything = patchify(images(), PATCH), torch.arange(32)
    seen = torch.tensor([[3, 8, 20, 31], [0, 5, 6, 30]])
    content = model.network.patch_embedding.project(patches)
    tokens = content + model.network.patch_embedding.position_embeddings
    expected = torch.stack([tokens[i, places] for i, places in enumerate(seen)])
    assert torch.equal(model.encode(patches, seen), model.network.encode(expected)[0])
    whole = model.encode(patches, everything.expand(2, -1))
    assert torch.allclose(whole, model.network(images())[0], atol=1e-5)


def test_the_decoder_knows_where_visible_and_hidden_tokens_lie():
    decoder, tokens = mae().decoder, torch.randn(1, 4, 24)
    seen, hidden = torch.tensor([[3, 8, 20, 31]]), torch.tensor([[1, 2, 30]])
    restored = decoder(tokens, seen, hidden)
    together = decoder(tokens.flip(1), seen.flip(1), hidden)
    assert torch.allclose(restored, together, atol=1e-5)  # the order alone says nothing
    assert not torch.allclose(restored, decoder(tokens.flip(1), seen, hidden), atol=1e-3)
    elsewhere = decoder(tokens, seen, hidden.flip(1)).flip(1)
    assert torch.allclose(restored, elsewhere, atol=1e-5)
    assert not torch.allclose(restored[:, 0], restored[:, 1], atol=1e-3)


def test_fixed_positions_are_sines_and_cosines_of_each_coordinate_in_turn():
    grid, width = (2, 3, 4), 14  # two frequencies for each axis; 2 numbers are left over
    found = sincos_positions(grid, width)[0].view(*grid, width)
    for place in product(*map(range, grid)):
        waves = [
            wave(coordinate / 10_000 ** (k / 2))
            for coordinate in place
            for wave in (math.sin, math.cos)
            for k in range(2)
        ]
        assert found[place].tolist() == pytest.approx([*waves, 0, 0], abs=1e-6)


@pytest.mark.parametrize("positions", ["learnt", "sincos"])
def test_fixed_positions_stay_and_learnt_ones_learn(positions):
    network = transformer(positions=positions)
    before = network.patch_embedding.position_embeddings.clone()
    optimizer = build_optimizer(network, OptimizerSettings(lr=0.1))
    network(images())[0].square().sum().backward()
    optimizer.step()
    same = torch.equal(network.patch_embedding.position_embeddings, before)
    assert same == (positions == "sincos")


@pytest.mark.parametrize("loss", ["l2", "l1"])
@pytest.mark.parametrize("target", ["raw", "normalized"])
def test_the_loss_of_mae_is_the_chosen_error_to_the_chosen_target(target, loss):
    model, mask = mae(target=target, loss=loss).eval(), draw()
    result = model(images(), mask)
    predicted, truth = (patchify(x, PATCH) for x in (result.prediction, images()))
    if target == "normalized":
        truth, mean, deviation = normalize_patches(truth)
        predicted = (predicted - mean) / deviation  # the network's own output, not in gray values
    error = (predicted - truth).abs() if loss == "l1" else (predicted - truth).square()
    hidden = ~token_mask(mask, PATCH)
    assert result.loss.item() == pytest.approx(error[hidden].mean().item(), rel=1e-4)
    valid = torch.ones_like(mask)
    valid[..., 6:] = False
    scored = patchify((~mask & valid).expand(-1, CHANNELS, -1, -1, -1), PATCH)
    part = model(images(), mask, valid)
    assert part.loss.item() == pytest.approx(error[scored].mean().item(), rel=1e-4)


def test_the_loss_of_simmim_is_of_hidden_voxels_only_and_padding_is_left_out():
    model, mask = SimMIM(transformer(), SimMIMSettings()).eval(), draw()
    result = model(images(), mask)
    error = (result.prediction - images()).abs()
    assert torch.allclose(result.loss, error[(~mask).expand_as(error)].mean(), atol=1e-5)
    valid = torch.ones_like(mask)
    valid[..., 6:] = False
    part = model(images(), mask, valid)
    scored = (~mask & valid).expand_as(error)
    assert torch.allclose(part.loss, error[scored].mean(), atol=1e-5)


def test_simmim_encodes_all_tokens_and_its_own_in_place_of_hidden_ones(monkeypatch):
    model, seen = SimMIM(transformer(), SimMIMSettings()), []
    encode = model.network.encode
    monkeypatch.setattr(model.network, "encode", lambda t: seen.append(t) or encode(t))
    mask = draw()
    model(images(), mask)
    assert seen[0].shape == (2, 32, 24)
    hidden = ~token_mask(mask, PATCH)
    positions = model.network.patch_embedding.position_embeddings.expand(2, -1, -1)
    expected = (model.mask_token + positions)[hidden]
    assert torch.equal(seen[0][hidden], expected)


def test_simmim_features_do_not_depend_on_hidden_voxels():
    model, mask = SimMIM(transformer(), SimMIMSettings()), draw()
    spoiled = torch.where(mask, images(), 100 * images(1))
    assert torch.equal(model(images(), mask).prediction, model(spoiled, mask).prediction)


@pytest.mark.parametrize("target", ["raw", "normalized"])
@pytest.mark.parametrize("positions", ["learnt", "sincos"])
def test_one_batch_can_be_learnt(target, positions):
    torch.manual_seed(0)
    settings = MAESettings(16, 2, 2, target=target)
    model = MaskedAutoencoderViT(transformer(positions=positions), settings, 8)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), 1e-2)
    losses = []
    for _ in range(120):
        loss = model(images(), draw()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_attention_is_calculated_in_float32_on_the_cpu_under_bfloat16(monkeypatch):
    seen, attend = [], torch.nn.functional.scaled_dot_product_attention

    def watched(*parts):
        result = attend(*parts)
        seen.extend(tensor.dtype for tensor in (*parts, result))
        return result

    monkeypatch.setattr("mim.vit.functional.scaled_dot_product_attention", watched)
    settings = ViTSettings(patch=(8, 8), width=24, depth=2, heads=2)
    encoder = VisionTransformer(vit_config(settings, (32, 32), 1))
    image = torch.randn(2, 1, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        features = encoder(image)[0]
    assert seen and set(seen) == {torch.float32}
    assert torch.allclose(features.float(), encoder(image)[0], atol=0.1)


def test_crops_that_are_not_whole_tokens_are_refused():
    with pytest.raises(RecipeError, match="whole tokens"):
        vit_config(TINY, (8, 16, 13), 1)


@pytest.mark.parametrize(
    ("token", "size"),
    [
        ((16, 16, 16), (16, 32, 16)),
        ((8, 8, 8), (8, 24, 16)),
        ((2, 16, 4), (6, 32, 8)),
        ((1, 12, 12), (3, 24, 12)),
        ((5, 3, 32), (10, 6, 32)),
    ],
)
def test_the_whole_encoder_arrives_in_unetr(tmp_path, token, size):
    torch.manual_seed(0)
    settings = ViTSettings(patch=token, width=24, depth=12, heads=2)
    network = VisionTransformer(vit_config(settings, size, 1))
    model = MaskedAutoencoderViT(network, MAESettings(16, 1, 2), 1)
    torch.save(
        {"model": model.state_dict(), "metadata": {"kind": "mae", "network": {}}, "step": 1},
        tmp_path / "last.pt",
    )
    settings = UNETRSettings(patch=token, width=24, heads=2, features=4)
    unetr = architectures.build(architectures.configure(settings, {}, size, 1, 3))
    report = load_pretrained(unetr, tmp_path / "last.pt", ("encoder",))
    assert report.shares["encoder"] == 1.0
    assert "encoder 100.0%" in report.summary()
    picture = torch.randn(1, 1, *size)
    ours, theirs = network(picture)[0], unetr.eval().vit(picture)[0]
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert unetr(picture).shape == (1, 3, *size)


def test_unetr_with_tokens_of_16_is_monais():
    from monai.networks.nets import UNETR

    settings = UNETRSettings(width=24, heads=2, features=4)
    ours = architectures.build(architectures.configure(settings, {}, (32, 32, 32), 1, 3))
    theirs = UNETR(1, 3, (32, 32, 32), feature_size=4, hidden_size=24, mlp_dim=96, num_heads=2)
    names = {n: p.shape for n, p in theirs.named_parameters() if "norm_cross_attn" not in n}
    assert {n: p.shape for n, p in ours.named_parameters()} == names


@pytest.mark.parametrize(("token", "size"), [((16, 16, 16), (24, 16, 16)), ((8, 8, 8), (8, 8, 4))])
def test_crops_that_are_not_whole_tokens_of_unetr_are_refused(token, size):
    with pytest.raises(RecipeError, match="whole tokens"):
        architectures.configure(UNETRSettings(patch=token), {}, size, 1, 2)
    with pytest.raises(RecipeError, match="at least 1"):
        UNETRSettings(patch=(0, 8, 8))


@pytest.mark.parametrize(
    "values",
    [{"width": 0}, {"width": 100}, {"heads": 0}, {"heads": -1}, {"features": 0}, {"mlp_ratio": 0}],
)
def test_sizes_that_make_no_unetr_are_refused_by_name(values):
    with pytest.raises(RecipeError, match=r"network\.(width|mlp_ratio) must"):
        UNETRSettings(**values)


@pytest.mark.parametrize(
    ("edge", "expected"),
    [
        (1, (1, 1, 1, 1)), (2, (1, 1, 1, 2)), (8, (1, 2, 2, 2)), (16, (2, 2, 2, 2)),
        (12, (1, 3, 2, 2)), (7, (1, 1, 1, 7)), (32, (4, 2, 2, 2)), (48, (4, 3, 2, 2)),
    ],
)  # fmt: skip
def test_four_upsamplings_lead_from_tokens_of_any_size_to_voxels(edge, expected):
    assert upsampling(edge) == expected
