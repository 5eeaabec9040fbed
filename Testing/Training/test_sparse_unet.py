"""S3D: nothing of a hidden voxel reaches the network, and norms see visible voxels only."""

from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from mim.masked_norm import masked_instance_norm
from mim.masked_unet import MaskedAutoencoderUNet, MethodSettings
from mim.masking import draw_mask
from mim.networks import NetworkConfig, build_network
from mim.sparse_unet import SparseMaskedUNet, SparseSettings, sparse_encode, stage_masks

RUNGS = ("dense", "sparse", "token", "densify")
STRIDES = ((1, 1, 1), (1, 2, 2), (2, 2, 2))
CONFIG = NetworkConfig(2, 2, (4, 6, 8), STRIDES, ((1, 3, 3), (3, 3, 3), (3, 3, 3)), (1, 2, 1))
SHAPE = (8, 16, 12)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def model(rung: str, config: NetworkConfig = CONFIG) -> SparseMaskedUNet:
    net = SparseMaskedUNet(build_network(config), config, SparseSettings(sparsity=rung))
    with torch.no_grad():
        for parameter in net.parameters():  # fresh residual branches would hide a leak
            parameter.normal_(0, 0.3, generator=generator(5))
    return net


def batch(block=(2, 4, 4), shape=SHAPE) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.randn(2, 2, *shape, generator=generator())
    return images, draw_mask(images, block, (0.5, 0.8), generator(1))


def gathered_norm(x, mask, weight, bias):
    """Instance norm of the voxels that are picked out, sample by sample."""
    result = torch.zeros_like(x)
    for i in range(len(x)):
        visible = mask[i, 0]
        values = x[i][:, visible]
        mean = values.mean(1, keepdim=True)
        deviation = (values.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        result[i][:, visible] = (values - mean) / deviation * weight[:, None] + bias[:, None]
    return result


def test_masked_norm_equals_the_norm_of_gathered_voxels():
    x = 3 + 5 * torch.randn(3, 4, 8, 8, 8, generator=generator())
    mask = torch.rand(3, 1, 8, 8, 8, generator=generator()) < torch.tensor([0.1, 0.5, 0.9]).view(
        3, 1, 1, 1, 1
    )
    weight, bias = torch.randn(2, 4, generator=generator()).requires_grad_()
    inputs = (x.requires_grad_(), weight, bias)
    ours = masked_instance_norm(x, mask, weight, bias)
    theirs = gathered_norm(x, mask, weight, bias)
    assert torch.allclose(ours, theirs, atol=1e-5)
    found, expected = (torch.autograd.grad(y.sin().sum(), inputs) for y in (ours, theirs))
    for name, mine, reference in zip(("x", "weight", "bias"), found, expected, strict=True):
        assert torch.allclose(mine, reference, rtol=1e-4, atol=1e-4), name
    assert torch.allclose(found[0], expected[0], atol=1e-5)


def test_masked_norm_with_everything_visible_is_the_instance_norm():
    x = 100 + torch.randn(2, 3, 6, 7, generator=generator())  # images too
    weight, bias = torch.randn(2, 3, generator=generator())
    ours = masked_instance_norm(x, torch.ones(2, 1, 6, 7, dtype=torch.bool), weight, bias)
    assert torch.allclose(ours, functional.instance_norm(x, None, None, weight, bias), atol=1e-4)


def test_masked_norm_keeps_its_digits_where_the_mean_is_large():
    x = (1000 + torch.randn(2, 3, 16, 16, 16, generator=generator())).requires_grad_()
    mask = torch.rand(2, 1, 16, 16, 16, generator=generator()) < 0.3
    weight, bias = torch.randn(2, 3, generator=generator()).requires_grad_()
    ours = masked_instance_norm(x, mask, weight, bias)
    exact = gathered_norm(x.double(), mask, weight.double(), bias.double())
    assert torch.allclose(ours.double(), exact, atol=1e-3)
    upstream = torch.randn(ours.shape, generator=generator())
    (found,) = torch.autograd.grad(ours, x, upstream)
    (expected,) = torch.autograd.grad(exact, x, upstream.double())
    assert torch.allclose(found, expected, atol=1e-3)


def test_masked_norm_of_a_sample_without_visible_voxels_is_zero():
    x = torch.randn(1, 3, 4, 4, 4, requires_grad=True)
    mask = torch.zeros(1, 1, 4, 4, 4, dtype=torch.bool)
    result = masked_instance_norm(x, mask, torch.ones(3), torch.ones(3))
    result.sum().backward()
    assert not result.any() and not x.grad.any()


def test_masked_norm_is_one_graph_without_a_break():
    x, mask = torch.randn(2, 3, 4, 4, 4), torch.rand(2, 1, 4, 4, 4) < 0.5
    arguments = (x, mask, torch.ones(3), torch.zeros(3))
    compiled = torch.compile(masked_instance_norm, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(*arguments), masked_instance_norm(*arguments))


@pytest.mark.parametrize("rung", RUNGS)
def test_hidden_voxels_change_no_value_and_get_no_gradient(rung):
    net, (images, mask) = model(rung), batch()
    other = torch.where(mask, images, 1000 * torch.randn_like(images))
    other[~mask.expand_as(other)] += torch.nan
    with torch.no_grad():
        before, after = (net(x, mask).prediction for x in (images, other))
    assert torch.equal(before, after)
    images.requires_grad_()
    net.restore(images, mask).square().sum().backward()
    hidden = ~mask.expand_as(images)
    assert not images.grad[hidden].any() and images.grad[~hidden].any()


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_sparse_features_are_zero_where_hidden_and_blind_to_it(stage):
    net, (images, mask) = model("sparse"), batch()
    masks = stage_masks(mask, STRIDES)
    other = torch.where(mask, images, torch.randn_like(images))
    with torch.no_grad():
        before, after = (
            sparse_encode(net.network.encoder, net.hide(x, mask), masks)[stage]
            for x in (images, other)
        )
        unmasked = sparse_encode(net.network.encoder, other, masks)[stage]
    assert torch.equal(before, after)
    assert not before[~masks[stage].expand_as(before)].any()
    assert not torch.allclose(before, unmasked)  # masking only the outputs would have leaked


def test_everything_visible_is_the_plain_network():
    """The sparse walk through the encoder computes what the encoder computes."""
    net = model("sparse")
    images, visible = torch.randn(1, 2, *SHAPE), torch.ones(1, 1, *SHAPE, dtype=torch.bool)
    with torch.no_grad():
        assert torch.allclose(net.restore(images, visible), net.network(images), atol=1e-4)


def test_dense_rung_is_the_plain_masked_auto_encoder():
    net, (images, mask) = model("dense"), batch()
    plain = MaskedAutoencoderUNet(net.network, 2, MethodSettings())
    assert torch.equal(net(images, mask).loss, plain(images, mask).loss)


def test_each_rung_changes_the_result():
    torch.manual_seed(0)
    network = model("dense").network
    images, mask = batch()
    outputs = []
    for rung in RUNGS:
        net = SparseMaskedUNet(network, CONFIG, SparseSettings(sparsity=rung))
        with torch.no_grad():
            outputs.append(net.restore(images, mask))
    for lower, higher in pairwise(outputs):
        assert not torch.allclose(lower, higher, atol=1e-3)


def test_every_parameter_that_a_rung_adds_is_trained():
    net, (images, mask) = model("densify"), batch()
    net(images, mask).loss.backward()
    added = {n: p for n, p in net.named_parameters() if not n.startswith("network.")}
    assert len(added) == 3 + 3 * 2 + 2 * 2  # tokens, norms, convolutions
    assert all(p.grad is not None and p.grad.any() for p in added.values())


def test_stage_masks_are_exact_for_blocks_of_whole_coarse_voxels():
    _, mask = batch(block=(2, 4, 4))
    fine, middle, coarse = stage_masks(mask, STRIDES)
    assert torch.equal(fine, mask)
    assert torch.equal(middle, mask[..., ::2, ::2])
    assert torch.equal(coarse, mask[..., ::2, ::4, ::4])


def test_coarse_voxel_is_visible_when_any_part_of_it_is():
    mask = torch.zeros(1, 1, 4, 4, 4, dtype=torch.bool)
    mask[..., 3, 0, 0] = True
    coarse = stage_masks(mask, ((1, 1, 1), (2, 2, 2)))[1]
    assert coarse.sum() == 1 and coarse[0, 0, 1, 0, 0]


@pytest.mark.parametrize("rung", RUNGS)
def test_network_inside_keeps_its_published_names(rung):
    net = model(rung)
    inside = {
        name.removeprefix("network."): value
        for name, value in net.state_dict().items()
        if name.startswith("network.")
    }
    build_network(CONFIG).load_state_dict(inside, strict=True)


def test_images_of_two_dimensions_go_the_same_way():
    config = NetworkConfig(1, 1, (4, 8), ((1, 1), (2, 2)), ((3, 3), (3, 3)), (1, 1))
    net = model("densify", config)
    images = torch.randn(2, 1, 8, 12, generator=generator())
    mask = draw_mask(images, (4, 4), 0.5, generator())
    other = torch.where(mask, images, torch.nan)
    assert torch.equal(net(images, mask).prediction, net(other, mask).prediction)


def test_it_learns_to_restore_a_smooth_image():
    torch.manual_seed(0)
    config = NetworkConfig(1, 1, (8, 16), ((1, 1, 1), (2, 2, 2)), ((3, 3, 3),) * 2, (1, 1))
    net = SparseMaskedUNet(build_network(config), config, SparseSettings())
    axis = torch.linspace(-2, 2, 16)
    images = (axis[:, None, None] + axis[:, None] * axis).expand(2, 1, 16, 16, 16)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
    draws, losses = generator(), []
    for _ in range(40):
        loss = net(images, draw_mask(images, (2, 2, 2), 0.5, draws)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.25 * sum(losses[:5])
