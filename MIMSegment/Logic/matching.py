"""Which image of a study belongs to which input of a model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.sequences import Evidence, evidence

if TYPE_CHECKING:
    from MIMSegment.Logic.dicom import Series
    from MIMSegment.Logic.image_source import ImageSource
    from MIMSegment.Logic.volume import Volume

_LEAST = 10.0  # score below which an image is not taken for an input
_MARGIN = 3.0  # scores nearer than this are no reason to prefer one image
_AXIAL, _NUMBERED = 5.0, 12.0


@dataclass(frozen=True)
class InputSpec:
    """One input of a model: its sequence ``name`` ("T2w", "ADC", "CT") and ``modality``."""

    name: str
    modality: str
    description: str = ""


@dataclass(frozen=True, eq=False)
class Candidate:
    """An image that may be an input: a file, or a DICOM series (then ``series`` is set).

    ``name`` is for display. ``header`` holds DICOM attributes by keyword, as far as known.
    """

    name: str
    path: Path
    header: Mapping = field(default_factory=dict)
    series: Series | None = None

    @property
    def id(self) -> str:
        """A name that is the same the next time: the path, for a series with its UID and part."""
        if self.series is None:
            return str(self.path.absolute())
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
            return self.path.absolute(), 0
        first = self.series.frames[0]
        return first.file.absolute(), first.index

    def read(self) -> Volume:
        """The image itself. Raises InputError or GeometryError."""
        if self.series is not None:
            from MIMSegment.Logic.dicom import read_series

            return read_series(self.series)
        from MIMSegment.Logic.volume import read_volume

        return read_volume(self.path)


@dataclass(frozen=True)
class Match:
    """The image taken for an input and why; the higher ``score``, the surer.

    ``explicit`` says that the user chose it.
    """

    input: InputSpec
    candidate: ImageSource
    reason: str
    score: float
    explicit: bool = False

    def __str__(self) -> str:
        return f"{self.input.name}: {self.candidate.name} ({self.reason})"


@dataclass(frozen=True)
class Matching:
    """Images by input, in the order of the inputs, and a sentence for each input without one.

    ``missing`` has that sentence by the input's name; ``problems`` are these and what is wrong with
    the images together.
    """

    matches: tuple[Match, ...]
    problems: tuple[str, ...]
    unused: tuple[ImageSource, ...]
    missing: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> ImageSource:
        return next(m.candidate for m in self.matches if m.input.name == name)

    def require(self) -> Matching:
        """Itself if every input has its image; raises InputError with all problems otherwise."""
        if self.problems:
            raise InputError(" ".join(self.problems))
        return self


def find_candidates(paths: Sequence[str | Path]) -> list[Candidate]:
    """The images at these paths: files, DICOM series, and both of these inside folders.

    Raises InputError with the reason for a path without any.
    """
    found = []
    for path in map(Path, paths):
        if not path.exists():
            raise InputError(f"{path} does not exist.")
        here = _files_at(path) + _series_at(path)
        if not here:
            from MIMSegment.Logic.dicom import why_no_volume

            raise InputError(why_no_volume(path))
        found += here
    return found


def match_inputs(
    inputs: Sequence[InputSpec],
    candidates: Sequence[ImageSource],
    explicit: Mapping[str, str | Path | ImageSource] | None = None,
    by_path: bool = True,
) -> Matching:
    """Give each input at most one image, so that the evidence as a whole is greatest.

    ``explicit`` overrides by input name, with a candidate or a path. Raises InputError for an
    unknown input name or a path without a single fitting image; everything else that is unclear
    is in the result's ``problems``, which tell the user to give a path (``by_path``) or to choose
    from a list.
    """
    chosen = _explicit(inputs, explicit or {})
    open_inputs = [item for item in inputs if item.name not in chosen]
    taken = {match.candidate.key for match in chosen.values()}
    free = [candidate for candidate in candidates if candidate.key not in taken]
    judged = [[_judge(item, inputs, c) for c in free] for item in open_inputs]
    pairs = _assign(judged)
    missing: dict[str, str] = {}
    for row, item in enumerate(open_inputs):
        column = pairs.get(row, _lone_image(judged, inputs, candidates))
        if column is None:
            way_out = f"name it with {item.name}=PATH" if by_path else "choose it in the list"
            missing[item.name] = f"{_missing(item, free, candidates)} Add it, or {way_out}."
            continue
        rivals = _rivals(judged, pairs, row, column)
        if rivals:
            names = " or ".join(free[c].name for c in (column, *rivals))
            way_out = f"say which with {item.name}=PATH of one of them" if by_path else "choose one"
            missing[item.name] = f"{item.name} could be {names}: {way_out}."
            continue
        verdict = judged[row][column]
        reason = "; ".join(verdict.reasons) or "the only image given"
        chosen[item.name] = Match(item, free[column], reason, verdict.score)
    matches = tuple(chosen[item.name] for item in inputs if item.name in chosen)
    problems = (*missing.values(), *_mixed_studies(matches))
    used = {id(match.candidate) for match in matches}
    unused = tuple(c for c in free if id(c) not in used)
    return Matching(matches, problems, unused, missing)


def read_matched(matching: Matching, order: int = 1) -> Volume:
    """Read all images and stack them as channels (c, z, y, x) on the first input's grid.

    The others are resampled in world space, by linear (``order`` 1) or cubic (3) interpolation.
    Raises InputError for missing inputs, GeometryError for images that barely overlap.
    """
    return combine([match.candidate.read() for match in matching.require().matches], order)


def combine(volumes: Sequence[Volume], order: int = 1) -> Volume:
    """The volumes as channels (c, z, y, x) on the first one's grid; as `read_matched`."""
    from MIMSegment.Logic.alignment import align_to, stack_inputs

    reference = volumes[0]
    stacked = stack_inputs([reference, *(align_to(reference, v, order) for v in volumes[1:])])
    frames = {v.header.get("FrameOfReferenceUID") for v in volumes} - {None}
    if len(frames) > 1:
        warning = (
            "The inputs have different frames of reference (the patient was positioned anew "
            "between them); check that they are aligned."
        )
        return replace(stacked, warnings=(*stacked.warnings, warning))
    return stacked


def _files_at(path: Path) -> list[Candidate]:
    from MIMSegment.Logic.volume import IMAGE_SUFFIXES

    files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file())
    return [Candidate(p.name, p) for p in files if p.name.lower().endswith(IMAGE_SUFFIXES)]


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


def _explicit(inputs, explicit) -> dict[str, Match]:
    specs = {item.name: item for item in inputs}
    chosen = {}
    for name, choice in explicit.items():
        if name not in specs:
            raise InputError(f'The model has no input "{name}"; its inputs are {", ".join(specs)}.')
        is_path = isinstance(choice, (str, Path))
        candidate = _one(specs[name], Path(choice)) if is_path else choice
        chosen[name] = Match(specs[name], candidate, "chosen by the user", np.inf, explicit=True)
    return chosen


def _one(item: InputSpec, path: Path) -> ImageSource:
    """The only image at ``path``, or the one among several that fits the input."""
    found = find_candidates([path])
    if len(found) == 1:
        return found[0]
    return match_inputs([item], found).require()[item.name]


def _judge(item: InputSpec, inputs: Sequence[InputSpec], source: ImageSource) -> Evidence:
    found = evidence(item.name, item.modality, source.header, source.label, source.folder)
    score = found.score + (_AXIAL if source.plane == "axial" else 0.0)
    number = re.search(r"_(\d{4})$", source.label)  # nnU-Net's channel number
    if number and len(inputs) > 1 and int(number[1]) == list(inputs).index(item):
        reason = f"its file name ends in _{number[1]}"
        return Evidence(score + _NUMBERED, (*found.reasons, reason))
    return Evidence(score, found.reasons)


def _assign(judged: list[list[Evidence]]) -> dict[int, int]:
    """Rows (inputs) to columns (candidates), one to one, by the greatest sum of scores."""
    if not judged or not judged[0]:
        return {}
    from scipy.optimize import linear_sum_assignment

    scores = np.array([[e.score for e in row] for row in judged])
    gain = np.where(scores >= _LEAST, scores, 0.0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    return {int(r): int(c) for r, c in zip(rows, columns, strict=True) if gain[r, c] > 0}


def _lone_image(judged, inputs, candidates) -> int | None:
    """One input and one image that nothing speaks against belong together."""
    alone = len(inputs) == 1 and len(candidates) == 1 and len(judged[0]) == 1
    return 0 if alone and judged[0][0].score >= 0 else None


def _rivals(judged, pairs: dict[int, int], row: int, column: int) -> list[int]:
    """Other images that fit this input as well: unused ones, or those of a swap of two inputs."""
    score = judged[row][column].score
    owners = {c: r for r, c in pairs.items()}
    rivals = []
    for other, verdict in enumerate(judged[row]):
        if other == column or verdict.score < _LEAST:
            continue
        if other not in owners:
            loss = score - verdict.score
        else:
            back = judged[owners[other]][column].score
            if back < _LEAST:
                continue
            loss = score + judged[owners[other]][other].score - verdict.score - back
        if loss < _MARGIN:
            rivals.append(other)
    return rivals


def _missing(
    item: InputSpec, free: Sequence[ImageSource], candidates: Sequence[ImageSource]
) -> str:
    shown = free or candidates
    names = ", ".join(c.name for c in shown[:8]) + (" and more" if len(shown) > 8 else "")
    what = f" ({item.description})" if item.description else ""
    found = f"found {names}" if names else "no image was found"
    return f"No {item.modality} image fits the input {item.name}{what}: {found}."


def _mixed_studies(matches: Sequence[Match]) -> list[str]:
    """Images of different studies, perhaps of different people, are never combined unasked."""
    guessed = [m for m in matches if not m.explicit and m.candidate.header.get("StudyInstanceUID")]
    studies = {m.candidate.header["StudyInstanceUID"] for m in guessed}
    if len(studies) < 2:
        return []
    names = ", ".join(f"{m.input.name} ({m.candidate.name})" for m in guessed)
    return [f"These images belong to different studies: {names}. Give the images of one study."]
