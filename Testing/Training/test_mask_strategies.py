"""Masking strategies: every one hides what the ratio says, where its name says."""

from typing import get_args

import pytest
import torch
from scipy import ndimage

from mim.mask_strategies import Strategy
from mim.masking import block_mask, draw_mask

STRATEGIES = get_args(Strategy)


def hidden(strategy, ratio=0.6, grid=(6, 5, 7), batch=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return ~block_mask(batch, grid, ratio, generator, strategy=strategy)[:, 0]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("grid", [(6, 5, 7), (4, 4, 4), (3, 10, 10), (8, 8), (5, 7)])
@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 0.6, 0.75, 0.9])
def test_every_sample_hides_the_nominal_number_of_blocks(strategy, grid, ratio):
    mask = hidden(strategy, ratio, grid)
    blocks = mask[0].numel()
    counts = mask.flatten(1).sum(1)
    assert (counts == counts[0]).all() and abs(counts[0].item() - ratio * blocks) <= 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ratio_between_two_values_varies_from_sample_to_sample(strategy):
    mask = hidden(strategy, (0.6, 0.9), batch=64)
    fractions = mask.flatten(1).double().mean(1)
    assert fractions.min() >= 0.6 and fractions.max() <= 0.9 + 1 / 210
    assert fractions.max() - fractions.min() > 0.2


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_seed_decides_and_samples_differ(strategy):
    first, again, other = (hidden(strategy, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert len({tuple(sample.flatten().tolist()) for sample in first}) > 4


@pytest.mark.parametrize("ratio", [0.1, 0.4, 0.75])
def test_contiguous_is_one_connected_box_but_for_its_last_layer(ratio):
    for sample in hidden("contiguous", ratio).numpy():
        assert ndimage.label(sample)[1] == 1


def test_contiguous_visits_every_part_of_the_image():
    assert hidden("contiguous", 0.2, batch=400).any(0).all()


def test_slab_hides_whole_slices_but_for_one():
    for sample in hidden("slab", 0.6).flatten(2).float().mean(2):
        partial = (sample > 0) & (sample < 1)
        assert partial.sum() <= 1 and (sample == 1).sum() == int(0.6 * 6)


def test_slab_at_a_whole_number_of_slabs_leaves_whole_slabs_visible():
    assert set(hidden("slab", 0.5).flatten(2).float().mean(2).unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("dims", [2, 3])
def test_grid_at_one_half_is_a_chessboard(dims):
    for sample in hidden("grid", 0.5, (6,) * dims):
        for axis in range(dims):
            near, far = sample.narrow(axis, 0, 5), sample.narrow(axis, 1, 5)
            assert (near ^ far).all()


def test_grid_leaves_one_of_eight_blocks_in_a_lattice():
    for sample in hidden("grid", 7 / 8, (6, 6, 6)):
        places = (~sample).nonzero()
        assert len(places) == 27
        assert all(len(places[:, axis].remainder(2).unique()) == 1 for axis in range(3))


def test_center_hides_the_middle_more_often_than_the_border():
    often = hidden("center", 0.5, (8, 8, 8), batch=400).double().mean(0)
    middle, corners = often[3:5, 3:5, 3:5], often[::7, ::7, ::7]
    assert middle.min() > 0.9 and corners.max() < 0.2
    assert corners.min() > 0  # the border's turn comes too


def test_mask_at_voxels_takes_the_strategy():
    images = torch.zeros(3, 1, 8, 16, 16)
    mask = draw_mask(images, (2, 4, 4), 0.5, torch.Generator().manual_seed(0), "slab")
    per_slice = (~mask).flatten(3).float().mean(3)
    assert set(per_slice.unique().tolist()) == {0.0, 1.0}
