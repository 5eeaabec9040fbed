"""Learning rates by step, schedule and layer; what decays and what is frozen."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mim import architectures
from mim.device import Generators
from mim.layers import layer_scales
from mim.loop import TrainState
from mim.networks import NetworkConfig, build_network
from mim.optim import OptimizerSettings, build_optimizer, learning_rate
from mim.recipe import RecipeError
from mim.run_log import TrainingError
from mim.schedule import TransferSettings, pace
from mim.sparse_unet import SparseMaskedUNet, SparseSettings
from mim.step import Stepper
from mim.swin import SwinUNETRSettings
from mim.transfer import part_of
from mim.vit_classifier import ViTClassifierSettings


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cosine", {0: 0.25, 3: 1.0, 4: 1.0, 54: 0.5, 104: 0.0}),
        ("poly", {0: 0.25, 3: 1.0, 4: 1.0, 54: 0.5**0.9, 104: 0.0}),
        ("constant", {0: 0.25, 3: 1.0, 54: 1.0, 104: 1.0}),
    ],
)
def test_learning_rate_rises_and_falls_as_named(schedule, expected):
    settings = OptimizerSettings(lr=1.0, warmup=4, schedule=schedule)
    for step, value in expected.items():
        assert learning_rate(settings, step, 104) == pytest.approx(value)


def test_warm_up_longer_than_the_run_is_no_error():
    settings = OptimizerSettings(lr=1.0, warmup=10)
    assert all(math.isfinite(learning_rate(settings, step, 5)) for step in range(5))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_weight_decay_spares_biases_and_norms(name):
    model = nn.Sequential(nn.Conv3d(1, 2, 3), nn.InstanceNorm3d(2, affine=True))
    decayed, spared = build_optimizer(model, OptimizerSettings(name=name)).param_groups
    assert [p.ndim for p in decayed["params"]] == [5] and decayed["weight_decay"] == 0.01
    assert [p.ndim for p in spared["params"]] == [1, 1, 1] and spared["weight_decay"] == 0


@pytest.mark.parametrize(
    ("settings", "spared"),
    [
        (ViTClassifierSettings((4, 4, 4), 24, 1, 2), {"vit.patch_embedding.position_embeddings"}),
        (
            SwinUNETRSettings(12, (1, 1, 1, 1), (1, 1, 1, 1), (2, 2, 2)),
            {
                f"swinViT.layers{i}.0.blocks.0.attn.relative_position_bias_table"
                for i in range(1, 5)
            },
        ),
    ],
)
def test_weight_decay_spares_positions(settings, spared):
    config = architectures.configure(settings, {}, (32, 32, 64), 1, 2)
    model = architectures.build(config)
    assert decayed_of(model) == {
        n for n, p in model.named_parameters() if p.ndim > 1 and n not in spared
    }


def test_weight_decay_spares_tokens():
    sizes = ((1,) * 3, (2,) * 3), ((3,) * 3,) * 2, (1, 1)
    config = NetworkConfig(1, 1, (4, 8), *sizes)
    model = SparseMaskedUNet(build_network(config), config, SparseSettings(fill="token"))
    assert {n for n, _ in model.named_parameters() if "token" in n} == {
        "mask_token", "tokens.0", "tokens.1"
    }  # fmt: skip
    assert not [name for name in decayed_of(model) if "token" in name]
    assert {"densifiers.1.conv.weight", "network.encoder.stem.convs.0.conv.weight"} <= decayed_of(
        model
    )


def test_a_run_whose_weights_were_sorted_otherwise_is_not_resumed_but_told():
    model = nn.Linear(2, 2)
    state = TrainState.fresh(model, OptimizerSettings(), Generators.seeded(0))
    older = torch.optim.AdamW(model.parameters()).state_dict()
    content = {"processes": [{}], "model": model.state_dict(), "optimizer": older}
    with pytest.raises(TrainingError, match=r"another version.*pretrained=RUN/last\.pt"):
        state.restore(content)


def decayed_of(model):
    groups = build_optimizer(model, OptimizerSettings(weight_decay=0.05)).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] == 0.05 for p in group["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in decayed}


def test_frozen_parameters_are_not_optimized():
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    groups = build_optimizer(model, OptimizerSettings()).param_groups
    assert [len(group["params"]) for group in groups] == [1]


# Of 1,000 steps, in units of the highest rate; 5 % for each stage of the schedule, falls linear in
# the exponent 0.9 ("poly"). The encoder learns where the rate is not in brackets.
RATES = {
    "default": {0: 1.0, 500: 0.5**0.9, 999: 0.001**0.9},
    "frozen": {0: [1.0], 500: [0.5**0.9], 999: [0.001**0.9]},
    "warmup": {0: 0.02, 24: 0.5, 49: 1.0, 50: 1.0, 525: 0.5**0.9, 999: (1 / 950) ** 0.9},
    "valley": {0: [1.0], 25: [0.5**0.9], 49: [0.02**0.9], 50: 0.02, 74: 0.5, 99: 1.0, 100: 1.0,
               550: 0.5**0.9, 999: (1 / 900) ** 0.9},
    "sawtooth": {0: [0.02], 24: [0.5], 49: [1.0], 50: 0.02, 74: 0.5, 99: 1.0, 100: 1.0,
                 550: 0.5**0.9, 999: (1 / 900) ** 0.9},
}  # fmt: skip


@pytest.mark.parametrize("name", RATES)
def test_rates_of_the_schedules_are_the_table(name):
    optimizer = OptimizerSettings(lr=1.0, warmup=0, schedule="poly")
    for step, expected in RATES[name].items():
        now = pace(TransferSettings(name), optimizer, step, 1000)
        alone = isinstance(expected, list)
        assert now.encoder != alone, step
        assert now.lr == pytest.approx(expected[0] if alone else expected), step


class EncoderAndHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.head = nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.encoder(x))


def steps(transfer, count, model):
    """Take ``count`` steps; yields after each, with the gradients still there."""
    settings = OptimizerSettings(lr=0.1, warmup=0)
    optimizer = build_optimizer(model, settings, None, "encoder.")
    loss = lambda batch: model(torch.ones(2, 3)).square().mean()  # noqa: E731
    stepper = Stepper(model, optimizer, loss, settings, transfer, 1, False)
    for number in range(1, count + 1):
        stepper.step(lambda: SimpleNamespace(cases=("a", "b")), number, count)
        yield number


def test_frozen_parameters_have_no_gradient_and_do_not_move():
    model = EncoderAndHead()
    before = model.encoder.weight.detach().clone()
    for _ in steps(TransferSettings("frozen"), 3, model):
        assert all(p.grad is None and not p.requires_grad for p in model.encoder.parameters())
        assert all(p.grad is not None for p in model.head.parameters())
    assert torch.equal(model.encoder.weight, before)


def test_sawtooth_frees_the_encoder_after_the_decoders_turn():
    transfer = TransferSettings("sawtooth", decoder_share=0.3, warmup_share=0.2)
    model = EncoderAndHead()
    learns = [model.encoder.weight.grad is not None for _ in steps(transfer, 10, model)]
    assert learns == [False] * 3 + [True] * 7


def test_layer_decay_gives_each_stage_of_a_residual_encoder_its_rate():
    config = NetworkConfig(
        1, 2, (4, 4, 4), ((1,) * 3, (2,) * 3, (2,) * 3), ((3,) * 3,) * 3, (1,) * 3
    )
    model = build_network(config)
    scales = layer_scales(model, "encoder.", 0.5, 2.0)
    expected = {"encoder.stem": 0.0625, "encoder.stages.0": 0.125, "encoder.stages.1": 0.25,
                "encoder.stages.2": 0.5, "decoder.": 2.0}  # fmt: skip
    for prefix, scale in expected.items():
        found = {scales[name] for name in scales if name.startswith(prefix)}
        assert found == {scale}, prefix
    settings = OptimizerSettings(lr=0.1, warmup=0)
    optimizer = build_optimizer(model, settings, scales, "encoder.")
    rates = {(group["scale"], group["encoder"]) for group in optimizer.param_groups}
    assert rates == {(2.0, False), (0.0625, True), (0.125, True), (0.25, True), (0.5, True)}


def test_every_layer_of_a_transformer_takes_its_steps_at_its_own_rate():
    settings = ViTClassifierSettings(patch=(4, 4), width=12, depth=2, heads=2)
    model = architectures.build(architectures.configure(settings, {}, (8, 8), 1, 3))
    encoder = tuple(n for n, _ in model.named_parameters() if part_of(n) == "encoder")
    optimizer_settings = OptimizerSettings(lr=0.1, warmup=4)
    optimizer = build_optimizer(
        model, optimizer_settings, layer_scales(model, encoder, 0.5, 3.0), encoder
    )
    loss = lambda batch: model(torch.ones(2, 1, 8, 8)).square().mean()  # noqa: E731
    stepper = Stepper(model, optimizer, loss, optimizer_settings, TransferSettings(), 1, False)
    factors = {"vit.patch_embedding.": 0.125, "vit.blocks.0.": 0.25, "vit.blocks.1.": 0.5,
               "vit.norm.": 0.5, "head.": 3.0}  # fmt: skip
    name_of = {parameter: name for name, parameter in model.named_parameters()}
    for number, rate in [(1, 0.025), (2, 0.05), (4, 0.1)]:  # rises in four steps
        record = stepper.step(lambda: SimpleNamespace(cases=("a", "b")), number, 10)
        assert record.lr == pytest.approx(rate)
        found = {}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                found[name_of[parameter]] = group["lr"]
        assert set(found) == set(name_of.values())
        for name, value in found.items():
            (factor,) = (f for prefix, f in factors.items() if name.startswith(prefix))
            assert value == pytest.approx(rate * factor), name


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["vit.patch_embedding.w", "vit.blocks.0.mlp.w", "vit.blocks.11.mlp.w", "vit.norm.w"],
            [0, 1, 12, 12],
        ),
        (["swinViT.p_embed.w", "swinViT.layers1.0.blocks.1", "swinViT.layers4.0.w"], [0, 1, 4]),
        (["encoder.stem.convs.0.conv.w", "encoder.stages.0.blocks.2.w"], [0, 1]),
    ],
)  # fmt: skip
def test_layers_are_counted_in_every_kind_of_encoder(names, expected):
    from mim.layers import layers

    assert list(layers(names).values()) == expected


def test_impossible_schedules_are_refused():
    with pytest.raises(RecipeError, match="below 1 together"):
        TransferSettings(decoder_share=0.6, warmup_share=0.5)
    with pytest.raises(RecipeError, match="layer_decay"):
        TransferSettings(layer_decay=1.5)


def test_layer_decay_knows_the_convolutions_of_swin_unetr_v2():
    settings = SwinUNETRSettings(width=12, depths=(1, 1, 1, 1), convs=True)
    config = architectures.configure(settings, {}, (64, 32, 32), 1, 2)
    model = architectures.build(config)
    scales = layer_scales(model, "swinViT.", 0.5, 3.0)
    for stage in range(1, 5):
        names = [name for name in scales if name.startswith(f"swinViT.layers{stage}c.")]
        assert names and {scales[name] for name in names} == {0.5 ** (5 - stage)}
