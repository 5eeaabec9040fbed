"""Cases of data sets that are a table: a CSV file, a MedMNIST archive."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mim.cases import Case, Dataset, LeftOut, Target, case_id, is_image
from mim.pictures import is_picture
from mim.split_names import is_part, sides
from MIMSegment.Logic.cohort import separator_of
from MIMSegment.Logic.errors import InputError

# Names of columns, compared without case, spaces and underscores; the first that is there counts.
_IMAGE = ("image", "file", "path", "filename", "imageindex", "imagepath")
_SUBJECT = ("group", "subject", "patient", "patientid", "subjectid")
_CLASS = ("class", "findinglabels", "label", "diagnosis", "target")
_LABEL = ("label", "mask", "segmentation", "seg")
_SPLIT = ("split", "fold", "subset")
_NOTHING = ("no finding", "none", "")


def find_table(folder: Path) -> Path | None:
    """``cases.csv`` or ``labels.csv`` in ``folder``, if it has a column of images."""
    for name in ("cases.csv", "labels.csv"):
        path = folder / name
        if path.is_file() and _image_columns(_header(path)):
            return path
    return None


def from_table(path: Path) -> Dataset:
    """A CSV file with a row for each case.

    Columns: ``image`` (or several, ``image_T2w``, ``image_ADC`` ..., for channels), relative to the
    file; ``group``, the subject; ``split``, train, val or test (`split_names`); and one of

    - ``label``, ``mask`` or ``segmentation``: a label image,
    - ``class`` (or ``label``): the name of a class, or several with ``|`` between them,
    - a column of 0 and 1 for each of several classes that can be there at once.

    A row without one of its images is left out; rows are counted with the header.
    """
    rows = _rows(path)
    header = list(rows[0])
    image_columns = _image_columns(header)
    if not image_columns:
        raise InputError(
            f"{path} has no column image (or file, path); its columns are {', '.join(header)}."
        )
    subject, split = _column(header, _SUBJECT), _column(header, _SPLIT)
    used = {*image_columns, subject, split}
    label = _label_column(path, rows, header)
    classes, targets, multi_label = (
        ((), [None] * len(rows), False) if label else _targets(rows, header, used, path)
    )
    cases, left_out = [], []
    parts = zip(rows, targets, _sides(rows, split, path), strict=True)
    for number, (row, target, side) in enumerate(parts, start=2):
        names = [row[column].strip() for column in image_columns]
        if not all(names):
            missing = _missing(path, number, dict(zip(image_columns, names, strict=True)))
            owner = row[subject].strip() if subject else missing.id
            left_out.append(replace(missing, subject=owner))
            continue
        images = tuple(path.parent / name for name in names)
        identifier = case_id(names[0])
        mask = row[label].strip() if label else ""
        cases.append(
            Case(
                identifier,
                row[subject].strip() if subject else identifier,
                images,
                path.parent / mask if mask else None,
                target,
                side,
            )
        )
    inputs = tuple(c.split("_", 1)[1] for c in image_columns) if len(image_columns) > 1 else ()
    pictures = all(is_picture(case.image) for case in cases)
    return Dataset(
        path.parent.name if path.stem in ("labels", "cases") else path.stem,
        tuple(cases),
        inputs,
        classes=classes,
        multi_label=multi_label,
        pictures=pictures,
        left_out=tuple(left_out),
    )


def _sides(rows: list[dict], column: str | None, path: Path) -> list[str]:
    """The `Case.split` of each row; a part that is not understood could be one for testing."""
    if column is None:
        return [""] * len(rows)
    names = [row[column].strip() for row in rows]
    unknown = sorted({name for name in names if name and not is_part(name)})
    if unknown:
        raise InputError(
            f"{path}: column {column} has {', '.join(map(repr, unknown[:5]))}; write train, val or "
            "test, nothing at all where a split is to be drawn, or leave the column out."
        )
    return sides(names)


def _missing(path: Path, number: int, names: dict[str, str]) -> LeftOut:
    """What is said of row ``number`` when some of its images, by column, are not named."""
    columns = ", ".join(column for column, name in names.items() if not name)
    row, known = f"row {number}", next((case_id(n) for n in names.values() if n), "")
    which = f"{row} ({known})" if known else row
    return LeftOut(known or row, f"{path}: {which} has no {columns}.")


def from_medmnist(path: Path) -> Dataset:
    """An archive of MedMNIST (Yang et al., Scientific Data 2023), with its own test images.

    Where an archive has none, its validation images stand in for them. Class 0 is "0" and so on:
    the archive does not name them.
    """
    try:
        with np.load(path) as archive:
            labels = {n.split("_")[0]: archive[n] for n in archive.files if n.endswith("_labels")}
            names = set(archive.files)
            flat = archive["train_images"].ndim == 3 or archive["train_images"].shape[-1] == 3
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is no archive of MedMNIST ({error}).") from None
    side = dict(zip(labels, sides(list(labels)), strict=True))
    width = labels["train"].shape[1] if labels["train"].ndim > 1 else 1
    multi_label = width > 1
    count = width if multi_label else int(max(array.max() for array in labels.values())) + 1
    cases = []
    for split, array in labels.items():
        name = f"{split}_images"
        if name not in names:
            raise InputError(f"{path} has {split}_labels, but no {name}.")
        for index, value in enumerate(array.reshape(len(array), -1)):
            target = tuple(int(v) for v in value) if multi_label else int(value[0])
            identifier, member = f"{split}_{index:06d}", (name, index)
            cases.append(Case(identifier, identifier, (path,), None, target, side[split], member))
    classes = tuple(str(number) for number in range(count))
    return Dataset(path.stem, tuple(cases), classes=classes, multi_label=multi_label, pictures=flat)


def _header(path: Path) -> list[str]:
    text, separator = _text(path)
    return next(csv.reader(text, delimiter=separator), [])


def _rows(path: Path) -> list[dict[str, str]]:
    text, separator = _text(path)
    try:
        found = list(csv.DictReader(text, delimiter=separator))
    except csv.Error as error:
        raise InputError(f"{path} cannot be read as a CSV table ({error}).") from None
    rows = [{k: v or "" for k, v in row.items() if k} for row in found]
    if not rows:
        raise InputError(f"{path} has no row under its header.")
    return rows


def _text(path: Path) -> tuple[io.StringIO, str]:
    """A table, and what is between its cells."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read as a CSV table ({error}); save it as CSV in UTF-8."
        ) from None
    return io.StringIO(text), separator_of(text.partition("\n")[0])


def _simple(name: str) -> str:
    return name.lower().replace(" ", "").replace("_", "")


def _column(header: Sequence[str], names: Sequence[str]) -> str | None:
    simple = {_simple(column): column for column in header}
    return next((simple[name] for name in names if name in simple), None)


def _image_columns(header: Sequence[str]) -> list[str]:
    one = _column(header, _IMAGE)
    several = [column for column in header if column.lower().startswith("image_")]
    several = [column for column in several if _simple(column) not in _IMAGE]
    return [one] if one else several


def _label_column(path: Path, rows: list[dict], header: Sequence[str]) -> str | None:
    """The column whose values are label images, if there is one."""
    simple = {_simple(column): column for column in header}
    for column in (simple[name] for name in _LABEL if name in simple):
        values = [row[column].strip() for row in rows if row[column].strip()]
        if values and all(is_image(Path(value)) for value in values):
            return column
    return None


def _targets(rows: list[dict], header: Sequence[str], used: set, path: Path):
    """(classes, the target of each row, whether several classes can be there at once)."""
    column = _column([c for c in header if c not in used], _CLASS)
    if column is None:
        return _indicators(rows, [c for c in header if c not in used])
    texts = [row[column].strip() for row in rows]
    if not any("|" in text for text in texts):
        classes = sorted({text for text in texts if text})
        if len(classes) < 2:
            raise InputError(f"{path}: column {column} has only one class, {classes}.")
        return tuple(classes), [classes.index(t) if t else None for t in texts], False
    parts = [{part.strip() for part in text.split("|")} for text in texts]
    classes = sorted({p for found in parts for p in found if p.lower() not in _NOTHING})
    targets = [tuple(int(name in found) for name in classes) for found in parts]
    return tuple(classes), targets, True


def _indicators(rows: list[dict], header: Sequence[str]):
    """One column of 0 and 1 for each class; none at all is a table of images alone."""
    numbers = {"0", "1", "0.0", "1.0"}
    classes = [c for c in header if {row[c].strip() for row in rows} <= numbers]
    if len(classes) < 2:
        return (), [None] * len(rows), False
    targets: list[Target] = [tuple(int(float(row[c])) for c in classes) for row in rows]
    return tuple(classes), targets, True
