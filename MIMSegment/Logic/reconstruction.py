"""Does a scan look like those that a model knows? Asked by masked image modelling.

A package may carry the network of its pre-training, which restores hidden blocks of a scan from
what is left visible (He et al., "Masked autoencoders are scalable vision learners", CVPR 2022). On
scans like those it has learned from it does so well; on another sequence, another region or a
damaged image it does not. The error on a few crops, against its distribution over scans of the
training data's kind that the network never saw, is one finding with numbers.
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

Restore = Callable[[np.ndarray], np.ndarray]
"""(1, c + 1, z, y, x) float32, the last channel 1 where visible, to (1, c, z, y, x)."""


@dataclass(frozen=True)
class ReconstructionError:
    """The share of the variance of hidden voxels that the network did not restore: 0 is perfect,
    1 no better than a constant, more is worse than that. ``total`` over all inputs, ``inputs`` one
    by one."""

    total: float
    inputs: tuple[float, ...]


def measure(
    array: np.ndarray | WorkingImage,
    patch: Sequence[int],
    block: Sequence[int],
    ratio: float,
    restore: Restore,
) -> ReconstructionError:
    """Hide and restore blocks of up to `CROPS` crops of ``array`` (c, z, y, x), as `prepare` gives
    it. Places and masks depend on its shape and values alone."""
    missed, variance = np.zeros(len(array)), np.zeros(len(array))
    for number, start in enumerate(_places(array, patch)):
        image, valid = _crop(array, start, patch)
        visible = hidden_blocks(patch, block, ratio, number)
        tile = np.concatenate([np.where(visible, image, 0), visible[None]])[None]
        restored = restore(tile.astype(np.float32))[0]
        scored = ~visible & valid
        if not scored.any():
            continue
        truth = image[:, scored].astype(np.float64)
        missed += np.square(restored[:, scored] - truth).sum(axis=1)
        variance += np.square(truth - truth.mean(axis=1, keepdims=True)).sum(axis=1)
    inputs = missed / np.maximum(variance, 1e-12)
    total = missed.sum() / max(variance.sum(), 1e-12)
    return ReconstructionError(float(total), tuple(float(e) for e in inputs))


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
    low, _, high = known.errors
    numbers = (
        f"of what was hidden from the model's reconstruction network {_percent(error.total)} could "
        f"not be restored, {_percent(low)} to {_percent(high)} for {known.images} scans of the "
        "kind that it learned from"
    )
    spread = max(high - low, _LEAST_SPREAD)
    if error.total <= high + _SLACK * spread:
        message = f"The scan looks like those that the model knows: {numbers}."
        return Finding("reconstruction", Severity.NOTE, message)
    far = error.total > high + _FAR * spread
    unlike = "does not look" if far else "looks little"
    worst = _worst(error, known, inputs)
    return Finding(
        "reconstruction",
        Severity.ALERT if far else Severity.WARNING,
        f"The scan {unlike} like those that the model knows: {numbers}{worst}; check the inputs, "
        "and expect errors anywhere.",
    )


def not_compared(error: DeviceError) -> Finding:
    """The finding when the network could not be run."""
    message = f"The scan could not be compared with those that the model knows ({error})"
    return Finding("reconstruction", Severity.NOTE, message)


def _worst(error: ReconstructionError, known: ReconstructionRange, inputs: Sequence[str]) -> str:
    """Which input stands out, if there are several and one does."""
    if len(inputs) < 2 or len(known.input_errors) != len(inputs):
        return ""
    excess = [
        (value - median) / max(high - median, _LEAST_SPREAD)
        for value, (_, median, high) in zip(error.inputs, known.input_errors, strict=True)
    ]
    worst = int(np.argmax(excess))
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


def _crop(array: np.ndarray | WorkingImage, start, patch) -> tuple[np.ndarray, np.ndarray]:
    """A crop (c, *patch), 0 beyond the image, and where (*patch) there is an image."""
    image, valid = np.zeros((len(array), *patch), np.float32), np.zeros(patch, bool)
    found = array[(slice(None), *(slice(s, s + n) for s, n in zip(start, patch, strict=True)))]
    inside = tuple(slice(n) for n in found.shape[1:])
    image[(slice(None), *inside)] = found
    valid[inside] = True
    return image, valid


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
