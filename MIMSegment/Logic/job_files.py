"""What travels between two processes through a job's folder.

    job.json        model package, options, the parent process, files of a study to be read
    geometry.json   grid and name of the input
    input.npy       voxels (c, z, y, x), unless the worker reads them from the study's own files
    study.json      what the worker found when it read these
    labels.npy      result (z, y, x)
    summary.json    confidence, doubtful places and findings of the result
    cancel          exists when the job shall stop
    events.jsonl    the worker's stdout: one JSON object per line
    stderr.txt      everything else that the worker and its libraries print

An array is there whole or not at all, also when the disk is full.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from MIMSegment.Logic.diskspace import check_free_space, human_size
from MIMSegment.Logic.doubt import DoubtfulPlace
from MIMSegment.Logic.engine import Segmentation
from MIMSegment.Logic.errors import OutputError
from MIMSegment.Logic.files import replacing
from MIMSegment.Logic.finding import Finding
from MIMSegment.Logic.inference import InferenceOptions
from MIMSegment.Logic.inputs import Study
from MIMSegment.Logic.job_folder import JOB
from MIMSegment.Logic.processes import start_time
from MIMSegment.Logic.volume import Geometry, Volume

_INPUT, _GEOMETRY, _LABELS = "input.npy", "geometry.json", "labels.npy"
_SUMMARY, _STUDY = "summary.json", "study.json"


@dataclass(frozen=True)
class StudyFiles:
    """A study of a cohort for the worker to read, by what `inputs.read_study` takes: a file that
    crashes its reader then ends the worker and not the caller."""

    inputs: tuple[str, ...]
    series: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """The inputs without the names in NAME=PATH."""
        return tuple(text.partition("=")[2] or text for text in self.inputs)


@dataclass(frozen=True)
class StudyFacts:
    """What the worker found when it read a study: see `inputs.Study` and `volume.Volume`."""

    geometry: Geometry
    warnings: tuple[str, ...]
    explanation: tuple[str, ...]
    findings: tuple[Finding, ...]


def write_job(
    folder: Path, study: Volume | StudyFiles, package: Path, options: InferenceOptions
) -> None:
    """Write all that the worker needs, which is not a volume's header.

    Raises OutputError with the sizes when the disk is full.
    """
    job = {
        "package": str(package.absolute()),
        "options": asdict(options),
        "parent": [os.getpid(), start_time(os.getpid())],
    }
    if isinstance(study, StudyFiles):
        job["study"] = asdict(study)
        what = "What is to be segmented"
    else:
        what = f"The copy of {study.source or 'the image'} to be segmented"
        result_size = 2 * int(np.prod(study.geometry.shape))
        _write_array(folder / _INPUT, study.array, what, result_size)
        grid = {"ijk_to_lps": study.geometry.ijk_to_lps.tolist(), "source": study.source}
        _write_json(folder / _GEOMETRY, grid, what)
    _write_json(folder / JOB, job, what)


def read_job(folder: Path) -> tuple[Volume | StudyFiles, Path, InferenceOptions]:
    """What `write_job` wrote; voxels are mapped from the file, not read."""
    job = json.loads((folder / JOB).read_text(encoding="ascii"))
    options = job["options"]
    if options["wanted"] is not None:
        options["wanted"] = tuple(options["wanted"])
    if "study" in job:
        study = StudyFiles(tuple(job["study"]["inputs"]), tuple(job["study"]["series"]))
    else:
        grid = json.loads((folder / _GEOMETRY).read_text(encoding="ascii"))
        array = np.load(folder / _INPUT, mmap_mode="r")
        geometry = Geometry(array.shape[1:], np.array(grid["ijk_to_lps"]))
        study = Volume(array, geometry, grid["source"])
    return study, Path(job["package"]), InferenceOptions(**options)


def write_study(folder: Path, study: Study) -> None:
    """Write what the caller needs of a study that the worker has read. Raises OutputError."""
    geometry = study.volume.geometry
    facts = {
        "shape": [int(size) for size in geometry.shape],
        "ijk_to_lps": geometry.ijk_to_lps.tolist(),
        "warnings": study.volume.warnings,
        "explanation": study.explanation,
        "findings": [asdict(finding) for finding in study.findings],
    }
    _write_json(folder / _STUDY, facts, "What was found in the images")


def read_study_facts(folder: Path) -> StudyFacts:
    """What `write_study` wrote. Raises OSError or ValueError."""
    facts = json.loads((folder / _STUDY).read_text(encoding="ascii"))
    return StudyFacts(
        Geometry(tuple(facts["shape"]), np.array(facts["ijk_to_lps"])),
        tuple(facts["warnings"]),
        tuple(facts["explanation"]),
        tuple(map(Finding.from_dict, facts["findings"])),
    )


def write_result(folder: Path, segmentation: Segmentation) -> None:
    """Write the result whole or not at all. Raises OutputError with the sizes on a full disk."""
    what = "The result of the segmentation"
    summary = {
        "confidence": list(segmentation.confidence.items()),
        "doubtful": [asdict(place) for place in segmentation.doubtful],
        "findings": [asdict(finding) for finding in segmentation.findings],
    }
    _write_json(folder / _SUMMARY, summary, what)
    _write_array(folder / _LABELS, segmentation.labels, what)


def read_result(folder: Path, geometry: Geometry) -> Segmentation:
    """The labels on ``geometry``, the grid of the job's input. Raises OSError or ValueError."""
    labels = np.load(folder / _LABELS)
    if labels.shape != tuple(geometry.shape):
        raise ValueError(f"labels of shape {labels.shape} for a grid of {geometry.shape}")
    summary = json.loads((folder / _SUMMARY).read_text(encoding="ascii"))
    doubtful = (
        DoubtfulPlace(tuple(place["position"]), place["label"], place["doubtful_ml"])
        for place in summary["doubtful"]
    )
    confidence = dict(map(tuple, summary["confidence"]))
    findings = tuple(map(Finding.from_dict, summary["findings"]))
    return Segmentation(labels, geometry, confidence, tuple(doubtful), findings)


def _write_json(path: Path, value, what: str) -> None:
    try:
        path.write_text(json.dumps(value), encoding="ascii")
    except OSError as error:
        raise OutputError(f"{what} could not be written: {error.strerror}.") from None


def _write_array(path: Path, array: np.ndarray, what: str, reserve: int = 0) -> None:
    """Write ``.npy`` plane by plane, so that a view is not copied as a whole.

    Never through a memory map: a full disk would then kill the process.
    """
    needed, free = array.nbytes + reserve, shutil.disk_usage(path.parent).free
    check_free_space(path.parent, needed, what)
    header = {
        "descr": np.lib.format.dtype_to_descr(array.dtype),
        "fortran_order": False,
        "shape": array.shape,
    }
    with replacing(path) as temporary:
        try:
            with open(temporary, "wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                for index in np.ndindex(array.shape[:-2]):
                    file.write(np.ascontiguousarray(array[index]))
        except OSError as error:
            raise OutputError(
                f"{what} could not be written ({error.strerror or error}): it needs "
                f"{human_size(needed)}, {human_size(free)} were free on the disk of {path.parent}; "
                "free some space there, or set TMPDIR (TEMP on Windows) to another folder."
            ) from None
