"""The text form in which Slicer keeps a segment's SNOMED codes."""

from __future__ import annotations

from MIMSegment.Logic.labels import Code, Label

TAG = "TerminologyEntry"
_SEGMENT_CONTEXT = "Segmentation category and type - DICOM master list"
_REGION_CONTEXT = "Anatomic codes - DICOM master list"


def terminology_entry(label: Label) -> str:
    """Slicer's serialized terminology entry: context~category~type~modifier~context~region~…."""
    return "~".join(
        [
            _SEGMENT_CONTEXT,
            _code(label.category),
            _code(label.type),
            _code(label.type_modifier),
            _REGION_CONTEXT,
            _code(label.region),
            _code(label.region_modifier),
        ]
    )


def _code(code: Code | None) -> str:
    return f"{code.scheme}^{code.value}^{code.meaning}" if code else "^^"
