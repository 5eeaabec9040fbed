"""The folds of nnU-Net's splits_final.json, so that results can be paired with nnU-Net's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mim.cases import Case, safe_name
from MIMSegment.Logic.errors import InputError

_EXAMPLE = '[{"train": ["case_1", ...], "val": ["case_2", ...]}, ...]'


@dataclass(frozen=True)
class Fold:
    """Subjects to train on, and those that are held back."""

    train: frozenset[str]
    held_back: frozenset[str]

    def to_dict(self, subjects: Iterable[str]) -> dict[str, list[str]]:
        """As split.json has it, without those that are not among ``subjects``."""
        known = set(subjects)
        sides = {"train": self.train, "held_back": self.held_back}
        return {name: sorted(known & side) for name, side in sides.items()}


def read_folds(path: str | Path, cases: Sequence[Case], others: Sequence[Case] = ()) -> list[Fold]:
    """The folds in ``path``, a list of {"train": [...], "val": [...]} with the names of cases.

    ``others`` are cases that are not used, which may be named. Raises InputError for what is no
    such file, for names that are of no case or of one for testing, and for a subject on both sides
    of a fold.
    """
    path, known = Path(path), {case.id: case for case in (*others, *cases)}
    return [
        _fold(entry, known, f"{path}: fold {number}") for number, entry in enumerate(_entries(path))
    ]


def _entries(path: Path) -> list[dict]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as splits_final.json ({error}).") from None
    if not isinstance(content, list) or not all(map(_is_fold, content)) or len(content) < 2:
        raise InputError(f"{path} is not a list of two or more folds like {_EXAMPLE}.")
    return content


def _is_fold(entry: object) -> bool:
    sides = [entry.get(name) for name in ("train", "val")] if isinstance(entry, dict) else [None]
    return all(
        isinstance(names, list) and names and all(isinstance(n, str) for n in names)
        for names in sides
    )


def _fold(entry: dict, known: dict[str, Case], where: str) -> Fold:
    # A case is called after its file, in letters that every disk takes.
    sides = {
        side: [name if name in known else safe_name(name) for name in entry[side]]
        for side in ("train", "val")
    }
    for name in (*sides["train"], *sides["val"]):
        if name not in known:
            raise InputError(
                f"{where} names {name}, which is no case of this data set; its cases have names "
                f"like {next(iter(known))}."
            )
        if known[name].split == "test":
            raise InputError(f"{where} names {name}, which is held back for testing.")
    train, val = ({known[name].subject for name in names} for names in sides.values())
    both = sorted(train & val)
    if both:
        raise InputError(
            f"{where} has subject {both[0]} in train and val at once ({len(both)} such subjects); "
            "results would not be of unseen patients. Make folds by patient, also for nnU-Net."
        )
    return Fold(frozenset(train), frozenset(val))
