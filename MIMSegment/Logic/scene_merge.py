"""Adding a result to a segmentation that exists, when the user has asked for it: with a way back.

Voxels of other segments are never touched: what is added gets a layer of its own. Only segments of
the same name are replaced, and never accepted ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from MIMSegment.Logic.errors import GeometryError, InputError
from MIMSegment.Logic.labels import Label
from MIMSegment.Logic.review_items import SegmentRecord, Verdict
from MIMSegment.Logic.scene_layers import (
    BINARY_LABELMAP,
    geometry_of,
    image_matrix,
    reference_image,
    segments_of,
    voxels,
)
from MIMSegment.Logic.scene_review import NodeSegments
from MIMSegment.Logic.scene_segments import new_segment, shared_labelmap
from MIMSegment.Logic.scene_snapshot import VoxelSnapshot, restore_voxels
from MIMSegment.Logic.volume import Geometry


@dataclass
class Addition:
    """What `add_to_segmentation` did, for `undo_addition`."""

    snapshot: VoxelSnapshot
    added: list[str] = field(default_factory=list)
    replaced: list[SegmentRecord] = field(default_factory=list)


def add_to_segmentation(
    node, labels: np.ndarray, geometry: Geometry, table: Sequence[Label], algorithm: str
) -> Addition:
    """Add ``labels`` (z, y, x) on world-LPS ``geometry`` to the segments of ``node``.

    Raises InputError when a segment of the same name is accepted, GeometryError when the result
    does not lie on the segmentation's grid; the node is then as it was.
    """
    store = NodeSegments(node)
    by_name = {record.name: record for record in store.records()}
    _refuse_locked(node, [by_name[label.name] for label in table if label.name in by_name])
    matrix = _matrix_on(node, geometry)
    labelmap = shared_labelmap(labels, matrix, [label.value for label in table])
    addition = Addition(store.snapshot())
    segmentation = node.GetSegmentation()
    modifying = node.StartModify()
    for label in table:
        old = by_name.get(label.name)
        if old is None:
            segment = new_segment(label, labelmap, algorithm)
            segment_id = segmentation.GenerateUniqueSegmentID(f"Segment_{label.value}")
            segmentation.AddSegment(segment, segment_id)
            addition.added.append(segment_id)
        else:
            addition.replaced.append(old)
            _replace(segments_of(node)[old.id], label, labelmap)
            store.write(SegmentRecord(old.id, old.label, old.name, old.color))
    node.EndModify(modifying)
    return addition


def undo_addition(node, addition: Addition) -> None:
    """Take everything back that the addition brought."""
    store = NodeSegments(node)
    present = segments_of(node)
    for segment_id in addition.added:
        if segment_id in present:
            node.GetSegmentation().RemoveSegment(segment_id)
    replaced = [record for record in addition.replaced if record.id in present]
    restore_voxels(node, addition.snapshot, [record.id for record in replaced])
    for record in replaced:
        store.write(record)


def _refuse_locked(node, records: Sequence[SegmentRecord]) -> None:
    locked = [record.name for record in records if record.verdict is Verdict.ACCEPTED]
    if locked:
        raise InputError(
            f"{', '.join(locked)} in {node.GetName()} is accepted and locked; reopen it in the "
            "review, or choose a new segmentation for the result."
        )


def _matrix_on(node, geometry: Geometry) -> np.ndarray:
    """The index-to-RAS matrix of the node's own grid, which ``geometry`` must be."""
    grid = reference_image(node)
    own = geometry_of(grid, grid.GetDimensions()[::-1], node)
    if not own.is_close(geometry):
        raise GeometryError(
            f"The result does not lie on the grid of {node.GetName()}, which belongs to another "
            "image; choose a new segmentation for it."
        )
    matrix = image_matrix(grid)
    matrix[:3, 3] += matrix[:3, :3] @ grid.GetExtent()[::2]
    return matrix


def _replace(segment, label: Label, labelmap) -> None:
    """Move the segment to the new layer and clear what it had in the old one."""
    old, value = segment.GetRepresentation(BINARY_LABELMAP), segment.GetLabelValue()
    if old is not None:
        array = voxels(old)
        array[array == value] = 0
        old.Modified()
    segment.RemoveAllRepresentations()
    segment.SetLabelValue(label.value)
    segment.AddRepresentation(BINARY_LABELMAP, labelmap)
