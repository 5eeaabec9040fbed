"""Results in the scene: a new segmentation each time, or an existing one by choice, with a way
back."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("slicer", reason="the slicer-core wheel is not installed")

from flow_cases import rows, start
from MIMSegment.Logic import scene as mrml
from MIMSegment.Logic.audit import Provenance, log_path
from MIMSegment.Logic.engine import Segmentation
from MIMSegment.Logic.errors import GeometryError, InputError
from MIMSegment.Logic.finding import Finding, Severity
from MIMSegment.Logic.postprocess import separate_lesions
from MIMSegment.Logic.review import Review
from MIMSegment.Logic.scene_gateway import MrmlGateway
from MIMSegment.Logic.scene_inputs import VolumeSource
from MIMSegment.Logic.scene_review import NodeSegments
from MIMSegment.Logic.volume import Geometry, Volume
from MIMSegment.Logic.workflow import Export
from MIMSegment.Logic.workflow_ports import Result
from MIMSegment.Logic.workflow_run import place
from reviewed_cases import GEOMETRY, ZONES, prostate_labels
from scene_cases import draw, put_under, rigid, tag

MADE = Provenance("prostate", "1.0.0", {"models/model.onnx": "ab" * 32}, ("1.2",))


@pytest.fixture
def image(scene):
    return mrml.add_volume(scene, Volume(np.zeros((1, *GEOMETRY.shape), np.int16), GEOMETRY), "T2w")


@pytest.fixture
def gateway(scene):
    return MrmlGateway(scene)


def result(image, labels=None, made=MADE, geometry=GEOMETRY, wanted=None, **more) -> Result:
    labels = prostate_labels() if labels is None else labels
    labels = labels if wanted is None else labels * np.isin(labels, wanted)
    found = Segmentation(labels, geometry, {3: 0.5})
    found, table = separate_lesions(found, ZONES, wanted)
    return Result(found, table, "Prostate", made, [("T2w", VolumeSource(image))], **more)


def ids(node) -> dict[str, str]:
    return {record.name: record.id for record in NodeSegments(node).records()}


def picture(node):
    """All that an undo must bring back."""
    segments = [node.GetSegmentation().GetSegment(i) for i in ids(node).values()]
    names = ("DICOM.SegmentAlgorithmType", "DICOM.SegmentAlgorithmName", "MIMSegment.ModelLabel")
    return (
        NodeSegments(node).records(),
        [[tag(segment, name) for name in names] for segment in segments],
        mrml.labels_from_segmentation(node)[0].tolist(),
        mrml.provenance(node),
        node.GetNodeReferenceID("MIMSegment.Input.T2w"),
    )


def one_lesion(shift=0) -> np.ndarray:
    labels = prostate_labels()
    labels[10:12, 20:23, 20:24] = 2
    return np.roll(labels, shift, axis=2)


def test_each_result_gets_a_segmentation_of_its_own(scene, gateway, image):
    first = gateway.show_result(result(image)).store.node
    before = picture(first)
    second = gateway.show_result(result(image, one_lesion())).store.node
    assert second is not first and picture(first) == before
    assert first.GetName() != second.GetName() and len(gateway.results()) == 2
    gateway.undo_result()
    assert [name for _, name in gateway.results()] == [first.GetName()]


def test_a_lesion_has_a_row_and_files_have_the_models_values(gateway, image):
    shown = gateway.show_result(result(image))
    names = [item.name for item in Review(shown.store).state.items]
    assert sorted(names) == ["lesion 1", "lesion 2", "peripheral zone", "transition zone"]
    volume, table = gateway.labels(shown.store)
    assert {s.name: s.source_value for s in table}["lesion 2"] == 3
    assert {s.name: s.value for s in table}["lesion 2"] == 4
    np.testing.assert_array_equal(volume.array[0] > 2, prostate_labels() == 3)


def test_a_chosen_segmentation_keeps_what_was_drawn_and_gets_the_result(gateway, image):
    node = mrml.add_segmentation(
        image.GetScene(), np.zeros(GEOMETRY.shape, np.uint8), GEOMETRY, [replace(ZONES[0], value=9,
        name="mine")], "By hand", image)  # fmt: skip
    mask = np.zeros(GEOMETRY.shape, bool)
    mask[8:12, 30:38, 20:30] = True
    draw(node, "Segment_9", mask)
    before = picture(node)
    shown = gateway.show_result(result(image), node.GetID())
    assert shown.store.node is node
    assert mrml.segment_array(node, "Segment_9")[0].sum() == mask.sum(), "it overlaps and stays"
    volumes = {i.name: i.volume_ml for i in Review(shown.store).state.items}
    counts = np.bincount(prostate_labels().ravel())
    assert volumes["transition zone"] == pytest.approx(counts[2] * 0.003)
    gateway.undo_result()
    assert picture(node) == before and not gateway.results()


def test_a_second_run_replaces_the_first_one_in_it_and_can_be_taken_back(gateway, image):
    finding = Finding("x", Severity.NOTE, "The first run.")
    node = gateway.show_result(result(image, findings=(finding,))).store.node
    NodeSegments(node).write(replace(NodeSegments(node).records()[0], comment="seen"))
    before = picture(node)
    gateway.show_result(result(image, one_lesion(shift=2)), node.GetID())
    labels = mrml.labels_from_segmentation(node)[0]
    expected = one_lesion(shift=2)
    np.testing.assert_array_equal(labels == 2, expected == 2)
    np.testing.assert_array_equal(labels > 2, expected == 3)
    volumes = {i.name: i.volume_ml for i in Review(NodeSegments(node)).state.items}
    assert volumes["lesion 1"] == volumes["lesion 2"] == 0, "those of the first run"
    assert volumes["lesion"] > 0
    gateway.undo_result()
    assert picture(node) == before
    assert [str(f) for f in gateway.open_result(node.GetID()).findings] == ["The first run."]


@pytest.mark.parametrize("name", ["transition zone", "lesion 2"])
def test_accepted_structures_are_never_replaced(gateway, image, name):
    node = gateway.show_result(result(image)).store.node
    Review(NodeSegments(node)).accept(ids(node)[name])
    before = picture(node)
    with pytest.raises(InputError, match=f"{name} in Prostate is accepted and locked; reopen it"):
        gateway.show_result(result(image, one_lesion()), node.GetID())
    assert picture(node) == before


@pytest.mark.parametrize(("name", "free"), [("lesion 2", "lesion 3"), ("lesion 1", "lesion 3"),
                                            ("transition zone", "transition zone 2")])  # fmt: skip
def test_what_was_drawn_by_hand_is_kept_and_the_new_one_gets_the_next_free_name(
    gateway, image, name, free
):
    asked = (1, 3) if name == "transition zone" else (1, 2)  # so that the name is free at first
    node = gateway.show_result(result(image, wanted=asked)).store.node
    drawn = node.GetSegmentation().AddEmptySegment("", name)
    mask = np.zeros(GEOMETRY.shape, bool)
    mask[1:3, 2:8, 2:8] = True
    draw(node, drawn, mask)
    before = picture(node)
    shown = gateway.show_result(result(image), node.GetID())
    assert shown.store.node is node and mrml.segment_array(node, drawn)[0].sum() == mask.sum()
    names = [record.name for record in NodeSegments(node).records()]
    assert name in names and free in names and len(names) == len(set(names)) == 5
    volume, table = gateway.labels(shown.store)
    new = {s.name: s for s in table}[free]
    assert (volume.array == new.value).any()
    assert f"{new.source_value} {new.model_name}" in ("2 transition zone", "3 lesion")
    gateway.undo_result()
    assert picture(node) == before


def test_a_segmentation_of_another_model_is_refused_with_a_way_out(gateway, image):
    node = gateway.show_result(result(image)).store.node
    before = picture(node)
    other = replace(MADE, package="liver")
    with pytest.raises(InputError, match=r"result of prostate 1\.0\.0.*choose a new segmentation"):
        gateway.show_result(result(image, made=other), node.GetID())
    assert picture(node) == before


def test_a_segmentation_on_another_grid_is_refused_with_a_way_out(scene, gateway, image):
    node = gateway.show_result(result(image)).store.node
    put_under(scene, node, rigid())
    with pytest.raises(GeometryError, match="choose a new segmentation"):
        gateway.show_result(result(image), node.GetID())


def test_an_edited_segmentation_that_slicer_shrank_takes_a_result_at_the_right_place(
    gateway, image
):
    node = gateway.show_result(result(image)).store.node
    mask = np.zeros((4, 10, 10), bool)
    mask[1:3, 2:8, 2:8] = True
    draw(node, ids(node)["lesion 2"], mask)
    gateway.show_result(result(image, one_lesion()), node.GetID())
    labels = mrml.labels_from_segmentation(node)[0]
    np.testing.assert_array_equal(labels == 1, one_lesion() == 1)


def test_a_result_that_finds_its_place_taken_is_not_lost(gateway, image):
    node = gateway.show_result(result(image)).store.node
    Review(NodeSegments(node)).accept(ids(node)["lesion 1"])
    shown, said = place(gateway, result(image, one_lesion()), node.GetID())
    assert shown.store.node is not node and len(gateway.results()) == 2
    assert "lesion 1 in Prostate is accepted" in said and "in a new segmentation" in said


def test_a_review_goes_on_when_a_result_cannot_be_shown(gateway, image):
    node = gateway.show_result(result(image)).store.node
    review = Review(NodeSegments(node))
    lesion, zone = ids(node)["lesion 2"], ids(node)["peripheral zone"]
    review.reject(zone)
    image.GetImageData().SetDimensions(2, 2, 2)
    with pytest.raises(GeometryError, match="was changed while it was being segmented"):
        place(gateway, result(image), "", review)
    draw(node, lesion, np.ones((2, 2, 2), bool))
    review.poll()
    assert review.state[lesion].edited
    review.undo(zone)
    assert not review.state[zone].verdict.resolved


def test_a_result_whose_volume_was_moved_lies_under_its_transform(scene, gateway, image):
    put_under(scene, image, rigid())
    node = gateway.show_result(result(image)).store.node
    assert node.GetTransformNodeID() == image.GetTransformNodeID()
    moved = Geometry(GEOMETRY.shape, mrml.labels_from_segmentation(node)[1].ijk_to_lps)
    assert not moved.is_close(GEOMETRY)


def test_a_review_of_a_reopened_scene_only_appends_to_its_log(image, tmp_path):
    path = tmp_path / "case.mrb"
    MrmlGateway(image.GetScene()).show_result(result(image))
    first = reviewed(image.GetScene(), path, "transition zone", tmp_path)
    scene = mrml.load_scene(path)
    second = reviewed(scene, path, "lesion 2", tmp_path)
    assert second.startswith(first), "nothing is written anew"
    added = [json.loads(line) for line in second[len(first) :].splitlines()]
    assert [(line["event"], line.get("structure")) for line in added] == [
        ("reject", "lesion 2"), ("undo", "lesion 2"), ("reject", "lesion 2"), ("export", None),
    ]  # fmt: skip
    assert all(line["weights"] == MADE.weights for line in added)


def reviewed(scene, path, name, folder) -> bytes:
    """The log beside the scene after a structure was rejected, twice, and the scene saved."""
    workflow = start(MrmlGateway(scene), folder)
    workflow.open_result(workflow.results[0][0])
    chosen = rows(workflow)[name].id
    workflow.review.reject(chosen)
    workflow.review.undo(chosen)
    workflow.review.reject(chosen)
    workflow.export(Export.SCENE, path)
    assert workflow.state.error is None
    workflow.close()
    return log_path(path).read_bytes()
