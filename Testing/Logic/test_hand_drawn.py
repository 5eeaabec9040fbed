"""A segment that a person has drawn is the model's structure that its codes or name say."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("slicer", reason="the slicer-core wheel is not installed")

from MIMSegment.Logic import scene as mrml
from MIMSegment.Logic.audit import Provenance
from MIMSegment.Logic.comparison import volume_rows
from MIMSegment.Logic.engine import Segmentation
from MIMSegment.Logic.errors import OutputError
from MIMSegment.Logic.hand_drawn import with_model_labels
from MIMSegment.Logic.labels import Code, Label
from MIMSegment.Logic.lesions import lesion_rows, prostate_volume
from MIMSegment.Logic.postprocess import separate_lesions
from MIMSegment.Logic.report import report_html
from MIMSegment.Logic.review import Review
from MIMSegment.Logic.review_items import SegmentRecord
from MIMSegment.Logic.reviewed_case import in_model_labels
from MIMSegment.Logic.scene_gateway import MrmlGateway
from MIMSegment.Logic.scene_inputs import VolumeSource
from MIMSegment.Logic.scene_layers import labelmap_of, segment_of, voxels
from MIMSegment.Logic.terminology import TAG, terminology_entry
from MIMSegment.Logic.training_case import write_training_case
from MIMSegment.Logic.volume import Volume
from MIMSegment.Logic.workflow_exports import reviewed_case
from MIMSegment.Logic.workflow_ports import Result
from reviewed_cases import GEOMETRY, ZONES, prostate_labels

TISSUE = Code("SCT", "85756007", "Tissue")  # as Slicer's editor codes a new segment
LESION = ZONES[2].type
DRAWN = (slice(12, 14), slice(18, 22), slice(30, 36))
BESIDE = (slice(12, 14), slice(23, 27), slice(30, 36))


class Drawing:
    """A reviewed prostate with two lesions and one segment or two drawn by hand."""

    def __init__(self):
        self.scene = mrml.new_scene()
        self.gateway = MrmlGateway(self.scene)

    def add(self, name, codes=None, reject=(), seed=0, wanted=(1, 2, 3), beside=""):
        image = np.random.default_rng(seed).integers(0, 99, (1, *GEOMETRY.shape)).astype(np.int16)
        image = VolumeSource(mrml.add_volume(self.scene, Volume(image, GEOMETRY), "T2w"))
        found = prostate_labels() * np.isin(prostate_labels(), wanted)
        found, table = separate_lesions(Segmentation(found, GEOMETRY), ZONES, wanted)
        not_asked = tuple(label for label in ZONES if label.value not in wanted)
        made = Provenance("prostate", "1.0.0")
        opened = self.gateway.show_result(
            Result(found, table, "P", made, [("T2w", image)], not_asked=not_asked)
        )
        segment = _drawn(opened.store.node, name, DRAWN)
        if codes:
            segment.SetTag(TAG, terminology_entry(codes))
        if beside:
            _drawn(opened.store.node, beside, BESIDE)
        review = Review(opened.store)
        review.reject(*(item.id for item in review.state.items if item.name in reject))
        review.accept_rest()
        return reviewed_case(opened, review.state, self.gateway, {})


def _drawn(node, name, box):
    """A new segment, drawn in the box as Slicer's editor does it."""
    segment = segment_of(node, node.GetSegmentation().AddEmptySegment("", name))
    labelmap = labelmap_of(node, segment)
    voxels(labelmap)[box] = segment.GetLabelValue()
    labelmap.Modified()
    return segment


@pytest.fixture
def drawing():
    return Drawing()


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("lesion 3", None),
        ("Lesion", Label(0, "", TISSUE, TISSUE)),
        ("Segment_5", Label(0, "", ZONES[2].category, LESION)),
    ],
)
def test_a_missed_lesion_is_a_lesion_in_training_data_report_and_label_image(
    drawing, tmp_path, name, codes
):
    case = drawing.add(name, codes)
    array = in_model_labels(case)[0].array[0]
    expected = prostate_labels()
    expected[DRAWN] = 3
    assert np.array_equal(array, expected)
    assert name in {row.name for row in lesion_rows(case)}
    gland = (expected > 0).sum() * GEOMETRY.voxel_volume_ml
    assert prostate_volume(case).volume_ml == pytest.approx(gland)
    assert "lesion, all 3" in {row.name for row in volume_rows(case)}
    write_training_case(case, tmp_path)
    write_training_case(drawing.add("lesion 9", seed=1), tmp_path)
    index = json.loads((tmp_path / "dataset.json").read_text())
    assert index["numTraining"] == 2
    assert list(index["labels"].values()) == ["background", *(label.name for label in ZONES)]


def test_what_is_no_structure_of_the_model_is_kept_out_of_training_with_the_way_out(
    drawing, tmp_path
):
    with pytest.raises(OutputError) as caught:
        write_training_case(drawing.add("Segment_5"), tmp_path / "training")
    assert str(caught.value) == (
        "Segment_5 is none of the model's structures (peripheral zone, transition zone, lesion); "
        "give it the name or the terminology of one of these, or reject what the model shall not "
        "learn."
    )
    assert not (tmp_path / "training").exists()
    write_training_case(drawing.add("Segment_5", reject=["Segment_5"]), tmp_path / "training")
    index = json.loads((tmp_path / "training" / "dataset.json").read_text())
    assert len(index["labels"]) == 4


def test_a_zone_drawn_anew_takes_the_place_of_the_rejected_one(drawing):
    case = drawing.add("Transition zone", reject=["transition zone"])
    array = in_model_labels(case)[0].array[0]
    assert (array[DRAWN] == 2).all() and (array == 2).sum() == array[DRAWN].size


def test_what_is_no_structure_of_the_model_has_no_value_of_it_in_the_label_image(drawing):
    case = drawing.add("cyst", wanted=(1,), beside="transition zone")
    array = in_model_labels(case)[0].array[0]
    assert (array[BESIDE] == 2).all() and (array == 2).sum() == array[BESIDE].size
    assert array[DRAWN].min() == array[DRAWN].max() > 3, "3 is the lesion, not asked for"
    assert "transition zone, all 2" not in {row.name for row in volume_rows(case)}
    array = in_model_labels(drawing.add("cyst", wanted=(1,), seed=1, reject=["cyst"]))[0].array[0]
    assert not array[DRAWN].any()


def test_what_was_not_asked_for_but_drawn_is_there(drawing):
    case = drawing.add("transition zone", wanted=(1, 3))
    assert not case.not_asked
    gland = (case.labels.array > 0).sum() * GEOMETRY.voxel_volume_ml
    assert prostate_volume(case).volume_ml == pytest.approx(gland)
    text = report_html(case)
    assert "Not asked for" not in text and "has no volume here" not in text
    left = drawing.add("cyst", wanted=(1, 3), seed=1).not_asked
    assert [label.name for label in left] == ["transition zone"]


LEFT, RIGHT = Code("SCT", "7771000", "Left"), Code("SCT", "24028007", "Right")
KIDNEY, LIVER = Code("SCT", "64033007", "Kidney"), Code("SCT", "10200004", "Liver")
ORGANS = (
    Label(1, "left kidney", type=KIDNEY, type_modifier=LEFT),
    Label(2, "right kidney", type=KIDNEY, type_modifier=RIGHT),
    Label(3, "liver", type=LIVER),
    Label(4, "liver lesion", type=LESION, region=LIVER),
    Label(5, "kidney lesion", type=LESION, region=KIDNEY),
)


@pytest.mark.parametrize(
    ("drawn", "value"),
    [
        (Label(9, "x", type=KIDNEY, type_modifier=RIGHT), 2),  # the side counts
        (Label(9, "x", type=KIDNEY), None),
        (Label(9, "x", type=LESION, region=LIVER), 4),  # and the organ
        (Label(9, "x", type=LESION), None),  # of two
        (Label(9, "kidney lesion 2", type=LESION), 5),  # the name decides
        (Label(9, "kidney", type=LIVER), 3),
        (Label(9, "liver", type=LESION, region=KIDNEY), None),  # name and codes disagree
        (Label(9, "Liver-12"), 3),
        (Label(9, "liver segment"), None),
        (Label(9, "x"), None),
    ],
)
def test_codes_and_name_of_what_was_drawn_must_agree_on_one_structure(drawn, value):
    record = SegmentRecord("drawn", 9, drawn.name, drawn.color, by_hand=True)
    for label in (drawn, replace(drawn, color=(1, 2, 3))):
        *_, found = with_model_labels([*ORGANS, label], [record])
        assert (found.value, found.name, found.color) == (9, drawn.name, label.color)
        assert found.model_value == value


def test_structures_that_were_not_asked_for_can_be_drawn():
    record = SegmentRecord("drawn", 9, "liver", (1, 2, 3), by_hand=True)
    (found,) = with_model_labels([Label(9, "liver")], [record], not_asked=ORGANS)
    assert found.model_value == 3 and found.type == LIVER
