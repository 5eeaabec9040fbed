"""The cases of a cohort: what a folder or a table holds, and the name of each one's result."""

from __future__ import annotations

import contextlib
import csv
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from MIMSegment.Logic.archive import portable_path
from MIMSegment.Logic.errors import InputError, OutputError
from MIMSegment.Logic.input_guard import identity
from MIMSegment.Logic.spec import ModelSpec
from MIMSegment.Logic.volume import IMAGE_SUFFIXES, is_image_of_folder

VOLUMES, FAILURES, RECORD = "volumes.csv", "failures.csv", "batch.json"
"""What `batch.run_batch` writes beside the results."""
_SEPARATORS = (",", ";", "\t")


@dataclass(frozen=True)
class BatchCase:
    """A study of the cohort: its name, and its inputs as `inputs.read_images` takes them."""

    name: str
    inputs: tuple[str, ...]
    given: tuple[str, ...] = ()
    """The inputs as the table or folder has them, which are the same when the cohort is moved."""


def find_cases(
    source: str | Path, spec: ModelSpec, results: str | Path | None = None
) -> list[BatchCase]:
    """The cases of a folder (an image file or a sub-folder each) or of a CSV table.

    The table has a column ``case`` and either one for each input of the model, by its name, or one
    ``image``; paths are relative to the table. Folders of results are no cases, nor is ``results``
    while it is empty, nor segmentations (.seg.nrrd). Raises InputError, also for two cases whose
    results some disk takes for one file; OutputError when the results would go into the cohort's
    own folder, or replace the table.
    """
    source = Path(source)
    if source.is_dir():
        cases = _cases_of_folder(source, None if results is None else Path(results))
    elif source.suffix.lower() == ".csv" and source.is_file():
        _keep_table(source, results)
        cases = _cases_of_table(source, spec)
    else:
        raise InputError(f"{source} is neither a folder nor a .csv table.")
    if not cases:
        raise InputError(
            f"{source} holds no case: no image file and no sub-folder; give each DICOM study a "
            "sub-folder of its own."
            if source.is_dir()
            else f"{source} holds no case: it has no line below the names of its columns."
        )
    _check_names(cases, source)
    return cases


def separator_of(header: str) -> str:
    """What is between the cells of a table, by its first line: spreadsheets write semicolons in
    countries where commas are in numbers."""
    return max(_SEPARATORS, key=header.count)


def read_table(path: Path, errors: str = "strict") -> list[dict]:
    """The rows of a CSV table by the names of its columns; none when there is no file.

    Columns may be separated by commas, semicolons or tabs. ``errors`` is as in `open`, for what is
    not in UTF-8. Raises InputError.
    """
    if not path.is_file():
        return []
    try:
        with open(path, newline="", encoding="utf-8-sig", errors=errors) as file:
            separator = separator_of(file.readline())
            file.seek(0)
            return list(csv.DictReader(file, delimiter=separator))
    except UnicodeDecodeError:
        raise InputError(f"{path} is not in UTF-8; save it anew, in Excel as CSV UTF-8.") from None
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table: {error}.") from None


def _cases_of_folder(folder: Path, results: Path | None) -> list[BatchCase]:
    if results is not None and results.exists() and results.samefile(folder):
        raise OutputError(
            f"{results} is the folder of the cohort; choose another one for the results, which "
            "would be its cases the next time."
        )
    cases = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or _is_for_results(path, results):
            continue
        if path.is_dir() or is_image_of_folder(path.name):
            cases.append(BatchCase(_without_ending(path.name), (str(path),), (path.name,)))
    return cases


def _is_for_results(path: Path, results: Path | None) -> bool:
    """Whether ``path`` is a folder of results: a batch's, or ``results`` with nothing in it.

    One that holds something else is a case, of which `batch.run_batch` says that it is an input.
    """
    with contextlib.suppress(OSError):  # what cannot be looked into is a case, which fails alone
        if (path / RECORD).is_file():
            return True
        if results is not None and results.is_dir() and identity(path) == identity(results):
            return all(entry.name.startswith(".") for entry in path.iterdir())
    return False


def _keep_table(source: Path, results: str | Path | None) -> None:
    for name in () if results is None else (VOLUMES, FAILURES):
        target = Path(results, name)
        if target.exists() and target.samefile(source):
            raise OutputError(
                f"{source} would be replaced by the table of the results; choose another folder "
                "for them, or give the table of the cases another name."
            )


def _cases_of_table(path: Path, spec: ModelSpec) -> list[BatchCase]:
    rows, names = read_table(path), [item.name for item in spec.inputs]
    cases = []
    for number, row in enumerate(rows, start=2):
        given = {k: str(path.parent / v) for k, v in row.items() if k and v and k != "case"}
        if not row.get("case"):
            raise InputError(f"{path}, line {number}: the column 'case' is empty or missing.")
        if "image" in given:
            inputs, as_given = (given["image"],), (row["image"],)
        elif all(name in given for name in names):
            inputs = tuple(f"{name}={given[name]}" for name in names)
            as_given = tuple(f"{name}={row[name]}" for name in names)
        else:
            missing = next(name for name in names if name not in given)
            raise InputError(f"{path}, line {number}: {missing!r} is missing, and so is 'image'.")
        cases.append(BatchCase(_safe(row["case"], path, number), inputs, as_given))
    return cases


def _safe(name: str, path: Path, number: int) -> str:
    try:
        if "/" in name or name in (".", ".."):
            raise ValueError("leads out of the folder of the results")
        portable_path(name)
    except ValueError as error:
        raise InputError(
            f"{path}, line {number}: case {name!r} cannot be a file name on every system: it "
            f"{error}."
        ) from None
    return name


def _check_names(cases: list[BatchCase], source: Path) -> None:
    """Disks of Windows and macOS take P1a and P1A for one name, and ü for u with two dots."""
    first: dict[str, str] = {}
    for case in cases:
        name = unicodedata.normalize("NFC", unicodedata.normalize("NFD", case.name).casefold())
        if name in first:
            both = " and ".join(repr(n) for n in dict.fromkeys((first[name], case.name)))
            raise InputError(
                f"{source} has several cases whose results would have one name on some disks: "
                f"{both}; name them apart in a table."
            )
        first[name] = case.name


def _without_ending(name: str) -> str:
    for ending in sorted(IMAGE_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name
