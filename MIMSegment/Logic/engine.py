"""Sliding-window inference whose memory does not grow with the number of slices.

Windows go in z order. Only the slab of accumulators that later windows can still reach is alive;
finished planes are resampled to the input's grid, reduced to labels and dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from MIMSegment.Logic.accumulator import SlabAccumulator
from MIMSegment.Logic.batching import BatchSize
from MIMSegment.Logic.doubt import DoubtCollector, DoubtfulPlace
from MIMSegment.Logic.errors import Cancelled, PackageError
from MIMSegment.Logic.finding import Finding
from MIMSegment.Logic.preprocess import WorkingGrid, prepare
from MIMSegment.Logic.resample import linear_taps, resize_planes, source_coordinates
from MIMSegment.Logic.spec import ModelSpec
from MIMSegment.Logic.volume import Geometry, Volume
from MIMSegment.Logic.windows import window_starts

Predictor = Callable[[np.ndarray], np.ndarray]
"""(b, c, *patch) float32 → (b, channels, *patch) logits; without z for a 2D network."""

Progress = Callable[[int, int], None]
"""Windows done, windows in all."""

_CERTAIN = 20.0  # logit of background where the network was not asked


@dataclass(frozen=True)
class Segmentation:
    """Labels (z, y, x), uint8 or uint16, on ``geometry``: the grid of the input.

    ``confidence`` maps a label value to the mean certainty of its voxels, ``doubtful`` are places
    to look at, worst first; see `doubt`. ``findings`` are what `plausibility` says of it.
    """

    labels: np.ndarray
    geometry: Geometry
    confidence: dict[int, float] = field(default_factory=dict)
    doubtful: tuple[DoubtfulPlace, ...] = ()
    findings: tuple[Finding, ...] = ()

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
    predict: Predictor | Sequence[Predictor],
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    wanted: Collection[int] | None = None,
    batch: BatchSize | None = None,
    inspect: Callable[[np.ndarray], None] = lambda array: None,
) -> Segmentation:
    """Segment ``volume`` (c, z, y, x; channels in the order of ``spec.inputs``) on its own grid.

    Several predictors are an ensemble: their logits are averaged. ``wanted`` keeps only these
    label values. ``inspect`` gets the image as the network sees it (c, z, y, x) before the first
    window. Raises PackageError when the network's channels are not those of the spec,
    Cancelled when ``cancelled()`` turned true between two windows, OutOfMemory when a single
    window is too much.
    """
    array, grid = prepare(volume, spec.preprocessing)
    inspect(array)
    predictors = [predict] if callable(predict) else list(predict)
    collector = DoubtCollector(spec, grid.geometry)
    planes = predict_planes(array, spec, predictors, progress, cancelled, batch)
    dtype = np.uint8 if max(spec.channel_labels) < 256 else np.uint16
    labels = np.zeros(volume.geometry.shape, dtype)
    view = grid.reoriented_view(labels)
    for z, logits in restore_planes(_watched(planes, spec, collector), grid):
        view[z] = decide(logits, spec)
    if wanted is not None:
        labels[~np.isin(labels, list(wanted))] = 0
    kept = set(spec.channel_labels if wanted is None else wanted)
    return Segmentation(
        labels,
        volume.geometry,
        {value: c for value, c in collector.confidence().items() if value in kept},
        tuple(place for place in collector.places() if place.label in kept),
    )


def decide(logits: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """Logits (channels, y, x) to label values (y, x)."""
    values = np.asarray(spec.channel_labels)
    if spec.head == "softmax":
        return values[logits.argmax(axis=0)]
    labels = np.zeros(logits.shape[1:], values.dtype)
    for value, channel in zip(values, logits, strict=True):
        labels[channel > 0] = value  # sigmoid(x) > 0.5
    return labels


def predict_planes(
    array: np.ndarray,
    spec: ModelSpec,
    predictors: Sequence[Predictor],
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    batch: BatchSize | None = None,
) -> Iterator[np.ndarray]:
    """Yield the logits (channels, y, x) of each plane of the network's grid, in z order."""
    padded, start = _pad_to_patch(array, spec.patch)
    shape, batch = padded.shape[1:], batch or BatchSize()
    starts = [window_starts(n, p, spec.overlap) for n, p in zip(shape, spec.patch, strict=True)]
    total, done = int(np.prod([len(s) for s in starts])), 0
    slab = SlabAccumulator(len(spec.channel_labels), shape, spec.patch, starts)
    rows, columns = (slice(s, s + n) for s, n in zip(start[1:], array.shape[2:], strict=True))
    for z, following in zip(starts[0], [*starts[0][1:], shape[0]], strict=True):
        corners = list(product([z], starts[1], starts[2]))
        for group, logits in _predict_windows(padded, corners, spec, predictors, cancelled, batch):
            for corner, window in zip(group, logits, strict=True):
                slab.add(window, *corner)
            done += len(group)
            if progress is not None:
                progress(done, total)
        for index, plane in enumerate(slab.planes(z, following), z):
            if start[0] <= index < start[0] + array.shape[1]:
                yield plane[:, rows, columns]


def restore_planes(
    planes: Iterator[np.ndarray], grid: WorkingGrid
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
    alive: dict[int, np.ndarray] = {}
    z = 0
    for read, plane in enumerate(planes):
        alive[read] = resize_planes(plane, grid.cropped[1:], plane_orders)
        while z < new_size and needed[z] <= read:
            below, above = alive[lower[z]], alive[needed[z]]
            yield z, below if weight[z] == 0 else below + (above - below) * weight[z]
            z += 1
        for old in [k for k in alive if z < new_size and k < lower[z]]:
            del alive[old]


def _watched(planes, spec: ModelSpec, collector: DoubtCollector) -> Iterator[np.ndarray]:
    for z, logits in enumerate(planes):
        collector.add(z, logits, decide(logits, spec))
        yield logits


def _predict_windows(padded, corners, spec: ModelSpec, predictors, cancelled, batch: BatchSize):
    """Yield groups of corners (z, y, x) with their logits (b, channels, *patch)."""
    waiting = []
    for corner in corners:
        tile = padded[(slice(None), *(slice(a, a + p) for a, p in zip(corner, spec.patch)))]  # noqa: B905
        if spec.empty_below is not None and tile.max() < spec.empty_below:
            yield [corner], _background(spec)[None]
        else:
            waiting.append((corner, tile))
    while waiting:
        if cancelled is not None and cancelled():
            raise Cancelled("Stopped on request.")
        group = waiting[: batch.size]
        tiles = np.stack([tile for _, tile in group])
        logits = batch.attempt(lambda tiles=tiles: _ensemble(predictors, tiles, spec))
        if logits is None:
            continue  # out of memory: the same windows again, fewer at once
        del waiting[: len(group)]
        yield [corner for corner, _ in group], logits


def _background(spec: ModelSpec) -> np.ndarray:
    logits = np.full((len(spec.channel_labels), *spec.patch), -_CERTAIN, np.float32)
    if spec.head == "softmax":
        logits[0] = _CERTAIN
    return logits


def _ensemble(predictors: Sequence[Predictor], tiles: np.ndarray, spec: ModelSpec) -> np.ndarray:
    total = _mirrored(predictors[0], tiles, spec)
    for predict in predictors[1:]:
        total = total + _mirrored(predict, tiles, spec)
    if total.shape[1] != len(spec.channel_labels):
        raise PackageError(
            f"The network returns {total.shape[1]} channels, "
            f"the package describes {len(spec.channel_labels)}."
        )
    return total if len(predictors) == 1 else total / np.float32(len(predictors))


def _mirrored(predict: Predictor, tiles: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """Mean prediction over all mirrorings of ``tiles`` along subsets of the spec's axes."""
    subsets = [()]
    for axis in spec.mirror_axes:
        subsets += [(*subset, axis + 2) for subset in subsets]
    total = None
    for subset in subsets:
        flipped = np.ascontiguousarray(np.flip(tiles, subset)) if subset else tiles
        logits = predict(flipped[:, :, 0])[:, :, None] if spec.dims == 2 else predict(flipped)
        logits = np.flip(logits, subset) if subset else logits
        total = logits if total is None else total + logits
    return total if len(subsets) == 1 else total / np.float32(len(subsets))


def _pad_to_patch(array: np.ndarray, patch) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Zero-pad (c, z, y, x) around the image to at least ``patch``; and where the image begins."""
    missing = [max(p - n, 0) for n, p in zip(array.shape[1:], patch, strict=True)]
    start = tuple(m // 2 for m in missing)
    if any(missing):
        array = np.pad(array, [(0, 0), *((m // 2, m - m // 2) for m in missing)])
    return array, start
