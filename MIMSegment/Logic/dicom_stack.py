"""From the slices of one volume to a regular grid, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from MIMSegment.Logic.dicom_headers import Frame
from MIMSegment.Logic.dicom_split import is_even, normal, places, slots
from MIMSegment.Logic.errors import GeometryError
from MIMSegment.Logic.volume import Geometry

_STRAIGHT = 0.1  # pixels by which slices may be shifted sideways without resampling
_STEEPEST = 45.0  # degrees


@dataclass(frozen=True)
class Stack:
    """Slices in ascending order along the normal, and the grid that they fill.

    ``slots`` holds the frames at each place (more than one: duplicates). ``shifts`` (n, 2) says by
    how many (rows, columns) each slice lies off the straight stack ``geometry``; None if none.
    """

    slots: list[list[Frame]]
    geometry: Geometry
    shifts: np.ndarray | None
    tilt: float


def stack_frames(frames: tuple[Frame, ...], source: str) -> Stack:
    """Sort slices by their position and check that they form an even stack.

    Raises GeometryError naming ``source`` for missing positions, missing slices, uneven spacing.
    """
    _check_placed(frames, source)
    stacks = slots(frames)
    first, last = stacks[0][0], stacks[-1][0]
    along = places([stack[0] for stack in stacks])
    _check_even(along, stacks, source)
    rows, columns = _orthonormal(first.orientation)
    up = normal(first)
    step = (
        (along[-1] - along[0]) / (len(stacks) - 1)
        if len(stacks) > 1
        else float(first.header.get("SliceThickness") or 1.0)
    )
    matrix = np.eye(4)
    matrix[:3, 0] = rows * first.spacing[1]
    matrix[:3, 1] = columns * first.spacing[0]
    matrix[:3, 2] = up * step
    matrix[:3, 3] = first.position
    geometry = Geometry((len(stacks), *first.shape), matrix)
    offsets = np.array([stack[0].position for stack in stacks]) - first.position
    sideways = np.stack([offsets @ columns, offsets @ rows], axis=1)  # mm (down, right)
    shifts = sideways / first.spacing
    if np.abs(shifts).max() <= _STRAIGHT:
        return Stack(stacks, geometry, None, 0.0)
    travel = last.position - first.position
    tilt = float(np.degrees(np.arccos(np.clip(travel @ up / np.linalg.norm(travel), -1, 1))))
    if tilt > _STEEPEST:
        raise GeometryError(
            f"{source}: the slices lie beside each other rather than above each other "
            f"({tilt:.0f}° off); export the series again as a plain stack."
        )
    return Stack(stacks, geometry, shifts, tilt)


def straighten(array: np.ndarray, stack: Stack) -> tuple[np.ndarray, Geometry]:
    """Shift the slices of a tilted stack into an upright box that holds all of them.

    ``array`` (z, y, x). Along the normal nothing moves, so only an in-plane linear interpolation
    is needed; outside the slices the image's minimum is set.
    """
    from scipy.ndimage import shift as shift_image

    low = np.floor(stack.shifts.min(axis=0)).astype(int)
    grow = np.ceil(stack.shifts.max(axis=0)).astype(int) - low
    count, *size = array.shape
    result = np.full((count, size[0] + grow[0], size[1] + grow[1]), array.min(), array.dtype)
    for k in range(count):
        offset = stack.shifts[k] - low
        padded = np.pad(array[k], ((0, grow[0]), (0, grow[1])), mode="edge").astype(np.float32)
        moved = shift_image(padded, offset, order=1, mode="nearest")
        # A pixel reaches half its size beyond its center.
        covered = tuple(
            slice(int(np.ceil(o - 0.5)), int(np.floor(o + n - 0.5)) + 1)
            for o, n in zip(offset, size, strict=True)
        )
        result[k][covered] = (np.rint(moved) if array.dtype.kind in "iu" else moved)[covered]
    matrix = stack.geometry.ijk_to_lps.copy()
    matrix[:3, 3] += matrix[:3, 0] * low[1] + matrix[:3, 1] * low[0]
    return result, Geometry(result.shape, matrix)


def _check_placed(frames, source: str) -> None:
    for frame in frames:
        missing = [
            name
            for name, value in (
                ("ImagePositionPatient", frame.position),
                ("ImageOrientationPatient", frame.orientation),
                ("PixelSpacing", frame.spacing),
            )
            if value is None
        ]
        if missing:
            raise GeometryError(
                f"{source}: {frame.file.name} does not state its place in the patient "
                f"({', '.join(missing)} missing); export the original images again."
            )
    rows, columns = frames[0].orientation
    lengths = np.linalg.norm([rows, columns], axis=1)
    if np.abs(lengths - 1).max() > 0.01 or abs(rows @ columns) > 0.01:
        raise GeometryError(
            f"{source}: the rows and columns of {frames[0].file.name} are not at right angles "
            "(ImageOrientationPatient); export the original images again."
        )


def _check_even(along: np.ndarray, stacks: list[list[Frame]], source: str) -> None:
    if is_even(along):
        return
    gaps = np.diff(along)
    usual = np.sort(gaps)[(len(gaps) - 1) // 2]
    multiples = gaps / usual
    if np.abs(multiples - np.round(multiples)).max() < 0.1 and multiples.min() > 0.5:
        holes = [
            f"{round(m) - 1} between {stacks[i][0].file.name} and {stacks[i + 1][0].file.name}"
            for i, m in enumerate(multiples)
            if m > 1.5
        ]
        count = round(multiples.sum()) - len(gaps)
        raise GeometryError(
            f"{source}: {count} slice{'s are' if count > 1 else ' is'} missing "
            f"({', '.join(holes[:3])}{' and more' if len(holes) > 3 else ''}; the others are "
            f"{usual:.2f} mm apart); fetch the series again completely."
        )
    raise GeometryError(
        f"{source}: the slices are unevenly spaced (gaps from {gaps.min():.2f} to "
        f"{gaps.max():.2f} mm); resample the series to even spacing first, in Slicer by loading it "
        "with acquisition geometry regularization and hardening the transform."
    )


def _orthonormal(orientation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors along a row and down a column, at right angles in spite of rounding."""
    u, _, vt = np.linalg.svd(orientation, full_matrices=False)
    return tuple(u @ vt)
