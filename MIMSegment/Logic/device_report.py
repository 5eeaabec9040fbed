"""What was found out about this computer's devices, in words, and which of them to take."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from MIMSegment.Logic.diskspace import human_size
from MIMSegment.Logic.errors import DeviceError

TITLES = {
    "cuda": "NVIDIA GPU (CUDA)",
    "directml": "GPU (DirectML)",
    "coreml": "Apple GPU (CoreML)",
    "openvino": "CPU (OpenVINO)",
    "cpu": "CPU (ONNX Runtime)",
}
"""Every device that a network can be run on, and its name for people."""

DEVICES = tuple(TITLES)


@dataclass(frozen=True)
class DeviceReport:
    """One device: does it work, and if not, why not and what to do (``reason``).

    ``seconds`` is the time of the probe network, comparable between devices; ``precision`` what it
    ran in and ``precisions`` what can be asked for; ``memory_bytes`` the memory of the device where
    known; ``runtime`` the private runtime (`gpu_runtime`) that it needs, None for the Python's own.
    """

    device: str
    works: bool
    reason: str = ""
    description: str = ""
    hardware: str = ""
    precision: str = ""
    precisions: tuple[str, ...] = ()
    seconds: float | None = None
    memory_bytes: int | None = None
    runtime: str | None = None

    @property
    def title(self) -> str:
        """The name for people."""
        return TITLES[self.device]


@dataclass(frozen=True)
class Choice:
    """The device to use, and in a sentence or two why; ``fallback_from`` is what was asked for and
    does not work. ``runtime`` as in `DeviceReport`."""

    device: str
    precision: str
    reason: str
    fallback_from: str | None = None
    runtime: str | None = None


def rank(reports: Sequence[DeviceReport], precision: str | None = None) -> list[DeviceReport]:
    """The devices that work, in ``precision`` if given, the fastest first."""
    usable = [r for r in reports if r.works and precision in (None, *r.precisions)]
    return sorted(usable, key=lambda report: report.seconds)


def choose(
    reports: Sequence[DeviceReport], requested: str = "auto", precision: str | None = None
) -> Choice:
    """The requested device if it works, else the fastest that does, with the reason.

    Raises DeviceError when ``requested`` is unknown and when nothing works (in ``precision``).
    """
    if requested not in ("auto", *DEVICES):
        raise DeviceError(f"{requested!r} is no device; choose one of: auto, {', '.join(DEVICES)}.")
    usable = rank(reports, precision)
    if not usable:
        raise DeviceError(_why_none(reports, precision))
    asked = next((r for r in reports if r.device == requested), None)
    if asked in usable:
        return _choice(asked, precision, f"{asked.title} was asked for.")
    best = usable[0]
    if requested == "auto":
        return _choice(best, precision, _why_best(usable, reports))
    why = f"{TITLES[requested]} was asked for but {_why_not(asked, precision)} "
    return _choice(best, precision, f"{why}{best.title} is used instead.", requested)


def print_report(reports: Sequence[DeviceReport], file: TextIO | None = None) -> None:
    """Print a table of the devices, then what runs each of them, or why it does not work."""
    rows = [("Device", "Works", "Speed", "Precision", "Memory")]
    slowest = max((r.seconds for r in reports if r.works), default=None)
    rows += [_row(report, slowest) for report in reports]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(line.rstrip(), file=file)
    print(file=file)
    for report in reports:
        text = f"{report.description}." if report.works else report.reason
        _print_wrapped(f"{report.title}: {text}", file)


def print_choice(choice: Choice, file: TextIO | None = None) -> None:
    """Print the device that will be used, and why."""
    print(file=file)
    _print_wrapped(f"Device to be used: {TITLES[choice.device]}. {choice.reason}", file)


def _row(report: DeviceReport, slowest: float | None) -> tuple[str, ...]:
    if not report.works:
        return (report.title, "no", "", "", "")
    speed = f"{report.seconds * 1000:.0f} ms ({slowest / report.seconds:.1f}x)"
    memory = human_size(report.memory_bytes) if report.memory_bytes else "unknown"
    return (report.title, "yes", speed, report.precision, memory)


def _print_wrapped(text: str, file: TextIO) -> None:
    print(textwrap.fill(text, 96, subsequent_indent="  ", break_long_words=False), file=file)


def _choice(
    report: DeviceReport, precision: str | None, reason: str, fallback_from: str | None = None
) -> Choice:
    used = precision or report.precision
    return Choice(report.device, used, reason, fallback_from, report.runtime)


def _why_best(usable: Sequence[DeviceReport], reports: Sequence[DeviceReport]) -> str:
    best, *others = usable
    if not others:
        why = "It is the only device that works."
    else:
        ratio = others[0].seconds / best.seconds
        why = f"It is the fastest that works, {ratio:.1f} times as fast as {others[0].title}."
    for report in reports:
        if not report.works and report.hardware:
            why += f" The {report.hardware} is not used: {report.reason}"
    return why


def _why_not(report: DeviceReport | None, precision: str | None) -> str:
    if report is None:
        return "was not tried."
    if report.works:
        return f"does not calculate in {precision}."
    return f"does not work: {report.reason}"


def _why_none(reports: Sequence[DeviceReport], precision: str | None) -> str:
    found = " ".join(f"{r.title}: {_why_not(r, precision)}" for r in reports)
    what = f"calculates in {precision}" if precision else "can run a network"
    return f"No device of this computer {what}. {found}"
