"""Which label values of a result and of a reference are one structure.

A package and a data set seldom count alike, so structures go by name. Where regions lie in each
other, a voxel of a result has the value of the innermost, and a region is the union of its values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mim.cases import Dataset
from mim.regions import Region, brats_parts, brats_regions
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.labels import labels_from_csv
from MIMSegment.Logic.package import ModelPackage

Values = tuple[int, ...]
OUTSIDE = " outside "
# The regions of a brain tumor, each within those before it, and what they are called for short.
_NESTED = ("wholetumor", "tumorcore", "enhancingtumor")
_SHORT = dict(zip(("wt", "tc", "et"), _NESTED, strict=True))


@dataclass(frozen=True)
class Structures:
    """Label values by the name of the structure: ``found`` in a result, ``truth`` in a reference.

    The rest are names of what only one side has, which is not measured. A protocol measures what it
    lists: of what the package does not have, ``found`` has no value.
    """

    found: Mapping[str, Values]
    truth: Mapping[str, Values]
    only_in_package: tuple[str, ...] = ()
    only_in_data: tuple[str, ...] = ()

    @property
    def absent(self) -> list[str]:
        """What is measured though the package does not have it."""
        return [name for name, values in self.found.items() if not values]

    def summary(self) -> dict:
        """What was left out, for summary.json."""
        return {
            "only_in_package": list(self.only_in_package),
            "only_in_data": list(self.only_in_data),
        }


def name_key(name: str) -> str:
    """Equal for names that differ in case, spaces and underscores."""
    return re.sub(r"[\s_]+", "", name.casefold())


def own_structures(labels: Mapping[int, str], regions: Sequence[Region]) -> Structures:
    """Of a network that was trained on the reference's own labels, or on regions of them."""
    if regions:
        return paired_regions(regions, _painted(regions))
    values = {name: (value,) for value, name in labels.items()}
    return Structures(values, values)


def structures_of(package: ModelPackage, dataset: Dataset) -> Structures:
    """What ``package`` can be measured on in ``dataset``.

    Regions that both have, where the package segments regions, the data set states them or fewer
    labels are common; else labels. Values stay where the data set names nothing. Raises InputError
    when nothing is common.
    """
    names = {label.value: label.name for label in package.labels}
    if not dataset.labels:
        return own_structures(names, ())
    mine, theirs = package_regions(package), dataset.regions or named_regions(dataset.labels)
    regions, labels = paired_regions(theirs, mine), _paired_labels(names, dataset)
    prefer_regions = package.spec.head == "regions" or bool(dataset.regions)
    if regions.found and (prefer_regions or len(regions.found) > len(labels.found)):
        return regions
    if not labels.found:
        raise InputError(
            f"{package.title} and {dataset.name} have no structure in common: the package has "
            f"{', '.join(names.values())}, the data set {', '.join(dataset.labels.values())}. "
            "Where these are the same structures, name them alike in dataset.json, or put a "
            "labels.csv with the package's names and the data set's values beside it."
        )
    return labels


def package_regions(package: ModelPackage) -> tuple[Region, ...]:
    """What the values of a result make up; empty where a package's labels are no regions."""
    names = {label.value: label.name for label in package.labels}
    alone = tuple(Region(name, (value,), value) for value, name in names.items())
    return named_regions(names) or (alone if package.spec.head == "regions" else ())


def named_regions(names: Mapping[int, str]) -> tuple[Region, ...]:
    """Regions that the names of labels tell of: "A outside B", or a brain tumor's and its parts."""
    if any(OUTSIDE in name for name in names.values()):
        return _outside(names)
    if all(brats_parts(names).values()):
        return brats_regions(names)
    rank = {v: _NESTED.index(key) for v, n in names.items() if (key := _region_key(n)) in _NESTED}
    return tuple(
        Region(names[value], tuple(v for v in rank if rank[v] >= own), value)
        for value, own in rank.items()
    )


def paired_regions(truth: Sequence[Region], found: Sequence[Region]) -> Structures:
    """Regions of a reference with those of a result that have their names.

    A region of the result also has the values of those that lie within it in the reference, as
    painting covers it with them.
    """
    known = {_region_key(region.name): region for region in found}
    common = [region for region in truth if _region_key(region.name) in known]
    values = {r.name: known[_region_key(r.name)].labels for r in common}
    within = {
        outer.name: tuple(
            sorted({v for r in common if {*r.labels} <= {*outer.labels} for v in values[r.name]})
        )
        for outer in common
    }
    keys = {_region_key(region.name) for region in truth}
    return Structures(
        within,
        {region.name: region.labels for region in common},
        tuple(r.name for r in found if _region_key(r.name) not in keys),
        tuple(r.name for r in truth if r.name not in values),
    )


def values_by_key(names: Mapping[int, str]) -> dict[str, Values]:
    """The label values of each name; several where a name stands for several."""
    found: dict[str, Values] = {}
    for value, name in names.items():
        found[name_key(name)] = (*found.get(name_key(name), ()), value)
    return found


def _paired_labels(names: Mapping[int, str], dataset: Dataset) -> Structures:
    """Labels by name, also by those in the data set's labels.csv, which are a package's names."""
    mine, theirs = values_by_key(names), values_by_key(dataset.labels)
    if dataset.labels_csv is not None:
        text = dataset.labels_csv.read_text(encoding="utf-8")
        table = labels_from_csv(text, str(dataset.labels_csv))
        theirs = values_by_key({label.value: label.name for label in table}) | theirs
    common = {name: name_key(name) for name in names.values() if name_key(name) in theirs}
    used = {value for key in common.values() for value in theirs[key]}
    return Structures(
        {name: mine[key] for name, key in common.items()},
        {name: theirs[key] for name, key in common.items()},
        tuple(name for name in names.values() if name not in common),
        tuple(name for value, name in dataset.labels.items() if value not in used),
    )


def _painted(regions: Sequence[Region]) -> list[Region]:
    return [Region(region.name, (region.value,), region.value) for region in regions]


def _outside(names: Mapping[int, str]) -> tuple[Region, ...]:
    """Regions of labels named as nnunet_plans names what a region keeps: "A outside B and C"."""
    parts = {value: name.partition(OUTSIDE)[::2] for value, name in names.items()}
    value_of = {name: value for value, (name, _) in parts.items()}

    def members(value: int) -> set[int]:
        inner = parts[value][1]
        direct = {value_of[n] for n in {inner, *inner.split(" and ")} if n in value_of}
        return {value}.union(*(members(v) for v in direct - {value}))

    return tuple(
        Region(name, tuple(sorted(members(value))), value) for value, (name, _) in parts.items()
    )


def _region_key(name: str) -> str:
    key = name_key(name).replace("tumour", "tumor")
    return _SHORT.get(key, key)
