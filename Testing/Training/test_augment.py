"""Augmentation: labels follow images, geometry is in millimetres, everything is reproducible."""

from dataclasses import replace

import pytest
import torch

from device_reads import NoReading
from mim.augment import SpatialSettings, augment_spatial
from mim.data import Crops, LabeledCrops
from mim.device import Generators
from mim.intensity import IntensitySettings, augment_intensity
from mim.recipe import RecipeError

STILL = SpatialSettings((False, False, False), affine=0.0)
TURN = replace(STILL, affine=1.0, scale=(1.0, 1.0), stretch=0.0)
KINDS = ("noise", "blur", "low_resolution", "brightness", "contrast", "gamma")
CUBES = (1.0, 1.0, 1.0)
QUIET = IntensitySettings(noise=0, blur=0, low_resolution=0, brightness=0, contrast=0, gamma=0)


def crops(shape=(16, 20, 12), batch=6) -> LabeledCrops:
    axes = [torch.linspace(-1, 1, n) for n in shape]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    label = ((z**2 + (y - 0.2) ** 2 + (x + 0.1) ** 2 < 0.3).long() + (z > 0.4))[None, None]
    label = label.repeat(batch, 1, 1, 1, 1)
    valid = torch.ones_like(label, dtype=torch.bool)
    return LabeledCrops(label.float(), valid, ("case",) * batch, label)


def test_nothing_asked_for_changes_nothing():
    before = crops()
    after = augment_spatial(before, STILL, (1, 1, 1), Generators.seeded(0))
    after = augment_intensity(after, QUIET, CUBES, Generators.seeded(0))
    assert torch.equal(before.images, after.images) and torch.equal(before.labels, after.labels)


def test_flips_move_label_image_and_validity_together():
    before = crops()
    before.valid[..., :3] = False
    settings = replace(STILL, flip=(True, True, True))
    after = augment_spatial(before, settings, (1, 1, 1), Generators.seeded(0))
    assert torch.equal(after.images.long(), after.labels)
    assert not torch.equal(after.images, before.images)
    assert torch.equal(after.valid.sum((1, 2, 3, 4)), before.valid.sum((1, 2, 3, 4)))
    assert {tuple(v[0, 0, 0, [0, -1]].tolist()) for v in after.valid} == {(0, 1), (1, 0)}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_only_the_allowed_axis_is_flipped(axis):
    before = crops(batch=40)
    flip = tuple(i == axis for i in range(3))
    after = augment_spatial(before, replace(STILL, flip=flip), (1, 1, 1), Generators.seeded(0))
    flipped = before.images[0].flip(axis + 1)
    turned = [torch.equal(image, flipped) for image in after.images]
    same = [torch.equal(image, before.images[0]) for image in after.images]
    assert sum(turned) + sum(same) == 40 and 10 < sum(turned) < 30


def test_label_follows_image_through_an_affine_change():
    after = augment_spatial(crops(), SpatialSettings(affine=1.0), (1, 1, 1), Generators.seeded(0))
    agree = (after.images.round().long() == after.labels).float().mean()
    assert agree > 0.97
    assert set(after.labels.unique().tolist()) == {0, 1, 2}
    assert torch.all(after.labels[~after.valid] == 0)


def test_affine_share_is_the_probability():
    before = crops(batch=200)
    after = augment_spatial(before, replace(TURN, affine=0.3), (1, 1, 1), Generators.seeded(0))
    changed = (after.images != before.images).flatten(1).any(1).sum()
    assert 40 < changed < 80


def test_rotation_is_rigid_in_millimetres():
    """A bar of 16 mm keeps its length when it turns, although voxels are not cubes."""
    spacing = (1.0, 2.0, 1.0)
    z, y, x = torch.meshgrid(
        torch.arange(40) - 19.5, 2 * (torch.arange(20) - 9.5), torch.arange(40) - 19.5,
        indexing="ij",
    )  # fmt: skip
    bar = ((x.abs() < 8) & (z.abs() < 3) & (y.abs() < 3)).float()[None, None].repeat(8, 1, 1, 1, 1)
    before = Crops(bar, torch.ones_like(bar, dtype=torch.bool), ("case",) * 8)
    after = augment_spatial(before, replace(TURN, rotation=80.0), spacing, Generators.seeded(0))
    points = torch.stack((z, y, x), -1)
    for old, new in zip(before.images[:, 0], after.images[:, 0], strict=True):
        moments = [torch.linalg.eigvalsh(points[image > 0.5].T.cov()) for image in (old, new)]
        assert torch.allclose(*moments, rtol=0.3)
    assert (after.images - before.images).abs().flatten(1).sum(1).min() > 100


def test_thick_slices_are_turned_in_their_plane_only():
    before = crops((6, 20, 20))
    ramp = torch.arange(6.0).view(1, 1, 6, 1, 1).expand_as(before.images)
    before = replace(before, images=ramp)
    after = augment_spatial(before, TURN, (4.0, 1.0, 1.0), Generators.seeded(0))
    middle = (slice(None), slice(None), slice(None), slice(8, 12), slice(8, 12))
    assert torch.allclose(after.images[middle], ramp[middle], atol=1e-4)
    tilted = augment_spatial(before, TURN, (1.0, 1.0, 1.0), Generators.seeded(0))
    assert not torch.allclose(tilted.images[middle], ramp[middle], atol=1e-2)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_scale_above_one_enlarges(factor):
    before = crops()
    settings = replace(TURN, rotation=0.0, scale=(factor, factor))
    after = augment_spatial(before, settings, (1, 1, 1), Generators.seeded(0))
    ratio = (after.labels == 1).sum() / (before.labels == 1).sum()
    assert ratio > 1.3 if factor > 1 else ratio < 0.5


@pytest.mark.parametrize("name", KINDS)
def test_each_intensity_change_changes_images_but_neither_padding_nor_labels(name):
    before = crops()
    before.valid[:, :, :4] = False
    before = replace(before, images=before.images * before.valid)
    settings = replace(QUIET, **{name: 1.0})
    after = augment_intensity(before, settings, CUBES, Generators.seeded(0))
    assert not torch.equal(after.images, before.images)
    assert not after.images[~after.valid].any()
    assert torch.equal(after.labels, before.labels)
    assert after.images.isfinite().all()


def test_same_seed_gives_the_same_batch_and_leaves_its_input_alone():
    before = crops()
    copy = before.images.clone()
    results = []
    for seed in (0, 0, 1):
        generators = Generators.seeded(seed)
        after = augment_spatial(before, SpatialSettings(affine=1.0), (1, 1, 1), generators)
        after = augment_intensity(after, IntensitySettings(noise=1.0), CUBES, generators)
        results.append(after.images)
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])
    assert torch.equal(before.images, copy)


@pytest.mark.parametrize("name", KINDS)
def test_a_sample_that_is_not_chosen_stays_as_it_is(name):
    before = crops(batch=30)
    settings = replace(QUIET, **{name: 0.5})
    after = augment_intensity(before, settings, CUBES, Generators.seeded(0))
    changed = (after.images - before.images).abs().flatten(1).amax(1) > 1e-5
    assert 5 < changed.sum() < 25


def test_blur_is_a_gaussian_and_keeps_the_mean():
    point = torch.zeros(1, 1, 21, 21, 21)
    point[0, 0, 10, 10, 10] = 1.0
    before = Crops(point, torch.ones_like(point, dtype=torch.bool), ("case",))
    settings = replace(QUIET, blur=1.0, blur_sigma=(1.5, 1.5))
    after = augment_intensity(before, settings, CUBES, Generators.seeded(0)).images
    assert after.sum() == pytest.approx(1.0, abs=1e-4)
    profile = after[0, 0, 10, 10] / after[0, 0, 10, 10, 10]
    expected = torch.exp(-0.5 * ((torch.arange(21) - 10) / 1.5) ** 2)
    assert torch.allclose(profile, expected, atol=1e-4)


def test_half_the_resolution_is_what_scaling_down_and_up_gives():
    image = torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    before = Crops(image, torch.ones_like(image, dtype=torch.bool), ("case",))
    settings = replace(QUIET, low_resolution=1.0, low_resolution_zoom=(0.5, 0.5))
    after = augment_intensity(before, settings, CUBES, Generators.seeded(0)).images
    small = image[..., 1::2, 1::2, 1::2]
    expected = torch.nn.functional.interpolate(small, scale_factor=2, mode="trilinear")
    assert torch.allclose(after, expected, atol=1e-5)


def test_thick_slices_and_single_slices_are_not_blurred_into_each_other():
    image = torch.randn(1, 1, 6, 12, 12, generator=torch.Generator().manual_seed(0))
    image[:, :, 3] = 0.0
    settings = replace(QUIET, blur=1.0, low_resolution=1.0)
    for crop, spacing in ((image, (5.0, 1.0, 1.0)), (image[:, :, :1], CUBES)):
        before = Crops(crop, torch.ones_like(crop, dtype=torch.bool), ("case",))
        after = augment_intensity(before, settings, spacing, Generators.seeded(0)).images
        assert not torch.equal(after, crop)
        if crop.shape[2] > 1:
            assert not after[:, :, 3].any()


def test_a_picture_is_turned_in_its_plane():
    before = crops((1, 24, 24))
    after = augment_spatial(before, replace(TURN, scale=(0.8, 1.2)), CUBES, Generators.seeded(0))
    assert after.images.shape == before.images.shape and after.valid[..., 10:14, 10:14].all()
    assert (after.images.round().long() == after.labels).float().mean() > 0.95


def test_augmentation_reads_nothing_from_the_device():
    batch, everything = crops(), dict.fromkeys(KINDS, 1.0)
    spatial, generators = SpatialSettings(affine=1.0), Generators.seeded(0)
    with NoReading((batch.images, batch.labels, batch.valid), [generators.device]) as watched:
        after = augment_spatial(batch, spatial, CUBES, generators)
        augment_intensity(after, IntensitySettings(**everything), CUBES, generators)
    assert watched.operations > 20


@pytest.mark.parametrize(
    "make",
    [
        lambda: SpatialSettings(affine=1.5),
        lambda: SpatialSettings(scale=(0.0, 1.0)),
        lambda: IntensitySettings(gamma=-0.1),
        lambda: IntensitySettings(low_resolution_zoom=(0.5, 2.0)),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(RecipeError):
        make()
