"""Does a scan look like those that a model knows? Asked by masked image modelling.

A package may carry the network of its pre-training, which restores hidden blocks of a scan from
what is left visible (He et al., "Masked autoencoders are scalable vision learners", CVPR 2022). On
scans like those it has learned from it does so well; on another sequence, another region or a
damaged image it does not. The error on a few crops, against its distribution over scans of the
training data's kind that the network never saw, is one finding with numbers. Where the darker half
of a scan is air, which any network restores, the error in the brighter half says more; so both are
measured, and the one that stands out is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from MIMSegment.Logic.errors import DeviceError
from MIMSegment.Logic.expectations import ReconstructionRange
from MIMSegment.Logic.finding import Finding, Severity
from MIMSegment.Logic.windows import window_starts
from MIMSegment.Logic.working_image import WorkingImage

CROPS = 8
_SEED = 20220411
# The quantiles come from few scans: a new one may lie beyond them by this much of their distance.
_SLACK, _FAR = 0.5, 2.0
_LEAST_SPREAD = 0.02
_BINS = 256

Restore = Callable[[np.ndarray], np.ndarray]
"""(1, c + 1, z, y, x) float32, the last channel 1 where visible, to (1, c, z, y, x)."""


@dataclass(frozen=True)
class ReconstructionError:
    """The share of the variance of hidden voxels that the network did not restore: 0 is perfect,
    1 no better than a constant, more is worse than that. ``total`` over all inputs, ``inputs`` one
    by one; ``tissue`` over all inputs where the first one is bright (Otsu's threshold)."""

    total: float
    inputs: tuple[float, ...]
    tissue: float = 0.0


def measure(
    array: np.ndarray | WorkingImage,
    patch: Sequence[int],
    block: Sequence[int],
    ratio: float,
    restore: Restore,
) -> ReconstructionError:
    """Hide and restore blocks of up to `CROPS` crops of ``array`` (c, z, y, x), as `prepare` gives
    it. Places and masks depend on its shape and values alone."""
    places = _places(array, patch)
    bright = _threshold(array, places, patch)
    whole, tissue = _Sums(len(array)), _Sums(len(array))
    for number, start in enumerate(places):
        image, valid = _crop(array, start, patch)
        visible = hidden_blocks(patch, block, ratio, number)
        tile = np.concatenate([np.where(visible, image, 0), visible[None]])[None]
        restored = restore(tile.astype(np.float32))[0]
        scored = ~visible & valid
        whole.add(image[:, scored], restored[:, scored])
        scored &= image[0] > bright
        tissue.add(image[:, scored], restored[:, scored])
    inputs = tuple(float(e) for e in whole.shares())
    return ReconstructionError(whole.share(), inputs, tissue.share())


class _Sums:
    """Squared errors and variances of voxels (c, n), summed over crops."""

    def __init__(self, channels: int):
        self._missed, self._variance = np.zeros(channels), np.zeros(channels)

    def add(self, truth: np.ndarray, restored: np.ndarray) -> None:
        if truth.size:
            truth = truth.astype(np.float64)
            self._missed += np.square(restored - truth).sum(axis=1)
            self._variance += np.square(truth - truth.mean(axis=1, keepdims=True)).sum(axis=1)

    def shares(self) -> np.ndarray:
        return self._missed / np.maximum(self._variance, 1e-12)

    def share(self) -> float:
        return float(self._missed.sum() / max(self._variance.sum(), 1e-12))


def hidden_blocks(
    patch: Sequence[int], block: Sequence[int], ratio: float, number: int
) -> np.ndarray:
    """Mask number ``number``: bool ``patch``, True = visible, ``ratio`` of the blocks hidden."""
    grid = [-(-size // edge) for size, edge in zip(patch, block, strict=True)]
    order = np.random.default_rng([_SEED, number]).permutation(int(np.prod(grid)))
    visible = (order >= round(ratio * order.size)).reshape(grid)
    for axis, edge in enumerate(block):
        visible = visible.repeat(edge, axis=axis)
    return visible[tuple(slice(size) for size in patch)]


def judge(error: ReconstructionError, known: ReconstructionRange, inputs: Sequence[str]) -> Finding:
    """The finding for a scan with this error; ``inputs`` names its channels."""
    excess = _excess(error.total, known.errors)
    in_tissue = _excess(error.tissue, known.tissue_errors) if known.tissue_errors else -np.inf
    worst = _worst(error, known, inputs)
    numbers = _numbers(error, known)
    if max(excess, in_tissue) <= _SLACK:
        message = f"The scan looks like those that the model knows: {numbers}."
        return Finding("reconstruction", Severity.NOTE, message)
    if in_tissue > excess:
        numbers, worst = _tissue_numbers(error, known), ""
    far = max(excess, in_tissue) > _FAR
    return Finding(
        "reconstruction",
        Severity.ALERT if far else Severity.WARNING,
        f"The scan differs {'greatly ' if far else ''}from those that the model knows: "
        f"{numbers}{worst}; check the inputs, and expect errors anywhere.",
    )


def _excess(value: float, quantiles: Sequence[float]) -> float:
    """How far beyond the highest quantile, in distances of the outer ones."""
    low, _, high = quantiles
    return (value - high) / max(high - low, _LEAST_SPREAD)


def _numbers(error: ReconstructionError, known: ReconstructionRange) -> str:
    low, _, high = known.errors
    return (
        f"{_percent(error.total)} of the hidden test parts were not restored ({_percent(low)} to "
        f"{_percent(high)} in {known.images} scans like its training data)"
    )


def _tissue_numbers(error: ReconstructionError, known: ReconstructionRange) -> str:
    low, _, high = known.tissue_errors
    return (
        f"tissue in the hidden test parts was restored with {_times(error.tissue)} times its "
        f"variance as error ({_times(low)} to {_times(high)} in {known.images} scans like its "
        "training data)"
    )


def not_compared(error: DeviceError) -> Finding:
    """The finding when the network could not be run."""
    message = f"The scan could not be compared with those that the model knows ({error})"
    return Finding("reconstruction", Severity.NOTE, message)


def _worst(error: ReconstructionError, known: ReconstructionRange, inputs: Sequence[str]) -> str:
    """Which input stands out, if there are several and one does."""
    if len(inputs) < 2 or len(known.input_errors) != len(inputs):
        return ""
    beyond = [
        (value - median) / max(high - median, _LEAST_SPREAD)
        for value, (_, median, high) in zip(error.inputs, known.input_errors, strict=True)
    ]
    worst = int(np.argmax(beyond))
    return f" (above all of {inputs[worst]}, {_percent(error.inputs[worst])})"


def _places(array: np.ndarray | WorkingImage, patch: Sequence[int]) -> list[tuple[int, ...]]:
    """First indices of the crops: evenly among the half of all windows with most contrast."""
    starts = [window_starts(n, p, 0.0) for n, p in zip(array.shape[1:], patch, strict=True)]
    windows = list(product(*starts))
    contrast = [
        float(array[(0, *(slice(s, s + n, 2) for s, n in zip(w, patch, strict=True)))].std())
        for w in windows
    ]
    order = np.argsort(contrast, kind="stable")[::-1]
    kept = sorted(order[: max(CROPS, (len(order) + 1) // 2)])
    chosen = np.unique(np.linspace(0, len(kept) - 1, min(CROPS, len(kept))).round().astype(int))
    return [windows[kept[i]] for i in chosen]


def _threshold(array: np.ndarray | WorkingImage, places, patch) -> float:
    """What separates the darker from the brighter voxels of the first input (Otsu, IEEE Trans. SMC
    9, 1979), seen in the crops."""
    crops = [
        np.ravel(array[(0, *(slice(s, s + n, 2) for s, n in zip(place, patch, strict=True)))])
        for place in places
    ]
    counts, edges = np.histogram(np.concatenate(crops), _BINS)
    centers = (edges[:-1] + edges[1:]) / 2
    below, mass = np.cumsum(counts)[:-1], np.cumsum(counts * centers)
    above = counts.sum() - below
    between = (mass[-1] * below / counts.sum() - mass[:-1]) ** 2 / np.maximum(below * above, 1)
    return float(edges[1 + int(between.argmax())])


def _crop(array: np.ndarray | WorkingImage, start, patch) -> tuple[np.ndarray, np.ndarray]:
    """A crop (c, *patch), 0 beyond the image, and where (*patch) there is an image."""
    image, valid = np.zeros((len(array), *patch), np.float32), np.zeros(patch, bool)
    found = array[(slice(None), *(slice(s, s + n) for s, n in zip(start, patch, strict=True)))]
    inside = tuple(slice(n) for n in found.shape[1:])
    image[(slice(None), *inside)] = found
    valid[inside] = True
    return image, valid


def _percent(share: float) -> str:
    """More than everything has no meaning as a figure: nearly empty images reach any."""
    return "over 100 %" if round(100 * share) > 100 else f"{100 * share:.0f} %"


def _times(ratio: float) -> str:
    return "over 10" if ratio > 10 else f"{ratio:.2f}"
