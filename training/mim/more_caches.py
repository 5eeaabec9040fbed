"""Caches of other data sets, whose images a pre-training learns from beside those of its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from mim.data import Cache, read_cache
from mim.recipe import RecipeError
from mim.seen import digests_of


def read_more(cache: Cache, folders: Sequence[str]) -> tuple[Cache, ...]:
    """The caches in ``folders``; all that is held back in any of them stays so.

    Raises InputError for one that cannot be read, RecipeError for one whose images do not fit those
    of ``cache`` (channels, voxels), and where one holds images back that another learns from.
    """
    others = tuple(read_cache(folder) for folder in folders)
    for other in others:
        _check_fit(cache, other)
    for holding, learning in permutations((cache, *others), 2):
        _check_apart(holding, learning)
    return others


def _check_fit(cache: Cache, other: Cache) -> None:
    for what, own, found in (
        ("channels", cache.channels, other.channels),
        ("sizes of a crop", len(cache.patch), len(other.patch)),
        ("voxels of (mm)", _spacing(cache), _spacing(other)),
    ):
        if own != found:
            raise RecipeError(
                f"{other.folder} has {what} {found}, {cache.folder} {own}; networks see them as "
                f"one: prepare it with the other's voxels (prepare.py --like {cache.folder}) and "
                "as many inputs."
            )


def _spacing(cache: Cache) -> list[float]:
    return cache.plan["preprocessing"]["spacing"]


def _check_apart(holding: Cache, learning: Cache) -> None:
    """What one cache holds back must not be learnt from under another name in another."""
    shared = digests_of(holding, holding.unseen) & digests_of(learning, learning.train)
    if shared:
        raise RecipeError(
            f"{len(shared)} images that {holding.folder} holds back are in the training part of "
            f"{learning.folder}; leave those subjects out there (prepare.py --exclude)."
        )
