"""A text file that names the cases or subjects to hold back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mim.cases import Case, safe_name
from MIMSegment.Logic.errors import InputError

_SHOWN = 5  # lines that name nothing


def with_test_list(cases: Sequence[Case], path: Path, others: Sequence[Case] = ()) -> list[Case]:
    """The cases that a list names are held back too: one case or subject a line, endings allowed.

    Those that the data set itself has for testing stay so. The list may name ``others``, which are
    not used. Raises InputError for lines that name none: whom they mean would be trained on.
    """
    wanted = {line: {line, safe_name(line)} for line in _lines(path)}
    names = {case: _names(case) for case in cases}
    known = set().union(*names.values(), *map(_names, others))
    unknown = [line for line, forms in wanted.items() if not forms & known]
    if unknown:
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise InputError(
            f"{path} has lines that name no case or subject of this data set: "
            f"{', '.join(map(repr, unknown[:_SHOWN]))}{more}. Write one to a line, for example "
            f"{cases[0].id}; the cases.json of a cache lists them all."
        )
    held = set().union(*wanted.values())
    return [
        replace(case, split="test" if case.split == "test" or held & found else "train")
        for case, found in names.items()
    ]


def _names(case: Case) -> set[str]:
    return {case.id, case.subject, case.image.name} - {""}


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a list of cases ({error}).") from None
    lines = [line.strip() for line in lines if line.strip()]
    if not lines:
        raise InputError(f"{path} is empty; write the name of a case or subject to each line.")
    return lines
