"""How the gray values of an image are distributed, in a few numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PERCENTILES = (0.5, 50.0, 99.5)
BINS = 16
_SAMPLES = 300_000  # voxels; more change no digit that anyone reads


@dataclass(frozen=True)
class GrayValues:
    """``low``, ``median`` and ``high`` are the percentiles 0.5, 50 and 99.5.

    ``profile`` has the share of voxels in 16 equal bins between low and high, values beyond them
    counted in the outer bins: it does not depend on the scale of an MR image. Empty for a constant
    image.
    """

    low: float
    median: float
    high: float
    profile: tuple[float, ...]

    @property
    def constant(self) -> bool:
        """Whether (nearly) all voxels have one value."""
        return not self.profile


def describe(channel: np.ndarray) -> GrayValues:
    """Describe one channel (z, y, x) by a regular sample of its voxels."""
    step = max(1, round((channel.size / _SAMPLES) ** (1 / 3)))
    sample = np.asarray(channel[::step, ::step, ::step], np.float32).ravel()
    low, median, high = (float(p) for p in np.percentile(sample, PERCENTILES))
    if not high > low:  # a small bright thing on nothing may hide between the samples
        values = np.asarray(channel, np.float32)
        low, high = float(values.min()), float(values.max())
    if not high > low:
        return GrayValues(low, median, high, ())
    bins = np.clip((sample - low) / (high - low) * BINS, 0, BINS - 1).astype(int)
    shares = np.bincount(bins, minlength=BINS) / sample.size
    return GrayValues(low, median, high, tuple(float(s) for s in shares))


def profile_distance(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Share of voxels (0..1) that would have to change their bin to make the profiles equal."""
    return float(np.abs(np.subtract(one, other)).sum() / 2)
