"""The Residual Encoder U-Net: names, shapes and results of the published architecture."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from mim.networks import NetworkConfig, NetworkSettings, build_network, network_config
from mim.recipe import RecipeError

STRIDES = ((1, 1, 1), (2, 2, 2), (1, 2, 2))
KERNELS = ((1, 3, 3), (3, 3, 3), (3, 3, 3))
SMALL = NetworkConfig(2, 3, (4, 8, 8), STRIDES, KERNELS, (1, 2, 1))
RESENC_L = NetworkConfig(
    1,
    1,
    (32, 64, 128, 256, 320, 320),
    ((1, 1, 1),) + ((2, 2, 2),) * 5,
    ((3, 3, 3),) * 6,
    (1, 3, 4, 6, 6, 6),
)


def randomized(network: nn.Module) -> nn.Module:
    """Give every parameter a value that matters (fresh residual branches are zero)."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return network


def expected_names(config: NetworkConfig) -> set[str]:
    """The published names, spelled out independently of the code under test."""

    def unit(prefix, bias=True):
        conv = ["weight", "bias"] if bias else ["weight"]
        return {
            f"{prefix}.{part}.{name}"
            for part, names in (
                ("conv", conv),
                ("norm", ["weight", "bias"]),
                ("all_modules.0", conv),
                ("all_modules.1", ["weight", "bias"]),
            )
            for name in names
        }

    encoder = unit("encoder.stem.convs.0")
    channels = config.features[0]
    for stage, features in enumerate(config.features):
        for block in range(config.blocks[stage]):
            prefix = f"encoder.stages.{stage}.blocks.{block}"
            encoder |= unit(f"{prefix}.conv1") | unit(f"{prefix}.conv2")
            if block == 0 and channels != features:
                position = 1 if max(config.strides[stage]) > 1 else 0  # after the pooling
                encoder |= unit(f"{prefix}.skip.{position}", bias=False)
        channels = features
    decoder = {f"decoder.{name}" for name in encoder}
    for stage in range(len(config.features) - 1):
        for conv in range(config.decoder_convs):
            decoder |= unit(f"decoder.stages.{stage}.convs.{conv}")
        for part in ("transpconvs", "seg_layers"):
            decoder |= {f"decoder.{part}.{stage}.{name}" for name in ("weight", "bias")}
    return encoder | decoder


@pytest.mark.parametrize("config", [SMALL, RESENC_L], ids=["small", "resenc_l"])
def test_state_dict_has_exactly_the_published_names(config):
    with torch.device("meta"):
        network = build_network(config)
    assert set(network.state_dict()) == expected_names(config)


def test_resenc_l_has_the_published_size():
    with torch.device("meta"):
        network = build_network(RESENC_L)
    assert sum(p.numel() for p in network.parameters()) == 102_348_965
    assert (len(network.state_dict()), len(list(network.parameters()))) == (956, 264)


@pytest.mark.parametrize("deep_supervision", [False, True])
def test_equals_the_reference_library_both_ways(deep_supervision):
    unet = pytest.importorskip("dynamic_network_architectures.architectures.unet")
    config = NetworkConfig(
        2, 3, (4, 8, 8, 6), (*STRIDES, (2, 2, 2)), (*KERNELS, (3, 3, 3)), (1, 2, 2, 1), 2,
        deep_supervision,
    )  # fmt: skip
    ours = randomized(build_network(config))
    theirs = unet.ResidualEncoderUNet(
        2, 4, config.features, nn.Conv3d, config.kernel_sizes, config.strides, config.blocks, 3,
        (2, 2, 2), True, nn.InstanceNorm3d, {"eps": 1e-5, "affine": True}, None, None,
        nn.LeakyReLU, {"inplace": True}, deep_supervision=deep_supervision,
    )  # fmt: skip
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict(), strict=True)
    images = torch.randn(2, 2, 16, 16, 24)
    for mine, other in zip(ours(images), theirs(images), strict=True):
        assert torch.equal(mine, other)
    ours.load_state_dict(theirs.state_dict(), strict=True)


def test_residual_block_is_the_published_formula():
    """Leaky ReLU of (conv, norm, leaky ReLU, conv, norm) plus (average pool, 1x1x1 conv, norm)."""
    block = randomized(build_network(SMALL)).encoder.stages[1].blocks[0]
    images = torch.randn(2, 4, 8, 8, 8)

    def unit(x, part, **kwargs):
        x = functional.conv3d(x, part.conv.weight, part.conv.bias, **kwargs)
        return functional.instance_norm(x, weight=part.norm.weight, bias=part.norm.bias, eps=1e-5)

    main = functional.leaky_relu(unit(images, block.conv1, stride=2, padding=1), 0.01)
    main = unit(main, block.conv2, padding=1)
    skip = unit(functional.avg_pool3d(images, 2, 2), block.skip[1])
    expected = functional.leaky_relu(main + skip, 0.01)
    assert torch.allclose(block(images), expected, atol=1e-6)


def test_decoder_joins_the_upsampled_stage_before_the_skip():
    decoder = randomized(build_network(SMALL)).decoder
    fine, coarse = torch.randn(1, 4, 8, 8, 8), torch.randn(1, 8, 4, 4, 4)
    up, stage, head = decoder.transpconvs[1], decoder.stages[1], decoder.seg_layers[1]
    lowest = torch.randn(1, 8, 4, 2, 2)
    middle = decoder.stages[0](torch.cat((decoder.transpconvs[0](lowest), coarse), 1))
    expected = head(stage(torch.cat((up(middle), fine), 1)))
    assert torch.equal(decoder([fine, coarse, lowest]), expected)


def test_output_has_the_input_grid_and_one_channel_for_each_class():
    assert build_network(SMALL)(torch.zeros(2, 2, 8, 16, 12)).shape == (2, 3, 8, 16, 12)


def test_deep_supervision_gives_each_decoder_stage_the_finest_first():
    config = NetworkConfig(**{**SMALL.to_dict(), "deep_supervision": True})
    outputs = build_network(config)(torch.zeros(1, 2, 8, 16, 16))
    assert [tuple(o.shape) for o in outputs] == [(1, 3, 8, 16, 16), (1, 3, 4, 8, 8)]


def test_finest_output_is_the_same_with_and_without_deep_supervision():
    plain = randomized(build_network(SMALL))
    deep = build_network(NetworkConfig(**{**SMALL.to_dict(), "deep_supervision": True}))
    deep.load_state_dict(plain.state_dict())
    images = torch.randn(1, 2, 8, 16, 16)
    assert torch.equal(plain(images), deep(images)[0])


def test_fresh_residual_branches_start_at_zero():
    network = build_network(SMALL)
    for stage in network.encoder.stages:
        for block in stage.blocks:
            assert not block.conv2.norm.weight.any()


def test_same_seed_gives_same_weights():
    torch.manual_seed(3)
    first = build_network(SMALL).state_dict()
    torch.manual_seed(3)
    second = build_network(SMALL).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_patch_that_the_strides_do_not_divide_is_refused_with_the_divisor():
    network = build_network(SMALL)
    assert network.divisor == (2, 4, 4)
    network.check_patch((6, 8, 12))
    with pytest.raises(RecipeError, match=r"\(2, 4, 4\)"):
        network.check_patch((6, 8, 10))


def test_plan_decides_strides_and_the_number_of_stages():
    plan = {"strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]], "kernel_sizes": [[1, 3, 3]] * 3}
    config = network_config(NetworkSettings(), plan, 1, 4)
    assert config.features == (32, 64, 128) and config.blocks == (1, 3, 4)
    assert config.strides == ((1, 1, 1), (1, 2, 2), (2, 2, 2))
    assert config.kernel_sizes == ((1, 3, 3),) * 3


def test_recipe_strides_go_before_the_plan():
    settings = NetworkSettings(strides=((1, 1, 1), (1, 2, 2)))
    assert network_config(settings, {"strides": [[1, 1, 1]] * 5}, 1, 1).strides == (
        (1, 1, 1),
        (1, 2, 2),
    )


def test_config_survives_json():
    import json

    assert NetworkConfig.from_dict(json.loads(json.dumps(SMALL.to_dict()))) == SMALL


def test_unequal_numbers_of_blocks_and_features_are_refused():
    with pytest.raises(RecipeError, match="one for each stage"):
        NetworkSettings(features=(4, 8), blocks=(1,))
