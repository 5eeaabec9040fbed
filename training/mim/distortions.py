"""Distortions of whole batches of crops, for pre-training by undoing them.

What is drawn for a sample as a whole comes from the host's generator, what fills tensors from the
device's; nothing is read back.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mim.device import Generators

_KNOTS = 128  # points of an intensity curve
_BOXES = 5
_INSIDE, _AROUND = (1 / 6, 1 / 3), (3 / 7, 4 / 7)  # edges of boxes, fractions of the crop's


def for_samples(values: Tensor, images: Tensor) -> Tensor:
    """Values (b,) of samples, on the host, shaped and brought to where ``images`` are."""
    return values.view(-1, *(1 for _ in images.shape[1:])).to(images.device, non_blocking=True)


def intensity_curves(images: Tensor, generators: Generators) -> Tensor:
    """Pass each sample's intensities through a random monotonic cubic Bézier curve.

    Between the sample's minimum and maximum; half of the curves fall (inverted contrast).
    """
    count = len(images)
    middle = torch.rand(count, 2, 2, generator=generators.host).sort(1).values
    ends = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).expand(count, 2, 2)
    points = torch.stack((ends[:, 0], middle[:, 0], middle[:, 1], ends[:, 1]), 1)
    t = torch.linspace(0, 1, _KNOTS)[:, None]
    weights = torch.cat(((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3), 1)
    curve = weights @ points  # (count, knots, x and y)
    falls = torch.rand(count, 1, generator=generators.host) < 0.5
    x, y = curve[..., 0].contiguous(), torch.where(falls, 1 - curve[..., 1], curve[..., 1])
    x, y = (points.to(images.device, non_blocking=True) for points in (x, y))
    return _through(images, x, y)


def shuffled_windows(images: Tensor, generators: Generators) -> Tensor:
    """Permute the voxels inside half of the windows of a grid that covers the crop.

    Edges of windows are random, up to a tenth of the crop's (at least 2), the same for the batch;
    all channels of a voxel move together.
    """
    shape = images.shape[2:]
    largest = [max(2, size // 10) for size in shape]
    drawn = torch.rand(len(shape), generator=generators.host).tolist()
    window = [
        min(size, 2 + int(u * (most - 1)))
        for u, most, size in zip(drawn, largest, shape, strict=True)
    ]
    inside = [size // edge * edge for size, edge in zip(shape, window, strict=True)]
    result = images.clone()
    part = result[(..., *(slice(size) for size in inside))]
    cells = _to_windows(part, window)
    shape_of_noise = (cells.shape[0], 1, *cells.shape[2:])
    options = {"generator": generators.device, "device": images.device}
    order = torch.rand(shape_of_noise, **options).argsort(-1)
    chosen = torch.rand(*shape_of_noise[:-1], 1, **options) < 0.5
    moved = torch.where(chosen, cells.gather(-1, order.expand_as(cells)), cells)
    part.copy_(_from_windows(moved, window, inside))
    return result


def painted_over(images: Tensor, paint: Tensor, inside: Tensor, generators: Generators) -> Tensor:
    """Replace boxes, or everything else, by noise in the sample's range of intensities.

    ``paint`` and ``inside`` (b,) on the host say which samples, and where: inside up to five boxes
    or outside of them.
    """
    masks = torch.stack(
        [_boxes(images.shape[2:], bool(i), generators.host) for i in inside.tolist()]
    )[:, None]
    masks = masks.to(images.device, non_blocking=True) & for_samples(paint, images)
    low, high = intensity_range(images)
    noise = torch.rand(images.shape, generator=generators.device, device=images.device)
    return torch.where(masks, low + (high - low) * noise, images)


def _boxes(shape: Sequence[int], inside: bool, generator: torch.Generator) -> Tensor:
    """Where to paint ([z,] y, x)."""
    low, high = _INSIDE if inside else _AROUND
    covered = torch.zeros(*shape, dtype=torch.bool)
    for _ in range(1 + int(torch.randint(_BOXES, (), generator=generator))):
        drawn = torch.rand(len(shape), 2, generator=generator).tolist()
        box = []
        for size, (u, v) in zip(shape, drawn, strict=True):
            edge = max(1, round(size * (low + (high - low) * u)))
            start = int(v * (size - edge + 1))
            box.append(slice(start, start + edge))
        covered[tuple(box)] = True
    return covered if inside else ~covered


def _through(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Each sample's curve (b, knots), rising ``x`` in 0...1, applied to its range."""
    low, high = intensity_range(images)
    width = (high - low).clamp(min=1e-6)
    values = ((images - low) / width).flatten(1)
    right = torch.searchsorted(x, values.contiguous()).clamp(1, x.shape[1] - 1)
    x0, x1, y0, y1 = (c.gather(1, i) for c in (x, y) for i in (right - 1, right))
    share = ((values - x0) / (x1 - x0).clamp(min=1e-6)).clamp(0, 1)
    return (y0 + share * (y1 - y0)).view_as(images) * width + low


def intensity_range(images: Tensor) -> tuple[Tensor, Tensor]:
    """Minimum and maximum (b, 1, ...) of each sample."""
    axes = tuple(range(1, images.ndim))
    return images.amin(axes, True), images.amax(axes, True)


def _to_windows(images: Tensor, window: Sequence[int]) -> Tensor:
    """(b, c, [z,] y, x) as (b, c, [nz,] ny, nx, voxels of a window)."""
    dims = len(window)
    pairs = [n for size, edge in zip(images.shape[2:], window, strict=True)
             for n in (size // edge, edge)]  # fmt: skip
    cells = images.reshape(*images.shape[:2], *pairs)
    order = (0, 1, *range(2, 2 + 2 * dims, 2), *range(3, 3 + 2 * dims, 2))
    return cells.permute(order).flatten(2 + dims)


def _from_windows(cells: Tensor, window: Sequence[int], shape: Sequence[int]) -> Tensor:
    dims = len(window)
    cells = cells.reshape(*cells.shape[:-1], *window)
    order = (0, 1, *(axis for i in range(dims) for axis in (2 + i, 2 + dims + i)))
    return cells.permute(order).reshape(*cells.shape[:2], *shape)
