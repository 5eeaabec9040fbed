"""Which images a network has seen in training, so that none it is measured on is among them.

Images are told apart by what they hold: names repeat between data sets, and files move.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mim.cases import Case
from mim.data import Cache
from mim.recipe import RecipeError
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.volume import Volume


def digests(image: np.ndarray) -> list[str]:
    """A short text for each channel of an image (c, z, y, x), another for other voxels."""
    return [
        hashlib.blake2b(np.ascontiguousarray(channel), digest_size=8).hexdigest()
        for channel in image
    ]


def seen_images(cache: Cache, more: Sequence[Cache] = ()) -> list[str]:
    """The digests of the training subjects' images; none where the cache is older than they."""
    return sorted({digest for part in (cache, *more) for digest in digests_of(part, part.train)})


def check_unseen(cache: Cache, seen: Iterable[str], checkpoint: str | Path) -> None:
    """Raise RecipeError when ``checkpoint`` has ``seen`` an image of a held-back subject.

    An image that is in training here as well is a copy under two names, which no split mends.
    """
    leaked = set(seen) - digests_of(cache, cache.train)
    subjects = [s for s in cache.unseen if leaked & digests_of(cache, [s])]
    if subjects:
        raise RecipeError(
            f"{checkpoint} has learnt from {len(subjects)} of the {len(cache.unseen)} subjects "
            f"that {cache.folder} holds back ({_listed(subjects)}), so that results would not "
            f"be of unseen subjects. Prepare the cache with the split of the pre-training "
            f"(prepare.py --seed, --held-back, --test-list) and with its fold, or pre-train again "
            f"on this cache."
        )


class TrainingImageCheck:
    """Finds, among images that a package is measured on, those that it has learnt from.

    ``metadata`` is that of the package, which may not tell (one made by others). With ``measured``
    such images are measured all the same, else they are left out.
    """

    def __init__(self, metadata: Mapping, measured: bool = False):
        self._known = frozenset(metadata.get("mimsegment", {}).get("training_images", ()))
        self._measured = measured
        self.cases: list[str] = []

    def admits(self, case: Case, volume: Volume) -> bool:
        """Whether ``case`` is measured, whose image is ``volume`` as it was read."""
        learnt = bool(self._known and self._known.intersection(digests(volume.array)))
        if learnt:
            self.cases.append(case.id)
        return self._measured or not learnt

    def require_others(self, count: int, data: str | Path) -> None:
        """Raise InputError when all ``count`` cases of ``data`` were left out."""
        if not self._measured and len(self.cases) == count:
            raise InputError(
                f"The package has learnt from all {count} cases of {data} ({_listed(self.cases)}); "
                "none is left that tells how it does on new patients. Measure it on other data, or "
                "on these with --with-training."
            )

    def summary(self) -> dict:
        """``learnt_from``, the measured cases that were learnt from, and ``left_out``, those that
        were not measured for that; nothing where the package does not tell."""
        if not self._known:
            return {}
        learnt, left_out = (self.cases, []) if self._measured else ([], self.cases)
        return {"learnt_from": learnt, "left_out": left_out}


def warn_of_training_images(summary: Mapping) -> None:
    """Say on stderr which cases of ``summary`` were left out as the package has learnt from them,
    or what the figures are worth when they were not."""
    if left_out := summary.get("left_out"):
        print(
            f"evaluate: left out {len(left_out)} cases that the package has learnt from "
            f"({_listed(left_out)}); --with-training measures them as well.",
            file=sys.stderr,
        )
    if learnt := summary.get("learnt_from"):
        print(
            f"evaluate: warning: the package has learnt from {len(learnt)} of these cases "
            f"({_listed(learnt)}): their figures do not tell how it does on new patients.",
            file=sys.stderr,
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def digests_of(cache: Cache, subjects: Iterable[str]) -> set[str]:
    """The digests of the images of ``subjects``, as prepare.py wrote them."""
    wanted = set(subjects)
    cases = (case for case in cache.cases if case["subject"] in wanted)
    return {digest for case in cases for digest in case.get("digests", ())}
