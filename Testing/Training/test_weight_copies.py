"""Steps with bfloat16 copies of the weights are those of autocast, and resume as they were."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mim.checkpoint import load_checkpoint
from mim.device import Generators, seed_everything
from mim.loop import LoopSettings, TrainState, train
from mim.optim import OptimizerSettings, build_optimizer
from mim.schedule import TransferSettings
from mim.step import Stepper
from mim.vit import VisionTransformer, ViTConfig
from mim.weight_copies import WeightCopies

SETTINGS = OptimizerSettings(lr=0.02, warmup=2, clip=0.5, weight_decay=0.1)


@pytest.fixture(autouse=True)
def uncompiled():
    """The kernels as Python runs them; one test compiles."""
    with torch.compiler.set_stance("force_eager"):
        yield


def network():
    seed_everything(0)
    return nn.Sequential(
        nn.Conv1d(1, 8, 3, padding=1), nn.Flatten(), nn.Linear(64, 16), nn.LayerNorm(16), nn.GELU(),
        nn.Linear(16, 4, bias=False),
    )  # fmt: skip


class Steps:
    """A network that learns the sums of four pairs of numbers."""

    def __init__(self, copies, settings=SETTINGS, transfer=None, encoder=None):
        self.model, self.generator = network(), torch.Generator().manual_seed(0)
        self.optimizer = build_optimizer(self.model, settings, encoder=encoder)
        self.stepper = Stepper(
            self.model, self.optimizer, self.loss, settings, transfer or TransferSettings(), 1, True
        )
        if copies:
            self.stepper.copy_weights()

    def draw(self):
        inputs = torch.rand(4, 1, 8, generator=self.generator)
        return SimpleNamespace(inputs=inputs, cases=("case",) * 4)

    def loss(self, batch):
        truth = batch.inputs.view(4, 4, 2).sum(2)
        return (self.model(batch.inputs).float() - truth).square().mean()

    def take(self, steps=6):
        return [self.stepper.step(self.draw, i + 1, steps) for i in range(steps)]


def assert_same(ours, plain):
    for mine, theirs in zip(ours.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-6)


def test_weights_become_those_that_autocast_and_torch_give():
    ours, plain = Steps(copies=True), Steps(copies=False)
    before = copy.deepcopy(ours.model.state_dict())
    found, expected = ours.take(), plain.take()
    assert_same(ours, plain)
    assert all(not torch.equal(v, before[n]) for n, v in ours.model.state_dict().items())
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.loss.item() == pytest.approx(theirs.loss.item(), rel=1e-4)
        assert mine.norm.item() == pytest.approx(theirs.norm.item(), rel=1e-4)
    assert max(step.norm for step in expected) > SETTINGS.clip  # some steps were clipped


def test_only_matrices_of_linear_layers_are_copied_and_follow_their_weights():
    steps = Steps(copies=True)
    steps.take(3)
    copies = steps.stepper.copies.copies
    assert set(copies) == {steps.model[2].weight, steps.model[5].weight}
    assert all(torch.equal(c, weight.bfloat16()) for weight, c in copies.items())


def test_patch_embedding_is_a_linear_map_too():
    model = VisionTransformer(ViTConfig(1, (16,) * 3, (8,) * 3, width=12, depth=1, heads=2))
    copies = WeightCopies(model, build_optimizer(model, SETTINGS))
    assert {tuple(c.shape) for c in copies.copies.values()} == {
        (12, 1, 8, 8, 8), (36, 12), (12, 12), (48, 12), (12, 48),
    }  # fmt: skip
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = (call(torch.ones(1, 1, 16, 16, 16))[0] for call in (copies, model))
    assert torch.equal(found, expected)


def test_network_optimizer_and_their_files_know_nothing_of_the_copies():
    ours, plain = Steps(copies=True), Steps(copies=False)
    ours.take(3), plain.take(3)
    assert {p.dtype for p in ours.model.parameters()} == {torch.float32}
    mine, theirs = ours.optimizer.state_dict(), plain.optimizer.state_dict()
    assert mine["param_groups"] == theirs["param_groups"]
    assert mine["state"].keys() == theirs["state"].keys()
    for number, state in theirs["state"].items():
        assert {k: (v.dtype, v.shape) for k, v in mine["state"][number].items()} == {
            k: (v.dtype, v.shape) for k, v in state.items()
        }
        assert mine["state"][number]["step"] == state["step"] == 3


def test_encoder_that_is_frozen_does_not_move():
    frozen = TransferSettings("frozen")
    ours, plain = (Steps(c, transfer=frozen, encoder=("0.", "2.")) for c in (True, False))
    before = ours.model[2].weight.clone()
    ours.take(), plain.take()
    assert torch.equal(ours.model[2].weight, before)
    assert not torch.equal(ours.model[5].weight, network()[5].weight)
    assert_same(ours, plain)


@pytest.mark.parametrize(("bf16", "accumulate", "name"), [
    (False, 1, "adamw"), (True, 2, "adamw"), (True, 1, "sgd"),
])  # fmt: skip
def test_there_are_no_copies_where_they_would_change_the_numbers(bf16, accumulate, name):
    model, settings = network(), OptimizerSettings(name)
    stepper = Stepper(
        model,
        build_optimizer(model, settings),
        None,
        settings,
        TransferSettings(),
        accumulate,
        bf16,
    )
    stepper.copy_weights()
    assert stepper.copies is None


def run(folder, stop=None):
    """Six compiled steps, the first ``stop`` of them and no more where that is given."""
    steps = Steps(copies=False)
    state = TrainState.fresh(steps.model, SETTINGS, Generators.seeded(0), ema=0.9)
    steps.generator = state.generators.host
    if (folder / "last.pt").exists():
        state.restore(load_checkpoint(folder / "last.pt"))

    def draw():
        if state.step == stop:
            raise KeyboardInterrupt
        return steps.draw()

    loop = LoopSettings(steps=6, batch=4, compile=True, ema=0.9, save_every=1, tensorboard=False)
    steps.model.compile = lambda **_: nn.Module.compile(steps.model, backend="aot_eager")
    train(state, draw, steps.loss, loop, SETTINGS, folder, bf16=True)
    return state


@pytest.mark.parametrize("stop", [1, 4])
def test_run_that_is_resumed_has_the_weights_of_one_that_was_not(tmp_path, stop):
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", stop)
    part = run(tmp_path / "part")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(part.model.state_dict()[name], value)
        assert torch.equal(part.average.values[name], whole.average.values[name])


def test_compiled_update_is_that_of_torch():
    with torch.compiler.set_stance("default"):
        ours = Steps(copies=True)
        ours.take(3)
    plain = Steps(copies=False)
    plain.take(3)
    assert_same(ours, plain)
