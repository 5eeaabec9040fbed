"""Which of the model's structures a segment is that a person has drawn, by its codes or its name.

A missed lesion is drawn as a segment of its own. Files with the model's label values, training data
above all, need it under the model's label for lesions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from MIMSegment.Logic.labels import Code, Label
from MIMSegment.Logic.postprocess import in_model_values
from MIMSegment.Logic.review_items import ReviewItem, SegmentRecord

_TISSUE = "85756007"  # SNOMED CT: what Slicer gives a new segment, and says nothing


def with_model_labels(
    table: Sequence[Label],
    records: Sequence[ReviewItem | SegmentRecord],
    not_asked: Sequence[Label] = (),
) -> tuple[Label, ...]:
    """``table`` with the model's value and name for the segments that were drawn by hand, where
    they are one of the model's structures; its codes too, where they have none of their own.

    ``records`` say which were drawn by hand, ``not_asked`` are structures of the model without a
    segment.
    """
    by_hand = {record.label for record in records if record.by_hand}
    of_model = [label for label in table if label.value not in by_hand]
    known = in_model_values(np.zeros(0, np.uint8), [*of_model, *not_asked])[1]
    return tuple(_matched(label, known) if label.value in by_hand else label for label in table)


def _matched(drawn: Label, known: Sequence[Label]) -> Label:
    """``drawn`` as the one of ``known`` that its codes or name say, if they agree on one."""
    by_code = [label for label in known if _has_codes_of(drawn, label)]
    by_name = [label for label in known if label.name.casefold() == drawn.name.casefold()]
    by_name = by_name or [label for label in known if _is_numbered(drawn.name, label.name)]
    if by_code and by_name:
        found = [label for label in by_code if label in by_name]
    else:
        found = by_code or by_name
    if len(found) != 1:
        return drawn
    own = drawn if _says_something(drawn.type) else found[0]
    return replace(
        own, value=drawn.value, name=drawn.name, color=drawn.color,
        model_value=found[0].value, model_name=found[0].name,
    )  # fmt: skip


def _has_codes_of(drawn: Label, label: Label) -> bool:
    """Equal type and side, and no other organ where the organ is said."""
    if not _says_something(drawn.type) or _value(drawn.type) != _value(label.type):
        return False
    organs = {_value(drawn.region), _value(label.region)} - {""}
    return _value(drawn.type_modifier) == _value(label.type_modifier) and len(organs) < 2


def _says_something(code: Code | None) -> bool:
    return _value(code) not in ("", _TISSUE)


def _value(code: Code | None) -> str:
    return code.value if code else ""


def _is_numbered(name: str, model_name: str) -> bool:
    """Whether it is ``model_name`` with a number, as the review names lesions."""
    return re.sub(r"[\s_#-]*\d+$", "", name).casefold() == model_name.casefold()
