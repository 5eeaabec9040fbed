import csv
import errno
import os
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from dicom_writer import noise, write_series
from MIMSegment.Logic import files
from MIMSegment.Logic.batch import run_batch
from MIMSegment.Logic.cli import main
from MIMSegment.Logic.cohort import find_cases
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.inference import InferenceOptions
from MIMSegment.Logic.volume import Geometry, Volume, read_volume, write_volume
from tiny_package import threshold_spec, write_threshold_package

CPU = InferenceOptions(device="cpu", threads=1)


@pytest.fixture
def cohort(tmp_path):
    folder = tmp_path / "cohort"
    folder.mkdir()
    for index in range(3):
        array = np.zeros((1, 10, 18, 18), np.int16)
        array[0, 2:5, 3:9, 3 : 6 + index] = 900
        volume = Volume(array, Geometry.from_parts((10, 18, 18), (2, 1, 1)))
        write_volume(volume, folder / f"patient {index}.nii.gz")
    (folder / "broken.nrrd").write_bytes(b"NRRD0004\n")
    (folder / "notes.txt").write_text("not an image")
    return folder


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_every_case_gets_a_result_and_every_failure_its_reason(package, cohort, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["batch", str(cohort), "-m", str(package.path), "-o", str(out),
                 "--device", "cpu"]) == 1  # fmt: skip
    assert "3 done, 1 failed, 0 were finished before" in capsys.readouterr().out
    volumes = {row["case"]: float(row["Bright thing (mL)"]) for row in rows(out / "volumes.csv")}
    assert volumes == {f"patient {i}": pytest.approx(3 * 6 * (3 + i) * 2 / 1000) for i in range(3)}
    (failure,) = rows(out / "failures.csv")
    assert failure["case"] == "broken" and "broken.nrrd" in failure["reason"]
    assert read_volume(out / "patient 1.seg.nrrd").geometry.shape == (10, 18, 18)


def test_a_batch_says_by_its_status_whether_every_case_is_there(package, cohort, tmp_path):
    command = ["batch", str(cohort), "-m", str(package.path), "-o", str(tmp_path / "out"),
               "--device", "cpu"]  # fmt: skip
    assert [main(command), main(command)] == [1, 1]  # again: the failed one has failed again
    (cohort / "broken.nrrd").unlink()
    assert main(command) == 0
    assert not rows(tmp_path / "out" / "failures.csv")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_shows_how_far_a_case_is(
    package, cohort, tmp_path, capsys, monkeypatch, terminal
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert main(["batch", str(cohort), "-m", str(package.path), "-o", str(tmp_path / "out"),
                 "--device", "cpu"]) == 1  # fmt: skip
    drawn = capsys.readouterr().err.split("\r\033[K")
    if not terminal:
        assert drawn == [""]
        return
    assert {text.partition(":")[0] for text in drawn if text} == {
        f"case {number} of 4" for number in range(1, 5)
    }
    assert any(re.fullmatch(r"case 2 of 4: window (\d+)/\1", text) for text in drawn)
    assert drawn[-1] == ""  # nothing of it stays


def test_a_stopped_batch_goes_on_and_never_repeats_what_is_finished(
    package, cohort, tmp_path, monkeypatch
):
    jobs, out, said = tmp_path / "jobs", tmp_path / "out", []
    jobs.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(jobs))

    def stop_in_the_second(sentence):
        said.append(sentence)
        if "\n".join(said).count("Runs on") == 2:
            raise KeyboardInterrupt

    cases = find_cases(cohort, package.spec)
    with pytest.raises(KeyboardInterrupt):
        run_batch(cases, package, out, CPU, report=stop_in_the_second)
    assert len(rows(out / "volumes.csv")) == 1
    assert not list(jobs.glob("mimsegment*"))
    done, failed, skipped = run_batch(cases, package, out, CPU)
    assert (done, failed, skipped) == (2, 1, 1)
    assert run_batch(cases, package, out, CPU) == (0, 1, 3)
    assert not [p for p in out.iterdir() if p.name.startswith(".mimsegment")]


def test_a_batch_gives_the_file_of_a_single_run(package, cohort, tmp_path):
    run_batch(find_cases(cohort, package.spec)[-1:], package, tmp_path / "out", CPU)
    alone = tmp_path / "alone.seg.nrrd"
    assert main(["segment", str(cohort / "patient 2.nii.gz"), "-m", str(package.path), "-o",
                 str(alone), "-q", "--device", "cpu"]) == 0  # fmt: skip
    assert (tmp_path / "out" / "patient 2.seg.nrrd").read_bytes() == alone.read_bytes()


def test_a_lost_result_is_made_again(package, cohort, tmp_path):
    cases = find_cases(cohort, package.spec)[-2:]
    run_batch(cases, package, tmp_path / "out", CPU)
    (tmp_path / "out" / "patient 1.seg.nrrd").unlink()
    assert run_batch(cases, package, tmp_path / "out", CPU) == (1, 0, 1)


def test_a_case_whose_images_are_others_than_the_last_time_is_done_again(
    package, cohort, tmp_path, capsys
):
    table, out = tmp_path / "table.csv", tmp_path / "out"
    command = ["batch", str(table), "-m", str(package.path), "-o", str(out), "--device", "cpu"]
    taken = []
    for first in ("patient 0", "patient 1"):
        table.write_text(f"case,image\na,cohort/{first}.nii.gz\nb,cohort/patient 2.nii.gz\n")
        assert main(command) == 0
        taken.append({r["case"]: float(r["Bright thing (mL)"]) for r in rows(out / "volumes.csv")})
    assert taken == [
        {"a": pytest.approx(0.108), "b": pytest.approx(0.18)},
        {"a": pytest.approx(0.144), "b": pytest.approx(0.18)},
    ]
    said = capsys.readouterr().out
    assert "Its images are others than the last time." in said
    assert "1 done, 0 failed, 1 were finished before" in said


def test_a_cohort_that_was_moved_is_not_done_again(package, cohort, tmp_path):
    out = tmp_path / "out"
    assert run_batch(find_cases(cohort, package.spec)[-1:], package, out, CPU) == (1, 0, 0)
    moved = cohort.rename(tmp_path / "moved")
    assert run_batch(find_cases(moved, package.spec)[-1:], package, out, CPU) == (0, 0, 1)


def test_a_table_that_is_open_in_another_program_stops_no_batch(
    package, cohort, tmp_path, monkeypatch
):
    """As a spreadsheet holds it open on Windows."""
    replace, said, refused = os.replace, [], []

    def replace_unless_open(source, target):
        if Path(target).name == "volumes.csv" and not refused:
            refused.append(target)
            raise PermissionError(errno.EACCES, "Permission denied", str(target))
        replace(source, target)

    cases, out = find_cases(cohort, package.spec)[2:], tmp_path / "out"
    out.mkdir()
    (out / "volumes.csv").touch()
    monkeypatch.setattr(files, "_WINDOWS", True)
    monkeypatch.setattr(files, "_WAITS", ())
    monkeypatch.setattr(os, "replace", replace_unless_open)
    assert run_batch(cases, package, out, CPU, report=said.append) == (2, 0, 0)
    assert sum("volumes.csv could not be written: it is open" in s for s in said) == 1
    assert [row["case"] for row in rows(out / "volumes.csv")] == [case.name for case in cases]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are in Unicode there")
def test_a_file_name_that_is_not_in_utf_8_stops_no_batch(package, cohort, tmp_path, capsys):
    folder = tmp_path / "other"
    folder.mkdir()
    (cohort / "patient 1.nii.gz").rename(folder / os.fsdecode(b"M\xfcller.nii.gz"))
    command = ["batch", str(folder), "-m", str(package.path), "-o", str(tmp_path / "out"),
               "--device", "cpu"]  # fmt: skip
    assert [main(command), main(command)] == [0, 0]
    assert "0 done, 0 failed, 1 were finished before" in capsys.readouterr().out
    assert b"M\xfcller" in (tmp_path / "out" / "volumes.csv").read_bytes()


def test_a_table_in_another_encoding_is_told_how_to_save_it(tmp_path):
    (tmp_path / "table.csv").write_bytes(b"case,image\nM\xfcller,a.nii\n")
    with pytest.raises(InputError, match="not in UTF-8; save it anew, in Excel as CSV UTF-8"):
        find_cases(tmp_path / "table.csv", threshold_spec())


def test_a_folder_of_dicom_files_is_told_that_each_study_needs_its_own(tmp_path):
    write_series(tmp_path / "cohort", noise())
    with pytest.raises(InputError, match="no sub-folder; give each DICOM study a sub-folder"):
        find_cases(tmp_path / "cohort", threshold_spec())


def test_a_table_that_no_batch_has_written_is_not_replaced(package, cohort, tmp_path, capsys):
    own = tmp_path / "out" / "volumes.csv"
    own.parent.mkdir()
    own.write_text("case,mL\na,1\n")
    command = ["batch", str(cohort), "-m", str(package.path), "-o", str(own.parent)]
    assert main(command) == 2
    assert "holds a volumes.csv that no batch has written" in capsys.readouterr().err
    assert own.read_text() == "case,mL\na,1\n"


def test_tables_of_a_spreadsheet_with_semicolons_are_read(package, cohort, tmp_path, capsys):
    table, out = tmp_path / "table.csv", tmp_path / "out"
    table.write_text("case;image\na;cohort/patient 0.nii.gz\n", encoding="utf-8-sig")
    command = ["batch", str(table), "-m", str(package.path), "-o", str(out), "--device", "cpu"]
    assert main(command) == 0
    volumes = out / "volumes.csv"
    volumes.write_text(volumes.read_text().replace(",", ";"))
    assert main(command) == 0
    assert "0 done, 0 failed, 1 were finished before" in capsys.readouterr().out
    volumes.write_text("name,mL\na,1\n")
    assert main(command) == 2
    assert "volumes.csv has no column 'case' any more" in capsys.readouterr().err


def test_results_of_two_models_never_meet_in_one_table(package, cohort, tmp_path, capsys):
    run_batch(find_cases(cohort, package.spec)[-1:], package, tmp_path / "out", CPU)
    other = write_threshold_package(tmp_path / "other", threshold_spec(patch=(8, 8, 8)), delay=1)
    assert main(["batch", str(cohort), "-m", str(other.path), "-o", str(tmp_path / "out")]) == 2
    assert "another model" in capsys.readouterr().err


def test_findings_are_in_the_table_and_alerts_are_said_but_an_empty_image_fails(tmp_path, capsys):
    """Each image is checked with its own header, as on the command line."""
    package = write_threshold_package(tmp_path / "package", phantom=True)
    kinds = {"scan": {"SeriesDescription": "Thorax"}, "empty": {"SeriesDescription": "Thorax"}}
    for name, tags in kinds.items():
        array = noise(high=900) if name == "scan" else np.zeros((5, 6, 7), np.int16)
        write_series(tmp_path / "cohort" / name, array, modality="CT", tags=tags)
    out = tmp_path / "out"
    assert main(["batch", str(tmp_path / "cohort"), "-m", str(package.path), "-o", str(out),
                 "--device", "cpu"]) == 1  # fmt: skip
    (scan,) = rows(out / "volumes.csv")
    assert scan["case"] == "scan" and scan["gravest"] == "alert"
    assert "alert: Bright thing was trained on digital phantoms" in scan["findings"]
    assert "scan from a scanner" in scan["findings"]
    assert "    alert: Bright thing was trained" in capsys.readouterr().out
    (empty,) = rows(out / "failures.csv")
    assert empty["case"] == "empty" and empty["reason"].startswith("CT is empty: every voxel of ")


def test_the_series_of_every_case_can_be_chosen(package, tmp_path):
    for case, number in (("a", 4), ("b", 7)):
        for name in ("soft", "bone"):
            array = np.full((6, 20, 20), -1000, np.int16)
            array[:3, :number, :10] = 900 if name == "bone" else -1000
            write_series(tmp_path / "cohort" / case / name, array, modality="CT",
                         spacing=(1, 1, 1), tags={"SeriesDescription": name})  # fmt: skip
    out = tmp_path / "out"
    command = ["batch", str(tmp_path / "cohort"), "-m", str(package.path), "-o", str(out)]
    assert main([*command, "--device", "cpu", "--series", "bone"]) == 0
    volumes = {row["case"]: float(row["Bright thing (mL)"]) for row in rows(out / "volumes.csv")}
    assert volumes == {"a": pytest.approx(0.12), "b": pytest.approx(0.21)}
    taken = {row["inputs"] for row in rows(out / "volumes.csv")}
    assert len(taken) == 1 and taken.pop().startswith("CT: bone, CT, axial, 6 slices")


def test_a_table_names_the_inputs_of_each_case(tmp_path, cohort):
    spec = threshold_spec(inputs=2)
    table = tmp_path / "cohort.csv"
    table.write_text("case,T2w,ADC\nfirst,cohort/patient 0.nii.gz,cohort/patient 1.nii.gz\n")
    (case,) = find_cases(table, spec)
    assert case.inputs == (
        f"T2w={cohort / 'patient 0.nii.gz'}",
        f"ADC={cohort / 'patient 1.nii.gz'}",
    )
    for text, word in (
        ("case,T2w\nfirst,a.nii\n", "'ADC' is missing"),
        ("T2w,ADC\na.nii,b.nii\n", "'case'"),
        ("case,image\n../up,a.nii\n", "file name"),
        ("case,image\nP1:left,a.nii\n", "file name on every system: it has a character"),
        ("case,image\nCON,a.nii\n", "is the name of a device"),
        ("case,image\nx,a.nii\nx,b.nii\n", "several cases"),
        ("case,image\n", "no case: it has no line"),
    ):
        table.write_text(text)
        with pytest.raises(InputError, match=word):
            find_cases(table, spec)
