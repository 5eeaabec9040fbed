"""What a rejected lesion was drawn over: the organ around it goes on there.

A voxel has one label, so a lesion leaves a hole in its organ. When the reviewer rejects the lesion,
the hole is the organ's again where the organ is measured as a whole or learnt from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from MIMSegment.Logic.anatomy import is_anatomy, is_lesion
from MIMSegment.Logic.reviewed_case import ReviewedCase
from MIMSegment.Logic.structures import split_pieces, structure_masks
from MIMSegment.Logic.volume import Volume

Box = tuple[slice, slice, slice]

_LEAST_SHARE = 1 / 3  # of a lesion's surface that is inside the organ; at its capsule half is not


def with_organs_restored(case: ReviewedCase) -> ReviewedCase:
    """``case`` with its rejected lesions given back to the organs that they lie in.

    Of each rejected lesion, a connected part whose surface borders by at least a third on
    anatomical structures and their lesions goes to these structures, each voxel to the nearest;
    another part stays left out. The case itself is returned where there is nothing to give back.
    """
    rejected = [label.value for label in case.rejected if is_lesion(label)]
    organs = [label.value for label in case.table if is_anatomy(label)]
    if case.everything is None or not rejected or not organs:
        return case
    inside = [*organs, *(label.value for label in case.table if is_lesion(label))]
    # With a border, so that a part at the image's edge has a surface all around.
    labels, everything = (np.pad(v.array[0], 1) for v in (case.labels, case.everything))
    restored = labels.copy()
    for part, box in _parts(everything, rejected):
        surface = _grown(part) & ~np.isin(everything[box], rejected)
        around = labels[box]
        within = np.count_nonzero(surface & np.isin(around, inside))
        is_organ = np.isin(around, organs)
        if within >= _LEAST_SHARE * np.count_nonzero(surface) and is_organ.any():
            nearest = _nearest(is_organ, case.labels.geometry.spacing)
            restored[box][part] = around[nearest][part]
    array = np.ascontiguousarray(restored[1:-1, 1:-1, 1:-1])
    volume = Volume(array[None], case.labels.geometry, case.labels.source)
    return replace(case, labels=volume)


def _parts(labels: np.ndarray, values: Sequence[int]) -> Iterator[tuple[np.ndarray, Box]]:
    """The connected parts of these values: each as a mask in its box, one voxel wider, and the
    box."""
    for value, mask, start in structure_masks(labels):
        if value not in values:
            continue
        for _, part, first in structure_masks(split_pieces(mask)[0]):
            low = np.add(start, first) - 1
            box = tuple(slice(a, a + n + 2) for a, n in zip(low, part.shape, strict=True))
            yield np.pad(part, 1), box


def _grown(part: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_dilation

    return binary_dilation(part) & ~part


def _nearest(where: np.ndarray, spacing: Sequence[float]) -> tuple[np.ndarray, ...]:
    """The index of the voxel nearest to each in mm, among those ``where`` holds."""
    from scipy.ndimage import distance_transform_edt

    found = distance_transform_edt(
        ~where, sampling=spacing, return_distances=False, return_indices=True
    )
    return tuple(found)
