"""Label images among scans, where no list says which is which: they must not be taken for scans."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from MIMSegment.Logic.errors import InputError

_WORDS = {
    *("label", "labels", "labelmap", "labelstr", "labelsts", "mask", "masks", "seg"),
    *("segmentation", "segmentations", "annotation", "annotations", "gt"),
}
_MOST_VALUES = 8  # of a label image that is told by what it holds; no scan has so few
_SAMPLES = 10_000


def refuse_label_files(folder: Path, files: Iterable[Path]) -> None:
    """Raise InputError where one of the ``files`` in ``folder`` is called as label images are.

    That is ``case_seg.nii.gz``, or anything in a folder ``labels``.
    """
    found = [path for path in files if _is_called_so(path.relative_to(folder))]
    if found:
        raise InputError(
            f"{folder} holds label images, {found[0]} by its name ({len(found)} such files), and "
            "no list of which belongs to which scan. Write one: dataset.json, or cases.csv with "
            "the columns image and label (docs/training.md); without the column label they are "
            "left out."
        )


def _is_called_so(place: Path) -> bool:
    stem = place.name.split(".")[0].lower()
    return re.split(r"[-_ ]", stem)[-1] in _WORDS or any(
        part.lower() in _WORDS for part in place.parent.parts
    )


def require_scan(array: np.ndarray, source: object) -> None:
    """Raise InputError for the image ``array`` in ``source`` that holds but a few whole numbers."""
    if array.size > _SAMPLES and len(np.unique(array.ravel()[:: array.size // _SAMPLES])) > (
        _MOST_VALUES
    ):
        return  # as for all scans; to sort every voxel takes its time
    values = np.unique(array)
    if len(values) <= _MOST_VALUES and np.array_equal(values, np.round(values)):
        listed = ", ".join(str(int(value)) for value in values)
        raise InputError(
            f"{source} looks like a label image, not like a scan: its only values are {listed}. "
            "Where it is the label of a scan, name both in cases.csv, in the columns image and "
            "label."
        )
