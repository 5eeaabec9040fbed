"""The slab of weighted window predictions that is alive during inference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from MIMSegment.Logic.crew import Crew
from MIMSegment.Logic.windows import gaussian_weights, weight_sum

_HALF_PRECISION_ABOVE = 1 << 30  # bytes; sums of a few weighted logits lose nothing that matters


class SlabAccumulator:
    """Sums predictions of windows and hands out finished planes.

    ``shape`` is the whole grid (z, y, x), ``patch`` a window's, ``starts`` where windows begin
    along each axis. Only ``patch[0]`` planes are stored, as a ring: plane z lies at z modulo that.
    ``crew`` does the sums. ``half`` keeps them in float16, which is enough for a network that
    itself calculates in half precision; very large ones always are.
    """

    def __init__(
        self,
        channels: int,
        shape: Sequence[int],
        patch: Sequence[int],
        starts: Sequence[Sequence[int]],
        crew: Crew,
        half: bool = False,
    ):
        self._crew, self._depth = crew, patch[0]
        size = (channels, self._depth, *shape[1:])
        half = half or 4 * np.prod(size, dtype=np.int64) > _HALF_PRECISION_ABOVE
        self._ring = np.zeros(size, np.float16 if half else np.float32)
        z, y, x = (gaussian_weights(p) for p in patch)
        self._weights = z[:, None, None] * y[:, None] * x
        sums = [weight_sum(*item) for item in zip(shape, patch, starts, strict=True)]
        self._sum_z, self._sum_plane = sums[0], sums[1][:, None] * sums[2]

    def add(self, logits: np.ndarray, z: int, y: int, x: int) -> None:
        """Add a window's prediction (channels, *patch) that begins at voxel (z, y, x)."""
        rows, columns = slice(y, y + logits.shape[2]), slice(x, x + logits.shape[3])
        total = self._sum_z[z : z + self._depth, None, None] * self._sum_plane[rows, columns]
        # Shares of 1, not raw weights: those of a corner would vanish in half precision.
        shares = self._weights / total
        for ring, channel in zip(self._ring, logits, strict=True):  # one at a time: less memory
            self._crew.submit(_add_channel, ring[:, rows, columns], channel, shares, z)
        self._crew.wait()

    def planes(self, first: int, stop: int) -> Iterator[np.ndarray]:
        """Yield the mean prediction (channels, y, x) of planes first..stop-1 and forget them."""
        for z in range(first, stop):
            plane = self._ring[:, z % self._depth]
            yield plane.astype(np.float32)
            plane[...] = 0


def _add_channel(ring: np.ndarray, channel: np.ndarray, shares: np.ndarray, z: int) -> None:
    # A plane at a time stays in the processor's cache.
    weighted, total = np.empty((2, *channel.shape[1:]), np.float32)
    for index, (plane, share) in enumerate(zip(channel, shares, strict=True), z):
        sums = ring[index % len(ring)]
        np.multiply(plane, share, out=weighted)
        total[...] = sums
        total += weighted
        sums[...] = total
