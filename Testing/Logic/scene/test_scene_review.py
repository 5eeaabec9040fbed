"""A review on real MRML, with strokes of Slicer's own segment editor."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="the slicer-core wheel is not installed")

from editor_case import Editor  # noqa: E402
from MIMSegment.Logic import scene as mrml  # noqa: E402
from MIMSegment.Logic.audit import AuditLog, Provenance, read_log  # noqa: E402
from MIMSegment.Logic.labels import Label  # noqa: E402
from MIMSegment.Logic.review import Review, Verdict  # noqa: E402
from MIMSegment.Logic.scene_log import log_table, read_rows  # noqa: E402
from MIMSegment.Logic.scene_review import NodeSegments  # noqa: E402
from scene_cases import GRIDS, draw, labels_with_gaps, put_under, tag  # noqa: E402

ZONE, LESION, LIVER = "Segment_3", "Segment_7", "Segment_200"
OVER_BOTH = (slice(3, 6), slice(5, 12), slice(10, 25))  # some of the zone, some of the lesion
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def node(segmentation):
    return segmentation


@pytest.fixture
def editor(scene, node, reference):
    return Editor(scene, node, reference)


@pytest.fixture
def review(node):
    return Review(NodeSegments(node))


def labels_of(node) -> np.ndarray:
    return mrml.labels_from_segmentation(node)[0]


def segment(node, segment_id: str):
    return node.GetSegmentation().GetSegment(segment_id)


def test_verdicts_are_slicers_own_status_and_visibility(node, review):
    review.accept(ZONE)
    review.reject(LESION)
    review.comment(LESION, "no | lesion")
    review.edit(LIVER)
    status = [mrml.get_status(node, i) for i in (ZONE, LESION, LIVER)]
    assert status == [mrml.Status.COMPLETED, mrml.Status.FLAGGED, mrml.Status.IN_PROGRESS]
    display = node.GetDisplayNode()
    assert display.GetSegmentVisibility(ZONE) and not display.GetSegmentVisibility(LESION)
    assert (labels_of(node) == 7).any(), "hidden, never deleted"
    assert tag(segment(node, LESION), "MIMSegment.Comment") == "no / lesion"


def test_volumes_are_those_of_the_voxels(node, review):
    voxel = GRIDS["oblique"].voxel_volume_ml
    labels = labels_with_gaps()
    for segment_id, value in ((ZONE, 3), (LESION, 7), (LIVER, 200)):
        expected = (labels == value).sum() * voxel
        assert review.state[segment_id].volume_ml == pytest.approx(expected)


def test_volumes_follow_a_transform_that_scales_as_in_every_export(scene, node, review):
    own = review.state[ZONE].volume_ml
    put_under(scene, node, np.diag([1.1, 1.1, 1.1, 1.0]))
    review.poll()
    labels, geometry = mrml.labels_from_segmentation(node)
    exported = (labels == 3).sum() * geometry.voxel_volume_ml
    assert review.state[ZONE].volume_ml == pytest.approx(exported)
    assert exported == pytest.approx(1.1**3 * own)
    assert not review.state[ZONE].edited


def test_stroke_turns_the_segments_origin_to_semiautomatic(node, review, editor):
    review.edit(LIVER)
    assert tag(segment(node, LIVER), "DICOM.SegmentAlgorithmType") == "AUTOMATIC"
    editor.paint(LIVER, (slice(0, 1), slice(0, 2), slice(0, 3)))
    review.poll()
    assert tag(segment(node, LIVER), "DICOM.SegmentAlgorithmType") == "SEMIAUTOMATIC"
    assert tag(segment(node, LIVER), "DICOM.SegmentAlgorithmName") == "zones 1.0 / a"
    assert tag(segment(node, ZONE), "DICOM.SegmentAlgorithmType") == "AUTOMATIC"
    assert review.state[LIVER].volume_ml == pytest.approx(6 * GRIDS["oblique"].voxel_volume_ml)


def test_stroke_over_an_accepted_segment_is_taken_back(node, review, editor):
    review.accept(ZONE)
    before = labels_of(node)
    review.edit(LIVER)
    editor.paint(LIVER, OVER_BOTH)
    assert (labels_of(node) != before)[before == 3].any(), "Slicer itself would let it happen"
    review.poll()
    after = labels_of(node)
    np.testing.assert_array_equal(after == 3, before == 3)
    assert (after == 200).sum() == np.count_nonzero(before[OVER_BOTH] != 3)
    assert "locked" in review.state.notice


def test_erasing_an_accepted_segment_itself_is_taken_back(node, review, editor):
    review.accept(ZONE)
    editor.erase(ZONE, (slice(0, 12), slice(0, 20), slice(0, 30)))
    assert not (labels_of(node) == 3).any()
    review.poll()
    np.testing.assert_array_equal(labels_of(node), labels_with_gaps())


@pytest.mark.parametrize("overlap", [False, True], ids=["overwriting", "overlapping"])
def test_undo_of_an_edit_restores_every_voxel_and_tag(node, review, editor, overlap):
    if overlap:
        editor.allow_overlap()
    masks = {i: mrml.segment_array(node, i)[0].sum() for i in (ZONE, LESION, LIVER)}
    review.edit(LIVER)
    editor.paint(LIVER, OVER_BOTH)
    editor.erase(LIVER, (slice(4, 5), slice(5, 12), slice(10, 25)))
    review.finish_edit()
    assert review.state[ZONE].edited is not overlap
    review.undo(LIVER)
    np.testing.assert_array_equal(labels_of(node), labels_with_gaps())
    assert masks == {i: mrml.segment_array(node, i)[0].sum() for i in masks}
    for segment_id in masks:
        assert tag(segment(node, segment_id), "DICOM.SegmentAlgorithmType") == "AUTOMATIC"
        assert mrml.get_status(node, segment_id) is mrml.Status.NOT_STARTED


def test_voxels_that_slicer_cut_off_come_back(node, review, editor):
    review.edit(LESION)
    editor.erase(LESION, (slice(0, 12), slice(0, 20), slice(0, 30)))
    review.finish_edit()
    labelmap = segment(node, ZONE).GetRepresentation("Binary labelmap")
    assert labelmap.GetDimensions() != (30, 20, 12), "Slicer shrank it"
    review.undo(LESION)
    np.testing.assert_array_equal(labels_of(node), labels_with_gaps())


def test_painting_in_slicers_own_module_is_noticed(node, review, editor):
    editor.paint(LIVER, (slice(0, 1), slice(0, 2), slice(0, 3)))
    review.poll()
    item = review.state[LIVER]
    assert item.edited and item.verdict is Verdict.EDITING
    review.undo(LIVER)
    assert not (labels_of(node) == 200).any() and not review.state[LIVER].edited


def test_segment_that_the_user_draws_joins_the_list_as_drawn_by_hand(node, review, editor):
    node.GetSegmentation().AddEmptySegment("mine", "My own")
    editor.paint("mine", (slice(0, 1), slice(0, 2), slice(0, 3)))
    review.poll()
    item = review.state["mine"]
    assert item.name == "My own" and item.volume_ml > 0 and not item.edited
    assert tag(segment(node, "mine"), "DICOM.SegmentAlgorithmType") == "", "Slicer: MANUAL"
    node.GetSegmentation().RemoveSegment("mine")
    review.poll()
    assert "mine" not in [item.id for item in review.state.items]


@pytest.mark.parametrize("end", ["finish_edit", "undo"])
def test_lesion_drawn_during_the_edit_of_another_structure_is_logged_and_stays(node, editor, end):
    lines = []
    review = Review(NodeSegments(node), record=lambda event, **line: lines.append((event, line)))
    before = review.state[ZONE].volume_ml
    review.edit(ZONE)
    node.GetSegmentation().AddEmptySegment("mine", "Missed lesion")
    review.poll()
    editor.paint("mine", (slice(0, 1), slice(0, 2), slice(0, 3)))
    review.poll()
    editor.erase(ZONE, OVER_BOTH)
    review.poll()
    review.undo(ZONE) if end == "undo" else review.finish_edit()
    ml = 6 * GRIDS["oblique"].voxel_volume_ml
    item = review.state["mine"]
    assert item.by_hand and not item.edited and item.volume_ml == pytest.approx(ml)
    assert (review.state[ZONE].volume_ml == before) == (end == "undo")
    logged = {(event, line["structure"]): line for event, line in lines}
    assert set(logged) == {
        ("added", "Missed lesion"),
        ("undo" if end == "undo" else "edit", review.state[ZONE].name),
    }
    line = logged["added", "Missed lesion"]
    assert line["voxels_changed"] == 6 and line["volume_after_ml"] == round(ml, 4)
    review.accept("mine")
    assert review.state["mine"].locked


def test_strokes_of_a_segment_that_the_user_has_added_can_be_undone(node, review, editor):
    node.GetSegmentation().AddEmptySegment("mine", "Missed lesion")
    review.poll()
    editor.paint("mine", (slice(0, 1), slice(0, 2), slice(0, 3)))
    review.poll()
    assert review.state["mine"].volume_ml > 0
    review.undo("mine")
    assert review.state["mine"].volume_ml == 0
    np.testing.assert_array_equal(labels_of(node), labels_with_gaps())


def test_segment_replaced_from_outside_counts_its_voxels(node, review):
    mask = np.zeros(labels_with_gaps().shape, bool)
    mask[5:8, 8:14, 12:20] = True  # overlaps: Slicer gives it a layer of its own
    draw(node, LIVER, mask)
    review.poll()
    assert review.state[LIVER].volume_ml == pytest.approx(
        mask.sum() * GRIDS["oblique"].voxel_volume_ml
    )
    review.undo(LIVER)
    np.testing.assert_array_equal(labels_of(node), labels_with_gaps())


_READ_IN_A_FRESH_PROCESS = """
import json, sys
from MIMSegment.Logic import scene as mrml
from MIMSegment.Logic.review import Review
from MIMSegment.Logic.scene_log import read_rows
from MIMSegment.Logic.scene_review import NodeSegments
scene = mrml.load_scene(sys.argv[1])  # kept: the node does not keep its scene alive
node = scene.GetFirstNodeByName("Zones")
items = Review(NodeSegments(node)).state.items
print(json.dumps([[i.id, i.verdict, i.comment, i.edited, i.visible, i.volume_ml] for i in items]))
print(json.dumps(read_rows(node)))
"""


def test_reloaded_scene_has_every_verdict_tag_volume_and_log_line(scene, node, editor, tmp_path):
    store = NodeSegments(node)
    made = Provenance("zones", "1.0", {"models/a=b.onnx": "ab" * 32}, ("1.2", "", "3.4"))
    log = AuditLog(made, tmp_path / "case.audit.jsonl", [store.log], 'O\'Neil "Jo"')
    review = Review(store, record=log.record)
    review.accept(ZONE)
    review.reject(LESION)
    review.comment(LESION, 'a "dubious" lesion, see\tADC')
    review.edit(LIVER)
    editor.paint(LIVER, (slice(0, 1), slice(0, 2), slice(0, 3)))
    review.finish_edit()
    mrml.save_scene(scene, tmp_path / "case.mrb")
    done = subprocess.run(
        [sys.executable, "-c", _READ_IN_A_FRESH_PROCESS, tmp_path / "case.mrb"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    items, rows = map(json.loads, done.stdout.splitlines())
    state = review.state
    assert items == [
        [i.id, str(i.verdict), i.comment, i.edited, i.visible, pytest.approx(i.volume_ml)]
        for i in state.items
    ]
    assert rows == log.entries == read_log(log.path) and len(rows) == 4


def test_log_table_is_for_reading_and_grows_with_the_scene(scene, node):
    store = NodeSegments(node)
    AuditLog(Provenance("zones", "1.0"), None, [store.log]).record("segmented", device="CPU")
    assert log_table(node).GetLocked() and log_table(node).GetName() == "Zones audit log"
    assert [row["event"] for row in read_rows(node)] == ["segmented"]


def test_segmentation_without_display_is_shown_when_its_review_begins(scene, node):
    scene.RemoveNode(node.GetDisplayNode())
    review = Review(NodeSegments(node))
    review.reject(LESION)
    visible = {i: node.GetDisplayNode().GetSegmentVisibility(i) for i in (ZONE, LESION)}
    assert visible == {ZONE: True, LESION: False}
    assert visible == {i: review.state[i].visible for i in visible}


def test_many_segments_keep_their_verdicts_apart(scene):
    labels = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    table = [Label(v, f"Structure {v}") for v in range(1, 60)]
    grid = GRIDS["LPS"].cropped((0, 0, 0), (3, 4, 5))
    review = Review(NodeSegments(mrml.add_segmentation(scene, labels, grid, table, "Many")))
    review.reject("Segment_5")
    verdicts = {item.id: item.verdict for item in review.state.items}
    assert len(verdicts) == 59
    assert [i for i, v in verdicts.items() if v is Verdict.REJECTED] == ["Segment_5"]
