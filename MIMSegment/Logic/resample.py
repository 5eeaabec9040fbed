"""Resizing arrays edge to edge by splines, one axis at a time.

The values are those of ``scipy.ndimage.zoom(..., mode="nearest", grid_mode=True)``, which is what
skimage's ``resize`` and so nnU-Net use. A spline is linear in the samples, so along one axis it is
a matrix with a narrow band, and the product with it is many times faster than filtering.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

_BLOCK = 64  # rows of the matrix that are multiplied at once; more would multiply many zeros
_NEGLIGIBLE = 1e-8  # the spline's reach has no end, its weights have
_PAD = 12  # samples of edge that scipy adds before the spline filter, so that both agree


def source_coordinates(size: int, new_size: int) -> np.ndarray:
    """Where each of ``new_size`` voxel centers lies in old voxel indices, edges aligned."""
    return (np.arange(new_size) + 0.5) * (size / new_size) - 0.5


def axis_orders(shape_spacing, new_spacing, order: int, order_z: int, threshold: float):
    """The spline order for each axis by nnU-Net's rule for anisotropic images.

    When the image, or else its new grid, is more than ``threshold`` times as coarse along exactly
    one axis as along the finest, that axis gets ``order_z``. Spacings are (z, y, x) in mm.
    """
    for spacing in (np.asarray(shape_spacing, float), np.asarray(new_spacing, float)):
        if spacing.max() / spacing.min() > threshold:
            # Equal spacings of an oblique image differ in their last digits.
            coarse = np.flatnonzero(np.isclose(spacing, spacing.max(), rtol=1e-9, atol=0))
            if len(coarse) == 1:
                return tuple(order_z if axis == coarse[0] else order for axis in range(3))
            return (order,) * 3
    return (order,) * 3


def resize(array: np.ndarray, shape, orders) -> np.ndarray:
    """Resize the last three axes of ``array`` to ``shape`` with one spline order (0, 1, 3) each.

    Returns float32, or the input's own type where every order is 0. Cubic axes are clipped to the
    range of the input, so that overshoot invents no intensity: of the channel, or where another
    axis has an order of its own, of each slice across that axis, as nnU-Net does.
    """
    growth = [new / old for new, old in zip(shape, array.shape[-3:], strict=True)]
    axes = sorted(range(3), key=growth.__getitem__)  # shrinking axes first
    cubic = [a for a in axes if orders[a] > 1]
    before = [a for a in axes if orders[a] == 0 and growth[a] < 1]  # drops slices: less to do
    after = [a for a in axes if a not in (*before, *cubic)]
    channels = array.reshape(-1, *array.shape[-3:])
    dtype = array.dtype if max(orders) == 0 else np.float32
    out = np.empty((len(channels), *shape), dtype)
    for target, channel in zip(out, channels, strict=True):
        result = channel
        for axis in before:
            result = resampler(result.shape[axis], shape[axis], orders[axis]).apply(result, axis)
        if cubic:
            low, high = (f(result, axis=tuple(cubic), keepdims=True) for f in (np.min, np.max))
            for axis in cubic:
                result = resampler(result.shape[axis], shape[axis], 3).apply(result, axis)
            result = np.clip(result, low, high)
        for axis in after:
            result = resampler(result.shape[axis], shape[axis], orders[axis]).apply(result, axis)
        target[...] = result
    return out.reshape(*array.shape[:-3], *shape)


def resize_planes(planes: np.ndarray, shape, orders) -> np.ndarray:
    """Resize (c, y, x) to ``shape`` (y, x) with one spline order per axis, without clipping."""
    for axis in sorted((0, 1), key=lambda a: shape[a] / planes.shape[a + 1]):
        planes = resampler(planes.shape[axis + 1], shape[axis], orders[axis]).apply(
            planes, axis + 1
        )
    return planes


class Resampler:
    """Resizes one axis from ``size`` to ``new_size`` samples with a spline of ``order`` 0, 1 or 3.

    Made by `resampler`, which keeps the last ones.
    """

    def __init__(self, size: int, new_size: int, order: int):
        self.size, self.new_size, self.order = size, new_size, order
        at = source_coordinates(size, new_size)
        self._nearest = np.clip(np.floor(at + 0.5).astype(int), 0, size - 1)
        if order > 0 and size != new_size:
            matrix = _linear_weights(at, size) if order == 1 else _cubic_weights(at, size)
            matrix[np.abs(matrix) < _NEGLIGIBLE] = 0
            self._matrix = matrix.astype(np.float32)
            self._first = (matrix != 0).argmax(axis=1)
            self._stop = size - (matrix != 0)[:, ::-1].argmax(axis=1)

    def sources(self, first: int, stop: int) -> tuple[int, int]:
        """The range of old samples that new ones ``first`` to ``stop`` - 1 are made of."""
        if self.size == self.new_size:
            return first, stop
        if self.order == 0:
            return int(self._nearest[first]), int(self._nearest[stop - 1]) + 1
        return int(self._first[first:stop].min()), int(self._stop[first:stop].max())

    def apply(
        self, array: np.ndarray, axis: int, first: int = 0, stop: int | None = None, begin: int = 0
    ) -> np.ndarray:
        """New samples ``first`` to ``stop`` - 1 (default: all) along ``axis`` of ``array``.

        ``array`` may hold old samples from ``begin`` on only, as far as `sources` says. Returns
        float32, or with order 0 the array's own type.
        """
        stop = self.new_size if stop is None else stop
        if self.size == self.new_size:
            return array[(slice(None),) * axis + (slice(first - begin, stop - begin),)]
        if self.order == 0:
            return array.take(self._nearest[first:stop] - begin, axis)
        return self._multiply(np.asarray(array, np.float32), axis, first, stop, begin)

    def _multiply(self, array: np.ndarray, axis: int, first: int, stop: int, begin: int):
        shape = array.shape
        out = np.empty((*shape[:axis], stop - first, *shape[axis + 1 :]), np.float32)
        last = axis == array.ndim - 1
        leading = int(np.prod(shape[:axis]))
        source = array.reshape((leading, shape[axis]) if last else (leading, shape[axis], -1))
        target = out.reshape((leading, stop - first) if last else (leading, stop - first, -1))
        for row in range(first, stop, _BLOCK):
            end = min(row + _BLOCK, stop)
            low, high = self.sources(row, end)
            weights = self._matrix[row:end, low:high]
            rows, columns = slice(row - first, end - first), slice(low - begin, high - begin)
            if last:
                np.matmul(source[:, columns], weights.T, out=target[:, rows])
            else:
                np.matmul(weights, source[:, columns], out=target[:, rows])
        return out


@lru_cache(maxsize=16)
def resampler(size: int, new_size: int, order: int) -> Resampler:
    """The `Resampler` for these sizes."""
    return Resampler(size, new_size, order)


def linear_taps(at: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Lower neighbor and the float32 weight of the upper one for linear interpolation."""
    at = np.clip(at, 0, size - 1)
    lower = np.minimum(at.astype(int), max(size - 2, 0))
    return lower, (at - lower).astype(np.float32)


def _linear_weights(at: np.ndarray, size: int) -> np.ndarray:
    lower, weight = linear_taps(at, size)
    matrix, rows = np.zeros((len(at), size)), np.arange(len(at))
    matrix[rows, lower] = 1 - weight
    matrix[rows, np.minimum(lower + 1, size - 1)] += weight
    return matrix


def _cubic_weights(at: np.ndarray, size: int) -> np.ndarray:
    """The cubic spline of every unit impulse, sampled at ``at``."""
    from scipy.ndimage import spline_filter1d

    impulses = np.pad(np.eye(size), ((_PAD, _PAD), (0, 0)), mode="edge")
    splines = spline_filter1d(impulses, 3, 0, np.float64, mode="nearest")
    at = at + _PAD
    lower = np.floor(at).astype(int)
    t = (at - lower)[:, None]
    taps = (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (3 * (1 - t) ** 3 - 6 * (1 - t) ** 2 + 4) / 6,
        t**3 / 6,
    )
    matrix = np.zeros((len(at), size))
    for offset, weight in enumerate(taps, start=-1):
        matrix += weight * splines[np.clip(lower + offset, 0, len(splines) - 1)]
    return matrix
