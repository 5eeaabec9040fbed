"""Structures that lie in each other: unions of labels, such as the three regions of BraTS."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
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


def plan_regions(plan: Mapping) -> tuple[Region, ...]:
    """The regions of a plan; empty where each voxel has one label."""
    return tuple(Region.from_dict(values) for values in plan.get("regions", ()))


def output_labels(plan: Mapping) -> dict[int, str]:
    """The values of a result of a network that learnt by ``plan``, and their names."""
    names = {label["value"]: label["name"] for label in plan["labels"]}
    painted = [region.value for region in plan_regions(plan)]
    return {value: names[value] for value in painted} if painted else names


def kept_labels(regions: Sequence[Region]) -> list[tuple[int, ...]]:
    """Of each region the labels that no later one paints over."""
    later = [{v for r in regions[index + 1 :] for v in r.labels} for index in range(len(regions))]
    return [
        tuple(sorted(set(region.labels) - covered))
        for region, covered in zip(regions, later, strict=True)
    ]


def outside_names(regions: Sequence[Region]) -> list[str]:
    """What each region keeps when later ones are painted over it: "tumor outside core"."""
    sets, names = [set(region.labels) for region in regions], []
    for index, region in enumerate(regions):
        inner = [other for other in range(index + 1, len(regions)) if sets[other] < sets[index]]
        largest = [a for a in inner if not any(sets[a] < sets[b] for b in inner)]
        outside = " and ".join(regions[other].name for other in largest)
        names.append(f"{region.name} outside {outside}" if outside else region.name)
    return names


def painted_names(regions: Sequence[Region], names: Mapping[int, str]) -> dict[int, str]:
    """What the values of a result are, by value.

    Where each region keeps just one part of a brain tumor it has that one's name in ``names`` (by
    label value), else what it is and what it leaves out.
    """
    values = [region.value for region in regions]
    parts = [names.get(kept[0], "") if len(kept) == 1 else "" for kept in kept_labels(regions)]
    by_part = dict(zip(values, parts, strict=True))
    if all(brats_parts(by_part).values()):
        return by_part
    return dict(zip(values, outside_names(regions), strict=True))


def painted_labels(labels: np.ndarray, regions: Sequence[Region]) -> np.ndarray:
    """A label image with the values that a result has where ``regions`` are painted in order."""
    painted = np.zeros_like(labels)
    for region in regions:
        painted[np.isin(labels, region.labels)] = region.value
    return painted


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
    # BraTS calls it edema to 2022, then surrounding non-enhancing FLAIR hyperintensity.
    if re.search(r"\bo?edema(tous)?\b|\bed\b|\bsnfh\b|flair hyperintens", text):
        return "edema"
    if re.search(r"necro|\bncr\b|\bnetc?\b|\bnon ?enhanc", text):
        return "core"
    return "enhancing" if re.search(r"enhanc|\bet\b", text) else ""
