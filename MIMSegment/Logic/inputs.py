"""From what the user points at to one volume with a channel for each input of the model."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from MIMSegment.Logic.alignment import combine
from MIMSegment.Logic.candidates import Candidate, find_candidates, select_candidate
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.finding import Finding
from MIMSegment.Logic.matching import Answer, match_inputs
from MIMSegment.Logic.package import ModelPackage, read_package, verify_networks
from MIMSegment.Logic.phrases import counted
from MIMSegment.Logic.plausibility import check_inputs
from MIMSegment.Logic.spec import ModelSpec
from MIMSegment.Logic.volume import IMAGE_SUFFIXES, Volume, read_volume


@dataclass(frozen=True)
class Study:
    """``volume`` (c, z, y, x) in the model's order on the first input's grid, one sentence per
    input that says which image was taken for it and why, and what the checks found."""

    volume: Volume
    explanation: tuple[str, ...]
    findings: tuple[Finding, ...]


def read_study(
    arguments: Sequence[str],
    package: ModelPackage,
    series: Sequence[str] = (),
    answer: Answer = Answer.ARGUMENT,
) -> Study:
    """Read, check and combine what `read_images` takes. Raises InputError, GeometryError."""
    images, explanation = read_images(arguments, package.spec, series, answer)
    findings = check_inputs(images, package)
    return Study(_one(images), tuple(explanation), findings)


def read_package_and_study(
    path: str | Path,
    arguments: Sequence[str],
    series: Sequence[str] = (),
    answer: Answer = Answer.ARGUMENT,
) -> tuple[ModelPackage, Study]:
    """`package.load_package` of ``path``, and `read_study` for it while the checksums of the
    networks are calculated. Raises as both."""
    package = read_package(path)
    with ThreadPoolExecutor(1) as other:
        whole = other.submit(verify_networks, package)
        study = read_study(arguments, package, series, answer)
        whole.result()
    return package, study


def read_inputs(
    arguments: Sequence[str], spec: ModelSpec, series: Sequence[str] = ()
) -> tuple[Volume, list[str]]:
    """As `read_images`, on the first one's grid as channels (c, z, y, x) in the model's order."""
    images, explanation = read_images(arguments, spec, series)
    return _one(images), explanation


def read_images(
    arguments: Sequence[str],
    spec: ModelSpec,
    series: Sequence[str] = (),
    answer: Answer = Answer.ARGUMENT,
) -> tuple[list[Volume], list[str]]:
    """Read ``arguments`` (paths or NAME=path; path#2 is the second channel of a file), each image
    on its own grid with its own header.

    ``series`` names images among those at the paths, as `select_candidate` takes them: for a model
    of several inputs as NAME=..., for one of a single input as it is. A single image file without
    that is taken as one volume whose channels are the inputs. Returns the images with one sentence
    per input that says which was taken for it and why. Raises InputError, whose way out is by
    ``answer``.
    """
    named, paths = _split(arguments, spec)
    names = [item.name for item in spec.inputs]
    if len(paths) == 1 and not named and not series and _is_image_file(paths[0]):
        volume = read_volume(paths[0])
        if len(volume.array) == len(names):
            return [volume], [f"{', '.join(names)}: {paths[0]}"]
        channels = len(volume.array)
        way_out = (
            f"name the channel of each as in {names[0]}={paths[0]}#1"
            if channels > 1
            else "give a file for each, or the folder that holds them all"
        )
        raise InputError(
            f"{paths[0]} has {counted(channels, 'channel')}, the model needs {len(names)}: "
            f"{', '.join(names)}; {way_out}."
        )
    if len(paths) + len(named) > len(names):
        raise InputError(
            f"{len(paths) + len(named)} images for {counted(len(names), 'input')}: "
            f"{', '.join(names)}; give one image for each, or one folder that holds them all."
        )
    candidates = find_candidates(paths)
    chosen = {**named, **_selected(series, names, candidates)}
    matching = match_inputs(spec.inputs, candidates, chosen, answer).require()
    volumes = [match.candidate.read() for match in matching.matches]
    return volumes, [str(match) for match in matching.matches]


def _one(images: list[Volume]) -> Volume:
    return images[0] if len(images) == 1 else combine(images)


def _selected(
    series: Sequence[str], names: list[str], candidates: list[Candidate]
) -> dict[str, Candidate]:
    selected = {}
    for choice in series:
        name, equals, which = choice.partition("=")
        if not equals or name not in names:
            if len(names) > 1:
                raise InputError(
                    f"--series {choice}: the model has several inputs, say which one as in "
                    f"--series {names[0]}=NUMBER; they are {', '.join(names)}."
                )
            name, which = names[0], choice
        selected[name] = select_candidate(candidates, which)
    return selected


def _is_image_file(path: str) -> bool:
    return Path(path).is_file() and path.lower().endswith(IMAGE_SUFFIXES)


def _split(arguments: Sequence[str], spec: ModelSpec) -> tuple[dict[str, str], list[str]]:
    names = {item.name for item in spec.inputs}
    named, paths = {}, []
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if equals and name in names:
            named[name] = path
        elif equals and not Path(argument).exists():
            raise InputError(
                f"{name!r} is not an input of this model; its inputs are "
                f"{', '.join(item.name for item in spec.inputs)}."
            )
        else:
            paths.append(argument)
    return named, paths
