"""Structures that differ by their side alone, and crops that are mirrored from one to the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from MIMSegment.Logic.anatomy import pairs_of
from MIMSegment.Logic.expectations import Expectations
from MIMSegment.Logic.labels import Label


def mirrored_sides(plan: Mapping, flip: Sequence[bool]) -> str:
    """A warning where ``flip`` (z, y, x) makes a left structure of ``plan`` a right one that keeps
    the label of the left; empty elsewhere."""
    axis = _across(plan)
    labels = [Label(item["value"], item["name"]) for item in plan["labels"]]
    pairs = pairs_of(labels, Expectations())
    if axis is None or not flip[axis] or not pairs:
        return ""
    axes = ",".join("true" if on and i != axis else "false" for i, on in enumerate(flip))
    left, right = pairs[0]
    return (
        f"WARNING: crops are mirrored left to right (spatial.flip), which labels a {right.name} as "
        f"{left.name}: the network cannot learn which is which. Write spatial.flip={axes}."
    )


def _across(plan: Mapping) -> int | None:
    """The axis of (z, y, x) from one side of the patient to the other; None where it varies."""
    orientation = plan["preprocessing"].get("orientation", "LPS")
    if orientation is None:
        return None
    return 2 - next(i for i, letter in enumerate(orientation) if letter in "LR")
