"""What is said of the time that a segmentation takes."""

import numpy as np
import pytest

from MIMSegment.Logic.catalog import CatalogEntry
from MIMSegment.Logic.jobs import Job, JobState
from MIMSegment.Logic.run_times import RunTime, RunTimes
from MIMSegment.Logic.volume import Geometry, Volume
from MIMSegment.Logic.workflow_state import PackageCard
from MIMSegment.Logic.workflow_times import Estimates, plain_device


def volume(slices: int) -> Volume:
    return Volume(np.zeros((1, slices, 8, 8), np.float32), Geometry((slices, 8, 8), np.eye(4)))


def card(**times) -> PackageCard:
    entry = CatalogEntry(
        "organs", "1.0.0", "Organs", "", "abdomen", (), (), "MIT", "", False, "", 1, False, (), "",
        **times,
    )  # fmt: skip
    return PackageCard(entry)


@pytest.fixture
def times(tmp_path):
    return RunTimes(tmp_path / "store" / "times.json")


def test_a_run_is_found_again_by_package_and_device(times, tmp_path):
    times.note("organs@1.0.0", "auto", RunTime(12.0, 1000, "CPU"))
    again = RunTimes(tmp_path / "store" / "times.json")
    assert again.find("organs@1.0.0", "auto") == RunTime(12.0, 1000, "CPU")
    assert again.find("organs@1.0.0", "cpu") is None
    assert again.find("organs@1.1.0", "auto") is None


@pytest.mark.parametrize("text", ["", "[1]", '{"organs@1.0.0 auto": {"seconds": 3}}', "\0"])
def test_a_damaged_file_is_passed_over(times, tmp_path, text):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "times.json").write_text(text)
    assert times.find("organs@1.0.0", "auto") is None
    times.note("organs@1.0.0", "auto", RunTime(1.0, 1, "CPU"))
    assert times.find("organs@1.0.0", "auto")


def test_what_cannot_be_written_stops_nothing(tmp_path):
    (tmp_path / "file").touch()
    RunTimes(tmp_path / "file" / "times.json").note("a", "auto", RunTime(1.0, 1, "CPU"))


def test_a_larger_image_takes_longer_in_proportion(times):
    times.note("organs@1.0.0", "auto", RunTime(10.0, 4 * 64, "CPU"))
    line = Estimates(times).line(card(), "auto", volume(8), None)
    assert line.seconds == 20.0
    assert line.basis == "as the last run on this computer"


def test_only_a_whole_run_is_remembered(times):
    estimates = Estimates(times)
    estimates.begin("organs@1.0.0", "auto", volume(4))
    estimates.end(Job(1, JobState.CANCELLED))
    assert times.find("organs@1.0.0", "auto") is None
    estimates.begin("organs@1.0.0", "auto", volume(4))
    estimates.end(Job(2, JobState.DONE, device="CPU"))
    assert times.find("organs@1.0.0", "auto").voxels == 4 * 64


def test_before_the_first_run_the_catalog_says_how_long_it_takes(times):
    known = card(cpu_seconds=95.0, cpu_hardware="8 cores")
    line = Estimates(times).line(known, "auto", None, None)
    assert (line.seconds, line.basis) == (95.0, "measured on 8 cores")
    assert Estimates(times).line(known, "cuda", None, None).seconds is None
    assert Estimates(times).line(card(), "auto", None, None).seconds is None


@pytest.mark.parametrize(
    ("description", "said"),
    [
        ("OpenVINO 2026.4.1, CPU, 2 threads, bfloat16", "on the processor"),
        ("ONNX Runtime 1.23.2, CPU, 8 threads, float32", "on the processor"),
        ("ONNX Runtime 1.23.2, cuda (3 of 120 operations on the CPU), float16",
         "on the NVIDIA graphics card"),
        ("ONNX Runtime 1.23.2, directml, float32", "on the graphics card"),
        ("", ""),
        ("something new", "something new"),
    ],
)  # fmt: skip
def test_a_device_is_named_without_its_libraries(description, said):
    assert plain_device(description) == said
