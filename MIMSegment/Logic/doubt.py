"""Where a model hesitates, gathered while it predicts: confidence, and places to look at first.

This is the softness of one model's output. It says where to look, not how likely an error is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from MIMSegment.Logic.errors import NotANumber
from MIMSegment.Logic.spec import ModelSpec
from MIMSegment.Logic.volume import Geometry

BLOCK_MM = 8.0
MOST_PLACES = 20
_LEAST_DOUBT = 0.02  # mean over a block below which there is nothing to look at


@dataclass(frozen=True)
class DoubtfulPlace:
    """A place worth a look: LPS position in mm, the structure in question, and how many
    milliliters of voxels there are undecided (each weighted by its doubt)."""

    position: tuple[float, float, float]
    label: int
    doubtful_ml: float


class DoubtCollector:
    """Takes logits plane by plane in z order, on the network's grid ``geometry``."""

    def __init__(self, spec: ModelSpec, geometry: Geometry):
        self._spec, self._geometry = spec, geometry
        self._block = tuple(max(1, round(BLOCK_MM / s)) for s in geometry.spacing)
        self._grid = tuple(-(-n // b) for n, b in zip(geometry.shape, self._block, strict=True))
        self._mass = np.zeros(self._grid)
        self._peak = np.zeros(self._grid, np.float32)
        self._voxel = np.zeros((*self._grid, 3), np.int32)
        self._label = np.zeros(self._grid, np.int32)
        count = max(spec.channel_labels) + 1
        self._certainty, self._voxels = np.zeros(count), np.zeros(count)

    def add(self, z: int, logits: np.ndarray, labels: np.ndarray) -> None:
        """Take plane ``z``: logits (channels, y, x) and the labels (y, x) decided from them.

        Raises NotANumber.
        """
        with np.errstate(invalid="ignore"):  # told below
            certainty = _certainty(logits, self._spec.head)
        size = len(self._voxels)
        self._certainty += np.bincount(labels.ravel(), certainty.ravel(), size)
        if not np.isfinite(self._certainty).all():  # they would pass for background
            raise NotANumber(
                "The network returned values that are no numbers; choose float32 or another "
                "device. If that fails too, the image has extreme values, or the model is damaged."
            )
        self._voxels += np.bincount(labels.ravel(), minlength=size)
        doubt = 1 - certainty
        blocks = self._blocks(doubt)
        row = z // self._block[0]
        self._mass[row] += blocks.sum(axis=2)
        where = blocks.argmax(axis=2)
        peak = np.take_along_axis(blocks, where[..., None], axis=2)[..., 0]
        by, bx = np.nonzero(peak > np.maximum(self._peak[row], _LEAST_DOUBT))
        inside = where[by, bx]
        y = by * self._block[1] + inside // self._block[2]
        x = bx * self._block[2] + inside % self._block[2]
        self._peak[row, by, bx] = peak[by, bx]
        self._voxel[row, by, bx] = np.stack([np.full_like(y, z), y, x], axis=1)
        self._label[row, by, bx] = self._structures(logits[:, y, x], labels[y, x])

    def confidence(self) -> dict[int, float]:
        """Mean certainty (0..1) over the voxels of each structure that was found."""
        found = np.flatnonzero(self._voxels)
        return {int(v): float(self._certainty[v] / self._voxels[v]) for v in found if v}

    def places(self) -> tuple[DoubtfulPlace, ...]:
        """The most doubtful blocks, worst first, at least two blocks apart."""
        least = _LEAST_DOUBT * np.prod(self._block)
        order = np.argsort(self._mass, axis=None)[::-1]
        chosen: list[tuple[int, ...]] = []
        for index in zip(*np.unravel_index(order, self._grid), strict=True):
            if self._mass[index] < least or len(chosen) == MOST_PLACES:
                break
            near = any(max(abs(np.subtract(index, other))) < 2 for other in chosen)
            if not near and self._peak[index] > 0:
                chosen.append(index)
        return tuple(self._place(index) for index in chosen)

    def _place(self, index: tuple[int, ...]) -> DoubtfulPlace:
        z, y, x = (int(n) for n in self._voxel[index])
        position = (self._geometry.ijk_to_lps @ [x, y, z, 1])[:3]
        volume = float(self._mass[index] * self._geometry.voxel_volume_ml)
        return DoubtfulPlace(tuple(map(float, position)), int(self._label[index]), volume)

    def _blocks(self, plane: np.ndarray) -> np.ndarray:
        """Plane (y, x) as (block rows, block columns, voxels of a block), zeros at the far ends."""
        (_, by, bx), (_, ny, nx) = self._block, self._grid
        padded = np.zeros((ny * by, nx * bx), np.float32)
        padded[: plane.shape[0], : plane.shape[1]] = plane
        return padded.reshape(ny, by, nx, bx).swapaxes(1, 2).reshape(ny, nx, by * bx)

    def _structures(self, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The structure in question at each of n voxels, logits (channels, n): the one found
        there, else the likeliest one."""
        values = np.asarray(self._spec.channel_labels)
        foreground = np.flatnonzero(values)
        likeliest = values[foreground[logits[foreground].argmax(axis=0)]]
        return np.where(labels > 0, labels, likeliest)


def _certainty(logits: np.ndarray, head: str) -> np.ndarray:
    """The probability of the decision at each voxel: the largest softmax, or for regions the
    least decided sigmoid's."""
    if head == "softmax":
        return 1 / np.exp(logits - logits.max(axis=0)).sum(axis=0)
    return (1 / (1 + np.exp(-np.abs(logits)))).min(axis=0)
