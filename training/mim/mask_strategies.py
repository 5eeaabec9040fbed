"""In what order the blocks of an image are hidden: one function for each masking strategy.

A strategy gives every block a rank; the blocks of the lowest ranks are hidden until the ratio is
reached. So each strategy hides exactly the nominal number of blocks, in every sample, and the shape
of its result depends on the arguments alone. The strategies are those compared for lesion
classification by Fernandez-Quilez et al. (arXiv 2212.14267) and offered by SimMIM and nnssl, as we
define them here:

``random``      blocks uniformly at random
``contiguous``  one connected box around a random block (in-filling of a large hole)
``slab``        whole slabs of slices (along the first axis), restored from the slices beside them
``grid``        a regular lattice at a random offset: at 1/2 a chessboard, at 7/8 one block of 8
``center``      random, but blocks near the crop's center are hidden first: where crops are centered
                on lesions the lesion must be restored, and no label is needed to know where it is
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Literal, get_args

import torch
from torch import Tensor

Strategy = Literal["random", "contiguous", "slab", "grid", "center"]

# How strongly `center` prefers the middle: the odds of a block two fifths of the crop away from it
# are 1/e² of those of the block in the middle.
_CENTER_WIDTH = 0.2


class _Draw:
    """Random numbers for ``batch`` samples over ``grid``, on the device of ``generator``."""

    def __init__(self, batch: int, grid: Sequence[int], generator: torch.Generator, device):
        self.batch, self.grid = batch, tuple(grid)
        self.options = {"generator": generator, "device": device}

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(self.batch, *shape, **self.options)

    def noise(self) -> Tensor:
        """One number in 0...1 for every block: (batch, *grid)."""
        return self.uniform(*self.grid)

    def axes(self) -> list[Tensor]:
        """Index along each axis, shaped to broadcast over (batch, *grid)."""
        dims = len(self.grid)
        return [
            torch.arange(size, device=self.options["device"]).view(
                1, *(size if i == axis else 1 for i in range(dims))
            )
            for axis, size in enumerate(self.grid)
        ]


def hiding_order(
    strategy: Strategy,
    batch: int,
    grid: Sequence[int],
    generator: torch.Generator,
    device: torch.device | str = "cpu",
) -> Tensor:
    """The place of every block in the order of hiding, 0 is first: int64 (batch, blocks)."""
    scores = _STRATEGIES[strategy](_Draw(batch, grid, generator, device))
    return scores.reshape(batch, -1).argsort(1).argsort(1)


def _random(draw: _Draw) -> Tensor:
    return draw.noise()


def _contiguous(draw: _Draw) -> Tensor:
    """Shells of boxes around a random block, in the grid's proportions.

    Within a shell faces come before edges and corners: so every block has a neighbor that comes
    before it, and what is hidden at any moment is connected.
    """
    shell = steps = torch.zeros((), device=draw.options["device"])
    for axis, size in zip(draw.axes(), draw.grid, strict=True):
        center = (draw.uniform(*(1 for _ in draw.grid)) * size).floor()
        distance = (axis - center).abs()
        shell = torch.maximum(shell, (distance * (max(draw.grid) / size)).ceil())
        steps = steps + distance
    return shell + (steps + draw.noise()) / (sum(draw.grid) + 1)


def _slab(draw: _Draw) -> Tensor:
    order = draw.uniform(draw.grid[0]).argsort(1).argsort(1)
    return order.view(draw.batch, -1, *(1 for _ in draw.grid[1:])) + draw.noise()


def _grid(draw: _Draw) -> Tensor:
    """The order of ordered dithering: the cells of 2 x 2 x 2 blocks are all hidden alike."""
    dims = len(draw.grid)
    # Odd places first, so that half of them hidden is a chessboard; an even one stays to the end.
    corners = sorted(product((0, 1), repeat=dims), key=lambda c: (sum(c) % 2 == 0, not any(c)))
    table = torch.empty((2,) * dims, device=draw.options["device"])
    for rank, corner in enumerate(corners):
        table[corner] = rank
    offsets = (draw.uniform(dims) * 2).long()
    places = [
        (axis + offsets[:, i].view(-1, *(1 for _ in draw.grid))) % 2
        for i, axis in enumerate(draw.axes())
    ]
    return table[torch.broadcast_tensors(*places)] + draw.noise()


def _center(draw: _Draw) -> Tensor:
    """Draws without replacement, each block as likely as its weight (the exponential trick)."""
    squares = torch.zeros((), device=draw.options["device"])
    for axis, size in zip(draw.axes(), draw.grid, strict=True):
        squares = squares + ((axis + 0.5) / size - 0.5).square()
    weight = torch.exp(-squares / (2 * _CENTER_WIDTH**2)).clamp(min=1e-6)
    return -draw.noise().clamp(1e-12, 1 - 1e-7).log() / weight


_STRATEGIES: dict[str, Callable[[_Draw], Tensor]] = {
    "random": _random,
    "contiguous": _contiguous,
    "slab": _slab,
    "grid": _grid,
    "center": _center,
}
assert set(_STRATEGIES) == set(get_args(Strategy))
