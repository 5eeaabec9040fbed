"""DICOM: the image series of a folder, and one of them as a volume.

Slices are sorted by their position, never by file name or number; the distance between them comes
from the positions, not from SliceThickness. What cannot be placed rightly is refused with the
reason. Nothing that identifies the patient is kept or said.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from MIMSegment.Logic.dicom_headers import Frame, NotAnImage, read_frames
from MIMSegment.Logic.dicom_pixels import grey_values, read_slots
from MIMSegment.Logic.dicom_split import slots, split_series
from MIMSegment.Logic.dicom_stack import stack_frames, straighten
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.image_kind import told_by_content
from MIMSegment.Logic.volume import Volume

_PLANES = ("sagittal", "coronal", "axial")  # by the patient axis nearest to the normal


@dataclass(frozen=True, eq=False)
class Series:
    """One volume found in a folder: the whole of a DICOM series, or a part such as one b-value.

    ``frames`` are in slice order. ``number_of_slices`` counts places, not files. ``part`` says
    what tells this volume from the others of its series ("" if it is the only one). ``warnings``
    name damaged files beside it that may have belonged to it.
    """

    frames: tuple[Frame, ...]
    part: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def header(self) -> dict:
        """Attributes by DICOM keyword; those that vary within the volume are the first slice's."""
        header = dict(self.frames[0].header)
        if self.b_value is not None:
            header["DiffusionBValue"] = self.b_value
        return header

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of this volume in slice order, each once."""
        return tuple(dict.fromkeys(frame.file for frame in self.frames))

    @property
    def uid(self) -> str:
        """SeriesInstanceUID, shared by all parts of one series."""
        return str(self.frames[0].header.get("SeriesInstanceUID", ""))

    @property
    def modality(self) -> str:
        """Modality: "MR", "CT" or "PT"."""
        return str(self.frames[0].header.get("Modality", ""))

    @property
    def description(self) -> str:
        """SeriesDescription, else ProtocolName, else ""."""
        return str(self.frames[0].header.get("SeriesDescription") or self.protocol)

    @property
    def protocol(self) -> str:
        """ProtocolName."""
        return str(self.frames[0].header.get("ProtocolName", ""))

    @property
    def b_value(self) -> float | None:
        """Diffusion b-value in s/mm²; None for ADC maps and images without diffusion weighting."""
        values = {frame.b_value for frame in self.frames}
        return values.pop() if len(values) == 1 else None

    @property
    def orientation(self) -> str:
        """Plane: "axial", "coronal" or "sagittal", to the nearest; "" if the file does not say."""
        if self.frames[0].orientation is None:
            return ""
        return _PLANES[int(np.abs(np.cross(*self.frames[0].orientation)).argmax())]

    @property
    def number_of_slices(self) -> int:
        """Places along the stack; copies of a slice count once."""
        placed = all(f.position is not None and f.orientation is not None for f in self.frames)
        return len(slots(self.frames)) if placed else len(self.frames)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        return (self.number_of_slices, *self.frames[0].shape)

    @property
    def title(self) -> str:
        """One line for display, without anything about the patient."""
        number = self.frames[0].header.get("SeriesNumber")
        name = self.description or "unnamed series"
        if number is not None:
            name = f"{number}: {name}"
        slices, rows, columns = self.shape
        size = f"{slices} slice{'s' if slices != 1 else ''} of {rows}×{columns}"
        return ", ".join(filter(None, (name, self.part, self.modality, self.orientation, size)))


@dataclass(frozen=True)
class Skipped:
    """DICOM files that are no image series, and why."""

    files: tuple[Path, ...]
    reason: str


@dataclass(frozen=True)
class Scan:
    """What a folder holds."""

    series: tuple[Series, ...]
    skipped: tuple[Skipped, ...]


def scan(path: str | Path) -> list[Series]:
    """Every image volume under a folder, or those of its folder that one file belongs to."""
    return list(scan_all(path).series)


def scan_all(path: str | Path) -> Scan:
    """As `scan`, with the DICOM files that are no image, each with the reason."""
    path = Path(path)
    if path.is_dir():
        return _scan_files(
            Path(folder) / name for folder, _, names in os.walk(path) for name in names
        )
    around = _scan_files(p for p in path.parent.iterdir() if p.is_file())
    return Scan(
        tuple(series for series in around.series if path in series.files),
        tuple(skipped for skipped in around.skipped if path in skipped.files),
    )


def read_dicom(path: str | Path) -> Volume:
    """Read the only image volume of a folder, or the one that a file belongs to.

    Raises InputError that lists what was found when there is no volume or more than one.
    """
    volumes = [series for series in scan(path) if series.number_of_slices > 1]
    if len(volumes) > 1:
        raise InputError(
            f"{path} holds {len(volumes)} image volumes; give a file of the right one: "
            f"{_listed(volumes)}"
        )
    if not volumes:
        raise InputError(why_no_volume(path))
    return read_series(volumes[0])


def why_no_volume(path: str | Path) -> str:
    """A sentence on what a folder or file holds instead of a volume."""
    found = scan_all(path)
    if found.series:
        return f"{path} holds only single slices ({found.series[0].title}); a 3D image is needed."
    if found.skipped:
        reasons = "; ".join(f"{s.files[0].name} is {s.reason}" for s in found.skipped[:5])
        return f"{path} holds no image series: {reasons}."
    told = told_by_content(Path(path)) if Path(path).is_file() else ""
    way_out = told or "give a NIfTI, NRRD or MHA file or a folder of DICOM images."
    return f"{path} holds no image that can be read; {way_out}"


def read_series(series: Series) -> Volume:
    """Read one volume as (1, z, y, x) with its header fields.

    A tilted stack (CT gantry) is straightened by shifting its slices in their plane, with a
    warning. Raises GeometryError for missing or unevenly spaced slices and unknown positions,
    InputError for pixels that cannot be decoded and for contradicting duplicates.
    """
    source = f"{series.files[0].parent} ({series.title})"
    stack = stack_frames(series.frames, source)
    array, warnings = read_slots(stack.slots, source)
    array, inverted = grey_values(array, [slot[0] for slot in stack.slots], series.modality)
    warnings += inverted
    geometry = stack.geometry
    if stack.shifts is not None:
        array, geometry = straighten(array, stack)
        warnings.append(
            f"{source}: the slices are stacked at a tilt of {stack.tilt:.1f}°; they were shifted "
            "into an upright box by linear interpolation, so the result lies on that grid."
        )
    warnings = (*series.warnings, *warnings)
    return Volume(array[None], geometry, source, warnings, series.header)


def _scan_files(files: Iterable[Path]) -> Scan:
    by_series: dict[str, list[Frame]] = defaultdict(list)
    others: dict[tuple[str, str], list[Path]] = defaultdict(list)
    damaged: list[NotAnImage] = []
    for file in sorted(files):
        try:
            found = read_frames(file)
        except OSError as error:
            raise InputError(f"{file} cannot be opened ({error.strerror}).") from None
        if isinstance(found, NotAnImage):
            others[found.series_uid, found.reason].append(file)
            damaged += [found] if found.damaged else []
        else:
            for frame in found or ():
                by_series[str(frame.header.get("SeriesInstanceUID", ""))].append(frame)
    series = [
        Series(
            part.frames,
            ", ".join(text for _, text in part.traits),
            _damage_beside(part.frames, damaged),
        )
        for frames in by_series.values()
        for part in split_series(_without_vain_b_values(frames))
    ]
    series.sort(key=_place_in_list)
    skipped = [Skipped(tuple(files), reason) for (_, reason), files in others.items()]
    return Scan(tuple(series), tuple(skipped))


def _place_in_list(series: Series) -> tuple[int, str]:
    number = series.header.get("SeriesNumber")
    return (number if isinstance(number, int) else 0), series.uid  # some files hold several


def _damage_beside(frames: tuple[Frame, ...], damaged: list[NotAnImage]) -> tuple[str, ...]:
    """Warnings of files that may be missing in a series: of its UID, or unreadable beside it."""
    folders = {frame.file.parent for frame in frames}
    uid = str(frames[0].header.get("SeriesInstanceUID", ""))
    return tuple(
        f"{item.file} is {item.reason}; it was left out."
        for item in damaged
        if item.series_uid == uid or (not item.series_uid and item.file.parent in folders)
    )


def _without_vain_b_values(frames: list[Frame]) -> list[Frame]:
    """Some vendors write b = 0 into every image: it says something only beside other b-values."""
    if any(frame.b_value for frame in frames):
        return frames
    return [replace(frame, b_value=None) for frame in frames]


def _listed(volumes: Sequence[Series]) -> str:
    return "; ".join(f"{s.title} ({s.files[0].name})" for s in volumes[:20])
