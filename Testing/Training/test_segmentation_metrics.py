"""Metrics against what can be calculated by hand."""

import numpy as np
import pytest

from mim.segmentation_metrics import structure_metrics

SPACING = (2.0, 1.0, 0.5)


def boxes(shift=0):
    reference = np.zeros((20, 30, 40), np.uint8)
    reference[5:15, 10:20, 10:30] = 1
    prediction = np.zeros_like(reference)
    prediction[5:15, 10 + shift : 20 + shift, 10:30] = 1
    return prediction, reference


def measure(prediction, reference, values=None, **options):
    return structure_metrics(prediction, reference, values or {"box": 1}, SPACING, **options)


def test_equal_boxes_agree_perfectly():
    metrics = measure(*boxes())["box"]
    assert (metrics.dice, metrics.nsd, metrics.hd95, metrics.volume_error) == (1, 1, 0, 0)
    assert metrics.volume == pytest.approx(10 * 10 * 20 * np.prod(SPACING) / 1000)


def test_measuring_warns_of_nothing(recwarn):
    measure(*boxes(shift=3))
    assert not [str(warning.message) for warning in recwarn]


def test_a_shift_by_three_millimeters():
    metrics = measure(*boxes(shift=3))["box"]
    assert metrics.dice == pytest.approx(0.7)
    assert metrics.hd95 == pytest.approx(3.0)
    assert measure(*boxes(shift=3), tolerance=3.1)["box"].nsd == pytest.approx(1.0)
    assert measure(*boxes(shift=3), tolerance=1.0)["box"].nsd < 0.9


def test_distances_are_in_millimeters_along_each_axis():
    prediction, reference = boxes()
    assert measure(np.roll(prediction, 1, 0), reference)["box"].hd95 == pytest.approx(2.0)
    assert measure(np.roll(prediction, 4, 2), reference)["box"].hd95 == pytest.approx(2.0)


def test_a_structure_that_only_one_of_them_has_is_a_full_miss():
    prediction, reference = boxes()
    diagonal = np.linalg.norm(np.multiply(reference.shape, SPACING))
    for pair in ((prediction * 0, reference), (prediction, reference * 0)):
        metrics = measure(*pair)["box"]
        assert (metrics.dice, metrics.nsd) == (0, 0)
        assert metrics.hd95 == pytest.approx(diagonal)
        assert abs(metrics.volume_error) > 0


def test_a_structure_that_neither_has_does_not_count():
    metrics = measure(*(a * 0 for a in boxes()))["box"]
    assert np.isnan([metrics.dice, metrics.nsd, metrics.hd95]).all()


def test_a_region_joins_label_values():
    prediction, reference = boxes()
    prediction[8:10, 12:14, 12:14] = 3
    regions = {"whole": (1, 3), "core": (3,)}
    metrics = measure(prediction, reference, regions)
    assert metrics["whole"].dice == 1
    assert metrics["core"].dice == 0


def test_a_structure_at_the_border_has_a_closed_surface():
    array = np.zeros((6, 6, 6), np.uint8)
    array[:3] = 1
    metrics = measure(array, array)["box"]
    assert (metrics.nsd, metrics.hd95) == (1, 0)


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match="differ"):
        measure(np.zeros((2, 2, 2)), np.zeros((2, 2, 3)))


def test_a_single_slice_is_measured_by_its_outline():
    """Of 20 mm x 20 mm moved by 3 mm two sides of 18 mm of four are within 1 mm."""
    prediction, reference = np.zeros((2, 1, 40, 60), np.uint8)
    reference[0, 10:30, 10:50] = prediction[0, 13:33, 10:50] = 1
    metrics = measure(prediction, reference, tolerance=1.0)["box"]
    assert metrics.nsd == pytest.approx(2 * 18 / 80, abs=0.05)
    assert metrics.hd95 == pytest.approx(3.0)
    assert metrics.volume == pytest.approx(800 * np.prod(SPACING) / 1000)
