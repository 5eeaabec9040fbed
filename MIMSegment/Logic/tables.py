"""Frozen dataclasses from tables of JSON, with an error that names the field that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from MIMSegment.Logic.errors import PackageError


def known_fields(cls: type, data: Any, source: str) -> dict:
    """``data`` as a dictionary; PackageError when it is no table or has a field unknown to us."""
    if not isinstance(data, Mapping):
        raise PackageError(f"{source}: {cls.__name__} must be a table, not {data!r}.")
    unknown = sorted(set(data) - {f.name for f in fields(cls)})
    if unknown:
        raise PackageError(
            f"{source}: {cls.__name__} has the unknown field {unknown[0]!r}; "
            "the package may need a newer MIM Segment."
        )
    return dict(data)


def build(cls: type, data: Any, source: str):
    """An instance of ``cls``, lists as tuples; PackageError for a missing or unknown field."""
    if is_dataclass(data):
        return data
    data = {k: _tuples(v) for k, v in known_fields(cls, data, source).items()}
    try:
        return cls(**data)
    except TypeError as error:
        reason = str(error).replace("__init__() ", "")
        raise PackageError(f"{source}: {reason}.") from None


def require_inside(name: str, source: str) -> None:
    """Raise PackageError when ``name`` leads out of the package, to files beside it."""
    from MIMSegment.Logic.archive import portable_path

    try:
        portable_path(name)
    except ValueError as error:
        raise PackageError(f"{source}: model file {name!r} is not allowed: {error}.") from None


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
