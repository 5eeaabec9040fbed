"""Segmentations and scenes in files, with real MRML: everything survives, damage is refused."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("slicer", reason="the slicer-core wheel is not installed")

from MIMSegment.Logic import scene as mrml
from MIMSegment.Logic.engine import Segmentation
from MIMSegment.Logic.errors import InputError, OutputError
from MIMSegment.Logic.labels import Label
from MIMSegment.Logic.segmentation_file import write_segmentation
from MIMSegment.Logic.volume import from_itk, itk, read_volume
from scene_cases import GRIDS, SHAPE, TABLE, draw, gray_volume, labels_with_gaps, tag, zones

ROOT = Path(__file__).resolve().parents[3]


_READ_IN_A_FRESH_PROCESS = """
import json, sys
from MIMSegment.Logic import scene as mrml
scene = mrml.load_scene(sys.argv[1])
node = scene.GetFirstNodeByName("Zones")
volume = mrml.volume_from_node(scene.GetFirstNodeByName("T2w"))
labels, grid = mrml.labels_from_segmentation(node)
print(json.dumps({
    "table": repr(mrml.label_table(node)), "provenance": mrml.provenance(node),
    "status": [mrml.get_status(node, i) for i in node.GetSegmentation().GetSegmentIDs()],
    "voxels": [int(labels.sum()), int(volume.array.sum())],
    "grid": grid.ijk_to_lps.tolist(), "volume": volume.geometry.ijk_to_lps.tolist(),
}))
"""


def test_saved_scene_holds_everything_in_a_fresh_process(scene, segmentation, reference, tmp_path):
    mrml.set_status(segmentation, "Segment_7", mrml.Status.FLAGGED)
    mrml.save_scene(scene, tmp_path / "case.mrb")
    done = subprocess.run(
        [sys.executable, "-c", _READ_IN_A_FRESH_PROCESS, tmp_path / "case.mrb"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["table"] == repr(TABLE)
    assert found["provenance"] == mrml.provenance(segmentation)
    assert found["status"] == [0, 3, 0]
    assert found["voxels"] == [labels_with_gaps().sum(), gray_volume().array.sum()]
    for grid in (found["grid"], found["volume"]):
        np.testing.assert_allclose(grid, GRIDS["oblique"].ijk_to_lps, atol=1e-6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["case.mrb"]
    assert not scene.GetURL(), "saving a copy does not move the scene"


@pytest.mark.parametrize("geometry", GRIDS.values(), ids=GRIDS.keys())
def test_segmentation_file_keeps_values_names_colors_and_tags(scene, geometry, tmp_path):
    node = zones(scene, geometry=geometry)
    mrml.set_status(node, "Segment_3", mrml.Status.COMPLETED)
    path = tmp_path / "zones.seg.nrrd"
    mrml.save_segmentation(node, path)
    raw = itk().ReadImage(str(path))
    assert [raw.GetMetaData(f"Segment{i}_LabelValue") for i in range(3)] == ["3", "7", "200"]
    assert from_itk(raw).geometry.is_close(geometry, 1e-6)
    np.testing.assert_array_equal(from_itk(raw).array[0], labels_with_gaps())
    back = mrml.load_segmentation(mrml.new_scene(), path)
    assert mrml.label_table(back) == TABLE
    assert mrml.get_status(back, "Segment_3") is mrml.Status.COMPLETED
    segment = back.GetSegmentation().GetSegment("Segment_3")
    assert tag(segment, "DICOM.SegmentAlgorithmType") == "AUTOMATIC"
    assert tag(segment, "DICOM.SegmentAlgorithmName") == "zones 1.0 / a"
    labels, grid = mrml.labels_from_segmentation(back)
    np.testing.assert_array_equal(labels, labels_with_gaps())
    assert grid.is_close(geometry, 1e-6)


def test_saved_scene_keeps_patient_study_and_reference(scene, reference, tmp_path):
    hierarchy = scene.GetSubjectHierarchyNode()
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study 7")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(reference), study)
    zones(scene, reference)
    mrml.save_scene(scene, tmp_path / "case.mrb")
    again = mrml.load_scene(tmp_path / "case.mrb")
    hierarchy, node = again.GetSubjectHierarchyNode(), again.GetFirstNodeByName("Zones")
    parent = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node))
    assert hierarchy.GetItemName(parent) == "Study 7"
    role = node.GetReferenceImageGeometryReferenceRole()
    assert node.GetNodeReference(role) is again.GetFirstNodeByName("T2w")


def test_left_handed_axes_come_back_from_a_saved_scene(scene, tmp_path):
    mrml.add_volume(scene, gray_volume(GRIDS["oblique left-handed"]), "T2w")
    mrml.save_scene(scene, tmp_path / "case.mrb")
    node = mrml.load_scene(tmp_path / "case.mrb").GetFirstNodeByName("T2w")
    assert mrml.volume_from_node(node).geometry.is_close(GRIDS["oblique left-handed"], 1e-6)


def test_loading_twice_gives_two_nodes(scene, segmentation, tmp_path):
    mrml.save_segmentation(segmentation, tmp_path / "Zones.seg.nrrd")
    names = [mrml.load_segmentation(scene, tmp_path / "Zones.seg.nrrd").GetName() for _ in "ab"]
    assert names == ["Zones_1", "Zones_2"]


def test_overlapping_segments_are_stored_in_layers_and_keep_their_values(segmentation, tmp_path):
    overlapping = np.zeros(SHAPE, bool)
    overlapping[5:8, 8:14, 12:20] = True
    draw(segmentation, "Segment_200", overlapping)
    expected = labels_with_gaps()
    expected[overlapping] = 200
    mrml.save_segmentation(segmentation, tmp_path / "two.seg.nrrd")
    back = mrml.load_segmentation(mrml.new_scene(), tmp_path / "two.seg.nrrd")
    assert back.GetSegmentation().GetNumberOfLayers() == 2
    np.testing.assert_array_equal(mrml.labels_from_segmentation(back)[0], expected)
    assert mrml.segment_array(back, "Segment_7")[0].sum() == (labels_with_gaps() == 7).sum()


@pytest.mark.parametrize("geometry", GRIDS.values(), ids=GRIDS.keys())
def test_file_of_the_command_line_is_the_same_segmentation_in_a_scene(scene, geometry, tmp_path):
    result = Segmentation(labels_with_gaps(), geometry)
    write_segmentation(result, tuple(TABLE), tmp_path / "cli.seg.nrrd", "zones 1.0")
    node = mrml.load_segmentation(scene, tmp_path / "cli.seg.nrrd")
    assert mrml.label_table(node) == TABLE
    labels, grid = mrml.labels_from_segmentation(node, TABLE)
    np.testing.assert_array_equal(labels, labels_with_gaps())
    assert grid.is_close(geometry, 1e-6)


@pytest.mark.parametrize("content", [b"", b"hello", b"NRRD0004\ntype: int\n"])
def test_damaged_files_are_refused_and_leave_no_node(scene, content, tmp_path):
    for name in ("bad.seg.nrrd", "bad.mrb"):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.seg\.nrrd (cannot be read|ends inside)"):
        mrml.load_segmentation(scene, tmp_path / "bad.seg.nrrd")
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    with pytest.raises(InputError, match=r"bad\.mrb cannot be read"):
        mrml.load_scene(tmp_path / "bad.mrb")
    with pytest.raises(InputError, match="does not exist"):
        mrml.load_scene(tmp_path / "absent.mrb")


def test_truncated_files_are_refused(scene, segmentation, tmp_path):
    mrml.save_segmentation(segmentation, tmp_path / "cut.seg.nrrd")
    mrml.save_scene(scene, tmp_path / "cut.mrb")
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"cut\.seg\.nrrd"):
        mrml.load_segmentation(scene, tmp_path / "cut.seg.nrrd")
    with pytest.raises(InputError, match=r"cut\.mrb"):
        mrml.load_scene(tmp_path / "cut.mrb")


def test_scene_without_the_data_that_it_lists_is_refused(scene, segmentation, tmp_path):
    mrml.save_scene(scene, tmp_path / "case.mrb")
    with (
        zipfile.ZipFile(tmp_path / "case.mrb") as whole,
        zipfile.ZipFile(tmp_path / "part.mrb", "w") as part,
    ):
        for name in whole.namelist():
            if not name.endswith("Zones.seg.nrrd"):
                part.writestr(name, whole.read(name))
    with pytest.raises(InputError, match=r"part\.mrb cannot be read completely.*Zones"):
        mrml.load_scene(tmp_path / "part.mrb")


def test_failed_write_says_why_and_keeps_the_old_file(scene, segmentation, tmp_path):
    with pytest.raises(OutputError, match="folder does not exist"):
        mrml.save_segmentation(segmentation, tmp_path / "none" / "x.seg.nrrd")
    with pytest.raises(OutputError, match=r"must end in \.mrb"):
        mrml.save_scene(scene, tmp_path / "x.zip")
    old = tmp_path / "case.mrb"
    old.write_text("old")
    scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "T2 & ADC")  # Slicer cannot store it
    with pytest.raises(OutputError, match=r"rename T2 & ADC"):
        mrml.save_scene(scene, old)
    assert old.read_text() == "old" and list(tmp_path.iterdir()) == [old]


def test_names_that_slicer_cannot_store_are_changed_when_nodes_are_made(scene, tmp_path):
    node = mrml.add_volume(scene, gray_volume(), "T2 & ADC")
    assert node.GetName() == "T2 + ADC"
    mrml.save_scene(scene, tmp_path / "case.mrb")
    assert mrml.load_scene(tmp_path / "case.mrb").GetFirstNodeByName("T2 + ADC") is not None


@pytest.mark.real_data
def test_real_oblique_mr_and_its_zones_keep_their_place(scene, data_dir, tmp_path):
    folder = data_dir / "prostate_mpmri_prostatex"
    volume = read_volume(folder / "dicom" / "ProstateX-0000" / "t2w")
    zones = read_volume(folder / "labels" / "ProstateX-0000" / "zones_pz_tz_ai_yuan23.nii.gz")
    reference = mrml.add_volume(scene, volume, "T2w")
    table = [Label(1, "Peripheral zone"), Label(2, "Transition zone")]
    node = mrml.add_segmentation(
        scene, zones.array[0].astype(np.uint8), volume.geometry, table, "Zones", reference
    )
    mrml.save_scene(scene, tmp_path / "case.mrb")
    again = mrml.load_scene(tmp_path / "case.mrb")
    labels, grid = mrml.labels_from_segmentation(again.GetFirstNodeByName("Zones"))
    np.testing.assert_array_equal(labels, zones.array[0])
    assert grid.is_close(volume.geometry, 1e-4) and node.GetSegmentation().GetNumberOfLayers() == 1
    back = mrml.volume_from_node(again.GetFirstNodeByName("T2w"))
    np.testing.assert_array_equal(back.array, volume.array)
