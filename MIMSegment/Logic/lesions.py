"""Prostate volumes and lesions one by one: sizes and places, no scores."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from MIMSegment.Logic.anatomy import is_lesion
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.labels import Label
from MIMSegment.Logic.rejected_lesions import with_organs_restored
from MIMSegment.Logic.reviewed_case import ReviewedCase
from MIMSegment.Logic.structures import middle_of, split_pieces, structure_masks
from MIMSegment.Logic.volume import Geometry

_LEAST_VOXELS = 4
_MOST_PSA = 100_000  # ng/mL; more than anyone has had
_PROSTATE, _ZONES = "41216001", ("279706003", "399384005")  # SNOMED CT: prostate, its PZ and TZ
_NAMES = ("prostate", "peripheral zone", "transition zone")


@dataclass(frozen=True)
class LesionRow:
    """One lesion: its name, volume, the zone or organ that most of its surface borders on, its
    three axes in mm (longest first, along its principal directions), and an LPS point in it.

    The name is the one that it has in the review and in the exported segmentation; of a structure
    in several parts, with the number of the part.
    """

    name: str
    volume_ml: float
    zone: str
    axes_mm: tuple[float, float, float]
    position: tuple[float, float, float]


@dataclass(frozen=True)
class ProstateVolume:
    """The gland with its lesions in mL, its PSA density in ng/mL per mL where PSA is known."""

    volume_ml: float
    psa: float | None = None

    @property
    def psa_density(self) -> float | None:
        """PSA / volume, ng/mL²."""
        return self.psa / self.volume_ml if self.psa is not None and self.volume_ml else None


def prostate_volume(case: ReviewedCase) -> ProstateVolume | None:
    """The prostate's volume: its own label, or its zones, with the lesions in them, which are
    tissue of the gland also where they were rejected; None for other results, when a zone was
    rejected, and when a zone or the lesions were not asked for, without which the gland is too
    small. Raises InputError for a PSA that is none."""
    values = _gland(case)
    if not values or parts_not_asked(case):
        return None
    lesions = [s.value for s in case.table if is_lesion(s)]
    gland = np.isin(with_organs_restored(case).labels.array, [*values, *lesions])
    voxels = int(np.count_nonzero(gland))
    return ProstateVolume(
        voxels * case.labels.geometry.voxel_volume_ml, _psa(case.options.get("psa"))
    )


def parts_not_asked(case: ReviewedCase) -> tuple[str, ...]:
    """What the prostate's volume lacks because it was not asked for, by name; empty for results
    with nothing of a prostate."""
    codes = {s.type.value for s in case.table if s.type is not None and not is_lesion(s)}
    if not codes & {_PROSTATE, *_ZONES}:
        return ()
    zones = () if _PROSTATE in codes else _ZONES
    return tuple(
        s.name
        for s in case.not_asked
        if is_lesion(s) or (s.type is not None and s.type.value in zones)
    )


def asks_for_psa(names: Iterable[str]) -> bool:
    """Whether a result with structures of these names may have a volume to set against PSA."""
    return any(word in name.lower() for name in names for word in _NAMES)


def lesion_rows(case: ReviewedCase) -> tuple[LesionRow, ...]:
    """Every connected lesion that is not rejected, the largest first."""
    labels, geometry = case.labels.array[0], case.labels.geometry
    by_value = {label.value: label for label in case.table}
    names = {label.value: label.name for label in case.table if not is_lesion(label)}
    found = []
    for value, mask, start in structure_masks(labels):
        if value in by_value and is_lesion(by_value[value]):
            found += _pieces(labels, geometry, by_value[value], mask, start, names)
    return tuple(sorted(found, key=lambda row: -row.volume_ml))


def _psa(given: object) -> float | None:
    """The PSA in ng/mL, None when none is given."""
    if given is None or given == "":
        return None
    try:
        psa = float(str(given).replace(",", "."))
    except ValueError:
        psa = 0.0
    if not 0 < psa < _MOST_PSA:
        raise InputError(f"A PSA of {given} ng/mL is not possible; give a number above 0.")
    return psa


def _gland(case: ReviewedCase) -> list[int]:
    codes = {s.value: s.type.value for s in case.table if s.type is not None and not is_lesion(s)}
    whole = [value for value, code in codes.items() if code == _PROSTATE]
    zones = [value for value, code in codes.items() if code in _ZONES]
    return whole or (zones if len(zones) == len(_ZONES) else [])


def _pieces(labels, geometry: Geometry, label: Label, mask, start, names):
    numbers, sizes = split_pieces(mask)
    large = [number for number in np.argsort(-sizes, kind="stable") if number]
    large = [number for number in large if sizes[number] >= _LEAST_VOXELS]
    for part, number in enumerate(large, 1):
        piece = numbers == number
        yield LesionRow(
            label.name if len(large) == 1 else f"{label.name}, part {part} of {len(large)}",
            float(sizes[number] * geometry.voxel_volume_ml),
            _zone(labels, piece, start, names),
            _axes(piece, geometry),
            middle_of(piece, start, geometry),
        )


def _zone(labels: np.ndarray, piece: np.ndarray, start, names: dict[int, str]) -> str:
    """The structure that most of the voxels around the piece belong to; "" without one."""
    from scipy.ndimage import binary_dilation

    padded = np.pad(piece, 1)
    index = np.argwhere(binary_dilation(padded) & ~padded) + np.subtract(start, 1)
    index = index[((index >= 0) & (index < labels.shape)).all(axis=1)]
    around = labels[tuple(index.T)]
    counts = {value: int((around == value).sum()) for value in names}
    best = max(counts, key=counts.get, default=None)
    return names[best] if best is not None and counts[best] else ""


def _axes(piece: np.ndarray, geometry: Geometry) -> tuple[float, float, float]:
    """Extent in mm along the principal axes, a voxel's own size included."""
    points = np.argwhere(piece)[:, ::-1] @ geometry.ijk_to_lps[:3, :3].T
    points = points - points.mean(axis=0)
    _, _, directions = np.linalg.svd(points, full_matrices=False)
    voxel = np.abs(geometry.ijk_to_lps[:3, :3].T @ directions.T).sum(axis=0)
    lengths = np.ptp(points @ directions.T, axis=0) + voxel
    return tuple(float(v) for v in sorted(lengths, reverse=True))
