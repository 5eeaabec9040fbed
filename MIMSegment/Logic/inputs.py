"""From what the user points at to one volume with a channel for each input of the model."""

from __future__ import annotations

from pathlib import Path

from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.spec import ModelSpec
from MIMSegment.Logic.volume import Volume, read_volume


def read_inputs(arguments: list[str], spec: ModelSpec) -> tuple[Volume, list[str]]:
    """Read ``arguments`` (paths or NAME=path) into a volume (c, z, y, x) in the model's order.

    Returns it with one sentence per input that says which image was taken for it and why. A single
    file with as many channels as the model has inputs is taken as it is. Raises InputError.
    """
    named, paths = _split(arguments, spec)
    names = [item.name for item in spec.inputs]
    if not named and len(paths) == 1 and Path(paths[0]).is_file():
        volume = read_volume(paths[0])
        if volume.array.shape[0] != len(names):
            raise InputError(
                f"{paths[0]} has {volume.array.shape[0]} channel(s), the model needs "
                f"{len(names)}: {', '.join(names)}."
            )
        return volume, [f"{', '.join(names)}: {paths[0]}"]
    if len(names) == 1:
        path = named.get(names[0]) or (paths[0] if len(paths) == 1 else None)
        if path is None:
            raise InputError(f"The model has one input ({names[0]}), {len(paths)} were given.")
        return read_volume(path), [f"{names[0]}: {path}"]
    return _match_and_align(named, paths, spec)


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
