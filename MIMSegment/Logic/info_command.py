"""``mimsegment info``: what a model package is, or which images a study holds."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from MIMSegment.Logic import models_command
from MIMSegment.Logic.errors import InputError, PackageError
from MIMSegment.Logic.phrases import counted

if TYPE_CHECKING:
    from MIMSegment.Logic.candidates import Candidate

_ATTRIBUTES = (
    "Modality", "SeriesDescription", "ProtocolName", "BodyPartExamined", "ImageType",
    "DiffusionBValue", "EchoTime", "RepetitionTime", "InversionTime", "ContrastBolusAgent",
    "SliceThickness", "ConvolutionKernel", "Manufacturer", "ManufacturerModelName",
)  # fmt: skip


def add_arguments(commands) -> None:
    """Add ``info`` to an argparse parser."""
    parser = commands.add_parser(
        "info",
        help="describe a model package, or the images of a study",
        description="Describe a model package, list the images of a study, or describe one of them "
        "(--series).",
    )
    parser.add_argument(
        "what",
        nargs="+",
        metavar="PACKAGE_OR_INPUT",
        help="model package (a folder, a zip, or an id), or image files and DICOM folders",
    )
    parser.add_argument(
        "--series",
        metavar="WHICH",
        help="describe this image: its series number, the beginning of its UID, or a part of its "
        "description",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    if len(arguments.what) == 1 and arguments.series is None:
        try:
            package = models_command.find_package(arguments.what[0])
        except PackageError as error:
            if not Path(arguments.what[0]).exists():
                raise
            _describe_study(arguments.what, None, str(error))
        else:
            _describe_package(package)
    else:
        _describe_study(arguments.what, arguments.series)


def _describe_package(path: Path) -> None:
    from MIMSegment.Logic.package import load_package

    package = load_package(path)
    print(f"{package.title} ({package.id} {package.version})")
    print(package.metadata.get("description", ""))
    for item in package.spec.inputs:
        print(f"input      {item.name} ({item.modality})")
    for label in package.labels:
        print(f"structure  {label.value:4d}  {label.name}")
    print(f"location   {Path(package.path).resolve()}")


def _describe_study(paths: Sequence[str], which: str | None, no_package: str = "") -> None:
    from MIMSegment.Logic.candidates import find_candidates, select_candidate

    try:
        candidates = find_candidates(paths)
    except InputError as error:
        raise InputError(f"{no_package} {error}".strip()) from None
    if which is not None:
        _describe_image(select_candidate(candidates, which))
    elif len(candidates) == 1:
        _describe_image(candidates[0])
    else:
        _list_images(candidates)


def _list_images(candidates: Sequence[Candidate]) -> None:
    print(
        f"{len(candidates)} images; --series takes a number, the beginning of a UID, or a part of "
        "a name."
    )
    for candidate in candidates:
        print(candidate.name)
        uid = f"UID {candidate.series.uid}, in " if candidate.series is not None else ""
        print(f"    {uid}{candidate.path}")


def _describe_image(candidate: Candidate) -> None:
    """Header, grid and gray values; reading the voxels tells what is wrong with them."""
    print(candidate.name)
    if candidate.series is not None:
        _print("location", f"{candidate.path} ({counted(len(candidate.series.files), 'file')})")
        _print("UID", candidate.series.uid)
    else:
        _print("location", candidate.path)
    for keyword in _ATTRIBUTES:
        if (value := candidate.header.get(keyword)) not in (None, "", ()):
            _print(keyword, "/".join(value) if isinstance(value, tuple) else value)
    volume = candidate.read()
    grid = volume.geometry
    channels = f", {len(volume.array)} channels" if len(volume.array) > 1 else ""
    _print("voxels", " × ".join(map(str, grid.shape[::-1])) + f" (x, y, z){channels}")
    _print("voxel size", " × ".join(f"{s:.4g}" for s in grid.spacing[::-1]) + " mm")
    extent = (n * s for n, s in zip(grid.shape[::-1], grid.spacing[::-1], strict=True))
    _print("extent", " × ".join(f"{e:.4g}" for e in extent) + " mm")
    _print("orientation", f"{grid.orientation} (where x, y and z point)")
    _print("gray values", f"{volume.array.min():g} to {volume.array.max():g}")
    for warning in volume.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _print(name: str, value: object) -> None:
    print(f"{name:21}  {value}")
