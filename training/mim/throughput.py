"""How fast training is, and which share of the hardware's peak that is."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

# Dense matrix products per second in units of 1e12, bfloat16 and float32 (without TF32), as the
# makers' data sheets have them. The first name that the device's name has as words counts: an RTX
# A4000 is no A40, an L40 no L4.
_PEAKS = (
    ("B200", 2250.0, 75.0),
    ("H200", 989.0, 67.0),
    ("GH200", 989.0, 67.0),
    ("H100 PCIe", 756.0, 51.0),
    ("H100 NVL", 835.0, 60.0),
    ("H100", 989.0, 67.0),
    ("A100", 312.0, 19.5),
    ("L40S", 362.0, 91.6),
    ("A40", 150.0, 37.4),
    ("RTX 4090", 165.0, 82.6),
    ("RTX 3090", 71.0, 35.6),
    ("L4", 121.0, 30.3),
)


@dataclass
class Meter:
    """Counts samples and time; ``flops`` is the work of one step of this process."""

    peak: float
    flops: int = 0
    samples: int = 0
    steps: int = 0
    seconds: float = 0.0
    data_seconds: float = 0.0

    def add(self, steps: int, samples: int, seconds: float, data_seconds: float) -> None:
        """Take in some steps that are over."""
        self.steps, self.samples = self.steps + steps, self.samples + samples
        self.seconds, self.data_seconds = self.seconds + seconds, self.data_seconds + data_seconds

    @property
    def samples_per_second(self) -> float:
        return self.samples / self.seconds if self.seconds else 0.0

    @property
    def utilization(self) -> float:
        """Model FLOPs utilization: the network's own operations over what the device could do."""
        return self.flops * self.steps / self.seconds / self.peak if self.seconds else 0.0

    @property
    def data_share(self) -> float:
        """The share of time spent waiting for batches."""
        return self.data_seconds / self.seconds if self.seconds else 0.0

    def summary(self) -> str:
        """For the end of a run."""
        if not self.seconds:
            return "not known of so few steps"
        return (
            f"{self.samples_per_second:.2f} samples/s, {self.utilization:.0%} of the device's "
            f"peak, {self.data_share:.0%} of the time waiting for data"
        )


def peak_flops(device: torch.device, bf16: bool) -> float:
    """Floating-point operations per second that ``device`` can do at best.

    From its maker's data sheet where it is a known GPU; else a large matrix product is timed.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for part, half, full in _PEAKS:
            if re.search(rf"\b{part}\b", name):
                return (half if bf16 else full) * 1e12
    return _measured_peak(device, torch.bfloat16 if bf16 else torch.float32)


def _measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    size = 8192 if device.type == "cuda" else 768
    square, best = torch.ones(size, size, dtype=dtype, device=device), float("inf")
    for _ in range(4):
        _wait(device)
        begin = time.perf_counter()
        square @ square
        _wait(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def flop_counter() -> FlopCounterMode:
    """A context that counts the operations within it (`FlopCounterMode.get_total_flops`)."""
    return FlopCounterMode(display=False)
