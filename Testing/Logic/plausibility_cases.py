"""A package with ranges of training data, and images that fit it or do not."""

from dataclasses import replace

import numpy as np

from MIMSegment.Logic.engine import Segmentation
from MIMSegment.Logic.expectations import Expectations, GrayValueRange, StructureRange
from MIMSegment.Logic.labels import Code, Label
from MIMSegment.Logic.matching import InputSpec
from MIMSegment.Logic.package import ModelPackage
from MIMSegment.Logic.volume import Geometry, Volume
from tiny_package import threshold_spec

ANATOMY = Code("SCT", "123037004", "Anatomical Structure")
ALTERED = Code("SCT", "49755003", "Morphologically Altered Structure")
KIDNEY = Code("SCT", "64033007", "Kidney")
PROSTATE = Code("SCT", "41216001", "Prostate")
LEFT, RIGHT = Code("SCT", "7771000", "Left"), Code("SCT", "24028007", "Right")
LABELS = (
    Label(1, "right kidney", ANATOMY, KIDNEY, RIGHT),
    Label(2, "left kidney", ANATOMY, KIDNEY, LEFT),
    Label(4, "prostate", ANATOMY, PROSTATE),
    Label(7, "lesion", ALTERED, Code("SCT", "52988006", "Lesion"), region=PROSTATE),
)
GEOMETRY = Geometry.from_parts((20, 40, 40), (2.0, 1.0, 1.0))
SPACING = ((1.5, 3.0), (0.8, 1.2), (0.8, 1.2))
EXTENT = ((35.0, 60.0), (38.0, 80.0), (38.0, 80.0))


def package(inputs=("CT",), phantom=False, **expectations) -> ModelPackage:
    """A package without files: the checks read no network."""
    specs = tuple(InputSpec(n, "CT" if n == "CT" else "MR") for n in inputs)
    spec = replace(threshold_spec(), inputs=specs, channel_labels=(0, 1, 2, 4, 7))
    known = Expectations(**{"images": 12, "spacing": SPACING, "extent": EXTENT, **expectations})
    return ModelPackage(
        None, "test", "1.0.0", "Test", spec, LABELS, phantom=phantom, expectations=known
    )


def image(array=None, geometry=GEOMETRY, source="scan.nii.gz", **header) -> Volume:
    """One channel on ``geometry``, by default noise."""
    if array is None:
        array = np.random.default_rng(0).normal(100, 20, geometry.shape)
    return Volume(array[None].astype(np.float32), geometry, source, header=header)


def result(*boxes, geometry=GEOMETRY) -> Segmentation:
    """A label array with boxes (label value, z, y, x slices)."""
    labels = np.zeros(geometry.shape, np.uint8)
    for value, z, y, x in boxes:
        labels[slice(*z), slice(*y), slice(*x)] = value
    return Segmentation(labels, geometry)


def structure(value: int, low: float, high: float, **more) -> StructureRange:
    return StructureRange(value, (low, high), **more)


def hounsfield() -> GrayValueRange:
    return GrayValueRange(
        low=(-1020.0, -1000.0), median=(-200.0, 60.0), high=(300.0, 900.0), quantitative=True
    )


def codes(findings) -> list[str]:
    return [finding.code for finding in findings]


def only(findings):
    """The single finding of a check."""
    assert len(findings) == 1, [str(finding) for finding in findings]
    return findings[0]
