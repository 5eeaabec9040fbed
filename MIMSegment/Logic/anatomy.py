"""What a label's codes say about its structure: side, kind, and the organ that bears a lesion."""

from __future__ import annotations

import re
from collections.abc import Sequence

from MIMSegment.Logic.expectations import Expectations
from MIMSegment.Logic.labels import Label

_ALTERED = "49755003"  # SNOMED CT: morphologically altered structure
_ANATOMICAL = "123037004"
_LEFT, _RIGHT = "7771000", "24028007"
_SIDE_WORDS = re.compile(r"(?<![a-z])(left|right)(?![a-z])")  # also of kidney_left


def is_lesion(label: Label) -> bool:
    """Whether it is what disease has changed: several, one or none are all plausible."""
    return label.category is not None and label.category.value == _ALTERED


def is_anatomy(label: Label) -> bool:
    """Whether every body has it, so that it should be found where it is in the image."""
    return label.category is not None and label.category.value == _ANATOMICAL


def side_of(label: Label, expectations: Expectations) -> str:
    """ "left", "right" or "": as the package says, else by the codes, else by the name."""
    known = expectations.structure(label.value)
    if known is not None and known.side:
        return known.side
    modifier = label.type_modifier or label.region_modifier
    if modifier is not None and modifier.value in (_LEFT, _RIGHT):
        return "left" if modifier.value == _LEFT else "right"
    words = set(_SIDE_WORDS.findall(label.name.lower()))
    return words.pop() if len(words) == 1 else ""


def pairs_of(labels: Sequence[Label], expectations: Expectations) -> list[tuple[Label, Label]]:
    """The (left, right) pairs of structures that differ in nothing but their side."""
    by_kind: dict[str, dict[str, Label]] = {}
    for label in labels:
        side = side_of(label, expectations)
        if side:
            name = " ".join(_SIDE_WORDS.sub("", label.name.lower()).split())
            by_kind.setdefault(name, {})[side] = label
    return [(pair["left"], pair["right"]) for pair in by_kind.values() if len(pair) == 2]


def containers_of(
    lesion: Label, labels: Sequence[Label], expectations: Expectations
) -> tuple[int, ...]:
    """The label values of the organ that ``lesion`` must lie in; empty where that is unknown.

    As the package says, else the structures of the type that the lesion's region names, else, for
    a lesion with a region, all anatomical structures of the package (the zones of an organ).
    """
    known = expectations.structure(lesion.value)
    if known is not None and known.inside:
        return known.inside
    if not is_lesion(lesion) or lesion.region is None:
        return ()
    anatomy = [label for label in labels if is_anatomy(label)]
    named = [o for o in anatomy if o.type is not None and o.type.value == lesion.region.value]
    return tuple(label.value for label in named or anatomy)
