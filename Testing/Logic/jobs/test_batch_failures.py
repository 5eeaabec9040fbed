"""What kills or breaks a case of a batch: a row among the failures, and the next case runs."""

import csv
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from job_cases import CPU, POSIX
from MIMSegment.Logic import batch, jobs
from MIMSegment.Logic.errors import OutputError
from MIMSegment.Logic.jobs import JobQueue
from MIMSegment.Logic.volume import Geometry, Volume, write_volume
from tiny_package import threshold_spec, write_threshold_package

ENDS = {  # name of the case: what its worker does, and what the user reads
    "a": ("import os; os.kill(os.getpid(), 9)", "was killed (SIGKILL)"),
    "b": ("import ctypes; ctypes.string_at(0)", "memory access violation (SIGSEGV)"),
    "c": ("raise MemoryError", "memory"),
    "d": ("raise OutOfMemory('There is no memory left.')", "There is no memory left."),
    "e": ("raise ValueError", "unforeseen reason (ValueError)"),
}
READING = {
    "a": ("import os; os.kill(os.getpid(), 9)", "was killed (SIGKILL)"),
    "b": ("import ctypes; ctypes.string_at(0)", "memory access violation (SIGSEGV)"),
    "c": ("raise MemoryError", "out of memory"),
    "d": ("raise KeyError('tag')", "unforeseen reason (KeyError)"),
}


@pytest.fixture
def run(package, folder, tmp_path, monkeypatch):
    """Runs cases of the given names in a batch; gives volumes, failures and what was said."""

    def run(names, model=package, **queue):
        array = np.zeros((1, 10, 18, 18), np.int16)
        array[0, 2:5, 3:9, 3:6] = 900
        image = Volume(array, Geometry.from_parts(array.shape[1:], (2, 1, 1)))
        for name in names:
            write_volume(image, tmp_path / f"{name}.nrrd")
        cases = [batch.BatchCase(name, (str(tmp_path / f"{name}.nrrd"),)) for name in names]
        said, out = [], tmp_path / "out"
        monkeypatch.setattr(batch, "JobQueue", partial(JobQueue, folder=folder, **queue))
        counts = batch.run_batch(cases, model, out, CPU, report=said.append)
        volumes, failures = rows(out / "volumes.csv"), rows(out / "failures.csv")
        assert counts == (len(volumes), len(failures), 0)
        assert not list(folder.iterdir())
        return volumes, {name: row["reason"] for name, row in failures.items()}, said

    return run


def rows(path):
    with open(path, newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def only_the_sound_case_is_done(run, interpreter, module, call, source, ends):
    """Replace ``module.call`` so that each case of ``ends`` ends as it says; returns the reasons.

    ``source`` is where the file is found in the ``arguments`` of the call.
    """
    lines = ["from MIMSegment.Logic.errors import OutOfMemory",
             f"from MIMSegment.Logic import {module}",
             f"real = {module}.{call}", "def fail(*arguments):"]  # fmt: skip
    lines += [f"    if '/{n}.nrrd' in {source}:\n        {how}" for n, (how, _) in ends.items()]
    lines += ["    return real(*arguments)", f"{module}.{call} = fail"]
    volumes, failures, said = run([*ends, "sound"], python=interpreter("\n".join(lines)))
    assert set(volumes) == {"sound"} and set(failures) == set(ends)
    for name, (_, reason) in ends.items():
        assert reason in failures[name]
        assert f"    failed: {failures[name]}" in said
    return failures


@POSIX
def test_whatever_ends_the_process_of_a_case_the_next_runs(run, interpreter):
    only_the_sound_case_is_done(
        run, interpreter, "inference", "segment", "arguments[0].source", ENDS
    )


@POSIX
def test_whatever_ends_the_reading_of_a_case_the_next_runs(run, interpreter, tmp_path):
    failures = only_the_sound_case_is_done(
        run, interpreter, "inputs", "read_study", "arguments[0][0]", READING
    )
    assert failures["b"] == (
        f"The process that was reading {tmp_path / 'b.nrrd'} crashed with a memory access "
        "violation (SIGSEGV). A file of it is probably damaged: copy or download it again, or "
        "open it in another program and save it anew."
    )


def test_without_room_for_a_job_the_next_case_runs(run, monkeypatch):
    write_job = jobs.write_job

    def write(folder, study, *rest):
        if study.paths[0].endswith("/a.nrrd"):
            raise OutputError("No room for a job.")
        write_job(folder, study, *rest)

    monkeypatch.setattr(jobs, "write_job", write)
    volumes, failures, _ = run(["a", "z"])
    assert set(volumes) == {"z"} and failures == {"a": "No room for a job."}


@POSIX
def test_a_crashed_reader_leaves_nothing_in_the_temporary_folder(run, interpreter, tmp_path):
    """GDCM, for one, gets its pixels through a file there."""
    lines = ["import ctypes, tempfile", "from MIMSegment.Logic import inputs",
             "real = inputs.read_study", "def fail(arguments, *rest):",
             "    if '/a.nrrd' not in arguments[0]:", "        return real(arguments, *rest)",
             f"    with open({str(tmp_path / 'where')!r}, 'w') as file:",
             "        file.write(tempfile.mkstemp()[1])", "    ctypes.string_at(0)",
             "inputs.read_study = fail"]  # fmt: skip
    _, failures, _ = run(["a", "sound"], python=interpreter("\n".join(lines)))
    assert "SIGSEGV" in failures["a"]
    assert not Path((tmp_path / "where").read_text()).exists()


@POSIX
def test_steps_down_for_want_of_memory_are_said_under_the_case(run, interpreter, tmp_path):
    lines = ["from MIMSegment.Logic.errors import OutOfMemory", "real = inference.segment",
             "def fail(volume, spec, *rest):", "    if spec.patch[1] == 32:",
             "        raise OutOfMemory('There is no memory left.')",
             "    return real(volume, spec, *rest)", "inference.segment = fail"]  # fmt: skip
    package = write_threshold_package(tmp_path / "package", threshold_spec(patch=(8, 32, 16)))
    volumes, _, said = run(["a"], package, python=interpreter("\n".join(lines)))
    assert said[0] == "[1/1] a"
    assert sorted(said[1:]) == [
        "    Little memory: now in smaller parts, of 8 × 16 × 16 voxels.",
        f"    Runs on {volumes['a']['device']}.",
    ]
