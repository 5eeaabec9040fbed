"""The network's input, calculated where it is read, so that no more than a slab of it exists."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from MIMSegment.Logic.intensity import Intensity, extremes
from MIMSegment.Logic.resample import resampler, resize

_SLICES = 16  # of the source that are resized in their plane at once


class WorkingImage:
    """Reads like a float32 array (c, z, y, x), by slices along z: ``image[:, 10:20]``.

    ``array`` is the source (c, z, y, x) of any type. ``intensities`` and ``masks`` have one entry
    for each channel, a mask (z, y, x) where the intensity is masked, else None. ``shape`` and
    ``orders`` (z, y, x) are as in `resample.resize`, whose values these are. Cheap when read from
    the front to the back with overlaps. What is returned must not be changed.
    """

    def __init__(
        self,
        array: np.ndarray,
        intensities: Sequence[Intensity],
        masks: Sequence[np.ndarray | None],
        shape: tuple[int, int, int],
        orders: tuple[int, int, int],
    ):
        self.shape = (len(array), *shape)
        self._channels = [
            _Channel(channel, intensity, mask, shape, orders)
            for channel, intensity, mask in zip(array, intensities, masks, strict=True)
        ]
        self._first, self._last = 0, np.empty((len(array), 0, *shape[1:]), np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: tuple) -> np.ndarray:
        channels, planes, *rest = index
        first, stop, step = planes.indices(self.shape[1])
        read = self._planes(first, max(first, stop))
        return read[(channels, slice(None, None, step), *rest)]

    def _planes(self, first: int, stop: int) -> np.ndarray:
        """All channels of planes ``first`` to ``stop`` - 1, of which those read last are known."""
        begin, end = self._first, self._first + self._last.shape[1]
        if not begin <= first <= stop <= end:
            kept = self._last[:, first - begin :] if begin <= first <= end else self._last[:, :0]
            new = [channel.planes(first + kept.shape[1], stop) for channel in self._channels]
            self._first, self._last = first, np.concatenate([kept, np.stack(new)], axis=1)
        return self._last[:, first - self._first : stop - self._first]


class _Channel:
    def __init__(self, source: np.ndarray, intensity: Intensity, mask, shape, orders):
        self._source, self._intensity, self._mask = source, intensity, mask
        self._shape, self._orders = shape, orders
        self._z = resampler(len(source), shape[0], orders[0])
        self._rows: dict[int, np.ndarray] = {}  # source slices, resized in their plane
        self._range = (-np.inf, np.inf)
        self._whole = None
        if orders[0] > 1 and min(orders) > 1:
            self._range = self._extremes()
        elif orders[0] > 1:
            # A rule for images that are coarse along y or x: its limits span the whole depth.
            block = intensity.apply(source, mask)
            self._whole = resize(block, shape, orders)

    def planes(self, first: int, stop: int) -> np.ndarray:
        """Planes (z, y, x) ``first`` to ``stop`` - 1."""
        if self._whole is not None:
            return self._whole[first:stop]
        if first >= stop:
            return np.empty((0, *self._shape[1:]), np.float32)
        low, high = self._z.sources(first, stop)
        self._resize_slices(low, high)
        stack = np.stack([self._rows[z] for z in range(low, high)])
        return np.clip(self._z.apply(stack, 0, first, stop, begin=low), *self._range)

    def _resize_slices(self, low: int, high: int) -> None:
        self._rows = {z: plane for z, plane in self._rows.items() if low <= z < high}
        missing = [z for z in range(low, high) if z not in self._rows]
        for start in range(0, len(missing), _SLICES):
            chosen = missing[start : start + _SLICES]
            part = slice(chosen[0], chosen[-1] + 1)
            mask = None if self._mask is None else self._mask[part]
            block = self._intensity.apply(self._source[part], mask)
            # Where z has an order of its own, each slice is clipped to its own range.
            orders = (0, *self._orders[1:])
            resized = self._in_plane(block, orders)
            self._rows.update(zip(range(part.start, part.stop), resized, strict=True))

    def _in_plane(self, block: np.ndarray, orders) -> np.ndarray:
        shape = (len(block), *self._shape[1:])
        if self._orders[0] <= 1:
            return resize(block, shape, orders)
        for axis in sorted((1, 2), key=lambda a: shape[a] / block.shape[a]):
            block = resampler(block.shape[axis], shape[axis], 3).apply(block, axis)
        return block

    def _extremes(self) -> tuple[float, float]:
        """The range of the normalized channel; normalization is monotonic."""
        mask = self._mask if self._intensity.masked else None
        raw = np.array(extremes(self._source, mask))
        low, high = self._intensity.apply(raw, np.ones(2, bool))
        return (min(low, 0), max(high, 0)) if mask is not None and not mask.all() else (low, high)
