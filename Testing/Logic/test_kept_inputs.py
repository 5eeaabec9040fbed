"""No result takes the place of an image that it is made from, nor becomes a case itself."""

import os
import unicodedata

import numpy as np
import pytest

from dicom_writer import noise, write_series
from MIMSegment.Logic.candidates import find_candidates
from MIMSegment.Logic.cli import main
from MIMSegment.Logic.cohort import find_cases
from MIMSegment.Logic.errors import InputError, OutputError
from MIMSegment.Logic.inputs import read_images
from MIMSegment.Logic.volume import Geometry, Volume, write_volume
from tiny_package import threshold_spec


def image(path):
    path.parent.mkdir(exist_ok=True)
    array = np.zeros((1, 10, 18, 18), np.int16)
    array[0, 2:5, 3:9, 3:6] = 900
    write_volume(Volume(array, Geometry.from_parts((10, 18, 18), (2, 1, 1))), path)
    return path


def refused(arguments, capsys) -> str:
    """The one line about it, when nothing was written before."""
    assert main([str(argument) for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


@pytest.mark.parametrize("spelling", ["{}", "CT={}", "{}#1"])
def test_segment_refuses_to_replace_its_input(package, tmp_path, capsys, spelling):
    scan = image(tmp_path / "scans" / "scan.nii.gz")
    before = scan.read_bytes()
    line = refused(["segment", spelling.format(scan), "-m", package.path, "-o", scan], capsys)
    assert f"{scan} is one of the inputs" in line and "another name" in line
    assert scan.read_bytes() == before


def test_an_input_is_known_by_another_path_and_in_its_folder(package, tmp_path, capsys):
    scan = image(tmp_path / "scans" / "scan.nii.gz")
    os.link(scan, tmp_path / "link.nii.gz")
    elsewhere = tmp_path / "scans" / ".." / "scans" / "scan.nii.gz"
    for given, output, reason in (
        (scan, tmp_path / "link.nii.gz", "is one of the inputs"),
        (scan, elsewhere, "is one of the inputs"),
        (scan.parent, scan, "lies in the input folder"),
    ):
        line = refused(["segment", given, "-m", package.path, "-o", output], capsys)
        assert f"{output} {reason}" in line


def test_a_folder_that_is_an_input_gets_no_result_the_first_time_nor_the_second(
    package, tmp_path, capsys
):
    scan = image(tmp_path / "scans" / "scan.nii.gz")
    output = scan.with_name("result.nrrd")
    command = ["segment", scan.parent, "-m", package.path, "-o", output, "--device", "cpu"]
    line = refused(command, capsys)
    assert f"{output} lies in the input folder" in line and "or the ending .seg.nrrd" in line
    command[1] = scan  # beside a file it may lie, also again
    assert [main([str(argument) for argument in command]) for _ in range(2)] == [0, 0]
    command[1] = scan.parent
    capsys.readouterr()
    assert f"{output} lies in the input folder" in refused(command, capsys)


def test_a_segmentation_may_lie_in_the_folder_of_its_images(package, tmp_path, capsys):
    scan = image(tmp_path / "scans" / "scan.nii.gz")
    write_series(tmp_path / "dicom", noise(high=900), modality="CT")
    for folder in (scan.parent, tmp_path / "dicom"):
        output = folder / "Result.SEG.nrrd"
        command = ["segment", folder, "-m", package.path, "-o", output, "--device", "cpu"]
        assert [main([str(argument) for argument in command]) for _ in range(2)] == [0, 0]
        (found,) = find_candidates([folder])
        assert found.path != output
    assert [case.name for case in find_cases(scan.parent, package.spec)] == ["scan"]
    assert read_images([str(output)], package.spec)[0]  # where it is meant, it is an image


def test_a_scene_refuses_to_replace_its_image_and_its_segmentation(package, tmp_path, capsys):
    scan, labels = image(tmp_path / "scan.nrrd"), image(tmp_path / "labels.nrrd")
    for output in (scan, labels):
        command = ["scene", scan, "-s", labels, "-m", package.path, "-o", output]
        assert f"{output} is one of the inputs" in refused(command, capsys)


def test_a_batch_refuses_the_folder_of_the_cohort(package, tmp_path, capsys):
    scan = image(tmp_path / "scans" / "a.nii.gz")
    before = scan.read_bytes()
    command = ["batch", scan.parent, "-m", package.path, "-o", scan.parent, "--ending", ".nii.gz"]
    assert "choose another one for the results" in refused(command, capsys)
    assert [p.name for p in scan.parent.iterdir()] == ["a.nii.gz"]
    assert scan.read_bytes() == before


def test_a_batch_of_a_table_refuses_results_in_the_place_of_any_input(package, tmp_path, capsys):
    image(tmp_path / "scans" / "a.nii.gz")
    scan = image(tmp_path / "scans" / "b.nii.gz")
    table = tmp_path / "table.csv"
    table.write_text("case,image\nb,scans/a.nii.gz\nc,scans/b.nii.gz\n")
    command = ["batch", table, "-m", package.path, "--ending", ".nii.gz", "-o"]
    assert f"{scan} is one of the inputs" in refused([*command, scan.parent], capsys)
    table.write_text("case,image\nc,scans\n")
    assert f"{scan.parent} is one of the inputs" in refused([*command, scan.parent], capsys)
    assert len(list(scan.parent.iterdir())) == 2


@pytest.mark.parametrize("name", ["volumes.csv", "failures.csv"])
def test_the_table_of_the_cases_is_not_replaced_by_that_of_the_results(tmp_path, name):
    (tmp_path / name).write_text("case,image\na,a.nii.gz\n")
    with pytest.raises(OutputError, match="would be replaced"):
        find_cases(tmp_path / name, threshold_spec(), tmp_path)
    assert len(find_cases(tmp_path / name, threshold_spec(), tmp_path / "out")) == 1


def test_results_inside_the_cohort_are_no_cases_when_it_goes_on(package, tmp_path, capsys):
    cohort = image(tmp_path / "cohort" / "a.nii.gz").parent
    command = ["batch", str(cohort), "-m", str(package.path), "--device", "cpu", "-o"]
    (cohort / "out").mkdir()
    assert main([*command, str(cohort / "out")]) == 0
    image(cohort / "b.nii.gz")
    assert main([*command, str(cohort / "out")]) == 0
    assert "1 done, 0 failed, 1 were finished before" in capsys.readouterr().out
    cases = find_cases(cohort, package.spec, cohort / "other")
    assert [case.name for case in cases] == ["a", "b"]


def test_a_case_that_cannot_be_read_fails_alone_when_a_batch_goes_on(package, tmp_path, capsys):
    cohort = image(tmp_path / "cohort" / "P2.nii.gz").parent
    (cohort / "P1.nii.gz").symlink_to(tmp_path / "nowhere.nii.gz")
    command = ["batch", str(cohort), "-m", str(package.path), "--device", "cpu", "-o"]
    (tmp_path / "out").mkdir()
    assert main([*command, str(tmp_path / "out")]) == 1
    assert "1 done, 1 failed" in capsys.readouterr().out


@pytest.mark.skipif(os.name == "nt", reason="needs permissions of folders")
def test_a_folder_that_may_not_be_looked_into_is_a_case(tmp_path, monkeypatch):
    (tmp_path / "P1").mkdir(mode=0)
    image(tmp_path / "P2.nii.gz")
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # whose parents may be root's alone
    user = os.geteuid()
    if user == 0:  # may look into everything
        os.seteuid(65534)
    try:
        cases = find_cases(".", threshold_spec(), "out")
    finally:
        os.seteuid(user)
    assert [case.name for case in cases] == ["P1", "P2"]


def test_a_patients_folder_is_not_taken_for_that_of_the_results(package, tmp_path, capsys):
    cohort = tmp_path / "cohort"
    for name in ("P1", "P2"):
        write_series(cohort / name, noise(), modality="CT")
    line = refused(["batch", cohort, "-m", package.path, "-o", cohort / "P1"], capsys)
    assert f"{cohort / 'P1'} is one of the inputs" in line
    assert not (cohort / "P1" / "batch.json").exists()


@pytest.mark.parametrize(
    "names", [("P1a", "P1A"), ("Müller", unicodedata.normalize("NFD", "MÜLLER")), ("x", "x")]
)
def test_names_that_are_one_on_some_disks_are_refused(tmp_path, names):
    table = tmp_path / "table.csv"
    table.write_text("case,image\n" + "".join(f"{n},{i}.nii\n" for i, n in enumerate(names)))
    with pytest.raises(InputError, match="would have one name on some disks") as caught:
        find_cases(table, threshold_spec())
    assert all(repr(name) in str(caught.value) for name in names)
