"""What a run writes down of every step: JSON lines, and TensorBoard's where it is installed."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mim.parallel import gather, mean_over_processes, rank, world_size
from MIMSegment.Logic.errors import MIMSegmentError, OutputError
from MIMSegment.Logic.files import json_text


class TrainingError(MIMSegmentError):
    """Training that cannot go on, such as a loss that is no number."""


@dataclass
class StepRecord:
    """One step; ``loss`` and ``norm`` stay on the device until the log is flushed."""

    number: int
    lr: float
    loss: Tensor
    norm: Tensor
    cases: tuple[str, ...]
    begin: float
    data_seconds: float

    def line(self, loss: float, norm: float, seconds: float) -> dict:
        samples = len(self.cases) * world_size()
        return {
            "step": self.number,
            "loss": loss,
            "lr": self.lr,
            "grad_norm": norm,
            "seconds": round(seconds, 4),
            "data_seconds": round(self.data_seconds, 4),
            "samples_per_second": round(samples / max(seconds, 1e-9), 2),
        }


class RunLog:
    """``log.jsonl`` of a run. Values are fetched from the device only by `flush`, which waits.

    Lines from byte ``keep`` on belong to steps that are about to be done again, and are removed.
    Of several processes the first writes.
    """

    def __init__(self, path: Path, keep: int, first_step: int, tensorboard: bool):
        self.path, self.bytes = path, keep
        self.pending: list[StepRecord] = []
        self.board = None
        if rank():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.truncate(path, min(keep, path.stat().st_size))
        self.board = _tensorboard(path.parent, first_step) if tensorboard else None

    def add(self, record: StepRecord) -> None:
        """Note a step."""
        self.pending.append(record)

    def flush(self, failed: Callable[[], None] = lambda: None) -> list[dict]:
        """Write the pending steps and return their lines.

        Raises TrainingError, after calling ``failed``, when a loss or gradient is no number.
        """
        records, self.pending = self.pending, []
        if not records:
            return []
        values = torch.stack([torch.stack((r.loss.float(), r.norm.float())) for r in records])
        ends = [record.begin for record in records[1:]] + [time.perf_counter()]
        lines = []
        for record, (loss, norm), end in zip(
            records, mean_over_processes(values).tolist(), ends, strict=True
        ):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                self.write(*lines)
                failed()
                raise TrainingError(self._complaint(record, loss, norm))
            lines.append(record.line(loss, norm, end - record.begin))
        self.write(*lines)
        return lines

    def write(self, *lines: dict) -> None:
        """Append lines now; raises OutputError."""
        if rank():
            return
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.writelines(json_text(line) + "\n" for line in lines)
        except OSError as error:
            raise OutputError(
                f"{self.path} could not be written ({error}); the last checkpoint is intact. "
                "Make room and go on with --resume."
            ) from error
        self.bytes = self.path.stat().st_size
        if self.board is not None:
            _show(self.board, lines)

    def sync(self) -> None:
        """Make sure that the log reaches the disk before a checkpoint that counts on it."""
        if rank():
            return
        with open(self.path, "rb+") as file:
            os.fsync(file.fileno())

    def close(self) -> None:
        """Let go of TensorBoard's file."""
        if self.board is not None:
            self.board.close()

    def _complaint(self, record: StepRecord, loss: float, norm: float) -> str:
        cases = [name for names in gather(record.cases) for name in names]
        return (
            f"Step {record.number}: the loss is {loss} and the gradient's norm {norm}, from the "
            f"cases {', '.join(cases)}. Look at these images, or lower optimizer.lr. The last "
            f"sound state is {self.path.with_name('last.pt')}, the state at the stop stopped.pt."
        )


def _tensorboard(folder: Path, first_step: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    # Steps after the checkpoint are hidden: they are about to be done again.
    return SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)


def _show(board, lines: Sequence[dict]) -> None:
    for line in lines:
        for name, value in line.items():
            if name != "step" and isinstance(value, float | int):
                board.add_scalar(name, value, line["step"])
