"""Grids whose axes are not at right angles: rounding is set right, shear is refused."""

from __future__ import annotations

import numpy as np

from MIMSegment.Logic.errors import GeometryError

SHEAR_TOLERANCE = 0.1  # voxels by which a corner may move when the axes are made orthogonal


def straightened(matrix: np.ndarray, shape, source: str, tool: str) -> np.ndarray:
    """The 4×4 voxel-to-world ``matrix`` of a grid of ``shape`` (z, y, x) with orthogonal axes.

    ``source`` names the file and ``tool`` a function that resamples it, for the message of the
    GeometryError that is raised for a sheared grid and for one without an inverse.
    """
    columns = matrix[:3, :3]
    if not np.isfinite(matrix).all() or abs(np.linalg.det(columns)) < 1e-9:
        raise GeometryError(
            f"{source} has an orientation matrix that cannot be inverted; convert the original "
            "images again."
        )
    straight = _nearest_orthogonal(matrix, shape)
    if corner_distance(matrix, straight, shape) > SHEAR_TOLERANCE:
        raise GeometryError(
            f"{source} has a sheared grid (axes {_skew_angle(columns):.1f}° off a right angle, for "
            "example by a tilted gantry); give the original DICOM folder instead, or resample the "
            f"file to an orthogonal grid first ({tool} does that)."
        )
    return straight


def corner_distance(a: np.ndarray, b: np.ndarray, shape) -> float:
    """How far apart two grids put the same corner at most, in voxels of ``a``."""
    last = np.array(shape[::-1]) - 1
    corners = np.array(np.meshgrid(*([0, n] for n in last))).reshape(3, -1)
    corners = np.vstack([corners, np.ones(8)])
    distance = np.linalg.norm(((a - b) @ corners)[:3], axis=0).max()
    return float(distance / np.linalg.norm(a[:3, :3], axis=0).min())


def _nearest_orthogonal(matrix: np.ndarray, shape) -> np.ndarray:
    """The orthogonal grid of equal spacing nearest to ``matrix`` (polar decomposition).

    The center of the volume stays where it is.
    """
    columns = matrix[:3, :3]
    spacing = np.linalg.norm(columns, axis=0)
    u, _, vt = np.linalg.svd(columns / spacing)
    straight = matrix.copy()
    straight[:3, :3] = (u @ vt) * spacing
    center = (np.array(shape[::-1]) - 1) / 2
    straight[:3, 3] += (columns - straight[:3, :3]) @ center
    return straight


def _skew_angle(columns: np.ndarray) -> float:
    """The largest departure from a right angle between two axes, in degrees."""
    unit = columns / np.linalg.norm(columns, axis=0)
    cosines = np.abs(unit.T @ unit)[np.triu_indices(3, 1)]
    return float(np.degrees(np.arcsin(min(1.0, cosines.max()))))
