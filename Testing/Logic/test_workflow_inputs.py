"""Inputs that are changed in the scene after they were read: what the next run takes of them."""

import numpy as np
import pytest

pytest.importorskip("slicer", reason="the slicer-core wheel is not installed")

from vtkmodules.util.numpy_support import vtk_to_numpy

from MIMSegment.Logic.jobs import JobQueue
from MIMSegment.Logic.offers import Offers
from MIMSegment.Logic.scene import add_volume, new_scene
from MIMSegment.Logic.scene_gateway import MrmlGateway
from MIMSegment.Logic.store import PackageStore
from MIMSegment.Logic.volume import Geometry, Volume, write_volume
from MIMSegment.Logic.workflow import Workflow
from scene_cases import put_under
from tiny_package import threshold_spec, write_threshold_package

GRID = Geometry.from_parts((16, 32, 32), (1, 1, 1))
UP = np.eye(4)
UP[2, 3] = 5.0  # mm, and slices


class Recorder(JobQueue):
    """A queue that keeps what it was given."""

    taken = None

    def submit(self, study, *more):
        self.taken = study
        return super().submit(study, *more)


def bright(z: int) -> Volume:
    """A cube that begins in slice ``z``."""
    array = np.zeros((1, *GRID.shape), np.int16)
    array[0, z : z + 4, 4:8, 4:8] = 1000
    return Volume(array, GRID, "image")


@pytest.fixture
def workflow(tmp_path):
    write_threshold_package(tmp_path / "package", threshold_spec(2))
    offers = Offers(PackageStore(tmp_path / "packages"))
    workflow = Workflow(MrmlGateway(new_scene()), Recorder(), offers)
    workflow.choose(str(tmp_path / "package"))
    yield workflow
    workflow.close()


@pytest.fixture(params=["scene", "files"])
def adc(workflow, request, tmp_path):
    """The node of the second input, whose images have been checked; T2w and ADC are the scene's
    or come from files."""
    (tmp_path / "study").mkdir()
    for name in ("T2w", "ADC"):
        if request.param == "scene":
            add_volume(workflow._gateway.scene, bright(4), name)
        else:
            write_volume(bright(4), tmp_path / "study" / f"{name}.nii.gz")
    if request.param == "scene":
        workflow.use_scene()
    else:
        workflow.open_study([tmp_path / "study"])
    workflow.check()
    assert workflow.state.error is None and workflow.state.findings
    return workflow._gateway.volume_node(workflow.input_images[1][1])


def first_slices(workflow) -> list[int]:
    """The slices of the reference in which the next run sees the cubes begin."""
    workflow._queue.taken = None
    workflow.run(anyway=True)
    assert workflow.state.error is None, workflow.state.error
    workflow.cancel()
    workflow.poll()
    channels = workflow._queue.taken.array > 500
    return [int(np.argwhere(channel)[:, 0].min()) for channel in channels]


def draw(node, volume: Volume) -> None:
    """New voxels in the same node, as Slicer's `updateVolumeFromArray` sets them."""
    scalars = node.GetImageData().GetPointData().GetScalars()
    vtk_to_numpy(scalars)[:] = volume.array.ravel()
    scalars.Modified()
    node.Modified()


def test_an_image_that_is_not_changed_is_read_once(workflow, adc, monkeypatch):
    monkeypatch.setattr(workflow._gateway, "read", None)
    assert first_slices(workflow) == first_slices(workflow) == [4, 4]


def test_voxels_changed_after_a_look_are_those_of_the_next_run(workflow, adc):
    assert first_slices(workflow) == [4, 4]
    draw(adc, bright(10))
    assert first_slices(workflow) == [4, 10]


def test_a_transform_set_after_a_look_counts_for_the_next_run(workflow, adc):
    assert first_slices(workflow) == [4, 4]
    put_under(workflow._gateway.scene, adc, UP)
    assert first_slices(workflow) == [4, 9]
    adc.SetAndObserveTransformNodeID(None)
    assert first_slices(workflow) == [4, 4]


def test_what_was_said_about_an_image_is_forgotten_when_it_is_changed(workflow, adc):
    workflow.follow_scene()
    assert workflow.state.findings
    put_under(workflow._gateway.scene, adc, UP)
    workflow.follow_scene()
    assert not workflow.state.findings and workflow.state.actions["run"]
