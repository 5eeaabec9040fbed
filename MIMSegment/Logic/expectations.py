"""What a model was trained on, in numbers that an input and a result can be held against.

Part of a package's metadata, written at export from the training images; every field is optional,
as is the whole table. Sizes are (z, y, x) along the patient's S, P and L axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from MIMSegment.Logic.errors import PackageError
from MIMSegment.Logic.tables import build, known_fields, require_inside

Range = tuple[float, float]
SIDES = ("", "left", "right")


@dataclass(frozen=True)
class GrayValueRange:
    """Gray values of one input over the training images.

    ``low``, ``median`` and ``high`` are the ranges of the percentiles 0.5, 50 and 99.5 of the
    images; ``profile`` the mean of their `gray_values.GrayValues.profile`. ``quantitative`` says
    that the numbers mean something by themselves (Hounsfield units, ADC).
    """

    low: Range
    median: Range
    high: Range
    profile: tuple[float, ...] = ()
    quantitative: bool = False


@dataclass(frozen=True)
class StructureRange:
    """One structure, by its label ``value``, over the training images that have it.

    ``present`` is the share of images that have it, ``volume_ml`` the range of its volume,
    ``pieces`` the largest number of pieces, ``at_border`` the share of images at whose border it
    ends. ``side`` is "left", "right" or "" and ``inside`` names the structures around it; both
    follow from the label's codes where they are empty.
    """

    value: int
    volume_ml: Range
    pieces: int = 1
    present: float = 1.0
    at_border: float = 0.0
    side: str = ""
    inside: tuple[int, ...] = ()


@dataclass(frozen=True)
class ReconstructionRange:
    """The masked-reconstruction network ``model`` of a package and its errors on scans of the
    training data's kind that it never saw; see `reconstruction`.

    Crops of ``patch`` voxels are hidden in blocks of ``block`` voxels up to ``ratio``, all (z, y,
    x) on the network's grid. ``errors`` holds the 5, 50 and 95 % quantiles over ``images`` scans
    of the error of all inputs together, ``input_errors`` those of each input, ``tissue_errors``
    those where the first input is bright.
    """

    model: str
    patch: tuple[int, int, int]
    block: tuple[int, int, int]
    ratio: float
    errors: tuple[float, float, float]
    input_errors: tuple[tuple[float, float, float], ...] = ()
    images: int = 0
    tissue_errors: tuple[float, ...] = ()


@dataclass(frozen=True)
class Expectations:
    """Ranges over ``images`` training images: voxel size and extent in mm, the inputs' gray
    values in the order of the inputs, structures, reconstruction errors."""

    images: int = 0
    spacing: tuple[Range, Range, Range] | None = None
    extent: tuple[Range, Range, Range] | None = None
    inputs: tuple[GrayValueRange, ...] = ()
    structures: tuple[StructureRange, ...] = ()
    reconstruction: ReconstructionRange | None = None

    def structure(self, value: int) -> StructureRange | None:
        """What is known of the structure with this label value."""
        return next((item for item in self.structures if item.value == value), None)

    def to_dict(self) -> dict:
        """Plain dictionaries, lists and numbers, ready for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any], source: str = "the package") -> Expectations:
        """Read and check; raises PackageError naming the field that is missing or wrong."""
        try:
            data = known_fields(Expectations, data, source)
            for name, cls in (("inputs", GrayValueRange), ("structures", StructureRange)):
                data[name] = tuple(build(cls, item, source) for item in data.get(name) or ())
            if data.get("reconstruction") is not None:
                data["reconstruction"] = build(ReconstructionRange, data["reconstruction"], source)
            expectations = build(Expectations, data, source)
            _check(expectations, source)
        except (TypeError, AttributeError, ValueError) as error:
            raise PackageError(
                f"{source}: a field of 'plausibility' has the wrong type ({error})."
            ) from None
        return expectations


def _check(expectations: Expectations, source: str) -> None:
    ranges = [*(expectations.spacing or ()), *(expectations.extent or ())]
    for item in expectations.inputs:
        ranges += [item.low, item.median, item.high]
    for item in expectations.structures:
        ranges.append(item.volume_ml)
        if item.side not in SIDES:
            raise PackageError(f"{source}: side {item.side!r} is neither left nor right.")
    for found in ranges:
        low, high = found
        if not low <= high:
            raise PackageError(f"{source}: the range {found} of 'plausibility' does not ascend.")
    network = expectations.reconstruction
    if network is None:
        return
    require_inside(network.model, source)
    if len(network.tissue_errors) not in (0, 3):
        raise PackageError(f"{source}: tissue_errors of the reconstruction network are not three.")
    if not (0 < network.ratio < 1 and min(*network.patch, *network.block) > 0):
        raise PackageError(f"{source}: the reconstruction network's patch or ratio is wrong.")
