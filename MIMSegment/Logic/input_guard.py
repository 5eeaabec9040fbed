"""A result never takes the place of an image that it is made from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from MIMSegment.Logic.errors import OutputError
from MIMSegment.Logic.volume import SEGMENTATION_SUFFIX, is_image_of_folder


def keep_inputs(targets: Iterable[Path], inputs: Iterable[str]) -> None:
    """Raise OutputError when a file or folder to be written is an input, or an image file that
    would lie in a folder that is one, whether it is there already or not. Slicer's segmentations
    may lie there: they are no images of a folder.

    ``inputs`` are as `inputs.read_images` takes them. Files are compared as the disk does it, so
    links and other spellings are seen through.
    """
    given = {found for path in _paths(inputs) if (found := identity(path))}
    for target in targets:
        if identity(target.parent) in given and is_image_of_folder(target.name):
            raise OutputError(
                f"{target} lies in the input folder, where the next run would take it for an "
                f"input; choose another folder for the output, or the ending {SEGMENTATION_SUFFIX}."
            )
        if identity(target) in given:
            raise OutputError(
                f"{target} is one of the inputs, which a result never replaces; choose another "
                "name or folder for the output."
            )


def _paths(inputs: Iterable[str]) -> Iterator[Path]:
    """All that an input can mean: PATH, NAME=PATH, and either with #CHANNEL."""
    for text in inputs:
        for path in {text, text.partition("=")[2] or text}:
            yield Path(path)
            yield Path(re.sub(r"#\d+$", "", path))


def identity(path: Path) -> tuple[int, int] | None:
    """What two paths of one file share; None where nothing can be found."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
