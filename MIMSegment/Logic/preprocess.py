"""From an image to the network's grid and back: the one implementation that training uses too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from MIMSegment.Logic.errors import PackageError
from MIMSegment.Logic.resample import axis_orders, resize
from MIMSegment.Logic.spec import Normalization, Preprocessing
from MIMSegment.Logic.volume import Geometry, Volume, axes_to, permute, permuted


@dataclass(frozen=True)
class WorkingGrid:
    """How a network's grid lies in the source image, so that results can be put back.

    ``order`` and ``flips`` are `volume.axes_to`'s answer (transposition included); ``start`` and
    ``cropped`` the block (z, y, x) kept of the reoriented image; ``geometry`` the network's grid.
    """

    source: Geometry
    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    start: tuple[int, int, int]
    cropped: tuple[int, int, int]
    geometry: Geometry
    output_orders: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The network's grid (z, y, x)."""
        return self.geometry.shape

    def reoriented_view(self, array: np.ndarray) -> np.ndarray:
        """The block of a source-grid ``array`` (z, y, x) that this grid covers, as a view."""
        view = permute(array, self.order, self.flips)
        return view[tuple(slice(s, s + n) for s, n in zip(self.start, self.cropped, strict=True))]


def prepare(volume: Volume, plan: Preprocessing) -> tuple[np.ndarray, WorkingGrid]:
    """Bring ``volume`` to the network's grid.

    Returns a float32 array (c, z, y, x) and the grid it lies on. Raises PackageError when the
    number of channels is not the plan's.
    """
    if volume.array.shape[0] != len(plan.normalization):
        raise PackageError(
            f"{volume.source or 'The image'} has {volume.array.shape[0]} channel(s), the model "
            f"needs {len(plan.normalization)}; give one image per model input."
        )
    order, flips = reorientation(volume.geometry, plan)
    array = permute(volume.array, order, flips)
    geometry = permuted(volume.geometry, order, flips)
    start, mask = (0, 0, 0), None
    if plan.crop_to_nonzero:
        mask = nonzero_mask(array)
        start, stop = bounding_box(mask)
        block = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        array, mask = array[(slice(None), *block)], mask[block]
        geometry = geometry.cropped(start, array.shape[1:])
    shape = working_shape(geometry, plan)
    target = geometry.resized(shape)
    # The rule asks for the planned spacing: the grid's own differs by the rounding of its shape.
    planned = (w or have for w, have in zip(plan.spacing, geometry.spacing, strict=True))
    rule = (geometry.spacing, tuple(planned))
    orders = axis_orders(*rule, plan.image_order, plan.image_order_z, plan.anisotropy)
    result = np.empty((len(array), *shape), np.float32)
    for channel, normalization, out in zip(array, plan.normalization, result, strict=True):
        out[...] = resize(normalize(channel, normalization, mask), shape, orders)
    back = axis_orders(*reversed(rule), plan.output_order, plan.output_order_z, plan.anisotropy)
    grid = WorkingGrid(volume.geometry, order, flips, start, array.shape[1:], target, back)
    return result, grid


def prepare_labels(labels: np.ndarray, grid: WorkingGrid) -> np.ndarray:
    """Bring a label array (z, y, x) of the source grid to the network's grid, nearest neighbor."""
    return np.ascontiguousarray(resize(grid.reoriented_view(labels), grid.shape, (0, 0, 0)))


def reorientation(geometry: Geometry, plan: Preprocessing):
    """Axis order and flips (see `volume.axes_to`) with the plan's transposition on top."""
    if plan.orientation is None:
        order, flips = (0, 1, 2), (False, False, False)
    else:
        order, flips = axes_to(geometry, plan.orientation)
    return tuple(order[t] for t in plan.transpose), tuple(flips[t] for t in plan.transpose)


def working_shape(geometry: Geometry, plan: Preprocessing) -> tuple[int, int, int]:
    """Voxels (z, y, x) of the network's grid: the same box at the plan's spacing, rounded."""
    return tuple(
        n if want is None else max(1, int(np.round(have / want * n)))
        for n, have, want in zip(geometry.shape, geometry.spacing, plan.spacing, strict=True)
    )


def normalize(channel: np.ndarray, plan: Normalization, mask: np.ndarray | None) -> np.ndarray:
    """Normalize one channel (z, y, x) to float32; ``mask`` is the non-zero region where known."""
    image = channel.astype(np.float32)
    if plan.scheme == "zscore":
        return _zscore(image, plan, mask)
    if plan.scheme == "ct":
        np.clip(image, plan.lower, plan.upper, out=image)
        image -= np.float32(plan.mean)
        image /= np.float32(max(plan.std, 1e-8))
    elif plan.scheme == "rescale_to_01":
        image -= image.min()
        image /= max(float(image.max()), 1e-8)
    elif plan.scheme == "rgb_to_01":
        image /= np.float32(255)
    return image


def _zscore(image: np.ndarray, plan: Normalization, mask: np.ndarray | None) -> np.ndarray:
    if plan.nonzero and mask is None:
        mask = nonzero_mask(image[None])
    region = image[mask] if plan.nonzero else image
    if plan.percentiles is not None:
        low, high = np.percentile(region, plan.percentiles)
        np.clip(image, low, high, out=image)
        region = image[mask] if plan.nonzero else image
    mean, std = float(region.mean(dtype=np.float64)), float(region.std(dtype=np.float64))
    normalized = (image - np.float32(mean)) / np.float32(max(std, 1e-8))
    return np.where(mask, normalized, np.float32(0)) if plan.nonzero else normalized


def nonzero_mask(array: np.ndarray) -> np.ndarray:
    """Where any channel of (c, z, y, x) is not 0, holes filled; everything if all is 0."""
    from scipy.ndimage import binary_fill_holes

    mask = binary_fill_holes((array != 0).any(axis=0))
    return mask if mask.any() else np.ones_like(mask)


def bounding_box(mask: np.ndarray) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """First index and one past the last of the True voxels of (z, y, x), per axis."""
    bounds = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        bounds.append((int(hit[0]), int(hit[-1]) + 1))
    return tuple(b[0] for b in bounds), tuple(b[1] for b in bounds)
