"""Which devices work on this computer, how fast, and why the others do not.

Every device is tried in a child process, because a broken driver can take its process down.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from MIMSegment.Logic import gpu_runtime, processes
from MIMSegment.Logic.device_report import (
    DEVICES,
    Choice,
    DeviceReport,
    choose,
    print_choice,
    print_report,
)

__all__ = ["Choice", "DeviceReport", "choose", "print_choice", "print_report", "probe"]

# What a child runs; MIMSegment.py must not be executed there, as it needs Slicer.
_CHILD = """
import sys, types
package = types.ModuleType("MIMSegment")
package.__path__ = [sys.argv[1]]
sys.modules["MIMSegment"] = package
from MIMSegment.Logic.device_probe import main
main(sys.argv[2])
"""
_NATIVE_COMPLAINT = re.compile(r"with error: (.+)|(CUDA failure \d+: [^;]+)")
_PLATFORMS = {"directml": ("win32", "Windows"), "coreml": ("darwin", "macOS")}


def probe(
    devices: Sequence[str] | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 60.0,
    python: str | Path = sys.executable,
    show: Callable[[str], None] = lambda title: None,
) -> list[DeviceReport]:
    """Try ``devices`` (default: all), one after the other, so that none slows another down.

    ``env`` is added to the environment of the children; without it, each device gets its private
    runtime (`gpu_runtime`) where one is installed. ``timeout`` in seconds is for each device.
    ``python`` is their interpreter (in 3D Slicer: PythonSlicer). ``show`` hears each device's name
    before it is tried.
    """
    reports = []
    for device in devices or DEVICES:
        report = DeviceReport(device, False)
        show(report.title)
        system, name = _PLATFORMS.get(device, (sys.platform, ""))
        if sys.platform != system:
            report = replace(report, reason=f"It exists on {name} only.")
        else:
            report = _probe(device, env, timeout, str(python))
        reports.append(report)
    return reports


def add_arguments(commands) -> None:
    """Add ``devices`` to the sub-commands of an argparse parser."""
    parser = commands.add_parser(
        "devices",
        help="show which processors and GPUs work, and how fast",
        description="Try every device with a small network; say what works, how fast, why the "
        "rest does not, and which device a run takes.",
    )
    parser.add_argument(
        "--device",
        default="auto",
        choices=("auto", *DEVICES),
        help="say what a run with this device takes (default: %(default)s)",
    )
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for each device")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.set_defaults(run=command)


def command(arguments: argparse.Namespace) -> None:
    """``mimsegment devices``."""
    reports = probe(timeout=arguments.timeout, show=_show_progress)
    print("\r\033[K" if sys.stderr.isatty() else "", end="", file=sys.stderr, flush=True)
    if arguments.json:
        choice = choose(reports, arguments.device)
        found = {"devices": [asdict(r) for r in reports], "choice": asdict(choice)}
        print(json.dumps(found, indent=2))
        return
    print_report(reports)
    print_choice(choose(reports, arguments.device))


def _show_progress(title: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[KTrying {title} ...", end="", file=sys.stderr, flush=True)


def _probe(device: str, env: Mapping[str, str] | None, timeout: float, python: str) -> DeviceReport:
    """Try one device in a child process."""
    runtime = None
    if env is None:
        runtime = gpu_runtime.runtime_for(device)
        env = gpu_runtime.worker_environment(runtime) if runtime else {}
    report = replace(_run_child(device, env, timeout, python), runtime=runtime)
    return _with_gpu(report) if device == "cuda" else report


def _run_child(device: str, env: Mapping[str, str], timeout: float, python: str) -> DeviceReport:
    root = str(Path(__file__).resolve().parents[1])
    try:
        process = processes.start(
            [python, "-c", _CHILD, root, device], env, subprocess.PIPE, subprocess.PIPE
        )
    except OSError as error:
        return DeviceReport(
            device, False, f"{python} could not be started ({error.strerror or error})."
        )
    try:
        stdout, stderr = (s.decode("utf-8", "replace") for s in process.communicate(None, timeout))
    except subprocess.TimeoutExpired:
        processes.kill(process, None)
        process.communicate()
        return DeviceReport(
            device, False,
            f"It did not answer within {timeout:g} s; restart the computer, or update the driver.",
        )  # fmt: skip
    if process.returncode:
        return DeviceReport(device, False, _why_it_ended(process.returncode, stderr))
    report = _from_json(stdout)
    complaint = _native_complaint(stderr)
    if report.works or not complaint or complaint in report.reason:
        return report
    return replace(report, reason=f"{report.reason.rstrip('.')}: {complaint}.")


def _from_json(text: str) -> DeviceReport:
    values = json.loads(text)
    return DeviceReport(**{**values, "precisions": tuple(values["precisions"])})


def _why_it_ended(code: int, stderr: str) -> str:
    what, way_out = processes.describe_end(code)
    complaint = _native_complaint(stderr) or next(reversed(stderr.strip().splitlines()), "")
    return f"The process that tried it {what}{f': {complaint}' if complaint else ''}. {way_out}"


def _native_complaint(stderr: str) -> str:
    """What a native library wrote about its failure."""
    found = _NATIVE_COMPLAINT.search(stderr)
    return (found[1] or found[2]).strip() if found else ""


def _with_gpu(report: DeviceReport) -> DeviceReport:
    """With what the NVIDIA driver says about the GPU."""
    gpu = gpu_runtime.nvidia_gpu()
    if gpu is not None:
        return replace(report, hardware=gpu.name, memory_bytes=gpu.memory_bytes)
    if report.works:
        return report
    return replace(
        report,
        reason="No NVIDIA driver was found: this computer has no NVIDIA GPU, or its driver is "
        "not installed.",
    )
