"""Structures that lie in each other: unions of labels, such as the three regions of BraTS."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from MIMSegment.Logic.errors import InputError


@dataclass(frozen=True)
class Region:
    """The union of ``labels``; where it is found and none after it, the voxel gets ``value``."""

    name: str
    labels: tuple[int, ...]
    value: int

    def to_dict(self) -> dict:
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping) -> Region:
        """Read what `to_dict` wrote, also after a way through JSON."""
        return Region(values["name"], tuple(values["labels"]), values["value"])


def brats_regions(names: Mapping[int, str]) -> tuple[Region, ...]:
    """Whole tumor, tumor core and enhancing tumor from the parts that ``names`` (value → name).

    The names decide, for 1-2-3 means edema first in one data set and last in another. Where they
    say nothing, 1-2-4 is the coding of BraTS 2017 to 2021: necrosis, edema, enhancing (Bakas et
    al., 2018). Raises InputError for anything else.
    """
    parts = brats_parts(names)
    if not any(parts.values()) and set(names) == {1, 2, 4}:
        parts = {"core": [1], "edema": [2], "enhancing": [4]}
    edema, core, enhancing = parts["edema"], parts["core"], parts["enhancing"]
    if not (edema and core and enhancing):
        listed = ", ".join(f"{value} {name}" for value, name in sorted(names.items()))
        raise InputError(
            f"Of the labels {listed} it is not clear which are edema, necrosis or non-enhancing "
            "tumor, and enhancing tumor; name them so in dataset.json."
        )
    inner = (*core, *enhancing)
    return (
        Region("whole tumor", tuple(sorted((*edema, *inner))), edema[0]),
        Region("tumor core", tuple(sorted(inner)), core[0]),
        Region("enhancing tumor", tuple(sorted(enhancing)), enhancing[0]),
    )


def brats_parts(names: Mapping[int, str]) -> dict[str, list[int]]:
    """The values of "edema", "core" and "enhancing" by ``names`` (value → name)."""
    parts: dict[str, list[int]] = {"edema": [], "core": [], "enhancing": []}
    for value, name in names.items():
        if part := _part(name):
            parts[part].append(value)
    return parts


def region_targets(labels: Tensor, regions: Sequence[Region], values: Sequence[int]) -> Tensor:
    """Which regions each voxel belongs to: float (b, regions, ...).

    ``labels`` int64 (b, 1, ...) counts in ``values``, the label values with 0 first.
    """
    table = [[float(value in region.labels) for region in regions] for value in values]
    member = torch.tensor(table).to(labels.device, non_blocking=True)
    return member[labels[:, 0]].movedim(-1, 1)


def _part(name: str) -> str:
    """ "edema", "core" or "enhancing", from a label's name; "" where it is none of them."""
    text = re.sub(r"[^a-z]+", " ", name.lower())
    if re.search(r"\bo?edema(tous)?\b|\bed\b", text):
        return "edema"
    if re.search(r"necro|\bncr\b|\bnet\b|\bnon ?enhanc", text):
        return "core"
    return "enhancing" if re.search(r"enhanc|\bet\b", text) else ""
