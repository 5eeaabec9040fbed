"""Caches of other data sets, whose images a pre-training learns from beside those of its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, permutations

from mim.data import Cache, read_cache
from mim.recipe import RecipeError
from mim.seen import digests_of


def read_more(cache: Cache, folders: Sequence[str]) -> tuple[Cache, ...]:
    """The caches in ``folders``; all that is held back in any of them stays so.

    Raises InputError for one that cannot be read, RecipeError for one whose images do not fit those
    of ``cache`` (channels, voxels, size of pictures), where one holds images back that another
    learns from, and where two learn from the same.
    """
    others = tuple(read_cache(folder) for folder in folders)
    for other in others:
        _check_fit(cache, other)
    for holding, learning in permutations((cache, *others), 2):
        _check_apart(holding, learning)
    for one, another in combinations((cache, *others), 2):
        _check_once(one, another)
    return others


def _check_fit(cache: Cache, other: Cache) -> None:
    for what, own, found in (
        ("channels", cache.channels, other.channels),
        ("sizes of a crop", len(cache.patch), len(other.patch)),
        ("voxels of (mm)", _spacing(cache), _spacing(other)),
        ("pictures of (pixels)", _picture(cache), _picture(other)),
    ):
        if own != found:
            raise RecipeError(
                f"{other.folder} has {what} {found}, {cache.folder} {own}; networks see them as "
                f"one: prepare it with the other's voxels (prepare.py --like {cache.folder}) and "
                "as many inputs."
            )


def _spacing(cache: Cache) -> list[float]:
    return cache.plan["preprocessing"]["spacing"]


def _picture(cache: Cache) -> tuple[int, ...]:
    """To what size pictures were brought; a crop of volumes decides nothing."""
    return cache.patch if len(cache.patch) == 2 else ()


def _check_apart(holding: Cache, learning: Cache) -> None:
    """What one cache holds back must not be learnt from under another name in another."""
    shared = digests_of(holding, holding.unseen) & digests_of(learning, learning.train)
    if shared:
        raise RecipeError(
            f"{len(shared)} images that {holding.folder} holds back are in the training part of "
            f"{learning.folder}; leave those subjects out there (prepare.py --exclude)."
        )


def _check_once(one: Cache, another: Cache) -> None:
    """An image in both would count twice, and one that only validates would be learnt from."""
    same = one.folder.resolve() == another.folder.resolve()  # older caches have no digests
    own = digests_of(one, one.train)
    subjects = [s for s in another.train if same or own & digests_of(another, [s])]
    if subjects:
        raise RecipeError(
            f"{another.folder} has images of {len(subjects)} training subjects that {one.folder} "
            f"trains on too ({', '.join(subjects[:3])}{', ...' if len(subjects) > 3 else ''}); "
            "leave these out there (prepare.py --exclude), or the whole cache out of more_caches."
        )
