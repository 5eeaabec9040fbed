"""Brush, islands, smoothing and their undo on real MRML segmentations."""

import numpy as np
import pytest

pytest.importorskip("trame_slicer", reason="needs mimsegment[web]")

from MIMSegment.Logic import scene as mrml
from MIMSegment.Logic.labels import Label
from MIMSegment.Logic.scene_layers import layers, voxels
from MIMSegment.Logic.volume import Geometry
from mimsegment_web import editing
from mimsegment_web.editing import SegmentEditor

TABLE = [Label(1, "Gland"), Label(2, "Lesion")]
UP = (0.0, 0.0, 1.0)


@pytest.fixture
def node():
    labels = np.zeros((12, 40, 40), np.uint8)
    labels[3:9, 10:30, 10:30] = 1
    labels[5:7, 15:20, 15:20] = 2
    geometry = Geometry.from_parts(labels.shape, (3.0, 1.0, 1.0))
    return mrml.add_segmentation(mrml.new_scene(), labels, geometry, TABLE, "Result")


def labels_of(node):
    return mrml.labels_from_segmentation(node)[0]


def test_a_disc_changes_one_slice_and_takes_from_the_other_structure(node):
    before = labels_of(node)
    editor = SegmentEditor(node, "Segment_2")
    assert editor.paint((25, 25, 15), (25, 25, 15), UP, 6, sphere=False, erase=False)
    changed = labels_of(node) != before
    assert set(np.nonzero(changed)[0]) == {5}
    y, x = np.nonzero(changed[5])
    assert np.hypot(x - 25, y - 25).max() <= 3 and len(x) == 29
    assert (labels_of(node)[5, y, x] == 2).all()


def test_a_ball_reaches_the_slices_that_its_radius_reaches(node):
    before = labels_of(node)
    editor = SegmentEditor(node, "Segment_2")
    editor.paint((5, 5, 15), (5, 5, 15), UP, 14, sphere=True, erase=False)
    assert set(np.nonzero(labels_of(node) != before)[0]) == {3, 4, 5, 6, 7}


def test_a_stroke_has_no_gaps_and_is_taken_back_as_one_step(node):
    before = labels_of(node)
    editor = SegmentEditor(node, "Segment_2")
    editor.begin_stroke()
    editor.paint((2, 2, 15), (2, 2, 15), UP, 2, sphere=False, erase=False)
    editor.paint((2, 2, 15), (37, 2, 15), UP, 2, sphere=False, erase=False)
    editor.end_stroke()
    assert (labels_of(node)[5, 2, 2:38] == 2).all()
    assert editor.undo() and not editor.can_undo
    assert (labels_of(node) == before).all()


def test_a_step_that_was_taken_back_is_done_again_until_something_else_is_drawn(node):
    before = labels_of(node)
    editor = SegmentEditor(node, "Segment_2")
    for x in (2, 20):
        editor.begin_stroke()
        editor.paint((x, 2, 15), (x, 12, 15), UP, 4, sphere=False, erase=False)
        editor.end_stroke()
    after = labels_of(node)
    assert editor.undo() and editor.undo() and not editor.undo()
    assert (labels_of(node) == before).all() and editor.can_redo
    assert editor.redo() and editor.redo() and not editor.redo()
    assert (labels_of(node) == after).all()
    editor.undo()
    editor.smooth(3.0)
    assert not editor.can_redo and editor.undo()


def test_a_stroke_whose_end_was_never_told_is_a_step_and_keeps_nothing_waiting(node, monkeypatch):
    before = labels_of(node)
    editor = SegmentEditor(node, "Segment_2")
    editor.begin_stroke()
    editor.paint((2, 2, 15), (2, 2, 15), UP, 2, sphere=False, erase=False)
    assert editor.in_stroke
    monkeypatch.setattr(editing, "_PAUSE", 0.0)
    assert not editor.in_stroke
    editor.begin_stroke()
    editor.end_stroke()
    assert editor.undo() and (labels_of(node) == before).all()


def test_locked_structures_keep_their_voxels(node):
    before = labels_of(node)
    editor = SegmentEditor(node, "Segment_2", locked=["Segment_1"])
    editor.paint((10, 10, 15), (30, 30, 15), UP, 12, sphere=True, erase=False)
    after = labels_of(node)
    assert (after[before == 1] == 1).all()
    assert (after != before).any()


def test_the_eraser_takes_only_from_its_own_structure(node):
    before = labels_of(node)
    SegmentEditor(node, "Segment_2").paint((15, 15, 15), (30, 30, 15), UP, 30, False, erase=True)
    after = labels_of(node)
    assert ((after == 1) == (before == 1)).all()
    assert (after == 2).sum() == (before == 2).sum() // 2


def test_pieces_are_found_by_connection_and_size(node):
    editor = SegmentEditor(node, "Segment_2")
    editor.begin_stroke()
    editor.paint((3, 3, 15), (3, 3, 15), UP, 2, sphere=False, erase=False)
    editor.end_stroke()
    assert editor.remove_small_islands(0.001) == 0
    assert editor.remove_small_islands(0.1) == 1
    editor.undo()
    assert editor.keep_largest_island() == 1
    assert editor.keep_largest_island() == 0
    assert editor.count == 50


def test_smoothing_removes_a_spike_and_keeps_the_rest(node):
    editor = SegmentEditor(node, "Segment_1")
    size = editor.count
    editor.paint((31, 20, 15), (36, 20, 15), UP, 1, sphere=False, erase=False)
    assert editor.smooth(3.0)
    assert (labels_of(node)[5, 20, 32:] == 0).all()
    assert abs(editor.count - size) < 0.1 * size


def test_outside_the_grid_nothing_is_painted(node):
    before = labels_of(node)
    editor = SegmentEditor(node, "Segment_1")
    assert not editor.paint((-90, -90, 0), (-95, -90, 0), UP, 8, sphere=True, erase=False)
    assert (labels_of(node) == before).all()


def test_a_labelmap_that_slicer_shrank_is_painted_at_the_right_place(node):
    import slicer

    image, members = layers(node)[0]
    small = slicer.vtkOrientedImageData()
    small.DeepCopy(image)
    slicer.vtkOrientedImageDataResample.CopyImage(image, small, [8, 32, 8, 32, 2, 9])
    for segment_id, _ in members:
        node.GetSegmentation().GetSegment(segment_id).AddRepresentation("Binary labelmap", small)
    editor = SegmentEditor(node, "Segment_2")
    editor.paint((3, 4, 15), (3, 4, 15), UP, 1, sphere=False, erase=False)
    assert voxels(layers(node)[0][0]).shape == (12, 40, 40)
    assert labels_of(node)[5, 4, 3] == 2
