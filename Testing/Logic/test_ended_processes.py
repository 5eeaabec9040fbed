"""The command line as a process that is killed, stopped, or given the longest of paths."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dicom_writer import noise, write_series
from job_cases import worker_pid
from MIMSegment.Logic.cli import main
from MIMSegment.Logic.processes import start_time
from MIMSegment.Logic.volume import Geometry, Volume, read_volume, write_volume

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 60
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

HELD = """
import sys, time
from MIMSegment.Logic import cli, image_file
real = image_file.itk().WriteImage
def hold(image, path, **options):
    real(image, path, **options)
    print("writing", flush=True)
    time.sleep(600)
image_file.itk().WriteImage = hold
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture
def cohort(tmp_path):
    (tmp_path / "cohort").mkdir()
    for index, name in enumerate("abc"):
        array = np.zeros((1, 12, 20, 20), np.int16)
        array[0, 2:6, 3:9, 3 : 6 + index] = 900
        volume = Volume(array, Geometry.from_parts(array.shape[1:], (1, 1, 1)))
        write_volume(volume, tmp_path / "cohort" / f"{name}.nrrd")
    return tmp_path / "cohort"


@pytest.fixture
def started():
    """Starts the command line in a process that stops for ever when it has written a result but
    not yet moved it to its place; gives the process when it is there."""
    running = []

    def start(*arguments, until="writing"):
        # Under nohup it would be deaf to SIGHUP.
        command = [sys.executable, "-c", HELD, *map(str, arguments)]
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )  # fmt: skip
        running.append(process)
        assert any(until in line for line in process.stdout)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def rows(path):
    with open(path, newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_segment_that_is_stopped_while_it_writes_leaves_nothing(started, package, cohort, tmp_path,
                                                                number):  # fmt: skip
    (tmp_path / "out").mkdir()
    old = tmp_path / "out" / "old.nii.gz"
    old.write_bytes(b"an older result")
    process = started("segment", cohort / "a.nrrd", "-m", package.path, "-o", old, "--device",
                      "cpu", "-q")  # fmt: skip
    assert len(os.listdir(old.parent)) == 2
    process.send_signal(number)
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 128 + number
    assert errors.strip().endswith("mimsegment: stopped.")
    assert os.listdir(old.parent) == ["old.nii.gz"] and old.read_bytes() == b"an older result"


def test_segment_that_is_killed_keeps_the_older_result(started, package, cohort, tmp_path):
    old = tmp_path / "old.nii.gz"
    old.write_bytes(b"an older result")
    process = started("segment", cohort / "a.nrrd", "-m", package.path, "-o", old, "--device",
                      "cpu", "-q")  # fmt: skip
    process.kill()
    process.wait()
    assert old.read_bytes() == b"an older result"


def test_segment_is_stopped_within_the_network(started, slow_package, tmp_path):
    array = np.random.default_rng(0).random((1, 48, 48, 240), np.float32)
    write_volume(Volume(array, Geometry.from_parts(array.shape[1:], (1, 1, 1))), tmp_path / "i.mha")
    process = started("segment", tmp_path / "i.mha", "-m", slow_package.path, "-o",
                      tmp_path / "o.mha", "--device", "cpu", "--threads", "1", until="Runs on",
                      )  # fmt: skip
    process.terminate()
    process.communicate(timeout=TIMEOUT)
    assert process.returncode == 143
    assert not (tmp_path / "o.mha").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_batch_that_is_stopped_within_the_network_leaves_no_worker(
    started, slow_package, tmp_path, monkeypatch, number
):
    jobs, out = tmp_path / "jobs", tmp_path / "out"
    jobs.mkdir()
    (tmp_path / "slow").mkdir()
    monkeypatch.setenv("TMPDIR", str(jobs))
    array = np.random.default_rng(0).random((1, 48, 48, 240), np.float32)
    image = Volume(array, Geometry.from_parts(array.shape[1:], (1, 1, 1)))
    write_volume(image, tmp_path / "slow" / "a.mha")
    process = started("batch", tmp_path / "slow", "-m", slow_package.path, "-o", out, "--device",
                      "cpu", "--threads", "1", until="Runs on")  # fmt: skip
    worker = worker_pid(jobs)
    assert start_time(worker) is not None
    process.send_signal(number)
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 128 + number
    assert errors.strip() == "mimsegment: stopped."
    assert start_time(worker) is None
    assert not list(jobs.glob("mimsegment*"))
    assert sorted(p.name for p in out.iterdir()) == [".batch.lock", "batch.json"]


def test_a_killed_batch_is_cleaned_up_and_finished_by_the_next(started, package, cohort, tmp_path,
                                                               capsys):  # fmt: skip
    out = tmp_path / "out"
    command = ["batch", str(cohort), "-m", str(package.path), "-o", str(out), "--device", "cpu",
               "--ending", ".nii.gz"]  # fmt: skip
    process = started(*command)
    assert main(command) == 2
    assert "Another batch is writing to" in capsys.readouterr().err
    process.kill()
    process.wait()
    left = [p.name for p in out.iterdir() if p.name.startswith(".mimsegment")]
    assert len(left) == 1 and not (out / "a.nii.gz").exists()
    assert main(command) == 0
    assert "3 done, 0 failed, 0 were finished" in capsys.readouterr().out
    assert set(rows(out / "volumes.csv")) == {"a", "b", "c"}
    assert not [p for p in out.iterdir() if p.name.startswith(".mimsegment")]


def test_the_longest_foreign_names_work_from_image_to_result(package, deep_folder):
    write_series(deep_folder / "séries", noise((6, 20, 20)), modality="CT", spacing=(1, 1, 1))
    image = read_volume(deep_folder / "séries")
    write_volume(image, deep_folder / "größe.nii.gz")
    write_volume(image, deep_folder / "größe.nrrd")
    results = []
    for source in ("séries", "größe.nii.gz", "größe.nrrd"):
        for ending in (".seg.nrrd", ".nii.gz", ".mha"):
            out = deep_folder / (("é" * 127)[: (255 - len(ending)) // 2] + ending)
            command = ["segment", str(deep_folder / source), "-m", str(package.path)]
            assert main([*command, "-o", str(out), "-q", "--device", "cpu"]) == 0
            assert len(os.fsencode(out.name)) > 250
            results.append(read_volume(out).array)
            out.unlink()
    assert all(np.array_equal(result, results[0]) for result in results)
    assert results[0].any()
    assert sorted(p.name for p in deep_folder.iterdir()) == ["größe.nii.gz", "größe.nrrd", "séries"]


def test_a_name_that_is_too_long_for_the_disk_is_told(package, cohort, tmp_path, capsys):
    out = tmp_path / ("x" * 250 + ".nii.gz")
    assert main(["segment", str(cohort / "a.nrrd"), "-m", str(package.path), "-o", str(out), "-q",
                 "--device", "cpu"]) == 2  # fmt: skip
    assert "File name too long" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cohort"]


def test_a_reader_that_has_seen_enough_is_no_error():
    command = [sys.executable, "-m", "MIMSegment.Logic.cli", "models", "list"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(TIMEOUT) == 0
