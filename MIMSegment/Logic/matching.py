"""Which image of a study belongs to which input of a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class InputSpec:
    """One input of a model: its sequence ``name`` ("T2w", "ADC", "CT") and ``modality``."""

    name: str
    modality: str
    description: str = ""
