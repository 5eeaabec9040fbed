"""The images at the paths that a user gives, and one of them by its number, UID or name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.phrases import counted, iso_date

if TYPE_CHECKING:
    from MIMSegment.Logic.dicom import Series
    from MIMSegment.Logic.image_source import ImageSource
    from MIMSegment.Logic.volume import Volume

_SHOWN = 8


@dataclass(frozen=True, eq=False)
class Candidate:
    """An image that may be an input: a file, or a DICOM series (then ``series`` is set).

    ``channel`` (from 1) says that only this one of the file's is meant, None that it is the whole.
    ``name`` is for display. ``header`` holds DICOM attributes by keyword, as far as known.
    """

    name: str
    path: Path
    header: Mapping = field(default_factory=dict)
    series: Series | None = None
    channel: int | None = None

    @property
    def id(self) -> str:
        """A name that is the same the next time: the path, for a series with its UID and part."""
        if self.series is None:
            return str(self.path.absolute()) + (f"#{self.channel}" if self.channel else "")
        return f"{self.path.absolute()}#{self.series.uid}#{self.series.part}"

    @property
    def label(self) -> str:
        """The file's name without its ending; "" for a series, whose files' names say nothing."""
        if self.series is not None:
            return ""
        return re.sub(r"\.(nii(\.gz)?|nrrd|nhdr|mha|mhd)$", "", self.path.name, flags=re.I)

    @property
    def folder(self) -> str:
        """The name of a series' folder; "" for a file."""
        return "" if self.series is None else self.path.name

    @property
    def plane(self) -> str:
        """ "axial", "coronal" or "sagittal" for a series; "" where unknown."""
        return "" if self.series is None else self.series.orientation

    @property
    def instances(self) -> dict[str, Path]:
        """The DICOM files of a series by SOPInstanceUID, in slice order; none for another file."""
        frames = self.series.frames if self.series is not None else ()
        return {frame.uid: frame.file for frame in frames}

    @property
    def key(self) -> tuple[Path, int]:
        """What two candidates share only if they are the same image."""
        if self.series is None:
            return self.path.absolute(), self.channel or 0
        first = self.series.frames[0]
        return first.file.absolute(), first.index

    def read(self) -> Volume:
        """The image itself. Raises InputError or GeometryError."""
        if self.series is not None:
            from MIMSegment.Logic.dicom import read_series

            return read_series(self.series)
        from MIMSegment.Logic.volume import read_volume

        volume = read_volume(self.path)
        if self.channel is None:
            return volume
        count = len(volume.array)
        if self.channel > count:
            which = f"choose one of #1 to #{count}" if count > 1 else "give it without a number"
            raise InputError(f"{self.path} has {counted(count, 'channel')}; {which}.")
        one = volume.array[self.channel - 1 : self.channel]
        return replace(volume, array=one, source=f"{volume.source}#{self.channel}")


def find_candidates(paths: Sequence[str | Path]) -> list[Candidate]:
    """The images at these paths: files, DICOM series, and both of these inside folders, where
    Slicer's segmentations (.seg.nrrd) are left out.

    ``image.nii.gz#2`` is the second channel of that file. Raises InputError with the reason for a
    path without any.
    """
    found = []
    for path in map(Path, paths):
        channel = _channel_at(path)
        if channel is None and not path.exists():
            raise InputError(f"{path} does not exist; check how it is spelled and where it lies.")
        here = [channel] if channel else _files_at(path) + _series_at(path)
        if not here:
            from MIMSegment.Logic.dicom import why_no_volume

            raise InputError(why_no_volume(path))
        found += here
    return found


def select_candidate(candidates: Sequence[Candidate], which: str) -> Candidate:
    """The image that ``which`` means; the first of these that fits any image must fit one only.

    It is a DICOM series number, a whole name, the beginning of a series UID, or a part of a name
    such as a description. Raises InputError that lists the images.
    """
    tests = (
        lambda c: which == str(c.header.get("SeriesNumber", "")),
        lambda c: which.lower() in _whole_names(c),
        lambda c: c.series is not None and "." in which and c.series.uid.startswith(which),
        lambda c: not which.isdigit() and which.lower() in c.name.lower(),
    )
    hits = next(filter(None, ([c for c in candidates if fits(c)] for fits in tests)), [])
    if len(hits) == 1:
        return hits[0]
    problem = "fits several images" if hits else "fits no image"
    raise InputError(f'"{which}" {problem}; choose one of: {listed(hits or candidates)}.')


def listed(sources: Sequence[ImageSource]) -> str:
    """The names of the first few in one line."""
    names = distinct_names(sources)
    return "; ".join(names[:_SHOWN]) + (" and more" if len(names) > _SHOWN else "")


def distinct_names(sources: Sequence[ImageSource]) -> list[str]:
    """Their names, with the study where there are several, and the series UID where several have
    one name."""
    names = [source.name + study for source, study in zip(sources, _studies(sources), strict=True)]
    uids = [source.header.get("SeriesInstanceUID") for source in sources]
    return [
        f"{name}, UID {uid}" if uid and names.count(name) > 1 else name
        for name, uid in zip(names, uids, strict=True)
    ]


def _studies(sources: Sequence[ImageSource]) -> list[str]:
    """Which study each is of, as an ending of its name; empty where all are of one study or none is
    known. By date, or else by number, as a patient's name is never shown."""
    pairs = [
        (str(s.header.get("StudyDate") or ""), str(s.header.get("StudyInstanceUID") or ""))
        for s in sources
    ]
    known = sorted({(date, uid) for date, uid in pairs if uid})
    if len(known) < 2:
        return [""] * len(sources)
    dates = [iso_date(date) for date, _ in known]
    endings = {pair: f", study {number}" for number, pair in enumerate(known, 1)}
    if all(dates) and len(set(dates)) == len(dates):
        endings = {pair: f", study of {date}" for pair, date in zip(known, dates, strict=True)}
    return [endings.get(pair, "") for pair in pairs]


def _whole_names(candidate: Candidate) -> tuple[str, ...]:
    names = (candidate.name, candidate.label)
    if candidate.series is not None:
        names = (candidate.name, candidate.series.description, candidate.series.uid)
    return tuple(name.lower() for name in names)


def _channel_at(path: Path) -> Candidate | None:
    file, _, number = str(path).rpartition("#")
    if path.exists() or not re.fullmatch(r"[1-9]\d*", number) or not Path(file).is_file():
        return None
    return Candidate(path.name, Path(file), channel=int(number))


def _files_at(path: Path) -> list[Candidate]:
    from MIMSegment.Logic.volume import IMAGE_SUFFIXES, is_image_of_folder

    if not path.is_dir():
        return [Candidate(path.name, path)] if path.name.lower().endswith(IMAGE_SUFFIXES) else []
    # Hidden files are macOS's notes on files of the same name, or unfinished.
    files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    return [Candidate(p.name, p) for p in files if is_image_of_folder(p.name)]


def _series_at(path: Path) -> list[Candidate]:
    from MIMSegment.Logic.dicom import scan
    from MIMSegment.Logic.volume import IMAGE_SUFFIXES

    if path.is_file() and path.name.lower().endswith(IMAGE_SUFFIXES):
        return []
    return [
        Candidate(series.title, series.files[0].parent, series.header, series)
        for series in scan(path)
        if series.number_of_slices > 1
    ]
