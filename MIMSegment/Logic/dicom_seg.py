"""A reviewed result as a DICOM Segmentation, by highdicom (PS3.3 A.51).

Every segment says who drew it: AUTOMATIC for what the model drew and nobody changed, SEMIAUTOMATIC
after an edit, MANUAL for what a person has drawn. It refers to the images it lies on, and carries
their patient and study.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from MIMSegment.Logic.about import NAME, VERSION
from MIMSegment.Logic.dicom_source import read_sources
from MIMSegment.Logic.errors import OutputError
from MIMSegment.Logic.files import replacing
from MIMSegment.Logic.labels import Code, Label
from MIMSegment.Logic.reviewed_case import ReviewedCase
from MIMSegment.Logic.volume import Geometry

_TISSUE = Code("SCT", "85756007", "Tissue")  # where a package has no code for a structure
_SERIES_NUMBER = 300


def write_dicom_seg(case: ReviewedCase, path: str | Path) -> None:
    """Write the structures that are not rejected to ``path``.

    Raises OutputError with the reason: highdicom is missing, the reference image is not DICOM,
    its files do not lie on the grid of the result, or nothing is left to export.
    """
    files = case.inputs[0].files if case.inputs else ()
    if not files:
        loaded = case.inputs and case.inputs[0].volume is not None
        why = "were not opened from DICOM files" if loaded else "are not loaded any more"
        raise OutputError(
            f"{path} was not written: DICOM SEG refers to the DICOM images that were segmented, "
            f"and these {why}; export .seg.nrrd or NIfTI instead."
        )
    try:
        import highdicom  # noqa: F401
    except ImportError:
        raise OutputError(
            "DICOM SEG needs highdicom: pip install 'mimsegment[report]' (3D Slicer brings it)."
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd values of the source would be quoted there
        dataset = _segmentation(case, files)
    with replacing(path) as temporary:
        dataset.save_as(str(temporary))


def _segmentation(case: ReviewedCase, files: Sequence[Path]):
    from highdicom import UID
    from highdicom.seg import Segmentation, SegmentationTypeValues

    sources = read_sources(files)
    planes = _on_source_slices(case.labels.array[0], case.labels.geometry, sources)
    present = _present(case)
    if not present:
        raise OutputError("No structure has a voxel: there is nothing to export.")
    # Segments count from 1. A mask for each would need as many times the memory.
    highest = max(int(planes.max()), *(label.value for label in present))
    numbers = np.zeros(highest + 1, np.uint8 if len(present) < 256 else np.uint16)
    for number, label in enumerate(present, 1):
        numbers[label.value] = number
    pixels = numbers[planes]
    try:
        return Segmentation(
            source_images=sources,
            pixel_array=pixels,
            segmentation_type=SegmentationTypeValues.BINARY,
            segment_descriptions=[_description(n, s, case) for n, s in enumerate(present, 1)],
            series_instance_uid=UID(),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=UID(),
            instance_number=1,
            manufacturer=NAME,
            manufacturer_model_name=NAME,
            software_versions=VERSION,
            device_serial_number=VERSION,
            content_description=case.title[:64],
            series_description=f"{case.title}, research use only"[:64],
            omit_empty_frames=True,
        )
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise OutputError(
            f"The DICOM SEG could not be made from {files[0].parent}: {error}; export .seg.nrrd "
            "instead."
        ) from error


def _present(case: ReviewedCase) -> list[Label]:
    """The structures that have a voxel."""
    found: set[int] = set()
    for plane in case.labels.array[0]:
        found.update(np.flatnonzero(np.bincount(plane.ravel())).tolist())
    return [label for label in case.table if label.value in found]


def _description(number: int, label: Label, case: ReviewedCase):
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from pydicom.sr.codedict import codes

    item, made = case.item(label.value), case.provenance
    kind = "MANUAL" if item.by_hand else "SEMIAUTOMATIC" if item.edited else "AUTOMATIC"
    algorithm = AlgorithmIdentificationSequence(
        name=made.package,
        version=made.version,
        family=codes.DCM.ArtificialIntelligence,
        source=made.software,
    )
    description = SegmentDescription(
        segment_number=number,
        segment_label=label.name[:64],
        segmented_property_category=_coded(label.category or _TISSUE),
        segmented_property_type=_coded(label.type or _TISSUE),
        algorithm_type=SegmentAlgorithmTypeValues[kind],
        algorithm_identification=None if item.by_hand else algorithm,
        tracking_id=f"{made.package} {label.value}",
        tracking_uid=_new_uid(),
        anatomic_regions=[_coded(label.region)] if label.region else None,
    )
    modifier = label.type_modifier
    if modifier is not None:
        item = description.SegmentedPropertyTypeCodeSequence[0]
        item.SegmentedPropertyTypeModifierCodeSequence = [_coded(modifier)]
    description.RecommendedDisplayCIELabValue = _cielab(label.color)
    return description


def _coded(code: Code):
    from highdicom.sr import CodedConcept

    return CodedConcept(code.value, code.scheme, code.meaning[:64])


def _new_uid():
    from highdicom import UID

    return UID()


def _on_source_slices(labels: np.ndarray, geometry: Geometry, sources) -> np.ndarray:
    """The labels as the source images lie: (n, rows, columns), one plane for each file.

    Raises OutputError when they do not lie on one grid; multi-frame sources are refused.
    """
    to_index = np.linalg.inv(geometry.ijk_to_lps)
    planes = []
    for source in sources:
        if "NumberOfFrames" in source and int(source.NumberOfFrames or 1) > 1:
            raise OutputError(
                "The images are enhanced multi-frame DICOM, which this export does not write for "
                "yet; export .seg.nrrd instead."
            )
        shape = (int(source.Rows), int(source.Columns))
        i, j, k = (to_index @ [*map(float, source.ImagePositionPatient), 1.0])[:3]
        on_grid = abs(i) < 0.5 and abs(j) < 0.5 and abs(k - round(k)) < 0.1
        if shape != labels.shape[1:] or not on_grid or not 0 <= round(k) < len(labels):
            raise OutputError(
                "The result does not lie on the slices of its DICOM images (a tilted or resampled "
                "stack); export .seg.nrrd instead."
            )
        planes.append(labels[round(k)])
    return np.stack(planes)


def _cielab(color: tuple[int, int, int]) -> list[int]:
    """RGB 0..255 (sRGB) as DICOM's scaled CIELab (PS3.3 C.10.7.1.1)."""
    rgb = np.asarray(color) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    ratio = to_xyz @ linear / [0.9505, 1.0, 1.089]
    x, y, z = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    lightness, a, b = 116 * y - 16, 500 * (x - y), 200 * (y - z)
    return [
        int(np.clip(round(v), 0, 65535))
        for v in (lightness * 655.35, (a + 128) * 257, (b + 128) * 257)
    ]
