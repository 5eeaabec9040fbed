"""Checks of each structure of a result: is it there, whole, of a plausible size, on its side?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from MIMSegment.Logic.anatomy import is_anatomy, is_lesion, pairs_of
from MIMSegment.Logic.expectations import StructureRange
from MIMSegment.Logic.finding import Finding, Severity
from MIMSegment.Logic.labels import Label
from MIMSegment.Logic.package import ModelPackage
from MIMSegment.Logic.phrases import joined
from MIMSegment.Logic.structures import LEAST_SECTION, Structure

_SLACK, _FAR = 1.25, 3.0  # factors beyond the training volumes: worth a look; no such structure
_USUAL = 0.9  # share of training images in which a structure is missed when it is not found
_RARELY_CUT = 0.5  # share of training images that cut a structure, below which a cut is told
_LOOSE = 0.05  # share of the volume in further pieces from which it is worth a look
_WRONG_SIDE = 0.1  # share of the volume


def check_structures(
    structures: Mapping[int, Structure], labels: Sequence[Label], package: ModelPackage
) -> list[Finding]:
    """Empty, of an unusual volume, in pieces, cut off by the image's border."""
    if not any(label.value in structures for label in labels):
        return [_nothing_found(labels, package)]
    found = []
    for label in labels:
        known = package.expectations.structure(label.value)
        structure = structures.get(label.value)
        if structure is None:
            found += _missing(label, known)
        else:
            found += _volume(label, structure, known)
            found += _pieces(label, structure, known)
            found += _cut(label, structure, known)
    return found


def check_sides(
    structures: Mapping[int, Structure], labels: Sequence[Label], package: ModelPackage
) -> list[Finding]:
    """Left and right swapped, or a part of one on the side of the other."""
    found = []
    for left, right in pairs_of(labels, package.expectations):
        if left.value not in structures or right.value not in structures:
            continue
        pair = structures[left.value], structures[right.value]
        (left_x, right_x) = (structure.center[0] for structure in pair)
        if left_x < right_x:  # LPS: x grows to the patient's left
            found.append(
                Finding(
                    "sides-swapped",
                    Severity.ALERT,
                    f"{_capital(left.name)} lies {right_x - left_x:.0f} mm to the right of "
                    f"{right.name}: the sides are swapped, by the model or in the image file.",
                    left.value,
                    pair[0].pieces[0].position,
                )
            )
            continue
        middle = (left_x + right_x) / 2
        found += _strayed(left, pair[0], right, lambda x, middle=middle: x < middle)
        found += _strayed(right, pair[1], left, lambda x, middle=middle: x > middle)
    return found


def _nothing_found(labels: Sequence[Label], package: ModelPackage) -> Finding:
    expected = [label for label in labels if _is_expected(label, package)]
    names = ", ".join(label.name for label in (expected or labels)[:4])
    more = " ..." if len(expected or labels) > 4 else ""
    if not expected:
        return Finding("nothing-found", Severity.NOTE, f"Nothing was found ({names}{more}).")
    return Finding(
        "nothing-found",
        Severity.ALERT,
        f"Nothing was found at all, not even {names}{more}: the image is not what the model is "
        "made for.",
    )


def _is_expected(label: Label, package: ModelPackage) -> bool:
    known = package.expectations.structure(label.value)
    return is_anatomy(label) if known is None else known.present >= _USUAL


def _missing(label: Label, known: StructureRange | None) -> list[Finding]:
    code, name = "structure-missing", _capital(label.name)
    if known is not None and known.present >= _USUAL:
        share = f"{100 * known.present:.0f} % of the training images have it"
        return [Finding(code, Severity.WARNING, f"{name} was not found; {share}.", label.value)]
    if known is None and is_anatomy(label):
        return [Finding(code, Severity.WARNING, f"{name} was not found.", label.value)]
    return [Finding(code, Severity.NOTE, f"No {label.name} was found.", label.value)]


def _volume(label: Label, structure: Structure, known: StructureRange | None) -> list[Finding]:
    if known is None:
        return []
    volume, (low, high) = structure.volume_ml, known.volume_ml
    if low / _SLACK <= volume <= high * _SLACK:
        return []
    far = not low / _FAR <= volume <= high * _FAR
    what = "small" if volume < low else "large"
    several = is_lesion(label) and len(structure.pieces) > 1  # whose rows have a volume each
    parts = f" in {len(structure.pieces)} pieces together" if several else ""
    return [
        Finding(
            "volume-outside-range",
            Severity.ALERT if far and not is_lesion(label) else Severity.WARNING,
            f"{_capital(label.name)} is unusually {what}: {ml(volume)} mL{parts}, in the training "
            f"data {ml(low)} to {ml(high)} mL.",
            label.value,
            structure.pieces[0].position,
        )
    ]


def _pieces(label: Label, structure: Structure, known: StructureRange | None) -> list[Finding]:
    count = len(structure.pieces)
    if is_lesion(label) or count <= (known.pieces if known else 1):
        return []
    loose = 1 - structure.pieces[0].volume_ml / structure.volume_ml
    usual = f"; in the training data at most {known.pieces}" if known else ""
    return [
        Finding(
            "structure-fragmented",
            Severity.WARNING if loose >= _LOOSE else Severity.NOTE,
            f"{_capital(label.name)} is in {count} pieces, of which the largest holds "
            f"{100 * (1 - loose):.0f} % of its {ml(structure.volume_ml)} mL{usual}.",
            label.value,
            structure.pieces[1].position,
        )
    ]


def _cut(label: Label, structure: Structure, known: StructureRange | None) -> list[Finding]:
    if known is not None and known.at_border >= _RARELY_CUT:
        return []
    sections = [s for s in structure.cut if s.area_mm2 >= LEAST_SECTION]
    if not sections:
        return []
    largest = max(sections, key=lambda section: section.area_mm2)
    sides = joined([section.side for section in sections])
    return [
        Finding(
            "structure-cut-off",
            Severity.WARNING,
            f"{_capital(label.name)} reaches the {sides} border of the image with a section of "
            f"{largest.area_mm2 / 100:.1f} cm²: a part of it may be outside, and its volume too "
            "small.",
            label.value,
            largest.position,
        )
    ]


def _strayed(label: Label, structure: Structure, other: Label, is_beyond) -> list[Finding]:
    pieces = [piece for piece in structure.pieces if is_beyond(piece.position[0])]
    volume = sum(piece.volume_ml for piece in pieces)
    if volume < _WRONG_SIDE * structure.volume_ml:
        return []
    return [
        Finding(
            "part-on-other-side",
            Severity.WARNING,
            f"{ml(volume)} of the {ml(structure.volume_ml)} mL of {label.name} lie on the side of "
            f"{other.name}.",
            label.value,
            pieces[0].position,
        )
    ]


def ml(volume: float) -> str:
    """Milliliters for people: whole ones from 100 on, one decimal from 1 on, else two."""
    return f"{volume:.0f}" if volume >= 100 else f"{volume:.1f}" if volume >= 1 else f"{volume:.2f}"


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]
