"""Cross-validation: the training subjects of a cache in parts, each held back in turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from mim.data import Cache, read_cache
from mim.recipe import RecipeError
from mim.subsets import stratified

FOLD = (
    "of a cross-validation, for example 0/5, the first of five: a fifth of the cache's training "
    "subjects is held back, and what the cache holds back is left alone, or the first of the five "
    "folds of prepare.py --splits; empty: the cache's split"
)
_ORDER = 0  # seed: the folds of a cache are the same for every recipe


def cache_of(folder: str | Path, fold: str = "") -> Cache:
    """The cache in ``folder``, split as ``fold`` ("K/N", K from 0) says; empty: as it was prepared.

    Raises InputError for a cache that cannot be read, RecipeError for a fold that cannot be.
    """
    cache = read_cache(folder)
    return with_fold(cache, fold) if fold else cache


def with_fold(cache: Cache, fold: str) -> Cache:
    """The same cache with one part of its labelled training subjects held back.

    The parts are disjoint, differ by one subject at most and have the classes evenly. All other
    training subjects train, those without a label in every fold. A cache with folds of its own
    (prepare.py --splits) has these, and no others.
    """
    index, count = _numbers(fold)
    labeled = _labeled(cache)
    if cache.folds:
        return _listed(cache, index, count, labeled)
    if len(labeled) < count:
        raise RecipeError(
            f"fold={fold}: {cache.folder} has {len(labeled)} labelled training subjects, too few "
            f"for {count} parts."
        )
    # Class by class: an order that mixes them evenly could have a class in every fifth place.
    order = sorted(stratified(labeled, _ORDER), key=labeled.__getitem__)
    held_back = set(order[index::count])
    return replace(
        cache,
        train=tuple(subject for subject in cache.train if subject not in held_back),
        held_back=tuple(sorted(held_back)),
        spared=cache.held_back,
    )


def _listed(cache: Cache, index: int, count: int, labeled: Iterable[str]) -> Cache:
    """The fold that the cache lists; labelled subjects that it names on no side take no part."""
    if count != len(cache.folds):
        raise RecipeError(
            f"fold={index}/{count}: {cache.folder} was prepared with {len(cache.folds)} folds "
            f"(--splits); write 0/{len(cache.folds)} for the first of them."
        )
    fold = cache.folds[index]
    left_out = set(labeled) - set(fold["train"]) | set(fold["held_back"])
    return replace(
        cache,
        train=tuple(subject for subject in cache.train if subject not in left_out),
        held_back=tuple(fold["held_back"]),
        spared=cache.held_back,
    )


def fold_names(count: int) -> Sequence[str]:
    """``fold`` of each part of a cross-validation; of none, with ``count`` 0, the empty one."""
    return [f"{index}/{count}" for index in range(count)] or [""]


def _labeled(cache: Cache) -> dict[str, str]:
    """The labelled training subjects with the class of the first of their cases."""
    found: dict[str, str] = {}
    for case in cache.cases_of(cache.train):
        if case["label"] or case.get("target") is not None:
            found.setdefault(case["subject"], str(case.get("target")))
    return found


def _numbers(fold: str) -> tuple[int, int]:
    index, _, count = fold.partition("/")
    if index.isdecimal() and count.isdecimal() and int(index) < int(count) > 1:
        return int(index), int(count)
    raise RecipeError(f"fold={fold}: write 0/5 for the first of five parts, 4/5 for the last.")
