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
from MIMSegment.Logic.crew import Crew
from MIMSegment.Logic.doubt import DoubtCollector, DoubtfulPlace
from MIMSegment.Logic.errors import Cancelled, PackageError
from MIMSegment.Logic.finding import Finding
from MIMSegment.Logic.preprocess import WorkingGrid, open_prepared
from MIMSegment.Logic.resample import resampler, resize_planes
from MIMSegment.Logic.spec import ModelSpec
from MIMSegment.Logic.volume import Geometry, Volume
from MIMSegment.Logic.windows import window_starts
from MIMSegment.Logic.working_image import WorkingImage

Predictor = Callable[[np.ndarray], np.ndarray]
"""(b, c, *patch) float32 → (b, channels, *patch) logits; without z for a 2D network. It may have a
``precision`` like `session.Session`."""

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
        counts = np.zeros(int(self.labels.max(initial=0)) + 1, np.int64)
        for plane in self.labels:  # bincount makes 8 bytes of every voxel
            counts += np.bincount(plane.ravel(), minlength=len(counts))
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
    inspect: Callable[[WorkingImage], None] = lambda image: None,
    threads: int | None = None,
    prepared: tuple[WorkingImage, WorkingGrid] | None = None,
) -> Segmentation:
    """Segment ``volume`` (c, z, y, x; channels in the order of ``spec.inputs``) on its own grid.

    Several predictors are an ensemble: their logits are averaged. ``wanted`` keeps only these
    label values. ``inspect`` gets the image as the network sees it before the first window.
    ``threads`` (default: one for each core, few at most) put the result together. ``prepared`` is
    the answer of `open_prepared` where it is known. Raises PackageError when the network's channels
    are not those of the spec, Cancelled when ``cancelled()`` turned true between two windows,
    OutOfMemory when a single window is too much, NotANumber when the network returns none.
    """
    image, grid = prepared or open_prepared(volume, spec.preprocessing)
    inspect(image)
    predictors = [predict] if callable(predict) else list(predict)
    collector = DoubtCollector(spec, grid.geometry)
    labels = np.zeros(volume.geometry.shape, _label_type(spec))
    view = grid.reoriented_view(labels)
    kept = set(spec.channel_labels if wanted is None else wanted)
    dropped = [value for value in spec.channel_labels if value not in kept]

    def finish(z: int, logits: np.ndarray) -> None:
        plane = decide(resize_planes(logits, grid.cropped[1:], grid.output_orders[1:]), spec)
        if dropped:
            plane[np.isin(plane, dropped)] = 0
        view[z] = plane

    plane_bytes = 4 * len(spec.channel_labels) * grid.cropped[1] * grid.cropped[2]
    with Crew(threads, 2 * plane_bytes) as crew:
        planes = predict_planes(image, spec, predictors, progress, cancelled, batch, crew)
        for z, logits in stretch_along_z(_watched(planes, spec, collector), grid):
            crew.submit(finish, z, logits)
    return Segmentation(
        labels,
        volume.geometry,
        {value: c for value, c in collector.confidence().items() if value in kept},
        tuple(place for place in collector.places() if place.label in kept),
    )


def decide(logits: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """Logits (channels, y, x) to label values (y, x), uint8 or uint16."""
    labels = np.zeros(logits.shape[1:], _label_type(spec))
    if spec.head == "softmax":
        # Channel by channel in the cache: argmax across the first axis takes ten times as long.
        best = logits[0].copy()
        labels += labels.dtype.type(spec.channel_labels[0])
        for value, channel in zip(spec.channel_labels[1:], logits[1:], strict=True):
            np.copyto(labels, value, where=channel > best)
            np.maximum(best, channel, out=best)
        return labels
    for value, channel in zip(spec.channel_labels, logits, strict=True):
        np.copyto(labels, value, where=channel > 0)  # sigmoid(x) > 0.5
    return labels


def _label_type(spec: ModelSpec) -> type:
    return np.uint8 if max(spec.channel_labels) < 256 else np.uint16


def predict_planes(
    image: np.ndarray | WorkingImage,
    spec: ModelSpec,
    predictors: Sequence[Predictor],
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    batch: BatchSize | None = None,
    crew: Crew | None = None,
) -> Iterator[np.ndarray]:
    """Yield the logits (channels, y, x) of each plane of the network's grid, in z order.

    ``image`` is (c, z, y, x); only as many planes of it as a window is deep are read at once.
    """
    batch, crew = batch or BatchSize(), crew or Crew()
    missing = [max(p - n, 0) for n, p in zip(image.shape[1:], spec.patch, strict=True)]
    shape = [n + m for n, m in zip(image.shape[1:], missing, strict=True)]
    begin = [m // 2 for m in missing]  # zeros all around where the image is smaller than a window
    starts = [window_starts(n, p, spec.overlap) for n, p in zip(shape, spec.patch, strict=True)]
    total, done = int(np.prod([len(s) for s in starts])), 0
    half = all(getattr(p, "precision", "float32") != "float32" for p in predictors)
    slab = SlabAccumulator(len(spec.channel_labels), shape, spec.patch, starts, crew, half)
    rows, columns = (slice(b, b + n) for b, n in zip(begin[1:], image.shape[2:], strict=True))
    for z, following in zip(starts[0], [*starts[0][1:], shape[0]], strict=True):
        corners = list(product(starts[1], starts[2]))
        read = _padded(image[:, z : z + spec.patch[0]], missing)
        for group, logits in _predict_windows(read, corners, spec, predictors, cancelled, batch):
            for corner, window in zip(group, logits, strict=True):
                slab.add(window, z, *corner)
            del logits, window  # as large as all that is alive; not beside the next ones
            done += len(group)
            if progress is not None:
                progress(done, total)
        for index, plane in enumerate(slab.planes(z, following), z):
            if begin[0] <= index < begin[0] + image.shape[1]:
                yield plane[:, rows, columns]


def stretch_along_z(
    planes: Iterator[np.ndarray], grid: WorkingGrid
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (z, logits (channels, y, x)) for each slice of the cropped source, still of the
    network's size in the plane."""
    along_z = resampler(grid.shape[0], grid.cropped[0], grid.output_orders[0])
    alive: dict[int, np.ndarray] = {}
    z = 0
    for read, plane in enumerate(planes):
        alive[read] = plane
        while z < along_z.new_size and (needed := along_z.sources(z, z + 1))[1] <= read + 1:
            stack = np.stack([alive[source] for source in range(*needed)])
            yield z, along_z.apply(stack, 0, z, z + 1, begin=needed[0])[0]
            z += 1
        if z < along_z.new_size:
            oldest = along_z.sources(z, z + 1)[0]
            alive = {source: plane for source, plane in alive.items() if source >= oldest}


def _watched(planes, spec: ModelSpec, collector: DoubtCollector) -> Iterator[np.ndarray]:
    for z, logits in enumerate(planes):
        collector.add(z, logits, decide(logits, spec))
        yield logits


def _predict_windows(read, corners, spec: ModelSpec, predictors, cancelled, batch: BatchSize):
    """Yield groups of corners (y, x) with their logits (b, channels, *patch)."""
    waiting = []
    for corner in corners:
        rows, columns = (slice(a, a + p) for a, p in zip(corner, spec.patch[1:], strict=True))
        tile = read[:, :, rows, columns]
        if spec.empty_below is not None and tile.max() < spec.empty_below:
            yield [corner], _background(spec)[None]
        else:
            waiting.append((corner, tile))
    while waiting:
        if cancelled is not None and cancelled():
            raise Cancelled("Stopped on request.")
        group = waiting[: batch.size]
        tiles = np.stack([tile for _, tile in group])
        logits = batch.attempt(lambda tiles=tiles: _ensemble(predictors, tiles, spec), len(group))
        if logits is None:
            continue  # out of memory: the same windows again, fewer at once
        del waiting[: len(group)]
        yield [corner for corner, _ in group], logits
        del logits


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
    if total.shape[2:] != tiles.shape[2:]:
        given, returned = (" × ".join(map(str, a.shape[2:])) for a in (tiles, total))
        raise PackageError(
            f"The network returns {returned} voxels for {given}, not as many as it gets; the "
            "package is inconsistent: get it again, or export it anew."
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


def _padded(array: np.ndarray, missing: Sequence[int]) -> np.ndarray:
    """Zeros around (c, z, y, x), half of ``missing`` voxels per axis on each side."""
    if not any(missing):
        return array
    return np.pad(array, [(0, 0), *((m // 2, m - m // 2) for m in missing)])
