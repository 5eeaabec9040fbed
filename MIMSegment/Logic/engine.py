"""Sliding-window inference whose memory does not grow with the number of slices.

Windows go in z order. Only the slab of accumulators that later windows can still reach is alive;
finished slices are resampled to the input's grid, reduced to labels and dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from MIMSegment.Logic.errors import Cancelled, PackageError
from MIMSegment.Logic.preprocess import WorkingGrid, prepare
from MIMSegment.Logic.resample import linear_taps, resize, source_coordinates
from MIMSegment.Logic.spec import ModelSpec
from MIMSegment.Logic.volume import Geometry, Volume
from MIMSegment.Logic.windows import gaussian_weights, weight_sum, window_starts

Predictor = Callable[[np.ndarray], np.ndarray]
"""(b, c, *patch) float32 → (b, channels, *patch): logits."""

Progress = Callable[[int, int], None]
"""Windows done, windows in all."""


@dataclass(frozen=True)
class Segmentation:
    """Labels (z, y, x), uint8 or uint16, on ``geometry``: the grid of the input."""

    labels: np.ndarray
    geometry: Geometry

    def volumes_ml(self) -> dict[int, float]:
        """Milliliters of every label value that occurs, background left out."""
        counts = np.bincount(self.labels.ravel())
        return {
            int(v): float(counts[v] * self.geometry.voxel_volume_ml)
            for v in np.flatnonzero(counts)
            if v
        }


def segment(
    volume: Volume,
    spec: ModelSpec,
    predict: Predictor,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Segmentation:
    """Segment ``volume`` (c, z, y, x; channels in the order of ``spec.inputs``) on its own grid.

    Raises PackageError when the network's channels are not those of the spec, Cancelled when
    ``cancelled()`` turned true between two windows.
    """
    array, grid = prepare(volume, spec.preprocessing)
    logits = predict_slabs(array, spec, predict, progress, cancelled)
    dtype = np.uint8 if max(spec.channel_labels) < 256 else np.uint16
    labels = np.zeros(volume.geometry.shape, dtype)
    view = grid.reoriented_view(labels)
    for z, block in restore_slices(logits, grid):
        view[z] = decide(block, spec)
    return Segmentation(labels, volume.geometry)


def decide(logits: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """Logits (channels, y, x) to label values (y, x)."""
    values = np.asarray(spec.channel_labels)
    if spec.head == "softmax":
        return values[logits.argmax(axis=0)]
    labels = np.zeros(logits.shape[1:], values.dtype)
    for value, channel in zip(values, logits, strict=True):
        labels[channel > 0] = value  # sigmoid(x) > 0.5
    return labels


def predict_slabs(
    array: np.ndarray,
    spec: ModelSpec,
    predict: Predictor,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[np.ndarray]:
    """Yield the logits of the network's grid in slabs (channels, slices, y, x), in z order."""
    padded, start, shape = _pad_to_patch(array, spec.patch)
    starts = [window_starts(n, p, spec.overlap) for n, p in zip(shape, spec.patch, strict=True)]
    total, done = int(np.prod([len(s) for s in starts])), 0
    sums = [weight_sum(*args) for args in zip(shape, spec.patch, starts, strict=True)]
    plane_sum = sums[1][:, None] * sums[2][None, :]
    weights = _window_weights(spec.patch)
    channels = len(spec.channel_labels)
    pz, py, px = spec.patch
    slab = np.zeros((channels, pz, *shape[1:]), np.float32)
    for index, z in enumerate(starts[0]):
        for y in starts[1]:
            for x in starts[2]:
                if cancelled is not None and cancelled():
                    raise Cancelled("Stopped on request.")
                tile = padded[None, :, z : z + pz, y : y + py, x : x + px]
                logits = _mirrored(predict, np.ascontiguousarray(tile), spec.mirror_axes)[0]
                if logits.shape[0] != channels:
                    raise PackageError(
                        f"The network returns {logits.shape[0]} channels, "
                        f"the package describes {channels}."
                    )
                slab[:, :, y : y + py, x : x + px] += logits * weights
                done += 1
                if progress is not None:
                    progress(done, total)
        last = index + 1 == len(starts[0])
        finished = pz if last else starts[0][index + 1] - z
        block = slab[:, :finished] / (sums[0][z : z + finished, None, None] * plane_sum)
        block = _inside(block, z, start, array.shape[1:])
        if block.shape[1]:
            yield block
        slab[:, : pz - finished] = slab[:, finished:].copy()
        slab[:, pz - finished :] = 0


def restore_slices(
    slabs: Iterator[np.ndarray], grid: WorkingGrid
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (z, logits (channels, y, x)) for each slice of the cropped source, resampled."""
    order_z, *plane_orders = grid.output_orders
    size, new_size = grid.shape[0], grid.cropped[0]
    at = source_coordinates(size, new_size)
    if order_z == 0:
        lower, weight = np.clip(np.floor(at + 0.5).astype(int), 0, size - 1), np.zeros(new_size)
    else:
        lower, weight = linear_taps(at, size)
    needed = np.minimum(lower + (weight > 0), size - 1)
    planes: dict[int, np.ndarray] = {}
    read, z = 0, 0
    for slab in slabs:
        for plane in np.moveaxis(slab, 1, 0):
            planes[read] = _resize_plane(plane, grid.cropped[1:], plane_orders)
            read += 1
            while z < new_size and needed[z] < read:
                below = planes[lower[z]]
                yield (
                    z,
                    below
                    if weight[z] == 0
                    else (below + (planes[needed[z]] - below) * np.float32(weight[z])),
                )
                z += 1
            for old in [k for k in planes if z < new_size and k < lower[z]]:
                del planes[old]


def _resize_plane(plane: np.ndarray, shape, orders) -> np.ndarray:
    return resize(plane[:, None], (1, *shape), (0, *orders))[:, 0]


def _inside(block: np.ndarray, z: int, start, shape) -> np.ndarray:
    """The part of a slab that begins at padded slice ``z`` and lies in the image."""
    first, stop = max(start[0] - z, 0), max(start[0] + shape[0] - z, 0)
    return block[:, first:stop, start[1] : start[1] + shape[1], start[2] : start[2] + shape[2]]


def _pad_to_patch(array: np.ndarray, patch):
    """Zero-pad (c, z, y, x) around the image to at least ``patch``; where it begins; the shape."""
    missing = [max(p - n, 0) for n, p in zip(array.shape[1:], patch, strict=True)]
    start = tuple(m // 2 for m in missing)
    if not any(missing):
        return array, start, array.shape[1:]
    pad = [(0, 0), *((m // 2, m - m // 2) for m in missing)]
    padded = np.pad(array, pad)
    return padded, start, padded.shape[1:]


def _window_weights(patch) -> np.ndarray:
    z, y, x = (gaussian_weights(p) for p in patch)
    return z[:, None, None] * y[:, None] * x


def _mirrored(predict: Predictor, tile: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Mean of the predictions of all mirrorings of ``tile`` along subsets of ``axes`` (z, y, x)."""
    subsets = [()]
    for axis in axes:
        subsets += [(*subset, axis + 2) for subset in subsets]
    total = None
    for subset in subsets:
        logits = predict(np.flip(tile, subset).copy() if subset else tile)
        logits = np.flip(logits, subset) if subset else logits
        total = logits if total is None else total + logits
    return np.asarray(total, np.float32) / len(subsets)
