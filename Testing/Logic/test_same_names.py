"""A lesion and the image it lies in have one name: in the review, the report and what is exported,
also after a reload."""

import re

import numpy as np
import pytest

pytest.importorskip("slicer", reason="the slicer-core wheel is not installed")

from MIMSegment.Logic import scene as mrml
from MIMSegment.Logic.audit import Provenance
from MIMSegment.Logic.engine import Segmentation
from MIMSegment.Logic.image_record import ImageRecord
from MIMSegment.Logic.lesions import lesion_rows
from MIMSegment.Logic.postprocess import separate_lesions
from MIMSegment.Logic.review import Review
from MIMSegment.Logic.scene_gateway import MrmlGateway
from MIMSegment.Logic.scene_inputs import VolumeSource
from MIMSegment.Logic.volume import Volume
from MIMSegment.Logic.workflow_exports import reviewed_case
from MIMSegment.Logic.workflow_ports import Result
from reviewed_cases import GEOMETRY, ZONES, prostate_labels

IMAGES = (ImageRecord("T2w", "t2_tse_tra", "4", "2011-02-18", "1.2.826.1"),)


@pytest.fixture
def scene():
    return mrml.new_scene()


@pytest.fixture
def opened(scene):
    """A prostate with two lesions, of which the review has rejected the first."""
    zeros = Volume(np.zeros((1, *GEOMETRY.shape), np.int16), GEOMETRY)
    image = VolumeSource(mrml.add_volume(scene, zeros, "T2w"))
    found, table = separate_lesions(Segmentation(prostate_labels(), GEOMETRY), ZONES)
    made = Provenance("prostate", "1.0.0", images=IMAGES)
    opened = MrmlGateway(scene).show_result(Result(found, table, "P", made, [("T2w", image)]))
    review = Review(opened.store)
    review.reject(next(i.id for i in review.state.items if i.name == "lesion 1"))
    return opened


def test_a_lesion_has_one_name_everywhere(scene, opened, tmp_path):
    gateway, review = MrmlGateway(scene), Review(opened.store)
    case = reviewed_case(opened, review.state, gateway, {})
    left = {item.name for item in review.state.items if not item.verdict.resolved}
    assert {row.name for row in lesion_rows(case)} == {"lesion 2"} <= left
    gateway.save_segmentation(opened.store, tmp_path / "s.seg.nrrd")
    head = (tmp_path / "s.seg.nrrd").read_bytes()[:20_000].decode("latin-1")
    assert set(re.findall(r"Segment\d+_Name:=(.*)", head)) == left | {"lesion 1"}


def test_the_images_are_known_after_a_reload(scene, opened, tmp_path):
    mrml.save_scene(scene, tmp_path / "case.mrb")
    gateway = MrmlGateway(mrml.load_scene(tmp_path / "case.mrb"))
    ((result, _name),) = gateway.results()
    assert gateway.open_result(result).provenance.images == IMAGES


def test_a_scene_saved_before_images_were_kept_is_opened(scene, opened):
    opened.store.node.RemoveAttribute("MIMSegment.Images")
    assert MrmlGateway(scene).open_result(opened.id).provenance.images == ()
