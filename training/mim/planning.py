"""From the fingerprint of a data set to a plan: spacing, normalization, patch and network shape.

The rules follow nnU-Net (Isensee et al., Nature Methods 2021) with a budget of voxels in place of
a budget of GPU memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from MIMSegment.Logic.spec import Normalization

ANISOTROPY = 3.0
SMALLEST_FEATURE_MAP = 4
# Of intensities; zscore_nonzero leaves zeros zero, which are the outside of a stripped skull.
SCHEMES = ("zscore", "zscore_nonzero", "ct", "rescale_to_01", "rgb_to_01", "none")
_NNUNET_NAMES = {
    "nonorm": "none",
    "rescale_to_0_1": "rescale_to_01",
    "rgb_to_0_1": "rgb_to_01",
    "zscore": "zscore",
}


def intensity_summary(samples: np.ndarray) -> dict[str, float]:
    """Mean, standard deviation and the percentiles 0.5 and 99.5 of the values of one channel."""
    low, median, high = np.percentile(samples, [0.5, 50, 99.5])
    return {
        "mean": float(samples.mean(dtype=np.float64)),
        "std": float(samples.std(dtype=np.float64)),
        "percentile_00_5": float(low),
        "median": float(median),
        "percentile_99_5": float(high),
    }


def working_spacing(spacings: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Median voxel size in mm (z, y, x); along a coarse axis its 10th percentile."""
    spacings = np.asarray(spacings, float)
    median = np.median(spacings, axis=0)
    coarse = int(median.argmax())
    if median.max() / median.min() > ANISOTROPY:
        median[coarse] = max(
            np.percentile(spacings[:, coarse], 10), np.delete(median, coarse).max()
        )
    return tuple(round(float(s), 4) for s in median)


def scheme_of(name: str, modality: str) -> str:
    """How an input is normalized, of `SCHEMES`: as its name says, if it is one of nnU-Net's for
    that; CT by a fixed window, anything else by z-score."""
    return _NNUNET_NAMES.get(name.casefold(), "ct" if modality == "CT" else "zscore")


def normalization(scheme: str, intensities: dict[str, float]) -> Normalization:
    """One of `SCHEMES`: a fixed window of the training data, or each image's own values, of which a
    z-score clips the outermost."""
    if scheme == "ct":
        return Normalization(
            "ct",
            mean=round(intensities["mean"], 4),
            std=round(intensities["std"], 4),
            lower=round(intensities["percentile_00_5"], 4),
            upper=round(intensities["percentile_99_5"], 4),
        )
    if scheme.startswith("zscore"):
        return Normalization("zscore", scheme == "zscore_nonzero", percentiles=(0.5, 99.5))
    return Normalization(scheme)


def patch_and_strides(
    shape: Sequence[int], spacing: Sequence[float], voxels: int, stages: int
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Patch size (z, y, x) of at most about ``voxels`` and the stride of each of ``stages``.

    The patch has the proportions of the median image ``shape``, in voxels of ``spacing``; an axis
    is halved while it is long enough, and not much coarser than the finest that is.
    """
    patch = np.asarray(shape, float)
    patch = np.minimum(patch, _shrunk(patch, np.asarray(spacing, float), voxels))
    strides, size, voxel = [(1, 1, 1)], patch.copy(), np.asarray(spacing, float).copy()
    for _ in range(stages - 1):
        long = size >= 2 * SMALLEST_FEATURE_MAP
        halve = long & (voxel < 2 * voxel.min(initial=np.inf, where=long))
        strides.append(tuple(int(s) for s in np.where(halve, 2, 1)))
        size = np.where(halve, size / 2, size)
        voxel = np.where(halve, voxel * 2, voxel)
    factor = np.prod(strides, axis=0)
    return tuple(
        int(f * max(1, np.ceil(p / f - 0.25))) for p, f in zip(patch, factor, strict=True)
    ), (tuple(strides))


def _shrunk(patch: np.ndarray, spacing: np.ndarray, voxels: int) -> np.ndarray:
    """Cut the axis that is longest in mm until the patch fits the budget."""
    patch = patch.copy()
    while np.prod(patch) > voxels:
        longest = int((patch * spacing).argmax())
        patch[longest] -= 1
    return patch


def kernel_sizes(strides: Sequence[Sequence[int]], spacing: Sequence[float]):
    """3×3×3, but 1 along an axis that has been more than twice as coarse as the finest so far."""
    voxel, kernels = np.asarray(spacing, float).copy(), []
    wide = np.zeros(len(voxel), bool)
    for stride in strides:
        voxel = voxel * stride
        wide |= voxel <= 2 * voxel.min()
        kernels.append(tuple(int(k) for k in np.where(wide, 3, 1)))
    return tuple(kernels)


def modality_of(name: str) -> str:
    """ "CT" for an input whose name says so, "MR" otherwise."""
    return "CT" if name.upper().split()[0].split("_")[0] == "CT" else "MR"
