"""The scene with real MRML (Slicer's C++ core): geometry, labels, codes, transforms, status."""

import gc

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="the slicer-core wheel is not installed")

from vtkmodules.util.numpy_support import vtk_to_numpy  # noqa: E402
from vtkmodules.vtkCommonMath import vtkMatrix4x4  # noqa: E402
from vtkmodules.vtkCommonTransforms import vtkThinPlateSplineTransform  # noqa: E402

from MIMSegment.Logic import scene as mrml  # noqa: E402
from MIMSegment.Logic.errors import GeometryError, InputError  # noqa: E402
from MIMSegment.Logic.labels import Label  # noqa: E402
from MIMSegment.Logic.scene_core import LPS_TO_RAS  # noqa: E402
from MIMSegment.Logic.scene_layers import set_reference_geometry  # noqa: E402
from MIMSegment.Logic.volume import Geometry, Volume  # noqa: E402
from scene_cases import (  # noqa: E402
    GRIDS,
    SHAPE,
    TABLE,
    draw,
    gray_volume,
    labels_with_gaps,
    put_under,
    rigid,
    tag,
    zones,
)


@pytest.mark.parametrize("geometry", GRIDS.values(), ids=GRIDS.keys())
def test_volume_comes_back_with_its_voxels_and_place(scene, geometry):
    volume = gray_volume(geometry)
    back = mrml.volume_from_node(mrml.add_volume(scene, volume, "CT"))
    np.testing.assert_allclose(back.geometry.ijk_to_lps, geometry.ijk_to_lps, atol=1e-6)
    np.testing.assert_array_equal(back.array, volume.array)
    assert back.array.dtype == volume.array.dtype


def test_node_places_voxels_where_ras_says(scene):
    node = mrml.add_volume(scene, gray_volume(), "T2w")
    matrix = vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    right_anterior_superior = matrix.MultiplyPoint([29, 19, 11, 1])[:3]
    lps = (GRIDS["oblique"].ijk_to_lps @ [29, 19, 11, 1])[:3]
    np.testing.assert_allclose(right_anterior_superior, lps * [-1, -1, 1], atol=1e-6)


@pytest.mark.parametrize("dtype", [bool, np.float16, np.int64, np.float64, ">i2"])
def test_any_kind_of_number_keeps_its_values(scene, dtype):
    values = np.arange(24).reshape(1, 2, 3, 4).astype(dtype)
    volume = Volume(values, Geometry.from_parts((2, 3, 4), (1, 1, 1)))
    back = mrml.volume_from_node(mrml.add_volume(scene, volume, "x"))
    np.testing.assert_array_equal(back.array, values)


def test_changing_the_copy_does_not_change_the_scene(reference):
    mrml.volume_from_node(reference).array[:] = 0
    assert mrml.volume_from_node(reference).array.any()


def test_channels_become_nodes_of_their_own(scene):
    array = np.stack([np.full(SHAPE, 5, np.int16), np.full(SHAPE, 9, np.int16)])
    volume = Volume(array, GRIDS["LPS"])
    nodes = mrml.add_channels(scene, volume, ["ADC", "DWI"])
    assert [node.GetName() for node in nodes] == ["ADC", "DWI"]
    assert [int(mrml.volume_from_node(node).array.mean()) for node in nodes] == [5, 9]
    with pytest.raises(ValueError, match="2 channels"):
        mrml.add_volume(scene, volume, "both")


def test_ct_gets_the_soft_tissue_window_and_remembers_its_modality(scene):
    volume = Volume(gray_volume().array, GRIDS["LPS"], header={"Modality": "CT"})
    node = mrml.add_volume(scene, volume, "CT")
    assert (node.GetDisplayNode().GetWindow(), node.GetDisplayNode().GetLevel()) == (400, 40)
    assert mrml.volume_from_node(node).header == {"Modality": "CT"}
    other = mrml.add_volume(scene, gray_volume(), "MR").GetDisplayNode()
    assert other.GetWindowLevelMin() < -850 and other.GetWindowLevelMax() > 850


def test_volume_without_voxels_is_refused(scene):
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
    with pytest.raises(InputError, match=r"Empty holds no image; load"):
        mrml.volume_from_node(node)


def test_linear_parent_transforms_move_the_volume(scene, reference):
    outer = put_under(scene, reference, rigid())
    put_under(scene, outer, rigid((1, 2, 3)))
    back = mrml.volume_from_node(reference)
    in_ras = rigid((1, 2, 3)) @ rigid() @ LPS_TO_RAS @ GRIDS["oblique"].ijk_to_lps
    np.testing.assert_allclose(back.geometry.ijk_to_lps, LPS_TO_RAS @ in_ras, atol=1e-6)


def test_bending_and_shearing_transforms_are_refused_with_a_way_out(scene, reference):
    bent = scene.AddNewNodeByClass("vtkMRMLTransformNode", "bent")
    bent.SetAndObserveTransformToParent(vtkThinPlateSplineTransform())
    reference.SetAndObserveTransformNodeID(bent.GetID())
    with pytest.raises(GeometryError, match=r"T2w.*non-linear.*harden the transform"):
        mrml.volume_from_node(reference)
    shear = np.eye(4)
    shear[0, 1] = 0.2
    put_under(scene, reference, shear)
    with pytest.raises(GeometryError, match=r"T2w.*sheared.*harden the transform"):
        mrml.volume_from_node(reference)


def test_dropped_scene_is_freed():
    deleted = []
    scene = mrml.new_scene()
    node = mrml.add_volume(scene, gray_volume(), "T2w")
    node.AddObserver("DeleteEvent", lambda *_: deleted.append(True))
    del scene, node
    gc.collect()
    assert deleted


@pytest.mark.parametrize("geometry", GRIDS.values(), ids=GRIDS.keys())
def test_each_segment_is_voxel_equal_in_slicers_own_view_of_it(scene, geometry):
    node = zones(scene, geometry=geometry)
    for label in TABLE:
        image = slicer.vtkOrientedImageData()
        node.GetBinaryLabelmapRepresentation(f"Segment_{label.value}", image)
        mask, grid = mrml.segment_array(node, f"Segment_{label.value}")
        np.testing.assert_array_equal(mask, labels_with_gaps() == label.value)
        assert grid.is_close(geometry, 1e-6)
        if label.value != 200:
            voxels = vtk_to_numpy(image.GetPointData().GetScalars())
            assert voxels.sum() == (labels_with_gaps() == label.value).sum()


def test_segments_share_one_labelmap_and_foreign_values_are_left_out(scene):
    labels = labels_with_gaps()
    labels[0, 0, 0] = 99
    node = mrml.add_segmentation(scene, labels, GRIDS["oblique"], TABLE, "Zones")
    assert node.GetSegmentation().GetNumberOfLayers() == 1
    result, _ = mrml.labels_from_segmentation(node)
    np.testing.assert_array_equal(result, labels_with_gaps())
    assert labels[0, 0, 0] == 99, "the caller's array is its own"


def test_more_than_255_labels_fit(scene):
    labels = np.zeros(SHAPE, np.uint16)
    labels[1, 2, 3], labels[4, 5, 6] = 300, 65535
    table = [Label(300, "a"), Label(65535, "b")]
    node = mrml.add_segmentation(scene, labels, GRIDS["LPS"], table, "many")
    np.testing.assert_array_equal(mrml.labels_from_segmentation(node)[0], labels)


def test_names_colors_and_codes_are_the_labels_own(segmentation):
    assert mrml.label_table(segmentation) == TABLE
    segment = segmentation.GetSegmentation().GetSegment("Segment_7")
    assert not segment.GetNameAutoGenerated(), "or Slicer replaces the name by its terminology's"
    assert not segment.GetColorAutoGenerated()


def test_segments_say_that_they_are_automatic_and_by_which_algorithm(segmentation):
    segment = segmentation.GetSegmentation().GetSegment("Segment_7")
    assert tag(segment, "DICOM.SegmentAlgorithmType") == "AUTOMATIC"
    assert tag(segment, "DICOM.SegmentAlgorithmName") == "zones 1.0 / a"
    entry = slicer.vtkSlicerTerminologyEntry()
    text = tag(segment, segment.GetTerminologyEntryTagName())
    assert slicer.vtkSlicerTerminologiesModuleLogic.DeserializeTerminologyEntry(text, entry)
    assert entry.GetTypeObject().GetCodeValue() == "52988006"
    assert entry.GetRegionObject().GetCodeMeaning() == "Prostate"


def test_failure_leaves_no_half_made_node(scene, reference):
    with pytest.raises(TypeError):
        mrml.add_segmentation(
            scene, labels_with_gaps(), GRIDS["oblique"], TABLE, "x", provenance={"when": object()}
        )
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_provenance_is_kept_as_attributes(segmentation):
    assert segmentation.GetAttribute("MIMSegment.windows") == "12"
    assert mrml.provenance(segmentation) == {"package": 'zones "1" <&>; a:b', "windows": "12"}


def test_existing_segmentation_of_the_same_name_is_never_touched(scene, reference, segmentation):
    other = mrml.add_segmentation(
        scene, labels_with_gaps() * 0, GRIDS["oblique"], TABLE, "Zones", reference
    )
    assert other is not segmentation
    assert (segmentation.GetName(), other.GetName()) == ("Zones", "Zones_1")
    np.testing.assert_array_equal(
        mrml.labels_from_segmentation(segmentation)[0], labels_with_gaps()
    )


def test_result_lies_under_the_transform_of_its_reference(scene, reference):
    transform = put_under(scene, reference, rigid())
    world = mrml.volume_from_node(reference).geometry
    node = mrml.add_segmentation(scene, labels_with_gaps(), world, TABLE, "Zones", reference)
    assert node.GetParentTransformNode() is transform
    middle = (world.ijk_to_lps @ [11, 7, 3, 1])[:3]  # of label 3's box, cut to whole voxels
    np.testing.assert_allclose(node.GetSegmentCenterRAS("Segment_3"), middle * [-1, -1, 1])
    labels, grid = mrml.labels_from_segmentation(node)
    np.testing.assert_array_equal(labels, labels_with_gaps())
    np.testing.assert_allclose(grid.ijk_to_lps, world.ijk_to_lps, atol=1e-9)


def test_result_on_another_grid_than_its_reference_is_refused(scene, reference):
    with pytest.raises(GeometryError, match="does not lie on the voxels of T2w"):
        mrml.add_segmentation(scene, labels_with_gaps(), GRIDS["LPS"], TABLE, "x", reference)
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_result_stands_beside_its_reference_in_the_subject_hierarchy(scene, reference):
    hierarchy = scene.GetSubjectHierarchyNode()
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(reference), study)
    node = mrml.add_segmentation(
        scene, labels_with_gaps(), GRIDS["oblique"], TABLE, "Zones", reference
    )
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study


def test_label_values_survive_edits_that_shrink_and_split_the_labelmap(segmentation):
    small, overlapping = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    small[3:5, 4:6, 6:9] = True
    overlapping[5:8, 8:14, 12:20] = True  # partly over label 7
    draw(segmentation, "Segment_3", small)
    draw(segmentation, "Segment_200", overlapping)
    assert segmentation.GetSegmentation().GetNumberOfLayers() == 2
    expected = labels_with_gaps()
    expected[expected == 3] = 0
    expected[small], expected[overlapping] = 3, 200
    labels, grid = mrml.labels_from_segmentation(segmentation, TABLE)
    np.testing.assert_array_equal(labels, expected)
    assert grid.is_close(GRIDS["oblique"], 1e-6)
    mask, cropped = mrml.segment_array(segmentation, "Segment_3")
    assert mask.shape != SHAPE, "Slicer shrank it: this test would prove nothing otherwise"
    first = (cropped.ijk_to_lps @ [*np.argwhere(mask)[0][::-1], 1])[:3]
    np.testing.assert_allclose(first, (GRIDS["oblique"].ijk_to_lps @ [6, 4, 3, 1])[:3], atol=1e-6)


def test_what_is_drawn_beyond_the_reference_grid_is_left_out(segmentation):
    wide = np.zeros((SHAPE[0], SHAPE[1], SHAPE[2] + 9), bool)
    wide[1:3, 2:5, 1:8] = wide[1:3, 2:5, 30:38] = True  # begins 4 voxels before the grid
    draw(segmentation, "Segment_200", wide, first=-4)
    expected = labels_with_gaps()
    drawn = wide[:, :, 4 : 4 + SHAPE[2]]
    expected[drawn] = 200
    labels, _ = mrml.labels_from_segmentation(segmentation)
    np.testing.assert_array_equal(labels, expected)


def test_labels_follow_when_the_reference_grid_is_changed(segmentation):
    flipped = Volume(labels_with_gaps()[None], GRIDS["oblique"]).reoriented("RAI")
    set_reference_geometry(segmentation, flipped.geometry)
    labels, grid = mrml.labels_from_segmentation(segmentation)
    np.testing.assert_array_equal(labels, flipped.array[0])
    assert grid.is_close(flipped.geometry, 1e-6)


def test_segment_drawn_by_the_user_gets_a_free_value_or_a_clear_refusal(segmentation):
    segmentation.GetSegmentation().AddEmptySegment("mine", "My own")
    values = [label.value for label in mrml.label_table(segmentation)]
    assert len(set(values)) == 4 and values[:3] == [3, 7, 200]
    with pytest.raises(InputError, match=r"My own.*rename"):
        mrml.labels_from_segmentation(segmentation, TABLE)


def test_status_is_slicers_own_tag(segmentation):
    assert mrml.get_status(segmentation, "Segment_3") is mrml.Status.NOT_STARTED
    for status in (mrml.Status.FLAGGED, mrml.Status.COMPLETED, mrml.Status.IN_PROGRESS):
        mrml.set_status(segmentation, "Segment_3", status)
        assert mrml.get_status(segmentation, "Segment_3") is status
    segment = segmentation.GetSegmentation().GetSegment("Segment_3")
    assert tag(segment, "Segmentation.Status") == "inprogress"
    assert mrml.get_status(segmentation, "Segment_7") is mrml.Status.NOT_STARTED
