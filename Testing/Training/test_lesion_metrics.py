"""Lesions as objects: matching, average precision and FROC on cases worked out by hand."""

import numpy as np
import pytest

from mim.lesion_metrics import (
    CaseDetections,
    assign,
    average_precision,
    froc,
    match_by_size,
    match_lesions,
)


def image(*boxes):
    array = np.zeros((10, 20, 20), np.uint8)
    for number, box in enumerate(boxes, start=1):
        array[box] = number
    return array


A = np.s_[1:5, 1:5, 1:5]
A_SHIFTED = np.s_[2:6, 1:5, 1:5]
B = np.s_[1:5, 12:16, 12:16]
FAR = np.s_[7:9, 1:3, 15:18]


def test_an_overlapping_lesion_is_a_hit_and_a_lone_one_a_false_lesion():
    found = match_lesions(image(A_SHIFTED, FAR), [0.9, 0.4], image(A, B) > 0)
    assert found == CaseDetections((0.9, 0.4), (True, False), 2)
    assert found.confidence == 0.9


def test_touching_by_less_than_a_tenth_is_no_hit():
    # 16 voxels in common of 168 in all, and of 144.
    assert match_lesions(image(np.s_[4:10, 1:5, 1:6]), [1.0], image(A) > 0).hits == (False,)
    assert match_lesions(image(np.s_[4:10, 1:5, 1:5]), [1.0], image(A) > 0).hits == (True,)


def test_as_many_lesions_are_hit_as_possible_before_the_overlap_counts():
    # The largest overlap, 0.615, would leave the other two with each other, and 0 is no hit.
    assert assign(np.array([[0.615, 0.25], [0.18, 0.0]])) == (True, True)
    # Where the number of hits is the same, the larger overlap is the hit.
    assert assign(np.array([[0.3], [0.6], [0.05]])) == (None, True, False)


def test_the_other_half_of_a_split_lesion_is_neither_hit_nor_false():
    larger, smaller = np.s_[1:4, 1:5, 1:5], np.s_[4:5, 1:5, 1:5]
    found = match_lesions(image(larger, smaller, FAR), [0.5, 0.9, 0.2], image(A) > 0)
    assert found == CaseDetections((0.5, 0.9, 0.2), (True, None, False), 1)
    assert found.confidence == 0.9
    assert average_precision([found]) == 1
    assert froc([found], (0.5, 1)) == {0.5: 1.0, 1: 1.0}


def test_average_precision_of_a_worked_example():
    cases = [CaseDetections((0.9, 0.3), (True, True), 2), CaseDetections((0.6,), (False,), 1)]
    # 0.9: recall 1/3, precision 1; 0.6: no more recall; 0.3: recall 2/3, precision 2/3
    assert average_precision(cases) == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3)


def test_equal_confidences_are_one_threshold():
    cases = [CaseDetections((0.5, 0.5), (True, False), 1)]
    assert average_precision(cases) == pytest.approx(0.5)


def test_perfect_and_empty_detection():
    assert average_precision([CaseDetections((0.2,), (True,), 1)]) == 1
    assert average_precision([CaseDetections((), (), 3)]) == 0
    assert np.isnan(average_precision([CaseDetections((0.2,), (False,), 0)]))


def test_froc_counts_false_lesions_per_case():
    cases = [CaseDetections((0.9, 0.3), (False, True), 1), CaseDetections((0.8,), (True,), 1)]
    assert froc(cases, (0.25, 0.5)) == {0.25: 0.0, 0.5: 1.0}


def test_without_confidences_the_larger_lesion_is_surer():
    found = match_by_size(image(A, FAR) > 0, image(A) > 0)
    assert dict(zip(found.hits, found.confidences, strict=True)) == {True: 64.0, False: 12.0}


def test_parts_that_touch_by_a_corner_are_one_lesion():
    corners = image(np.s_[1:3, 1:3, 1:3], np.s_[3:5, 3:5, 3:5]) > 0
    assert match_lesions(image(), [], corners).reference_lesions == 1
    assert match_by_size(corners, corners) == CaseDetections((16.0,), (True,), 1)


def test_missing_confidences_are_an_error():
    with pytest.raises(ValueError, match="confidences"):
        match_lesions(image(A), [], image(A) > 0)
