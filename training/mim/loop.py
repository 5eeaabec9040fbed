"""The training loop: one for every method and task.

A command supplies three functions - draw a batch, compute its loss, validate - and `train` does the
rest: learning rate, mixed precision, clipping, log, progress, guard, checkpoints, resuming.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mim.averaging import WeightAverage
from mim.checkpoint import save_checkpoint
from mim.device import Generators, global_rng_state, set_global_rng_state
from mim.mean_loss import MeanLoss
from mim.optim import OptimizerSettings, build_optimizer
from mim.parallel import gather, load_whole_state, rank, whole_state, world_size
from mim.recipe import RecipeError, setting
from mim.run_log import RunLog, TrainingError
from mim.runs import BEST, KEPT, LAST, STOPPED
from mim.schedule import TransferSettings
from mim.step import Batch, Stepper
from mim.throughput import Meter, flop_counter, peak_flops

MONITORED = "validation_loss"
_BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


@dataclass(frozen=True)
class LoopSettings:
    """How long a run is and how often it reports."""

    steps: int = setting(1000, "updates of the weights")
    batch: int = setting(2, "crops in each update, over all processes and accumulated batches")
    accumulate: int = setting(
        1,
        "parts of a batch that are computed one after the other, where memory is short; the same "
        "as one batch, but for losses among its crops: Dice and contrast see those of a part",
    )
    ema: float = setting(
        0.0, "decay of the moving average of the weights that is evaluated, such as 0.999; 0: none"
    )
    compile: bool = setting(False, "compile the network (torch.compile); the first steps are slow")
    shard: bool = setting(
        False, "with several processes: split a large transformer over them (FSDP2)"
    )
    validate_every: int = setting(100, "steps between validations; there is one at the end too")
    save_every: int = setting(100, "steps between checkpoints", affects_result=False)
    keep_every: int = setting(
        0,
        "steps between copies of the weights that stay (step_000100.pt), to start other runs from; "
        "0: none",
        affects_result=False,
    )
    log_every: int = setting(
        10, "steps between writes to the log (each step has its line)", affects_result=False
    )
    tensorboard: bool = setting(
        True, "write TensorBoard's files too, where it is installed", affects_result=False
    )

    def __post_init__(self):
        intervals = (self.validate_every, self.save_every, self.log_every)
        if min(self.steps, self.batch, self.accumulate, *intervals) < 1:
            raise RecipeError("loop.steps, batch, accumulate and the intervals must be at least 1.")
        if self.keep_every < 0:
            raise RecipeError("loop.keep_every must be at least 1, or 0 for no copies.")
        if not 0 <= self.ema < 1:
            raise RecipeError(f"loop.ema is a decay below 1, such as 0.999, not {self.ema}.")
        if self.ema and self.shard:
            raise RecipeError("loop.ema cannot be had with loop.shard; leave out one of them.")

    @property
    def micro_batch(self) -> int:
        """Crops that this process draws at a time."""
        parts = self.accumulate * world_size()
        if self.batch % parts:
            raise RecipeError(
                f"loop.batch={self.batch} cannot be shared by {world_size()} process(es) with "
                f"loop.accumulate={self.accumulate}; choose a multiple of {parts}."
            )
        return self.batch // parts


@dataclass
class TrainState:
    """Everything that changes during training, and so everything that a checkpoint holds."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    generators: Generators
    average: WeightAverage | None = None
    step: int = 0
    log_bytes: int = 0
    best: float = float("inf")
    flops: int = 0

    @staticmethod
    def fresh(
        model: nn.Module,
        optimizer: OptimizerSettings,
        generators: Generators,
        *,
        ema: float = 0.0,
        scales: Mapping[str, float] | None = None,
        encoder: str | tuple[str, ...] | None = None,
    ) -> TrainState:
        """The state before the first step; ``scales`` and ``encoder`` as in `build_optimizer`."""
        average = WeightAverage(model, ema) if ema else None
        return TrainState(
            model, build_optimizer(model, optimizer, scales, encoder), generators, average
        )

    def save(self, path: Path, metadata: dict) -> None:
        """Write the state and ``metadata`` to ``path``; every process must call it."""
        weights, optimizer = whole_state(self.model, self.optimizer)
        own = {"generators": self.generators.state_dict(), "rng": global_rng_state()}
        content = {
            "metadata": {**metadata, "step": self.step},
            "model": weights,
            "optimizer": optimizer,
            "processes": gather(own),
            "step": self.step,
            "log_bytes": self.log_bytes,
            "best": self.best,
            "flops": self.flops,
        }
        if self.average is not None:
            with self.average.in_place():
                content["average"], _ = whole_state(self.model, self.optimizer)
        if rank() == 0:
            save_checkpoint(path, content)

    def keep(self, path: Path, metadata: dict) -> None:
        """Write the weights that are to be evaluated, and no more; every process must call it."""
        with self.averaged():
            weights, _ = whole_state(self.model, self.optimizer)
            content = {"metadata": {**metadata, "step": self.step}, "model": weights}
            if rank() == 0:
                save_checkpoint(path, {**content, "step": self.step})

    def restore(self, content: dict) -> None:
        """Continue as the run that saved the checkpoint ``content`` would have."""
        if len(content["processes"]) != world_size():
            raise TrainingError(
                f"The run was trained by {len(content['processes'])} process(es), this is "
                f"{world_size()}; resume it with as many, or start another run from its weights: "
                f"run=OTHER pretrained=RUN/{LAST}, without --resume."
            )
        try:
            load_whole_state(self.model, self.optimizer, content["model"], content["optimizer"])
        except ValueError as error:
            raise TrainingError(
                f"The run was begun by another version of this program, which sorted the weights "
                f"otherwise ({error}); start another run from its weights: run=OTHER "
                f"pretrained=RUN/{LAST}, without --resume."
            ) from error
        if self.average is not None:
            self.average.load(content["average"])
        own = content["processes"][rank()]
        self.generators.load_state_dict(own["generators"])
        set_global_rng_state(own["rng"])
        self.step, self.log_bytes = content["step"], content["log_bytes"]
        self.best, self.flops = content["best"], content["flops"]

    def averaged(self) -> contextlib.AbstractContextManager:
        """Within it the model has the weights that are to be evaluated."""
        return contextlib.nullcontext() if self.average is None else self.average.in_place()


def train(
    state: TrainState,
    draw: Callable[[], Batch],
    compute_loss: Callable[[Batch], Tensor | MeanLoss],
    loop: LoopSettings,
    optimizer: OptimizerSettings,
    run: Path,
    *,
    bf16: bool = False,
    transfer: TransferSettings | None = None,
    validate: Callable[[], dict[str, float]] | None = None,
    metadata: dict | None = None,
) -> Meter:
    """Take ``state`` from its step to ``loop.steps``; ``draw`` gives ``loop.micro_batch`` samples.

    ``RUN/log.jsonl`` gets a line for each step: step, loss, lr, grad_norm, seconds, data_seconds
    (the part spent in ``draw``) and samples_per_second; and one for each validation: step and what
    ``validate`` returned, which must not draw from the state's generators. ``last.pt`` is written
    before the first step, every ``loop.save_every`` steps and at the end; ``best.pt`` whenever
    ``validation_loss`` is lower than before; ``step_NNNNNN.pt``, of the weights alone, every
    ``loop.keep_every`` steps.

    Raises TrainingError naming step and cases when loss or gradient is not finite; ``last.pt`` then
    holds the last sound state, ``stopped.pt`` the one at the stop. Returns what was measured of the
    speed.
    """
    return _Run(
        state, draw, compute_loss, loop, optimizer, run, bf16, transfer, validate, metadata
    ).train()


class _Run:
    """`train`'s arguments, and what lives as long as it."""

    def __init__(
        self, state, draw, compute_loss, loop, optimizer, run, bf16, transfer, validate, metadata
    ):
        self.state, self.draw, self.loop, self.run, self.bf16 = state, draw, loop, run, bf16
        self.validate, self.metadata = validate, metadata or {}
        self.log = RunLog(run / "log.jsonl", state.log_bytes, state.step, loop.tensorboard)
        self.stepper = Stepper(
            state.model,
            state.optimizer,
            compute_loss,
            optimizer,
            transfer or TransferSettings(),
            loop.accumulate,
            bf16,
        )
        self.meter = Meter(peak_flops(self.stepper.device, bf16), state.flops)
        # Shown beside the bar: of the last steps, and of the last validation.
        self.loss, self.pace, self.found = 0.0, "", {}

    def train(self) -> Meter:
        state, steps = self.state, self.loop.steps
        state.model.train()
        if state.step == 0:
            self._save(self.run / LAST)  # a disk that cannot be written is better known now
        # In a file each refresh is a line of its own.
        interval = 0.2 if sys.stderr.isatty() else 10
        progress = {"initial": state.step, "mininterval": interval, "bar_format": _BAR}
        with tqdm(total=steps, disable=rank() > 0, **progress) as bar:
            while state.step < steps:
                self._step()
                self._report(bar)
                bar.update()
        self.log.close()
        return self.meter

    def _step(self) -> None:
        """One update; the very first also counts its operations, before anything is compiled."""
        counts = self.state.flops == 0
        if self.loop.compile and not counts:
            self._compile()
        with flop_counter() if counts else contextlib.nullcontext() as counter:
            record = self.stepper.step(self.draw, self.state.step + 1, self.loop.steps)
        self.state.step += 1
        self.log.add(record)
        if counts:
            self.state.flops = self.meter.flops = counter.get_total_flops()
        if self.state.average is not None:
            self.state.average.update(self.state.step)

    def _compile(self) -> None:
        if self.state.model._compiled_call_impl is None:
            self.state.model.compile(dynamic=False)
            self.stepper.copy_weights()

    def _report(self, bar: tqdm) -> None:
        """After a step: log, validation and checkpoints, when it is time."""
        step, loop = self.state.step, self.loop
        last = step == loop.steps
        validates = self.validate is not None and (last or step % loop.validate_every == 0)
        saves = last or step % loop.save_every == 0
        keeps = loop.keep_every > 0 and step % loop.keep_every == 0
        if validates or saves or keeps or step % loop.log_every == 0:
            self._flush()
        if validates:
            self._validate()
        bar.set_postfix_str(self._beside(), refresh=False)
        if keeps:
            self.state.keep(self.run / KEPT.format(step), self.metadata)
        if saves:
            self._save(self.run / LAST)

    def _flush(self) -> None:
        lines = self.log.flush(lambda: self._save(self.run / STOPPED))
        seconds = sum(line["seconds"] for line in lines)
        data_seconds = sum(line["data_seconds"] for line in lines)
        if lines[0]["step"] > 1:  # the first step also counts operations and warms up
            self.meter.add(len(lines), len(lines) * self.loop.batch, seconds, data_seconds)
        samples = len(lines) * self.loop.batch / max(seconds, 1e-9)
        known = f"{self.meter.utilization:.0%} of peak, " if self.meter.seconds else ""
        waiting = data_seconds / max(seconds, 1e-9)
        self.loss = sum(line["loss"] for line in lines) / len(lines)
        self.pace = f"{samples:.1f} samples/s, {known}{waiting:.0%} data wait"

    def _beside(self) -> str:
        """What the last steps and the last validation came to, as short as a line needs it."""
        if not self.pace:
            return ""
        values = {"loss": self.loss, **self.found}
        texts = [f"{name.removesuffix('_loss')} {value:.4f}" for name, value in values.items()]
        return ", ".join([*texts, self.pace]).replace("_", " ")

    def _validate(self) -> None:
        state, device = self.state, self.stepper.device.type
        state.model.eval()
        with (
            state.averaged(),
            torch.no_grad(),
            torch.autocast(device, torch.bfloat16, enabled=self.bf16),
        ):
            # All go by the first process: one that alone found a best loss would wait for ever.
            found = gather(self.validate())[0]
        state.model.train()
        self.found = found
        self.log.write({"step": state.step, **found})
        if found.get(MONITORED, float("inf")) < state.best:
            state.best = found[MONITORED]
            self._save(self.run / BEST)

    def _save(self, path: Path) -> None:
        self.log.sync()
        self.state.log_bytes = self.log.bytes
        self.state.save(path, self.metadata)
