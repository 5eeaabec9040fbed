"""The training loop: one for every method and task.

A command supplies three functions - draw a batch, compute its loss, validate - and `train` does the
rest: learning rate, mixed precision, clipping, log, progress, guard, checkpoints, resuming.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mim.checkpoint import save_checkpoint
from mim.device import Generators, global_rng_state, set_global_rng_state
from mim.optim import OptimizerSettings, build_optimizer, learning_rate
from mim.recipe import RecipeError, setting
from MIMSegment.Logic.errors import MIMSegmentError, OutputError


class TrainingError(MIMSegmentError):
    """Training that cannot go on, such as a loss that is no number."""


@dataclass(frozen=True)
class LoopSettings:
    """How long a run is and how often it reports."""

    steps: int = setting(1000, "updates of the weights")
    batch: int = setting(2, "crops in each update")
    validate_every: int = setting(100, "steps between validations; there is one at the end too")
    save_every: int = setting(100, "steps between checkpoints", affects_result=False)
    log_every: int = setting(
        10, "steps between writes to the log (each step has its line)", affects_result=False
    )

    def __post_init__(self):
        if min(self.steps, self.batch, self.validate_every, self.save_every, self.log_every) < 1:
            raise RecipeError("loop.steps, batch and the intervals must be at least 1.")


class Batch(Protocol):
    """What the loop knows of a batch: a name for each sample."""

    cases: tuple[str, ...]


@dataclass
class TrainState:
    """Everything that changes during training, and so everything that a checkpoint holds."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    generators: Generators
    step: int = 0
    log_bytes: int = 0

    @staticmethod
    def fresh(model: nn.Module, optimizer: OptimizerSettings, generators: Generators) -> TrainState:
        return TrainState(model, build_optimizer(model, optimizer), generators)

    def save(self, path: Path, metadata: dict) -> None:
        """Write the state and ``metadata`` to ``path``."""
        save_checkpoint(
            path,
            {
                "metadata": {**metadata, "step": self.step},
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "generators": self.generators.state_dict(),
                "rng": global_rng_state(),
                "step": self.step,
                "log_bytes": self.log_bytes,
            },
        )

    def restore(self, content: dict) -> None:
        """Continue as the run that saved the checkpoint ``content`` would have."""
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.generators.load_state_dict(content["generators"])
        set_global_rng_state(content["rng"])
        self.step, self.log_bytes = content["step"], content["log_bytes"]


def train(
    state: TrainState,
    draw: Callable[[], Batch],
    compute_loss: Callable[[Batch], Tensor],
    loop: LoopSettings,
    optimizer: OptimizerSettings,
    run: Path,
    *,
    bf16: bool = False,
    validate: Callable[[], dict[str, float]] | None = None,
    metadata: dict | None = None,
) -> None:
    """Take ``state`` from its step to ``loop.steps``, writing ``log.jsonl`` and ``last.pt``.

    Each step's line in ``RUN/log.jsonl`` has step, loss, lr, grad_norm, seconds, data_seconds (the
    part spent in ``draw``) and samples_per_second; each validation's line has step and what
    ``validate`` returned. ``validate`` must not draw from the state's generators. Raises
    TrainingError naming step and cases when loss or gradient is not finite; ``last.pt`` then holds
    the last sound state.
    """
    log = _Log(run / "log.jsonl", state)
    device_type = next(state.model.parameters()).device.type
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    state.model.train()
    # In a file each refresh is a line of its own.
    interval = 0.2 if sys.stderr.isatty() else 10
    with tqdm(total=loop.steps, initial=state.step, unit="step", mininterval=interval) as bar:
        while state.step < loop.steps:
            step = _Step(learning_rate(optimizer, state.step, loop.steps))
            batch = draw()
            step.drawn(batch.cases)
            with torch.autocast(device_type, torch.bfloat16, enabled=bf16):
                loss = compute_loss(batch)
            norm = _update(state.optimizer, parameters, loss, step.lr, optimizer.clip)
            state.step += 1
            log.add(step.done(state.step, loss.detach(), norm))

            last = state.step == loop.steps
            validates = validate is not None and (last or state.step % loop.validate_every == 0)
            saves = last or state.step % loop.save_every == 0
            if validates or saves or state.step % loop.log_every == 0:
                bar.set_postfix(loss=f"{log.flush():.4f}", refresh=False)
            if validates:
                state.model.eval()
                with torch.no_grad(), torch.autocast(device_type, torch.bfloat16, enabled=bf16):
                    log.write({"step": state.step, **validate()})
                state.model.train()
            if saves:
                log.sync()
                state.save(run / "last.pt", metadata or {})
            bar.update()


def _update(
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    loss: Tensor,
    lr: float,
    clip: float,
) -> Tensor:
    """One step down the gradient of ``loss``; returns the gradient's norm before clipping."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(parameters, clip or math.inf)
    optimizer.step()
    return norm


class _Step:
    """What is logged of one step; tensors stay on the device until the log is flushed."""

    number: int
    loss: Tensor
    norm: Tensor
    cases: tuple[str, ...]
    data_seconds: float

    def __init__(self, lr: float):
        self.lr = lr
        self.begin = time.perf_counter()

    def drawn(self, cases: tuple[str, ...]) -> None:
        self.cases = cases
        self.data_seconds = time.perf_counter() - self.begin

    def done(self, number: int, loss: Tensor, norm: Tensor) -> _Step:
        self.number, self.loss, self.norm = number, loss, norm
        return self

    def line(self, loss: float, norm: float, end: float) -> dict:
        seconds = end - self.begin
        return {
            "step": self.number,
            "loss": loss,
            "lr": self.lr,
            "grad_norm": norm,
            "seconds": round(seconds, 4),
            "data_seconds": round(self.data_seconds, 4),
            "samples_per_second": round(len(self.cases) / seconds, 2),
        }


class _Log:
    """JSON lines. Values are fetched from the device only when flushed: a read waits for it."""

    def __init__(self, path: Path, state: TrainState):
        self.path, self.state = path, state
        self.pending: list[_Step] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        # Lines after the checkpoint belong to steps that are about to be done again.
        os.truncate(path, min(state.log_bytes, path.stat().st_size))

    def add(self, step: _Step) -> None:
        self.pending.append(step)

    def flush(self) -> float:
        """Write the pending steps and return their mean loss; raises TrainingError."""
        steps, self.pending = self.pending, []
        values = torch.stack([torch.stack((s.loss.float(), s.norm.float())) for s in steps])
        ends = [step.begin for step in steps[1:]] + [time.perf_counter()]
        lines = []
        for step, (loss, norm), end in zip(steps, values.tolist(), ends, strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                self.write(*lines)
                raise TrainingError(
                    f"Step {step.number}: the loss is {loss} and the gradient's norm {norm}, from "
                    f"the cases {', '.join(step.cases)}. Look at these images, or lower "
                    f"optimizer.lr; the last sound state is in {self.path.parent}."
                )
            lines.append(step.line(loss, norm, end))
        self.write(*lines)
        return sum(line["loss"] for line in lines) / len(lines)

    def write(self, *lines: dict) -> None:
        try:
            with open(self.path, "a") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
        except OSError as error:
            raise OutputError(
                f"{self.path} could not be written ({error}); the last checkpoint is intact."
            ) from error
        self.state.log_bytes = self.path.stat().st_size

    def sync(self) -> None:
        """Make sure that the log reaches the disk before a checkpoint that counts on it."""
        with open(self.path, "rb+") as file:
            os.fsync(file.fileno())
