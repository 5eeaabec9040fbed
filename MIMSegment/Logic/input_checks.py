"""Checks of where an input lies and how finely it is sampled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from MIMSegment.Logic.alignment import overlap
from MIMSegment.Logic.expectations import Range
from MIMSegment.Logic.finding import Finding, Severity
from MIMSegment.Logic.package import ModelPackage
from MIMSegment.Logic.preprocess import reorientation
from MIMSegment.Logic.volume import Geometry, Volume, axes_to, permuted

_AXES = ("from foot to head", "from front to back", "from side to side")  # z, y, x of LPS
_COARSE, _VERY_COARSE = 1.5, 3.0  # times the coarsest voxel of the training images
_FINE = 1 / 3  # of the finest one
_CUT, _BADLY_CUT = 0.7, 0.35  # of the smallest extent of the training images
_WIDE = 1.5  # times the largest one
_COVERED, _HALF_COVERED = 0.95, 0.75  # of the first input by every other one
_FEW_SLICES = 6


def check_phantom(images: Sequence[Volume], package: ModelPackage) -> list[Finding]:
    """A model of digital phantoms on what may be a person."""
    if not package.phantom:
        return []
    scanned = any(image.header.get("Modality") for image in images)
    where = "this is a scan from a scanner" if scanned else "only phantoms are fit for it"
    return [
        Finding(
            "phantom-model",
            Severity.ALERT if scanned else Severity.WARNING,
            f"{package.title} was trained on digital phantoms, not on people, and {where}: do not "
            "rely on anything that it finds.",
        )
    ]


def check_box(images: Sequence[Volume], package: ModelPackage) -> list[Finding]:
    """Voxel size and field of view of the first input, and what of it the others cover."""
    reference = images[0]
    found = _spacing(reference, package) + _extent(reference, package)
    return found + _coverage(images, package)


def center_of(geometry: Geometry) -> tuple[float, float, float]:
    """The LPS position in mm of the middle of the grid."""
    middle = [(n - 1) / 2 for n in reversed(geometry.shape)]
    return tuple(float(v) for v in (geometry.ijk_to_lps @ [*middle, 1.0])[:3])


def _spacing(image: Volume, package: ModelPackage) -> list[Finding]:
    spacing, ranges, basis = _spacing_ranges(image.geometry, package)
    found, name = [], package.spec.inputs[0].name
    ratios = [s / high for s, (_, high) in zip(spacing, ranges, strict=True)]
    axis = int(np.argmax(ratios))
    if ratios[axis] > _COARSE:
        found.append(
            Finding(
                "spacing-coarse",
                Severity.ALERT if ratios[axis] > _VERY_COARSE else Severity.WARNING,
                f"The voxels of {name} are {_mm(spacing[axis])} mm long {_AXES[axis]}, {basis} "
                f"{_range(ranges[axis])} mm: small structures and borders cannot be seen; take a "
                "series with thinner slices if there is one.",
            )
        )
    fine = [s / low for s, (low, _) in zip(spacing, ranges, strict=True)]
    axis = int(np.argmin(fine))
    if fine[axis] < _FINE and not found:
        found.append(
            Finding(
                "spacing-fine",
                Severity.NOTE,
                f"The voxels of {name} are {spacing[axis]:.3g} mm long {_AXES[axis]}, {basis} "
                f"{_range(ranges[axis])} mm; the image is smoothed for the model.",
            )
        )
    if image.geometry.shape[0] < _FEW_SLICES:
        found.append(
            Finding(
                "few-slices",
                Severity.WARNING,
                f"{name} has only {image.geometry.shape[0]} slices; check that the series is "
                "complete.",
            )
        )
    return found


def _spacing_ranges(geometry: Geometry, package: ModelPackage):
    """Voxel size, and what is to be expected of it, along the same axes; and where from."""
    if package.expectations.spacing is not None:
        return _upright(geometry).spacing, package.expectations.spacing, "in the training data"
    plan = package.spec.preprocessing
    order, flips = reorientation(geometry, plan)
    spacing = permuted(geometry, order, flips).spacing
    wanted = [(s, s) if w is None else (w, w) for w, s in zip(plan.spacing, spacing, strict=True)]
    # `_AXES` names upright axes: put those of the network back in that order.
    upright = axes_to(geometry, "LPS")[0]
    places = [order.index(axis) for axis in upright]
    return (
        tuple(spacing[p] for p in places),
        tuple(wanted[p] for p in places),
        "the model works at",
    )


def _extent(image: Volume, package: ModelPackage) -> list[Finding]:
    ranges = package.expectations.extent
    if ranges is None:
        return []
    found, name = [], package.spec.inputs[0].name
    geometry = _upright(image.geometry)
    extent = np.multiply(geometry.shape, geometry.spacing)
    for axis, (size, (low, high)) in enumerate(zip(extent, ranges, strict=True)):
        seen = f"{name} covers {size:.0f} mm {_AXES[axis]}, the training images {low:.0f} to "
        seen += f"{high:.0f} mm"
        if size < _CUT * low:
            found.append(
                Finding(
                    "field-of-view-cut",
                    Severity.ALERT if size < _BADLY_CUT * low else Severity.WARNING,
                    f"{seen}: structures may be cut off, or missed for want of their surroundings; "
                    "take a series that covers more, if there is one.",
                    position=center_of(image.geometry),
                )
            )
        elif size > _WIDE * high:
            found.append(
                Finding(
                    "field-of-view-wide",
                    Severity.NOTE,
                    f"{seen}: beyond the region that it knows the model may take other things for "
                    "its structures.",
                )
            )
    return found


def _coverage(images: Sequence[Volume], package: ModelPackage) -> list[Finding]:
    found = []
    first, *others = package.spec.inputs
    for item, image in zip(others, images[1:], strict=False):
        covered = overlap(images[0], image)
        if covered < _COVERED:
            found.append(
                Finding(
                    "input-covers-part",
                    Severity.WARNING if covered < _HALF_COVERED else Severity.NOTE,
                    f"{item.name} covers only {100 * covered:.0f} % of {first.name}; where it is "
                    "missing, the model sees its darkest value: do not rely on the result there.",
                )
            )
    return found


def _upright(geometry: Geometry) -> Geometry:
    return permuted(geometry, *axes_to(geometry, "LPS"))


def _range(values: Range) -> str:
    low, high = map(_mm, values)
    return low if low == high else f"{low} to {high}"


def _mm(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
