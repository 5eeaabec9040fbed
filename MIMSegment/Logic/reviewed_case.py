"""A reviewed result as plain data: what every export and the report are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from MIMSegment.Logic.audit import Provenance
from MIMSegment.Logic.errors import OutputError
from MIMSegment.Logic.finding import Finding
from MIMSegment.Logic.labels import Label
from MIMSegment.Logic.postprocess import in_model_values
from MIMSegment.Logic.review_items import ReviewItem, SegmentRecord, Verdict
from MIMSegment.Logic.volume import Volume


@dataclass(frozen=True)
class CaseInput:
    """One input of the model: its name, the image as it was read (None when it is not in the scene
    any more), and its DICOM files in slice order (empty when it is not from DICOM)."""

    name: str
    volume: Volume | None = None
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class ReviewedCase:
    """A result and its verdicts.

    ``labels`` is the label image (1, z, y, x) of the structures that are not rejected, on the grid
    of the first input; ``table`` names its values, and ``rejected`` those that were left out.
    ``items`` are all rows of the review, rejected ones included. ``phantom``: the model was trained
    on digital phantoms. ``not_asked`` are structures of the model that no run was asked for and
    nobody has drawn: they are not known to be absent. ``everything`` is the label image with the
    rejected structures in it, None where there are none.
    """

    title: str
    labels: Volume
    table: tuple[Label, ...]
    items: tuple[ReviewItem, ...]
    provenance: Provenance
    findings: tuple[Finding, ...] = ()
    inputs: tuple[CaseInput, ...] = ()
    phantom: bool = False
    options: dict = field(default_factory=dict)
    """What the user gave for this export: ``psa`` (ng/mL), ``prior`` (a label image) ..."""
    rejected: tuple[Label, ...] = ()
    not_asked: tuple[Label, ...] = ()
    everything: Volume | None = None

    def item(self, label: int) -> ReviewItem:
        """The row of a structure."""
        return next(item for item in self.items if item.label == label)

    @property
    def kept(self) -> tuple[ReviewItem, ...]:
        """The rows of the structures in ``labels``."""
        return tuple(item for item in self.items if item.verdict is not Verdict.REJECTED)

    @property
    def foreign(self) -> tuple[Label, ...]:
        """What was drawn by hand and is none of the model's structures, rejected or not."""
        by_hand = {item.label for item in self.items if item.by_hand}
        drawn = (s for s in (*self.table, *self.rejected) if s.value in by_hand)
        return tuple(label for label in drawn if label.model_value is None)


def in_model_labels(case: ReviewedCase) -> tuple[Volume, tuple[Label, ...]]:
    """The label image with the model's own values, and the labels that it and the rejected
    structures have: lesions that the review had apart are one label again.

    What was drawn by hand and is no structure of the model keeps its own value, which is above all
    of the model's, unless rejected.
    """
    array, _ = in_model_values(case.labels.array, case.table)
    rejected = (label for label in case.rejected if label not in case.foreign)
    _, table = in_model_values(array[:0], (*case.table, *rejected))
    return Volume(array, case.labels.geometry, case.labels.source), table


def without_rejected(
    labels: Volume, table: Sequence[Label], items: Sequence[ReviewItem | SegmentRecord]
) -> tuple[Volume, tuple[Label, ...]]:
    """The label image and its names, without the rejected structures.

    Raises OutputError when none is left.
    """
    rejected = {item.label for item in items if item.verdict is Verdict.REJECTED}
    kept = tuple(label for label in table if label.value not in rejected)
    if not kept:
        raise OutputError("Every structure is rejected: there is nothing to export.")
    if not rejected:
        return labels, kept
    array = np.where(np.isin(labels.array, list(rejected)), 0, labels.array)
    return Volume(array.astype(labels.array.dtype), labels.geometry, labels.source), kept
