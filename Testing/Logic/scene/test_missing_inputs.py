"""Exports of a result whose input images are not in the scene any more."""

import re

import numpy as np
import pytest

pytest.importorskip("slicer", reason="the slicer-core wheel is not installed")

from flow_cases import start
from MIMSegment.Logic import scene as mrml
from MIMSegment.Logic.audit import Provenance
from MIMSegment.Logic.engine import Segmentation
from MIMSegment.Logic.scene_gateway import MrmlGateway
from MIMSegment.Logic.scene_inputs import VolumeSource
from MIMSegment.Logic.volume import Volume
from MIMSegment.Logic.workflow import Export
from MIMSegment.Logic.workflow_ports import Result
from reviewed_cases import GEOMETRY, ZONES, prostate_labels

NAMES = ("T2w", "ADC", "DWI")


@pytest.fixture
def nodes(scene):
    """The node of each input, by name."""
    rng = np.random.default_rng(0)
    shape = (1, *GEOMETRY.shape)
    return {
        name: mrml.add_volume(scene, Volume(rng.integers(0, 99, shape, np.int16), GEOMETRY), name)
        for name in NAMES
    }


@pytest.fixture
def workflow(scene, nodes, tmp_path):
    """A workflow that can open a result on those images, whose UIDs are "1.T2w" ..."""
    gateway = MrmlGateway(scene)
    made = Provenance("prostate", "1.0.0", {}, [f"1.{name}" for name in NAMES])
    inputs = [(name, VolumeSource(node)) for name, node in nodes.items()]
    found = Segmentation(prostate_labels(), GEOMETRY)
    gateway.show_result(Result(found, ZONES, "Prostate", made, inputs))
    workflow = start(gateway, tmp_path)
    yield workflow
    workflow.close()


def review(workflow) -> None:
    workflow.open_result(workflow.results[0][0])
    workflow.review.accept_rest()


@pytest.mark.parametrize("name", NAMES)
def test_report_names_the_series_of_each_input_also_of_one_that_is_gone(
    workflow, scene, nodes, name, tmp_path
):
    scene.RemoveNode(nodes[name])
    review(workflow)
    workflow.export(Export.REPORT, tmp_path / "report.html")
    assert workflow.state.error is None
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert dict(re.findall(r"(\w+): series ([\w.]+)", page)) == {n: f"1.{n}" for n in NAMES}
    assert ("<img" in page) == (name != "T2w"), "the pictures are of the first"
    assert ("No pictures: T2w is not loaded any more." in page) == (name == "T2w")


@pytest.mark.parametrize("name", NAMES)
def test_case_without_one_of_its_images_is_not_kept_for_training(
    workflow, scene, nodes, name, tmp_path
):
    scene.RemoveNode(nodes[name])
    review(workflow)
    workflow.export(Export.TRAINING, tmp_path / "training")
    assert f"The image {name} is not loaded any more" in str(workflow.state.error)
    assert not (tmp_path / "training").exists()
    assert not workflow.state.actions["export_dicom_seg"]


def test_case_with_all_its_images_is_kept_for_training(workflow, tmp_path):
    review(workflow)
    workflow.export(Export.TRAINING, tmp_path / "training")
    assert workflow.state.error is None and (tmp_path / "training" / "dataset.json").is_file()
