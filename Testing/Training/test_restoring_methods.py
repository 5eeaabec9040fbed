"""Models Genesis and VolumeFusion: what they do to a crop, and what the network is asked for."""

import pytest
import torch

from mim.data import PAD_VALUE, Crops
from mim.device import Generators
from mim.distortions import intensity_curves, painted_over, shuffled_windows
from mim.models_genesis import GenesisSettings, RestoringModel, distort
from mim.networks import NetworkConfig, build_network
from mim.recipe import RecipeError
from mim.volume_fusion import FusionModel, FusionSettings, fuse, segmentation_loss

SHAPE = (12, 20, 24)


def crops(count=3, channels=2) -> Crops:
    images = torch.randn(count, channels, *SHAPE, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(count, 1, *SHAPE, dtype=torch.bool)
    valid[0, :, :2] = False
    images = torch.where(valid, images, PAD_VALUE)
    return Crops(images, valid, tuple(f"case_{i}" for i in range(count)))


def network(out_channels=2):
    strides, kernels = ((1, 1, 1), (1, 2, 2)), ((3, 3, 3),) * 2
    return build_network(NetworkConfig(2, out_channels, (4, 8), strides, kernels, (1, 1)))


def test_curves_are_monotonic_and_keep_the_range():
    images = crops().images
    for sample, curved in zip(images, intensity_curves(images, Generators.seeded(1)), strict=True):
        values = curved.flatten()[sample.flatten().argsort()].diff()
        assert (values >= -1e-4).all() or (values <= 1e-4).all()
        assert curved.min() >= sample.min() - 1e-4 and curved.max() <= sample.max() + 1e-4
        assert not torch.allclose(curved, sample, atol=0.1)


def test_some_curves_rise_and_some_fall():
    ramp = torch.linspace(0, 1, 512).view(1, 1, 8, 8, 8).expand(32, 1, 8, 8, 8)
    curved = intensity_curves(ramp, Generators.seeded(0)).flatten(1)
    rises = curved[:, -1] > curved[:, 0]
    assert 4 < rises.sum() < 28


def test_shuffle_moves_voxels_only_inside_small_windows():
    place = torch.arange(20.0).expand(1, 2, 20, 20, 20).clone()
    moved = shuffled_windows(place, Generators.seeded(0))
    assert not torch.equal(moved, place)
    assert (moved - place).abs().max() <= 2  # at most a tenth of the crop, and at least 2 voxels
    assert torch.equal(moved.flatten().sort().values, place.flatten().sort().values)
    assert torch.equal(moved[:, 0], moved[:, 1])  # channels move together


def test_painting_touches_boxes_inside_or_all_around():
    images = 100 + crops().images
    both = torch.tensor([True, True, False])
    painted = painted_over(images, both, torch.tensor([True, False, False]), Generators.seeded(0))
    changed = (painted != images).any(1).flatten(1).double().mean(1)
    assert 0 < changed[0] < 0.2 and changed[1] > 0.3 and changed[2] == 0
    assert painted.min() >= images.min() and painted.max() <= images.max()


def test_distortion_comes_from_the_seed_and_leaves_the_padding():
    first, again = (distort(crops(), GenesisSettings(), Generators.seeded(3)) for _ in range(2))
    other = distort(crops(), GenesisSettings(), Generators.seeded(4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert (first[0, :, :2] == PAD_VALUE).all()


def test_no_distortion_where_all_probabilities_are_zero():
    settings = GenesisSettings(curve=0, shuffle=0, paint=0)
    assert torch.equal(distort(crops(), settings, Generators.seeded(0)), crops().images)


def test_restoring_is_judged_over_the_whole_valid_crop():
    batch = crops()
    model = RestoringModel(network(), GenesisSettings())
    with torch.no_grad():
        result = model(batch.images, batch.images, batch.valid)
    error = (result.prediction - batch.images).square()
    expected = error[batch.valid.expand_as(error)].mean()
    assert result.loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_fusion_is_the_weighted_mean_that_the_level_says():
    batch = crops()
    images, levels, _ = fuse(batch, FusionSettings(), torch.Generator().manual_seed(0))
    other = batch.images.roll(1, 0)
    share = levels[:, None] / 4
    assert torch.allclose(images, (1 - share) * batch.images + share * other, atol=1e-5)
    assert set(levels.unique().tolist()) == {0, 1, 2, 3, 4}


def test_fusion_does_not_ask_about_padding():
    batch = crops()
    _, levels, valid = fuse(batch, FusionSettings(), torch.Generator().manual_seed(0))
    assert not valid[0, :, :2].any()  # its own padding
    from_padding = levels[1, :2] > 0  # the padding of the crop that was blended in
    assert from_padding.any() and not valid[1, 0, :2][from_padding].any()


def test_fusion_loss_is_near_zero_for_a_perfect_answer_and_ignores_the_rest():
    _, levels, valid = fuse(crops(), FusionSettings(), torch.Generator().manual_seed(0))
    perfect = 30 * torch.nn.functional.one_hot(levels, 5).movedim(-1, 1).float()
    assert segmentation_loss(perfect, levels, valid[:, 0]) < 1e-3
    spoilt = torch.where(valid, perfect, -perfect)
    assert segmentation_loss(spoilt, levels, valid[:, 0]) < 1e-3
    assert segmentation_loss(-perfect, levels, valid[:, 0]) > 1


def test_fusion_loss_equals_monais_where_all_is_valid():
    losses = pytest.importorskip("monai.losses")
    logits = torch.randn(2, 5, *SHAPE)
    levels = torch.randint(5, (2, *SHAPE))
    theirs = losses.DiceCELoss(to_onehot_y=True, softmax=True, batch=True)(logits, levels[:, None])
    ours = segmentation_loss(logits, levels, torch.ones(2, *SHAPE, dtype=torch.bool))
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_fusion_model_has_a_class_for_each_level_and_one_for_none():
    model = FusionModel(network(5))
    images, levels, valid = fuse(crops(), FusionSettings(), torch.Generator().manual_seed(0))
    result = model(images, levels, valid)
    result.loss.backward()
    assert result.prediction.shape == (3, 5, *SHAPE)
    assert model.network.encoder.stem.convs[0].conv.weight.grad.any()


def test_fusion_model_is_not_asked_about_voxels_that_are_not_valid():
    model = FusionModel(network(5))
    images, levels, valid = fuse(crops(), FusionSettings(), torch.Generator().manual_seed(0))
    other = torch.where(valid[:, 0], levels, (levels + 1) % 5)
    assert not torch.equal(other, levels)
    assert torch.equal(model(images, other, valid).loss, model(images, levels, valid).loss)
    wrong = torch.where(valid[:, 0], (levels + 1) % 5, levels)
    assert not torch.equal(model(images, wrong, valid).loss, model(images, levels, valid).loss)


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        (FusionSettings, {"levels": 0}),
        (FusionSettings, {"size": (0.5, 0.1)}),
        (GenesisSettings, {"paint": 1.5}),
    ],
)
def test_impossible_settings_are_refused(settings, values):
    with pytest.raises(RecipeError):
        settings(**values)
