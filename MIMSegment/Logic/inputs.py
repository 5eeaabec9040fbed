"""From what the user points at to one volume with a channel for each input of the model."""

from __future__ import annotations

from pathlib import Path

from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.matching import combine, find_candidates, match_inputs
from MIMSegment.Logic.spec import ModelSpec
from MIMSegment.Logic.volume import IMAGE_SUFFIXES, Volume, read_volume


def read_inputs(arguments: list[str], spec: ModelSpec) -> tuple[Volume, list[str]]:
    """Read ``arguments`` (paths or NAME=path) into a volume (c, z, y, x) in the model's order.

    Returns it with one sentence per input that says which image was taken for it and why. A single
    image file is taken as it is: its channels are the inputs. Raises InputError.
    """
    volumes, explanation = read_images(arguments, spec)
    return (volumes[0] if len(volumes) == 1 else combine(volumes)), explanation


def read_images(arguments: list[str], spec: ModelSpec) -> tuple[list[Volume], list[str]]:
    """As `read_inputs`, each image on its own grid with its own header.

    A single file that holds all inputs as channels is one volume. Raises InputError.
    """
    named, paths = _split(arguments, spec)
    names = [item.name for item in spec.inputs]
    if len(paths) == 1 and not named and _is_image_file(paths[0]):
        volume = read_volume(paths[0])
        if volume.array.shape[0] == len(names):
            return [volume], [f"{', '.join(names)}: {paths[0]}"]
        raise InputError(
            f"{paths[0]} has {volume.array.shape[0]} channel(s), the model needs {len(names)}: "
            f"{', '.join(names)}."
        )
    if len(paths) + len(named) > len(names):
        raise InputError(
            f"{len(paths) + len(named)} images for {len(names)} input(s): {', '.join(names)}."
        )
    matching = match_inputs(spec.inputs, find_candidates(paths), named).require()
    volumes = [match.candidate.read() for match in matching.matches]
    return volumes, [str(match) for match in matching.matches]


def _is_image_file(path: str) -> bool:
    return Path(path).is_file() and path.lower().endswith(IMAGE_SUFFIXES)


def _split(arguments: list[str], spec: ModelSpec) -> tuple[dict[str, str], list[str]]:
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
