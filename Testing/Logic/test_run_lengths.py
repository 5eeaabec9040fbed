import numpy as np
import pytest

from MIMSegment.Logic.run_lengths import RunLengths

FIRST = (-3, 2, -7)  # the extents of Slicer's labelmaps may begin anywhere


@pytest.fixture
def labels():
    rng = np.random.default_rng(0)
    return (rng.integers(0, 5, (40, 9, 11)) * (rng.random((40, 9, 11)) > 0.4)).astype(np.uint8)


def test_decoded_labels_are_the_encoded_ones(labels):
    box = tuple(slice(f, f + n) for f, n in zip(FIRST, labels.shape, strict=True))
    runs = RunLengths.encode(labels, FIRST)
    np.testing.assert_array_equal(runs.decode(box), labels)
    assert runs.counts() == {v: int((labels == v).sum()) for v in range(1, 5)}


def test_labels_beyond_255_and_runs_that_reach_both_ends_of_a_row():
    labels = np.full((2, 3, 4), 700, np.uint16)
    labels[1, 1] = 701
    runs = RunLengths.encode(labels)
    assert len(runs.position) == 6, "a run ends with its row"
    np.testing.assert_array_equal(runs.decode(runs.box()), labels)


def test_changed_counts_voxels_that_have_a_value_in_one_of_the_two_only(labels):
    other = labels.copy()
    other[2:4, 3:6, 2:8] = 4
    other[20] = 0
    changed = RunLengths.encode(labels).changed(RunLengths.encode(other))
    assert changed == {v: int(((labels == v) != (other == v)).sum()) for v in range(1, 5)}


@pytest.mark.parametrize("planes", [(0, 1), (7, 12), (39, 40), (0, 40)])
def test_planes_are_exchanged_for_others(labels, planes):
    other = labels.copy()
    other[slice(*planes)] = np.roll(other[slice(*planes)], 3, axis=2)
    here = tuple(FIRST[0] + z for z in planes)
    new = RunLengths.encode(other[slice(*planes)], (here[0], *FIRST[1:]))
    exchanged = RunLengths.encode(labels, FIRST).with_planes(here, new)
    assert exchanged.changed(RunLengths.encode(other, FIRST)) == {}
    assert exchanged.counts() == RunLengths.encode(other, FIRST).counts()


@pytest.mark.parametrize("plane", [0, 17, 39])
def test_a_change_is_found_wherever_it_is(labels, plane):
    other = labels.copy()
    other[plane, 4, 5:7] = 9
    changed = RunLengths.encode(labels).changed(RunLengths.encode(other))
    assert changed.pop(9) == 2
    assert changed == {v: int((labels[plane, 4, 5:7] == v).sum())
                       for v in np.unique(labels[plane, 4, 5:7]) if v}  # fmt: skip


def test_the_same_voxels_in_a_smaller_box_have_not_changed(labels):
    labels[:, :2], labels[:, :, 9:], labels[:5] = 0, 0, 0
    whole = RunLengths.encode(labels)
    cut = RunLengths.encode(labels[5:, 2:, :9], (5, 2, 0))
    assert whole.changed(cut) == {}


def test_each_value_has_its_box(labels):
    boxes = RunLengths.encode(labels, FIRST).boxes()
    for value in range(1, 5):
        index = np.argwhere(labels == value) + FIRST
        low, high = index.min(axis=0), index.max(axis=0) + 1
        assert boxes[value] == tuple(map(slice, low.tolist(), high.tolist()))


def test_only_keeps_and_renames_values(labels):
    runs = RunLengths.encode(labels).only({2: 1, 9: 5})
    box = tuple(slice(0, n) for n in labels.shape)
    np.testing.assert_array_equal(runs.decode(box), labels == 2)


@pytest.mark.parametrize("shape", [(0, 0, 0), (2, 3, 4)])
def test_nothing_is_nothing(shape):
    runs = RunLengths.encode(np.zeros(shape, np.uint8))
    assert runs.box() is None and runs.boxes() == {} and runs.counts() == {}
    full = RunLengths.encode(np.ones((2, 3, 4), np.uint8))
    assert runs.changed(full) == full.changed(runs) == {1: 24}
    assert runs.changed(runs) == {} and runs.only({1: 2}).counts() == {}
