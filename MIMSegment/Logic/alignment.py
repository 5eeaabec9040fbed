"""Several images on one grid, placed by where they lie in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from MIMSegment.Logic.errors import GeometryError
from MIMSegment.Logic.volume import Geometry, Volume, itk, to_itk

_SAMPLES = 48  # points per axis at which the overlap of two boxes is measured


def combine(volumes: Sequence[Volume], order: int = 1) -> Volume:
    """The volumes as channels (c, z, y, x) on the first one's grid, the others resampled to it.

    ``order`` as in `align_to`. Raises GeometryError for images that barely overlap.
    """
    reference = volumes[0]
    stacked = stack_inputs([reference, *(align_to(reference, v, order) for v in volumes[1:])])
    frames = {v.header.get("FrameOfReferenceUID") for v in volumes} - {None}
    if len(frames) > 1:
        warning = (
            "The inputs have different frames of reference (the patient was positioned anew "
            "between them); check that they are aligned."
        )
        return replace(stacked, warnings=(*stacked.warnings, warning))
    return stacked


def align_to(
    reference: Volume,
    moving: Volume,
    order: int = 1,
    transform: np.ndarray | None = None,
    minimum_overlap: float = 0.5,
) -> Volume:
    """Resample ``moving`` onto the grid of ``reference`` in world space.

    ``order`` is 1 (linear) or 3 (cubic B-spline). ``transform`` is the 4×4 LPS matrix (mm) that
    takes points of ``moving`` to the world of ``reference``, such as a parent transform in a
    scene. Outside ``moving`` its minimum is set. Raises GeometryError if less than
    ``minimum_overlap`` of the reference's box is covered.
    """
    covered = overlap(reference, moving, transform)
    if covered < minimum_overlap:
        raise GeometryError(
            f"{moving.source} covers only {100 * covered:.0f} % of {reference.source} "
            f"({100 * minimum_overlap:.0f} % are needed); check that both show the same region "
            "of the same patient."
        )
    matrix = np.eye(4) if transform is None else np.asarray(transform, float)
    placed = Geometry(moving.geometry.shape, matrix @ moving.geometry.ijk_to_lps)
    if placed.is_close(reference.geometry, tolerance=1e-3):
        return Volume(moving.array, reference.geometry, moving.source, moving.warnings,
                      moving.header)  # fmt: skip
    channels = [_resampled(channel, moving, reference, order, matrix) for channel in moving.array]
    return Volume(np.stack(channels), reference.geometry, moving.source, moving.warnings,
                  moving.header)  # fmt: skip


def overlap(reference: Volume, moving: Volume, transform: np.ndarray | None = None) -> float:
    """The fraction of the box of ``reference`` that lies inside the box of ``moving``."""
    axes = [(np.arange(_SAMPLES) + 0.5) / _SAMPLES * n - 0.5 for n in reference.geometry.shape]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    points = np.stack([x, y, z, np.ones_like(x)]).reshape(4, -1)
    matrix = np.eye(4) if transform is None else np.asarray(transform, float)
    to_moving = np.linalg.inv(matrix @ moving.geometry.ijk_to_lps) @ reference.geometry.ijk_to_lps
    index = (to_moving @ points)[:3]
    size = np.array(moving.geometry.shape[::-1], float)[:, None]
    return float(((index >= -0.5) & (index <= size - 0.5)).all(axis=0).mean())


def stack_inputs(volumes: Sequence[Volume]) -> Volume:
    """One volume with the channels of all, in their order, on the grid that they share.

    Raises GeometryError if the grids differ; `align_to` brings them together.
    """
    first = volumes[0]
    for other in volumes[1:]:
        if not other.geometry.is_close(first.geometry):
            raise GeometryError(
                f"{other.source} does not lie voxel on voxel with {first.source}; align it first."
            )
    warnings = tuple(dict.fromkeys(w for volume in volumes for w in volume.warnings))
    return Volume(
        np.concatenate([volume.array for volume in volumes]),
        first.geometry,
        ", ".join(volume.source for volume in volumes),
        warnings,
        first.header,
    )


def _resampled(channel: np.ndarray, moving: Volume, reference: Volume, order: int, matrix):
    sitk = itk()
    image = to_itk(Volume(channel[None].astype(np.float32), moving.geometry))
    affine = sitk.AffineTransform(3)
    to_moving = np.linalg.inv(matrix)  # ITK asks where in the moving image a point comes from
    affine.SetMatrix(to_moving[:3, :3].ravel().tolist())
    affine.SetTranslation(to_moving[:3, 3].tolist())
    grid = reference.geometry
    result = sitk.Resample(
        image,
        grid.shape[::-1],
        affine,
        {1: sitk.sitkLinear, 3: sitk.sitkBSpline}[order],
        grid.origin.tolist(),
        grid.spacing[::-1],
        grid.direction.ravel().tolist(),
        float(channel.min()),
        sitk.sitkFloat32,
    )
    return sitk.GetArrayFromImage(result)
