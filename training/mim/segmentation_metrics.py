"""Overlap, surface and volume agreement of a segmentation with its reference, per structure."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_MARGIN = 2  # voxels kept around a structure, so that its surface is closed


@dataclass(frozen=True)
class StructureMetrics:
    """Agreement on one structure of one case.

    ``dice`` and ``nsd`` (normalized surface Dice) lie in 0..1, ``hd95`` is in mm, the volumes in
    mL. All but the volumes are NaN where neither prediction nor reference has the structure; where
    only one of them has it, ``dice`` and ``nsd`` are 0 and ``hd95`` is the image's diagonal.
    """

    dice: float
    nsd: float
    hd95: float
    volume: float
    reference_volume: float

    @property
    def volume_error(self) -> float:
        """Prediction minus reference, mL."""
        return self.volume - self.reference_volume


def structure_metrics(
    prediction: np.ndarray,
    reference: np.ndarray,
    values: Mapping[str, int | Sequence[int]],
    spacing: Sequence[float],
    tolerance: float = 2.0,
    reference_values: Mapping[str, int | Sequence[int]] | None = None,
) -> dict[str, StructureMetrics]:
    """Metrics by structure name for label images (z, y, x) with voxels of ``spacing`` mm (z, y, x).

    ``values`` maps a name to its label value, or to the values that make up a region (whole tumor),
    and ``reference_values`` to those of the reference, where they are others. ``tolerance`` of the
    surface Dice is in mm. Surfaces are measured by MONAI (Nikolov et al., arXiv 1809.04430, for the
    surface Dice). Raises ValueError when the arrays' shapes differ.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction {prediction.shape} and reference {reference.shape} differ")
    truth = values if reference_values is None else reference_values
    return {
        name: _metrics(
            np.isin(prediction, value), np.isin(reference, truth[name]), tuple(spacing), tolerance
        )
        for name, value in values.items()
    }


def _metrics(found: np.ndarray, truth: np.ndarray, spacing, tolerance: float) -> StructureMetrics:
    voxel = float(np.prod(spacing)) / 1000
    volumes = float(found.sum()) * voxel, float(truth.sum()) * voxel
    if not found.any() and not truth.any():
        return StructureMetrics(*[float("nan")] * 3, *volumes)
    if not found.any() or not truth.any():
        diagonal = float(np.linalg.norm(np.multiply(found.shape, spacing)))
        return StructureMetrics(0.0, 0.0, diagonal, *volumes)
    dice = 2 * float((found & truth).sum()) / float(found.sum() + truth.sum())
    return StructureMetrics(dice, *_surface_metrics(found, truth, spacing, tolerance), *volumes)


def _surface_metrics(found, truth, spacing, tolerance: float) -> tuple[float, float]:
    """Surface Dice and 95th percentile of the surface distances, mm; in a single slice, where all
    of a structure would be surface, those of its outline."""
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    if found.shape[0] == 1:
        found, truth, spacing = found[0], truth[0], spacing[1:]
    box = _bounding_box(found | truth)
    pair = [torch.from_numpy(np.pad(a[box], _MARGIN))[None, None].float() for a in (found, truth)]
    with warnings.catch_warnings():  # MONAI warns of how it calls itself
        warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)
        nsd = compute_surface_dice(
            *pair, [tolerance], include_background=True, spacing=list(spacing), use_subvoxels=True
        )
        hd95 = compute_hausdorff_distance(
            *pair, include_background=True, percentile=95, spacing=list(spacing)
        )
    return float(nsd), float(hd95)


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    box = []
    for axis in range(mask.ndim):
        line = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append(slice(line[0], line[-1] + 1))
    return tuple(box)
