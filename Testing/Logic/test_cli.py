import errno
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from MIMSegment.Logic import files, inference
from MIMSegment.Logic.cli import main
from MIMSegment.Logic.volume import Geometry, Volume, read_volume, write_volume
from tiny_package import threshold_spec, write_threshold_package

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def image(tmp_path):
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    geometry = Geometry.from_parts((20, 30, 25), (3, 0.7, 0.8), (10, -20, 30), rotation)
    array = np.zeros((1, *geometry.shape), np.int16)
    array[0, 4:12, 5:20, 6:18] = 900
    write_volume(Volume(array, geometry), tmp_path / "image.nrrd")
    return tmp_path / "image.nrrd"


@pytest.mark.parametrize("ending", [".seg.nrrd", ".nrrd", ".nii.gz", ".mha"])
def test_result_is_written_on_the_grid_of_an_oblique_input(
    package, image, tmp_path, ending, capsys
):
    out = tmp_path / f"result{ending}"
    assert main(["segment", str(image), "-m", str(package.path), "-o", str(out), "-q"]) == 0
    source, result = read_volume(image), read_volume(out)
    assert result.geometry.is_close(source.geometry)
    assert np.array_equal(result.array == 3, source.array == 900)
    printed = capsys.readouterr().out
    assert f"{(source.array == 900).sum() * 3 * 0.7 * 0.8 / 1000:.2f} mL" in printed
    assert "Not a medical device" in printed


def test_seg_nrrd_carries_names_colors_codes_and_algorithm(package, image, tmp_path):
    out = tmp_path / "result.seg.nrrd"
    main(["segment", str(image), "-m", str(package.path), "-o", str(out), "-q"])
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(out))
    reader.ReadImageInformation()
    assert reader.GetMetaData("Segment0_Name") == "Bright thing"
    assert reader.GetMetaData("Segment0_LabelValue") == "3"
    assert reader.GetMetaData("Segment0_Extent") == "6 17 5 19 4 11"
    tags = reader.GetMetaData("Segment0_Tags")
    assert "SCT^10200004^Liver" in tags
    assert "DICOM.SegmentAlgorithmType:AUTOMATIC" in tags
    assert "bright-thing 1.2.0" in tags


def failing(arguments, capsys) -> str:
    assert main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("mimsegment: error: ")
    return lines[0]


def test_full_memory_gives_one_line_and_exit_code_2(package, image, tmp_path, capsys, monkeypatch):
    def full(*arguments):
        raise MemoryError

    monkeypatch.setattr("MIMSegment.Logic.inputs.read_study", full)
    arguments = ["segment", str(image), "--model", str(package.path), "-o", str(tmp_path / "o.nii")]
    assert main(arguments) == 2
    assert (
        capsys.readouterr().err == "mimsegment: error: Not enough memory; close other programs.\n"
    )


def test_what_nobody_foresaw_does_not_end_like_a_batch_with_failed_cases(
    package, image, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(inference, "run_package", lambda *arguments: 1 / 0)
    command = ["segment", str(image), "-m", str(package.path), "-o", str(tmp_path / "o.nrrd")]
    assert main(command) == 2
    *trace, last = capsys.readouterr().err.splitlines()
    assert trace[0].startswith("Traceback")
    assert "unforeseen reason (ZeroDivisionError)" in last and "developers" in last


def test_corrupt_packages_give_one_line_and_exit_code_2(package, image, tmp_path, capsys):
    command = ["segment", str(image), "-m", str(package.path), "-o", str(tmp_path / "o.nrrd"), "-q"]
    onnx, metadata = package.path / "models/model.onnx", package.path / "configs/metadata.json"
    whole, described = onnx.read_bytes(), metadata.read_text()
    onnx.write_bytes(whole[: len(whole) // 2])
    assert "checksum" in failing(command, capsys)
    from MIMSegment.Logic.package import sha256

    tampered = json.loads(described)
    tampered["mimsegment"]["checksums"]["models/model.onnx"] = sha256(onnx)
    metadata.write_text(json.dumps(tampered))
    assert "ONNX" in failing(command, capsys)
    onnx.write_bytes(whole)
    metadata.unlink()
    assert "metadata.json" in failing(command, capsys)
    assert not (tmp_path / "o.nrrd").exists()


def test_network_with_other_channels_than_the_metadata_is_refused(image, tmp_path, capsys):
    package = write_threshold_package(tmp_path / "p")
    other = write_threshold_package(tmp_path / "q", threshold_spec(inputs=2))
    metadata = json.loads((package.path / "configs/metadata.json").read_text())
    network = (other.path / "models/model.onnx").read_bytes()
    (package.path / "models/model.onnx").write_bytes(network)
    metadata["mimsegment"]["checksums"]["models/model.onnx"] = other.checksums["models/model.onnx"]
    (package.path / "configs/metadata.json").write_text(json.dumps(metadata))
    line = failing(
        ["segment", str(image), "-m", str(package.path), "-o", str(tmp_path / "o.nrrd"), "-q"],
        capsys,
    )
    assert "takes 2 channels, the metadata says 1" in line


def test_an_ending_in_capitals_is_written_as_it_is_asked_for(package, image, tmp_path):
    output = tmp_path / "RESULT.NII.GZ"
    command = ["segment", str(image), "-m", str(package.path), "-o", str(output), "-q"]
    assert main([*command, "--device", "cpu"]) == 0
    assert read_volume(output).array.any() and output.read_bytes()[:2] == b"\x1f\x8b"


def test_a_result_that_is_open_in_another_program_is_told_before_the_run(
    package, image, tmp_path, capsys, monkeypatch
):
    """As on Windows, where it cannot be replaced then."""
    output, opened = tmp_path / "result.nrrd", Path.open
    output.touch()

    def held(path, mode="r", *arguments, **options):
        if path == output and "+" in mode:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, mode, *arguments, **options)

    monkeypatch.setattr(files, "_WINDOWS", True)
    monkeypatch.setattr(Path, "open", held)
    command = ["segment", str(image), "-m", str(package.path), "-o", str(output), "-q"]
    assert "result.nrrd could not be written: it is open in another" in failing(command, capsys)


@pytest.mark.parametrize("count", ["0", "-3", "two"])
def test_a_number_of_threads_that_cannot_be_is_refused(package, image, count, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["segment", str(image), "-m", str(package.path), "-o", "o.nrrd", "--threads", count])
    assert ended.value.code == 2 and "argument --threads" in capsys.readouterr().err


def test_wrong_paths_are_named_before_any_work_is_done(package, image, tmp_path, capsys):
    model = ["-m", str(package.path), "-q"]
    assert "ending" in failing(["segment", str(image), *model, "-o", "result.txt"], capsys)
    (tmp_path / "folder.nrrd").mkdir()
    folder = ["-o", str(tmp_path / "folder.nrrd")]
    assert "is a folder" in failing(["segment", str(image), *model, *folder], capsys)
    missing = str(tmp_path / "no" / "o.nrrd")
    assert "does not exist" in failing(["segment", str(image), *model, "-o", missing], capsys)
    out = ["-o", str(tmp_path / "o.nrrd")]
    assert "nothing.nii" in failing(["segment", "nothing.nii", *model, *out], capsys)
    assert "2 images for 1 input" in failing(
        ["segment", str(image), str(image), *model, *out], capsys
    )
    assert "~nobody" in failing(["segment", str(image), "-m", "~nobody/model", *out], capsys)
    assert "not an input" in failing(["segment", f"PET={image}", *model, *out], capsys)


def test_inputs_that_barely_overlap_are_refused_with_the_figure(tmp_path, capsys):
    package = write_threshold_package(tmp_path / "package", threshold_spec(inputs=2))
    array = np.random.default_rng(0).integers(0, 900, (1, 10, 18, 18)).astype(np.int16)
    for name, x in (("t2w", 0), ("adc", 14)):  # mm, of 18
        geometry = Geometry.from_parts((10, 18, 18), (2, 1, 1), (x, 0, 0))
        write_volume(Volume(array, geometry), tmp_path / f"{name}.nrrd")
    images = [f"T2w={tmp_path / 't2w.nrrd'}", f"ADC={tmp_path / 'adc.nrrd'}"]
    out = tmp_path / "o.nrrd"
    line = failing(["segment", *images, "-m", str(package.path), "-o", str(out), "-q"], capsys)
    assert re.search(r"adc\.nrrd covers only 2\d % of .*t2w\.nrrd", line), line
    assert not out.exists()


def test_importing_the_command_line_loads_no_heavy_library():
    code = (
        "import sys, MIMSegment.Logic.cli; "
        "heavy = 'torch monai SimpleITK scipy onnxruntime pydicom vtk slicer'.split(); "
        "sys.exit(', '.join(set(heavy) & set(sys.modules)) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_docs_list_all_that_the_runtime_installs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["runtime"]]
    section = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    section = section.partition("## Installing")[2].partition("\n## ")[0].lower()
    names = {re.match(r"[\w-]+", requirement)[0].lower() for requirement in wanted}
    assert names == {"numpy", "scipy", "simpleitk", "pydicom", "onnxruntime"}
    assert not [
        name for name in names if name not in section.replace("onnx runtime", "onnxruntime")
    ]


def test_a_name_that_the_encoding_of_a_log_lacks_stops_nothing(package, image, tmp_path):
    """As in a file that a command's output goes to on Windows."""
    named = image.rename(tmp_path / "影像.nrrd")
    command = [sys.executable, "-m", "MIMSegment.Logic.cli", "info", str(named)]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, timeout=120)
    assert done.returncode == 0 and b"\\u5f71\\u50cf.nrrd" in done.stdout


def test_info_describes_a_package(package, capsys):
    assert main(["info", str(package.path)]) == 0
    assert "Bright thing" in capsys.readouterr().out
