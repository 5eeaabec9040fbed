"""Every device is tried in a real child process; what breaks it is a module put before the real."""

import argparse
import io
import json
import runpy
import sys
import textwrap
from pathlib import Path

import pytest

from MIMSegment.Logic import devices, gpu_runtime, runtime
from MIMSegment.Logic.device_probe import PROBE_MODEL
from MIMSegment.Logic.device_report import (
    DEVICES,
    Choice,
    DeviceReport,
    choose,
    print_choice,
    print_report,
)
from MIMSegment.Logic.errors import DeviceError
from MIMSegment.Logic.gpu_runtime import Gpu

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals")

# Enough of ONNX Runtime to open a session and to return zeros.
FAKE = """
import types
import numpy as np

__version__ = "9.9.9"
value = types.SimpleNamespace(name="x", type="tensor(float)", shape=[1, 1, 48, 48, 48])
PROVIDERS = ["CPUExecutionProvider"]
USED = ["CPUExecutionProvider"]

class SessionOptions:
    def add_session_config_entry(self, key, value): pass

class RunOptions: pass

class InferenceSession:
    def __init__(self, *args, **kwargs): pass
    def get_providers(self): return USED
    def get_inputs(self): return [value]
    def get_outputs(self): return [value]
    def run(self, names, values, options): return [np.zeros((1, 3, 48, 48, 48), np.float32)]

def get_available_providers(): return PROVIDERS
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """No runtime of the user's own."""
    monkeypatch.setenv("MIMSEGMENT_HOME", str(tmp_path / "home"))


@pytest.fixture
def gpu(monkeypatch):
    found = Gpu("NVIDIA H200", 150_000_000_000, "580.65.06")
    monkeypatch.setattr(gpu_runtime, "nvidia_gpu", lambda: found)
    return found


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(gpu_runtime, "nvidia_gpu", lambda: None)


@pytest.fixture
def instead(tmp_path):
    """The environment of a child for which a module has the given source."""

    def make(source: str, module: str = "onnxruntime") -> dict[str, str]:
        folder = tmp_path / "modules"
        folder.mkdir(exist_ok=True)
        (folder / f"{module}.py").write_text(textwrap.dedent(source))
        return {"PYTHONPATH": str(folder)}

    return make


def probe_one(device: str = "cpu", **arguments) -> DeviceReport:
    (report,) = devices.probe([device], **arguments)
    return report


def works(device: str, seconds: float, *precisions: str, **fields) -> DeviceReport:
    precisions = precisions or ("float32",)
    return DeviceReport(
        device, True, description="It", precision=precisions[0], precisions=precisions,
        seconds=seconds, **fields,
    )  # fmt: skip


OPENVINO = works("openvino", 0.1, "bfloat16", "float32")
CPU = works("cpu", 0.4, memory_bytes=16_000_000_000)
BROKEN_CUDA = DeviceReport("cuda", False, "Its driver is too old.", hardware="NVIDIA T4")
NO_CUDA = DeviceReport("cuda", False, "No NVIDIA driver was found.")


def test_cpu_works_and_its_time_is_measured():
    report = probe_one("cpu")
    assert report.works and report.reason == ""
    assert 0 < report.seconds < 60
    assert report.precision == "float32" and report.precisions == ("float32",)
    assert report.description.startswith("ONNX Runtime ")
    assert report.runtime is None
    assert report.memory_bytes is None or report.memory_bytes > 10**8


def test_openvino_reports_the_precisions_that_can_be_asked_for():
    pytest.importorskip("openvino")
    report = probe_one("openvino")
    assert report.works and report.precision in report.precisions
    assert "float32" in report.precisions


def test_all_devices_are_tried_in_turn(no_gpu):
    shown = []
    reports = devices.probe(show=shown.append)
    assert [r.device for r in reports] == list(DEVICES)
    assert shown == [r.title for r in reports]
    assert all(r.works == (r.reason == "") for r in reports)
    assert next(r for r in reports if r.device == "cpu").works


def test_device_of_another_system_is_not_tried(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    reports = devices.probe(["directml", "coreml"], python="/no/such/python")
    assert [r.reason for r in reports] == [
        "It exists on Windows only.", "It exists on macOS only.",
    ]  # fmt: skip


def test_missing_library_is_a_reason_with_the_way_to_install_it(instead):
    env = instead("raise ModuleNotFoundError('gone', name='onnxruntime')")
    report = probe_one(env=env)
    assert not report.works
    assert report.reason == (
        "ONNX Runtime is not installed; install it with `pip install onnxruntime`."
    )


@POSIX
def test_crash_of_the_library_is_a_reason(instead):
    report = probe_one(env=instead("import os; os.abort()"))
    assert not report.works
    assert "aborted (SIGABRT)" in report.reason and report.reason.endswith(".")


def test_end_without_a_word_is_a_reason(instead):
    report = probe_one(env=instead("import sys; sys.exit('the license has run out')"))
    assert not report.works and "the license has run out" in report.reason


def test_library_that_hangs_is_given_up(instead):
    report = probe_one(env=instead("import time; time.sleep(600)"), timeout=1)
    assert not report.works and "did not answer within 1 s" in report.reason


def test_interpreter_that_cannot_be_started_is_a_reason():
    report = probe_one(python="/no/such/python")
    assert not report.works and "/no/such/python could not be started" in report.reason


def test_what_a_library_prints_does_not_disturb(instead):
    report = probe_one(env=instead(f"print('Hello')\n{FAKE}\nprint('{{}}')"))
    assert "wrong results" in report.reason


def test_device_that_calculates_nonsense_does_not_work(instead):
    report = probe_one(env=instead(FAKE))
    assert not report.works
    assert report.reason.startswith("It calculates wrong results (ONNX Runtime 9.9.9")


def test_gpu_that_the_library_only_claims_to_use_is_caught(instead, gpu):
    env = instead(f"{FAKE}\nPROVIDERS = ['CUDAExecutionProvider', 'CPUExecutionProvider']")
    report = probe_one("cuda", env=env)
    assert not report.works
    assert "lists CUDAExecutionProvider but could not start it" in report.reason
    assert (report.hardware, report.memory_bytes) == (gpu.name, gpu.memory_bytes)


def test_complaint_of_the_native_library_is_in_the_reason(instead, gpu):
    complaint = "libcudnn.so.9: cannot open shared object file"
    env = instead(
        f"import sys\nprint('[E:onnxruntime] with error: {complaint}', file=sys.stderr)\n{FAKE}\n"
        "PROVIDERS = ['CUDAExecutionProvider']"
    )
    assert complaint in probe_one("cuda", env=env).reason


def test_without_a_driver_nobody_is_sent_to_install_a_gpu_runtime(no_gpu):
    report = probe_one("cuda")
    assert not report.works
    assert report.reason.startswith("No NVIDIA driver was found")
    assert "install cuda" not in report.reason


def test_private_runtime_is_what_its_device_is_tried_with(tmp_path, gpu):
    folder = tmp_path / "home" / "runtimes" / "ort-cu13"
    folder.mkdir(parents=True)
    (folder / "runtime.json").write_text('{"device": "cuda", "packages": {}}')
    (folder / "onnxruntime.py").write_text(f"{FAKE}\nPROVIDERS = ['CUDAExecutionProvider']")
    cuda, cpu = devices.probe(["cuda", "cpu"])
    assert cuda.runtime == "ort-cu13" and "lists CUDAExecutionProvider" in cuda.reason
    assert cpu.runtime is None and cpu.works


def test_the_first_device_that_works_is_chosen_and_the_reason_given():
    choice = choose([NO_CUDA, CPU, OPENVINO])
    assert (choice.device, choice.precision, choice.fallback_from) == (
        "openvino", "bfloat16", None,
    )  # fmt: skip
    assert choice.reason == (
        "The automatic choice is the first that works of NVIDIA GPU (CUDA), GPU (DirectML), "
        "CPU (OpenVINO), CPU (ONNX Runtime). It was 4.0 times as fast as CPU (ONNX Runtime)."
    )


def test_a_faster_device_than_the_automatic_choice_is_named_with_the_way_to_it():
    choice = choose([works("cuda", 0.3), CPU, OPENVINO])
    assert choice.device == "cuda"
    assert choice.reason.endswith(
        "CPU (OpenVINO) was 3.0 times as fast with the small test network: "
        "`--device openvino` takes it."
    )
    assert "--device" not in choose([works("cuda", 0.105), OPENVINO]).reason  # as good as equal


@pytest.mark.parametrize("broken", [(), ("cuda",), ("cuda", "directml", "openvino")])
def test_devices_and_a_run_take_the_same_device(broken, monkeypatch, tmp_path):
    """Whatever is measured, and whichever devices work."""
    speeds = dict(zip(DEVICES, (0.5, 0.4, 0.1, 0.3, 0.2), strict=True))

    def open_onnx(path, device, *options):
        if device in broken:
            raise DeviceError(f"{device} is broken.")
        return device

    monkeypatch.setattr(runtime, "_open_onnx", open_onnx)
    (tmp_path / "model.onnx").touch()
    reports = [
        DeviceReport(d, False, "It is broken.") if d in broken else works(d, speeds[d])
        for d in DEVICES
    ]
    assert choose(reports).device == runtime.open_session(tmp_path / "model.onnx")


def test_reason_says_why_a_gpu_that_is_there_is_not_used():
    choice = choose([BROKEN_CUDA, CPU])
    assert "the only device" in choice.reason
    assert "NVIDIA T4 is not used: Its driver is too old." in choice.reason


def test_device_that_was_asked_for_is_taken_even_if_another_is_faster():
    choice = choose([OPENVINO, CPU], "cpu")
    assert (choice.device, choice.fallback_from) == ("cpu", None)
    assert "was asked for" in choice.reason


def test_runtime_of_the_device_is_part_of_the_choice():
    assert choose([works("cuda", 0.01, runtime="ort-cu13")]).runtime == "ort-cu13"


@pytest.mark.parametrize("reports", [[BROKEN_CUDA, OPENVINO, CPU], [OPENVINO, CPU]])
def test_fallback_is_said(reports):
    choice = choose(reports, "cuda")
    assert (choice.device, choice.fallback_from) == ("openvino", "cuda")
    assert "NVIDIA GPU (CUDA) was asked for but" in choice.reason
    assert "CPU (OpenVINO) is used instead" in choice.reason


def test_precision_decides_which_devices_can_be_chosen():
    assert choose([OPENVINO, CPU], precision="float32").precision == "float32"
    assert choose([works("cuda", 0.1), OPENVINO], precision="bfloat16").device == "openvino"
    with pytest.raises(DeviceError, match="does not calculate in float16"):
        choose([OPENVINO, CPU], precision="float16")


def test_a_fallback_keeps_float32_only():
    fallback = choose([BROKEN_CUDA, OPENVINO], "cuda", "float32")
    assert (fallback.device, fallback.precision) == ("openvino", "float32")
    fallback = choose([BROKEN_CUDA, OPENVINO], "cuda", "float16")
    assert (fallback.device, fallback.precision) == ("openvino", "bfloat16")


def test_a_processor_that_was_asked_for_has_no_fallback():
    with pytest.raises(DeviceError, match=r"CPU \(ONNX Runtime\) does not calculate in bfloat16"):
        choose([OPENVINO, CPU], "cpu", "bfloat16")


def test_nothing_that_works_is_an_error_with_all_reasons():
    with pytest.raises(DeviceError) as error:
        choose([BROKEN_CUDA, DeviceReport("cpu", False, "ONNX Runtime is not installed.")])
    assert "driver is too old" in str(error.value) and "not installed" in str(error.value)


def test_unknown_device_is_refused():
    with pytest.raises(DeviceError, match="'gpu' is no device; choose one of: auto, cuda"):
        choose([CPU], "gpu")


def test_table_shows_what_works_how_fast_and_why_not():
    out = io.StringIO()
    print_report([BROKEN_CUDA, OPENVINO, CPU], out)
    print_choice(Choice("cpu", "float32", "It is the only device that works."), out)
    lines = out.getvalue().splitlines()
    assert lines[0].split() == ["Device", "Works", "Speed", "Precision", "Memory"]
    assert lines[1].split() == ["NVIDIA", "GPU", "(CUDA)", "no"]
    assert lines[2].split() == [
        "CPU", "(OpenVINO)", "yes", "100", "ms", "(4.0x)", "bfloat16", "unknown",
    ]  # fmt: skip
    assert lines[3].split()[4:] == ["400", "ms", "(1.0x)", "float32", "16", "GB"]
    assert "NVIDIA GPU (CUDA): Its driver is too old." in lines
    assert lines[-1].startswith("Device to be used: CPU (ONNX Runtime). It is the only")
    assert all(len(line) <= 96 and line == line.rstrip() for line in lines)


@pytest.fixture
def run_command(monkeypatch, no_gpu):
    def run(*arguments: str) -> None:
        parser = argparse.ArgumentParser()
        devices.add_arguments(parser.add_subparsers())
        parsed = parser.parse_args(["devices", *arguments])
        parsed.run(parsed)

    return run


def test_command_prints_the_table_and_the_choice(run_command, capsys):
    run_command("--device", "cpu")
    out = capsys.readouterr().out
    assert "CPU (ONNX Runtime)" in out and "was asked for" in out


def test_command_prints_json_for_programs(run_command, capsys):
    run_command("--json")
    found = json.loads(capsys.readouterr().out)
    assert [report["device"] for report in found["devices"]] == list(DEVICES)
    assert found["choice"]["device"] in DEVICES


def test_probe_network_is_the_one_that_the_generator_writes():
    onnx = pytest.importorskip("onnx")
    generator = Path(__file__).resolve().parents[2] / "benchmarks" / "make_probe.py"
    assert onnx.load(PROBE_MODEL).graph == runpy.run_path(str(generator))["build"]().graph
