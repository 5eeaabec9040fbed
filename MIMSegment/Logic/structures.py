"""Measuring the structures of a label array: volume, pieces, place, where the image cuts them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from MIMSegment.Logic.volume import Geometry

LEAST_SHARE = 0.01  # of the structure; smaller pieces are specks
LEAST_SECTION = 20.0  # mm² at a face of the image; less touches it and is not cut by it
_SAMPLES = 20_000  # voxels of a piece that its middle is sought among
_DIRECTIONS = {
    "L": "left", "R": "right", "P": "posterior", "A": "anterior", "S": "superior", "I": "inferior",
}  # fmt: skip
_OPPOSITE = dict(zip("LRPASI", "RLAPIS", strict=True))


@dataclass(frozen=True)
class Piece:
    """One connected part: its volume, and an LPS point in mm inside it, near its middle."""

    volume_ml: float
    position: tuple[float, float, float]


@dataclass(frozen=True)
class Section:
    """Where the image ends within a structure: at its face ``side`` ("inferior", "left" ...), with
    the area of the section in mm² and an LPS point in mm in it."""

    side: str
    area_mm2: float
    position: tuple[float, float, float]


@dataclass(frozen=True)
class Structure:
    """All voxels of one label value.

    ``center`` is their LPS centroid in mm, ``pieces`` the connected parts without specks, the
    largest first, ``cut`` the sections at the image's faces.
    """

    value: int
    volume_ml: float
    center: tuple[float, float, float]
    pieces: tuple[Piece, ...]
    cut: tuple[Section, ...]


def measure_structures(labels: np.ndarray, geometry: Geometry) -> dict[int, Structure]:
    """Every label value but 0 that occurs in ``labels`` (z, y, x) on ``geometry``."""
    return {
        value: _measure(value, mask, start, labels.shape, geometry)
        for value, mask, start in structure_masks(labels)
    }


def structure_masks(labels: np.ndarray) -> Iterator[tuple[int, np.ndarray, tuple[int, int, int]]]:
    """Value, mask in its bounding box, and first index (z, y, x) of that box, for each value."""
    from scipy.ndimage import find_objects

    for index, box in enumerate(find_objects(labels)):
        if box is not None:
            yield index + 1, labels[box] == index + 1, tuple(s.start for s in box)


def split_pieces(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the connected parts (sharing at least a corner) of a mask (z, y, x).

    Returns the array of numbers from 1 and the voxels of each, background first.
    """
    from scipy.ndimage import label

    numbers, _ = label(mask, np.ones((3, 3, 3), bool))
    return numbers, np.bincount(numbers.ravel())


def middle_of(mask: np.ndarray, start, geometry: Geometry) -> tuple[float, float, float]:
    """The LPS position in mm of the voxel of ``mask`` that is nearest to its centroid.

    ``start`` is the index (z, y, x) of the mask's first voxel in ``geometry``.
    """
    flat = np.flatnonzero(mask)
    flat = flat[:: -(-len(flat) // _SAMPLES)]
    points = np.stack(np.unravel_index(flat, mask.shape), axis=1)
    distance = np.square((points - points.mean(axis=0)) * geometry.spacing).sum(axis=1)
    return to_lps(points[distance.argmin()] + start, geometry)


def to_lps(index, geometry: Geometry) -> tuple[float, float, float]:
    """The LPS position in mm of a voxel index (z, y, x)."""
    z, y, x = index
    return tuple(float(v) for v in (geometry.ijk_to_lps @ [x, y, z, 1.0])[:3])


def _measure(value: int, mask: np.ndarray, start, shape, geometry: Geometry) -> Structure:
    voxel, count = geometry.voxel_volume_ml, int(mask.sum())
    numbers, sizes = split_pieces(mask)
    order = [n for n in np.argsort(sizes[1:])[::-1] + 1 if sizes[n] >= LEAST_SHARE * count]
    pieces = tuple(
        Piece(float(sizes[n] * voxel), middle_of(numbers == n, start, geometry)) for n in order
    )
    center = [
        float(mask.sum(axis=tuple(a for a in range(3) if a != axis)) @ np.arange(size)) / count
        for axis, size in enumerate(mask.shape)
    ]
    return Structure(
        value,
        count * voxel,
        to_lps(np.add(center, start), geometry),
        pieces,
        _cut(mask, start, shape, geometry),
    )


def _cut(mask: np.ndarray, start, shape, geometry: Geometry) -> tuple[Section, ...]:
    sections = []
    for axis in range(3):
        letter = geometry.orientation[2 - axis]
        area = float(np.prod(geometry.spacing)) / geometry.spacing[axis]
        for side, first, end in ((_OPPOSITE[letter], 0, 0), (letter, mask.shape[axis] - 1, -1)):
            if start[axis] + first != (0 if end == 0 else shape[axis] - 1):
                continue
            section = mask.take([first], axis=axis)
            begin = [s + first * (a == axis) for a, s in enumerate(start)]
            sections.append(
                Section(
                    _DIRECTIONS[side],
                    float(section.sum()) * area,
                    middle_of(section, begin, geometry),
                )
            )
    return tuple(sections)
