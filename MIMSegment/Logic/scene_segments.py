"""A model's result as a segmentation node, its provenance, and the review status of segments."""

from __future__ import annotations

import json
from enum import IntEnum

import numpy as np
import slicer
from vtkmodules.util.vtkConstants import VTK_UNSIGNED_CHAR, VTK_UNSIGNED_SHORT

from MIMSegment.Logic.errors import GeometryError
from MIMSegment.Logic.labels import Label
from MIMSegment.Logic.scene_core import (
    LPS_TO_RAS,
    subject_item,
    unique_name,
    vtk_matrix,
    world_geometry,
)
from MIMSegment.Logic.scene_layers import (
    BINARY_LABELMAP,
    LABEL_VALUE_TAG,
    MODEL_LABEL_TAG,
    look_up,
    segment_of,
    set_reference_image,
    voxels,
)
from MIMSegment.Logic.scene_volumes import volume_grid
from MIMSegment.Logic.terminology import TAG as TERMINOLOGY_TAG
from MIMSegment.Logic.terminology import terminology_entry
from MIMSegment.Logic.volume import Geometry

ATTRIBUTE_PREFIX = "MIMSegment."
ALGORITHM_NAME_TAG = "DICOM.SegmentAlgorithmName"
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
    labelmap = shared_labelmap(labels, matrix, [label.value for label in label_table])
    segments = [new_segment(label, labelmap, algorithm) for label in label_table]
    attributes = _attributes(provenance or {})
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", unique_name(scene, name))
    modifying = node.StartModify()
    segmentation = node.GetSegmentation()
    set_reference_image(segmentation, labelmap)
    for key, value in SURFACE_PARAMETERS.items():
        segmentation.SetConversionParameter(key, value)
    for segment in segments:
        segmentation.AddSegment(segment, f"Segment_{segment.GetLabelValue()}")
    for key, text in attributes.items():
        node.SetAttribute(key, text)
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetOpacity2DFill(_FILL_OPACITY)
    node.EndModify(modifying)
    _place_beside(scene, node, reference_node)
    return node


def set_provenance(node, values: dict) -> None:
    """Keep ``values`` as attributes of the node; those that are no text as JSON."""
    modifying = node.StartModify()  # or every view would follow each of them
    for key, text in _attributes(values).items():
        node.SetAttribute(key, text)
    node.EndModify(modifying)


def provenance(node) -> dict[str, str]:
    """What `add_segmentation` was given as provenance; values that were no text are JSON."""
    names = [n for n in node.GetAttributeNames() if n.startswith(ATTRIBUTE_PREFIX)]
    return {n.removeprefix(ATTRIBUTE_PREFIX): node.GetAttribute(n) for n in names}


def set_status(node, segment_id: str, status: Status) -> None:
    """Set the segment's review status, Slicer's own tag ``Segmentation.Status``."""
    segment = segment_of(node, segment_id)
    slicer.vtkSlicerSegmentationsModuleLogic.SetSegmentStatus(segment, int(status))


def get_status(node, segment_id: str) -> Status:
    """The segment's review status; NOT_STARTED when nobody has set one."""
    segment = segment_of(node, segment_id)
    return Status(slicer.vtkSlicerSegmentationsModuleLogic.GetSegmentStatus(segment))


def _attributes(values: dict) -> dict[str, str]:
    return {
        ATTRIBUTE_PREFIX + key: value if isinstance(value, str) else json.dumps(value)
        for key, value in values.items()
    }


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


def shared_labelmap(labels: np.ndarray, matrix: np.ndarray, values: list[int]):
    """A vtkOrientedImageData with a copy of ``labels``, all but ``values`` set to 0."""
    largest = max(values, default=0)
    wide = largest > 255
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*reversed(labels.shape))
    image.AllocateScalars(VTK_UNSIGNED_SHORT if wide else VTK_UNSIGNED_CHAR, 1)
    image.SetGeometryFromImageToWorldMatrix(vtk_matrix(matrix))
    if labels.max(initial=0) <= largest == len(set(values)):  # nothing to leave out
        voxels(image)[...] = labels
        return image
    lookup = np.zeros(largest + 2, np.uint16 if wide else np.uint8)
    lookup[values] = values  # the last entry stays 0: clipping sends larger values there
    look_up(lookup, labels, voxels(image))
    return image


def new_segment(label: Label, labelmap, algorithm: str):
    segment = slicer.vtkSegment()
    segment.SetName(label.name)
    segment.SetColor(*(c / 255 for c in label.color))
    segment.NameAutoGeneratedOff()  # or Slicer renames and recolors it with its terminology
    segment.ColorAutoGeneratedOff()
    segment.SetLabelValue(label.value)
    segment.AddRepresentation(BINARY_LABELMAP, labelmap)
    for key, value in segment_tags(label, algorithm).items():
        segment.SetTag(key, value)
    return segment


def segment_tags(label: Label, algorithm: str) -> dict[str, str]:
    """What is kept with a segment that ``algorithm`` has drawn."""
    tags = {
        LABEL_VALUE_TAG: str(label.value),
        TERMINOLOGY_TAG: terminology_entry(label),
        "DICOM.SegmentAlgorithmType": "AUTOMATIC",
        ALGORITHM_NAME_TAG: algorithm,
    }
    if label.model_value is not None:
        tags[MODEL_LABEL_TAG] = f"{label.model_value} {label.model_name}"
    return {key: value.replace("|", "/") for key, value in tags.items()}  # | ends one in .seg.nrrd


def _place_beside(scene, node, reference_node) -> None:
    hierarchy, item = subject_item(scene, node, "Segmentations")
    if reference_node is None:
        return
    node.SetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole(), reference_node.GetID())
    node.SetAndObserveTransformNodeID(reference_node.GetTransformNodeID())
    _, reference_item = subject_item(scene, reference_node, "Volumes")
    hierarchy.SetItemParent(item, hierarchy.GetItemParent(reference_item))
