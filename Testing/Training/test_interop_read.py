"""Weights of other programs arrive completely, and what does not fit is named."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from finetune import FinetuneRecipe
from mim import architectures
from mim.checkpoint import CheckpointError
from mim.networks import NetworkConfig, build_network
from mim.recipe import load_recipe
from mim.swin import SwinUNETRSettings
from mim.transfer import load_pretrained
from mim.weight_files import read_weights
from mim.weight_shapes import inflate

RECIPES = Path(__file__).resolve().parents[2] / "training" / "recipes"
CONFIG = NetworkConfig(
    1, 1, (4, 8, 8), ((1, 1, 1), (2, 2, 2), (2, 2, 2)), ((3, 3, 3),) * 3, (1, 2, 1)
)
PLAN = {"key_to_encoder": "encoder.stages", "key_to_stem": "encoder.stem"}


def randomized(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
    return network


def network(**changes):
    return build_network(NetworkConfig(**{**CONFIG.to_dict(), **changes}))


def same(first: nn.Module, second: nn.Module, skip: tuple[str, ...] = ("decoder.seg_layers.",)):
    theirs = dict(second.named_parameters())
    return all(
        torch.equal(p, theirs[n]) for n, p in first.named_parameters() if not n.startswith(skip)
    )


def monai_net(name: str, *arguments, **options) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nets = pytest.importorskip("monai.networks.nets")
        return randomized(getattr(nets, name)(*arguments, **options))


def swin(**options):
    return monai_net("SwinUNETR", 1, 3, feature_size=12, **options)


def unetr():
    return monai_net(
        "UNETR", 1, 3, (32, 32, 32), feature_size=8, hidden_size=48, mlp_dim=96, num_heads=4
    )


def nnssl_content(state, **more):
    """The keys of nnssl's checkpoint_final.pth, NumPy scalars in the log included."""
    return {
        "network_weights": state,
        "optimizer_state": {},
        "grad_scaler_state": None,
        "logging": {"train_losses": [np.float64(0.5)]},
        "_best_ema": np.float32(0.1),
        "current_epoch": 1000,
        "init_args": {},
        "trainer_name": "BaseMAETrainer",
        **more,
    }


def test_openmind_checkpoint_arrives_with_all_its_aliases(tmp_path):
    source, target = randomized(network()), network(out_channels=3)
    content = nnssl_content(source.state_dict(), nnssl_adaptation_plan=PLAN)
    torch.save(content, tmp_path / "checkpoint_final.pth")
    report = load_pretrained(target, tmp_path / "checkpoint_final.pth")
    assert same(target, source)
    assert report.shares == {"encoder": 1.0, "decoder": 1.0} and not report.adapted
    assert "written as nnssl by BaseMAETrainer" in report.summary()


@pytest.mark.parametrize(
    ("spacing", "warns"), [((1.0, 1.0, 1.2), False), ((0.43, 0.43, 0.5), True), (None, False)]
)
def test_voxels_of_another_size_than_pretrained_are_warned_of(tmp_path, spacing, warns):
    configurations = {"configurations": {"onemmiso": {"spacing": [1.0, 1.0, 1.0]}}}
    plan = {**PLAN, "pretrain_plan": configurations}
    content = nnssl_content(network().state_dict(), nnssl_adaptation_plan=plan)
    torch.save(content, tmp_path / "checkpoint_final.pth")
    summary = load_pretrained(
        network(), tmp_path / "checkpoint_final.pth", spacing=spacing
    ).summary()
    assert ("WARNING: pre-trained on voxels of 1 x 1 x 1 mm" in summary) == warns


def test_torn_aliases_of_a_sparse_pretraining_give_the_trained_ones(tmp_path):
    trained, stale = randomized(network()), randomized(network())
    state = {
        name: (
            trained if ".all_modules." in name and name.startswith("encoder.") else stale
        ).state_dict()[name]
        for name in trained.state_dict()
    }
    torch.save(nnssl_content(state), tmp_path / "s3d.pth")
    target = network()
    report = load_pretrained(target, tmp_path / "s3d.pth", parts=("encoder",))
    assert same(target.encoder, trained.encoder)
    assert "not the same values" in report.summary()


def test_wrappers_are_taken_off(tmp_path):
    source, target = randomized(network()), network()
    state = {f"module._orig_mod.{k}": v for k, v in source.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "ddp.pt")
    load_pretrained(target, tmp_path / "ddp.pt")
    assert same(target, source)


@pytest.mark.parametrize("form", ["load_from", "disruptive", "voco", "voco_bare"])
def test_swin_weights_in_every_published_form(tmp_path, form):
    source, target = swin(use_v2=form.startswith("voco")), swin(use_v2=form.startswith("voco"))
    state = source.state_dict()
    encoder = {k.removeprefix("swinViT."): v for k, v in state.items() if k.startswith("swinViT.")}
    if form == "load_from":
        state = {f"module.{k.replace('linear', 'fc')}": v for k, v in encoder.items()}
    if form == "disruptive":
        state = {
            f"encoder.{k}" if k.startswith("patch") else f"encoder.{k[:10]}0.{k[10:]}": v
            for k, v in encoder.items()
        } | {"encoder.mask_token": torch.zeros(1)}
    content = {
        "load_from": {"state_dict": state},
        "disruptive": {"model": state},
        "voco": {"state_dict": state},
        "voco_bare": state,
    }[form]
    torch.save(content, tmp_path / "swin.pt")
    report = load_pretrained(target, tmp_path / "swin.pt")
    assert same(target.swinViT, source.swinViT) and report.shares["encoder"] == 1
    assert report.shares["decoder"] == (1 if form.startswith("voco") else 0)


def test_swin_of_self_supervision_fills_a_segmenter_of_several_sequences(tmp_path):
    """MONAI's pre-training of SwinUNETR: one channel, wrapped, with heads of its own tasks."""
    source = swin()
    state = {
        f"module.{name.removeprefix('swinViT.').replace('linear', 'fc')}": tensor
        for name, tensor in source.state_dict().items()
        if name.startswith("swinViT.")
    }
    for head in ("rotation_head", "contrastive_head", "norm"):
        state[f"module.{head}.weight"] = torch.randn(4, 4)
    torch.save({"state_dict": state}, tmp_path / "model_swinvit.pt")
    settings = SwinUNETRSettings(width=12)
    target = architectures.build(architectures.configure(settings, {}, (64, 64, 64), 4, 3))
    report = load_pretrained(target, tmp_path / "model_swinvit.pt", parts=("encoder",))
    assert report.shares["encoder"] == 1
    assert report.adapted == {"swinViT.patch_embed.proj.weight": "1 to 4 input channels"}
    assert {"rotation_head.weight", "contrastive_head.weight"} <= set(report.skipped)
    blocks = "layers3.0.blocks.1.mlp.linear2.weight"
    theirs, ours = source.swinViT.get_parameter(blocks), target.swinViT.get_parameter(blocks)
    assert torch.equal(theirs, ours)
    scan = torch.randn(1, 1, 8, 8, 8)  # the same image in every channel is the same as before
    embedded = target.swinViT.patch_embed(scan.repeat(1, 4, 1, 1, 1))
    assert torch.allclose(embedded, source.swinViT.patch_embed(scan), atol=1e-5)


def test_monai_masked_autoencoder_fills_the_encoder_of_unetr(tmp_path):
    source = monai_net(
        "MaskedAutoEncoderViT", 1, (32, 32, 32), (16, 16, 16), 48, 96, 12, 4,
        decoder_hidden_size=48, decoder_num_heads=4,
    )  # fmt: skip
    torch.save(source.state_dict(), tmp_path / "mae.pt")
    target = unetr()
    report = load_pretrained(target, tmp_path / "mae.pt")
    assert report.shares["encoder"] == 1 and not report.adapted
    assert torch.equal(target.vit.norm.weight, source.blocks[12].weight)
    assert "starts fresh" in report.summary()


def test_imagenet_vit_of_timm_names_is_inflated_into_unetr(tmp_path):
    target = unetr()
    state = {"cls_token": torch.randn(1, 1, 48), "pos_embed": torch.randn(1, 197, 48)}
    state |= {"patch_embed.proj.weight": torch.randn(48, 3, 16, 16), "head.weight": torch.zeros(2)}
    for name, tensor in target.vit.blocks.state_dict().items():
        name = name.replace("attn.out_proj", "attn.proj").replace("mlp.linear", "mlp.fc")
        state[f"blocks.{name}"] = torch.randn_like(tensor)
    torch.save(state, tmp_path / "vit.pth")
    report = load_pretrained(target, tmp_path / "vit.pth", parts=("encoder",))
    assert set(report.adapted) == {
        "vit.patch_embedding.patch_embeddings.weight",
        "vit.patch_embedding.position_embeddings",
    }
    kernel = target.vit.patch_embedding.patch_embeddings.weight
    assert torch.allclose(kernel.sum((1, 2)), state["patch_embed.proj.weight"].sum(1), atol=1e-5)
    assert report.shares["encoder"] > 0.99


def resnet18_state(width=4) -> dict[str, torch.Tensor]:
    """A state dict with torchvision's names and shapes, but narrow."""
    state = {"conv1.weight": torch.randn(width, 3, 7, 7), "fc.weight": torch.randn(2, 8 * width)}

    def norm(name, n):
        return {f"{name}.{part}": torch.randn(n) for part in ("weight", "bias", "running_mean")}

    state |= norm("bn1", width)
    inputs = width
    for layer in range(1, 5):
        outputs = width * 2 ** (layer - 1)
        for block in range(2):
            prefix = f"layer{layer}.{block}"
            state[f"{prefix}.conv1.weight"] = torch.randn(outputs, inputs, 3, 3)
            state[f"{prefix}.conv2.weight"] = torch.randn(outputs, outputs, 3, 3)
            state |= norm(f"{prefix}.bn1", outputs) | norm(f"{prefix}.bn2", outputs)
            if inputs != outputs:
                state[f"{prefix}.downsample.0.weight"] = torch.randn(outputs, inputs, 1, 1)
                state |= norm(f"{prefix}.downsample.1", outputs)
            inputs = outputs
    return state


@pytest.mark.parametrize("dims", [2, 3])
def test_imagenet_resnet_fills_a_residual_encoder(tmp_path, dims):
    state = resnet18_state()
    torch.save(state, tmp_path / "resnet18.pth")
    target = network(
        features=(4, 8, 16, 32),
        strides=((1,) * dims, *((2,) * dims,) * 3),
        kernel_sizes=((3,) * dims,) * 4,
        blocks=(2, 2, 2, 2),
    )
    report = load_pretrained(target, tmp_path / "resnet18.pth", parts=("encoder",))
    fresh = [n for n in report.missing if n.startswith("encoder.") and not n.endswith("conv.bias")]
    assert fresh == []
    kernel = target.encoder.stages[2].blocks[1].conv2.conv.weight
    kernel = kernel if dims == 2 else kernel.sum(2)
    assert torch.allclose(kernel, state["layer3.1.conv2.weight"], atol=1e-5)
    skip = target.encoder.stages[1].blocks[0].skip[1]
    assert torch.equal(skip.norm.weight, state["layer2.0.downsample.1.weight"])
    assert "7×7 to " in report.adapted["encoder.stem.convs.0.conv.weight"]


def test_the_imagenet_recipe_has_the_shape_of_torchvisions_resnet18(tmp_path):
    torch.save(resnet18_state(64), tmp_path / "resnet18.pth")
    recipe = load_recipe(FinetuneRecipe, RECIPES / "finetune_lesions_imagenet.toml")
    target = architectures.build(architectures.configure(recipe.network, {"strides": []}, (), 1, 2))
    report = load_pretrained(target, tmp_path / "resnet18.pth", recipe.parts)
    fresh = [n for n in report.missing if n.startswith("encoder.") and not n.endswith("conv.bias")]
    assert fresh == [] and report.shares["encoder"] > 0.99


def test_inflated_kernel_answers_a_stack_of_equal_slices_as_the_image():
    kernel, image = torch.randn(4, 2, 3, 3), torch.randn(1, 2, 8, 8)
    flat = nn.functional.conv2d(image, kernel)
    deep = nn.functional.conv3d(image[:, :, None].repeat(1, 1, 5, 1, 1), inflate(kernel, 3))
    assert torch.allclose(deep, flat[:, :, None].expand_as(deep), atol=1e-5)


@pytest.mark.parametrize("named", [True, False])
def test_openminds_transformer_is_refused_by_its_name(tmp_path, named):
    state = {
        "eva.pos_embed": torch.zeros(1, 8, 48),
        "eva.blocks.0.norm1.weight": torch.zeros(48),
        "down_projection.proj.weight": torch.zeros(48, 1, 8, 8, 8),
    }
    plan = {"architecture_plans": {"arch_class_name": "PrimusM"}, "key_to_encoder": "eva"}
    content = nnssl_content(state, **({"nnssl_adaptation_plan": plan} if named else {}))
    torch.save(content, tmp_path / "checkpoint_final.pth")
    found = "PrimusM" if named else "Primus"
    for target in (network(), unetr()):
        with pytest.raises(CheckpointError, match=rf"final\.pth holds {found}, .*ResEncL"):
            load_pretrained(target, tmp_path / "checkpoint_final.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3}, "no tensors by name"),
        ([1, 2], "holds list"),
        ({"state_dict": {"a.weight": torch.zeros(2)}}, "no tensor to the model's encoder"),
    ],
)
def test_file_of_something_else_is_refused_by_name(tmp_path, content, message):
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match=rf"odd\.pt.*{message}"):
        load_pretrained(network(), tmp_path / "odd.pt")


def test_text_file_is_refused_by_name(tmp_path):
    (tmp_path / "weights.pt").write_text("not weights")
    with pytest.raises(CheckpointError, match=r"weights\.pt is damaged"):
        read_weights(tmp_path / "weights.pt")
