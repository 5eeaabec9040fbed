"""A data set's own test images that have no label: nobody expects a network to learn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mim.cases import Case, LeftOut


def unlabeled_test_images_apart(
    cases: Sequence[Case], use: bool = False
) -> tuple[list[Case], list[Case]]:
    """The cases to prepare, and the test images without labels; with ``use`` these train too."""
    unlabeled = [case.split == "test" and not case.is_labeled for case in cases]
    pairs = list(zip(cases, unlabeled, strict=True))
    if use:
        return [replace(case, split="train") if found else case for case, found in pairs], []
    return [case for case, found in pairs if not found], [case for case, found in pairs if found]


def why_not_used(case: Case) -> LeftOut:
    """What cases.json says of such an image."""
    return LeftOut(case.id, f"{case.image} is a test image without a label.", case.subject)
