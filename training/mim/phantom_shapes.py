"""Shapes of digital anatomy: smooth random fields and soft implicit surfaces in millimeters.

A shape is a *level*: a float32 array (z, y, x) that is positive inside, negative outside, and near
its surface the distance to it in mm. Points are (x, y, z) in mm, LPS, from the center of the box.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise

import numpy as np
from scipy import ndimage, sparse

_SPLINE_DEVIATION = np.float32((151 / 315) ** 1.5)  # of white noise: mean sum of squared weights
FAR = np.float32(-1e3)  # the level outside the block in which a shape was computed
SIDES = (1, -1)  # the patient's left and right, as signs of x
Point = Sequence[float]


class Space:
    """A box of the patient on a regular grid along the patient's axes.

    ``x``, ``y``, ``z`` are the LPS coordinates (z, y, x) in mm of every voxel; `bend` displaces
    them, so that everything drawn afterwards is deformed. Random fields stand on knots fixed in
    the box: the same generator draws the same anatomy at every voxel size.
    """

    def __init__(self, lengths: Point, spacing: Point, rng: np.random.Generator):
        """``lengths`` and ``spacing`` are (z, y, x) in mm."""
        self.rng = rng
        self.spacing = tuple(float(s) for s in spacing)
        self.shape = tuple(round(n / s) for n, s in zip(lengths, spacing, strict=True))
        self.lengths = tuple(float(n) for n in lengths)
        self.axes = [
            (np.arange(n, dtype=np.float32) - (n - 1) / 2) * np.float32(s)
            for n, s in zip(self.shape, self.spacing, strict=True)
        ]
        self.z, self.y, self.x = np.meshgrid(*self.axes, indexing="ij")
        self._textures: dict = {}
        self._slack = 0.0  # how far a coordinate has been moved at most

    def noise(self, scale: float | Point) -> np.ndarray:
        """A Gaussian random field (z, y, x) of unit variance; ``scale`` in mm, one or (z, y, x)."""
        scales = (scale,) * 3 if np.isscalar(scale) else scale
        bases = [
            _spline_basis(axis, length, s)
            for axis, length, s in zip(self.axes, self.lengths, scales, strict=True)
        ]
        return _spline_field(bases, self.rng)

    def texture(self, scale: float | Point) -> np.ndarray:
        """One field for each ``scale``: tissues side by side can share it, shapes should not."""
        if scale not in self._textures:
            self._textures[scale] = self.noise(scale)
        return self._textures[scale]

    def noise_at(self, points: np.ndarray, scale: float) -> np.ndarray:
        """A field as `noise` draws it, at ``points`` (3, n) in mm within 100 mm of the center."""
        knots = int(200 / scale) + 4
        field = self.rng.standard_normal((knots,) * 3, dtype=np.float32)
        at = (points / scale + (knots - 1) / 2).astype(np.float32)
        values = ndimage.map_coordinates(field, at, order=3, prefilter=False, mode="mirror")
        return values / _SPLINE_DEVIATION

    def bend(self, amplitude: float, scale: float) -> None:
        """Displace the coordinates by a smooth random field, ``amplitude`` mm of deviation."""
        self.displace(*(amplitude * self.noise(scale) for _ in range(3)))

    def stretch(self, x: float, y: float, z: float) -> None:
        """Scale what is drawn afterwards along each axis."""
        self.displace(self.x * (1 / x - 1), self.y * (1 / y - 1), self.z * (1 / z - 1))

    def displace(self, dx: np.ndarray, dy: np.ndarray, dz: np.ndarray) -> None:
        """Add fields in mm to the coordinates: what is drawn next moves by their negative."""
        moves = [np.asarray(d, np.float32) for d in (dx, dy, dz)]
        self.x, self.y, self.z = self.x + moves[0], self.y + moves[1], self.z + moves[2]
        self._slack += max(float(np.abs(d).max()) for d in moves)

    def ellipsoid(
        self, center: Point, radii: Point, turn: Point = (0, 0, 0), margin: float = 8.0
    ) -> np.ndarray:
        """Level of an ellipsoid turned about its x, y and z axes by ``turn`` degrees.

        ``margin`` mm about it the level is still exact enough to be grown to there.
        """
        level = np.full(self.shape, FAR, np.float32)
        block = self._block(center, center, max(radii) + margin)
        offset = self._offset(block, center)
        if any(turn):
            offset = np.stack([_dot(column, offset) for column in rotation(*turn).T])
        radii = np.asarray(radii, np.float32)[:, None, None, None]
        unit = offset / radii
        reach = np.sqrt(np.square(unit).sum(0))
        slope = np.sqrt(np.square(unit / radii).sum(0))
        tiny = np.float32(1e-3)  # keeps the quotient finite, and positive, at the center
        level[block] = (1 - reach) * (reach + tiny) / (slope + tiny / radii.min())
        return level

    def tube(self, path: Sequence[Point], radii: float | Sequence[float]) -> np.ndarray:
        """Level of a tube along the polyline ``path`` whose radius goes from point to point."""
        radii = np.broadcast_to(np.asarray(radii, float), len(path))
        level = np.full(self.shape, FAR, np.float32)
        for (a, ra), (b, rb) in pairwise(zip(path, radii, strict=True)):
            block = self._block(a, b, max(ra, rb) + 8.0)
            offset = self._offset(block, a)
            along = np.asarray(b, np.float32) - np.asarray(a, np.float32)
            t = np.clip(_dot(along, offset) / max(float(along @ along), 1e-6), 0, 1)
            away = offset - along[:, None, None, None] * t
            segment = ra + t * (rb - ra) - np.sqrt(np.square(away).sum(0))
            np.maximum(level[block], segment, out=level[block])
        return level

    def nearest(self, points: np.ndarray) -> np.ndarray:
        """Flat indices of the voxels nearest to ``points`` (n, 3), wherever they were bent to."""
        indices = [
            np.clip(np.rint((column - axis[0]) / step), 0, len(axis) - 1).astype(int)
            for column, axis, step in zip(points.T[::-1], self.axes, self.spacing, strict=True)
        ]
        return np.ravel_multi_index(indices, self.shape)

    def _offset(self, block, center: Point) -> np.ndarray:
        axes = zip((self.x, self.y, self.z), center, strict=True)
        return np.stack([axis[block] - np.float32(c) for axis, c in axes])

    def _block(self, a: Point, b: Point, reach: float) -> tuple[slice, ...]:
        """The voxels that can be within ``reach`` mm of the box from ``a`` to ``b``."""
        reach += self._slack
        return tuple(
            slice(*np.searchsorted(axis, (min(p, q) - reach, max(p, q) + reach)))
            for axis, p, q in zip(self.axes, reversed(a), reversed(b), strict=True)
        )


def union(*levels: np.ndarray, blend: float = 0.0) -> np.ndarray:
    """Inside any of the shapes; ``blend`` mm rounds the crease where two meet."""
    if blend <= 0:
        return np.maximum.reduce(levels)
    return reduce(lambda a, b: _soft_maximum(a, b, blend), levels)


def intersect(*levels: np.ndarray, blend: float = 0.0) -> np.ndarray:
    """Inside all of the shapes; ``blend`` mm rounds the edge."""
    if blend <= 0:
        return np.minimum.reduce(levels)
    return -union(*(-level for level in levels), blend=blend)


def subtract(level: np.ndarray, *others: np.ndarray, blend: float = 0.0) -> np.ndarray:
    """Inside ``level`` and outside the others."""
    return intersect(level, *(-other for other in others), blend=blend)


def shell(level: np.ndarray, thickness: float) -> np.ndarray:
    """The layer of ``thickness`` mm that lies inside the surface."""
    return thickness / 2 - np.abs(level - thickness / 2)


def curve(points: Sequence[Point], count: int = 24) -> np.ndarray:
    """``count`` points on a smooth curve through ``points`` (any number of columns)."""
    from scipy.interpolate import CubicSpline

    points = np.asarray(points, float)
    steps = np.linalg.norm(np.diff(points[:, :3], axis=0), axis=1)
    at = np.concatenate([[0], np.cumsum(steps)])
    return CubicSpline(at, points)(np.linspace(0, at[-1], count))


def ramp(values: np.ndarray, at: Sequence[float], heights: Sequence[float]) -> np.ndarray:
    """Linear interpolation of ``heights`` at ``values``, in the precision of ``values``."""
    return np.interp(values, at, heights).astype(np.float32)


def rotation(about_x: float, about_y: float, about_z: float) -> np.ndarray:
    """3×3 matrix that turns by degrees about x, then y, then z."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", (about_x, about_y, about_z), degrees=True).as_matrix()


def smooth_field(shape: Sequence[int], knots: int, rng: np.random.Generator) -> np.ndarray:
    """A random field (z, y, x) of unit variance with ``knots`` spans along every axis."""
    bases = [_spline_basis(np.linspace(-0.5, 0.5, n), 1.0, 1.0 / knots) for n in shape]
    return _spline_field(bases, rng)


def _spline_field(bases: Sequence[sparse.csr_array], rng: np.random.Generator) -> np.ndarray:
    """White noise on knots, interpolated by the bases of z, y and x, of unit variance.

    Values beyond 2.5 are cut off: a texture must never turn a tissue into another. Sparse products
    run in one order on every machine; those of BLAS depend on the number of threads.
    """
    field = rng.standard_normal([basis.shape[1] for basis in bases], dtype=np.float32)
    for basis in reversed(bases):  # brings the last axis to the front: (z, y, x) again in the end
        field = np.moveaxis(field, -1, 0)
        rest = field.shape[1:]
        field = (basis @ field.reshape(field.shape[0], -1)).reshape(-1, *rest)
    field /= _SPLINE_DEVIATION
    return np.clip(field, -2.5, 2.5, out=field)


def _spline_basis(axis: np.ndarray, length: float, scale: float) -> sparse.csr_array:
    """Weights (positions, knots) of uniform cubic B-splines whose knots are ``scale`` apart."""
    first = -length / 2 - 2 * scale
    knots = int(np.ceil(length / scale)) + 5
    t = np.abs((axis[:, None] - first) / scale - np.arange(knots))
    near = 2 / 3 - t**2 + t**3 / 2
    far = np.clip(2 - t, 0, None) ** 3 / 6
    return sparse.csr_array(np.where(t < 1, near, far).astype(np.float32))


def _dot(vector: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Scalar product of a vector with a field of vectors (3, z, y, x)."""
    x, y, z = np.asarray(vector, np.float32)
    return x * field[0] + y * field[1] + z * field[2]


def _soft_maximum(a: np.ndarray, b: np.ndarray, blend: float) -> np.ndarray:
    """Maximum with a quadratic fillet of width ``blend`` where ``a`` and ``b`` are close."""
    fillet = np.subtract(a, b)
    np.abs(fillet, out=fillet)
    np.subtract(blend, fillet, out=fillet)
    np.maximum(fillet, 0, out=fillet)
    np.square(fillet, out=fillet)
    fillet *= np.float32(0.25 / blend)
    fillet += np.maximum(a, b)
    return fillet
