"""Which GPU is there, and which runtime fits it."""

import os
import stat
import sys
from pathlib import Path

import pytest

from MIMSegment.Logic import gpu_runtime
from MIMSegment.Logic.errors import DeviceError
from MIMSegment.Logic.gpu_runtime import Gpu, plan, requirement

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="shell scripts")


@pytest.mark.parametrize(
    ("driver", "name", "package"),
    [
        ("580.65.06", "ort-cu13", "onnxruntime-gpu[cuda,cudnn]>=1.27"),
        ("595.10", "ort-cu13", "onnxruntime-gpu[cuda,cudnn]>=1.27"),
        ("579.99", "ort-cu12", "onnxruntime-gpu[cuda,cudnn]>=1.24,<1.27"),
        ("525.60.13", "ort-cu12", "onnxruntime-gpu[cuda,cudnn]>=1.24,<1.27"),
    ],
)
@pytest.mark.parametrize("platform", ["linux", "win32"])
def test_driver_decides_the_cuda_version(driver, name, package, platform):
    planned = plan(driver, platform)
    assert (planned.name, planned.device, planned.packages) == (name, "cuda", (package,))
    assert driver in planned.explanation
    assert planned.installed_bytes > planned.download_bytes > 10**9


@pytest.mark.parametrize(
    ("driver", "platform", "says"),
    [
        ("470.82.01", "linux", "470.82.01 is too old .* update it to 580"),
        ("[N/A]", "linux", "too old"),
        (None, "linux", "No NVIDIA driver was found.*openvino"),
        (None, "darwin", "CoreML comes with ONNX Runtime"),
    ],
)
def test_where_no_gpu_runtime_fits_the_way_out_is_said(driver, platform, says):
    with pytest.raises(DeviceError, match=says):
        plan(driver, platform)


def test_other_gpus_on_windows_get_directml():
    planned = plan(None, "win32")
    assert planned.device == "directml" and planned.download_bytes < 10**8
    with pytest.raises(DeviceError, match="Windows only"):
        requirement("directml", platform="linux")


def test_openvino_comes_without_what_reports_to_its_makers():
    assert "--no-deps" in requirement("openvino").options


def test_runtime_for_an_unknown_device_is_refused():
    with pytest.raises(DeviceError, match="'tpu'; choose one of: cuda, directml, openvino"):
        requirement("tpu")


def fake_nvidia_smi(folder: Path, monkeypatch, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@POSIX
def test_gpu_is_what_the_driver_says(tmp_path, monkeypatch):
    fake_nvidia_smi(
        tmp_path, monkeypatch,
        "echo 'NVIDIA H200, 143771, 580.65.06'; echo 'NVIDIA T4, 15360, 580.65.06'",
    )  # fmt: skip
    assert gpu_runtime.nvidia_gpu() == Gpu("NVIDIA H200", 143771 * 2**20, "580.65.06")
    assert gpu_runtime.driver_version() == "580.65.06"


@POSIX
@pytest.mark.parametrize(
    "script", ["echo 'NVIDIA-SMI has failed'; exit 9", "echo nonsense", "exit 0"]
)
def test_driver_that_does_not_answer_is_no_driver(tmp_path, monkeypatch, script):
    fake_nvidia_smi(tmp_path, monkeypatch, script)
    assert gpu_runtime.driver_version() is None


def test_computer_without_the_driver_has_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_runtime.nvidia_gpu() is None
