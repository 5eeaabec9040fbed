"""A cohort through one model: resumable, one table of volumes and one of failures."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from MIMSegment.Logic import errors
from MIMSegment.Logic.batch_tables import BatchTables, volume_column
from MIMSegment.Logic.cohort import RECORD, VOLUMES, BatchCase, read_table
from MIMSegment.Logic.errors import Cancelled, FileInUse, MIMSegmentError, OutputError
from MIMSegment.Logic.file_lock import file_lock
from MIMSegment.Logic.files import (
    not_written,
    read_json_object,
    remove_leftovers,
    write_json,
)
from MIMSegment.Logic.finding import Severity
from MIMSegment.Logic.inference import InferenceOptions, check_options
from MIMSegment.Logic.input_guard import keep_inputs
from MIMSegment.Logic.job_files import StudyFiles
from MIMSegment.Logic.jobs import Job, JobQueue, JobState
from MIMSegment.Logic.labels import wanted_labels
from MIMSegment.Logic.package import ModelPackage
from MIMSegment.Logic.plausibility import gravest_first
from MIMSegment.Logic.segmentation_file import write_segmentation

_LOCK = ".batch.lock"
_LOOK = 0.2  # seconds between two looks at what a worker says

_logger = logging.getLogger(__name__)


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
    severity in a column of its own; which image was taken for which input; what the cohort gave;
    what it ran on) and failures.csv, each complete after every case, so that a batch that was
    stopped goes on where it was. A case that failed is tried again, and one whose images are others
    than the last time is done again. Each case is read and segmented in a process of its own:
    whatever ends that is a failure of the case. ``report`` hears which case it is and what the run
    tells the user, ``progress`` several times a second the case's number (from 1), how many there
    are, and its job; ``series`` chooses the images of every case, as for `inputs.read_images`.
    Raises OutputError when the folder holds results of another model or of other options, another
    batch is writing to it, or it cannot be written; before the first case when a result would
    replace an input, and as `inference.check_options`.
    """
    check_options(options, package)
    targets = (folder / f"{case.name}{ending}" for case in cases)
    keep_inputs([folder, *targets], [path for case in cases for path in case.inputs])
    with _alone_in(folder), JobQueue() as queue:
        _check_same_origin(folder, package, options, series)
        run = _Run(queue, package, options, series, lambda text: report(f"    {text}"), progress)
        tables = BatchTables(folder, package.labels)
        skipped = 0
        for number, case in enumerate(cases, 1):
            target = folder / f"{case.name}{ending}"
            if target.is_file() and tables.is_done(case):
                skipped += 1
                continue
            report(f"[{number}/{len(cases)}] {case.name}")
            if target.is_file() and tables.forget(case):
                run.report("Its images are others than the last time.")
            try:
                tables.add(case, run.segment(case, target, (number, len(cases))))
            except Exception as error:  # the next case may be sound
                if isinstance(error, OutputError) and not isinstance(error, FileInUse):
                    raise  # no other case could be written either
                tables.fail(case, reason := _reason(error))
                run.report(f"failed: {reason}")
            tables.write(run.report)
        tables.write()
    return len(cases) - len(tables.failures) - skipped, len(tables.failures), skipped


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
            "warnings": " ".join(study.warnings),
            "inputs": "; ".join(study.explanation),
            **{volume_column(label): f"{volumes.get(label.value, 0.0):.4f}" for label in labels},
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


def _check_same_origin(
    folder: Path, package: ModelPackage, options: InferenceOptions, series: Sequence[str]
) -> None:
    """Results of two models, or of options that change results, must not end in one table."""
    model = {"id": package.id, "version": package.version, "checksums": dict(package.checksums)}
    chosen = {
        "structures": " ".join(map(str, sorted(options.wanted))) if options.wanted else "all",
        "mirroring": "as the model asks" if options.mirror else "left out",
        "precision": options.precision or "the fastest",
        "series": "; ".join(series) or "by themselves",
    }
    path = folder / RECORD
    if read_table(folder / VOLUMES, errors="surrogateescape"):
        if not path.is_file():
            raise OutputError(
                f"{folder} holds a {VOLUMES} that no batch has written, or whose {RECORD} is gone; "
                "choose another folder."
            )
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
