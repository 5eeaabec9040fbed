"""Finding the cases of a data set: which image, which label, which subject."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.volume import IMAGE_SUFFIXES


@dataclass(frozen=True)
class Case:
    """One image (file or DICOM folder), its label image if it has one, and whose it is.

    ``subject`` is empty where the data set names subjects, but not this case's.
    """

    id: str
    subject: str
    image: Path
    label: Path | None = None


@dataclass(frozen=True)
class Dataset:
    """Cases and what is known of them: ``inputs`` names the channels, ``labels`` the values."""

    name: str
    cases: tuple[Case, ...]
    inputs: tuple[str, ...] = ()
    labels: dict[int, str] = field(default_factory=dict)
    labels_csv: Path | None = None


def find_dataset(folder: str | Path) -> Dataset:
    """Read a Medical-Decathlon-style folder, or take every image file and DICOM folder as a case.

    Raises InputError when the folder does not exist or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder.")
    if (folder / "dataset.json").is_file():
        return _decathlon(folder)
    return _plain(folder)


def _decathlon(folder: Path) -> Dataset:
    path = folder / "dataset.json"
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}.") from None
    subjects = {str(k): str(v) for k, v in description.get("subjects", {}).items()}
    entries = [(e["image"], e.get("label")) for e in description.get("training", [])]
    entries += [
        (e, None) if isinstance(e, str) else (e["image"], None) for e in description.get("test", [])
    ]
    cases = []
    for image, label in entries:
        identifier = case_id(image)
        cases.append(
            Case(
                identifier,
                subjects.get(identifier, "") if subjects else identifier,
                folder / image,
                folder / label if label else None,
            )
        )
    if not cases:
        raise InputError(f"{path} lists no case under 'training' or 'test'.")
    inputs = description.get("modality") or description.get("channel_names") or {}
    labels = _label_names(description.get("labels", {}), path)
    table = folder / "labels.csv"
    return Dataset(
        description.get("name", folder.name),
        tuple(cases),
        tuple(inputs[k] for k in sorted(inputs, key=int)),
        labels,
        table if table.is_file() else None,
    )


def _label_names(labels: dict, path: Path) -> dict[int, str]:
    """Value → name from {"1": "liver"} (Decathlon) or {"liver": 1} (nnU-Net), no background."""
    result = {}
    for key, value in labels.items():
        number, name = (key, value) if str(key).isdigit() else (value, key)
        try:
            result[int(number)] = str(name)
        except (TypeError, ValueError):
            raise InputError(f"{path}: label {key!r}: {value!r} is not a number.") from None
    result.pop(0, None)
    return result


def _plain(folder: Path) -> Dataset:
    images = [p for p in sorted(folder.rglob("*")) if p.is_file() and is_image(p)]
    dicom = sorted({p.parent for p in folder.rglob("*") if p.is_file() and _is_dicom(p)})
    paths = images + dicom
    if not paths:
        raise InputError(f"{folder} holds no NIfTI, NRRD or MHA image and no DICOM series.")
    cases = []
    for path in paths:
        identifier = case_id(str(path.relative_to(folder)) if path != folder else folder.name)
        cases.append(Case(identifier, identifier, path))
    return Dataset(folder.name, tuple(cases))


def case_id(image: str) -> str:
    """A name for a case from its image's path, safe as a file name."""
    name = image.removeprefix("./").removeprefix("imagesTr/").removeprefix("imagesTs/")
    for suffix in sorted(IMAGE_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
            break
    return re.sub(r"[^\w.-]+", "_", name)


def is_image(path: Path) -> bool:
    """Whether the file's ending is one that `read_volume` reads; segmentations are not images."""
    name = path.name.lower()
    return name.endswith(IMAGE_SUFFIXES) and not name.endswith(".seg.nrrd")


def _is_dicom(path: Path) -> bool:
    if path.suffix.lower() not in ("", ".dcm", ".ima") and not path.suffix[1:].isdigit():
        return False
    with open(path, "rb") as file:
        file.seek(128)
        return file.read(4) == b"DICM"
