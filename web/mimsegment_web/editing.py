"""Correcting one structure: brush, eraser, islands, smoothing, each taken back step by step.

Works on Slicer's labelmaps themselves. trame-slicer's own editor would copy the whole segmentation
twice for each stroke, and would not know that accepted structures are locked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import slicer

from MIMSegment.Logic.scene_core import LPS_TO_RAS, parent_matrix
from MIMSegment.Logic.scene_layers import (
    BINARY_LABELMAP,
    image_matrix,
    layers,
    reference_image,
    segments_of,
    voxels,
)

_MOST_STEPS = 50
_PAUSE = 2.0  # seconds without a movement, after which a stroke keeps nothing else waiting
Box = tuple[slice, slice, slice]


@dataclass
class _Change:
    """What one step overwrote in one layer: flat indices and the values that were there."""

    array: np.ndarray
    indices: np.ndarray
    before: np.ndarray


class SegmentEditor:
    """Changes the voxels of one segment of ``node``.

    ``locked`` are segment IDs whose voxels stay as they are. Where the structure grows it takes the
    voxels from unlocked ones, as one voxel belongs to one structure. ``changed`` is called after
    each change of voxels; Slicer's views do not draw by themselves what changes in place.
    """

    def __init__(
        self,
        node,
        segment_id: str,
        locked: Collection[str] = (),
        changed: Callable[[], None] = lambda: None,
    ):
        _make_full_size(node)
        self._tell = changed
        self.node, self.segment_id = node, segment_id
        self._layers = [(image, voxels(image), members) for image, members in layers(node)]
        self._value = segments_of(node)[segment_id].GetLabelValue()
        self._own = next(array for _, array, members in self._layers if segment_id in dict(members))
        self._locked = [
            (array, [value for i, value in members if i in locked])
            for _, array, members in self._layers
        ]
        image = self._layers[0][0]
        to_lps = LPS_TO_RAS @ parent_matrix(node) @ image_matrix(image)
        to_lps[:3, 3] += to_lps[:3, :3] @ image.GetExtent()[::2]
        self._to_lps, self._to_ijk = to_lps, np.linalg.inv(to_lps)
        self._spacing = np.linalg.norm(to_lps[:3, :3], axis=0)  # x, y, z in mm
        self._steps: list[list[_Change]] = []
        self._undone: list[list[_Change]] = []
        self._stroke: list[_Change] | None = None
        self._drawn_at = 0.0

    @property
    def can_undo(self) -> bool:
        """Whether a step of this edit can be taken back."""
        return bool(self._steps)

    @property
    def can_redo(self) -> bool:
        """Whether a step that was taken back can be done again."""
        return bool(self._undone)

    @property
    def in_stroke(self) -> bool:
        """Whether a stroke is being drawn; not one whose end was never told, as a page that is
        closed meanwhile tells none."""
        return self._stroke is not None and time.monotonic() - self._drawn_at < _PAUSE

    @property
    def count(self) -> int:
        """Voxels of the structure."""
        return int(np.count_nonzero(self._own == self._value))

    def begin_stroke(self) -> None:
        """All that is painted until `end_stroke` is one step for undo."""
        if self._stroke:
            self.end_stroke()
        self._stroke, self._drawn_at = [], time.monotonic()

    def end_stroke(self) -> None:
        """End the stroke; an empty one leaves no step."""
        stroke, self._stroke = self._stroke, None
        if stroke:
            self._steps = [*self._steps[1 - _MOST_STEPS :], stroke]
            self._undone.clear()

    def paint(self, start, end, normal, diameter: float, sphere: bool, erase: bool) -> bool:
        """Draw from ``start`` to ``end``, LPS points in mm; whether any voxel changed.

        A disc of ``diameter`` mm in the slice with this ``normal``, or a ball.
        """
        self._drawn_at = time.monotonic()
        box, inside = self._brushed(start, end, normal, diameter / 2, sphere)
        return self._write(box, inside, erase) if inside.any() else False

    def keep_largest_island(self) -> int:
        """Remove all but the largest connected piece (faces touch); how many pieces went."""
        from scipy.ndimage import label

        box, mask = self._boxed()
        pieces, count = label(mask)
        if count < 2:
            return 0
        largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
        self._whole_step(box, mask & (pieces != largest), erase=True)
        return count - 1

    def remove_small_islands(self, milliliters: float) -> int:
        """Remove connected pieces below ``milliliters``; how many went."""
        from scipy.ndimage import label

        box, mask = self._boxed()
        pieces, _ = label(mask)
        sizes = np.bincount(pieces.ravel()) * float(np.prod(self._spacing)) / 1000
        small = sizes < milliliters
        small[0] = False
        self._whole_step(box, small[pieces], erase=True)
        return int(np.count_nonzero(small))

    def smooth(self, millimeters: float) -> bool:
        """Even out steps and spikes narrower than about ``millimeters``; whether voxels changed.

        A Gaussian of half that width, cut at one half, which keeps the volume of round shapes.
        """
        from scipy.ndimage import gaussian_filter

        box, mask = self._boxed(margin=millimeters)
        if not mask.any():
            return False
        sigma = [millimeters / 2 / s for s in self._spacing[::-1]]
        smooth = gaussian_filter(mask.astype(np.float32), sigma) >= 0.5
        self.begin_stroke()
        changed = self._write(box, mask & ~smooth, erase=True)
        changed |= self._write(box, smooth & ~mask, erase=False)
        self.end_stroke()
        return changed

    def undo(self) -> bool:
        """Take the last step back; false when there is none."""
        return self._exchange(self._steps, self._undone)

    def redo(self) -> bool:
        """Do the step that was taken back last again; false when there is none."""
        return self._exchange(self._undone, self._steps)

    def _exchange(self, source: list[list[_Change]], target: list[list[_Change]]) -> bool:
        """Put the last step of ``source`` back, and what was there instead into ``target``."""
        if not source:
            return False
        replaced = []
        for change in reversed(source.pop()):
            now = change.array.ravel()[change.indices]
            replaced.append(_Change(change.array, change.indices, now))
            change.array.ravel()[change.indices] = change.before
        target.append(replaced)
        self._changed()
        return True

    def _whole_step(self, box: Box, where: np.ndarray, erase: bool) -> None:
        self.begin_stroke()
        self._write(box, where, erase)
        self.end_stroke()

    def _write(self, box: Box, where: np.ndarray, erase: bool) -> bool:
        """Give the voxels ``where`` in ``box`` to the structure, or take them from it."""
        own = self._own[box]
        where = where & ((own == self._value) if erase else (own != self._value))
        if not erase:
            for array, values in self._locked:
                if values:
                    where = where & ~np.isin(array[box], values)
        if not where.any():
            return False
        for _, array, _ in self._layers:
            if array is self._own:
                self._put(array, box, where, 0 if erase else self._value)
            elif not erase:
                self._put(array, box, where & (array[box] != 0), 0)
        self._changed()
        return True

    def _put(self, array: np.ndarray, box: Box, where: np.ndarray, value: int) -> None:
        if not where.any():
            return
        index = [axis + part.start for axis, part in zip(np.nonzero(where), box, strict=True)]
        flat = np.ravel_multi_index(index, array.shape)
        if self._stroke is not None:
            self._stroke.append(_Change(array, flat, array.ravel()[flat]))
        array.ravel()[flat] = value

    def _changed(self) -> None:
        for image, _, _ in self._layers:
            image.GetPointData().GetScalars().Modified()
            image.Modified()
        self._tell()

    def _brushed(self, start, end, normal, radius: float, sphere: bool) -> tuple[Box, np.ndarray]:
        """The voxels within ``radius`` mm of the line, and the box that they are in."""
        ends = np.array([start, end], float)
        reach = radius + self._spacing.max()
        corners = np.concatenate([ends - reach, ends + reach])
        corners = np.array(np.meshgrid(*zip(corners.min(0), corners.max(0), strict=True)))
        ijk = self._to_ijk[:3, :3] @ corners.reshape(3, -1) + self._to_ijk[:3, 3:]
        size = np.array(self._own.shape[::-1])
        low = np.clip(np.floor(ijk.min(1)).astype(int), 0, size)
        high = np.clip(np.ceil(ijk.max(1)).astype(int) + 1, low, size)
        box = tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))
        z, y, x = np.ogrid[box]
        axes = self._to_lps[:3, :3]
        points = [
            axes[i, 0] * x + axes[i, 1] * y + axes[i, 2] * z + self._to_lps[i, 3] for i in range(3)
        ]
        line = ends[1] - ends[0]
        length = float(line @ line)
        along = sum((points[i] - ends[0, i]) * line[i] for i in range(3))
        along = np.clip(along / length, 0, 1) if length > 0 else np.zeros_like(along)
        offset = [points[i] - ends[0, i] - along * line[i] for i in range(3)]
        distance = sum(o * o for o in offset)
        if sphere:
            return box, distance <= radius * radius
        across = sum(offset[i] * normal[i] for i in range(3))
        thickness = np.abs(axes.T @ np.asarray(normal, float)).max()
        inside = (distance - across * across <= radius * radius) & (
            np.abs(across) <= 0.5001 * thickness
        )
        return box, inside

    def _boxed(self, margin: float = 0.0) -> tuple[Box, np.ndarray]:
        """The structure's box, wider by ``margin`` mm, and its mask in it."""
        mask = self._own == self._value
        box = []
        for axis, spacing in enumerate(self._spacing[::-1]):
            others = tuple(a for a in range(3) if a != axis)
            found = np.flatnonzero(mask.any(axis=others))
            more = int(np.ceil(2 * margin / spacing))
            start, stop = (found[0], found[-1] + 1) if found.size else (0, 0)
            box.append(slice(max(0, start - more), min(mask.shape[axis], stop + more)))
        box = tuple(box)
        return box, mask[box]


class BrushTool:
    """Paints or erases where one drags; ``done`` is called after each stroke."""

    def __init__(self, editor: SegmentEditor, erase: bool, done: Callable[[], None]):
        self.editor = editor
        self.diameter, self.sphere = 8.0, False
        self._erase, self._done = erase, done
        self._last: np.ndarray | None = None

    def press(self, view, point, normal, xy) -> None:
        self.editor.begin_stroke()
        self._last = point
        self.drag(view, point, normal, xy)

    def drag(self, view, point, normal, xy) -> None:
        if self._last is not None:
            self.editor.paint(self._last, point, normal, self.diameter, self.sphere, self._erase)
            self._last = point

    def release(self, view) -> None:
        self._last = None
        self.editor.end_stroke()
        self._done()


def _make_full_size(node) -> None:
    """Give every layer the reference grid; Slicer's own edits shrink labelmaps to their content."""
    grid = reference_image(node)
    for image, members in layers(node):
        if image.GetExtent() == grid.GetExtent() and np.allclose(
            image_matrix(image), image_matrix(grid)
        ):
            continue
        full = slicer.vtkOrientedImageData()
        slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
            image, grid, full
        )
        for segment_id, _ in members:
            segments_of(node)[segment_id].AddRepresentation(BINARY_LABELMAP, full)
