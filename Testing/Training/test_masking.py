"""Masks, and the proof that a masked voxel cannot influence what the network sees."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mim.masked_unet import MaskedAutoencoderUNet, MethodSettings
from mim.masking import MaskSettings, block_mask, draw_mask, grid_shape, upsample_mask
from mim.networks import NetworkConfig, build_network
from mim.recipe import RecipeError

SHAPE = (8, 16, 12)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("ratio", [0.125, 0.3, 0.5, 0.6, 0.75, 0.9])
@pytest.mark.parametrize("grid", [(5, 6, 5), (2, 5, 1), (10, 10, 10)])
def test_every_sample_has_exactly_the_nominal_number_of_visible_blocks(ratio, grid):
    mask = block_mask(4, grid, ratio, generator())
    count = torch.Size(grid).numel()
    expected = max(1, int(count * (1000 - round(1000 * ratio)) // 1000))
    assert mask.shape == (4, 1, *grid) and mask.dtype == torch.bool
    assert mask.sum((1, 2, 3, 4)).tolist() == [expected] * 4


def test_variable_ratio_stays_in_its_range_and_varies():
    masked = 1 - block_mask(200, (10, 10, 10), (0.6, 0.9), generator()).float().mean((1, 2, 3, 4))
    assert 0.599 < masked.min() < 0.62 and 0.88 < masked.max() < 0.9011
    assert masked.mean() == pytest.approx(0.75, abs=0.02)


def test_at_least_one_block_is_visible_and_one_hidden():
    assert block_mask(3, (2, 1, 1), 0.99, generator()).sum() == 3
    assert block_mask(3, (2, 1, 1), 0.01, generator()).sum() == 3


def test_every_block_is_visible_equally_often():
    often = block_mask(4000, (3, 3, 3), 0.75, generator()).float().mean((0, 1))
    assert (often - 6 / 27).abs().max() < 0.03  # 4.5 standard deviations


def test_masks_come_from_their_generator_alone():
    first = block_mask(2, (5, 5, 5), (0.5, 0.8), generator(1))
    torch.rand(7)
    assert torch.equal(first, block_mask(2, (5, 5, 5), (0.5, 0.8), generator(1)))
    assert not torch.equal(first, block_mask(2, (5, 5, 5), (0.5, 0.8), generator(2)))
    assert not torch.equal(first[0], first[1])


def test_upsampled_mask_repeats_each_block_along_each_axis():
    block = (2, 5, 3)
    mask = block_mask(2, grid_shape(SHAPE, block), 0.5, generator())
    expected = mask
    for axis, edge in enumerate(block):
        expected = expected.repeat_interleave(edge, axis + 2)
    grown = upsample_mask(mask, block, SHAPE)
    assert grown.shape == (2, 1, *SHAPE)
    assert torch.equal(grown, expected[:, :, :8, :16, :12])


@pytest.mark.parametrize("edge", [3, 41, 47, 55, 83])
def test_blocks_of_any_size_keep_their_borders(edge):
    mask = torch.rand(2, 1, 7, 2, 1, generator=generator()) < 0.5
    grown = upsample_mask(mask, (edge, 1, 2), (7 * edge, 2, 2))
    expected = mask.repeat_interleave(edge, 2).repeat_interleave(2, 4)
    assert torch.equal(grown, expected)


def test_a_crop_of_a_single_block_of_which_nothing_can_be_hidden_is_refused():
    with pytest.raises(RecipeError, match=r"mask\.block smaller, or patch larger"):
        draw_mask(torch.zeros(2, 1, 8, 8, 8), (8, 8, 16), 0.75, generator())
    assert not draw_mask(torch.zeros(2, 1, 8, 8, 9), (8, 8, 8), 0.75, generator()).all()


def test_drawing_a_mask_reads_no_value_back():
    """Fake tensors have no values: a read, or a shape that depends on one, raises."""
    with FakeTensorMode():
        images = torch.empty(2, 1, *SHAPE)
        mask = draw_mask(images, (4, 4, 4), (0.6, 0.9), generator())
    assert mask.shape == (2, 1, *SHAPE)


@pytest.mark.parametrize("values", [{"ratio": (0.9, 0.6)}, {"ratio": (0.0, 0.5)}, {"block": (4,)}])
def test_impossible_mask_settings_are_refused(values):
    with pytest.raises(RecipeError, match="mask"):
        MaskSettings(**values)


def autoencoder(channels: int = 2, **settings) -> MaskedAutoencoderUNet:
    strides = ((1, 1, 1), (2, 2, 2), (2, 2, 2))
    config = NetworkConfig(channels, channels, (4, 8, 8), strides, ((3, 3, 3),) * 3, (1, 1, 1))
    model = MaskedAutoencoderUNet(build_network(config), channels, MethodSettings(**settings))
    with torch.no_grad():
        for parameter in model.parameters():  # fresh residual branches would hide a leak
            parameter.normal_(0, 0.3, generator=generator(5))
    return model


def batch(channels: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.randn(2, channels, *SHAPE, generator=generator())
    return images, draw_mask(images, (4, 4, 4), 0.6, generator())


@pytest.mark.parametrize("fill", ["zero", "token"])
def test_masked_voxels_change_no_output(fill):
    model, (images, mask) = autoencoder(fill=fill), batch()
    other = torch.where(mask, images, 1000 * torch.randn_like(images))
    other[~mask.expand_as(other)] += torch.nan
    with torch.no_grad():
        before, after = (model(x, mask).prediction for x in (images, other))
    assert torch.equal(before, after)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_masked_voxels_change_no_feature_of_any_stage(stage):
    model, (images, mask) = autoencoder(), batch()
    other = torch.where(mask, images, torch.randn_like(images))
    with torch.no_grad():
        before, after = (model.network.encoder(model.hide(x, mask))[stage] for x in (images, other))
        unmasked = model.network.encoder(other)[stage]
    assert torch.equal(before, after)
    assert not torch.allclose(before, unmasked)  # this net would show a leak if there were one


def test_no_gradient_reaches_a_masked_voxel_through_the_network():
    model, (images, mask) = autoencoder(), batch()
    images.requires_grad_()
    model(images, mask).prediction.square().sum().backward()
    hidden = ~mask.expand_as(images)
    assert not images.grad[hidden].any()
    assert images.grad[~hidden].any()


@pytest.mark.parametrize(("kind", "power"), [("l2", 2), ("l1", 1)])
def test_loss_is_the_mean_error_of_masked_valid_voxels(kind, power):
    model, (images, mask) = autoencoder(loss=kind), batch()
    valid = torch.ones_like(mask)
    valid[..., 9:] = False
    with torch.no_grad():
        result = model(images, mask, valid)
        everywhere = model(images, mask).loss
    scored = (~mask & valid).expand_as(images)
    error = (result.prediction - images).abs()[scored] ** power
    assert result.loss.item() == pytest.approx(error.mean().item(), rel=1e-5)
    assert result.loss != everywhere
    assert torch.equal(result.mask, mask)


def test_loss_is_zero_and_finite_where_nothing_is_scored():
    model, (images, mask) = autoencoder(), batch()
    assert model(images, mask, torch.zeros_like(mask)).loss == 0


def test_mask_token_is_learnt_only_where_asked_for():
    images, mask = batch()
    model = autoencoder(fill="token")
    model(images, mask).loss.backward()
    assert model.mask_token.grad.abs().sum() > 0
    assert not hasattr(autoencoder(fill="zero"), "mask_token")


def test_it_learns_to_restore_a_smooth_image():
    torch.manual_seed(0)
    config = NetworkConfig(1, 1, (8, 16), ((1, 1, 1), (2, 2, 2)), ((3, 3, 3),) * 2, (1, 1))
    model = MaskedAutoencoderUNet(build_network(config), 1, MethodSettings())
    axis = torch.linspace(-2, 2, 16)
    images = (axis[:, None, None] + axis[:, None] * axis).expand(2, 1, 16, 16, 16)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    draws = generator()
    losses = []
    for _ in range(40):
        loss = model(images, draw_mask(images, (2, 2, 2), 0.5, draws)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.25 * sum(losses[:5])
