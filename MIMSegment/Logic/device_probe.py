"""One device tried on the probe network; runs in a child process of `devices`.

The network and what it must return are written by ``benchmarks/make_probe.py``.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from MIMSegment.Logic.device_report import DeviceReport
from MIMSegment.Logic.errors import MIMSegmentError
from MIMSegment.Logic.runtime import open_session

PROBE_MODEL = Path(__file__).resolve().parents[1] / "Resources" / "Models" / "probe.onnx"
PROBE_SHAPE = (1, 1, 48, 48, 48)
_RUNS = 3
_TOLERANCE = 0.05  # of the logits' standard deviation; bfloat16 is at 0.007


def main(device: str) -> None:
    """Print the report on ``device`` as one line of JSON, and let nothing else get to stdout."""
    descriptor = os.dup(1)
    os.dup2(2, 1)
    report = asdict(probe_device(device))
    os.write(descriptor, (json.dumps(report) + "\n").encode("ascii"))


def probe_device(device: str) -> DeviceReport:
    """Run the probe network on ``device`` in this process: check the result, take the time."""
    try:
        session = open_session(PROBE_MODEL, device)
        image = probe_image()
        difference = _difference(session(image))
        times = [_seconds(session, image) for _ in range(_RUNS)]
    except MIMSegmentError as error:
        return DeviceReport(device, False, str(error))
    if not difference < _TOLERANCE:  # NaN too
        return DeviceReport(
            device, False,
            f"It calculates wrong results ({session.description}); update the driver.",
        )  # fmt: skip
    precisions = tuple(sorted({session.precision, "float32"}))
    memory = _memory_of_computer() if device in ("cpu", "openvino") else None
    return DeviceReport(
        device, True, "", session.description, "", session.precision, precisions, min(times), memory
    )


def probe_image() -> np.ndarray:
    """The image (1, 1, 48, 48, 48) float32 of the probe: noise, the same everywhere."""
    index = np.arange(np.prod(PROBE_SHAPE), dtype=np.int64)
    return (index**3 % 1009 / 252 - 2).astype(np.float32).reshape(PROBE_SHAPE)


def probe_samples(logits: np.ndarray) -> np.ndarray:
    """A few of the logits, spread over the volume."""
    return logits[..., 5::19, 5::19, 5::19].ravel()


def _difference(logits: np.ndarray) -> float:
    """Root mean square difference from what the network must return, in standard deviations."""
    text = PROBE_MODEL.with_suffix(".json").read_text(encoding="ascii")
    expected = np.array(json.loads(text)["expected"])
    return float(np.sqrt(np.mean((probe_samples(logits) - expected) ** 2)) / expected.std())


def _seconds(session, image: np.ndarray) -> float:
    began = time.perf_counter()
    session(image)
    return time.perf_counter() - began


def _memory_of_computer() -> int | None:
    """Bytes of physical memory; None on Windows, which does not tell without a library."""
    with contextlib.suppress(AttributeError, ValueError, OSError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None
