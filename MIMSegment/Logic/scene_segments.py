"""Segmentations in the scene: label array to segmentation node and back, review status.

All segments of a result share one labelmap (a layer). After an edit Slicer shrinks that labelmap to
what is drawn, and moves overlapping segments to layers of their own with label value 1; so the
model's label value is kept as a segment tag, and arrays are placed by their extent.
"""

from __future__ import annotations

import json
from enum import IntEnum

import numpy as np
import slicer
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.util.vtkConstants import VTK_UNSIGNED_CHAR, VTK_UNSIGNED_SHORT
from vtkmodules.vtkCommonCore import reference, vtkStringArray
from vtkmodules.vtkCommonMath import vtkMatrix4x4

from MIMSegment.Logic.errors import GeometryError, InputError
from MIMSegment.Logic.labels import Code, Label
from MIMSegment.Logic.scene_core import (
    LPS_TO_RAS,
    numpy_matrix,
    subject_item,
    unique_name,
    vtk_matrix,
    world_geometry,
)
from MIMSegment.Logic.scene_volumes import volume_grid
from MIMSegment.Logic.terminology import TAG as TERMINOLOGY_TAG
from MIMSegment.Logic.terminology import terminology_entry
from MIMSegment.Logic.volume import Geometry

BINARY_LABELMAP = "Binary labelmap"
CLOSED_SURFACE = "Closed surface"
LABEL_VALUE_TAG = "MIMSegment.LabelValue"
ATTRIBUTE_PREFIX = "MIMSegment."
REFERENCE_GEOMETRY = "Reference image geometry"
# For Slicer's own surfaces: surface nets are eight times as fast as its default, and with this
# factor small structures keep as much of their volume.
SURFACE_PARAMETERS = {
    "Conversion method": "1",
    "SurfaceNets smoothing": "1",
    "Smoothing factor": "0.3",
}
_FILL_OPACITY = 0.4  # lets the image's texture show through


class Status(IntEnum):
    """Slicer's review status of a segment (vtkSlicerSegmentationsModuleLogic::SegmentStatus)."""

    NOT_STARTED = 0
    IN_PROGRESS = 1
    COMPLETED = 2
    FLAGGED = 3


def add_segmentation(
    scene,
    labels: np.ndarray,
    geometry: Geometry,
    label_table: list[Label],
    name: str,
    reference_node=None,
    provenance: dict | None = None,
    algorithm: str = "MIMSegment",
):
    """Add ``labels`` (z, y, x) on world-LPS ``geometry`` as a new vtkMRMLSegmentationNode.

    One segment for each entry of ``label_table``, present in the array or not; other values are
    left out. With ``reference_node``, the volume that was segmented, the node comes under its
    parent transform and beside it in the subject hierarchy. ``provenance`` becomes node attributes
    with the prefix "MIMSegment.", ``algorithm`` the segments' DICOM algorithm name. Never writes
    into a node that exists. Raises GeometryError when ``geometry`` is not that of the reference.
    """
    if labels.shape != tuple(geometry.shape):
        raise ValueError(f"labels {labels.shape} do not fit grid {geometry.shape}")
    matrix = _local_matrix(geometry, reference_node)
    labelmap = _shared_labelmap(labels, matrix, [label.value for label in label_table])
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", unique_name(scene, name))
    modifying = node.StartModify()
    segmentation = node.GetSegmentation()
    _set_reference_image(segmentation, labelmap)
    for key, value in SURFACE_PARAMETERS.items():
        segmentation.SetConversionParameter(key, value)
    for label in label_table:
        segmentation.AddSegment(_segment(label, labelmap, algorithm), f"Segment_{label.value}")
    for key, value in (provenance or {}).items():
        text = value if isinstance(value, str) else json.dumps(value)
        node.SetAttribute(ATTRIBUTE_PREFIX + key, text)
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetOpacity2DFill(_FILL_OPACITY)
    node.EndModify(modifying)
    _place_beside(scene, node, reference_node)
    return node


def set_reference_geometry(node, geometry: Geometry) -> None:
    """Make ``geometry``, in the node's own coordinates, the grid that edits and exports keep to."""
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*reversed(geometry.shape))
    image.SetGeometryFromImageToWorldMatrix(vtk_matrix(LPS_TO_RAS @ geometry.ijk_to_lps))
    _set_reference_image(node.GetSegmentation(), image)


def provenance(node) -> dict[str, str]:
    """What `add_segmentation` was given as provenance; values that were no text are JSON."""
    names = [n for n in node.GetAttributeNames() if n.startswith(ATTRIBUTE_PREFIX)]
    return {n.removeprefix(ATTRIBUTE_PREFIX): node.GetAttribute(n) for n in names}


def label_table(node) -> list[Label]:
    """The node's segments as labels: name, color, codes, and the value that the model gave them.

    Segments without such a value (drawn by the user, or from another program) keep their own label
    value if it is free, otherwise they get the next free one.
    """
    segments = _segments(node)
    tagged = {i: int(_tag(s, LABEL_VALUE_TAG) or 0) for i, s in segments.items()}
    values = {segment_id: value for segment_id, value in tagged.items() if value}
    for segment_id, segment in segments.items():
        if segment_id not in values:
            own, used = segment.GetLabelValue(), set(values.values())
            values[segment_id] = own if own not in used else max(used) + 1
    return [_label(segment, values[segment_id]) for segment_id, segment in segments.items()]


def segment_array(node, segment_id: str) -> tuple[np.ndarray, Geometry]:
    """The segment's mask, bool (z, y, x), and its grid in world LPS.

    The grid is the one that Slicer keeps for the segment: the reference grid at first, a part of
    it after edits, possibly empty (a shape with zeros).
    """
    segment = _segments(node).get(segment_id)
    if segment is None:
        raise KeyError(f"{node.GetName()} has no segment {segment_id}")
    labelmap = _labelmap(node, segment)
    array = voxels(labelmap)
    return array == segment.GetLabelValue(), _geometry_of(labelmap, array.shape, node)


def labels_from_segmentation(node, table: list[Label] | None = None) -> tuple[np.ndarray, Geometry]:
    """All segments as one array (z, y, x) of the model's label values on the reference grid.

    A segment gets the value of the entry of ``table`` (default: `label_table` of the node) that
    has the segment's own value or else its name; where segments overlap, the later layer wins.
    What lies outside the reference grid is left out. Raises InputError for a segment that
    has no entry. Slicer's own export would renumber the labels to 1..N.
    """
    values = _values_by_id(node, label_table(node) if table is None else table)
    grid = _reference_image(node)
    shape = grid.GetDimensions()[::-1]
    dtype = np.uint8 if max(values.values(), default=0) < 256 else np.uint16
    result = np.zeros(shape, dtype)
    for labelmap, members in layers(node):
        array, window = _on_grid(labelmap, grid)
        size = max(own for _, own in members) + 2  # the last entry, 0, takes all unknown values
        lookup = np.zeros(size, dtype)
        for segment_id, own in members:
            lookup[own] = values[segment_id]
        found = np.empty(array.shape, dtype)
        _look_up(lookup, array, found)
        np.copyto(result[window], found, where=found > 0)
    return result, _geometry_of(grid, shape, node)


def set_status(node, segment_id: str, status: Status) -> None:
    """Set the segment's review status, Slicer's own tag ``Segmentation.Status``."""
    segment = _segments(node)[segment_id]
    slicer.vtkSlicerSegmentationsModuleLogic.SetSegmentStatus(segment, int(status))


def get_status(node, segment_id: str) -> Status:
    """The segment's review status; NOT_STARTED when nobody has set one."""
    segment = _segments(node)[segment_id]
    return Status(slicer.vtkSlicerSegmentationsModuleLogic.GetSegmentStatus(segment))


def _local_matrix(geometry: Geometry, reference_node) -> np.ndarray:
    """The index-to-RAS matrix of ``geometry`` under the reference's parent transform."""
    if reference_node is None:
        return LPS_TO_RAS @ geometry.ijk_to_lps
    matrix, shape = volume_grid(reference_node)
    if not geometry.is_close(world_geometry(matrix, shape, reference_node)):
        raise GeometryError(
            f"The segmentation does not lie on the voxels of {reference_node.GetName()}; choose "
            "the volume that was segmented, or undo what moved it since."
        )
    return matrix  # exactly the reference's, so that Slicer never resamples


def _set_reference_image(segmentation, image) -> None:
    text = slicer.vtkSegmentationConverter.SerializeImageGeometry(image)
    segmentation.SetConversionParameter(REFERENCE_GEOMETRY, text)


def _shared_labelmap(labels: np.ndarray, matrix: np.ndarray, values: list[int]):
    """A vtkOrientedImageData with a copy of ``labels``, all but ``values`` set to 0."""
    largest = max(values, default=0)
    wide = largest > 255
    lookup = np.zeros(largest + 2, np.uint16 if wide else np.uint8)
    lookup[values] = values  # the last entry stays 0: clipping sends larger values there
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*reversed(labels.shape))
    image.AllocateScalars(VTK_UNSIGNED_SHORT if wide else VTK_UNSIGNED_CHAR, 1)
    image.SetGeometryFromImageToWorldMatrix(vtk_matrix(matrix))
    _look_up(lookup, labels, voxels(image))
    return image


def _look_up(lookup: np.ndarray, labels: np.ndarray, out: np.ndarray) -> None:
    """``out = lookup[labels]``, labels beyond the table as its last entry.

    Slice by slice, because NumPy turns the indices into 64-bit integers first.
    """
    for labels_slice, out_slice in zip(labels, out, strict=True):
        np.take(lookup, labels_slice, out=out_slice, mode="clip")


def _segment(label: Label, labelmap, algorithm: str):
    segment = slicer.vtkSegment()
    segment.SetName(label.name)
    segment.SetColor(*(c / 255 for c in label.color))
    segment.NameAutoGeneratedOff()  # or Slicer renames and recolors it with its terminology
    segment.ColorAutoGeneratedOff()
    segment.SetLabelValue(label.value)
    segment.AddRepresentation(BINARY_LABELMAP, labelmap)
    tags = {
        LABEL_VALUE_TAG: str(label.value),
        TERMINOLOGY_TAG: terminology_entry(label),
        "DICOM.SegmentAlgorithmType": "AUTOMATIC",
        "DICOM.SegmentAlgorithmName": algorithm,
    }
    for key, value in tags.items():
        segment.SetTag(key, value.replace("|", "/"))  # | ends a tag in .seg.nrrd
    return segment


def _place_beside(scene, node, reference_node) -> None:
    hierarchy, item = subject_item(scene, node, "Segmentations")
    if reference_node is None:
        return
    node.SetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole(), reference_node.GetID())
    node.SetAndObserveTransformNodeID(reference_node.GetTransformNodeID())
    _, reference_item = subject_item(scene, reference_node, "Volumes")
    hierarchy.SetItemParent(item, hierarchy.GetItemParent(reference_item))


def _segments(node) -> dict:
    segmentation = node.GetSegmentation()
    return {i: segmentation.GetSegment(i) for i in segmentation.GetSegmentIDs()}


def _tag(segment, key: str) -> str:
    text = reference("")
    return str(text) if segment.GetTag(key, text) else ""


def _label(segment, value: int) -> Label:
    parts = [part.split("^") for part in _tag(segment, TERMINOLOGY_TAG).split("~")]
    codes = [Code(*p) if len(p) == 3 and p[1] else None for p in parts]
    codes += [None] * (7 - len(codes))
    color = tuple(round(c * 255) for c in segment.GetColor())
    return Label(value, segment.GetName(), *codes[1:4], *codes[5:7], color=color)


def _values_by_id(node, table: list[Label]) -> dict[str, int]:
    known = {label.value for label in table}
    by_name = {label.name: label.value for label in table}
    result, strange = {}, []
    for segment_id, segment in _segments(node).items():
        own = int(_tag(segment, LABEL_VALUE_TAG) or 0)
        value = own if own in known else by_name.get(segment.GetName())
        if value is None:
            strange.append(segment.GetName())
        result[segment_id] = value
    if strange:
        raise InputError(
            f"The segments {', '.join(strange)} of {node.GetName()} are not among the labels; "
            "rename them to one that is, or remove them."
        )
    return result


def layers(node) -> list[tuple]:
    """Each labelmap with the (id, label value in it) of its segments."""
    layers: dict = {}
    for segment_id, segment in _segments(node).items():
        labelmap = _labelmap(node, segment)
        layers.setdefault(labelmap, []).append((segment_id, segment.GetLabelValue()))
    return list(layers.items())


def _labelmap(node, segment):
    labelmap = segment.GetRepresentation(BINARY_LABELMAP)
    if labelmap is None:
        raise InputError(
            f"The segment {segment.GetName()} of {node.GetName()} has no binary labelmap; create "
            "it in Slicer's Segmentations module first."
        )
    return labelmap


def _reference_image(node):
    """An image without voxels on the segmentation's reference grid."""
    segmentation = node.GetSegmentation()
    text = segmentation.DetermineCommonLabelmapGeometry(
        slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY, vtkStringArray()
    )
    if not text:
        raise InputError(f"{node.GetName()} holds no segment with a grid of voxels.")
    image = slicer.vtkOrientedImageData()
    slicer.vtkSegmentationConverter.DeserializeImageGeometry(text, image, False)
    return image


def _on_grid(labelmap, grid) -> tuple[np.ndarray, tuple[slice, ...]]:
    """The part of ``labelmap`` inside ``grid``, and where in the grid's array it belongs."""
    if not np.allclose(image_matrix(labelmap), image_matrix(grid), atol=1e-5):
        resampled = slicer.vtkOrientedImageData()
        slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
            labelmap, grid, resampled
        )
        labelmap = resampled
    array = voxels(labelmap)
    inner, outer = [], []
    for axis, size in zip((2, 1, 0), array.shape, strict=True):
        first = labelmap.GetExtent()[2 * axis] - grid.GetExtent()[2 * axis]
        start, stop = max(first, 0), min(first + size, grid.GetDimensions()[axis])
        stop = max(start, stop)
        inner.append(slice(start - first, stop - first))
        outer.append(slice(start, stop))
    return array[tuple(inner)], tuple(outer)


def image_matrix(image) -> np.ndarray:
    """The index-to-RAS matrix of a vtkOrientedImageData; indices count from its extent."""
    matrix = vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return numpy_matrix(matrix)


def voxels(labelmap) -> np.ndarray:
    """The labelmap's voxels (z, y, x), a view; all sizes 0 for an empty one."""
    scalars = labelmap.GetPointData().GetScalars()
    if scalars is None or labelmap.IsEmpty():
        return np.zeros((0, 0, 0), np.uint8)
    return vtk_to_numpy(scalars).reshape(labelmap.GetDimensions()[::-1])


def _geometry_of(image, shape, node) -> Geometry:
    matrix = image_matrix(image)
    matrix[:3, 3] += matrix[:3, :3] @ image.GetExtent()[::2]
    return world_geometry(matrix, shape, node)
