"""Averaged weights, accumulated batches, best checkpoint, schedules resumed, speed, no waiting."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from device_reads import NoReading
from mim.checkpoint import load_checkpoint, trained_weights
from mim.device import Generators, seed_everything
from mim.loop import LoopSettings, TrainState, train
from mim.optim import OptimizerSettings
from mim.recipe import RecipeError
from mim.schedule import TransferSettings
from mim.step import Stepper

OPTIMIZER = OptimizerSettings(lr=0.05, warmup=3)


class Task:
    """An encoder and a head that learn to add four numbers."""

    def __init__(self, run, transfer=None, **loop):
        seed_everything(0)
        self.run, self.transfer = run, transfer
        defaults = {"steps": 20, "batch": 4, "validate_every": 5, "save_every": 5}
        self.loop = LoopSettings(**{**defaults, "tensorboard": False, **loop})
        self.model = nn.Sequential()
        self.model.add_module("encoder", nn.Linear(4, 8))
        self.model.add_module("head", nn.Linear(8, 1))
        self.generators = Generators.seeded(0)
        self.state = TrainState.fresh(
            self.model, OPTIMIZER, self.generators, ema=self.loop.ema, encoder="encoder."
        )
        self.stop = None

    def draw(self):
        if self.state.step == self.stop:
            raise KeyboardInterrupt
        inputs = torch.rand(self.loop.micro_batch, 4, generator=self.generators.host)
        return SimpleNamespace(inputs=inputs, cases=("case",) * len(inputs))

    def loss(self, batch):
        return (self.model(batch.inputs)[:, 0] - batch.inputs.sum(1)).square().mean()

    def validate(self):
        inputs = torch.linspace(0, 1, 32).view(8, 4)
        return {"validation_loss": self.loss(SimpleNamespace(inputs=inputs)).item()}

    def train(self):
        self.meter = train(
            self.state,
            self.draw,
            self.loss,
            self.loop,
            OPTIMIZER,
            self.run,
            transfer=self.transfer,
            validate=self.validate,
        )
        return self

    def weights(self):
        return torch.cat([p.detach().flatten() for p in self.model.parameters()])


def lines(run):
    found = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "second" not in k} for line in found]


def test_two_accumulated_batches_are_one_of_twice_the_size(tmp_path):
    whole = Task(tmp_path / "whole").train()
    parts = Task(tmp_path / "parts", accumulate=2).train()
    assert torch.allclose(whole.weights(), parts.weights(), atol=1e-6)
    for a, b in zip(lines(tmp_path / "whole"), lines(tmp_path / "parts"), strict=True):
        assert a == pytest.approx(b, rel=1e-4)


def test_a_batch_that_cannot_be_shared_is_an_error():
    with pytest.raises(RecipeError, match="multiple of 3"):
        LoopSettings(batch=4, accumulate=3).micro_batch  # noqa: B018


def test_averaged_weights_are_evaluated_saved_and_resumed(tmp_path):
    plain = Task(tmp_path / "plain").train()
    whole = Task(tmp_path / "whole", ema=0.5).train()
    assert torch.equal(plain.weights(), whole.weights())  # the average changes no step
    content = load_checkpoint(tmp_path / "whole" / "last.pt")
    model, average = content["model"]["head.weight"], trained_weights(content)["head.weight"]
    assert not torch.equal(average, model)
    with whole.state.averaged():
        assert torch.equal(whole.model.head.weight, average)
        assert (
            whole.validate()["validation_loss"] == lines(tmp_path / "whole")[-1]["validation_loss"]
        )
    assert torch.equal(whole.model.head.weight, model)
    part = Task(tmp_path / "part", ema=0.5)
    part.stop = 12
    with pytest.raises(KeyboardInterrupt):
        part.train()
    part = Task(tmp_path / "part", ema=0.5)
    part.state.restore(load_checkpoint(tmp_path / "part" / "last.pt"))
    part.train()
    resumed = load_checkpoint(tmp_path / "part" / "last.pt")
    assert torch.equal(trained_weights(resumed)["head.weight"], average)


def test_average_is_the_recursion_of_its_definition():
    from mim.averaging import WeightAverage

    model = nn.Linear(1, 1, bias=False)
    average, expected = WeightAverage(model, 0.9), model.weight.item()
    for step in range(1, 200):
        model.weight.data.fill_(step)
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    with average.in_place():
        assert model.weight.item() == pytest.approx(expected, rel=1e-5)


def test_best_checkpoint_is_the_one_of_the_lowest_validation_loss(tmp_path):
    task = Task(tmp_path)
    losses = iter([3.0, 1.0, 2.0, 1.5])
    task.validate = lambda: {"validation_loss": next(losses)}
    task.train()
    best = load_checkpoint(tmp_path / "best.pt")
    assert best["step"] == 10 and best["best"] == 1.0
    assert load_checkpoint(tmp_path / "last.pt")["best"] == 1.0


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_weights_of_every_so_many_steps_are_kept_small_and_stopping_changes_none(tmp_path, ema):
    whole = Task(tmp_path / "whole", ema=ema, keep_every=7).train()
    part = Task(tmp_path / "part", ema=ema, keep_every=7)
    part.stop = 16
    with pytest.raises(KeyboardInterrupt):
        part.train()
    part = Task(tmp_path / "part", ema=ema, keep_every=7)
    part.state.restore(load_checkpoint(tmp_path / "part" / "last.pt"))
    part.train()
    none = Task(tmp_path / "none", ema=ema).train()
    assert torch.equal(whole.weights(), none.weights())
    assert torch.equal(whole.weights(), part.weights())
    assert lines(tmp_path / "whole") == lines(tmp_path / "part") == lines(tmp_path / "none")
    kept = sorted(path.name for path in (tmp_path / "part").glob("step_*.pt"))
    assert kept == ["step_000007.pt", "step_000014.pt"]
    for name in kept:
        first, second = (load_checkpoint(tmp_path / run / name) for run in ("whole", "part"))
        assert first["step"] == int(name[5:11]) and set(first) == set(second)
        assert "optimizer" not in first and "average" not in first
        assert all(torch.equal(w, second["model"][n]) for n, w in first["model"].items())


def test_a_kept_copy_holds_the_weights_that_are_evaluated(tmp_path):
    task = Task(tmp_path, ema=0.5, keep_every=20).train()
    kept = load_checkpoint(tmp_path / "step_000020.pt")["model"]["head.weight"]
    last = load_checkpoint(tmp_path / "last.pt")
    assert torch.equal(kept, trained_weights(last)["head.weight"])
    assert not torch.equal(kept, task.model.head.weight)


@pytest.mark.parametrize("schedule", ["warmup", "valley", "sawtooth"])
@pytest.mark.parametrize("stop", [3, 7])
def test_run_resumed_inside_a_warm_up_continues_the_same_curve(tmp_path, schedule, stop):
    transfer = TransferSettings(schedule, decoder_share=0.25, warmup_share=0.3)
    Task(tmp_path / "whole", transfer).train()
    part = Task(tmp_path / "part", transfer, save_every=1)
    part.stop = stop
    with pytest.raises(KeyboardInterrupt):
        part.train()
    part = Task(tmp_path / "part", transfer, save_every=1)
    part.state.restore(load_checkpoint(tmp_path / "part" / "last.pt"))
    assert part.state.step == stop
    part.train()
    assert lines(tmp_path / "whole") == lines(tmp_path / "part")


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_step_reads_nothing_from_the_device(tmp_path, optimizer):
    task = Task(tmp_path, ema=0.9)
    settings = OptimizerSettings(optimizer)
    state = TrainState.fresh(task.model, settings, task.generators, ema=0.9)
    stepper = Stepper(
        task.model, state.optimizer, task.loss, settings, TransferSettings(), 2, bf16=True
    )
    with NoReading(task.model.parameters()):
        stepper.step(task.draw, 1, 2)
        state.average.update(1)


@pytest.mark.parametrize(("bf16", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_training_and_validation_compute_in_the_number_format_that_was_asked_for(
    tmp_path, bf16, dtype
):
    task, seen = Task(tmp_path, steps=1, batch=2), []
    task.model.register_forward_hook(lambda module, inputs, found: seen.append(found.dtype))
    train(
        task.state, task.draw, task.loss, task.loop, OPTIMIZER, tmp_path, bf16=bf16,
        validate=task.validate,
    )  # fmt: skip
    assert seen == [dtype, dtype]
    assert {p.dtype for p in task.model.parameters()} == {torch.float32}


def test_operations_are_counted_and_survive_resuming(tmp_path):
    task = Task(tmp_path).train()
    # Two linear layers, 4 samples: forward, gradient of weights, gradient of the second's input.
    products = 4 * (4 * 8 + 8)
    assert task.state.flops == 2 * (2 * products + 4 * 8)
    assert task.meter.samples_per_second > 0 and 0 < task.meter.utilization < 1
    again = Task(tmp_path)
    again.state.restore(load_checkpoint(tmp_path / "last.pt"))
    assert again.state.flops == task.state.flops


def test_tensorboard_is_written_where_it_is_installed(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Task(tmp_path, tensorboard=True).train()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    losses = [line["loss"] for line in lines(tmp_path) if "loss" in line]
    assert [e.value for e in events.Scalars("loss")] == pytest.approx(losses)
    assert [e.step for e in events.Scalars("validation_loss")] == [5, 10, 15, 20]


def test_compiled_network_learns_the_same(tmp_path):
    plain = Task(tmp_path / "plain", steps=4).train()
    torch._dynamo.reset()
    compiled = Task(tmp_path / "compiled", steps=4, compile=True)
    compiled.model.compile = lambda **kw: nn.Module.compile(compiled.model, backend="aot_eager")
    compiled.train()
    assert compiled.model._compiled_call_impl is not None
    assert torch.allclose(plain.weights(), compiled.weights(), atol=1e-5)
