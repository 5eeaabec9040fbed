"""Structures that are one object: what a network finds apart from their largest part is removed.

A package asks for it (`ModelSpec.keep_largest_component`), as its maker found that it pays. What
goes is told as a finding with its place: it may have been right.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from MIMSegment.Logic.connected_runs import number_joint_parts
from MIMSegment.Logic.engine import Segmentation
from MIMSegment.Logic.finding import Finding, Severity
from MIMSegment.Logic.labels import Label
from MIMSegment.Logic.run_lengths import RunLengths
from MIMSegment.Logic.structures import middle_of_runs
from MIMSegment.Logic.volume import Geometry

Groups = Sequence[Sequence[int]]
"""Label values that are one object together, group by group in the order to go by."""


def with_companions(groups: Groups, wanted: Collection[int] | None) -> set[int] | None:
    """``wanted``, and the label values without which its parts cannot be told."""
    if wanted is None:
        return None
    needed, before = set(wanted), 0
    while len(needed) != before:
        before = len(needed)
        needed |= {value for group in groups if needed & set(group) for value in group}
    return needed


def keep_largest_component(
    found: Segmentation,
    groups: Groups,
    labels: Sequence[Label],
    wanted: Collection[int] | None = None,
) -> Segmentation:
    """The largest part of each group, and of the label values only those in ``wanted`` (default:
    all); the array of ``found`` is changed in place.

    Parts share at least a corner; of equally large ones all are kept. `findings` gains a note for
    each structure that lost something.
    """
    runs, notes = RunLengths.encode(found.labels), []
    names = {label.value: label.name for label in labels}
    for group in groups:
        apart = _apart(runs, group)
        _clear(found.labels, removed := runs.take(apart))
        notes += _notes(removed, names, wanted, found.geometry)
        runs = runs.take(~apart)
    if wanted is not None:
        _clear(found.labels, runs.take(unasked := ~np.isin(runs.value, list(wanted))))
        runs = runs.take(~unasked)
    left = set(np.unique(runs.value).tolist())
    return replace(
        found,
        confidence={value: c for value, c in found.confidence.items() if value in left},
        doubtful=tuple(p for p in found.doubtful if wanted is None or p.label in wanted),
        findings=(*found.findings, *notes),
    )


def _apart(runs: RunLengths, group: Sequence[int]) -> np.ndarray:
    """Which runs are of the group, but not of its largest part."""
    apart = np.zeros(len(runs.value), bool)
    members = np.flatnonzero(np.isin(runs.value, list(group)))
    if len(members):
        parts = number_joint_parts(runs.take(members))
        sizes = np.bincount(parts, runs.length[members])
        apart[members] = sizes[parts] < sizes.max()
    return apart


def _clear(labels: np.ndarray, runs: RunLengths) -> None:
    np.put(labels, runs.voxels(labels.shape), 0)


def _notes(
    removed: RunLengths, names: dict[int, str], wanted: Collection[int] | None, geometry: Geometry
) -> list[Finding]:
    notes = []
    for value in np.unique(removed.value).tolist():
        if wanted is not None and value not in wanted:
            continue
        runs = removed.take(removed.value == value)
        parts = number_joint_parts(runs)
        sizes = np.bincount(parts, runs.length)
        pieces = "a piece" if len(sizes) == 1 else f"{len(sizes)} pieces"
        were = "was" if len(sizes) == 1 else "were"
        notes.append(
            Finding(
                "pieces-removed",
                Severity.NOTE,
                f"{names.get(value, f'Label {value}')}: {pieces} apart from the largest part, "
                f"{sizes.sum() * geometry.voxel_volume_ml:.2g} ml, {were} removed, as the model's "
                "package asks.",
                value,
                middle_of_runs(runs.take(parts == sizes.argmax()), geometry),
            )
        )
    return notes
