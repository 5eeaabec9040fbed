"""The structures that a model finds: label value, name, SNOMED codes and color.

The file is the ``labels.csv`` that SlicerMONAIAuto3DSeg and slicerio read; color columns, which
those readers ignore, are ours.
"""

from __future__ import annotations

import colorsys
import csv
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields

from MIMSegment.Logic.errors import PackageError

Color = tuple[int, int, int]  # red, green, blue, 0 to 255


@dataclass(frozen=True)
class Code:
    """A coded concept: coding scheme (SCT = SNOMED CT), value, meaning."""

    scheme: str
    value: str
    meaning: str


@dataclass(frozen=True)
class Label:
    """One structure: its label value, name, SNOMED codes and RGB ``color`` in 0..255.

    ``model_value`` and ``model_name`` are the model's own for one of several lesions that the model
    gives one label.
    """

    value: int
    name: str
    category: Code | None = None
    type: Code | None = None
    type_modifier: Code | None = None
    region: Code | None = None
    region_modifier: Code | None = None
    color: Color = (128, 174, 128)
    model_value: int | None = None
    model_name: str = ""

    @property
    def source_value(self) -> int:
        """The label value that the model gave."""
        return self.value if self.model_value is None else self.model_value


def wanted_labels(labels: Sequence[Label], wanted: Collection[int] | None) -> list[Label]:
    """Those whose label value is in ``wanted``; all when that is None."""
    return [label for label in labels if wanted is None or label.value in wanted]


_CODE_COLUMNS = {
    "category": "SegmentedPropertyCategoryCodeSequence",
    "type": "SegmentedPropertyTypeCodeSequence",
    "type_modifier": "SegmentedPropertyTypeModifierCodeSequence",
    "region": "AnatomicRegionSequence",
    "region_modifier": "AnatomicRegionModifierSequence",
}
_CODE_PARTS = {"scheme": "CodingSchemeDesignator", "value": "CodeValue", "meaning": "CodeMeaning"}
_COLOR_COLUMNS = ("R", "G", "B")
_MODEL_COLUMNS = ("ModelLabelValue", "ModelName")  # only where lesions have been separated


def labels_to_csv(labels: list[Label]) -> str:
    """The text of ``labels.csv``."""
    columns = ["LabelValue", "Name"]
    columns += [f"{c}.{p}" for c in _CODE_COLUMNS.values() for p in _CODE_PARTS.values()]
    separated = any(label.model_value is not None for label in labels)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, *_COLOR_COLUMNS, *(_MODEL_COLUMNS if separated else ())])
    for label in labels:
        row = [label.value, label.name]
        for attribute in _CODE_COLUMNS:
            code = getattr(label, attribute)
            row += [getattr(code, part) if code else "" for part in _CODE_PARTS]
        own = label.model_value is None
        model = ("", "") if own else (label.model_value, label.model_name)
        writer.writerow([*row, *label.color, *(model if separated else ())])
    return text.getvalue()


def labels_from_csv(text: str, source: str = "labels.csv") -> list[Label]:
    """Read ``labels.csv``; PackageError when a value is missing, no number or repeated."""
    labels, seen = [], set()
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), start=2):
        try:
            value, name = int(row["LabelValue"]), row["Name"].strip()
        except (KeyError, TypeError, ValueError, AttributeError):
            raise PackageError(f"{source}, line {number}: LabelValue or Name is missing.") from None
        if value in seen or value < 1:
            raise PackageError(f"{source}, line {number}: label value {value} is used or below 1.")
        seen.add(value)
        codes = {}
        for attribute, column in _CODE_COLUMNS.items():
            parts = [row.get(f"{column}.{part}") or "" for part in _CODE_PARTS.values()]
            codes[attribute] = Code(*parts) if parts[1] else None
        try:
            color = tuple(int(row[c]) for c in _COLOR_COLUMNS)
        except (KeyError, TypeError, ValueError):
            color = default_color(value)
        model = row.get(_MODEL_COLUMNS[0]) or ""
        if model.isdecimal():
            codes |= {"model_value": int(model), "model_name": row.get(_MODEL_COLUMNS[1]) or ""}
        labels.append(Label(value, name, color=color, **codes))
    if not labels:
        raise PackageError(f"{source} names no structure.")
    return labels


def default_color(value: int) -> Color:
    """A color for a label that has none: hues a golden angle apart, so neighbors differ."""
    hue = (0.42 + value * 0.61803398875) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(
        hue, 0.55 + 0.3 * (value % 2), 0.95 - 0.2 * (value % 3 == 2)
    )
    return int(red * 255), int(green * 255), int(blue * 255)


def distinct_colors(first: Color, taken: Sequence[Color], count: int) -> list[Color]:
    """``first`` and vivid ones, each as far as can be from ``taken`` and from those before it."""
    hues = [colorsys.hsv_to_rgb(n / 24, 0.85, 1.0) for n in range(24)]
    vivid = [tuple(round(255 * part) for part in color) for color in hues]
    chosen = [first]
    while len(chosen) < count:
        others = [*taken, *chosen]
        chosen.append(max(vivid, key=lambda color: min(_unlike(color, other) for other in others)))
    return chosen


def _unlike(one: Color, other: Color) -> float:
    """How different two colors look: "redmean", a distance in RGB weighted for the eye."""
    red = (one[0] + other[0]) / 2
    weights = 2 + red / 256, 4, 2 + (255 - red) / 256
    return sum(w * (a - b) ** 2 for w, a, b in zip(weights, one, other, strict=True))


assert set(_CODE_COLUMNS) <= {f.name for f in fields(Label)}
