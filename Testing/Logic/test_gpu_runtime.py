"""Private runtimes are installed by the real pip from wheels made here; never from the network."""

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from MIMSegment.Logic import gpu_runtime, runtime_command
from MIMSegment.Logic.errors import Cancelled, DeviceError, OutputError
from MIMSegment.Logic.gpu_runtime import (
    Gpu,
    Requirement,
    install,
    installed,
    remove,
    runtime_for,
    worker_environment,
)
from MIMSegment.Logic.pip_install import _Report

NUMPY = importlib.metadata.version("numpy")
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="shell scripts")
WANTED = Requirement(
    "ort-cu13", "cuda", ("onnxruntime-gpu[cuda,cudnn]>=1.27",), 10_000, 20_000, "A test."
)


def write_wheel(folder: Path, name: str, version: str, files: dict[str, str], *metadata) -> Path:
    """A wheel of pure Python."""
    folder.mkdir(exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    information = {
        "METADATA": "\n".join(
            ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *metadata, ""]
        ),
        "WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    content = files | {f"{stem}.dist-info/{key}": text for key, text in information.items()}
    record = f"{stem}.dist-info/RECORD"
    content[record] = "".join(f"{path},,\n" for path in [*content, record])
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in content.items():
            archive.writestr(inside, text)
    return path


@pytest.fixture
def wheels(tmp_path):
    """A package index on the disk, with what onnxruntime-gpu asks for."""
    folder = tmp_path / "wheels"
    write_wheel(
        folder, "onnxruntime-gpu", "1.31.1", {"onnxruntime/__init__.py": "private = True\n"},
        "Requires-Dist: numpy>=1.21", "Provides-Extra: cuda", "Provides-Extra: cudnn",
        'Requires-Dist: nvidia-cudnn; extra == "cudnn"',
    )  # fmt: skip
    write_wheel(folder, "nvidia-cudnn", "9.1", {"nvidia/cudnn/lib.txt": "x" * 5000})
    for version in (NUMPY, "99.0"):
        write_wheel(folder, "numpy", version, {"numpy/__init__.py": "private = True\n"})
    return folder


@pytest.fixture
def pip(wheels):
    """What makes pip see nothing but those wheels."""
    return {
        "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull,
    }  # fmt: skip


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MIMSEGMENT_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "runtimes"


def put(root: Path, name: str, device: str, size: int = 0, **more: str) -> Path:
    """A runtime without pip."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "library.so").write_bytes(bytes(size))
    record = {"device": device, "packages": {"onnxruntime-gpu": "1.31.1"}, **more}
    (folder / "runtime.json").write_text(json.dumps(record))
    return folder


def leftovers(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.name != ".lock")


def test_installed_runtime_is_seen_by_workers_alone(root, pip):
    heard = []
    runtime = install(WANTED, lambda done, message: heard.append(message), env=pip)
    assert runtime.path == root / "ort-cu13"
    assert runtime.packages == {"nvidia-cudnn": "9.1", "onnxruntime-gpu": "1.31.1"}
    assert 5000 < runtime.size_bytes < 20_000
    assert "Unpacking" in heard
    assert leftovers(root) == ["ort-cu13"]
    code = "import numpy, onnxruntime; print(onnxruntime.__file__); print(numpy.__file__)"
    env = {**os.environ, **worker_environment("ort-cu13")}
    library, numpy = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    ).stdout.split()
    assert Path(library).parent == runtime.path / "onnxruntime"
    assert not Path(numpy).is_relative_to(root)  # workers keep the numpy of Slicer


def test_installing_again_replaces_the_runtime(root, pip, wheels):
    (put(root, "ort-cu13", "cuda") / "stale").touch()
    (root / ".unfinished-killed").mkdir()
    install(WANTED, env=pip)
    assert not (root / "ort-cu13" / "stale").exists()
    assert leftovers(root) == ["ort-cu13"]


def test_failed_installation_leaves_the_old_runtime_and_gives_pips_reason(root, pip, wheels):
    put(root, "ort-cu13", "cuda", size=77)
    shutil.rmtree(wheels)
    with pytest.raises(DeviceError, match=r"could not install onnxruntime-gpu.*No matching"):
        install(WANTED, env=pip)
    assert (root / "ort-cu13" / "library.so").stat().st_size == 77
    assert leftovers(root) == ["ort-cu13"]


def test_source_packages_are_never_built(root, pip, wheels):
    (wheels / "onnxruntime_gpu-1.31.1-py3-none-any.whl").unlink()
    (wheels / "onnxruntime_gpu-1.31.1.tar.gz").write_bytes(b"setup.py")
    with pytest.raises(DeviceError, match="No matching distribution"):
        install(WANTED, env=pip)


def test_installation_can_be_cancelled(root, pip):
    calls = []

    def cancelled():
        calls.append(None)
        return len(calls) > 3

    with pytest.raises(Cancelled):
        install(WANTED, cancelled=cancelled, env=pip)
    assert leftovers(root) == []


def test_full_disk_is_noticed_before_anything_is_downloaded(root, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12, 29_000))
    with pytest.raises(OutputError, match="ort-cu13 needs 30 kB"):
        install(WANTED, python="/no/such/python")
    assert not root.exists()


@pytest.mark.parametrize("size", ["1m", "4k"])  # of 4 kB not even pip's reason can be written
def test_a_disk_that_fills_up_meanwhile_is_named(mounted, wheels, pip, size):
    content = {f"onnxruntime/{n}.py": "x" * 4096 for n in range(500)}
    write_wheel(wheels, "onnxruntime-gpu", "1.31.1", content)
    little = dataclasses.replace(WANTED, download_bytes=0, installed_bytes=0)
    disk = mounted(f"size={size}")
    with pytest.raises(OutputError, match=rf"No space left on the disk of {disk}; free some"):
        install(little, root=disk, env=pip)
    assert leftovers(disk) == []


def test_folder_that_cannot_be_written_is_named(root, pip):
    root.parent.mkdir()
    root.write_text("a file")
    with pytest.raises(OutputError, match=r"runtimes.ort-cu13 could not be written"):
        install(WANTED, env=pip)


def test_interpreter_without_pip_is_named(root, tmp_path):
    (tmp_path / "pip.py").write_text("raise ImportError('No module named pip')")
    with pytest.raises(DeviceError, match=r"has no pip; install it with .* -m ensurepip"):
        install(WANTED, env={"PYTHONPATH": str(tmp_path)})
    with pytest.raises(DeviceError, match="/no/such/python could not be started"):
        install(WANTED, python="/no/such/python")


def test_bytes_of_all_downloads_are_added_up():
    heard = []
    report = _Report(lambda done, message: heard.append((done, message)))
    for line in (
        "Collecting onnxruntime-gpu",
        "Downloading onnxruntime_gpu.whl (256 MB)",
        "Progress 100 of 256",
        "Progress 256 of 256",
        "Downloading cudnn.whl (500 MB)",
        "Progress 44 of 500",
        "Installing collected packages: cudnn, onnxruntime-gpu",
    ):
        report.hear(line)
    assert heard == [
        (0, "Downloading onnxruntime_gpu.whl"), (100, "Downloading onnxruntime_gpu.whl"),
        (256, "Downloading onnxruntime_gpu.whl"), (256, "Downloading cudnn.whl"),
        (300, "Downloading cudnn.whl"), (300, "Unpacking"),
    ]  # fmt: skip


def test_removed_runtime_is_gone(root):
    put(root, "ort-cu13", "cuda", size=1000)
    put(root, "openvino", "openvino")
    assert remove("ort-cu13") > 1000
    assert leftovers(root) == ["openvino"]
    assert [runtime.name for runtime in installed()] == ["openvino"]


@pytest.mark.parametrize("record", ["", "[]", "{}", "{", '{"device": "cuda"}'])
def test_a_damaged_runtime_is_as_good_as_none(root, record):
    put(root, "openvino", "openvino")
    (put(root, "ort-cu13", "cuda") / "runtime.json").write_text(record)
    assert [runtime.name for runtime in installed()] == ["openvino"]


@pytest.mark.parametrize("name", ["ort-cu13", "..", "../runtimes", "", "."])
def test_only_an_installed_runtime_can_be_removed_or_used(root, name):
    put(root, "openvino", "openvino")
    with pytest.raises(DeviceError, match="installed: openvino"):
        remove(name)
    with pytest.raises(DeviceError, match="There is no installed runtime"):
        worker_environment(name)
    assert leftovers(root) == ["openvino"]


def test_newest_cuda_runtime_is_the_one_for_cuda(root):
    assert runtime_for("cuda") is None
    put(root, "ort-cu12", "cuda")
    put(root, "ort-cu13", "cuda")
    assert runtime_for("cuda") == "ort-cu13"
    assert runtime_for("openvino") is None


def test_a_runtime_of_another_python_is_not_used_and_said_to_be_none(root, run_command, capsys):
    """It would hide the library that works, also where the processor is the last resort."""
    put(root, "ort-cu13", "cuda", python="3.9")
    assert runtime_for("cuda") is None and gpu_runtime.runtimes_for("auto") == ()
    run_command("list")
    assert "not used: for Python 3.9, install it again" in capsys.readouterr().out
    put(root, "ort-cu12", "cuda", python=f"{sys.version_info.major}.{sys.version_info.minor}")
    assert gpu_runtime.runtimes_for("auto") == ("ort-cu12",)


def test_runtimes_come_before_all_else_in_the_order_given(root, monkeypatch):
    first, second = put(root, "openvino", "openvino"), put(root, "ort-cu13", "cuda")
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    found = worker_environment("ort-cu13", "openvino")["PYTHONPATH"]
    assert found == os.pathsep.join([str(second), str(first), "elsewhere"])
    assert worker_environment() == {}


@pytest.mark.parametrize(
    ("device", "names"),
    [
        ("auto", ("ort-cu13", "openvino")),
        ("cuda", ("ort-cu13", "openvino")),
        ("directml", ("ort-directml", "openvino")),
        ("openvino", ("openvino",)),
        ("cpu", ()),
    ],
)
def test_process_gets_the_runtimes_of_its_device_and_of_what_it_falls_back_to(root, device, names):
    assert gpu_runtime.runtimes_for(device) == ()
    put(root, "openvino", "openvino")
    put(root, "ort-directml", "directml")
    put(root, "ort-cu13", "cuda")
    assert gpu_runtime.runtimes_for(device) == names


def test_program_without_a_worker_sees_an_activated_runtime(root, monkeypatch):
    folder = put(root, "openvino", "openvino")
    (folder / "only_in_this_runtime.py").touch()
    monkeypatch.setattr(sys, "path", list(sys.path))
    gpu_runtime.activate("openvino")
    found = importlib.util.find_spec("only_in_this_runtime")
    assert Path(found.origin).parent == folder


@pytest.fixture
def run_command(root):
    def run(*arguments: str) -> None:
        parser = argparse.ArgumentParser()
        runtime_command.add_arguments(parser.add_subparsers())
        parsed = parser.parse_args(["runtime", *arguments])
        parsed.run(parsed)

    return run


def test_commands_list_and_remove(run_command, root, capsys):
    run_command("list")
    assert "No runtime is installed in" in capsys.readouterr().out
    put(root, "ort-cu13", "cuda", size=2_000_000)
    run_command("list")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split() == [
        "ort-cu13", "2", "MB", "onnxruntime-gpu", "1.31.1", str(root / "ort-cu13"),
    ]  # fmt: skip
    run_command("remove", "ort-cu13")
    assert "2 MB are free again" in capsys.readouterr().out
    assert leftovers(root) == []


def test_command_says_the_size_and_tries_what_it_installed(
    run_command, root, pip, capsys, monkeypatch
):
    for key, value in pip.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(gpu_runtime, "nvidia_gpu", lambda: Gpu("NVIDIA T4", 1, "580.1"))
    monkeypatch.setattr(gpu_runtime, "check_free_space", lambda *arguments: None)
    run_command("install", "cuda")
    out = capsys.readouterr().out
    assert "driver 580.1 runs CUDA 13. Downloading about 1.6 GB" in out
    assert "Installed ort-cu13" in out
    assert "NVIDIA GPU (CUDA)  no" in out  # the wheel of this test is no real library
