"""The voxels of a segmentation node at one moment: taken, counted, compared and given back.

Works on the labelmaps that segments share. What is kept of each moment are runs of equal labels
(`run_lengths`); one copy of the voxels is kept of the last.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import slicer

from MIMSegment.Logic.errors import GeometryError
from MIMSegment.Logic.run_lengths import RunLengths
from MIMSegment.Logic.scene_core import parent_matrix
from MIMSegment.Logic.scene_layers import image_matrix, labelmap_of, layers, segments_of, voxels


@dataclass(frozen=True, eq=False)
class _Layer:
    """One labelmap with the values of its segments in it, and its voxels when it was read."""

    labelmap: object
    modified: int
    voxel_ml: float
    members: dict[str, int]
    runs: RunLengths

    def mask(self, segment_id: str) -> RunLengths:
        """The voxels of one segment, with value 1."""
        return self.runs.only({self.members[segment_id]: 1})


@dataclass(frozen=True, eq=False)
class VoxelSnapshot:
    """All layers of a node; see `Snapshots`."""

    layers: tuple[_Layer, ...]

    def layer(self, segment_id: str) -> _Layer | None:
        """The layer that held the segment; None for a segment that was not there."""
        return next((layer for layer in self.layers if segment_id in layer.members), None)

    def volumes_ml(self) -> dict[str, float]:
        """Milliliters of every segment."""
        found = {}
        for layer in self.layers:
            counts = layer.runs.counts()
            for segment_id, value in layer.members.items():
                found[segment_id] = counts.get(value, 0) * layer.voxel_ml
        return found


class Snapshots:
    """Takes snapshots of a node, one after the other.

    A copy of each labelmap as it last was says in a few milliseconds which slices have changed
    since, and only these are encoded again: a stroke must not be felt on a large image.
    """

    def __init__(self, node):
        self._node = node
        self._last = VoxelSnapshot(())
        self._copies: dict[object, tuple[tuple[int, int, int], np.ndarray]] = {}

    def take(self) -> VoxelSnapshot:
        """The node's voxels as they are now; cheap where nothing has changed since the last."""
        known = {layer.labelmap: layer for layer in self._last.layers}
        found, scale = [], _scale(self._node)
        for labelmap, members in layers(self._node):
            old, now = known.get(labelmap), labelmap.GetMTime()
            unchanged = old is not None and old.modified == now
            runs = old.runs if unchanged else self._encode(labelmap, old)
            voxel_ml = scale * float(abs(np.linalg.det(image_matrix(labelmap)))) / 1000
            found.append(_Layer(labelmap, now, voxel_ml, dict(members), runs))
        self._last = VoxelSnapshot(tuple(found))
        present = {layer.labelmap for layer in found}
        self._copies = {k: v for k, v in self._copies.items() if k in present}
        return self._last

    def _encode(self, labelmap, old: _Layer | None) -> RunLengths:
        array, first = voxels(labelmap), _first_index(labelmap)
        known_first, copy = self._copies.get(labelmap, (None, None))
        if old is None or known_first != first or copy.shape != array.shape:
            self._copies[labelmap] = first, array.copy()
            return RunLengths.encode(array, first)
        changed = [z for z in range(len(array)) if not np.array_equal(array[z], copy[z])]
        if not changed:
            return old.runs
        part = slice(changed[0], changed[-1] + 1)
        copy[part] = array[part]
        here = (first[0] + part.start, *first[1:])
        planes = here[0], first[0] + part.stop
        return old.runs.with_planes(planes, RunLengths.encode(array[part], here))


def changed_voxels(then: VoxelSnapshot, now: VoxelSnapshot) -> dict[str, int]:
    """For each segment whose voxels differ, how many of them do."""
    counts: dict[str, int] = {}
    compared = set()
    old_layers = {layer.labelmap: layer for layer in then.layers}
    for new in now.layers:
        old = old_layers.get(new.labelmap)
        if old is None:
            continue
        stayed = {i: v for i, v in new.members.items() if old.members.get(i) == v}
        compared |= set(stayed)
        if old.runs is new.runs:
            continue
        changed = old.runs.changed(new.runs)
        counts |= {i: changed[value] for i, value in stayed.items() if value in changed}
    for segment_id in _segment_ids(now) - compared:
        before, after = then.layer(segment_id), now.layer(segment_id).mask(segment_id)
        if before is not None:
            count = before.mask(segment_id).changed(after).get(1, 0)
        else:
            count = after.counts().get(1, 0)
        counts |= {segment_id: count} if count else {}
    return counts


def restore_voxels(node, then: VoxelSnapshot, segment_ids: Iterable[str]) -> None:
    """Give these segments the voxels that they had then.

    Other segments in the same layer lose what is theirs again; those in other layers, which may
    overlap, keep everything.
    """
    segments, touched = segments_of(node), {}
    for segment_id in segment_ids:
        segment, layer = segments[segment_id], then.layer(segment_id)
        if layer is None:
            continue
        labelmap = labelmap_of(node, segment)
        _write_segment(labelmap, segment.GetLabelValue(), layer.mask(segment_id))
        touched[labelmap] = segment_id
    for labelmap in touched:
        labelmap.Modified()  # what shows and counts the segments listens to this


def _write_segment(labelmap, value: int, mask: RunLengths) -> None:
    box = mask.box()
    if box is not None:
        _make_room(labelmap, box)
    array = voxels(labelmap)
    array[array == value] = 0
    if box is None:
        return
    first = _first_index(labelmap)
    inside = tuple(slice(s.start - f, s.stop - f) for s, f in zip(box, first, strict=True))
    array[inside][mask.decode(box) > 0] = value


def _make_room(labelmap, box: tuple[slice, slice, slice]) -> None:
    """Let the labelmap, which Slicer may have cut to what was drawn, hold the voxels of ``box``."""
    extent = labelmap.GetExtent()
    needed = [bound for s in reversed(box) for bound in (s.start, s.stop - 1)]
    if labelmap.IsEmpty():
        union = needed
    else:
        union = [
            (min, max)[i % 2](have, want)
            for i, (have, want) in enumerate(zip(extent, needed, strict=True))
        ]
        if list(extent) == union:
            return
    larger = slicer.vtkOrientedImageData()
    larger.CopyDirections(labelmap)
    larger.SetOrigin(labelmap.GetOrigin())
    larger.SetSpacing(labelmap.GetSpacing())
    larger.SetExtent(union)
    larger.AllocateScalars(labelmap.GetScalarType(), 1)
    array, old = voxels(larger), voxels(labelmap)
    array[...] = 0
    if old.size:
        start = [a - b for a, b in zip(_first_index(labelmap), union[4::-2], strict=True)]
        array[tuple(slice(s, s + n) for s, n in zip(start, old.shape, strict=True))] = old
    labelmap.DeepCopy(larger)


def _scale(node) -> float:
    """How many times as large the node's parent transform makes volumes in the world, which every
    export gives; 1 under a transform that bends, which they refuse."""
    try:
        return float(abs(np.linalg.det(parent_matrix(node)[:3, :3])))
    except GeometryError:
        return 1.0


def _first_index(labelmap) -> tuple[int, int, int]:
    """The grid index (z, y, x) of the array's first voxel."""
    return tuple(labelmap.GetExtent()[4::-2])


def _segment_ids(snapshot: VoxelSnapshot) -> set[str]:
    return {segment_id for layer in snapshot.layers for segment_id in layer.members}
