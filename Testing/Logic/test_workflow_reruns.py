"""Runs of some structures, and runs into a segmentation that is there, on real MRML."""

from dataclasses import replace

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="the slicer-core wheel is not installed")
pytest.importorskip("onnxruntime")

from vtkmodules.util.numpy_support import vtk_to_numpy  # noqa: E402

from editor_case import Editor  # noqa: E402
from flow_cases import rows, run, start  # noqa: E402
from MIMSegment.Logic.finding import Finding, Severity  # noqa: E402
from MIMSegment.Logic.samples import sample_study  # noqa: E402
from MIMSegment.Logic.scene import add_volume, new_scene  # noqa: E402
from MIMSegment.Logic.scene_gateway import MrmlGateway  # noqa: E402
from MIMSegment.Logic.volume import read_volume  # noqa: E402
from MIMSegment.Logic.workflow import Export  # noqa: E402

PZ, TZ, LESION = 1, 2, 3
CORNER = (slice(0, 2), slice(0, 30), slice(0, 30))


@pytest.fixture
def workflow(tmp_path):
    scene, sample = new_scene(), sample_study("phantom-prostate")
    for name, path in sample.files.items():
        add_volume(scene, read_volume(path), name)
    workflow = start(MrmlGateway(scene), tmp_path, "Dr. X")
    workflow.choose(sample.package)
    workflow.use_scene()
    workflow.change(device="cpu")
    yield workflow
    workflow.close()


def paint_zone(workflow) -> None:
    """Correct the peripheral zone by hand."""
    node, scene = workflow.result.store.node, workflow._gateway.scene
    zone = rows(workflow)["peripheral zone"].id
    workflow.review.edit(zone)
    Editor(scene, node, workflow.input_images[0][1].node).paint(zone, CORNER)
    workflow.poll()
    workflow.review.finish_edit()


def seen(workflow) -> dict:
    """What the review shows of each structure."""
    return {
        name: (row.volume_ml, row.verdict, row.edited, row.confidence, row.findings)
        for name, row in rows(workflow).items()
    }


def test_structures_that_were_not_asked_for_are_not_taken_for_empty(workflow, tmp_path):
    workflow.change(structures=(PZ, LESION))
    run(workflow)
    assert set(rows(workflow)) == {"peripheral zone", "lesion 1", "lesion 2"}
    workflow.export(Export.REPORT, tmp_path / "report.html", psa=6.0)
    workflow.export(Export.TABLE, tmp_path / "table.csv")
    assert workflow.state.error is None
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Not asked for: transition zone." in page
    assert "The prostate has no volume here without: transition zone." in page
    assert "PSA (" not in page, "a density of a part of the gland"
    assert "transition" not in (tmp_path / "table.csv").read_text(encoding="utf-8")
    again = workflow._gateway.open_result(workflow.result.id)
    assert [label.name for label in again.not_asked] == ["transition zone"]


def test_a_result_can_be_discarded_again_once_an_added_segment_is_removed(workflow):
    workflow.change(structures=(TZ,))
    run(workflow)
    segmentation = workflow.result.store.node.GetSegmentation()
    added = segmentation.AddEmptySegment("", "cyst")
    workflow.poll()
    assert workflow.state.actions["undo_result"].reason == (
        "The review has begun; undo its steps first, or remove the segments that you have added."
    )
    assert not any(row.actions["undo"] for row in rows(workflow).values()), "no step to undo"
    segmentation.RemoveSegment(added)
    workflow.poll()
    assert workflow.state.actions["undo_result"]
    said = (Finding("structure-fragmented", Severity.NOTE, "It is in two pieces.", TZ),)
    workflow.result = replace(workflow.result, findings=said)
    add_volume(workflow._gateway.scene, workflow.input_images[0][1].read(), "T1")
    workflow.follow_scene()
    assert workflow.state.findings == said, "they are about the result, which is still reviewed"
    workflow.undo_result()
    assert not workflow.state.findings


def test_alerts_stop_a_run_beside_an_open_review_too_and_say_so(workflow):
    workflow.change(structures=(TZ,))
    run(workflow, anyway=False)
    first = workflow.result.id
    image = workflow.input_images[1][1].node.GetImageData()
    vtk_to_numpy(image.GetPointData().GetScalars())[:] = 0
    image.Modified()
    for _ in range(2):
        workflow.run()
        state = workflow.state
        assert state.progress is None and state.review is not None
        assert state.message.startswith("Nothing was segmented. ADC is empty: every voxel of ")
        assert state.actions["run"].reason in state.message
    run(workflow, anyway=True)
    assert workflow.state.error is None and workflow.result.id != first
    assert not workflow.state.actions["run"], "it is the same image"


def test_a_run_of_one_structure_leaves_the_others_in_the_target_alone(workflow, tmp_path):
    run(workflow)
    paint_zone(workflow)
    before = seen(workflow)
    assert before["peripheral zone"][2], "edited"
    workflow.change(structures=(TZ,), target=workflow.result.id)
    run(workflow)
    assert workflow.state.error is None and seen(workflow) == before
    events = [(entry["event"], entry.get("structure")) for entry in workflow.log.entries]
    assert events == [("segmented", None), ("edit", "peripheral zone"), ("segmented", None)]
    workflow.export(Export.REPORT, tmp_path / "report.html", psa=6.0)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "PSA density" in page and "Not asked for" not in page


def test_what_a_run_draws_in_the_segmentation_under_review_is_no_edit(workflow):
    run(workflow)
    before, first = seen(workflow), workflow.result.id
    workflow.change(target=first)
    image = workflow.input_images[0][1].node.GetImageData()
    voxels = vtk_to_numpy(image.GetPointData().GetScalars())
    voxels[:] = np.roll(voxels, 2)  # so that the model draws something else
    image.Modified()
    run(workflow)
    assert workflow.state.error is None and workflow.result.id == first
    assert workflow.state.actions["undo_result"]
    assert not any(row.edited for row in rows(workflow).values())
    assert seen(workflow)["transition zone"][0] != before["transition zone"][0]
    assert [entry["event"] for entry in workflow.log.entries] == ["segmented", "segmented"]
    workflow.undo_result()
    workflow.open_result(first)
    assert seen(workflow) == before
    assert not workflow.state.actions["undo_result"], "it was taken back already"
