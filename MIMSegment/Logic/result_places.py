"""Does every lesion lie in the organ that bears it?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from MIMSegment.Logic.anatomy import containers_of
from MIMSegment.Logic.engine import Segmentation
from MIMSegment.Logic.finding import Finding, Severity
from MIMSegment.Logic.labels import Label
from MIMSegment.Logic.package import ModelPackage
from MIMSegment.Logic.result_checks import ml
from MIMSegment.Logic.structures import middle_of, split_pieces, structure_masks
from MIMSegment.Logic.volume import Geometry

_BORDERING = 0.1  # share of a lesion's surface on its organ from which it is taken to lie in it
_FAR = 3.0  # mm from the organ; less may be a matter of a voxel
_LEAST_VOXELS = 4
_MOST = 5  # findings for one structure


def check_containment(
    segmentation: Segmentation, labels: Sequence[Label], package: ModelPackage
) -> list[Finding]:
    """Lesions of which hardly any surface borders on their organ."""
    organs = {
        label.value: (label, values)
        for label in labels
        if (values := containers_of(label, package.labels, package.expectations))
    }
    if not organs:
        return []
    names = {label.value: label.name for label in package.labels}
    found = []
    for value, mask, start in structure_masks(segmentation.labels):
        if value in organs:
            label, values = organs[value]
            organ = " or ".join(names.get(o, f"label {o}") for o in values)
            found += _outside(segmentation, label, mask, start, values, organ)
    return found


def _outside(segmentation, label: Label, mask, start, organs, organ: str) -> list[Finding]:
    labels, geometry = segmentation.labels, segmentation.geometry
    is_organ = np.isin(labels, organs)
    found, distance = [], None
    numbers, sizes = split_pieces(mask)
    for number in np.argsort(sizes[1:])[::-1] + 1:
        if sizes[number] < _LEAST_VOXELS or len(found) == _MOST:
            break
        piece = numbers == number
        if _bordering(piece, start, is_organ) >= _BORDERING:
            continue
        volume, position = (
            sizes[number] * geometry.voxel_volume_ml,
            middle_of(piece, start, geometry),
        )
        if not is_organ.any():
            where = f"no {organ} was found around it"
        else:
            distance = _distance_to(is_organ, geometry) if distance is None else distance
            box = tuple(slice(s, s + n) for s, n in zip(start, mask.shape, strict=True))
            away = float(distance[box][piece].min())
            if away <= _FAR:
                continue
            where = f"it lies outside {organ}, {away:.0f} mm away from it"
        found.append(
            Finding(
                "lesion-outside-organ",
                Severity.WARNING,
                f"A {label.name} of {ml(volume)} mL may be none: {where}.",
                label.value,
                position,
            )
        )
    return found


def _bordering(piece: np.ndarray, start, is_organ: np.ndarray) -> float:
    """The share of the voxels around a piece that belong to the organ."""
    from scipy.ndimage import binary_dilation

    padded = np.pad(piece, 1)
    shell = binary_dilation(padded) & ~padded
    index = np.argwhere(shell) + np.subtract(start, 1)
    inside = ((index >= 0) & (index < is_organ.shape)).all(axis=1)
    z, y, x = index[inside].T
    return float(is_organ[z, y, x].mean()) if inside.any() else 0.0


def _distance_to(mask: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Millimeters to the nearest voxel of ``mask``."""
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(~mask, sampling=geometry.spacing).astype(np.float32)
