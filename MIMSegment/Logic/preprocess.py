"""From an image to the network's grid and back: the one implementation that training uses too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from MIMSegment.Logic.errors import PackageError
from MIMSegment.Logic.intensity import fit_intensity
from MIMSegment.Logic.phrases import counted
from MIMSegment.Logic.resample import axis_orders, resize
from MIMSegment.Logic.spec import Normalization, Preprocessing
from MIMSegment.Logic.volume import Geometry, Volume, axes_to, permute, permuted
from MIMSegment.Logic.working_image import WorkingImage

_SLICES = 16  # looked at once, so that no temporary array is as large as the image


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
    image, grid = open_prepared(volume, plan)
    array = np.empty(image.shape, np.float32)
    for first in range(0, grid.shape[0], _SLICES):
        array[:, first : first + _SLICES] = image[:, first : first + _SLICES]
    return array, grid


def open_prepared(volume: Volume, plan: Preprocessing) -> tuple[WorkingImage, WorkingGrid]:
    """`prepare` without its array: the image is calculated where it is read."""
    if volume.array.shape[0] != len(plan.normalization):
        raise PackageError(
            f"{volume.source or 'The image'} has {counted(len(volume.array), 'channel')}, the "
            f"model needs {len(plan.normalization)}; give one image per model input."
        )
    order, flips = reorientation(volume.geometry, plan)
    array = permute(volume.array, order, flips)
    geometry = permuted(volume.geometry, order, flips)
    start = (0, 0, 0)
    if plan.crop_to_nonzero:
        start, stop = nonzero_box(array)
        array = array[(slice(None), *(slice(a, b) for a, b in zip(start, stop, strict=True)))]
        geometry = geometry.cropped(start, array.shape[1:])
    masks = _masks(array, plan)
    shape = working_shape(geometry, plan)
    target = geometry.resized(shape)
    # The rule asks for the planned spacing: the grid's own differs by the rounding of its shape.
    planned = (w or have for w, have in zip(plan.spacing, geometry.spacing, strict=True))
    rule = (geometry.spacing, tuple(planned))
    orders = axis_orders(*rule, plan.image_order, plan.image_order_z, plan.anisotropy)
    intensities = list(map(fit_intensity, array, plan.normalization, masks))
    image = WorkingImage(array, intensities, masks, shape, orders)
    back = axis_orders(*reversed(rule), plan.output_order, plan.output_order_z, plan.anisotropy)
    return image, WorkingGrid(volume.geometry, order, flips, start, array.shape[1:], target, back)


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


def normalize(channel: np.ndarray, plan: Normalization) -> np.ndarray:
    """One channel (z, y, x) normalized by its own statistics, as float32."""
    mask = nonzero_mask(channel[None]) if plan.nonzero else None
    return fit_intensity(channel, plan, mask).apply(channel, mask)


def nonzero_mask(array: np.ndarray) -> np.ndarray:
    """Where any channel of (c, z, y, x) is not 0, holes filled; everything if all is 0."""
    from scipy.ndimage import binary_fill_holes

    mask = (array != 0).any(axis=0)
    if not mask.all():
        mask = binary_fill_holes(mask)
    return mask if mask.any() else np.ones_like(mask)


def _masks(array: np.ndarray, plan: Preprocessing) -> list[np.ndarray | None]:
    """The non-zero region for each channel that needs it: of all channels if the image is cropped
    to that, else of its own."""
    wanted = [n.nonzero for n in plan.normalization]
    if plan.crop_to_nonzero and any(wanted):
        shared = nonzero_mask(array)
        return [shared if w else None for w in wanted]
    return [nonzero_mask(c[None]) if w else None for c, w in zip(array, wanted, strict=True)]


def nonzero_box(array: np.ndarray) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """First index and one past the last, per axis, of what is not 0 in (c, z, y, x)."""
    hits = [np.zeros(n, bool) for n in array.shape[1:]]
    for first in range(0, array.shape[1], _SLICES):
        block = (array[:, first : first + _SLICES] != 0).any(axis=0)
        hits[0][first : first + _SLICES] = block.any(axis=(1, 2))
        hits[1] |= block.any(axis=(0, 2))
        hits[2] |= block.any(axis=(0, 1))
    if not hits[0].any():
        return (0, 0, 0), array.shape[1:]
    bounds = [np.flatnonzero(hit) for hit in hits]
    return tuple(int(b[0]) for b in bounds), tuple(int(b[-1]) + 1 for b in bounds)
