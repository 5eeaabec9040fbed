"""What was found out about this computer's devices, in words, and which of them to take."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
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

AUTOMATIC = ("cuda", "directml", "openvino", "cpu")
"""The automatic choice of every run: the first of these that works. It is a fixed order because to
measure all devices takes seconds at every start, and a small network says little about a large one.
CoreML is not among them, as it has no 3D convolution."""

_FIRST_THAT_WORKS = (
    f"The automatic choice is the first that works of {', '.join(map(TITLES.get, AUTOMATIC))}."
)
_NOTICEABLE = 1.1  # a ratio of two measured times; less is chance


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


def fallback_order(device: str) -> tuple[str, ...]:
    """The devices to try for ``device``: itself, then what is usually slower but has more memory.

    ``auto`` is all of `AUTOMATIC`.
    """
    if device == "auto":
        return AUTOMATIC
    later = AUTOMATIC[AUTOMATIC.index(device) + 1 :] if device in AUTOMATIC else ("cpu",)
    return (device, *later)


def precision_on(device: str, requested: str, precision: str | None) -> str | None:
    """What ``precision``, asked for with the device ``requested``, means on ``device``: float32 is
    kept on a fallback, other precisions belong to the device that they were asked for with."""
    return precision if requested in ("auto", device) or precision == "float32" else None


def choose(
    reports: Sequence[DeviceReport], requested: str = "auto", precision: str | None = None
) -> Choice:
    """The device that a run takes: the first of `fallback_order` that works, with the reason.

    Raises DeviceError when ``requested`` is unknown and when none of them works (in ``precision``).
    """
    if requested not in ("auto", *DEVICES):
        raise DeviceError(f"{requested!r} is no device; choose one of: auto, {', '.join(DEVICES)}.")
    by_device = {report.device: report for report in reports}
    tried = [by_device[device] for device in fallback_order(requested) if device in by_device]
    asked = {r.device: precision_on(r.device, requested, precision) for r in tried}
    taken = next((r for r in tried if _can(r, asked[r.device])), None)
    if taken is None:
        raise DeviceError(_why_none(tried, asked))
    used = asked[taken.device] or taken.precision
    if requested == "auto":
        others = [r for r in reports if r is not taken and _can(r, precision)]
        return Choice(taken.device, used, _why_first(taken, others, reports), None, taken.runtime)
    if requested == taken.device:
        why = f"{taken.title} was asked for."
        return Choice(taken.device, used, why, None, taken.runtime)
    why_not = _why_not(by_device.get(requested), precision)
    why = f"{TITLES[requested]} was asked for but {why_not} {taken.title} is used instead."
    return Choice(taken.device, used, why, requested, taken.runtime)


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


def _can(report: DeviceReport, precision: str | None) -> bool:
    return report.works and precision in (None, *report.precisions)


def _why_first(
    taken: DeviceReport, others: Sequence[DeviceReport], reports: Sequence[DeviceReport]
) -> str:
    fastest = min(others, key=lambda report: report.seconds, default=None)
    if fastest is None:
        why = "It is the only device that works."
    elif taken.seconds / fastest.seconds >= _NOTICEABLE:
        why = (
            f"{_FIRST_THAT_WORKS} {fastest.title} was {taken.seconds / fastest.seconds:.1f} times "
            f"as fast with the small test network: `--device {fastest.device}` takes it."
        )
    else:
        why = _FIRST_THAT_WORKS
        if fastest.seconds / taken.seconds >= _NOTICEABLE:
            ratio = fastest.seconds / taken.seconds
            why += f" It was {ratio:.1f} times as fast as {fastest.title}."
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


def _why_none(tried: Sequence[DeviceReport], asked: Mapping[str, str | None]) -> str:
    found = " ".join(f"{r.title} {_why_not(r, asked[r.device])}" for r in tried)
    return f"No device can be used. {found}"
