"""Volumes of a result, and their change against an earlier result of the same structures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from MIMSegment.Logic.labels import Label
from MIMSegment.Logic.postprocess import in_model_values
from MIMSegment.Logic.reviewed_case import ReviewedCase
from MIMSegment.Logic.structures import LEAST_SECTION, Structure, measure_structures
from MIMSegment.Logic.volume import Volume

_SPACING_RATIO = 1.5  # beyond which partial volume alone changes small structures


@dataclass(frozen=True)
class Prior:
    """An earlier result: its label image (1, z, y, x) without rejected structures, the labels in
    it, the package that made it as "id version" ("" where unknown), a name, such as its date, and
    whether its images say that they are of another patient."""

    labels: Volume
    table: tuple[Label, ...]
    algorithm: str = ""
    name: str = "Prior"
    other_patient: bool = False


@dataclass(frozen=True)
class VolumeRow:
    """A structure's volume in mL and, against a prior, its volume then, the change in mL and in %
    of then (None when there was nothing); or ``not_comparable`` says why there is no change to
    give. ``label`` is None for several lesions of one kind together, and only these are compared:
    which of them is which of then is not known."""

    label: int | None
    name: str
    volume_ml: float
    prior_ml: float | None = None
    change_ml: float | None = None
    change_percent: float | None = None
    not_comparable: str = ""


def volume_rows(case: ReviewedCase, prior: Prior | None = None) -> tuple[VolumeRow, ...]:
    """A row for each structure that is not rejected, in the order of the model's label values;
    after several lesions of one kind a row for all of them."""
    counts = np.bincount(case.labels.array.ravel(), minlength=max(s.value for s in case.table) + 1)
    volumes = counts * case.labels.geometry.voxel_volume_ml
    compare = _Comparison(case, prior) if prior else None
    rows: list[VolumeRow] = []
    for value, members in _by_model_value(case.table).items():
        own = [VolumeRow(s.value, s.name, float(volumes[s.value])) for s in members]
        if len(own) > 1:
            kind = next((s.model_name for s in members if s.model_name), members[0].name)
            name = f"{kind}, all {len(own)}"
            own.append(VolumeRow(None, name, sum(row.volume_ml for row in own)))
        if compare:
            own[-1] = compare(own[-1], value)
        rows += own
    return tuple(rows)


def _by_model_value(table: Sequence[Label]) -> dict[int, list[Label]]:
    found: dict[int, list[Label]] = {}
    for label in sorted(table, key=lambda label: (label.source_value, label.value)):
        found.setdefault(label.source_value, []).append(label)
    return found


class _Comparison:
    """Compares structures, lesions of one kind together, with what they were."""

    def __init__(self, case: ReviewedCase, prior: Prior):
        self._everywhere = _why_not(case, prior)
        self._now, self._names = _measured(case.labels, case.table)
        self._then, self._names_then = _measured(prior.labels, prior.table)

    def __call__(self, row: VolumeRow, value: int) -> VolumeRow:
        structure, earlier = self._now.get(value), self._then.get(value)
        known = self._names_then.get(value) == self._names[value]
        reason = self._everywhere or ("" if known else "no such structure then")
        reason = reason or _cut(structure, "now") or _cut(earlier, "then")
        if reason:
            return replace(row, not_comparable=reason)
        before = earlier.volume_ml if earlier else 0.0
        change = row.volume_ml - before
        percent = 100 * change / before if before else None
        return replace(row, prior_ml=before, change_ml=change, change_percent=percent)


def _measured(volume: Volume, table: Sequence[Label]):
    """The structures and their names by the model's label value."""
    array, labels = in_model_values(volume.array[0], table)
    names = {label.value: label.name for label in labels}
    return measure_structures(array, volume.geometry), names


def _why_not(case: ReviewedCase, prior: Prior) -> str:
    """Why no structure can be compared, "" when all can."""
    if prior.other_patient:
        return "of another patient"
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
