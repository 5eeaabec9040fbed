"""Every file that a user asks for, on a disk that is full or read-only: a sentence and no file."""

import os
import re

import numpy as np
import pytest

from MIMSegment.Logic.cli import main
from MIMSegment.Logic.engine import Segmentation
from MIMSegment.Logic.errors import OutputError
from MIMSegment.Logic.labels import Label
from MIMSegment.Logic.package import write_package
from MIMSegment.Logic.report import write_report, write_table
from MIMSegment.Logic.segmentation_file import write_segmentation
from MIMSegment.Logic.training_case import write_training_case
from MIMSegment.Logic.volume import Geometry, Volume, write_volume
from reviewed_cases import prostate_case
from tiny_package import write_threshold_package

SHAPE = (20, 64, 64)
GRID = Geometry.from_parts(SHAPE, (3, 1, 1))
NOISE = np.random.default_rng(0).integers(0, 200, SHAPE).astype(np.uint8)  # does not compress
TABLE = tuple(Label(value, f"Structure {value}") for value in range(1, 4))


def label_image(path):
    write_segmentation(Segmentation(NOISE, GRID), TABLE, path, "test 1.0")


def scene_module():
    return pytest.importorskip("MIMSegment.Logic.scene", reason="needs slicer-core")


def scene():
    """A scene with an image, and a segmentation in it."""
    mrml = scene_module()
    made = mrml.new_scene()
    node = mrml.add_volume(made, Volume(NOISE[None], GRID), "CT")
    return made, mrml.add_segmentation(made, NOISE % 4, GRID, list(TABLE), "Organs", node)


def save_scene(path):
    made, _ = scene()
    scene_module().save_scene(made, path)


def save_segmentation(path):
    _made, node = scene()  # a node does not keep its scene alive
    scene_module().save_segmentation(node, path)


def save_picture(path):
    scene_module().save_png(np.dstack([NOISE.reshape(256, 320)] * 3), path)


WRITERS = {
    "x.nii": label_image,
    "x.nii.gz": label_image,
    "x.nrrd": label_image,
    "x.mha": label_image,
    "x.seg.nrrd": label_image,
    "image.nii.gz": lambda path: write_volume(Volume(NOISE[None], GRID), path),
    "report.html": lambda path: write_report(prostate_case(), path),
    "scene.mrb": save_scene,
    "scene.seg.nrrd": save_segmentation,
    "picture.png": save_picture,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("old", [None, b"an older result"], ids=["new", "replacing"])
def test_no_half_result_is_left_on_a_full_disk(full_disk, name, old):
    if old is not None:
        (full_disk / name).write_bytes(old)
    before = sorted(os.listdir(full_disk))
    with pytest.raises(OutputError, match=rf"{re.escape(name)} could not .*No space left.*free"):
        WRITERS[name](full_disk / name)
    assert sorted(os.listdir(full_disk)) == before
    assert old is None or (full_disk / name).read_bytes() == old


@pytest.mark.parametrize("name", [*WRITERS, "volumes.csv"])
def test_a_read_only_disk_is_named_with_the_way_out(read_only_disk, name):
    writer = WRITERS.get(name) or (lambda path: write_table(prostate_case(), path))
    with pytest.raises(OutputError, match=rf"{re.escape(name)} could not .*choose a folder that"):
        writer(read_only_disk / name)
    assert os.listdir(read_only_disk) == []


def test_a_case_for_training_comes_whole_or_not_at_all(full_disk, mounted):
    (full_disk / "filling").unlink()
    write_training_case(prostate_case(), full_disk / "reviewed")
    index = (full_disk / "reviewed" / "dataset.json").read_bytes()
    files = sorted(p for p in full_disk.rglob("*") if p.is_file())
    (image,) = (full_disk / "reviewed" / "imagesTr").iterdir()
    free = os.statvfs(full_disk).f_bavail
    for leave in (1, -(-image.stat().st_size // 4096)):  # too few blocks; enough for the image
        (full_disk / "filling").write_bytes(bytes((free - leave) * 4096))
        with pytest.raises(OutputError, match="No space left"):
            write_training_case(prostate_case(), full_disk / "other")
        (full_disk / "filling").unlink()
        left = [p for p in full_disk.rglob("*") if p.is_file() and p.suffix != ".lock"]
        assert sorted(left) == [p for p in files if p.suffix != ".lock"]
    mounted("ro")
    with pytest.raises(OutputError, match=r"dataset\.json could not .*Read-only"):
        write_training_case(prostate_case(), full_disk / "reviewed")
    assert (full_disk / "reviewed" / "dataset.json").read_bytes() == index


@pytest.mark.parametrize("state", ["full_disk", "read_only_disk"])
def test_a_package_comes_whole_or_not_at_all(state, request, tmp_path):
    package = write_threshold_package(tmp_path / "package", delay=100)
    disk = request.getfixturevalue(state)
    before = os.listdir(disk)
    models = {"models/model.onnx": package.model_paths[0]}
    labels = list(package.labels)
    with pytest.raises(OutputError, match=r"copy could not be written: (No space|Read-only)"):
        write_package(disk / "copy", "copy", "Copy", package.spec, labels, models, "", "", {})
    assert os.listdir(disk) == before


# The command line


@pytest.fixture
def image(tmp_path):
    (tmp_path / "cohort").mkdir()
    for name in ("a", "b"):
        write_volume(Volume(NOISE[None].astype(np.int16), GRID), tmp_path / f"cohort/{name}.nrrd")
    return tmp_path / "cohort" / "a.nrrd"


@pytest.mark.parametrize("state", ["full_disk", "read_only_disk"])
@pytest.mark.parametrize("ending", [".nii.gz", ".seg.nrrd"])
def test_segment_says_it_in_one_line(state, ending, request, package, image, capfd):
    disk = request.getfixturevalue(state)
    before = os.listdir(disk)
    out = disk / f"result{ending}"
    command = ["segment", str(image), "-m", str(package.path), "-o", str(out), "-q"]
    assert main([*command, "--device", "cpu"]) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if "mimsegment: error" in line]
    assert len(lines) == 1 and f"result{ending} could not be written" in lines[0]
    assert os.listdir(disk) == before


@pytest.mark.parametrize("state", ["full_disk", "read_only_disk"])
def test_a_batch_stops_and_goes_on_when_there_is_room(state, request, package, image, mounted,
                                                      capfd):  # fmt: skip
    disk = request.getfixturevalue(state)
    out = disk / "out"
    command = ["batch", str(image.parent), "-m", str(package.path), "-o", str(out), "--ending",
               ".nii.gz", "--device", "cpu"]  # fmt: skip
    assert main(command) == 2
    printed = capfd.readouterr()
    assert "could not be written" in printed.err
    assert "b" not in [line.split()[-1] for line in printed.out.splitlines()]
    if state == "full_disk":
        (disk / "filling").unlink()
    mounted("rw,size=2m")
    assert main(command) == 0
    assert "2 done, 0 failed" in capfd.readouterr().out
    assert {p.name for p in out.iterdir() if not p.name.startswith(".batch")} == {
        "a.nii.gz", "b.nii.gz", "batch.json", "volumes.csv", "failures.csv",
    }  # fmt: skip
