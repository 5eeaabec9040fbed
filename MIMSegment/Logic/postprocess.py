"""A result made ready for people, and back: each lesion an object of its own, with its own row.

A model gives all lesions one label value. `separate_lesions` gives each connected one its own, so
that it can be accepted, edited and rejected by itself; `in_model_values` puts the model's values
back for files that other programs read.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from MIMSegment.Logic.anatomy import is_lesion
from MIMSegment.Logic.engine import Segmentation
from MIMSegment.Logic.labels import Color, Label, distinct_colors, wanted_labels
from MIMSegment.Logic.structures import split_pieces, structure_masks

MOST_OBJECTS = 20  # with a row of their own; the rest of a label shares one
_LEAST_VOXELS = 4  # of an object; specks are in the rest
_SAMPLES = 4_000  # voxels of an object that its distance from a point is taken from
_COLORS = 6  # so many lesions can be told apart; then the colors come again


def separable(labels: Sequence[Label]) -> list[Label]:
    """The labels whose connected parts are objects of their own: lesions, but not where several
    labels are lesions of one organ (core, edema and enhancing part of one tumor)."""
    lesions = [label for label in labels if is_lesion(label)]
    regions = [label.region for label in lesions]
    return [label for label in lesions if regions.count(label.region) == 1]


def separate_lesions(
    found: Segmentation, labels: Sequence[Label], wanted: Collection[int] | None = None
) -> tuple[Segmentation, tuple[Label, ...]]:
    """The result with a label value and a `Label` for each lesion, the largest first.

    ``labels`` are all of the model; those whose value is not in ``wanted`` (default: all) were not
    asked for and get no `Label`. Nothing changes where there is at most one lesion. Findings and
    doubtful places go to the lesion that they are nearest to; all lesions have the confidence of
    their label.
    """
    asked = wanted_labels(labels, wanted)
    apart = {label.value for label in separable(labels)} & {label.value for label in asked}
    if not apart:
        return found, tuple(asked)
    masks = {v: (mask, start) for v, mask, start in structure_masks(found.labels) if v in apart}
    own_values = _own_values(labels)
    table: list[Label] = []
    for label in asked:
        objects = _objects(*masks[label.value], found) if label.value in masks else None
        if objects is None:
            table.append(label)
            continue
        values = [label.value, *own_values[label.value][: objects.count - 1]]
        taken = [other.color for other in labels if other is not label]
        colors = distinct_colors(label.color, taken, min(objects.count, _COLORS))
        table += _named(label, values, objects.has_rest, colors)
        found = _separated(found, label.value, values, objects)
    return found, tuple(table)


def in_model_values(
    labels: np.ndarray, table: Sequence[Label]
) -> tuple[np.ndarray, tuple[Label, ...]]:
    """The array with the values that the model gave, and a label for each of these."""
    whole: dict[int, Label] = {}
    lookup = np.arange(max([int(labels.max(initial=0)), *(s.value for s in table)]) + 1)
    for label in table:
        lookup[label.value] = label.source_value
        whole.setdefault(label.source_value, _as_model(label))
    ordered = tuple(sorted(whole.values(), key=lambda label: label.value))
    if all(label.value == label.source_value for label in table):
        return labels, ordered
    return lookup.astype(labels.dtype)[labels], ordered


def _own_values(labels: Sequence[Label]) -> dict[int, range]:
    """The further values of each separable label: never those of another, whose lesions may be
    in the same segmentation from an earlier run."""
    first = max(label.value for label in labels) + 1
    starts = range(first, first + MOST_OBJECTS * len(labels), MOST_OBJECTS)
    pairs = zip(separable(labels), starts, strict=False)
    return {label.value: range(start, start + MOST_OBJECTS) for label, start in pairs}


def _as_model(label: Label) -> Label:
    if label.model_value is None:
        return label
    own = {"value": label.model_value, "name": label.model_name}
    return replace(label, **own, model_value=None, model_name="")


@dataclass(frozen=True)
class _Objects:
    """The connected parts of one label: ``numbers`` (z, y, x) within ``box`` counts them from 1,
    the largest first, the last one being everything small if ``has_rest``."""

    numbers: np.ndarray
    box: tuple[slice, ...]
    count: int
    has_rest: bool
    points: tuple[np.ndarray, ...]
    """LPS positions (n, 3) in mm of some voxels of each."""

    def nearest(self, position: Sequence[float]) -> int:
        """The index from 0 of the object that is nearest to an LPS position."""
        return int(np.argmin([np.square(p - position).sum(axis=1).min() for p in self.points]))


def _objects(mask: np.ndarray, start, found: Segmentation) -> _Objects | None:
    """The objects of a mask in its box; None where there are not two."""
    numbers, sizes = split_pieces(mask)
    order = np.argsort(-sizes[1:], kind="stable") + 1
    large = [n for n in order if sizes[n] >= _LEAST_VOXELS][:MOST_OBJECTS]
    has_rest = len(large) < len(order)
    count = len(large) + has_rest
    if not large or count < 2:
        return None
    lookup = np.full(len(sizes), count, np.int32)
    lookup[0], lookup[large] = 0, np.arange(1, len(large) + 1)
    numbers = lookup[numbers]
    box = tuple(slice(s, s + n) for s, n in zip(start, mask.shape, strict=True))
    points = tuple(_points(numbers == n, start, found) for n in range(1, count + 1))
    return _Objects(numbers, box, count, has_rest, points)


def _points(mask: np.ndarray, start, found: Segmentation) -> np.ndarray:
    flat = np.flatnonzero(mask)
    flat = flat[:: -(-len(flat) // _SAMPLES)]
    index = np.stack(np.unravel_index(flat, mask.shape), axis=1) + start
    matrix = found.geometry.ijk_to_lps
    return index[:, ::-1] @ matrix[:3, :3].T + matrix[:3, 3]


def _named(
    label: Label, values: Sequence[int], has_rest: bool, colors: Sequence[Color]
) -> list[Label]:
    own = []
    for number, value in enumerate(values, 1):
        is_rest = has_rest and number == len(values)
        name = f"{label.name}, smaller ones" if is_rest else f"{label.name} {number}"
        color = colors[(number - 1) % len(colors)]
        own.append(
            replace(label, value=value, name=name, color=color, model_value=label.value,
                    model_name=label.name)
        )  # fmt: skip
    return own


def _separated(
    found: Segmentation, value: int, values: Sequence[int], objects: _Objects
) -> Segmentation:
    """``found`` with ``values`` for the objects of the label ``value``."""
    wide = max(values) > np.iinfo(found.labels.dtype).max
    labels = found.labels.astype(np.uint16 if wide else found.labels.dtype)  # a copy
    part = labels[objects.box]
    np.copyto(part, np.array([0, *values], labels.dtype)[objects.numbers],
              where=objects.numbers > 0)  # fmt: skip
    confidence = dict(found.confidence)
    if value in confidence:
        confidence |= dict.fromkeys(values, confidence[value])

    def moved(item):
        if item.label != value or item.position is None:
            return item
        return replace(item, label=values[objects.nearest(item.position)])

    return replace(
        found,
        labels=labels,
        confidence=confidence,
        doubtful=tuple(map(moved, found.doubtful)),
        findings=tuple(map(moved, found.findings)),
    )
