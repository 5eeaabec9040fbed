"""Segmentation nodes read as arrays and as a label table."""

from __future__ import annotations

import numpy as np
import slicer

from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.labels import Code, Label, labels_from_csv
from MIMSegment.Logic.scene_layers import (
    LABEL_VALUE_TAG,
    MODEL_LABEL_TAG,
    geometry_of,
    image_matrix,
    labelmap_of,
    layers,
    look_up,
    reference_image,
    segments_of,
    tag,
    voxels,
)
from MIMSegment.Logic.terminology import TAG as TERMINOLOGY_TAG
from MIMSegment.Logic.volume import Geometry

NOT_ASKED = "MIMSegment.NotAsked"  # attribute: the model's labels that no run was asked for, as CSV


def label_table(node) -> list[Label]:
    """The node's segments as labels: name, color, codes, and the value that the model gave them.

    Segments without such a value (drawn by the user, or from another program) keep their own label
    value if it is above all of the model's, also of those that no run was asked for; otherwise they
    get the next free one above these.
    """
    values = _own_values(node)
    return [_label(segment, values[i]) for i, segment in segments_of(node).items()]


def segment_array(node, segment_id: str) -> tuple[np.ndarray, Geometry]:
    """The segment's mask, bool (z, y, x), and its grid in world LPS.

    The grid is the one that Slicer keeps for the segment: the reference grid at first, a part of
    it after edits, possibly empty (a shape with zeros).
    """
    segment = segments_of(node).get(segment_id)
    if segment is None:
        raise KeyError(f"{node.GetName()} has no segment {segment_id}")
    labelmap = labelmap_of(node, segment)
    array = voxels(labelmap)
    return array == segment.GetLabelValue(), geometry_of(labelmap, array.shape, node)


def labels_from_segmentation(node, table: list[Label] | None = None) -> tuple[np.ndarray, Geometry]:
    """All segments as one array (z, y, x) of the model's label values on the reference grid.

    A segment gets the value that `label_table` gives it; with ``table``, the value of the entry
    that has the segment's model value or else its name, and InputError is raised for a segment
    without one. Where segments overlap, the later layer wins. What lies outside the reference
    grid is left out. Slicer's own export would renumber the labels to 1..N.
    """
    values = _own_values(node) if table is None else _values_in(table, node)
    grid = reference_image(node)
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
        look_up(lookup, array, found)
        np.copyto(result[window], found, where=found > 0)
    return result, geometry_of(grid, shape, node)


def _own_values(node) -> dict[str, int]:
    segments = segments_of(node)
    tagged = {i: int(tag(segment, LABEL_VALUE_TAG) or 0) for i, segment in segments.items()}
    values = {segment_id: value for segment_id, value in tagged.items() if value}
    not_asked = node.GetAttribute(NOT_ASKED) if len(values) < len(segments) else ""
    unknown = labels_from_csv(not_asked) if not_asked else []
    highest = max([*values.values(), *(label.value for label in unknown)], default=0)
    for segment_id, segment in segments.items():
        if segment_id not in values:
            own, used = segment.GetLabelValue(), set(values.values())
            free = own > highest and own not in used
            values[segment_id] = own if free else max(highest, *used, 0) + 1
    return values


def _values_in(table: list[Label], node) -> dict[str, int]:
    known = {label.value for label in table}
    by_name = {label.name: label.value for label in table}
    result, strange = {}, []
    for segment_id, segment in segments_of(node).items():
        own = int(tag(segment, LABEL_VALUE_TAG) or 0)
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


def _label(segment, value: int) -> Label:
    parts = [part.split("^") for part in tag(segment, TERMINOLOGY_TAG).split("~")]
    codes = [Code(*p) if len(p) == 3 and p[1] else None for p in parts]
    codes += [None] * (7 - len(codes))
    color = tuple(round(c * 255) for c in segment.GetColor())
    model, _, name = tag(segment, MODEL_LABEL_TAG).partition(" ")
    known = (int(model), name) if model.isdecimal() else (None, "")
    return Label(value, segment.GetName(), *codes[1:4], *codes[5:7], color, *known)


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
