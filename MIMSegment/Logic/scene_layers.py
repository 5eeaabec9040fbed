"""How Slicer keeps segments: labelmaps shared by segments (layers), tags, the reference grid.

After an edit Slicer shrinks a labelmap to what is drawn, and moves overlapping segments to layers
of their own with label value 1; so arrays are placed by their extent, and the model's label value
is kept as a tag.
"""

from __future__ import annotations

import numpy as np
import slicer
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonCore import reference, vtkStringArray
from vtkmodules.vtkCommonMath import vtkMatrix4x4

from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.scene_core import LPS_TO_RAS, numpy_matrix, vtk_matrix, world_geometry
from MIMSegment.Logic.volume import Geometry

BINARY_LABELMAP = "Binary labelmap"
CLOSED_SURFACE = "Closed surface"
LABEL_VALUE_TAG = "MIMSegment.LabelValue"
MODEL_LABEL_TAG = "MIMSegment.ModelLabel"  # value and name, of one of several lesions
REFERENCE_GEOMETRY = "Reference image geometry"


def segments_of(node) -> dict:
    """Segment ID to vtkSegment, in the node's order."""
    segmentation = node.GetSegmentation()
    return {i: segmentation.GetSegment(i) for i in segmentation.GetSegmentIDs()}


def segment_of(node, segment_id: str):
    """The vtkSegment with this ID; KeyError when the node has none."""
    segment = node.GetSegmentation().GetSegment(segment_id)
    if segment is None:
        raise KeyError(f"{node.GetName()} has no segment {segment_id}")
    return segment


def tag(segment, key: str) -> str:
    """A tag of a vtkSegment, "" when it has none."""
    text = reference("")
    return str(text) if segment.GetTag(key, text) else ""


def layers(node) -> list[tuple]:
    """Each labelmap with the (id, label value in it) of its segments."""
    found: dict = {}
    for segment_id, segment in segments_of(node).items():
        labelmap = labelmap_of(node, segment)
        found.setdefault(labelmap, []).append((segment_id, segment.GetLabelValue()))
    return list(found.items())


def labelmap_of(node, segment):
    """The segment's vtkOrientedImageData; InputError when it has none."""
    labelmap = segment.GetRepresentation(BINARY_LABELMAP)
    if labelmap is None:
        raise InputError(
            f"The segment {segment.GetName()} of {node.GetName()} has no binary labelmap; create "
            "it in Slicer's Segmentations module first."
        )
    return labelmap


def voxels(labelmap) -> np.ndarray:
    """The labelmap's voxels (z, y, x), a view; all sizes 0 for an empty one."""
    scalars = labelmap.GetPointData().GetScalars()
    if scalars is None or labelmap.IsEmpty():
        return np.zeros((0, 0, 0), np.uint8)
    return vtk_to_numpy(scalars).reshape(labelmap.GetDimensions()[::-1])


def image_matrix(image) -> np.ndarray:
    """The index-to-RAS matrix of a vtkOrientedImageData; indices count from its extent."""
    matrix = vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return numpy_matrix(matrix)


def geometry_of(image, shape, node) -> Geometry:
    """The grid in world LPS of the array (z, y, x) that a labelmap of ``node`` holds."""
    matrix = image_matrix(image)
    matrix[:3, 3] += matrix[:3, :3] @ image.GetExtent()[::2]
    return world_geometry(matrix, shape, node)


def reference_image(node):
    """An image without voxels on the segmentation's reference grid."""
    segmentation = node.GetSegmentation()
    text = segmentation.DetermineCommonLabelmapGeometry(
        slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY, vtkStringArray()
    )
    if not text:
        raise InputError(f"{node.GetName()} holds no segment that is made of voxels.")
    image = slicer.vtkOrientedImageData()
    slicer.vtkSegmentationConverter.DeserializeImageGeometry(text, image, False)
    return image


def set_reference_image(segmentation, image) -> None:
    """Make the grid of ``image`` the one that edits and exports keep to."""
    text = slicer.vtkSegmentationConverter.SerializeImageGeometry(image)
    segmentation.SetConversionParameter(REFERENCE_GEOMETRY, text)


def set_reference_geometry(node, geometry: Geometry) -> None:
    """The same for a `Geometry` in the node's own coordinates."""
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*reversed(geometry.shape))
    image.SetGeometryFromImageToWorldMatrix(vtk_matrix(LPS_TO_RAS @ geometry.ijk_to_lps))
    set_reference_image(node.GetSegmentation(), image)


def look_up(lookup: np.ndarray, labels: np.ndarray, out: np.ndarray) -> None:
    """``out = lookup[labels]``, labels beyond the table as its last entry.

    Slice by slice, because NumPy turns the indices into 64-bit integers first.
    """
    for labels_slice, out_slice in zip(labels, out, strict=True):
        np.take(lookup, labels_slice, out=out_slice, mode="clip")
