"""The cases of a data set: which images, which label or class, which subject."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mim.pictures import PICTURE_SUFFIXES, is_picture, read_member, read_picture
from mim.regions import Region
from MIMSegment.Logic.errors import GeometryError, InputError
from MIMSegment.Logic.volume import IMAGE_SUFFIXES, Volume, read_volume

# A class index; or for each class whether it is there.
Target = int | tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """One patient's images at one time, and what is known of them.

    ``images`` are files or DICOM folders, one for each channel, or one with all channels.
    ``subject`` is empty where the data set tells subjects apart, but not whose this case is.
    ``label`` is a label image, ``target`` a class. ``member`` is the place (array, index) in an
    .npz archive. ``split`` is "train" or "test" where the data set itself decides.
    """

    id: str
    subject: str
    images: tuple[Path, ...]
    label: Path | None = None
    target: Target | None = None
    split: str = ""
    member: tuple[str, int] | None = None

    @property
    def is_labeled(self) -> bool:
        """Whether there is something to learn from it, or to measure a network by."""
        return self.label is not None or self.target is not None

    @property
    def image(self) -> Path:
        """The first file, for messages."""
        return self.images[0]

    @property
    def sources(self) -> list[str]:
        """The absolute paths, as cases.json keeps them for `read_images`."""
        return [str(path.resolve()) for path in self.images]

    def read(self) -> Volume:
        """All channels as one volume; raises InputError naming the file."""
        if self.member is not None:
            return read_member(self.image, *self.member)
        return read_images(self.images)


@dataclass(frozen=True)
class LeftOut:
    """What is not used, by name, the reason as a sentence, and whose it is where that is known."""

    id: str
    reason: str
    subject: str = ""

    def to_dict(self) -> dict:
        """As cases.json lists it."""
        return {"id": self.id, "reason": self.reason}


@dataclass(frozen=True)
class Dataset:
    """Cases and what is known of them all.

    ``inputs`` names the channels, ``labels`` the values of label images; ``regions`` are unions of
    labels, and ``ignore`` is the value of voxels that were left open; ``classes`` names what
    `Case.target` counts, of which several can be there at once where ``multi_label``. ``pictures``
    are 2D images without a place in the patient. ``left_out`` are what the data set lists and no
    case can be made of.
    """

    name: str
    cases: tuple[Case, ...]
    inputs: tuple[str, ...] = ()
    labels: dict[int, str] = field(default_factory=dict)
    labels_csv: Path | None = None
    regions: tuple[Region, ...] = ()
    ignore: int | None = None
    classes: tuple[str, ...] = ()
    multi_label: bool = False
    pictures: bool = False
    left_out: tuple[LeftOut, ...] = ()


def find_dataset(
    source: str | Path, inputs: Iterable[str] = (), classes_from_folders: bool = False
) -> Dataset:
    """Find out what ``source`` is and read its list of cases.

    A folder with dataset.json (Medical Decathlon or nnU-Net raw), with a table of cases, a BIDS
    tree, a folder for each class, or any folder of images and DICOM series; a table (.csv); a
    MedMNIST archive (.npz). ``inputs`` are the suffixes of a BIDS tree that make up the channels.
    Raises InputError when there is nothing, or nothing usable, or two images are one case.
    """
    source, inputs = Path(source), tuple(inputs)
    dataset = _read_list(source, inputs, classes_from_folders)
    _check_unique(dataset.cases, source)
    if inputs and dataset.inputs != inputs:
        raise InputError(f"--inputs is for BIDS trees, and {source} is none; leave it out.")
    return dataset


def _read_list(source: Path, inputs: tuple[str, ...], classes_from_folders: bool) -> Dataset:
    from mim import dataset_folders, dataset_tables

    if source.suffix.lower() == ".csv" and source.is_file():
        return dataset_tables.from_table(source)
    if source.suffix.lower() == ".npz" and source.is_file():
        return dataset_tables.from_medmnist(source)
    if not source.is_dir():
        raise InputError(f"{source} is not a folder, nor a .csv or .npz file.")
    if (source / "dataset.json").is_file():
        return dataset_folders.from_description(source)
    table = dataset_tables.find_table(source)
    if table is not None:
        return dataset_tables.from_table(table)
    if dataset_folders.is_bids(source):
        return dataset_folders.from_bids(source, inputs)
    if classes_from_folders or dataset_folders.has_class_folders(source):
        return dataset_folders.from_class_folders(source)
    return dataset_folders.from_any_folder(source)


def _check_unique(cases: Iterable[Case], source: Path) -> None:
    """Files of the cache are named by the cases' ids: of two that share one, one would be lost."""
    seen: dict[str, Case] = {}
    for case in cases:
        other = seen.setdefault(case.id, case)
        if other is case:
            continue
        if case.sources == other.sources:
            raise InputError(f"{case.image} is in {source} more than once; leave one of them.")
        raise same_case(other.image, case.image, case.id)


def same_case(first: Path, second: Path, name: str) -> InputError:
    """The error to raise for two images that would be the one case ``name``."""
    return InputError(
        f"{first} and {second} would both be the case {name}; rename one of them, or, where they "
        "are the same image, take one away."
    )


def with_names(cases: Sequence[Case], names: Sequence[str]) -> list[Case]:
    """The cases that are called so, all without ``names``; InputError for a name that none has.

    A case may be named as its file is.
    """
    known = [case.id for case in cases]
    names = [name if name in known else safe_name(name) for name in names]
    unknown = [name for name in names if name not in known]
    if unknown:
        listed = ", ".join(known[:8]) + (" ..." if len(known) > 8 else "")
        raise InputError(
            f"There is no case {', '.join(unknown)} that could be measured; there are "
            f"{listed or 'none'}."
        )
    return [case for case in cases if not names or case.id in names]


def say_left_out(dataset: Dataset) -> None:
    """Name on stderr what the data set lists and no case can be made of."""
    for item in dataset.left_out:
        print(f"left out: {item.reason}", file=sys.stderr)


def read_images(paths: Iterable[str | Path]) -> Volume:
    """One image, or several on one grid as channels; raises InputError or GeometryError."""
    paths = [Path(path) for path in paths]
    volumes = [read_picture(p) if is_picture(p) else read_volume(p) for p in paths]
    first = volumes[0]
    for path, volume in zip(paths[1:], volumes[1:], strict=True):
        if not volume.geometry.is_close(first.geometry):
            raise GeometryError(
                f"{path} does not lie on the grid of {paths[0]}; resample it to that grid first."
            )
    if len(volumes) == 1:
        return first
    return replace(first, array=np.concatenate([volume.array for volume in volumes]))


def case_id(image: str) -> str:
    """A name for a case from its image's path, safe as a file name."""
    return safe_name(image.removeprefix("./").removeprefix("imagesTr/").removeprefix("imagesTs/"))


def safe_name(name: str) -> str:
    """``name`` without the ending of an image, safe as a file name."""
    for suffix in sorted(IMAGE_SUFFIXES + PICTURE_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
            break
    return re.sub(r"[^\w.-]+", "_", name)


def is_image(path: Path) -> bool:
    """Whether the file's ending is one that `read_volume` reads; segmentations are not images."""
    name = path.name.lower()
    return name.endswith(IMAGE_SUFFIXES) and not name.endswith(".seg.nrrd")


def is_dicom(path: Path) -> bool:
    """Whether the file begins as DICOM files do."""
    if path.suffix.lower() not in ("", ".dcm", ".ima") and not path.suffix[1:].isdigit():
        return False
    with open(path, "rb") as file:
        file.seek(128)
        return file.read(4) == b"DICM"
