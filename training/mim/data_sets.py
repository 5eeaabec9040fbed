"""Which data sets methods are compared on: those for development kept apart from those for tests.

What was chosen by looking at a data set cannot be tested on it; so the file that says which are
which is read, and never one list of both.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

from MIMSegment.Logic.errors import InputError

_GROUPS = ("development", "test")


def data_sets(arguments: Sequence[str]) -> dict[str, dict[str, Path]]:
    """Folders by data set, by group, of one .toml file or of arguments NAME=FOLDER.

    Raises InputError for a file that cannot be read, a group that is neither development nor test,
    and a data set that is in both.
    """
    if len(arguments) == 1 and arguments[0].endswith(".toml"):
        return _read(Path(arguments[0]))
    named = {}
    for text in arguments:
        name, equals, folder = text.partition("=")
        named[name if equals else Path(text).name] = Path(folder if equals else text)
    return {"data sets": named}


def _read(path: Path) -> dict[str, dict[str, Path]]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable list of data sets ({error}).") from None
    wrong = [n for n, v in content.items() if n not in _GROUPS or not isinstance(v, dict) or not v]
    if wrong or not content:
        raise InputError(
            f'{path} needs the tables [development] and [test] with lines name = "folder"'
            + (f", not {wrong[0]}." if wrong else ".")
        )
    groups = {
        f"{group} data sets": {n: path.parent / folder for n, folder in content[group].items()}
        for group in _GROUPS
        if group in content
    }
    _check_apart(path, list(groups.values()))
    return groups


def _check_apart(path: Path, groups: list[dict[str, Path]]) -> None:
    """Neither a name nor a folder may be in both groups."""
    names = [name for group in groups for name in group]
    folders = [folder.resolve() for group in groups for folder in group.values()]
    for found in (names, folders):
        twice = [entry for entry in found if found.count(entry) > 1]
        if twice:
            raise InputError(
                f"{path} has {twice[0]} twice; a data set on which methods were chosen cannot test "
                "them."
            )
