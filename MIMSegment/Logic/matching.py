"""Which image of a study belongs to which input of a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from MIMSegment.Logic.candidates import distinct_names, find_candidates, listed
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.phrases import joined
from MIMSegment.Logic.sequences import Evidence, evidence

if TYPE_CHECKING:
    from MIMSegment.Logic.image_source import ImageSource

_LEAST = 10.0  # score below which an image is not taken for an input
_MARGIN = 3.0  # scores nearer than this are no reason to prefer one image
_AXIAL, _NUMBERED = 5.0, 12.0
_TABLE = "a CSV table with a column for each input"


@dataclass(frozen=True)
class InputSpec:
    """One input of a model: its sequence ``name`` ("T2w", "ADC", "CT") and ``modality``."""

    name: str
    modality: str
    description: str = ""


class Answer(StrEnum):
    """How the user can say which image is meant; what is unclear is told with this way out."""

    ARGUMENT = "argument"
    """By NAME=PATH or ``--series`` on the command line, for one study."""
    TABLE = "table"
    """By a table of the cohort or ``--series`` on the command line, for many studies."""
    LIST = "list"
    """In a list of the images."""


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


def match_inputs(
    inputs: Sequence[InputSpec],
    candidates: Sequence[ImageSource],
    explicit: Mapping[str, str | Path | ImageSource] | None = None,
    answer: Answer = Answer.ARGUMENT,
) -> Matching:
    """Give each input at most one image, so that the evidence as a whole is greatest.

    ``explicit`` overrides by input name, with a candidate or a path. Raises InputError for an
    unknown input name or a path without a single fitting image; everything else that is unclear
    is in the result's ``problems``, which tell the user what to do by ``answer``.
    """
    chosen = _explicit(inputs, explicit or {})
    open_inputs = [item for item in inputs if item.name not in chosen]
    free = _of_study(chosen.values(), candidates)
    judged = [[_judge(item, inputs, c) for c in free] for item in open_inputs]
    pairs = _assign(judged)
    missing: dict[str, str] = {}
    absent: list[InputSpec] = []
    for row, item in enumerate(open_inputs):
        column = pairs.get(row, _lone_image(judged, inputs, candidates))
        if column is None:
            options = _options(item, inputs, answer)
            way_out = f"name it with {options}" if options else "choose it in the list"
            missing[item.name] = f"{_missing(item, free, candidates)} Add it, or {way_out}."
            absent.append(item)
            continue
        rivals = _rivals(judged, pairs, row, column)
        if rivals:
            names = " or ".join(distinct_names([free[c] for c in (column, *rivals)]))
            options = _options(item, inputs, answer)
            way_out = f"say which with {options}" if options else "choose one"
            missing[item.name] = f"{item.name} could be {names}: {way_out}."
            continue
        verdict = judged[row][column]
        reason = "; ".join(verdict.reasons) or "the only image given"
        chosen[item.name] = Match(item, free[column], reason, verdict.score)
    matches = tuple(chosen[item.name] for item in inputs if item.name in chosen)
    problems = (*_together(absent, missing, free or candidates, answer), *_mixed_studies(matches))
    used = {id(match.candidate) for match in matches}
    unused = tuple(c for c in free if id(c) not in used)
    return Matching(matches, problems, unused, missing)


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


def _of_study(chosen: Iterable[Match], candidates: Sequence[ImageSource]) -> list[ImageSource]:
    """The images that are not chosen yet; of one study, where the user has chosen of one."""
    taken = {match.candidate.key for match in chosen}
    studies = {_study(match.candidate) for match in chosen} - {""}
    free = [candidate for candidate in candidates if candidate.key not in taken]
    if len(studies) != 1:
        return free
    return [candidate for candidate in free if _study(candidate) in ("", *studies)]


def _study(source: ImageSource) -> str:
    return str(source.header.get("StudyInstanceUID") or "")


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
    kind = "" if item.name.startswith(item.modality) else f"{item.modality} "
    what = f" ({item.description})" if item.description else ""
    found = _found(free or candidates)
    return f"No {kind}image fits the input {item.name}{what}: {found}."


def _found(shown: Sequence[ImageSource]) -> str:
    return f"found {listed(shown)}" if shown else "no image was found"


def _together(
    absent: Sequence[InputSpec],
    missing: Mapping[str, str],
    shown: Sequence[ImageSource],
    answer: Answer,
) -> list[str]:
    """The sentences of ``missing``, those of several absent images of one modality as one."""
    names = [item.name for item in absent]
    if len(names) < 2 or len({item.modality for item in absent}) > 1:
        return list(missing.values())
    way_out = {
        Answer.ARGUMENT: "name each with NAME=PATH",
        Answer.TABLE: f"give the cohort as {_TABLE}",
        Answer.LIST: "choose them in the list",
    }[answer]
    together = f"No {absent[0].modality} images fit the inputs {joined(names)}: {_found(shown)}. "
    return [f"{together}Add them, or {way_out}.", *(missing[n] for n in missing if n not in names)]


def _options(item: InputSpec, inputs: Sequence[InputSpec], answer: Answer) -> str:
    """How the command line is told which image an input is; "" where there is a list."""
    if answer is Answer.LIST:
        return ""
    which = "NUMBER" if len(inputs) == 1 else f"{item.name}=NUMBER"
    if answer is Answer.TABLE:
        return f"--series {which}, or give the cohort as {_TABLE}"
    return f"{item.name}=PATH or --series {which}"


def _mixed_studies(matches: Sequence[Match]) -> list[str]:
    """Images of different studies, perhaps of different people, are never combined unasked."""
    known = [match for match in matches if _study(match.candidate)]
    studies = {_study(match.candidate) for match in known}
    if len(studies) < 2 or all(match.explicit for match in known):
        return []
    names = distinct_names([match.candidate for match in known])
    pairs = (f"{m.input.name} ({name})" for m, name in zip(known, names, strict=True))
    return [
        f"These images belong to different studies: {', '.join(pairs)}. Give the images of one "
        "study."
    ]
