import numpy as np
import pytest

from MIMSegment.Logic.preprocess import normalize, open_prepared, prepare, prepare_labels
from MIMSegment.Logic.spec import Normalization, Preprocessing
from MIMSegment.Logic.volume import Geometry, Volume


def image(seed=0, shape=(12, 20, 16)) -> Volume:
    array = np.random.default_rng(seed).normal(100, 30, (1, *shape)).astype(np.float32)
    return Volume(array, Geometry.from_parts(shape, (3, 1, 1.5)))


def plan(spacing=(None, None, None), **options) -> Preprocessing:
    return Preprocessing(spacing, (Normalization("zscore"),), **options)


def test_zscore_is_invariant_to_the_scale_and_offset_of_mr_intensities():
    volume = image()
    scaled = Volume(volume.array * 5000 + 70, volume.geometry)
    first, _ = prepare(volume, plan())
    second, _ = prepare(scaled, plan())
    assert first.mean() == pytest.approx(0, abs=1e-5) and first.std() == pytest.approx(1, abs=1e-5)
    assert np.allclose(first, second, atol=1e-3)


def test_nonzero_zscore_uses_and_keeps_the_background():
    channel = np.zeros((10, 10, 10), np.float32)
    channel[3:7, 3:7, 3:7] = np.random.default_rng(0).normal(500, 50, (4, 4, 4))
    inside = channel > 0
    result = normalize(channel, Normalization("zscore", nonzero=True))
    assert result[inside].mean() == pytest.approx(0, abs=1e-5)
    assert result[inside].std() == pytest.approx(1, abs=1e-4)
    assert (result[~inside] == 0).all()


def test_ct_normalization_uses_the_fixed_numbers_of_the_plan():
    channel = np.array([[[-2000.0, 0.0, 100.0, 3000.0]]])
    result = normalize(channel, Normalization("ct", mean=50, std=10, lower=-100, upper=200))
    assert np.allclose(result, [[[-15, -5, 5, 15]]])


def test_percentiles_tame_a_few_saturated_voxels():
    volume = image()
    spoiled = volume.array.copy()
    spoiled[0, 0, 0, :4] = 1e6
    tame = Normalization("zscore", percentiles=(0.5, 99.5))
    clean, robust = (normalize(a[0], tame) for a in (volume.array, spoiled))
    assert np.abs(clean - robust)[1:].max() < 0.2


def test_working_grid_fills_the_same_box_in_the_patient():
    _, grid = prepare(image(), plan((2.0, 2.0, 2.0)))
    assert grid.shape == (18, 10, 12)
    extent = np.multiply(grid.shape, grid.geometry.spacing)
    assert np.allclose(extent, (36, 20, 24))


def test_the_network_sees_the_same_array_whatever_the_order_of_axes_in_the_file():
    volume = image()
    expected, _ = prepare(volume, plan((2.0, 1.5, 1.5)))
    for orientation in ("RAS", "SPL", "AIR"):
        array, _ = prepare(volume.reoriented(orientation), plan((2.0, 1.5, 1.5)))
        assert np.allclose(array, expected, atol=1e-4)


def test_cropping_to_nonzero_keeps_the_place_of_what_is_left():
    array = np.zeros((1, 12, 20, 16), np.float32)
    array[0, 4:9, 5:12, 2:10] = 7
    volume = Volume(array, Geometry.from_parts((12, 20, 16), (3, 1, 1.5), (10, 20, 30)))
    prepared, grid = prepare(volume, plan(crop_to_nonzero=True))
    assert prepared.shape == (1, 5, 7, 8)
    assert grid.start == (4, 5, 2)
    assert np.allclose(grid.geometry.origin, [10 + 2 * 1.5, 20 + 5, 30 + 4 * 3])
    grid.reoriented_view(array[0])[...] = 9
    assert (array[0] == 9).sum() == 5 * 7 * 8


def test_transposed_and_flipped_labels_meet_their_image_again():
    volume = image().reoriented("PIR")
    labels = (volume.array[0] > 120).astype(np.uint8)
    array, grid = prepare(volume, plan(transpose=(2, 0, 1)))
    threshold = (120 - volume.array.mean()) / volume.array.std()
    assert np.array_equal(prepare_labels(labels, grid) == 1, array[0] > threshold)


@pytest.mark.parametrize("spacing", [(1.4, 1.4, 1.4), (3.5, 0.8, 0.8), (0.7, 2.0, 2.0)])
@pytest.mark.parametrize("scheme", ["zscore", "rescale_to_01", "ct"])
@pytest.mark.parametrize("mask", [{}, {"crop_to_nonzero": True}])
def test_slabs_read_one_by_one_equal_the_image_prepared_as_a_whole(spacing, scheme, mask):
    volume = image(shape=(40, 20, 16))
    volume.array[0, :, :3], volume.array[0, 20:24, 8:12, 8:12] = 0, 0
    normalization = Normalization(
        scheme, mean=90, std=20, lower=10, upper=150, nonzero=scheme == "zscore"
    )
    preprocessing = Preprocessing(spacing, (normalization,), **mask)
    whole, grid = prepare(volume, preprocessing)
    working, _ = open_prepared(volume, preprocessing)
    assert working.shape == whole.shape == (1, *grid.shape)
    for first in range(0, grid.shape[0], 3):
        slab = working[:, first : first + 8]
        assert np.allclose(slab, whole[:, first : first + 8], atol=1e-5)
    for crop in ((0, slice(2, 30, 2), slice(3), slice(0, 8, 2)), (slice(None), slice(9, 12))):
        assert np.allclose(working[crop], whole[crop], atol=1e-5)  # and anywhere
