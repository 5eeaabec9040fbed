"""The loop: what it logs and saves, and that stopping it loses and damages nothing."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mim.checkpoint import load_checkpoint
from mim.device import Generators, global_rng_state, seed_everything, uses_bf16
from mim.loop import LoopSettings, TrainState, train
from mim.optim import OptimizerSettings, build_optimizer, learning_rate
from mim.run_log import TrainingError
from mim.schedule import TransferSettings
from mim.step import Stepper
from MIMSegment.Logic.errors import OutputError

OPTIMIZER = OptimizerSettings(lr=0.05, warmup=3)


class Task:
    """A regression problem that is drawn from the run's generators, in the commands' shape."""

    def __init__(self, run, poison=0):
        seed_everything(0)
        self.run, self.poison, self.validations = run, poison, 0
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
        self.generators = Generators.seeded(0)
        self.state = TrainState.fresh(self.model, OPTIMIZER, self.generators)

    def draw(self):
        inputs = torch.rand(2, 4, generator=self.generators.host)
        if self.state.step + 1 == self.poison:
            inputs[1, 2] = torch.nan
        return SimpleNamespace(inputs=inputs, cases=(f"case_{self.state.step}", "other"))

    def loss(self, batch):
        return (self.model(batch.inputs)[:, 0] - batch.inputs.sum(1)).square().mean()

    def validate(self):
        assert not self.model.training and not torch.is_grad_enabled()
        self.validations += 1
        return {"validation_loss": float(self.loss(SimpleNamespace(inputs=torch.ones(1, 4))))}

    def train(self, steps=20, **settings):
        loop = LoopSettings(
            steps, 2, **{"validate_every": 8, "save_every": 5, "tensorboard": False, **settings}
        )
        train(
            self.state,
            self.draw,
            self.loss,
            loop,
            OPTIMIZER,
            self.run,
            validate=self.validate,
            metadata={"kind": "test"},
        )
        return self

    def resumed(self):
        self.state.restore(load_checkpoint(self.run / "last.pt"))
        return self


def curve(run):
    """The log without what depends on the clock."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "second" not in key} for line in lines]


def weights(task):
    return torch.cat([p.detach().flatten() for p in task.model.parameters()])


def test_every_step_and_validation_has_its_line(tmp_path):
    task = Task(tmp_path).train()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 21))
    assert [line["step"] for line in lines if "validation_loss" in line] == [8, 16, 20]
    assert task.validations == 3
    assert set(steps[0]) == {
        "step", "loss", "lr", "grad_norm", "seconds", "data_seconds", "samples_per_second"
    }  # fmt: skip
    assert [line["lr"] for line in steps] == [learning_rate(OPTIMIZER, i, 20) for i in range(20)]
    assert sum(line["loss"] for line in steps[-5:]) < sum(line["loss"] for line in steps[:5])


def test_how_often_the_log_is_written_changes_nothing(tmp_path):
    curves = []
    for every in (1, 7, 50):
        Task(tmp_path / str(every)).train(log_every=every)
        curves.append(curve(tmp_path / str(every)))
    assert curves[0] == curves[1] == curves[2]


@pytest.mark.parametrize("stop", [1, 5, 12])
def test_resumed_run_is_equal_bit_by_bit(tmp_path, stop):
    whole = Task(tmp_path / "whole").train()
    part = Task(tmp_path / "part")

    class Stop(Exception):
        """In place of a crop: the run ends there."""

    draw = part.draw

    def draw_or_stop():
        if part.state.step == stop:
            raise Stop
        return draw()

    part.draw = draw_or_stop
    with pytest.raises(Stop):
        part.train(save_every=3, log_every=1)
    part = Task(tmp_path / "part")
    if (tmp_path / "part" / "last.pt").exists():
        seed_everything(99)  # a new process has other global generators
        part.resumed()
        assert part.state.step == stop // 3 * 3
    part.train(save_every=3, log_every=1)
    assert torch.equal(weights(whole), weights(part))
    assert curve(tmp_path / "whole") == curve(tmp_path / "part")


def test_finished_run_that_is_resumed_stays_as_it_is(tmp_path):
    Task(tmp_path).train()
    before = (tmp_path / "log.jsonl").read_text()
    Task(tmp_path).resumed().train()
    assert (tmp_path / "log.jsonl").read_text() == before


def test_restoring_brings_back_every_random_generator(tmp_path):
    task = Task(tmp_path).train()
    expected = global_rng_state()
    drawn = torch.rand(3, generator=task.generators.host)
    seed_everything(99)
    restored = Task(tmp_path).resumed()
    state = global_rng_state()
    assert state["python"] == expected["python"]
    assert torch.equal(state["torch"], expected["torch"])
    assert torch.equal(state["numpy"][1], expected["numpy"][1])
    assert torch.equal(torch.rand(3, generator=restored.generators.host), drawn)


@pytest.mark.parametrize("log_every", [1, 10])
def test_loss_that_is_no_number_stops_with_step_and_cases(tmp_path, log_every):
    with pytest.raises(TrainingError, match=r"Step 13: the loss is nan .* case_12, other"):
        Task(tmp_path, poison=13).train(log_every=log_every)
    assert [line["step"] for line in curve(tmp_path) if "loss" in line][-1] == 12
    checkpoint = load_checkpoint(tmp_path / "last.pt")
    assert checkpoint["step"] == 10
    assert all(tensor.isfinite().all() for tensor in checkpoint["model"].values())
    stopped = load_checkpoint(tmp_path / "stopped.pt")
    assert stopped["step"] >= 13 and stopped["metadata"]["kind"] == "test"


def test_poisoned_weights_are_never_saved(tmp_path):
    with pytest.raises(TrainingError):
        Task(tmp_path, poison=10).train(log_every=50)
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 5


def test_full_disk_leaves_the_last_checkpoint_intact(tmp_path, monkeypatch):
    task = Task(tmp_path).train(steps=5)
    before = (tmp_path / "last.pt").read_bytes()

    def full(content, file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match=r"last\.pt could not .*No space left.* intact.*--resume"):
        task.train(steps=20, validate_every=100)
    assert (tmp_path / "last.pt").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"best.pt", "last.pt", "log.jsonl"}


def test_log_that_cannot_be_written_is_a_clear_error(tmp_path, monkeypatch):
    task = Task(tmp_path).train(steps=5)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mim.run_log.json_text", full)
    with pytest.raises(OutputError, match=r"log\.jsonl could not be written .*No space left"):
        task.train(steps=10)


def test_gradient_is_clipped_to_its_norm():
    model = nn.Linear(3, 1)
    settings = OptimizerSettings(
        name="sgd", lr=1.0, momentum=0.5, weight_decay=0.0, clip=0.1, warmup=0
    )
    before = [p.detach().clone() for p in model.parameters()]
    stepper = Stepper(
        model,
        build_optimizer(model, settings),
        lambda batch: 100 * model(torch.ones(1, 3)).sum(),
        settings,
        TransferSettings(),
        accumulate=1,
        bf16=False,
    )
    record = stepper.step(lambda: SimpleNamespace(cases=("a",)), 1, 1)
    moved = sum((p - q).square().sum() for p, q in zip(model.parameters(), before, strict=True))
    assert record.norm == pytest.approx(200.0)
    assert moved.sqrt().item() == pytest.approx(0.1 * 1.5, rel=1e-3)  # Nesterov's first step


def test_bf16_follows_the_hardware_and_the_wish():
    cpu = torch.device("cpu")
    assert uses_bf16("bf16", cpu) and not uses_bf16("fp32", cpu)
    features = torch.cpu.get_capabilities()
    expected = bool(features.get("avx512_bf16") or features.get("amx_bf16"))
    assert uses_bf16("auto", cpu) == expected
