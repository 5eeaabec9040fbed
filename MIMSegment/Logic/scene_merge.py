"""Adding a result to a segmentation that exists, when the user has asked for it: with a way back.

Voxels of other segments are never touched: what is added gets a layer of its own. Only segments of
the same name, and lesions of the same label, are replaced, and never accepted ones or such as were
drawn by hand: beside these the result gets another name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np

from MIMSegment.Logic.errors import GeometryError, InputError
from MIMSegment.Logic.labels import Label
from MIMSegment.Logic.phrases import joined
from MIMSegment.Logic.review_items import SegmentRecord, Verdict
from MIMSegment.Logic.scene_labels import label_table
from MIMSegment.Logic.scene_layers import (
    BINARY_LABELMAP,
    LABEL_VALUE_TAG,
    MODEL_LABEL_TAG,
    geometry_of,
    image_matrix,
    reference_image,
    segments_of,
    tag,
    voxels,
)
from MIMSegment.Logic.scene_review import ALGORITHM_TYPE_TAG, NodeSegments
from MIMSegment.Logic.scene_segments import (
    ALGORITHM_NAME_TAG,
    new_segment,
    segment_tags,
    shared_labelmap,
)
from MIMSegment.Logic.scene_snapshot import VoxelSnapshot, restore_voxels
from MIMSegment.Logic.volume import Geometry

_CHANGED_TAGS = (LABEL_VALUE_TAG, MODEL_LABEL_TAG, ALGORITHM_NAME_TAG, ALGORITHM_TYPE_TAG)


@dataclass
class Addition:
    """What `add_to_segmentation` did, for `undo_addition`."""

    snapshot: VoxelSnapshot
    added: list[str] = field(default_factory=list)
    replaced: list[SegmentRecord] = field(default_factory=list)
    tags: dict[str, dict[str, str]] = field(default_factory=dict)


def check_addition(node, geometry: Geometry, table: Sequence[Label]) -> None:
    """Raise what `add_to_segmentation` would, without doing anything."""
    by_name, outdated = _replaced(node, NodeSegments(node), table)
    _refuse_locked(node, [*by_name.values(), *outdated])
    _grid_of(node, geometry)


def add_to_segmentation(
    node, labels: np.ndarray, geometry: Geometry, table: Sequence[Label], algorithm: str
) -> Addition:
    """Add ``labels`` (z, y, x) on world-LPS ``geometry`` to the segments of ``node``.

    Raises InputError when a segment that would be replaced is accepted, GeometryError when the
    result does not lie on the segmentation's grid; the node is then as it was.
    """
    store = NodeSegments(node)
    table = _with_free_names(store, table)
    by_name, outdated = _replaced(node, store, table)
    _refuse_locked(node, [*by_name.values(), *outdated])
    grid = _grid_of(node, geometry)
    labelmap = shared_labelmap(labels, image_matrix(grid), [label.value for label in table])
    labelmap.SetExtent(grid.GetExtent())
    addition = Addition(store.snapshot())
    segmentation = node.GetSegmentation()
    modifying = node.StartModify()
    for record in (*outdated, *by_name.values()):
        addition.replaced.append(record)
        addition.tags[record.id] = _tags(segments_of(node)[record.id])
        _empty(segments_of(node)[record.id])
    for label in table:
        old = by_name.get(label.name)
        if old is None:
            segment_id = segmentation.GenerateUniqueSegmentID(f"Segment_{label.value}")
            segmentation.AddSegment(new_segment(label, labelmap, algorithm), segment_id)
            addition.added.append(segment_id)
        else:
            _fill(segments_of(node)[old.id], label, labelmap, algorithm)
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
        _set_tags(present[record.id], addition.tags[record.id])


def _replaced(
    node, store: NodeSegments, table: Sequence[Label]
) -> tuple[dict[str, SegmentRecord], list[SegmentRecord]]:
    """The segments that have the name of one in ``table``, by name; and those without, that are
    lesions of a label in it, as an earlier run has found them."""
    kinds = {_kind(label) for label in table}
    names = {label.name for label in table}
    by_name, outdated = {}, []
    for record, label in zip(store.records(), label_table(node), strict=True):
        if record.by_hand:
            continue
        if record.name in names:
            by_name[record.name] = record
        elif _kind(label) in kinds:
            outdated.append(record)
    return by_name, outdated


def _with_free_names(store: NodeSegments, table: Sequence[Label]) -> list[Label]:
    """``table`` with the next free number in the names that a segment drawn by hand has."""
    records = store.records()
    by_hand = {record.name for record in records if record.by_hand}
    taken = {record.name for record in records} | {label.name for label in table}
    result = []
    for label in table:
        if label.name in by_hand:
            model_name = label.model_name or label.name
            name = next(n for n in (f"{model_name} {i}" for i in count(2)) if n not in taken)
            taken.add(name)
            label = replace(label, name=name, model_value=label.source_value, model_name=model_name)
        result.append(label)
    return result


def _kind(label: Label) -> tuple[int, str]:
    return label.source_value, label.model_name or label.name


def _refuse_locked(node, records: Sequence[SegmentRecord]) -> None:
    locked = [record.name for record in records if record.verdict is Verdict.ACCEPTED]
    if locked:
        are, them = ("is", "it") if len(locked) == 1 else ("are", "them")
        raise InputError(
            f"{joined(locked)} in {node.GetName()} {are} accepted and locked; reopen {them} in "
            "the review, or choose a new segmentation for the result."
        )


def _grid_of(node, geometry: Geometry):
    """The node's own grid as an image, which ``geometry`` must be."""
    grid = reference_image(node)
    own = geometry_of(grid, grid.GetDimensions()[::-1], node)
    if not own.is_close(geometry):
        raise GeometryError(
            f"The result does not fit the voxels of {node.GetName()}, which belongs to another "
            "image; choose a new segmentation for it."
        )
    return grid


def _empty(segment) -> None:
    """Take its voxels away, and its label value, which is needed now."""
    old, value = segment.GetRepresentation(BINARY_LABELMAP), segment.GetLabelValue()
    if old is not None:
        array = voxels(old)
        array[array == value] = 0
        old.Modified()
    segment.RemoveTag(LABEL_VALUE_TAG)


def _fill(segment, label: Label, labelmap, algorithm: str) -> None:
    """Move the segment to the new layer."""
    segment.RemoveAllRepresentations()
    segment.SetLabelValue(label.value)
    segment.AddRepresentation(BINARY_LABELMAP, labelmap)
    given = segment_tags(label, algorithm)
    _set_tags(segment, {key: given.get(key, "") for key in _CHANGED_TAGS})


def _tags(segment) -> dict[str, str]:
    return {key: tag(segment, key) for key in _CHANGED_TAGS}


def _set_tags(segment, values: Mapping[str, str]) -> None:
    for key, value in values.items():
        if value:
            segment.SetTag(key, value)
        else:
            segment.RemoveTag(key)
