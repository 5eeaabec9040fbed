"""Which images a network has seen in training, so that none it is measured on is among them.

Images are told apart by what they hold: names repeat between data sets, and files move.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from mim.cases import Case
from mim.data import Cache
from mim.recipe import RecipeError
from MIMSegment.Logic.volume import Volume


def digests(image: np.ndarray) -> list[str]:
    """A short text for each channel of an image (c, z, y, x), another for other voxels."""
    return [
        hashlib.blake2b(np.ascontiguousarray(channel), digest_size=8).hexdigest()
        for channel in image
    ]


def seen_images(cache: Cache) -> list[str]:
    """The digests of the training subjects' images; none where the cache is older than they."""
    return sorted(_digests_of(cache, cache.train))


def check_unseen(cache: Cache, seen: Iterable[str], checkpoint: str | Path) -> None:
    """Raise RecipeError when ``checkpoint`` has ``seen`` an image of a held-back subject.

    An image that is in training here as well is a copy under two names, which no split mends.
    """
    leaked = set(seen) - _digests_of(cache, cache.train)
    subjects = [s for s in cache.held_back if leaked & _digests_of(cache, [s])]
    if subjects:
        names = ", ".join(subjects[:5]) + (", ..." if len(subjects) > 5 else "")
        raise RecipeError(
            f"{checkpoint} has learnt from {len(subjects)} of the {len(cache.held_back)} subjects "
            f"that {cache.folder} holds back ({names}), so that results would not be of unseen "
            f"subjects. Prepare the cache with the split of the pre-training (prepare.py --seed, "
            f"--held-back, --test-list) and with its fold, or pre-train again on this cache."
        )


class TrainingImageCheck:
    """Finds, among images that a package is measured on, those that it has learnt from.

    ``metadata`` is that of the package, which may not tell (one made by others).
    """

    def __init__(self, metadata: Mapping):
        self._known = frozenset(metadata.get("mimsegment", {}).get("training_images", ()))
        self.cases: list[str] = []

    def look(self, case: Case, volume: Volume) -> None:
        """Take note of ``case``, whose image is ``volume`` as it was read."""
        if self._known and self._known.intersection(digests(volume.array)):
            self.cases.append(case.id)

    def summary(self) -> dict:
        """``learnt_from``: the names of these cases, empty where none was found; absent where the
        package does not tell."""
        return {"learnt_from": self.cases} if self._known else {}


def warn_of_training_images(summary: Mapping) -> None:
    """Say on stderr what figures are worth whose ``summary`` has cases that were learnt from."""
    cases = summary.get("learnt_from", ())
    if cases:
        names = ", ".join(cases[:5]) + (", ..." if len(cases) > 5 else "")
        print(
            f"evaluate: warning: the package has learnt from {len(cases)} of these cases "
            f"({names}): their figures do not tell how it does on new patients. "
            "--cases chooses others.",
            file=sys.stderr,
        )


def _digests_of(cache: Cache, subjects: Iterable[str]) -> set[str]:
    wanted = set(subjects)
    cases = (case for case in cache.cases if case["subject"] in wanted)
    return {digest for case in cases for digest in case.get("digests", ())}
