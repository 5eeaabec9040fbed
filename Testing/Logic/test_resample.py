import numpy as np
import pytest
from scipy.ndimage import zoom

from MIMSegment.Logic.resample import axis_orders, resize


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("shape", [(30, 40, 80), (20, 33, 61), (7, 50, 12), (20, 50, 60)])
def test_resizing_equals_scipy_zoom_with_nearest_edges(order, shape):
    image = np.random.default_rng(0).normal(size=(20, 50, 60)).astype(np.float32)
    factors = [n / m for n, m in zip(shape, image.shape, strict=True)]
    expected = zoom(image, factors, order=order, mode="nearest", grid_mode=True)
    expected = np.clip(expected, image.min(), image.max())
    assert np.allclose(resize(image[None], shape, (order,) * 3)[0], expected, atol=1e-5)


def test_labels_keep_their_values_and_type():
    labels = np.random.default_rng(1).choice(np.array([0, 7, 200], np.uint8), (9, 10, 11))
    resized = resize(labels, (20, 5, 13), (0, 0, 0))
    assert resized.dtype == np.uint8
    assert set(np.unique(resized)) <= {0, 7, 200}


def test_coarse_axis_gets_its_own_order_by_the_anisotropy_rule():
    assert axis_orders((3.5, 0.8, 0.8), (3.5, 1, 1), 3, 0, 3.0) == (0, 3, 3)
    assert axis_orders((1, 1, 1), (1, 1, 5), 3, 0, 3.0) == (3, 3, 0)
    assert axis_orders((1, 1, 1), (1.5, 1.5, 2), 3, 0, 3.0) == (3, 3, 3)
    assert axis_orders((5, 5, 1), (1, 1, 1), 3, 0, 3.0) == (3, 3, 3)  # two coarse axes


def test_cubic_overshoot_is_clipped_slice_by_slice_when_the_coarse_axis_is_apart():
    image = np.random.default_rng(2).normal(size=(1, 6, 20, 24)).astype(np.float32)
    image[0, 3] *= 100
    resized = resize(image, (9, 31, 40), (0, 3, 3))[0]
    source = np.clip(np.floor((np.arange(9) + 0.5) * 6 / 9), 0, 5).astype(int)
    for plane, z in zip(resized, source, strict=True):
        assert image[0, z].min() <= plane.min() and plane.max() <= image[0, z].max()
        alone = resize(image[:, z : z + 1], (1, 31, 40), (0, 3, 3))[0, 0]
        assert np.allclose(plane, alone, atol=1e-4)


def test_two_equally_coarse_axes_of_an_oblique_image_are_not_taken_for_one():
    noisy = (0.2, 1.25, 1.25 * (1 + 1e-15))
    assert axis_orders(noisy, (1, 1, 1), 3, 0, 3.0) == (3, 3, 3)
