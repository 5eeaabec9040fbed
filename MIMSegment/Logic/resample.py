"""Resizing arrays edge to edge by splines, one axis at a time.

The values are those of ``scipy.ndimage.zoom(..., mode="nearest", grid_mode=True)``, which is what
skimage's ``resize`` and so nnU-Net use; one axis at a time costs 4 taps per axis instead of 64 in
all, and lets each axis have its own order.
"""

from __future__ import annotations

import numpy as np

_CHUNK = 32  # lines of voxels along the other axis that are resized at once
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
    if max(orders) == 0:
        out = np.empty((len(channels), *shape), array.dtype)
    else:
        out = np.empty((len(channels), *shape), np.float32)
    for target, channel in zip(out, channels, strict=True):
        result = channel
        for axis in before:
            result = _resize_axis(result, axis, shape[axis], orders[axis])
        if cubic:
            low, high = (f(result, axis=tuple(cubic), keepdims=True) for f in (np.min, np.max))
            for axis in cubic:
                result = _resize_axis(result, axis, shape[axis], orders[axis])
            result = np.clip(result, low, high)
        for axis in after:
            result = _resize_axis(result, axis, shape[axis], orders[axis])
        target[...] = result
    return out.reshape(*array.shape[:-3], *shape)


def resize_planes(planes: np.ndarray, shape, orders) -> np.ndarray:
    """Resize (c, y, x) to ``shape`` (y, x), order 0 or 1 per axis, all channels at once."""
    for axis in sorted((0, 1), key=lambda a: shape[a] / planes.shape[a + 1]):
        old, size, along = planes.shape[axis + 1], shape[axis], axis + 1
        if size == old:
            continue
        at = source_coordinates(old, size)
        if orders[axis] == 0:
            planes = planes.take(np.clip(np.floor(at + 0.5).astype(int), 0, old - 1), along)
            continue
        lower, weight = linear_taps(at, old)
        weight = weight[:, None] if axis == 0 else weight
        left = planes.take(lower, along)
        right = planes.take(np.minimum(lower + 1, old - 1), along)
        right -= left
        right *= weight
        planes = left + right
    return planes


def _resize_axis(array: np.ndarray, axis: int, size: int, order: int) -> np.ndarray:
    old = array.shape[axis]
    if size == old:
        return array
    at = source_coordinates(old, size)
    if order == 0:
        return array.take(np.clip(np.floor(at + 0.5).astype(int), 0, old - 1), axis)
    out = np.empty([size if a == axis else n for a, n in enumerate(array.shape)], np.float32)
    other = 1 if axis == 0 else 0
    for first in range(0, array.shape[other], _CHUNK):  # lines are independent: less memory
        part = tuple(slice(first, first + _CHUNK) if a == other else slice(None) for a in range(3))
        lines = np.asarray(array[part], np.float32)
        out[part] = _linear(lines, axis, at) if order == 1 else _cubic(lines, axis, at)
    return out


def _linear(array: np.ndarray, axis: int, at: np.ndarray) -> np.ndarray:
    old = array.shape[axis]
    lower, weight = linear_taps(at, old)
    weight = weight.reshape([-1 if a == axis else 1 for a in range(3)])
    left = array.take(lower, axis)
    right = array.take(np.minimum(lower + 1, old - 1), axis)
    right -= left
    right *= weight
    right += left
    return right


def linear_taps(at: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Lower neighbor and the float32 weight of the upper one for linear interpolation."""
    at = np.clip(at, 0, size - 1)
    lower = np.minimum(at.astype(int), max(size - 2, 0))
    return lower, (at - lower).astype(np.float32)


def _cubic(array: np.ndarray, axis: int, at: np.ndarray) -> np.ndarray:
    from scipy.ndimage import spline_filter1d
    from scipy.sparse import csr_array

    pad = [(_PAD, _PAD) if a == axis else (0, 0) for a in range(3)]
    spline = spline_filter1d(np.pad(array, pad, mode="edge"), 3, axis, np.float32, mode="nearest")
    at = at + _PAD
    lower = np.floor(at).astype(int)
    t = at - lower
    weights = np.stack(
        [
            (1 - t) ** 3 / 6,
            (3 * t**3 - 6 * t**2 + 4) / 6,
            (3 * (1 - t) ** 3 - 6 * (1 - t) ** 2 + 4) / 6,
            t**3 / 6,
        ],
        axis=1,
    ).astype(np.float32)
    columns = np.clip(lower[:, None] + np.arange(-1, 3), 0, spline.shape[axis] - 1)
    rows = np.repeat(np.arange(len(at)), 4)
    taps = csr_array(
        (weights.ravel(), (rows, columns.ravel())), shape=(len(at), spline.shape[axis])
    )
    moved = np.moveaxis(spline, axis, 0)
    flat = taps @ moved.reshape(moved.shape[0], -1)
    return np.moveaxis(flat.reshape(len(at), *moved.shape[1:]), 0, axis)
