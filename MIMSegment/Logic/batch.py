"""A cohort through one model: resumable, one table of volumes and one of failures."""

from __future__ import annotations

import contextlib
import csv
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from MIMSegment.Logic import errors
from MIMSegment.Logic.errors import Cancelled, InputError, MIMSegmentError, OutputError
from MIMSegment.Logic.file_lock import file_lock
from MIMSegment.Logic.files import (
    not_written,
    read_json_object,
    remove_leftovers,
    write_csv,
    write_json,
)
from MIMSegment.Logic.finding import Severity
from MIMSegment.Logic.inference import InferenceOptions, check_options
from MIMSegment.Logic.job_files import StudyFiles
from MIMSegment.Logic.jobs import Job, JobQueue, JobState
from MIMSegment.Logic.labels import wanted_labels
from MIMSegment.Logic.package import ModelPackage
from MIMSegment.Logic.plausibility import gravest_first
from MIMSegment.Logic.segmentation_file import write_segmentation
from MIMSegment.Logic.spec import ModelSpec
from MIMSegment.Logic.volume import IMAGE_SUFFIXES

VOLUMES, FAILURES, RECORD = "volumes.csv", "failures.csv", "batch.json"
_LOCK = ".batch.lock"
_FURTHER = ("gravest", "findings", "warnings", "inputs", "device")
_LOOK = 0.2  # seconds between two looks at what a worker says

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchCase:
    """A study of the cohort: its name, and its inputs as `inputs.read_images` takes them."""

    name: str
    inputs: tuple[str, ...]


def find_cases(source: str | Path, spec: ModelSpec) -> list[BatchCase]:
    """The cases of a folder (an image file or a sub-folder each) or of a CSV table.

    The table has a column ``case`` and either one for each input of the model, by its name, or one
    ``image``; paths are relative to the table. Raises InputError.
    """
    source = Path(source)
    if source.is_dir():
        cases = _cases_of_folder(source)
    elif source.suffix.lower() == ".csv" and source.is_file():
        cases = _cases_of_table(source, spec)
    else:
        raise InputError(f"{source} is neither a folder nor a .csv table.")
    if not cases:
        raise InputError(f"{source} holds no case: no image file and no sub-folder.")
    names = [case.name for case in cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{source} has several cases named {twice[0]!r}; use a table instead.")
    return cases


def run_batch(
    cases: Sequence[BatchCase],
    package: ModelPackage,
    folder: Path,
    options: InferenceOptions,
    ending: str = ".seg.nrrd",
    report: Callable[[str], None] = lambda sentence: None,
    series: Sequence[str] = (),
    progress: Callable[[int, int, Job], None] = lambda number, count, job: None,
) -> tuple[int, int, int]:
    """Segment every case that is not finished; returns how many are done, failed and were skipped.

    ``folder`` gets CASE + ``ending``, volumes.csv (mL; what the checks found, with the gravest
    severity in a column of its own; which image was taken for which input; what it ran on) and
    failures.csv, each complete after every case, so that a batch that was stopped goes on where it
    was. Each case is read and segmented in a process of its own: whatever ends that is a failure
    of the case. A case that failed is tried again. ``report`` hears which case it is and what the
    run tells the user, ``progress`` several times a second the case's number (from 1), how many
    there are, and its job; ``series`` chooses the images of every case, as for
    `inputs.read_images`. Raises OutputError when the folder holds results of another model or of
    other options, another batch is writing to it, or it cannot be written; as
    `inference.check_options` before the first case.
    """
    check_options(options, package)
    with _alone_in(folder), JobQueue() as queue:
        _check_same_origin(folder, package, options)
        run = _Run(queue, package, options, series, lambda text: report(f"    {text}"), progress)
        volumes = {row["case"]: row for row in _read(folder / VOLUMES)}
        failures: dict[str, dict] = {}
        skipped = 0
        for number, case in enumerate(cases, 1):
            target = folder / f"{case.name}{ending}"
            if case.name in volumes and target.is_file():
                skipped += 1
                continue
            report(f"[{number}/{len(cases)}] {case.name}")
            try:
                volumes[case.name] = run.segment(case, target, (number, len(cases)))
                _write(folder / VOLUMES, _columns(package), volumes.values())
            except OutputError:  # no other case could be written either
                raise
            except Exception as error:  # the next case may be sound
                failures[case.name] = {"case": case.name, "reason": _reason(error)}
                report(f"    failed: {failures[case.name]['reason']}")
            _write(folder / FAILURES, ["case", "reason"], failures.values())
        _write(folder / FAILURES, ["case", "reason"], failures.values())  # also if none was left
    return len(cases) - len(failures) - skipped, len(failures), skipped


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Make ``folder`` and keep other batches out; what a killed one left half-written is removed.

    Raises OutputError.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(file_lock(folder / _LOCK, cancel=lambda: True))
        except Cancelled:
            raise OutputError(
                f"Another batch is writing to {folder}; wait for its end, or choose another folder."
            ) from None
        except OSError as error:
            raise not_written(folder / VOLUMES, error) from error
        remove_leftovers(folder)
        yield


@dataclass(frozen=True)
class _Run:
    """What all cases of a batch share; ``report`` gets lines on the case."""

    queue: JobQueue
    package: ModelPackage
    options: InferenceOptions
    series: Sequence[str]
    report: Callable[[str], None]
    progress: Callable[[int, int, Job], None]

    def segment(self, case: BatchCase, target: Path, place: tuple[int, int]) -> dict:
        """Write the result to ``target``; returns the row of volumes.csv. ``place`` is the case's
        number, and of how many.

        Raises OutputError when ``target`` cannot be written, other errors when the case fails.
        """
        package, job = self.package, self._submit(case)
        self._follow(job, place)
        if job.state is not JobState.DONE:
            if not _foreseen(job.error_kind):
                _logger.error("A case failed for an unforeseen reason:\n%s", job.log)
            raise MIMSegmentError(job.error or job.message)
        result, study = job.result, job.study
        write_segmentation(result, package.labels, target, f"{package.id} {package.version}")
        findings = gravest_first((*study.findings, *result.findings))
        for finding in findings:
            if finding.severity is Severity.ALERT:
                self.report(f"alert: {finding}")
        volumes, labels = result.volumes_ml(), wanted_labels(package.labels, self.options.wanted)
        return {
            "case": case.name,
            "warnings": " ".join(study.warnings),
            "inputs": "; ".join(study.explanation),
            **{_column(label): f"{volumes.get(label.value, 0.0):.4f}" for label in labels},
            "gravest": str(findings[0].severity) if findings else "",
            "findings": " ".join(f"{finding.severity}: {finding}" for finding in findings),
            "device": job.device,
        }

    def _submit(self, case: BatchCase) -> Job:
        files = StudyFiles(case.inputs, tuple(self.series))
        try:
            return self.queue.submit(files, self.package.path, self.options)
        except OutputError as error:  # in the temporary folder, not where the results go
            raise MIMSegmentError(str(error)) from error

    def _follow(self, job: Job, place: tuple[int, int]) -> None:
        """Wait for its end; say what it runs on, and why when that is not what was asked for."""
        told, device, finished = 0, "", False
        while not finished:
            finished = self.queue.wait(job, _LOOK)
            for notice in job.notices[told:]:
                self.report(notice)
            told = len(job.notices)
            if job.device != device:
                device = job.device
                self.report(f"Runs on {device}.")
            self.progress(*place, job)


def _foreseen(kind: str | None) -> bool:
    """Whether a job's ``error_kind`` is an error with a sentence for the user."""
    return kind == "MemoryError" or hasattr(errors, kind or "")


def _reason(error: Exception) -> str:
    if isinstance(error, MIMSegmentError):
        return str(error)
    if isinstance(error, MemoryError):
        return "The computer ran out of memory; close other programs."
    _logger.error("A case failed for an unforeseen reason", exc_info=error)
    return f"It failed for an unforeseen reason ({type(error).__name__}: {error})."


def _columns(package: ModelPackage) -> list[str]:
    return ["case", *(_column(label) for label in package.labels), *_FURTHER]


def _column(label) -> str:
    return f"{label.name} (mL)"


def _cases_of_folder(folder: Path) -> list[BatchCase]:
    cases = []
    for path in sorted(folder.iterdir()):
        name = _without_ending(path.name)
        if path.name.startswith("."):
            continue
        if path.is_dir() or path.name.lower().endswith(IMAGE_SUFFIXES):
            cases.append(BatchCase(name, (str(path),)))
    return cases


def _cases_of_table(path: Path, spec: ModelSpec) -> list[BatchCase]:
    rows, names = _read(path), [item.name for item in spec.inputs]
    cases = []
    for number, row in enumerate(rows, start=2):
        given = {k: str(path.parent / v) for k, v in row.items() if k and v and k != "case"}
        if not row.get("case"):
            raise InputError(f"{path}, line {number}: the column 'case' is empty or missing.")
        if "image" in given:
            inputs = (given["image"],)
        elif all(name in given for name in names):
            inputs = tuple(f"{name}={given[name]}" for name in names)
        else:
            missing = next(name for name in names if name not in given)
            raise InputError(f"{path}, line {number}: {missing!r} is missing, and so is 'image'.")
        cases.append(BatchCase(_safe(row["case"], path, number), inputs))
    return cases


def _safe(name: str, path: Path, number: int) -> str:
    if name != Path(name).name or name in (".", "..") or "\\" in name:
        raise InputError(f"{path}, line {number}: case {name!r} cannot be a file name.")
    return name


def _without_ending(name: str) -> str:
    for ending in sorted(IMAGE_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


def _check_same_origin(folder: Path, package: ModelPackage, options: InferenceOptions) -> None:
    """Results of two models, or of options that change results, must not end in one table."""
    model = {"id": package.id, "version": package.version, "checksums": dict(package.checksums)}
    chosen = {
        "structures": " ".join(map(str, sorted(options.wanted))) if options.wanted else "all",
        "mirroring": "as the model asks" if options.mirror else "left out",
        "precision": options.precision or "the fastest",
    }
    path = folder / RECORD
    if path.is_file() and _read(folder / VOLUMES):
        earlier = read_json_object(path)
        before = earlier.pop("options", {})
        if earlier != model:
            raise OutputError(
                f"{folder} holds results of another model or version; choose another folder."
            )
        other = [
            f"{name}: {before.get(name, 'unknown')}, now {value}"
            for name, value in chosen.items()
            if before.get(name) != value
        ]
        if other:
            raise OutputError(
                f"{folder} holds results of other options ({'; '.join(other)}); choose another "
                "folder, or remove this one to begin anew."
            )
    write_json(path, {**model, "options": chosen})


def _read(path: Path) -> list[dict]:
    if not path.is_file():
        return []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table: {error}.") from None


def _write(path: Path, columns: Sequence[str], rows) -> None:
    write_csv(path, columns, ([row.get(column, "") for column in columns] for row in rows))
