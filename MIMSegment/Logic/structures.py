"""Measuring the structures of a label array: volume, pieces, place, where the image cuts them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from MIMSegment.Logic.connected_runs import number_parts
from MIMSegment.Logic.run_lengths import RunLengths, unpack
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
    runs = RunLengths.encode(labels)
    parts = number_parts(runs)
    found = {}
    for value in np.unique(runs.value):
        index = np.flatnonzero(runs.value == value)
        found[int(value)] = _measure(int(value), runs.take(index), parts[index], geometry)
    return found


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

    numbers, count = label(mask, np.ones((3, 3, 3), bool))
    sizes = np.bincount(numbers[mask], minlength=count + 1)
    sizes[0] = mask.size - sizes.sum()
    return numbers, sizes


def middle_of(mask: np.ndarray, start, geometry: Geometry) -> tuple[float, float, float]:
    """The LPS position in mm of the voxel of ``mask`` that is nearest to its centroid.

    ``start`` is the index (z, y, x) of the mask's first voxel in ``geometry``.
    """
    flat = np.flatnonzero(mask)
    flat = flat[:: -(-len(flat) // _SAMPLES)]
    points = np.stack(np.unravel_index(flat, mask.shape), axis=1) + start
    return _nearest_to_centroid(points, geometry)


def to_lps(index, geometry: Geometry) -> tuple[float, float, float]:
    """The LPS position in mm of a voxel index (z, y, x)."""
    z, y, x = index
    return tuple(float(v) for v in (geometry.ijk_to_lps @ [x, y, z, 1.0])[:3])


def _measure(value: int, runs: RunLengths, parts: np.ndarray, geometry: Geometry) -> Structure:
    """A structure from its runs, each with the number of its connected part."""
    voxel, count = geometry.voxel_volume_ml, int(runs.length.sum())
    parts = np.unique(parts, return_inverse=True)[1]
    sizes = np.bincount(parts, runs.length)
    order = np.argsort(-sizes, kind="stable")
    pieces = tuple(
        Piece(float(sizes[n] * voxel), middle_of_runs(runs.take(parts == n), geometry))
        for n in order
        if sizes[n] >= LEAST_SHARE * count
    )
    z, y, x = unpack(runs.position)
    center = [float(axis @ runs.length) / count for axis in (z, y, x + (runs.length - 1) / 2)]
    return Structure(
        value, count * voxel, to_lps(center, geometry), pieces, _cut(runs, (z, y, x), geometry)
    )


def middle_of_runs(runs: RunLengths, geometry: Geometry) -> tuple[float, float, float]:
    """`middle_of` the voxels of runs."""
    stops = np.cumsum(runs.length)
    chosen = np.arange(0, stops[-1], -(-stops[-1] // _SAMPLES))
    run = np.searchsorted(stops, chosen, "right")
    position = runs.position[run] + chosen - (stops - runs.length)[run]
    return _nearest_to_centroid(np.stack(unpack(position), axis=1), geometry)


def _nearest_to_centroid(points: np.ndarray, geometry: Geometry) -> tuple[float, float, float]:
    distance = np.square((points - points.mean(axis=0)) * geometry.spacing).sum(axis=1)
    return to_lps(points[distance.argmin()], geometry)


def _cut(runs: RunLengths, first, geometry: Geometry) -> tuple[Section, ...]:
    """``first`` has the indices z, y, x of the runs' first voxels."""
    last = (*first[:2], first[2] + runs.length - 1)
    sections = []
    for axis in range(3):
        letter = geometry.orientation[2 - axis]
        area = float(np.prod(geometry.spacing)) / geometry.spacing[axis]
        for side, index, end in (
            (_OPPOSITE[letter], first, 0), (letter, last, geometry.shape[axis] - 1),
        ):  # fmt: skip
            section = runs.take(index[axis] == end)
            if axis == 2:  # along which runs lie: one voxel of each
                shift = section.length - 1 if end else 0
                one = np.ones_like(section.length)
                section = replace(section, position=section.position + shift, length=one)
            if count := int(section.length.sum()):
                middle = middle_of_runs(section, geometry)
                sections.append(Section(_DIRECTIONS[side], count * area, middle))
    return tuple(sections)
