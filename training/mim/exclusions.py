"""Subjects that no step may see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mim.cases import Case, LeftOut
from MIMSegment.Logic.errors import InputError


def without_excluded(
    names: Iterable[str], *groups: Sequence[Case | LeftOut]
) -> list[list[Case | LeftOut]]:
    """The ``groups`` without the subjects in ``names``.

    Raises InputError for a name of no subject: whom it means would be trained on.
    """
    excluded = set(names)
    known = {item.subject for group in groups for item in group} - {""}
    unknown = sorted(excluded - known)
    if unknown:
        raise InputError(
            f"--exclude names {', '.join(unknown)}, but no subject is called so; subjects here are "
            f"called like {min(known, default='(none)')}."
        )
    return [[item for item in group if item.subject not in excluded] for group in groups]
