"""What a check found: one sentence with its numbers, how much it matters, and where to look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding matters; the members are in ascending order."""

    NOTE = "note"
    """Good to know; nothing speaks against the result."""
    WARNING = "warning"
    """Look here before you trust the result."""
    ALERT = "alert"
    """The model does not fit the input, or the result is not anatomy."""

    @property
    def rank(self) -> int:
        """0, 1, 2: to compare and sort, as the members themselves compare as text."""
        return list(Severity).index(self)


@dataclass(frozen=True)
class Finding:
    """One result of a check, for a person to read.

    ``code`` is a stable name of the check ("spacing-coarse", "volume-outside-range") for tests,
    filters and translations. ``message`` is one sentence with its numbers and units. ``label`` is
    the label value of the structure that it is about, None when it is about the input or the result
    as a whole. ``position`` is the LPS point in mm to look at, None when there is no such place.
    """

    code: str
    severity: Severity
    message: str
    label: int | None = None
    position: tuple[float, float, float] | None = None

    def __str__(self) -> str:
        return self.message

    def of_edited(self) -> Finding:
        """The same about a structure that a person has changed since: its numbers are not those of
        the structure as it is."""
        return replace(self, message=f"{self.message} (Before it was edited.)")

    @staticmethod
    def from_dict(data: Mapping) -> Finding:
        """A finding from what `dataclasses.asdict` made of it, or its JSON."""
        position = data["position"]
        return Finding(
            data["code"],
            Severity(data["severity"]),
            data["message"],
            data["label"],
            None if position is None else tuple(position),
        )
