"""Published evaluation protocols by name: which cases, which structures, what enters the mean.

Two papers' "BTCV Dice" are not comparable when their protocols differ; a result names its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mim.cases import Dataset
from mim.regions import Region, brats_regions
from mim.structures import (
    Structures,
    Values,
    package_regions,
    paired_regions,
)
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.package import ModelPackage

BTCV = {
    "spleen": 1,
    "right kidney": 2,
    "left kidney": 3,
    "gallbladder": 4,
    "esophagus": 5,
    "liver": 6,
    "stomach": 7,
    "aorta": 8,
    "inferior vena cava": 9,
    "portal and splenic veins": 10,
    "pancreas": 11,
    "right adrenal gland": 12,
    "left adrenal gland": 13,
}
# Further names: those of the challenge's own list and of MONAI's dataset_0.json.
_ALIASES = {
    "right kidney": ("rkid",),
    "left kidney": ("lkid",),
    "gallbladder": ("gall bladder", "gall"),
    "esophagus": ("oesophagus", "eso"),
    "stomach": ("sto",),
    "inferior vena cava": ("postcava", "ivc"),
    "portal and splenic veins": (
        "portal vein and splenic vein",
        "portal vein and splenic veins",
        "veins",
    ),
    "right adrenal gland": ("right adrenal", "rad"),
    "left adrenal gland": ("left adrenal", "lad"),
}
_SAYS_NOTHING = re.compile(r"(label|class|organ|structure|segment)?[\W_]*\d*")
_SHOWN = 20  # labels that a message lists
_EIGHT = (
    "aorta",
    "gallbladder",
    "left kidney",
    "right kidney",
    "liver",
    "pancreas",
    "spleen",
    "stomach",
)


@dataclass(frozen=True)
class Protocol:
    """``cases`` are the numbers of the test cases in the data set's file names; ``structures`` map
    a name to a label value or, for a region, to several; with ``background`` label 0 enters the
    mean as one more structure. With ``by_name`` they are the regions of a tumor, and ``structures``
    only tell what a data set means that does not name its labels."""

    description: str
    structures: Mapping[str, int | tuple[int, ...]]
    cases: tuple[int, ...] = ()
    background: bool = False
    by_name: bool = False

    def measured(self, dataset: Dataset) -> dict[str, int | Values]:
        """Everything that enters the mean, by name, with its values in the data set's labels.

        Raises InputError where the names of the labels leave open what is edema, core and enhancing
        tumor, or lack a structure of the protocol.
        """
        if self.by_name and dataset.labels:
            regions = dataset.regions or brats_regions(dataset.labels)
            return {region.name: region.labels for region in regions}
        values = _by_name(self._everything, dataset.labels)
        missing = [name for name in values if not _values(values[name])]
        if missing:
            labels = [f"{value} {name}" for value, name in dataset.labels.items()]
            more = " and more" if len(labels) > _SHOWN else ""
            raise InputError(
                f"{dataset.name} has no {', '.join(missing)}, which the protocol measures; its "
                f"labels are {', '.join(labels[:_SHOWN])}{more}. Name them as the protocol does in "
                "dataset.json."
            )
        return values

    def for_package(self, package: ModelPackage, dataset: Dataset) -> Structures:
        """What is measured of a package, which segments nothing of what its names do not have;
        where they say nothing, its values are taken for those of the data set."""
        truth = {name: _values(value) for name, value in self.measured(dataset).items()}
        names = {label.value: label.name for label in package.labels}
        if self.by_name:
            regions = [Region(name, values, 0) for name, values in truth.items()]
            paired = paired_regions(regions, package_regions(package))
            found = {name: paired.found.get(name, ()) for name in truth} if paired.found else truth
        else:
            found = _by_name(self._everything, names)
        return Structures({name: _values(value) for name, value in found.items()}, truth)

    @property
    def _everything(self) -> dict[str, int | Values]:
        return {**({"background": 0} if self.background else {}), **self.structures}


def _values(value: int | Values) -> Values:
    return (value,) if isinstance(value, int) else tuple(value)


def _by_name(structures: Mapping[str, int | Values], names: Mapping[int, str]) -> dict:
    """``structures`` with the values that ``names`` gives them, in whatever order of their words;
    empty for what is not named.

    One that is not named keeps its values where nothing else is called by them, unless ``names``
    counts otherwise than the protocol.
    """
    known: dict[str, Values] = {}
    for value, name in {0: "background", **names}.items():
        known[_words(name)] = (*known.get(_words(name), ()), value)
    named = {}
    for name in structures:
        keys = map(_words, (name, *_ALIASES.get(name, ())))
        if key := next((key for key in keys if key in known), None):
            named[name] = known[key]
    counts_alike = all(values == _values(structures[name]) for name, values in named.items())

    def values_of(name: str) -> int | Values:
        own = structures[name]
        if name in named:
            return own if named[name] == _values(own) else named[name]
        free = all(_SAYS_NOTHING.fullmatch(names.get(v, "").casefold()) for v in _values(own))
        return own if counts_alike and free else ()

    return {name: values_of(name) for name in structures}


def _words(name: str) -> str:
    """Equal for names of the same words in any order: "kidney_right", "Right kidney"."""
    return " ".join(sorted(re.findall(r"[^\W_]+", name.casefold())))


PROTOCOLS: dict[str, Protocol] = {
    "btcv-13": Protocol(
        "BTCV, 24 training and 6 test cases, mean Dice of 13 organs",
        BTCV,
        (35, 36, 37, 38, 39, 40),
    ),
    "btcv-13-background": Protocol(
        "The same with background as a 14th structure, as MIM-Med3D (arXiv 2204.11716) reports it",
        BTCV,
        (35, 36, 37, 38, 39, 40),
        background=True,
    ),
    "btcv-8-transunet": Protocol(
        "BTCV, 18 training and 12 test cases, mean Dice and HD95 of 8 organs: TransUNet's split, "
        "which SelfMedMAE (arXiv 2203.05573) uses",
        {name: BTCV[name] for name in _EIGHT},
        (1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38),
    ),
    "brats-regions": Protocol(
        "Whole tumor, core and enhancing tumor by the names of the labels; without names "
        "1 necrosis, 2 edema, 3 enhancing, as in BraTS 2023. (The Decathlon has 1 edema.)",
        {"whole tumor": (1, 2, 3), "tumor core": (1, 3), "enhancing tumor": (3,)},
        by_name=True,
    ),
    "brats-regions-4": Protocol(
        "The same, where without names the enhancing tumor is 4",
        {"whole tumor": (1, 2, 4), "tumor core": (1, 4), "enhancing tumor": (4,)},
        by_name=True,
    ),
}


def find_protocol(name: str) -> Protocol:
    """The protocol called ``name``; InputError lists those that there are."""
    if name not in PROTOCOLS:
        raise InputError(f"There is no protocol {name!r}; there are {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
