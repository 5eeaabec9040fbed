"""Volumes of a result, and their change against an earlier result of the same structures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from MIMSegment.Logic.labels import Label
from MIMSegment.Logic.reviewed_case import ReviewedCase
from MIMSegment.Logic.structures import LEAST_SECTION, Structure, measure_structures
from MIMSegment.Logic.volume import Volume

_SPACING_RATIO = 1.5  # beyond which partial volume alone changes small structures


@dataclass(frozen=True)
class Prior:
    """An earlier result: its label image (1, z, y, x) without rejected structures, the labels in
    it, the package that made it as "id version" ("" where unknown), and a name, such as its
    date."""

    labels: Volume
    table: tuple[Label, ...]
    algorithm: str = ""
    name: str = "Prior"


@dataclass(frozen=True)
class VolumeRow:
    """A structure's volume in mL and, against a prior, its volume then, the change in mL and in %
    of then (None when there was nothing); or ``not_comparable`` says why there is no change to
    give."""

    label: int
    name: str
    volume_ml: float
    prior_ml: float | None = None
    change_ml: float | None = None
    change_percent: float | None = None
    not_comparable: str = ""


def volume_rows(case: ReviewedCase, prior: Prior | None = None) -> tuple[VolumeRow, ...]:
    """A row for each structure that is not rejected, in the order of the label values."""
    table = sorted(case.table, key=lambda label: label.value)
    counts = np.bincount(case.labels.array.ravel(), minlength=table[-1].value + 1)
    volumes = counts * case.labels.geometry.voxel_volume_ml
    rows = [VolumeRow(label.value, label.name, float(volumes[label.value])) for label in table]
    return tuple(_compared(rows, case, prior) if prior else rows)


def _compared(rows: list[VolumeRow], case: ReviewedCase, prior: Prior) -> list[VolumeRow]:
    everywhere = _why_not(case, prior)
    names = {label.value: label.name for label in prior.table}
    now = measure_structures(case.labels.array[0], case.labels.geometry)
    then = measure_structures(prior.labels.array[0], prior.labels.geometry)
    compared = []
    for row in rows:
        structure, earlier = now.get(row.label), then.get(row.label)
        known = names.get(row.label) == row.name
        reason = everywhere or ("" if known else "no such structure then")
        reason = reason or _cut(structure, "now") or _cut(earlier, "then")
        what = (row.label, row.name, row.volume_ml)
        if reason:
            compared.append(VolumeRow(*what, not_comparable=reason))
            continue
        before = earlier.volume_ml if earlier else 0.0
        change = row.volume_ml - before
        percent = 100 * change / before if before else None
        compared.append(VolumeRow(*what, before, change, percent))
    return compared


def _why_not(case: ReviewedCase, prior: Prior) -> str:
    """Why no structure can be compared, "" when all can."""
    algorithm = case.provenance.algorithm
    if prior.algorithm != algorithm:
        return f"made by {prior.algorithm or 'an unknown model'}, now by {algorithm}"
    spacings = [sorted(volume.geometry.spacing) for volume in (case.labels, prior.labels)]
    ratios = np.divide(*spacings)
    if max(ratios.max(), (1 / ratios).max()) > _SPACING_RATIO:
        now, then = (" × ".join(f"{s:.3g}" for s in spacing) for spacing in spacings)
        return f"voxels of {then} mm then, {now} mm now"
    return ""


def _cut(structure: Structure | None, when: str) -> str:
    if structure and any(section.area_mm2 >= LEAST_SECTION for section in structure.cut):
        return f"cut off by the border of the image {when}"
    return ""
