"""The workflow on real MRML without a run: what it remembers, and what it lets the user do."""

import pytest

pytest.importorskip("slicer", reason="the slicer-core wheel is not installed")

from flow_cases import run, start
from MIMSegment.Logic.samples import sample_study
from MIMSegment.Logic.scene import add_volume, load_scene, new_scene, save_scene
from MIMSegment.Logic.scene_gateway import MrmlGateway
from MIMSegment.Logic.volume import read_volume
from MIMSegment.Logic.workflow import Step, WorkflowSettings

PROSTATE = "phantom-prostate"


@pytest.fixture
def workflow(tmp_path):
    scene = new_scene()
    for name, path in sample_study(PROSTATE).files.items():
        add_volume(scene, read_volume(path), name)
    workflow = start(MrmlGateway(scene), tmp_path)
    yield workflow
    workflow.close()


def test_settings_come_back_with_a_saved_scene(workflow, tmp_path):
    workflow.use_scene()
    workflow.choose(PROSTATE)
    dwi = next(source.id for source in workflow.images if source.name == "DWI")
    workflow.assign("DWI", dwi)
    workflow.change(device="cpu", mirror=False, structures=(2, 3))
    save_scene(workflow._gateway.scene, tmp_path / "case.mrb")
    scene = load_scene(tmp_path / "case.mrb")
    again = start(MrmlGateway(scene), tmp_path)
    assert again.settings == WorkflowSettings(
        f"{PROSTATE}@1.0.0", "cpu", "", False, (2, 3), {"DWI": dwi}
    )
    again.restore()
    again.use_scene()
    state = again.state
    assert state.step is Step.CHECK and state.package.entry.id == PROSTATE
    assert [row.chosen for row in state.inputs] == [False, False, True]
    assert again.settings.structures == (2, 3) and state.actions["run"]
    again.close()


def test_a_package_that_is_not_here_is_not_missed(workflow, tmp_path):
    workflow._gateway.save_settings(WorkflowSettings(package="liver@2.0.0"))
    again = start(workflow._gateway, tmp_path)
    again.restore()
    assert again.state.package is None and again.state.error is None
    assert not again.state.actions["run"] and "Choose what" in again.state.actions["run"].reason
    again.close()


def test_every_button_that_does_nothing_says_why(workflow):
    for prepare in (lambda: None, lambda: workflow.choose(PROSTATE), workflow.use_scene):
        prepare()
        for name, action in workflow.state.actions.items():
            assert action.enabled or action.reason.endswith("."), name
    before = workflow.state
    for call in (workflow.cancel, workflow.undo_result, workflow.acknowledge, workflow.install):
        call()
    assert workflow.state == before, "a disabled button does nothing"
    assert workflow.state.actions["run"]


def test_a_device_that_was_not_there_is_told_with_the_result_and_in_the_log(workflow):
    pytest.importorskip("onnxruntime")
    workflow.choose(PROSTATE)
    workflow.use_scene()
    workflow.change(device="cuda")
    run(workflow)
    assert workflow.state.error is None and workflow.state.step is Step.REVIEW
    assert "CUDAExecutionProvider" in workflow.state.message
    assert "Trying the next device." in workflow.state.message
    (entry,) = [entry for entry in workflow.log.entries if entry["event"] == "segmented"]
    assert "CPU" in entry["device"] and "Trying the next device." in entry["notices"]
