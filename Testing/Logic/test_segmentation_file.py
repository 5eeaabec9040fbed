"""What the command line writes is what Slicer's own readers make of it."""

import numpy as np
import pytest

from tiny_package import BRIGHT, write_threshold_package

pytest.importorskip("slicer")

from MIMSegment.Logic import scene as mrml
from MIMSegment.Logic.cli import main
from MIMSegment.Logic.engine import Segmentation
from MIMSegment.Logic.errors import OutputError
from MIMSegment.Logic.labels import Label
from MIMSegment.Logic.segmentation_file import write_segmentation
from MIMSegment.Logic.volume import Geometry, Volume, read_volume, write_volume

OTHER = Label(7, "Pipe | in a name", color=(10, 200, 30))


@pytest.fixture
def segmentation():
    rotation = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
    geometry = Geometry.from_parts((10, 14, 12), (3, 0.7, 0.9), (5, -6, 70), rotation)
    labels = np.zeros(geometry.shape, np.uint8)
    labels[2:5, 3:9, 4:8], labels[6:8, 3:9, 4:8] = 3, 7
    return Segmentation(labels, geometry)


def test_slicer_reads_names_values_colors_codes_algorithm_and_grid(segmentation, tmp_path):
    path = tmp_path / "result.seg.nrrd"
    write_segmentation(segmentation, (BRIGHT, OTHER), path, "bright-thing 1.2.0")
    node = mrml.load_segmentation(mrml.new_scene(), path)
    labels, geometry = mrml.labels_from_segmentation(node)
    assert geometry.is_close(segmentation.geometry)
    assert np.array_equal(labels, segmentation.labels)
    table = {label.value: label for label in mrml.label_table(node)}
    assert table[3].name == "Bright thing" and table[3].type.value == "10200004"
    assert np.abs(np.subtract(table[3].color, BRIGHT.color)).max() <= 1
    segment = node.GetSegmentation().GetSegment("Segment_3")
    from vtkmodules.vtkCommonCore import reference

    for tag, value in (
        ("DICOM.SegmentAlgorithmType", "AUTOMATIC"),
        ("DICOM.SegmentAlgorithmName", "bright-thing 1.2.0"),
    ):
        found = reference("")
        assert segment.GetTag(tag, found) and str(found) == value


def test_an_empty_structure_is_kept_as_an_empty_segment(segmentation, tmp_path):
    path = tmp_path / "result.seg.nrrd"
    empty = Label(9, "Not there")
    write_segmentation(segmentation, (BRIGHT, OTHER, empty), path, "x")
    node = mrml.load_segmentation(mrml.new_scene(), path)
    assert node.GetSegmentation().GetNumberOfSegments() == 3
    assert not mrml.segment_array(node, "Segment_9")[0].any()


def test_an_unwritable_place_is_named(segmentation, tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        write_segmentation(segmentation, (BRIGHT,), tmp_path / "no" / "r.seg.nrrd", "x")


def test_study_and_result_become_a_scene_that_opens_again(tmp_path, segmentation):
    package = write_threshold_package(tmp_path / "package")
    image = Volume(segmentation.labels[None].astype(np.int16) * 100, segmentation.geometry)
    write_volume(image, tmp_path / "image.nrrd")
    result, scene = tmp_path / "result.seg.nrrd", tmp_path / "scene.mrb"
    common = [str(tmp_path / "image.nrrd"), "-m", str(package.path)]
    assert main(["segment", *common, "-o", str(result), "-q", "--device", "cpu"]) == 0
    assert main(["scene", *common, "-s", str(result), "-o", str(scene),
                 "--pictures", str(tmp_path)]) == 0  # fmt: skip
    assert (tmp_path / "slices.png").stat().st_size > 1000
    assert (tmp_path / "surfaces.png").stat().st_size > 1000
    again = mrml.load_scene(scene)
    (node,) = (again.GetNthNodeByClass(i, "vtkMRMLSegmentationNode") for i in range(1))
    labels, geometry = mrml.labels_from_segmentation(node)
    assert geometry.is_close(segmentation.geometry)
    assert np.array_equal(labels, read_volume(result).array[0])
    assert mrml.provenance(node)["Model"] == "bright-thing 1.2.0"
