"""The original images of a cache: a network is measured on them, each on its own grid.

A cache names them by absolute paths. On another computer the beginning of these is another.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

from mim.data import Cache
from mim.recipe import RecipeError
from MIMSegment.Logic.errors import InputError

SOURCES = (
    "where the original images are, if not where they were for prepare.py: old and new beginning "
    'of their paths, for example ["/home/me/scans", "/scratch/scans"]; held-back ones are measured'
)


def check_moved(sources: Sequence[str]) -> None:
    """Raise RecipeError for what is not nothing or two beginnings of paths."""
    if len(sources) not in (0, 2) or not all(sources):
        raise RecipeError(
            "sources has the old and the new beginning of the original images' paths: "
            "sources=/home/me/scans,/scratch/scans."
        )


def with_sources(cache: Cache, sources: Sequence[str]) -> Cache:
    """The same cache with (old, new) beginning of the originals' paths replaced; () changes none.

    Raises RecipeError when no path begins with the old one, which must be whole folders.
    """
    if not sources:
        return cache
    cases = [_moved_case(case, *sources) for case in cache.cases]
    if all(new == old for new, old in zip(cases, cache.cases, strict=True)):
        example = originals(cache.cases[:1])
        raise RecipeError(
            f"sources={','.join(sources)}: no original image in {cache.folder}/cases.json has a "
            f"path that begins with {sources[0]}; they are like {example[0]}."
        )
    return cache.restricted_to(cases)


def originals(cases: Sequence[dict]) -> list[str]:
    """Paths of the original images and labels of cases of cases.json."""
    paths: list[str] = []
    for case in cases:
        paths += _listed(case["source"]) + _listed(case["source_label"])
    return paths


def require_originals(paths: Sequence[str], cache: Cache) -> None:
    """Raise InputError naming the first of the ``paths`` that is not there, and the way out."""
    missing = [path for path in paths if not Path(path).exists()]
    if missing:
        raise InputError(
            f"{missing[0]} does not exist ({len(missing)} of {len(paths)} such files). After "
            f"training the held-back subjects of {cache.folder} are measured on their original "
            "images and labels: copy these here, and write sources=OLD,NEW with the old and the "
            "new beginning of their paths."
        )


def _moved_case(case: dict, old: str, new: str) -> dict:
    source = case["source"]
    moved = [_moved(path, old, new) for path in _listed(source)]
    labels = [_moved(path, old, new) for path in _listed(case["source_label"])]
    return {
        **case,
        "source": moved[0] if isinstance(source, str) else moved,
        "source_label": labels[0] if labels else None,
    }


def _moved(path: str, old: str, new: str) -> str:
    kind = _kind(path)
    if not kind(path).is_relative_to(kind(old)):
        return path
    return str(Path(new, *kind(path).relative_to(kind(old)).parts))


def _kind(path: str) -> type[PurePath]:
    """Whose paths they are: a cache of Windows may be read elsewhere."""
    return PureWindowsPath if PureWindowsPath(path).drive else PurePosixPath


def _listed(paths: str | Sequence[str] | None) -> list[str]:
    return [] if paths is None else [paths] if isinstance(paths, str) else list(paths)
