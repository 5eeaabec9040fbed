"""Checking every case before it is used: what must not be used is left out, by name and reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial

import numpy as np
from tqdm import tqdm

from mim.cases import Case, Dataset
from mim.label_files import require_scan
from mim.plausibility_ranges import measure_case
from mim.regions import Region, painted_labels
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.preprocess import nonzero_box
from MIMSegment.Logic.volume import read_volume

SAMPLES_PER_CASE = 10_000


def inspect_cases(
    pool: Executor, cases: Sequence[Case], dataset: Dataset, crop: bool = False
) -> tuple[dict[str, dict], list[dict]]:
    """The fingerprint of every usable case by its id; and of the others the id and the reason.

    With ``crop`` the shape is that of what is not 0.
    """
    check = partial(
        _fingerprint_or_reason,
        values=frozenset(dataset.labels),
        channels=len(dataset.inputs),
        ignore=dataset.ignore,
        crop=crop,
        regions=dataset.regions,
    )
    prints, excluded = {}, []
    checked = tqdm(pool.map(check, cases), "check", len(cases), unit="case")
    for case, result in zip(cases, checked, strict=True):
        if isinstance(result, str):
            excluded.append({"id": case.id, "reason": result})
        else:
            prints[case.id] = result
    return _of_one_kind(prints, excluded)


def _of_one_kind(prints: dict[str, dict], excluded: list[dict]) -> tuple[dict, list[dict]]:
    """Leave out the cases with another number of channels than most have."""
    counts = Counter(len(found["samples"]) for found in prints.values())
    usual = counts.most_common(1)[0][0] if counts else 0
    for identifier in [i for i, found in prints.items() if len(found["samples"]) != usual]:
        channels = len(prints.pop(identifier)["samples"])
        reason = f"{identifier} has {channels} channels, most cases have {usual}."
        excluded.append({"id": identifier, "reason": reason})
    return prints, excluded


def _fingerprint_or_reason(case: Case, **known) -> dict | str:
    try:
        return inspect_case(case, **known)
    except InputError as error:
        return str(error)


def inspect_case(
    case: Case,
    values: frozenset[int],
    channels: int = 0,
    ignore: int | None = None,
    crop: bool = False,
    regions: Sequence[Region] = (),
) -> dict:
    """The fingerprint of one case. Raises InputError, naming the file, when it must not be used.

    What its label leaves open (``ignore``) counts as nothing, and no structure is measured then: it
    may go on there.
    """
    if not case.subject:
        raise InputError(
            f"{case.image}: neither a list of subjects (dataset.json) nor a folder of one patient "
            "says whose this is, so it could be of a subject that is held back."
        )
    volume = case.read()
    if channels and len(volume.array) != channels:
        raise InputError(
            f"{case.image} has {len(volume.array)} channels instead of {channels}, the inputs that "
            "the data set names."
        )
    for index, channel in enumerate(volume.array):
        if channel.min() == channel.max():
            where = f"channel {index} of " if len(volume.array) > 1 else ""
            raise InputError(f"{where}{case.image} is constant ({channel.min()} everywhere).")
    if not case.is_labeled:
        require_scan(volume.array, case.image)
    mask, labels, classes = None, None, {}
    if case.label is not None:
        labels = read_labels(case, volume.geometry, values, ignore)
        found, counts = np.unique(labels, return_counts=True)
        pairs = zip(found.tolist(), counts.tolist(), strict=True)
        classes = {str(value): count for value, count in pairs if value != ignore}
        mask = (labels > 0) & (labels != (ignore or 0))
        labels = labels if ignore is None or ignore not in found else None
        if labels is not None and regions:
            labels = painted_labels(labels, regions)  # what a result is compared with
    inside = mask if mask is not None and mask.any() else np.ones(volume.geometry.shape, bool)
    rng = np.random.default_rng(0)
    samples = [rng.choice(c[inside], SAMPLES_PER_CASE).astype(np.float32) for c in volume.array]
    oriented = volume.reoriented("LPS")
    start, stop = nonzero_box(oriented.array) if crop else ((0, 0, 0), oriented.geometry.shape)
    return {
        "spacing": oriented.geometry.spacing,
        "shape": tuple(b - a for a, b in zip(start, stop, strict=True)),
        "classes": classes,
        "samples": samples,
        "measures": measure_case(volume, labels),
    }


def read_labels(
    case: Case, geometry, values: frozenset[int], ignore: int | None = None
) -> np.ndarray:
    """Label array (z, y, x) uint8 of a case; InputError when it does not fit image or table.

    It may also have the value ``ignore``.
    """
    label = read_volume(case.label)
    if not label.geometry.is_close(geometry):
        raise InputError(
            f"{case.label} is not on the grid of {case.image}: shape {label.geometry.shape} "
            f"spacing {_rounded(label.geometry.spacing)} origin {_rounded(label.geometry.origin)} "
            f"against {geometry.shape} {_rounded(geometry.spacing)} {_rounded(geometry.origin)}. "
            "Resample it to that grid, by nearest neighbor."
        )
    array = label.array[0]
    if len(label.array) != 1 or not np.array_equal(array, np.round(array)):
        raise InputError(
            f"{case.label} is no label image: it has channels or fractions; make it again with one "
            "whole number for each voxel, resampled by nearest neighbor."
        )
    found = {int(v) for v in np.unique(array)}
    unknown = sorted(found - set(values) - {0, ignore}) if values else []
    if min(found) < 0 or max(found) > 255:
        raise InputError(
            f"{case.label} has values from {min(found)} to {max(found)}; labels are from 0 to 255: "
            "give its structures other numbers."
        )
    if unknown:
        raise InputError(
            f"{case.label} has values that no label is named for: {unknown}; name them in "
            "dataset.json, or mend the image."
        )
    return array.astype(np.uint8)


def _rounded(values) -> tuple[float, ...]:
    return tuple(round(float(v), 3) for v in values)
