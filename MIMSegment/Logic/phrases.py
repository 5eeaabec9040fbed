"""Counts, lists of names and dates as sentences have them."""

from __future__ import annotations

import datetime
from collections.abc import Sequence


def counted(count: int, what: str) -> str:
    """ "1 structure", "2 structures"."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def joined(names: Sequence[str]) -> str:
    """ "T2w", "T2w and ADC", "T2w, ADC and DWI"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def iso_date(text: str) -> str:
    """DICOM's YYYYMMDD in the form that reads the same everywhere; "" for what is no date."""
    try:
        return datetime.datetime.strptime(text, "%Y%m%d").date().isoformat()
    except ValueError:
        return ""
