"""A checkpoint that nnU-Net's pre-trained trainer loads: keys, names, types."""

import json

import pytest
import torch
from torch import nn

import export
from mim.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from mim.networks import NetworkConfig, build_network
from mim.nnssl_export import export_nnssl
from mim.transfer import load_pretrained
from MIMSegment.Logic.errors import OutputError

CONFIG = NetworkConfig(
    2, 2, (4, 8, 8), ((1, 1, 1), (1, 2, 2), (2, 2, 2)), ((1, 3, 3), (3, 3, 3), (3, 3, 3)), (1, 2, 1)
)
PLAN = {"name": "brains", "patch": [16, 32, 32], "preprocessing": {"spacing": [3.0, 1.0, 1.0]}}


class Pretrained(nn.Module):
    """As a method holds its network: with a token beside it that is no part of it."""

    def __init__(self, config):
        super().__init__()
        self.network = build_network(config)
        self.token = nn.Parameter(torch.zeros(1))


@pytest.fixture
def trained(tmp_path):
    model = Pretrained(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    metadata = {"kind": "s3d", "network": CONFIG.to_dict(), "plan": PLAN, "recipe": {"patch": []}}
    content = {"metadata": metadata, "model": model.state_dict(), "step": 7}
    save_checkpoint(tmp_path / "last.pt", content)
    return model.network, tmp_path / "last.pt"


def load(folder):
    return torch.load(folder / "checkpoint_final.pth", weights_only=True)


def test_file_has_every_key_of_nnssl_and_opens_without_running_code(trained, tmp_path):
    export_nnssl(trained[1], tmp_path / "out")
    content = load(tmp_path / "out")
    assert set(content) == {
        "network_weights", "optimizer_state", "grad_scaler_state", "logging", "_best_ema",
        "current_epoch", "init_args", "trainer_name", "nnssl_adaptation_plan", "citations",
    }  # fmt: skip
    plan = content["nnssl_adaptation_plan"]
    assert set(plan) == {
        "architecture_plans", "pretrain_plan", "pretrain_num_input_channels",
        "recommended_downstream_patchsize", "key_to_encoder", "key_to_stem", "keys_to_in_proj",
        "key_to_lpe",
    }  # fmt: skip
    (configuration,) = plan["pretrain_plan"]["configurations"].values()
    assert configuration["patch_size"] == [16, 32, 32] and configuration["spacing"] == [3, 1, 1]
    assert plan["pretrain_num_input_channels"] == 2 and plan["key_to_lpe"] is None
    written = json.loads((tmp_path / "out" / "adaptation_plan.json").read_text())
    assert written == {**plan, "trainer_name": content["trainer_name"]}
    assert json.loads((tmp_path / "out" / "config.json").read_text())


def test_averaged_weights_are_the_ones_that_are_written(trained, tmp_path):
    content = load_checkpoint(trained[1])
    last = {name: torch.zeros_like(tensor) for name, tensor in content["model"].items()}
    averaged = {**content, "model": last, "average": content["model"]}
    save_checkpoint(tmp_path / "averaged.pt", averaged)
    export_nnssl(tmp_path / "averaged.pt", tmp_path / "out")
    written = load(tmp_path / "out")["network_weights"]
    name = "encoder.stages.1.blocks.0.conv1.conv.weight"
    assert torch.equal(written[name], trained[0].get_parameter(name))


def test_network_of_the_plan_takes_encoder_and_stem_strictly(trained, tmp_path):
    """The rule of nnU-Net's trainer: submodules by the plan's keys, every name, equal shapes."""
    unet = pytest.importorskip("dynamic_network_architectures.architectures.unet")
    export_nnssl(trained[1], tmp_path / "out")
    content = load(tmp_path / "out")
    plan, weights = content["nnssl_adaptation_plan"], content["network_weights"]
    options = dict(plan["architecture_plans"]["arch_kwargs"])
    for name in plan["architecture_plans"]["arch_kwargs_requiring_import"]:
        options[name] = options[name] and getattr(nn, options[name].rsplit(".", 1)[-1])
    network = getattr(unet, plan["architecture_plans"]["arch_class_name"])(
        input_channels=2, num_classes=5, deep_supervision=False, **options
    )
    for own, key in ((network.key_to_encoder, plan["key_to_encoder"]),
                     (network.key_to_stem, plan["key_to_stem"])):  # fmt: skip
        part = {k.removeprefix(f"{key}."): v for k, v in weights.items() if k.startswith(f"{key}.")}
        network.get_submodule(own).load_state_dict(part, strict=True)
    images = torch.randn(1, 2, 16, 32, 32)
    with torch.no_grad():
        for mine, theirs in zip(trained[0].encoder(images), network.encoder(images), strict=True):
            assert torch.equal(mine, theirs)


def test_all_aliases_are_there_and_share_their_storage(trained, tmp_path):
    export_nnssl(trained[1], tmp_path / "out")
    content = load(tmp_path / "out")
    weights = content["network_weights"]
    assert list(weights) == list(trained[0].state_dict())
    for key in content["nnssl_adaptation_plan"]["keys_to_in_proj"]:
        assert torch.equal(weights[f"{key}.weight"], trained[0].encoder.stem.convs[0].conv.weight)
    numbers = sum(p.numel() for p in trained[0].parameters())
    assert (tmp_path / "out" / "checkpoint_final.pth").stat().st_size < 4 * numbers + 200_000


def test_own_loader_reads_it_back(trained, tmp_path):
    export_nnssl(trained[1], tmp_path / "out")
    target = build_network(CONFIG)
    report = load_pretrained(target, tmp_path / "out" / "checkpoint_final.pth")
    assert report.shares == {"encoder": 1, "decoder": 1}
    assert torch.equal(
        target.encoder.stages[2].blocks[0].conv1.conv.weight,
        trained[0].encoder.stages[2].blocks[0].conv1.conv.weight,
    )


def test_command_writes_it_and_says_how_to_go_on(trained, tmp_path, capsys):
    assert export.main(["--to-nnssl", str(trained[1]), str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "nnUNetv2_preprocess_like_nnssl" in text and "16×32×32" in text
    assert export.main(["--to-nnssl", str(trained[1]), str(tmp_path / "out")]) == 2
    assert "already" in capsys.readouterr().err


def test_other_networks_are_refused_by_name(trained, tmp_path):
    metadata = {"kind": "mae_vit", "network": {"name": "vit"}, "plan": PLAN, "recipe": {}}
    save_checkpoint(tmp_path / "vit.pt", {"metadata": metadata, "model": {}})
    with pytest.raises(CheckpointError, match=r"vit\.pt holds no residual encoder U-Net"):
        export_nnssl(tmp_path / "vit.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folder_that_cannot_be_made_is_an_error(trained, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="could not be written"):
        export_nnssl(trained[1], tmp_path / "file" / "out")


def test_a_mean_of_what_is_not_zero_is_told(trained, tmp_path):
    content = load_checkpoint(trained[1])
    plan = content["metadata"]["plan"]
    schemes = [{"scheme": "zscore", "nonzero": True}, {"scheme": "none", "nonzero": False}]
    plan["preprocessing"] = {**plan["preprocessing"], "normalization": schemes}
    save_checkpoint(tmp_path / "masked.pt", content)
    export_nnssl(tmp_path / "masked.pt", tmp_path / "out")
    plan = load(tmp_path / "out")["nnssl_adaptation_plan"]["pretrain_plan"]
    (configuration,) = plan["configurations"].values()
    assert configuration["normalization_schemes"] == ["ZScoreNormalization", "NoNormalization"]
    assert configuration["use_mask_for_norm"] == [True, False]
