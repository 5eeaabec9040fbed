"""What a DICOM file says about its frames, read without the pixels and without the patient.

Only the attributes named here are parsed. The patient's name and ID are among them only to be
taken out of free text, where people type them; neither is kept, but for the ID of a patient whose
identity was removed. Attribute and macro names are
those of DICOM PS3.3 and PS3.6.
"""

from __future__ import annotations

import re
import stat
import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from MIMSegment.Logic.dicom_privacy import pseudonym, without_identity

_CLASS = "1.2.840.10008.5.1.4.1.1."
_IMAGE_CLASSES = {
    _CLASS + suffix
    for suffix in (
        "2", "2.1", "2.2",  # CT: classic, enhanced, legacy converted enhanced
        "4", "4.1", "4.4",  # MR
        "128", "128.1", "130",  # PET: classic, legacy converted enhanced, enhanced
        "13.1.1", "13.1.2",  # cone-beam CT: angiographic, craniofacial
    )
}  # fmt: skip
_VOLUME_MODALITIES = ("CT", "MR", "PT")
_OTHER_KINDS = {
    "SEG": "a segmentation, not an image",
    "RTSTRUCT": "radiotherapy contours, not an image",
    "RTDOSE": "a radiotherapy dose, not an image",
    "RTPLAN": "a radiotherapy plan, not an image",
    "SR": "a report, not an image",
    "KO": "a list of key images, not an image",
    "PR": "a presentation state, not an image",
    "DX": "a projection (X-ray), not a slice of a volume",
    "CR": "a projection (X-ray), not a slice of a volume",
    "MG": "a projection (mammogram), not a slice of a volume",
}
_GE, _PHILIPS, _SIEMENS = (0x0043, 0x1039), (0x2001, 0x1003), (0x0019, 0x100C)
_HEADER_TAGS = (
    "Modality", "SeriesDescription", "ProtocolName", "SeriesNumber", "SeriesInstanceUID",
    "StudyInstanceUID", "FrameOfReferenceUID", "ImageType", "EchoTime", "RepetitionTime",
    "InversionTime", "FlipAngle", "MagneticFieldStrength", "ContrastBolusAgent", "SequenceName",
    "ScanningSequence", "BodyPartExamined", "SliceThickness", "KVP", "ConvolutionKernel",
    "Manufacturer", "ManufacturerModelName", "StudyDate",
)  # fmt: skip
_FRAME_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "PhotometricInterpretation", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "InstanceNumber",
    "AcquisitionNumber", "AcquisitionTime", "ContentTime", "TemporalPositionIdentifier",
    "TriggerTime", "DiffusionBValue", "DiffusionGradientOrientation", "ComplexImageComponent",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "DimensionIndexSequence", _GE, _PHILIPS, _SIEMENS,
)  # fmt: skip
_IDENTITY_TAGS = ("PatientName", "PatientID")
_REMOVED = "PatientIdentityRemoved"
_FRAME_TYPES = (
    "MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence",
    "XRay3DFrameTypeSequence",
)  # fmt: skip
# In enhanced objects an attribute stands in a functional group, per frame or shared by all.
_MACROS = {
    "ImagePositionPatient": ("PlanePositionSequence",),
    "ImageOrientationPatient": ("PlaneOrientationSequence",),
    "PixelSpacing": ("PixelMeasuresSequence",),
    "SliceThickness": ("PixelMeasuresSequence",),
    "RescaleSlope": ("PixelValueTransformationSequence",),
    "RescaleIntercept": ("PixelValueTransformationSequence",),
    "FrameType": _FRAME_TYPES,
    "ComplexImageComponent": _FRAME_TYPES,
    "DiffusionBValue": ("MRDiffusionSequence",),
    "DiffusionGradientDirectionSequence": ("MRDiffusionSequence",),
    "EffectiveEchoTime": ("MREchoSequence",),
    "RepetitionTime": ("MRTimingAndRelatedParametersSequence",),
    "FlipAngle": ("MRTimingAndRelatedParametersSequence",),
    "InversionTimes": ("MRModifierSequence",),
    "NominalCardiacTriggerDelayTime": ("CardiacSynchronizationSequence",),
    "TemporalPositionIndex": ("FrameContentSequence",),
    "StackID": ("FrameContentSequence",),
    "DimensionIndexValues": ("FrameContentSequence",),
    "FrameAcquisitionNumber": ("FrameContentSequence",),
    "FrameAcquisitionDateTime": ("FrameContentSequence",),
}
_PLACE_POINTERS = (0x00200032, 0x00209057)  # ImagePositionPatient, InStackPositionNumber

Lookup = Callable[[str], object]


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice: where it is, how its stored values become grey values, and what it belongs to.

    ``position`` (3,) and ``orientation`` (2, 3: along a row, down a column) are LPS, None if not
    stated; ``spacing`` is (between rows, between columns) in mm. ``traits`` are the values that
    may tell the volumes of one series apart, in the order in which they should be tried.
    """

    file: Path
    index: int
    uid: str
    shape: tuple[int, int]
    position: np.ndarray | None
    orientation: np.ndarray | None
    spacing: tuple[float, float] | None
    slope: float
    intercept: float
    inverted: bool
    instance: int
    b_value: float | None
    traits: dict[str, Hashable]
    header: dict


@dataclass(frozen=True)
class NotAnImage:
    """A DICOM file that is no slice of a volume: which one, of which series, and why.

    ``damaged`` says that it might have been one.
    """

    file: Path
    series_uid: str
    reason: str
    damaged: bool = False


def read_frames(path: Path) -> list[Frame] | NotAnImage | None:
    """The frames of a DICOM file; NotAnImage for other DICOM objects; None if it is not DICOM.

    Raises OSError when the file cannot be opened.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        return None  # reading a pipe would wait for ever
    with open(path, "rb") as stream:
        head = stream.read(132)
    marked = head[128:] == b"DICM"
    # Old files lack the preamble and begin with an element of group 0002 or 0008.
    if not marked and head[:2] not in (b"\x08\x00", b"\x00\x08", b"\x02\x00"):
        return None
    import pydicom

    tags = [*_HEADER_TAGS, *_FRAME_TAGS, *_IDENTITY_TAGS, _REMOVED, "DirectoryRecordSequence"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom quotes odd values in its warnings
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=tags)
            series_uid = str(dataset.get("SeriesInstanceUID", ""))
            if "DirectoryRecordSequence" in dataset:
                return NotAnImage(path, series_uid, "a DICOM directory")
            if "SOPClassUID" not in dataset and "Modality" not in dataset:
                return _damaged(path, series_uid) if marked else None
            reason = _why_no_image(dataset)
            if reason:
                return NotAnImage(path, series_uid, reason)
            if not dataset.get("Rows") or not dataset.get("Columns"):
                return _damaged(path, series_uid)
            return _frames(dataset, path)
        except OSError:
            raise
        except Exception:  # damaged bytes make pydicom raise whatever they lead it to
            return _damaged(path, "")


def _damaged(path: Path, series_uid: str) -> NotAnImage:
    return NotAnImage(path, series_uid, "damaged or cut short", damaged=True)


def _why_no_image(dataset) -> str:
    kind, modality = str(dataset.get("SOPClassUID", "")), str(dataset.get("Modality", ""))
    if kind not in _IMAGE_CLASSES and not (kind == "" and modality in _VOLUME_MODALITIES):
        if kind.startswith(_CLASS + "7") and modality not in _OTHER_KINDS:
            return "a secondary capture (a screenshot or a derived picture)"
        name = dataset["SOPClassUID"].value.name if kind else f"of modality {modality}"
        return _OTHER_KINDS.get(modality, f"not a slice image ({name})")
    if "LOCALIZER" in _strings(dataset.get("ImageType")):
        return "a localizer"
    if "MOSAIC" in _strings(dataset.get("ImageType")):
        return "a mosaic of many slices in one picture; convert it with dcm2niix first"
    if dataset.get("SamplesPerPixel", 1) != 1 or not str(
        dataset.get("PhotometricInterpretation", "MONOCHROME2")
    ).startswith("MONOCHROME"):
        return "a color image; convert it to grey values first"
    if dataset.get("ModalityLUTSequence"):
        return "stored through a lookup table; export it with plain grey values"
    return ""


def _frames(dataset, path: Path) -> list[Frame]:
    header = {tag: _plain(dataset[tag].value) for tag in _HEADER_TAGS if dataset.get(tag)}
    header = {tag: value for tag, value in header.items() if value != "None"}
    name, patient_id = (str(dataset.get(tag) or "") for tag in _IDENTITY_TAGS)
    header = without_identity(header, name, patient_id)
    header |= pseudonym(dataset.get(_REMOVED), patient_id)
    shared = _first(dataset.get("SharedFunctionalGroupsSequence"))
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    if per_frame is None:
        count = int(dataset.get("NumberOfFrames") or 1)
        groups = [None] * count
    else:
        groups = list(per_frame)
    shape = (int(dataset.Rows), int(dataset.Columns))
    pointers = [int(i.get("DimensionIndexPointer") or 0) for i in
                dataset.get("DimensionIndexSequence") or ()]  # fmt: skip
    return [
        _frame(dataset, _lookup(group, shared, dataset), path, index, shape, header, pointers,
               len(groups) > 1)
        for index, group in enumerate(groups)
    ]  # fmt: skip


def _frame(dataset, get: Lookup, path, index, shape, header, pointers, multiframe) -> Frame:
    position = _numbers(get("ImagePositionPatient"))
    orientation = _numbers(get("ImageOrientationPatient"))
    spacing = _numbers(get("PixelSpacing"))
    slope, intercept = _number(get("RescaleSlope")), _number(get("RescaleIntercept"))
    own = {
        "EchoTime": _number(get("EffectiveEchoTime")) or _number(get("EchoTime")),
        "RepetitionTime": _number(get("RepetitionTime")),
        "InversionTime": _first(_numbers(get("InversionTimes"))) or _number(get("InversionTime")),
        "FlipAngle": _number(get("FlipAngle")),
        "SliceThickness": _number(get("SliceThickness")),
        "ImageType": tuple(_strings(get("FrameType")) or _strings(get("ImageType"))) or None,
    }
    header = {**header, **{tag: value for tag, value in own.items() if value is not None}}
    b_value = None if "ADC" in header.get("ImageType", ()) else _b_value(get, dataset)
    traits = {
        "type": (*header.get("ImageType", ())[2:], str(get("ComplexImageComponent") or "")),
        "b": b_value,
        "direction": _gradient(get),
        "TE": header.get("EchoTime"),
        "TI": header.get("InversionTime"),
        "time": _number(get("TemporalPositionIndex") or get("TemporalPositionIdentifier")),
        "stack": str(get("StackID") or ""),
        "phase": _number(get("NominalCardiacTriggerDelayTime") or get("TriggerTime")),
        "acquisition": _number(get("FrameAcquisitionNumber") or get("AcquisitionNumber")),
        "acquisition time": str(get("FrameAcquisitionDateTime") or get("AcquisitionTime") or ""),
        "group": _other_dimensions(get, pointers),
        "file": str(dataset.get("SOPInstanceUID", path)) if multiframe else "",
        "content time": str(dataset.get("ContentTime") or ""),
    }
    return Frame(
        file=path,
        index=index,
        uid=str(dataset.get("SOPInstanceUID", path)),
        shape=shape,
        position=np.array(position) if position and len(position) == 3 else None,
        orientation=np.reshape(orientation, (2, 3)) if len(orientation or ()) == 6 else None,
        spacing=tuple(spacing) if spacing and len(spacing) == 2 and min(spacing) > 0 else None,
        slope=1.0 if slope is None or slope == 0 else slope,
        intercept=intercept or 0.0,
        inverted=str(dataset.get("PhotometricInterpretation", "")) == "MONOCHROME1",
        instance=int(_number(dataset.get("InstanceNumber")) or 0),
        b_value=b_value,
        traits=traits,
        header=header,
    )


def _lookup(group, shared, dataset) -> Lookup:
    """An attribute from the frame's functional groups, else the shared ones, else the top level."""

    def get(keyword: str):
        for item in (group, shared):
            for macro in _MACROS.get(keyword, ()) if item is not None else ():
                inner = _first(item.get(macro))
                if inner is not None and keyword in inner:
                    return inner.get(keyword)
        return dataset.get(keyword)

    return get


def _b_value(get: Lookup, dataset) -> float | None:
    """The b-value in s/mm² from the standard attribute, vendors' own ones, or the sequence name."""
    value = _number(get("DiffusionBValue"))
    for tag in (_SIEMENS, _PHILIPS):
        if value is None and tag in dataset:
            value = _number(dataset[tag].value)
    if value is None and _GE in dataset:
        value = _number(_first(_strings(dataset[_GE].value)))
        value = None if value is None else value % 100_000  # GE adds 10⁹ as a flag
    if value is None:
        # Siemens: "*ep_b800t", "ep_b1000#3"; "*ep_b50_800" names the range of a computed image
        found = re.search(r"_b(\d+)(?:[t#]|$)", str(dataset.get("SequenceName", "")))
        value = float(found[1]) if found else None
    return value


def _gradient(get: Lookup) -> tuple[float, ...] | None:
    inner = _first(get("DiffusionGradientDirectionSequence"))
    value = inner.get("DiffusionGradientOrientation") if inner is not None else None
    direction = _numbers(value or get("DiffusionGradientOrientation"))
    return tuple(round(d, 3) for d in direction) if direction else None


def _other_dimensions(get: Lookup, pointers: list[int]) -> tuple[int, ...]:
    """The frame's indices along the dimensions that are not its place in the stack."""
    values = _numbers(get("DimensionIndexValues")) or []
    return tuple(int(v) for p, v in zip(pointers, values, strict=False) if p not in _PLACE_POINTERS)


def _first(sequence):
    return sequence[0] if sequence is not None and len(sequence) else None


def _strings(value) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bytes):
        value = value.decode("ascii", "ignore").strip("\0 ").split("\\")
    elif isinstance(value, str) or not hasattr(value, "__iter__"):
        value = [value]
    return [str(v) for v in value]


def _numbers(value) -> list[float] | None:
    try:
        numbers = [float(v) for v in _strings(value)]
    except ValueError:
        return None
    return numbers if numbers and np.isfinite(numbers).all() else None


def _number(value) -> float | None:
    return _first(_numbers(value))


def _plain(value):
    """A pydicom value as a plain number, string or tuple."""
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        return int(value)
    if hasattr(value, "__iter__") and not isinstance(value, (str, bytes)):
        return tuple(_plain(v) for v in value)
    return str(value)
