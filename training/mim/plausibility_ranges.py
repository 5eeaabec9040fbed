"""What the training images are like, in the ranges that a package's plausibility checks use.

The measuring is that of the checks themselves (MIMSegment.Logic), so that a training image is by
construction inside the ranges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mim.data import read_cache
from mim.evaluation import read_source
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.expectations import Expectations, GrayValueRange, Range, StructureRange
from MIMSegment.Logic.gray_values import GrayValues, describe
from MIMSegment.Logic.sequences import sequence_of
from MIMSegment.Logic.structures import LEAST_SECTION, Structure, measure_structures
from MIMSegment.Logic.volume import Volume, axes_to, permuted, read_volume

_PIECES_QUANTILE = 0.95  # a few training labels are themselves in pieces by mistake


@dataclass(frozen=True)
class CaseMeasures:
    """One training image: upright voxel size and extent in mm (z, y, x), its channels' gray values
    and the structures of its label, None where it has no label."""

    spacing: tuple[float, float, float]
    extent: tuple[float, float, float]
    channels: tuple[GrayValues, ...]
    structures: dict[int, Structure] | None


def measure_case(volume: Volume, labels: np.ndarray | None) -> CaseMeasures:
    """Measure an image (c, z, y, x) and its labels (z, y, x) on the same grid."""
    upright = permuted(volume.geometry, *axes_to(volume.geometry, "LPS"))
    structures = None if labels is None else measure_structures(labels, volume.geometry)
    return CaseMeasures(
        upright.spacing,
        tuple(float(n * s) for n, s in zip(upright.shape, upright.spacing, strict=True)),
        tuple(describe(channel) for channel in volume.array),
        structures,
    )


def expectations_of(cases: Sequence[CaseMeasures]) -> Expectations:
    """The ranges over training images."""
    labelled = [case.structures for case in cases if case.structures is not None]
    values = sorted({value for structures in labelled for value in structures})
    return Expectations(
        images=len(cases),
        spacing=_axis_ranges([case.spacing for case in cases]),
        extent=_axis_ranges([case.extent for case in cases]),
        inputs=tuple(
            _gray_values([case.channels[c] for case in cases])
            for c in range(len(cases[0].channels))
        ),
        structures=tuple(_structure(value, labelled) for value in values),
    )


def known_expectations(fingerprint: dict, folder: str | Path) -> Expectations | None:
    """The ranges that prepare.py put into a fingerprint; for one that is older than they, from the
    sources of the cache ``folder``; None where those are not there any more."""
    known = fingerprint.get("plausibility")
    if known is not None:
        return Expectations.from_dict(known, "the fingerprint")
    try:
        cache = read_cache(folder)
        return expectations_of([_measure_entry(entry) for entry in cache.cases_of(cache.train)])
    except (InputError, KeyError):
        return None


def for_inputs(expectations: Expectations, inputs: Sequence[dict]) -> Expectations:
    """The same with the inputs marked whose numbers mean something: CT, PET, ADC.

    ``inputs`` are a plan's: name and modality.
    """
    if len(inputs) != len(expectations.inputs):
        raise InputError(
            f"The plan has {len(inputs)} inputs, the cache's ranges {len(expectations.inputs)}."
        )
    marked = (
        replace(
            known, quantitative=i["modality"] in ("CT", "PT") or sequence_of(i["name"]) == "ADC"
        )
        for known, i in zip(expectations.inputs, inputs, strict=True)
    )
    return replace(expectations, inputs=tuple(marked))


def _measure_entry(entry: dict) -> CaseMeasures:
    """A case of a cache, from its source files."""
    volume, label = read_source(entry["source"]), entry["source_label"]
    labels = None if label is None else read_volume(label).array[0].astype(np.int32)
    return measure_case(volume, labels)


def _axis_ranges(rows: Sequence[Sequence[float]]) -> tuple[Range, Range, Range]:
    return tuple(_range(column) for column in zip(*rows, strict=True))


def _range(values: Sequence[float]) -> Range:
    return round(float(min(values)), 4), round(float(max(values)), 4)


def _gray_values(images: Sequence[GrayValues]) -> GrayValueRange:
    profile = np.mean([image.profile for image in images if image.profile], axis=0)
    return GrayValueRange(
        _range([image.low for image in images]),
        _range([image.median for image in images]),
        _range([image.high for image in images]),
        tuple(round(float(share), 5) for share in profile),
    )


def _structure(value: int, labelled: Sequence[dict[int, Structure]]) -> StructureRange:
    found = [structures[value] for structures in labelled if value in structures]
    cut = [any(s.area_mm2 >= LEAST_SECTION for s in structure.cut) for structure in found]
    pieces = np.quantile([len(s.pieces) for s in found], _PIECES_QUANTILE, method="higher")
    return StructureRange(
        value,
        _range([structure.volume_ml for structure in found]),
        pieces=int(pieces),
        present=round(len(found) / len(labelled), 4),
        at_border=round(float(np.mean(cut)), 4),
    )
