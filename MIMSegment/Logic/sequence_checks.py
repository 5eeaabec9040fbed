"""Checks of what an input shows: is it the modality and the sequence that the model asks for?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.finding import Finding, Severity
from MIMSegment.Logic.gray_values import describe, profile_distance
from MIMSegment.Logic.matching import InputSpec
from MIMSegment.Logic.package import ModelPackage
from MIMSegment.Logic.phrases import joined
from MIMSegment.Logic.sequences import (
    evidence,
    sequence_by_timing,
    sequence_in_text,
    sequence_of,
    spoken_sequence,
)
from MIMSegment.Logic.volume import Volume

_AGAINST = -15.0  # score of `sequences.evidence` from which an image is something else
_AIR = -500.0  # HU; no other modality has values as low as air
_TOLERANCE = 0.25  # of the width of the training data's gray values
_UNLIKE = 0.3  # distance of profiles from which an image may be another input
_MUCH_NEARER = 0.5  # times that distance, to the other input
_TWINS = 0.9999  # correlation of two images that are one


def refuse_empty(images: Sequence[Volume], package: ModelPackage) -> None:
    """Raise InputError when all images are of one value: no network can find anything in them."""
    empty = _empty(images, package)
    if empty and len(empty) == len(images):
        raise InputError(empty[0])


def _empty(images: Sequence[Volume], package: ModelPackage) -> list[str]:
    """A sentence about each image of one value."""
    described = [(image, describe(image.array[0])) for image in images]
    return [
        f"{item.name} is empty: every voxel of {image.source or 'the image'} is {values.low:g}; "
        "choose another image."
        for item, (image, values) in zip(package.spec.inputs, described, strict=False)
        if values.constant
    ]


def check_contents(images: Sequence[Volume], package: ModelPackage) -> list[Finding]:
    """Images of one value, and one image taken for two inputs."""
    found = [Finding("empty-input", Severity.ALERT, text) for text in _empty(images, package)]
    names = [item.name for item in package.spec.inputs]
    for second in range(1, len(images)):
        for first in range(second):
            if _same(images[first], images[second]):
                found.append(
                    Finding(
                        "inputs-equal",
                        Severity.ALERT,
                        f"{names[first]} and {names[second]} are the same image; choose the right "
                        f"one for each.",
                    )
                )
    return found


def check_studies(images: Sequence[Volume], package: ModelPackage) -> list[Finding]:
    """Images of several studies, perhaps of several people, as a user may have chosen them."""
    studies: dict[str, list[str]] = {}
    for item, image in zip(package.spec.inputs, images, strict=False):
        if uid := str(image.header.get("StudyInstanceUID") or ""):
            studies.setdefault(uid, []).append(item.name)
    if len(studies) < 2:
        return []
    first, *others = map(joined, studies.values())
    text = f"{first} and {'; '.join(others)} are of different studies, perhaps of different people"
    return [
        Finding("different-studies", Severity.ALERT, f"{text}; choose the images of one study.")
    ]


def check_sequences(images: Sequence[Volume], package: ModelPackage) -> list[Finding]:
    """Wrong modality, and sequences that say what they are: by DICOM tags, else file names."""
    found, others = [], {}
    for item, image in zip(package.spec.inputs, images, strict=False):
        modality = str(image.header.get("Modality", "")).replace("PT", "PET")
        if modality and modality != item.modality.replace("PT", "PET"):
            found.append(
                Finding(
                    "wrong-modality",
                    Severity.ALERT,
                    f"The image taken for {item.name} is of modality {modality}, the model needs "
                    f"{item.modality}; choose another image or another model.",
                )
            )
        elif other := _other_sequence(item, image):
            others[item.name] = other
    swapped = _swapped(package, others)
    found += [_swap(*pair, others) for pair in swapped]
    told = {name for pair in swapped for name in pair}
    return found + [_wrong(name, other) for name, other in others.items() if name not in told]


@dataclass(frozen=True)
class _Other:
    """The sequence that an image says it is, and by what."""

    sequence: str
    reasons: str


def _swapped(package: ModelPackage, others: Mapping[str, _Other]) -> list[tuple[str, str]]:
    """Pairs of inputs of which each has the other's image."""
    names = [item.name for item in package.spec.inputs if item.name in others]
    return [
        (one, two)
        for one, two in combinations(names, 2)
        if others[one].sequence == sequence_of(two) and others[two].sequence == sequence_of(one)
    ]


def _swap(one: str, two: str, others: Mapping[str, _Other]) -> Finding:
    return Finding(
        "wrong-sequence",
        Severity.ALERT,
        f"The images taken for {one} and {two} are swapped: the first is {others[one].sequence}"
        f"{others[one].reasons}, the second {others[two].sequence}{others[two].reasons}; exchange "
        "them.",
    )


def _wrong(name: str, other: _Other) -> Finding:
    return Finding(
        "wrong-sequence",
        Severity.ALERT,
        f"The image taken for {name} is {other.sequence}{other.reasons}; choose the right image "
        "for each input.",
    )


def check_gray_values(
    images: Sequence[Volume], package: ModelPackage, suspected: bool
) -> list[Finding]:
    """Gray values of another modality or sequence. ``suspected``: names or tags told already."""
    found = []
    for index, (item, image) in enumerate(zip(package.spec.inputs, images, strict=False)):
        values = describe(image.array[0])
        if values.constant:  # told by `check_contents`
            continue
        finding = _impossible(item, image, values.low) or _out_of_range(index, package, values)
        if finding is None and not suspected:
            finding = _like_another(index, package, values)
        found += [finding] if finding else []
    return found


def _same(one: Volume, other: Volume) -> bool:
    if not one.geometry.is_close(other.geometry):
        return False
    a, b = (v.array[0, ::2, ::3, ::3].astype(np.float64).ravel() for v in (one, other))
    if a.std() == 0 or b.std() == 0:
        return False
    return bool(np.corrcoef(a, b)[0, 1] > _TWINS)


def _other_sequence(item: InputSpec, image: Volume) -> _Other | None:
    header = image.header
    label = "" if header else Path(image.source).name
    judged = evidence(item.name, item.modality, header, label)
    if judged.score > _AGAINST:
        return None
    seen = _sequence(header, label)
    if seen is None or seen == sequence_of(item.name):
        return None
    reasons = evidence(seen, item.modality, header, label).reasons
    return _Other(seen, f" ({'; '.join(reasons)})" if reasons else "")


def _sequence(header, label: str) -> str | None:
    """What the image says that it is, the most trustworthy source first."""
    if "ADC" in header.get("ImageType", ()):
        return "ADC"
    spoken = [spoken_sequence(header, k) for k in ("SeriesDescription", "ProtocolName")]
    named = next(filter(None, [*spoken, sequence_in_text(label)]), None)
    return named or sequence_by_timing(header)


def _impossible(item: InputSpec, image: Volume, low: float) -> Finding | None:
    if item.modality == "MR" and low < _AIR:
        return Finding(
            "gray-values-of-ct",
            Severity.ALERT,
            f"{item.name} has gray values down to {low:.0f}, as only a CT has them; the model "
            "needs MR.",
        )
    return None


def _out_of_range(index: int, package: ModelPackage, values) -> Finding | None:
    """For inputs whose numbers mean something: Hounsfield units, ADC."""
    ranges = package.expectations.inputs
    if index >= len(ranges) or not ranges[index].quantitative:
        return None
    expected, name = ranges[index], package.spec.inputs[index].name
    slack = _TOLERANCE * (expected.high[1] - expected.low[0])
    checks = (
        # Padding outside the scanned circle may be far below air, and metal far above bone.
        ("0.5 % of its voxels are below", values.low, (-np.inf, expected.low[1]), expected.low),
        ("its median is", values.median, expected.median, expected.median),
        ("0.5 % of its voxels are above", values.high, expected.high, expected.high),
    )
    for what, value, (low, high), shown in checks:
        if not low - slack <= value <= high + slack:
            is_ct = package.spec.inputs[index].modality == "CT"
            unit = "Hounsfield units" if is_ct else "the same units"
            return Finding(
                "gray-values-outside-range",
                Severity.WARNING,
                f"The gray values of {name} are not those of the training data: {what} "
                f"{value:.0f}, there {shown[0]:.0f} to {shown[1]:.0f}; check that it is stored in "
                f"{unit} and shows the right region.",
            )
    return None


def _like_another(index: int, package: ModelPackage, values) -> Finding | None:
    """A swap of sequences that neither tags nor names tell."""
    ranges, inputs = package.expectations.inputs, package.spec.inputs
    if index >= len(ranges) or not ranges[index].profile:
        return None
    distances = {
        other.name: profile_distance(values.profile, expected.profile)
        for other, expected in zip(inputs, ranges, strict=True)
        if expected.profile and other.modality == inputs[index].modality
    }
    own = distances.pop(inputs[index].name)
    nearest = min(distances, key=distances.get, default=None)
    if nearest is None or own < _UNLIKE or distances[nearest] > _MUCH_NEARER * own:
        return None
    return Finding(
        "gray-values-of-another-input",
        Severity.WARNING,
        f"The gray values of {inputs[index].name} are distributed like those of {nearest}: "
        f"{100 * distances[nearest]:.0f} % of the voxels differ from the training data's {nearest},"
        f" {100 * own:.0f} % from its {inputs[index].name}; check that they are not swapped.",
    )
