"""What the options of ``segment`` and ``batch`` change in results, printouts and tables."""

import csv
import re
from dataclasses import replace

import numpy as np
import pytest

from MIMSegment.Logic.cli import main
from MIMSegment.Logic.labels import Label
from MIMSegment.Logic.package import write_package
from MIMSegment.Logic.volume import Geometry, Volume, read_volume, write_volume
from onnx_writer import node, write_onnx
from tiny_package import BRIGHT, MONAI, threshold_spec

SHAPE = (10, 18, 18)


@pytest.fixture
def shifted(tmp_path):
    """A package that finds what is bright one voxel too far left, unless it may mirror along x; it
    knows a second structure, which it never finds."""
    weight = np.zeros((2, 1, 1, 1, 3), np.float32)
    weight[:, 0, 0, 0, 2] = (-1, 1)
    constants = {"weight": weight, "bias": np.array([0.5, -0.5], np.float32)}
    shift = node("Conv", ["image", "weight", "bias"], "logits", pads=[0, 0, 1, 0, 0, 1])
    space = ["z", "y", "x"]
    path = write_onnx(tmp_path / "network" / "model.onnx", [shift], ["batch", 1, *space],
                      ["batch", 2, *space], constants)  # fmt: skip
    spec = replace(threshold_spec(patch=(16, 32, 32)), mirror_axes=(2,))
    labels = [BRIGHT, Label(5, "Dark thing")]
    models = {"models/model.onnx": path}
    return write_package(tmp_path / "package", "shifted", "Shifted", spec, labels, models,
                         "# Shifted\n", "Apache-2.0\n", MONAI)  # fmt: skip


@pytest.fixture
def image(tmp_path):
    (tmp_path / "cohort").mkdir()
    array = np.zeros((1, *SHAPE), np.int16)
    array[0, 2:5, 3:9, 4:10] = 900
    path = tmp_path / "cohort" / "a.nrrd"
    write_volume(Volume(array, Geometry.from_parts(SHAPE, (2, 1, 1))), path)
    return path


@pytest.fixture
def segment(shifted, image, tmp_path):
    """Segments the image with the given options; gives the result's labels."""

    def run(*options):
        out = tmp_path / "result.nrrd"
        command = ["segment", str(image), "-m", str(shifted.path), "-o", str(out), "-q"]
        assert main([*command, "--device", "cpu", *options]) == 0
        return read_volume(out).array[0]

    return run


@pytest.fixture
def batch(shifted, image, tmp_path):
    """Segments the cohort with the given options; gives the exit code and the row of volumes."""

    def run(*options):
        out = tmp_path / "out"
        command = ["batch", str(image.parent), "-m", str(shifted.path), "-o", str(out)]
        code = main([*command, "--device", "cpu", *options])
        with open(out / "volumes.csv", newline="") as file:
            (row,) = csv.DictReader(file)
        return code, row

    return run


def test_without_mirroring_the_network_looks_once(segment, batch):
    columns = np.flatnonzero(segment().any(axis=(0, 1)))
    assert columns.tolist() == [5, 6, 7, 8]
    columns = np.flatnonzero(segment("--no-mirroring").any(axis=(0, 1)))
    assert columns.tolist() == [3, 4, 5, 6, 7, 8]
    _, row = batch("--no-mirroring")
    assert float(row["Bright thing (mL)"]) == pytest.approx(3 * 6 * 6 * 2 / 1000)


def test_only_the_structures_that_were_asked_for_are_kept_and_printed(segment, capsys):
    assert segment().any()
    printed = capsys.readouterr().out
    assert "Bright thing  " in printed and "Dark thing  " in printed
    assert not segment("--structures", "5").any()
    printed = capsys.readouterr().out
    assert "Bright thing" not in printed and "0.00 mL" in printed


def test_a_structure_that_was_not_asked_for_has_no_volume_in_the_table(batch):
    code, row = batch("--structures", "5")
    assert code == 0
    assert (row["Bright thing (mL)"], row["Dark thing (mL)"]) == ("", "0.0000")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--structures", "5"), "structures: all, now 5"),
        (("--no-mirroring",), "mirroring: as the model asks, now left out"),
        (("--precision", "bfloat16"), "precision: the fastest, now bfloat16"),
        (("--series", "bone"), "series: by themselves, now bone"),
    ],
)
def test_a_batch_does_not_go_on_with_other_options(batch, options, said, capsys):
    _, before = batch()
    code, after = batch(*options)
    assert (code, after) == (2, before)
    line = capsys.readouterr().err.strip()
    assert said in line and "choose another folder, or remove this one" in line
    assert batch()[0] == 0


def test_options_that_gave_no_result_can_be_corrected(shifted, image, tmp_path, batch):
    out = tmp_path / "out"
    command = ["batch", str(image.parent), "-m", str(shifted.path), "-o", str(out)]
    whole = image.read_bytes()
    image.write_bytes(whole[:50])
    assert main([*command, "--structures", "5"]) == 1
    assert not (out / "volumes.csv").exists()
    image.write_bytes(whole)
    assert batch("--structures", "3")[1]["case"] == "a"


def test_a_device_that_does_not_work_is_said_under_the_case_and_not_named_in_the_table(
    batch, monkeypatch, capsys
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    code, row = batch("--device", "cuda")
    assert code == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "[1/1] a"
    assert re.match(r"    .*cuda.* Trying the next device\.", said[1], re.IGNORECASE)
    assert said[2] == f"    Runs on {row['device']}."
    assert "CPU" in row["device"]


@pytest.mark.parametrize("command", ["segment", "batch"])
def test_a_mistyped_device_is_refused_by_name(command, shifted, image, tmp_path, capsys):
    with pytest.raises(SystemExit) as refused:
        main([command, str(image), "-m", str(shifted.path), "-o", str(tmp_path / "o.nrrd"),
              "--device", "cdua"])  # fmt: skip
    assert refused.value.code == 2
    assert re.search(r"invalid choice: 'cdua' .*openvino", capsys.readouterr().err)


@pytest.mark.parametrize(
    "option, reason",
    [
        (("--structures", "99"), "no structure with label 99"),
        (("--precision", "double"), "'double' is no precision"),
    ],
)
def test_a_batch_with_impossible_options_does_not_begin(
    shifted, image, tmp_path, capsys, option, reason
):
    out = tmp_path / "out"
    assert main(["batch", str(image.parent), "-m", str(shifted.path), "-o", str(out), *option]) == 2
    assert reason in capsys.readouterr().err
    assert not out.exists()
