"""What the tests of the scene share: grids, labels, nodes, and an edit as Slicer makes it."""

import numpy as np
import slicer
from scipy.spatial.transform import Rotation
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonCore import reference as string

from MIMSegment.Logic import scene as mrml
from MIMSegment.Logic.labels import Code, Label
from MIMSegment.Logic.scene_core import vtk_matrix
from MIMSegment.Logic.volume import Geometry, Volume

SHAPE = (12, 20, 30)
OBLIQUE = Rotation.from_euler("xyz", [12, -20, 31], degrees=True).as_matrix()
GRIDS = {
    "LPS": Geometry.from_parts(SHAPE, (3, 0.7, 0.5), (11, -22, 33.25)),
    "oblique": Geometry.from_parts(SHAPE, (3, 0.7, 0.5), (11, -22, 33.25), OBLIQUE),
    "oblique left-handed": Geometry.from_parts(
        SHAPE, (2, 0.7, 0.5), (-91, 2, 3.5), OBLIQUE @ np.diag([-1, 1, 1])
    ),
    "sagittal": Geometry.from_parts(
        SHAPE, (1.5, 0.9, 0.9), (4, 5, 6), [[0, 0, 1], [1, 0, 0], [0, -1, 0]]
    ),
}
_CATEGORY = Code("SCT", "123037004", "Anatomical Structure")
TABLE = [
    Label(
        3,
        "Prostate, zone: 1 | A",
        _CATEGORY,
        Code("SCT", "279706003", "Peripheral zone"),
        color=(10, 200, 30),
    ),
    Label(
        7,
        "Läsion",
        _CATEGORY,
        Code("SCT", "52988006", "Lesion"),
        Code("SCT", "24028007", "Right"),
        Code("SCT", "41216001", "Prostate"),
        color=(255, 0, 128),
    ),
    Label(200, "Not in the image", _CATEGORY, Code("SCT", "10200004", "Liver"), color=(1, 2, 3)),
]


def labels_with_gaps() -> np.ndarray:
    """Boxes of labels 3 and 7."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:6, 3:12, 4:20] = 3
    labels[5:10, 10:18, 15:28] = 7
    return labels


def gray_volume(geometry: Geometry = GRIDS["oblique"]) -> Volume:
    """Noise, the same at each call."""
    values = np.random.default_rng(1).integers(-900, 900, (1, *geometry.shape), np.int16)
    return Volume(values, geometry, "test")


def zones(scene, reference_node=None, geometry: Geometry = GRIDS["oblique"]):
    """A segmentation node named Zones."""
    return mrml.add_segmentation(
        scene,
        labels_with_gaps(),
        geometry,
        TABLE,
        "Zones",
        reference_node,
        provenance={"package": 'zones "1" <&>; a:b', "windows": 12},
        algorithm="zones 1.0 | a",
    )


def tag(segment, key: str) -> str:
    """A tag of a segment."""
    text = string("")
    segment.GetTag(key, text)
    return str(text)


def put_under(scene, node, matrix: np.ndarray):
    """Put the node under a new linear transform."""
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    transform.SetMatrixTransformToParent(vtk_matrix(matrix))
    node.SetAndObserveTransformNodeID(transform.GetID())
    return transform


def rigid(translation=(10.0, -20.0, 5.0)) -> np.ndarray:
    """A rotation about all axes and a translation."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("zyx", [25, 10, -5], degrees=True).as_matrix()
    matrix[:3, 3] = translation
    return matrix


def draw(node, segment_id: str, mask: np.ndarray, first: int = 0) -> None:
    """Replace a segment of a `zones` node as Slicer's own editor does.

    ``mask`` (z, y, x) begins at index ``first`` of the x axis.
    """
    segment = node.GetSegmentation().GetSegment(segment_id)
    labelmap = slicer.vtkOrientedImageData()
    labelmap.DeepCopy(segment.GetRepresentation("Binary labelmap"))
    depth, height, width = mask.shape
    labelmap.SetExtent(first, first + width - 1, 0, height - 1, 0, depth - 1)
    labelmap.AllocateScalars(3, 1)
    vtk_to_numpy(labelmap.GetPointData().GetScalars())[:] = mask.ravel()
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    assert logic.SetBinaryLabelmapToSegment(labelmap, node, segment_id, logic.MODE_REPLACE)
