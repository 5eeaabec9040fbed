"""Cases of data sets whose folders say what is what: Decathlon, nnU-Net, BIDS, classes, any."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from mim.cases import Case, Dataset, LeftOut, case_id, is_dicom, is_image, same_case
from mim.folder_subjects import common_folder, subjects_of
from mim.label_files import refuse_label_files
from mim.pictures import is_picture
from mim.regions import Region, kept_labels, outside_names
from mim.split_names import is_part, sides
from MIMSegment.Logic.errors import InputError


def from_description(folder: Path) -> Dataset:
    """A folder with dataset.json, in the form of the Medical Decathlon or of nnU-Net v2."""
    path = folder / "dataset.json"
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}.") from None
    try:
        return _described(folder, description, path)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is not written as the Decathlon or nnU-Net write it: "
            f"{type(error).__name__} {error}."
        ) from None


def _described(folder: Path, description: dict, path: Path) -> Dataset:
    listed = _lists_files(folder, description)
    cases = _decathlon(folder, description) if listed else _nnunet(folder, description, path)
    inputs = description.get("modality") or description.get("channel_names") or {}
    labels, regions, ignore = _labels(description, path)
    table = folder / "labels.csv"
    return Dataset(
        description.get("name", folder.name),
        tuple(cases),
        tuple(inputs[k] for k in sorted(inputs, key=int)),
        labels,
        table if table.is_file() else None,
        regions,
        ignore,
    )


def _lists_files(folder: Path, description: dict) -> bool:
    """Whether its entries are files; those of nnU-Net's first version lack the channel's _0000."""
    entries = [e for e in description.get("training", ()) if isinstance(e, dict | str)]
    images = [folder / (e if isinstance(e, str) else e["image"]) for e in entries]
    counted = any(folder.glob(f"imagesTr/*_0000{description.get('file_ending', '.nii.gz')}"))
    return bool(images) and (any(path.exists() for path in images) or not counted)


def _decathlon(folder: Path, description: dict) -> list[Case]:
    subjects = _subjects(description)
    entries = []
    for part, split in (("training", ""), ("test", "test")):
        for entry in description.get(part, ()):
            entry = {"image": entry} if isinstance(entry, str) else entry
            entries.append((entry["image"], entry.get("label"), split))
    cases = []
    identifiers = _apart([(case_id(image), Path(image)) for image, *_ in entries])
    for identifier, (image, label, split) in zip(identifiers, entries, strict=True):
        known = subjects.get(identifier, subjects.get(case_id(image), ""))
        subject = known if subjects else identifier
        label_path = folder / label if label else None
        cases.append(Case(identifier, subject, (folder / image,), label_path, split=split))
    return cases


def _nnunet(folder: Path, description: dict, path: Path) -> list[Case]:
    """imagesTr/CASE_0000.nii.gz, one file for each channel, labelsTr/CASE.nii.gz; Ts for tests."""
    ending, subjects = description.get("file_ending", ".nii.gz"), _subjects(description)
    channels = len(description.get("channel_names") or description.get("modality") or ())
    if not channels:
        raise InputError(f"{path} names no channel_names, the inputs of a case; add them.")
    cases = []
    for name, entry in description.get("dataset", {}).items():
        images = tuple(folder / image for image in entry["images"])
        cases.append((name, images, folder / entry["label"], ""))
    for part, split in () if cases else (("Tr", ""), ("Ts", "test")):
        for first in sorted((folder / f"images{part}").glob(f"*_0000{ending}")):
            name = first.name[: -len(f"_0000{ending}")]
            images = tuple(
                first.with_name(f"{name}_{number:04d}{ending}") for number in range(channels)
            )
            label = folder / f"labels{part}" / f"{name}{ending}"
            cases.append((name, images, label if label.is_file() else None, split))
    if not cases:
        raise InputError(
            f"{path} lists no case under 'training', and there is no imagesTr/*_0000{ending}."
        )
    identifiers = _apart([(case_id(name), images[0]) for name, images, *_ in cases])
    return [
        Case(
            identifier,
            subjects.get(identifier, subjects.get(name, "")) if subjects else identifier,
            images,
            label,
            split=split,
        )
        for identifier, (name, images, label, split) in zip(identifiers, cases, strict=True)
    ]


def _apart(images: Sequence[tuple[str, Path]]) -> list[str]:
    """The ids of cases from (name, image): the name, but imagesTs_NAME of those in imagesTs that
    are called like one in imagesTr, since both are often counted from zero."""
    trained = {name for name, image in images if image.parent.name != "imagesTs"}
    return [
        f"imagesTs_{name}" if image.parent.name == "imagesTs" and name in trained else name
        for name, image in images
    ]


def _subjects(description: dict) -> dict[str, str]:
    return {str(k): str(v) for k, v in description.get("subjects", {}).items()}


def _labels(description: dict, path: Path) -> tuple[dict[int, str], tuple[Region, ...], int | None]:
    """Names of values, from {"1": "liver"} (Decathlon) or {"liver": 1}; regions as in nnU-Net,
    {"whole tumor": [1, 2, 3]} and, in ``regions_class_order``, the value that each one paints; the
    value of nnU-Net's "ignore", which is neither."""
    names, regions, ignore = {}, [], None
    order = iter(description.get("regions_class_order", ()))
    for key, value in description.get("labels", {}).items():
        number, name = (key, value) if str(key).isdigit() else (value, key)
        try:
            if _is_background(value) or str(key) == "0":
                continue
            if name == "ignore":
                ignore = int(number)
                continue
            if isinstance(value, list | tuple) or description.get("regions_class_order"):
                members = tuple(value) if isinstance(value, list | tuple) else (value,)
                regions.append(Region(name, tuple(map(int, members)), int(next(order))))
            if not isinstance(number, list | tuple):
                names[int(number)] = str(name)
        except (TypeError, ValueError, StopIteration):
            raise InputError(
                f"{path}: label {key!r}: {value!r} is not a number, nor a list of numbers with an "
                "entry in regions_class_order."
            ) from None
    for kept, name in zip(kept_labels(regions), outside_names(regions), strict=True):
        if len(kept) == 1:
            names.setdefault(kept[0], name)
    for value in {v for region in regions for v in region.labels} - set(names):
        names[value] = f"label {value}"
    if ignore in {*names, *(value for region in regions for value in region.labels)}:
        raise InputError(f"{path}: label {ignore} is ignored and a structure; give it two values.")
    return names, tuple(regions), ignore


def _is_background(value) -> bool:
    return value in (0, "0") or (isinstance(value, list) and set(value) == {0})


def is_bids(folder: Path) -> bool:
    """Whether there is a folder sub-*/anat or sub-*/ses-*/anat."""
    return any(folder.glob("sub-*/anat")) or any(folder.glob("sub-*/ses-*/anat"))


def from_bids(folder: Path, inputs: tuple[str, ...] = ()) -> Dataset:
    """The anatomical images of a BIDS tree (Gorgolewski et al., Scientific Data 2016).

    With ``inputs`` ("T1w", "FLAIR") the images of a session are the channels of one case, and a
    session without one of them is left out; else each image is a case of its own. A label is a
    ``_dseg`` image under ``derivatives`` of the same session; it is used where it is clear which
    image it belongs to.
    """
    sessions: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("sub-*/**/anat/*")):
        if is_image(path):
            *entities, suffix = case_id(path.name).split("_")
            session = "_".join(entities)
            other = sessions.setdefault(session, {}).setdefault(suffix, path)
            if other is not path:
                raise same_case(other, path, f"{session}_{suffix}")
    labels = {
        case_id(path.name).removesuffix("_dseg"): path
        for path in sorted(folder.glob("derivatives/**/anat/*_dseg*"))
        if is_image(path)
    }
    cases, left_out = [], []
    for session, images in sessions.items():
        subject, label = session.split("_")[0], _bids_label(session, labels)
        missing = [suffix for suffix in inputs if suffix not in images]
        if missing:
            which = f"no {', '.join(missing)}, only {', '.join(images)}"
            left_out.append(LeftOut(session, f"{session} of {folder} has {which}.", subject))
        elif inputs:
            paths = tuple(images[suffix] for suffix in inputs)
            cases.append(Case(session, subject, paths, label))
        else:
            own = label if len(images) == 1 else None
            cases += [Case(f"{session}_{s}", subject, (path,), own) for s, path in images.items()]
    if not cases:
        wanted = f" with {', '.join(inputs)}" if inputs else ""
        raise InputError(f"{folder} has no session{wanted} under sub-*/anat.")
    return Dataset(folder.name, tuple(cases), inputs, _bids_names(folder), left_out=tuple(left_out))


def _bids_label(session: str, labels: dict[str, Path]) -> Path | None:
    found = [path for name, path in labels.items() if f"{name}_".startswith(f"{session}_")]
    return found[0] if len(found) == 1 else None


def _bids_names(folder: Path) -> dict[int, str]:
    """From the first ``dseg.tsv``, which has columns index and name."""
    for path in sorted(folder.glob("derivatives/**/*dseg.tsv")):
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        names = {int(row["index"]): row["name"] for row in rows if row.get("index")}
        return {value: name for value, name in names.items() if value}
    return {}


def has_class_folders(folder: Path) -> bool:
    """Whether ``folder`` holds nothing but folders of pictures, at least two, maybe in splits.

    Only pictures: a folder of volumes is rather a patient than a class, also with pictures of them.
    """
    groups = _class_folders(folder, _own_pictures)
    return sum(not is_part(group.name) for _, group, _ in groups) > 1


def from_class_folders(folder: Path) -> Dataset:
    """A folder for each class, or train/CLASS, val/CLASS and test/CLASS; its name is the class.

    A class may hold a folder for each patient.
    """
    groups = _class_folders(folder, _images)
    classes = sorted({group.name for _, group, _ in groups})
    if len(classes) < 2:
        raise InputError(f"{folder} has no two folders of images, one for each class.")
    places = {path: path.relative_to(group) for _, group, paths in groups for path in paths}
    refuse_label_files(folder, places)
    ids = {path: _id(path, folder) for path in places}
    subjects = subjects_of(places, ids)
    cases = [
        Case(ids[path], subjects[path], (path,), target=classes.index(group.name), split=split)
        for split, group, paths in groups
        for path in paths
    ]
    pictures = all(is_picture(case.image) for case in cases)
    return Dataset(folder.name, tuple(cases), classes=tuple(classes), pictures=pictures)


def _class_folders(folder: Path, images) -> list[tuple[str, Path, list[Path]]]:
    """(split, folder of a class, ``images`` of it) of every folder with some.

    A folder called like a part (`split_names`) is one where any such folder holds classes.
    """
    outer = _folders(folder)
    inner = {part: _with_images(_folders(part), images) for part in outer if is_part(part.name)}
    parts = [part for part, groups in inner.items() if groups]
    if not parts:
        groups = _with_images(outer, images)
        named = any(not is_part(group.name) for group, _ in groups)
        return [("", *group) for group in groups] if named else []
    beside = _with_images([path for path in outer if path not in inner], images)
    if beside:
        raise InputError(
            f"{folder} has {beside[0][0].name} beside {', '.join(part.name for part in parts)}: is "
            "it a class or a part? Move it elsewhere, or write a table with the columns image, "
            "class and split."
        )
    found = zip(parts, sides([part.name for part in parts]), strict=True)
    return [(side, *group) for part, side in found for group in inner[part]]


def _with_images(folders: list[Path], images) -> list[tuple[Path, list[Path]]]:
    return [(folder, paths) for folder in folders if (paths := images(folder))]


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _own_pictures(folder: Path) -> list[Path]:
    """The pictures directly in it; none where volumes lie in or below it, which they then show."""
    return [path for path in _images(folder) if path.parent == folder and is_picture(path)]


def _images(folder: Path) -> list[Path]:
    """Every image file and DICOM folder in it; pictures only where there is nothing else."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    volumes = [p for p in files if is_image(p)] + sorted({p.parent for p in files if is_dicom(p)})
    return volumes or [path for path in files if is_picture(path)]


def _id(path: Path, folder: Path) -> str:
    return case_id(str(path.relative_to(folder)) if path != folder else folder.name)


def from_any_folder(folder: Path) -> Dataset:
    """Every image file and DICOM folder is a case; pictures only where there is nothing else.

    Raises InputError where there are label images, or data sets with a list of their own.
    """
    _refuse_data_sets(folder)
    paths = _images(folder)
    if not paths:
        raise InputError(
            f"{folder} holds no NIfTI, NRRD or MHA image, no DICOM series and no picture."
        )
    refuse_label_files(folder, (path for path in paths if path.is_file()))
    holding = common_folder(folder, paths)
    ids = {path: _id(path, folder) for path in paths}
    subjects = subjects_of({path: path.relative_to(holding) for path in paths}, ids)
    cases = [Case(ids[path], subjects[path], (path,)) for path in paths]
    return Dataset(folder.name, tuple(cases), pictures=all(map(is_picture, paths)))


def _refuse_data_sets(folder: Path) -> None:
    """As in nnU-Net's folder of raw data, where label images and test images are among the rest."""
    inner = [path.parent.name for path in sorted(folder.glob("*/dataset.json"))]
    if inner:
        raise InputError(
            f"{folder} holds data sets with a dataset.json: {', '.join(inner[:5])}. Prepare one of "
            f"them, as {folder / inner[0]}; more_caches of pretrain.py learns from several."
        )
