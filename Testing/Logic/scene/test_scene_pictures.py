"""Pictures of real MRML scenes: sides, sizes, colors, transparency, and what they leave alone."""

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="the slicer-core wheel is not installed")

from vtkmodules.util.numpy_support import vtk_to_numpy  # noqa: E402
from vtkmodules.vtkFiltersCore import vtkMassProperties  # noqa: E402

from MIMSegment.Logic import scene as mrml  # noqa: E402
from MIMSegment.Logic.errors import GeometryError, OutputError  # noqa: E402
from MIMSegment.Logic.labels import Label  # noqa: E402
from MIMSegment.Logic.volume import Geometry, Volume, itk, read_volume  # noqa: E402
from scene_cases import GRIDS, SHAPE, draw, gray_volume, put_under, rigid, zones  # noqa: E402

GRID = Geometry.from_parts((40, 60, 60), (2, 1, 1), (-30, -30, 100))  # LPS: x to left, y to back
RED = (slice(26, 34), slice(6, 16), slice(40, 52))  # patient's left, front, above
BLUE = (slice(6, 12), slice(40, 52), slice(8, 18))  # patient's right, back, below
TABLE = [Label(1, "red", color=(255, 0, 0)), Label(5, "blue", color=(0, 0, 255))]
SIZE = (160, 200)


def center(box) -> np.ndarray:
    """World LPS of a box's middle."""
    middle = [(s.start + s.stop - 1) / 2 for s in reversed(box)]
    return (GRID.ijk_to_lps @ [*middle, 1])[:3]


def phantom(scene, orientation: str = "LPS"):
    """A gray ball with two labeled boxes, its axes stored as ``orientation``."""
    z, y, x = np.ogrid[-20:20, -30:30, -30:30]
    array = (200 * ((2 * z) ** 2 + y**2 + x**2 < 33**2)).astype(np.int16)
    labels = np.zeros(GRID.shape, np.uint8)
    labels[RED], labels[BLUE] = 1, 5
    volume = Volume(array[None], GRID).reoriented(orientation)
    stored = Volume(labels[None], GRID).reoriented(orientation)
    node = mrml.add_volume(scene, volume, "image")
    node.GetDisplayNode().SetWindowLevelMinMax(0, 400)
    return node, mrml.add_segmentation(
        scene, stored.array[0], stored.geometry, TABLE, "boxes", reference_node=node
    )


def color(picture: np.ndarray, channel: int) -> np.ndarray:
    """Where the picture (height, width, 3) is tinted with one of red, green, blue."""
    others = [c for c in range(3) if c != channel]
    return picture[..., channel].astype(int) - picture[..., others].max(axis=-1) > 40


def side(mask: np.ndarray) -> tuple[str, str]:
    """Which half of the picture a mask is in."""
    rows, columns = np.nonzero(mask)
    assert rows.size, "nothing of this color in the picture"
    return (
        "left" if columns.mean() < mask.shape[1] / 2 else "right",
        "upper" if rows.mean() < mask.shape[0] / 2 else "lower",
    )


# Slices

SIDES = {
    ("Axial", "red"): ("right", "upper"),  # left and front
    ("Axial", "blue"): ("left", "lower"),
    ("Coronal", "red"): ("right", "upper"),  # left and above
    ("Coronal", "blue"): ("left", "lower"),
    ("Sagittal", "red"): ("left", "upper"),  # front and above
    ("Sagittal", "blue"): ("right", "lower"),
}


@pytest.mark.parametrize("orientation, name", SIDES)
def test_slice_shows_each_side_of_the_patient_where_radiologists_expect_it(
    scene, orientation, name
):
    box, channel = {"red": (RED, 0), "blue": (BLUE, 2)}[name]
    picture = mrml.render_slice(scene, *phantom(scene), orientation, center(box), SIZE)
    assert picture.shape == (200, 160, 3) and picture.dtype == np.uint8
    assert side(color(picture, channel)) == SIDES[orientation, name]
    assert not color(picture, 2 - channel).any(), "the other box is not in this slice"


@pytest.mark.parametrize("stored", ["RAS", "LAS", "SPL", "PIR"])
def test_slice_is_the_same_however_the_axes_are_stored(stored):
    pictures = []
    for orientation in ("LPS", stored):
        scene = mrml.new_scene()
        nodes = phantom(scene, orientation)
        pictures.append(mrml.render_slice(scene, *nodes, "Coronal", center(RED), SIZE).astype(int))
    assert (np.abs(pictures[0] - pictures[1]).max(axis=-1) > 30).mean() < 0.01


def test_slice_keeps_proportions_of_anisotropic_voxels_and_fits(scene):
    picture = mrml.render_slice(scene, *phantom(scene), "Coronal", center(RED), SIZE)
    rows, columns = np.nonzero(color(picture, 0))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert width / height == pytest.approx(12 / 16, abs=0.08)  # millimeters
    assert width == pytest.approx(12 * 160 / 60, abs=3), "60 mm fill the width"


def test_image_shines_through_the_fill_and_an_outline_surrounds_it(scene):
    volume, segmentation = phantom(scene)
    plain = mrml.render_slice(scene, volume, None, "Axial", center(RED), SIZE)
    picture = mrml.render_slice(scene, volume, segmentation, "Axial", center(RED), SIZE)
    red = color(picture, 0)
    bright, dark = red & (plain[..., 1] > 100), red & (plain[..., 1] < 20)
    assert bright.sum() > 50 and dark.sum() > 50
    assert picture[bright][:, 1].mean() > picture[dark][:, 1].mean() + 40
    rows, columns = np.nonzero(red)
    edge = picture[int(rows.mean()), columns.min() : columns.min() + 2, 0].max()
    assert edge > 240, "the outline is opaque"
    assert picture[dark][:, 0].mean() < 200, "the fill is not"


def test_hiding_a_segment_takes_it_from_the_picture(scene):
    volume, segmentation = phantom(scene)
    segmentation.GetDisplayNode().SetSegmentVisibility("Segment_1", False)
    picture = mrml.render_slice(scene, volume, segmentation, "Axial", center(RED), SIZE)
    assert not color(picture, 0).any()
    surfaces = mrml.render_3d(scene, segmentation, SIZE)
    assert not color(surfaces, 0).any() and color(surfaces, 2).any()


def test_slice_goes_through_the_segmentation_unless_told_otherwise(scene):
    volume, segmentation = phantom(scene)
    picture = mrml.render_slice(scene, volume, segmentation, "Sagittal", size=SIZE)
    assert color(picture, 0).any() or color(picture, 2).any()
    box = (slice(6, 13), slice(40, 53), slice(8, 19))
    labels = np.zeros(GRID.shape, np.uint8)
    labels[box] = 5
    node = mrml.add_segmentation(scene, labels, GRID, TABLE, "blue", volume)
    picture = mrml.render_slice(scene, volume, node, "Sagittal", size=SIZE)
    middle = mrml.render_slice(scene, volume, node, "Sagittal", center(box), SIZE)
    np.testing.assert_array_equal(picture, middle)


def test_slice_shows_one_layer_of_voxels_and_no_mixture(scene):
    volume = mrml.add_volume(scene, gray_volume(GRIDS["LPS"]), "noise")
    on_layer = (GRIDS["LPS"].ijk_to_lps @ [9, 9, 5, 1])[:3]
    pictures = [
        mrml.render_slice(scene, volume, None, "Axial", on_layer + np.array([0, 0, offset]), SIZE)
        for offset in (0, 1.2, 1.8)  # slices are 3 mm apart
    ]
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert (pictures[0] != pictures[2]).mean() > 0.1


def test_result_stays_on_its_structure_under_a_transform(scene):
    volume, segmentation = phantom(scene)
    before = mrml.render_slice(scene, volume, segmentation, "Axial", size=SIZE)
    transform = put_under(scene, volume, rigid((200, -70, 40)))
    segmentation.SetAndObserveTransformNodeID(transform.GetID())
    after = mrml.render_slice(scene, volume, segmentation, "Axial", size=SIZE)
    changed = np.abs(before.astype(int) - after).max(axis=-1) > 30
    assert changed.mean() < 0.02
    assert color(after, 0).any() or color(after, 2).any()


def test_pictures_leave_the_scene_as_it_was(scene):
    volume, segmentation = phantom(scene)
    nodes = scene.GetNumberOfNodes()
    changed = []
    for node in (volume, segmentation, segmentation.GetDisplayNode(), scene):
        node.AddObserver("ModifiedEvent", lambda *_: changed.append(True))
    mrml.render_slice(scene, volume, segmentation, size=SIZE)
    mrml.render_3d(scene, segmentation, SIZE)
    assert scene.GetNumberOfNodes() == nodes and not changed


def test_node_of_another_scene_is_refused(scene):
    volume, segmentation = phantom(scene)
    with pytest.raises(ValueError, match="image is not a node of this scene"):
        mrml.render_slice(mrml.new_scene(), volume, segmentation)


# Surfaces


@pytest.mark.parametrize("stored", ["LPS", "LAS", "PIR"])
def test_surface_encloses_the_volume_of_its_segment_facing_outwards(scene, stored):
    _, segmentation = phantom(scene, stored)
    surfaces = mrml.segment_surfaces(segmentation)
    for segment_id, box in (("Segment_1", RED), ("Segment_5", BLUE)):
        measure = vtkMassProperties()
        measure.SetInputData(surfaces[segment_id])
        expected = 2 * np.prod([s.stop - s.start for s in box])  # mm³
        assert measure.GetVolume() == pytest.approx(expected, rel=0.03)
        bounds = np.reshape(surfaces[segment_id].GetBounds(), (3, 2)).mean(axis=1)
        np.testing.assert_allclose(bounds, center(box) * [-1, -1, 1], atol=0.5)
        points = vtk_to_numpy(surfaces[segment_id].GetPoints().GetData())
        normals = vtk_to_numpy(surfaces[segment_id].GetPointData().GetNormals())
        assert (np.einsum("ij,ij->i", points - bounds, normals) > 0).mean() > 0.95


def test_surface_and_slice_follow_an_edit(scene):
    reference = mrml.add_volume(scene, gray_volume(GRIDS["LPS"]), "image")
    segmentation = zones(scene, reference, GRIDS["LPS"])
    mask = np.zeros(SHAPE, bool)
    mask[6:10, 12:18, 4:14] = True
    draw(segmentation, "Segment_7", mask)
    middle = (GRIDS["LPS"].ijk_to_lps @ [8.5, 14.5, 7.5, 1])[:3]
    bounds = np.reshape(mrml.segment_surfaces(segmentation)["Segment_7"].GetBounds(), (3, 2))
    np.testing.assert_allclose(bounds.mean(axis=1), middle * [-1, -1, 1], atol=0.5)
    picture = mrml.render_slice(scene, reference, segmentation, "Axial", middle, (150, 150))
    assert side(color(picture, 0)) == ("left", "lower")  # magenta, on the patient's right, behind


def test_surfaces_are_added_for_slicers_3d_views_only_on_request(scene):
    _, segmentation = phantom(scene)
    segment = segmentation.GetSegmentation().GetSegment("Segment_5")
    mrml.render_3d(scene, segmentation, SIZE)
    assert segment.GetRepresentation("Closed surface") is None
    mrml.add_surfaces(segmentation)
    assert segment.GetRepresentation("Closed surface").GetNumberOfPoints() > 100
    assert segmentation.GetDisplayNode().GetDisplayRepresentationName3D() == "Closed surface"


def test_3d_picture_shows_every_segment_on_its_side_and_wholly(scene):
    _, segmentation = phantom(scene)
    picture = mrml.render_3d(scene, segmentation, SIZE)
    assert picture.shape == (200, 160, 3) and picture.dtype == np.uint8
    assert side(color(picture, 0)) == ("right", "upper")  # seen from the front: left on the right
    assert side(color(picture, 2)) == ("left", "lower")
    shown = color(picture, 0) | color(picture, 2)
    assert not (shown[[0, -1]].any() or shown[:, [0, -1]].any()), "cut off at the border"
    assert np.ptp(np.nonzero(shown)[1]) > 0.7 * 160 or np.ptp(np.nonzero(shown)[0]) > 0.7 * 200


def test_segmentation_without_voxels_gives_empty_pictures(scene):
    volume, _ = phantom(scene)
    node = mrml.add_segmentation(
        scene, np.zeros(GRID.shape, np.uint8), GRID, TABLE, "empty", volume
    )
    picture = mrml.render_slice(scene, volume, node, size=SIZE)
    assert picture.any() and not color(picture, 0).any()
    background = mrml.render_3d(scene, node, SIZE)[20:, 20:]  # without the letters
    assert np.ptp(background, axis=1).max() <= 3


def test_3d_picture_under_a_bending_transform_is_refused(scene):
    from vtkmodules.vtkCommonTransforms import vtkThinPlateSplineTransform

    _, segmentation = phantom(scene)
    bent = scene.AddNewNodeByClass("vtkMRMLTransformNode", "bent")
    bent.SetAndObserveTransformToParent(vtkThinPlateSplineTransform())
    segmentation.SetAndObserveTransformNodeID(bent.GetID())
    with pytest.raises(GeometryError, match="harden"):
        mrml.render_3d(scene, segmentation, SIZE)


def test_png_holds_the_picture(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (7, 5, 3), np.uint8)
    mrml.save_png(picture, tmp_path / "x.png")
    back = itk().GetArrayFromImage(itk().ReadImage(str(tmp_path / "x.png")))
    np.testing.assert_array_equal(back, picture)
    with pytest.raises(OutputError, match=r"y\.png could not be written"):
        mrml.save_png(picture, tmp_path / "none" / "y.png")
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


@pytest.mark.real_data
def test_real_abdomen_shows_the_liver_on_the_patients_right(scene, data_dir):
    folder = data_dir / "organs_ct_totalsegmentator"
    volume = read_volume(folder / "example_ct_sm.nii.gz")
    organs = read_volume(folder / "example_ct_sm_seg_auto.nii.gz").array[0].astype(np.uint8)
    reference = mrml.add_volume(scene, volume, "CT", "CT")
    table = [Label(5, "liver", color=(255, 0, 0)), Label(1, "spleen", color=(0, 0, 255))]
    node = mrml.add_segmentation(scene, organs, volume.geometry, table, "organs", reference)
    for orientation in ("Axial", "Coronal"):
        picture = mrml.render_slice(scene, reference, node, orientation, size=(300, 300))
        assert side(color(picture, 0))[0] == "left"
    surfaces = mrml.render_3d(scene, node, (300, 200))
    assert side(color(surfaces, 0))[0] == "left" and side(color(surfaces, 2))[0] == "right"
