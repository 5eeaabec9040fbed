"""``mimsegment scene``: a study and its result as a scene on disk."""

import numpy as np
import pytest

from MIMSegment.Logic.cli import main
from MIMSegment.Logic.volume import Geometry, Volume, write_volume
from tiny_package import write_threshold_package

pytest.importorskip("slicer", reason="needs slicer-core")


@pytest.fixture
def command(tmp_path):
    package = write_threshold_package(tmp_path / "package")
    geometry = Geometry.from_parts((12, 20, 18), (3, 1, 1), (5, -10, 20))
    array = np.zeros((1, *geometry.shape), np.int16)
    array[0, 3:8, 5:14, 4:12] = 900
    write_volume(Volume(array, geometry), tmp_path / "image.nrrd")
    labels = np.where(array == 900, 3, 0).astype(np.uint8)
    write_volume(Volume(labels, geometry), tmp_path / "labels.nrrd")
    return ["scene", str(tmp_path / "image.nrrd"), "-s", str(tmp_path / "labels.nrrd"),
            "-m", str(package.path), "-o", str(tmp_path / "scene.mrb")]  # fmt: skip


def test_the_folder_of_the_pictures_is_made(command, tmp_path, capsys):
    pictures = tmp_path / "new" / "pictures"
    assert main([*command, "--pictures", str(pictures)]) == 0
    assert sorted(p.name for p in pictures.iterdir()) == ["slices.png", "surfaces.png"]
    assert (tmp_path / "scene.mrb").is_file()
    printed = capsys.readouterr().out
    assert str(pictures / "slices.png") in printed
    assert f"CT: {tmp_path / 'image.nrrd'}" in printed


def test_pictures_that_cannot_be_written_are_told_before_a_scene_is(command, tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    assert main([*command, "--pictures", str(tmp_path / "file" / "pictures")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert str(tmp_path / "file" / "pictures") in line
    assert not (tmp_path / "scene.mrb").exists()
