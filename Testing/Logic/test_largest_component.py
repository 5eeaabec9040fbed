"""What lies apart from a structure's largest part is removed, where a package asks for it."""

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from MIMSegment.Logic.doubt import DoubtfulPlace
from MIMSegment.Logic.engine import Segmentation
from MIMSegment.Logic.errors import PackageError
from MIMSegment.Logic.finding import Severity
from MIMSegment.Logic.inference import InferenceOptions, run_package
from MIMSegment.Logic.labels import Label
from MIMSegment.Logic.largest_component import keep_largest_component, with_companions
from MIMSegment.Logic.spec import ModelSpec
from MIMSegment.Logic.volume import Geometry, Volume
from tiny_package import threshold_spec, write_threshold_package

GEOMETRY = Geometry.from_parts((12, 20, 30), (2.0, 1.0, 0.5), origin=(10, 20, 30))
NAMES = [Label(value, f"structure {value}") for value in range(1, 5)]
CORNERS = np.ones((3, 3, 3))


def found(labels, **more) -> Segmentation:
    return Segmentation(labels.copy(), GEOMETRY, **more)


def largest(mask):
    """The same by scipy: the largest parts of a mask."""
    parts, count = ndimage.label(mask, CORNERS)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    return np.isin(parts, 1 + np.flatnonzero(sizes == sizes.max(initial=0)))


@pytest.fixture
def noise():
    """Four structures in many parts, some of which touch."""
    random = np.random.default_rng(3)
    return random.choice(5, GEOMETRY.shape, p=[0.9, 0.025, 0.025, 0.025, 0.025]).astype(np.uint8)


def test_every_structure_keeps_its_largest_part_alone(noise):
    kept = keep_largest_component(found(noise), [(1,), (3,)], NAMES).labels
    for value in (1, 3):
        np.testing.assert_array_equal(kept == value, largest(noise == value))
        assert (kept == value).sum() < (noise == value).sum()
    for value in (2, 4):
        np.testing.assert_array_equal(kept == value, noise == value)


def test_structures_of_one_object_keep_what_touches_its_largest_part(noise):
    kept = keep_largest_component(found(noise), [(1, 2, 4)], NAMES).labels
    joint = largest(np.isin(noise, (1, 2, 4)))
    expected = np.where(joint | (noise == 3), noise, 0)
    assert 0 < joint.sum() < np.isin(noise, (1, 2, 4)).sum()
    np.testing.assert_array_equal(kept, expected)


def test_groups_go_one_after_the_other(noise):
    kept = keep_largest_component(found(noise), [(1, 2), (1,)], NAMES).labels
    first = np.where(largest(np.isin(noise, (1, 2))), noise, 0)
    np.testing.assert_array_equal(kept == 1, largest(first == 1))


def test_parts_that_are_equally_large_are_all_kept():
    labels = np.zeros(GEOMETRY.shape, np.uint8)
    labels[0, 0, :4] = labels[6, 6, :4] = 1
    labels[9, 9, :3] = 1
    kept = keep_largest_component(found(labels), [(1,)], NAMES).labels
    assert kept[0, 0, 0] == kept[6, 6, 0] == 1 and kept.sum() == 8


def test_what_was_removed_is_told_with_its_size_and_place():
    labels = np.zeros(GEOMETRY.shape, np.uint8)
    labels[2:8, 2:8, 2:8] = 1
    labels[10, 15, 20:29] = 1
    labels[11, 2, 2] = 1
    labels[2, 2, 10:12] = 2
    (note,) = keep_largest_component(found(labels), [(1,), (2,)], NAMES).findings
    assert (note.code, note.severity, note.label) == ("pieces-removed", Severity.NOTE, 1)
    assert "structure 1: 2 pieces" in note.message and "0.01 ml" in note.message
    # The middle of the larger piece: x 10 + 24 · 0.5, y 20 + 15, z 30 + 10 · 2.
    assert note.position == pytest.approx((22, 35, 50))


def test_a_part_of_the_structures_that_is_asked_for_is_what_it_is_among_all(noise):
    groups = [(1, 2), (3,)]
    assert with_companions(groups, None) is None
    assert with_companions(groups, {2}) == {1, 2} and with_companions(groups, {4}) == {4}
    whole = keep_largest_component(found(noise), groups, NAMES).labels
    doubtful = tuple(DoubtfulPlace((0.0, 0.0, 0.0), value, 1.0) for value in (1, 2))
    result = found(noise, confidence={1: 0.5, 2: 0.6}, doubtful=doubtful)
    part = keep_largest_component(result, groups, NAMES, wanted={2})
    np.testing.assert_array_equal(part.labels, np.where(whole == 2, 2, 0))
    assert part.confidence == {2: 0.6} and [p.label for p in part.doubtful] == [2]
    assert {note.label for note in part.findings} == {2}


def test_an_empty_result_stays_empty():
    labels = np.zeros(GEOMETRY.shape, np.uint8)
    result = keep_largest_component(found(labels), [(1, 2)], NAMES, wanted={1})
    assert not result.labels.any() and result.findings == ()


def test_a_package_that_asks_for_it_gives_one_part_and_says_so(tmp_path):
    spec = replace(threshold_spec(), keep_largest_component=((3,),))
    package = write_threshold_package(tmp_path / "package", spec)
    assert package.spec == spec
    array = np.zeros((1, 12, 20, 24), np.float32)
    array[0, 2:6, 4:9, 5:12] = 1
    array[0, 9:11, 15:17, 18:21] = 1
    volume = Volume(array, Geometry.from_parts(array.shape[1:], (1, 1, 1)))
    for wanted in (None, (3,)):
        result = run_package(volume, package, InferenceOptions("cpu", wanted=wanted))
        assert result.volumes_ml() == pytest.approx({3: 0.14})
        assert result.labels[3, 5, 6] == 3 and result.labels[9, 15, 18] == 0
        assert "pieces-removed" in [finding.code for finding in result.findings]


def test_older_programs_read_packages_that_do_not_ask_for_it():
    assert "keep_largest_component" not in threshold_spec().to_dict()


@pytest.mark.parametrize("groups", [[[5]], [[0]], [[]], [3], "all"])
def test_what_is_no_structure_of_the_model_is_refused(groups):
    data = {**threshold_spec().to_dict(), "keep_largest_component": groups}
    with pytest.raises(PackageError, match=re.compile("keep_largest_component|wrong type")):
        ModelSpec.from_dict(data)
