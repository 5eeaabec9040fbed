"""Reading figures back: JSON has no NaN, and `files.write_json` writes null for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_figures(path: Path) -> dict:
    """What is in ``path``, such as results.json, with NaN for what has no figure."""
    return parse_figures(path.read_text(encoding="utf-8"))


def parse_figures(text: str) -> Any:
    """What ``text`` says, NaN for null; older files have a bare NaN, which Python reads."""
    return _with_nan(json.loads(text))


def _with_nan(value: Any) -> Any:
    if value is None:
        return float("nan")
    if isinstance(value, dict):
        return {key: _with_nan(item) for key, item in value.items()}
    return [_with_nan(item) for item in value] if isinstance(value, list) else value
