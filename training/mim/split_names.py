"""What folders and tables call the parts of a data set, and which part is held back."""

from __future__ import annotations

from collections.abc import Sequence

_TRAINING = ("train", "training", "tr")
_VALIDATION = ("val", "valid", "validation")
_TEST = ("test", "testing", "ts")


def is_part(name: str) -> bool:
    """Whether a part of a data set may be called so; case does not matter."""
    return name.lower() in (*_TRAINING, *_VALIDATION, *_TEST)


def sides(names: Sequence[str]) -> list[str]:
    """The `Case.split` that each name means; empty for what is no part.

    Validation data are trained on, since `prepare.py` holds back for the final figures alone; where
    nothing is called test they stand in for it.
    """
    lower = [name.lower() for name in names]
    test = _TEST if any(name in _TEST for name in lower) else _VALIDATION
    return ["test" if n in test else "train" if is_part(n) else "" for n in lower]
