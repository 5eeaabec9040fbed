"""SNOMED CT coded labels in a line each: anatomy, and what disease has changed."""

from MIMSegment.Logic.labels import Code, Label

_ANATOMY = Code("SCT", "123037004", "Anatomical Structure")
_ALTERED = Code("SCT", "49755003", "Morphologically Altered Structure")
_SIDES = {"left": Code("SCT", "7771000", "Left"), "right": Code("SCT", "24028007", "Right")}


def anatomy(value: int, name: str, code: str, meaning: str, color, side: str | None = None):
    """A label for an organ; ``side`` is "left" or "right"."""
    kind = Code("SCT", code, meaning)
    return Label(value, name, _ANATOMY, kind, _SIDES[side] if side else None, color=color)


def alteration(value: int, name: str, code: str, meaning: str, color, region: tuple[str, str]):
    """A label for a lesion; ``region`` is the code and meaning of the organ that bears it."""
    kind, where = Code("SCT", code, meaning), Code("SCT", *region)
    return Label(value, name, _ALTERED, kind, region=where, color=color)
