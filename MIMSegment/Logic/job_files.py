"""What travels between two processes through a job's folder.

    job.json        model package, options, the parent process
    geometry.json   grid and name of the input
    input.npy       voxels (c, z, y, x); the worker maps it into memory
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
from dataclasses import asdict
from pathlib import Path

import numpy as np

from MIMSegment.Logic.diskspace import check_free_space, human_size
from MIMSegment.Logic.doubt import DoubtfulPlace
from MIMSegment.Logic.engine import Segmentation
from MIMSegment.Logic.errors import OutputError
from MIMSegment.Logic.files import replacing
from MIMSegment.Logic.finding import Finding
from MIMSegment.Logic.inference import InferenceOptions
from MIMSegment.Logic.job_folder import JOB
from MIMSegment.Logic.processes import start_time
from MIMSegment.Logic.volume import Geometry, Volume

_INPUT, _GEOMETRY, _LABELS = "input.npy", "geometry.json", "labels.npy"
_SUMMARY = "summary.json"


def write_job(folder: Path, volume: Volume, package: Path, options: InferenceOptions) -> None:
    """Write all that the worker needs, which is not the volume's header.

    Raises OutputError with the sizes when the disk is full.
    """
    result_size = 2 * int(np.prod(volume.geometry.shape))
    what = f"The copy of {volume.source or 'the image'} for the inference process"
    _write_array(folder / _INPUT, volume.array, what, result_size)
    grid = {"ijk_to_lps": volume.geometry.ijk_to_lps.tolist(), "source": volume.source}
    job = {
        "package": str(package.absolute()),
        "options": asdict(options),
        "parent": [os.getpid(), start_time(os.getpid())],
    }
    try:
        (folder / _GEOMETRY).write_text(json.dumps(grid), encoding="ascii")
        (folder / JOB).write_text(json.dumps(job), encoding="ascii")
    except OSError as error:
        raise OutputError(f"{what} could not be written: {error.strerror}.") from None


def read_job(folder: Path) -> tuple[Volume, Path, InferenceOptions]:
    """What `write_job` wrote; the voxels are mapped from the file, not read."""
    grid = json.loads((folder / _GEOMETRY).read_text(encoding="ascii"))
    job = json.loads((folder / JOB).read_text(encoding="ascii"))
    array = np.load(folder / _INPUT, mmap_mode="r")
    geometry = Geometry(array.shape[1:], np.array(grid["ijk_to_lps"]))
    volume = Volume(array, geometry, grid["source"])
    options = job["options"]
    if options["wanted"] is not None:
        options["wanted"] = tuple(options["wanted"])
    return volume, Path(job["package"]), InferenceOptions(**options)


def write_result(folder: Path, segmentation: Segmentation) -> None:
    """Write the result whole or not at all. Raises OutputError with the sizes on a full disk."""
    what = "The result of the inference process"
    summary = {
        "confidence": list(segmentation.confidence.items()),
        "doubtful": [asdict(place) for place in segmentation.doubtful],
        "findings": [asdict(finding) for finding in segmentation.findings],
    }
    try:
        (folder / _SUMMARY).write_text(json.dumps(summary), encoding="ascii")
    except OSError as error:
        raise OutputError(f"{what} could not be written: {error.strerror}.") from None
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
