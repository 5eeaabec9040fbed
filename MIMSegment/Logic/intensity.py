"""Normalizing intensities: statistics of a whole channel, gathered slice by slice, then applied to
any part of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from MIMSegment.Logic.spec import Normalization

_SLICES = 16  # that are converted to floating point at once
_SMALLEST_SCALE = 1e-8


@dataclass(frozen=True)
class Intensity:
    """(value clipped to ``low``..``high`` - ``offset``) / ``scale``, and 0 outside of a mask if
    ``masked``. Every scheme of `spec.Normalization` comes down to this."""

    offset: float = 0.0
    scale: float = 1.0
    low: float | None = None
    high: float | None = None
    masked: bool = False

    def apply(self, block: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """``block`` normalized, float32; ``mask`` is of the same shape, and needed if masked."""
        image = block.astype(np.float32)
        if self.low is not None:
            np.clip(image, self.low, self.high, out=image)
        image -= np.float32(self.offset)
        image /= np.float32(self.scale)
        return np.where(mask, image, np.float32(0)) if self.masked else image


def fit_intensity(channel: np.ndarray, plan: Normalization, mask: np.ndarray | None) -> Intensity:
    """What ``plan`` means for a channel (z, y, x); ``mask`` is the region of its statistics."""
    if plan.scheme == "ct":
        return Intensity(plan.mean, max(plan.std, _SMALLEST_SCALE), plan.lower, plan.upper)
    if plan.scheme == "rescale_to_01":
        low, high = extremes(channel)
        return Intensity(low, max(high - low, _SMALLEST_SCALE))
    if plan.scheme == "rgb_to_01":
        return Intensity(scale=255)
    if plan.scheme == "zscore":
        region = mask if plan.nonzero else None
        limits = (None, None)
        if plan.percentiles is not None:
            values = channel if region is None else channel[region]
            limits = tuple(map(float, np.percentile(values, plan.percentiles)))
        mean, std = _moments(channel, region, *limits)
        return Intensity(mean, max(std, _SMALLEST_SCALE), *limits, masked=plan.nonzero)
    return Intensity()


def extremes(channel: np.ndarray, mask: np.ndarray | None = None) -> tuple[float, float]:
    """Smallest and largest value, within ``mask`` if there is one."""
    parts = list(_regions(channel, mask))
    return float(min(p.min() for p in parts)), float(max(p.max() for p in parts))


def _moments(channel, mask, low: float | None, high: float | None) -> tuple[float, float]:
    """Mean and standard deviation in double precision, in two passes."""

    def parts() -> Iterator[np.ndarray]:
        for part in _regions(channel, mask):
            part = part.astype(np.float32)
            yield part if low is None else np.clip(part, low, high)

    count, total, squares = 0, 0.0, 0.0
    for part in parts():
        count, total = count + part.size, total + float(part.sum(dtype=np.float64))
    mean = total / count
    for part in parts():
        deviation = part - np.float64(mean)
        squares += float(np.vdot(deviation, deviation))
    return mean, float(np.sqrt(squares / count))


def _regions(channel: np.ndarray, mask: np.ndarray | None) -> Iterator[np.ndarray]:
    """The values of some slices at a time, or of the mask in them."""
    for first in range(0, len(channel), _SLICES):
        block = channel[first : first + _SLICES]
        block = block if mask is None else block[mask[first : first + _SLICES]]
        if block.size:
            yield block
