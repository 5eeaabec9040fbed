"""Carrying weights over: everything that fits arrives, the rest is named, nothing is silent."""

import pytest
import torch

from mim.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from mim.masked_unet import MaskedAutoencoderUNet, MethodSettings
from mim.network_files import trained_network
from mim.networks import NetworkConfig, build_network
from mim.transfer import load_pretrained
from mim.weight_shapes import adapt_inputs

CONFIG = NetworkConfig(
    1, 1, (4, 8, 8), ((1, 1, 1), (2, 2, 2), (2, 2, 2)), ((3, 3, 3),) * 3, (1, 2, 1)
)


def network(**changes):
    return build_network(NetworkConfig(**{**CONFIG.to_dict(), **changes}))


@pytest.fixture
def pretrained(tmp_path):
    model = MaskedAutoencoderUNet(network(), 1, MethodSettings(fill="token"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    save_checkpoint(tmp_path / "last.pt", {"metadata": {}, "model": model.state_dict()})
    return model, tmp_path / "last.pt"


def test_all_but_the_output_layers_arrive_unchanged(pretrained):
    source, path = pretrained
    target = network(out_channels=5)
    report = load_pretrained(target, path)
    theirs = dict(source.network.named_parameters())
    names = [name for name in theirs if not name.startswith("decoder.seg_layers.")]
    assert sorted(report.loaded) == sorted(names) and not report.adapted
    for name, parameter in target.named_parameters():
        assert torch.equal(parameter, theirs[name]) == (name in names)
    assert set(report.skipped.values()) == {"output layer of another task", "not in the model"}
    assert set(report.missing) == {n for n in theirs if n not in names}


def test_encoder_alone_leaves_the_decoder_fresh(pretrained):
    source, path = pretrained
    target = network()
    before = {name: p.clone() for name, p in target.decoder.stages.named_parameters()}
    report = load_pretrained(target, path, parts=("encoder",))
    assert len(report.loaded) == len(list(source.network.encoder.parameters()))
    assert all(torch.equal(p, before[n]) for n, p in target.decoder.stages.named_parameters())
    assert "part not asked for" in report.skipped.values()


def test_stem_is_adapted_so_that_equal_channels_answer_as_before(pretrained):
    source, path = pretrained
    target = network(in_channels=4)
    report = load_pretrained(target, path)
    assert report.adapted == {"encoder.stem.convs.0.conv.weight": "1 to 4 input channels"}
    image = torch.randn(1, 1, 8, 8, 8)
    with torch.no_grad():
        one, four = source.network.encoder(image), target.encoder(image.repeat(1, 4, 1, 1, 1))
    assert torch.allclose(one[0], four[0], atol=1e-4)


@pytest.mark.parametrize(("have", "want"), [(1, 3), (4, 1), (2, 3)])
def test_adapted_inputs_keep_the_response_to_equal_channels(have, want):
    weight = torch.randn(5, have, 3, 3, 3)
    assert torch.allclose(weight.sum(1), adapt_inputs(weight, want).sum(1), atol=1e-5)


def test_alias_names_alone_are_enough(pretrained, tmp_path):
    source, _ = pretrained
    state = {
        name: tensor
        for name, tensor in source.network.state_dict().items()
        if ".all_modules." in name and not name.startswith("encoder.")
    }
    save_checkpoint(tmp_path / "alias.pt", {"metadata": {}, "model": state})
    target = network()
    report = load_pretrained(target, tmp_path / "alias.pt")
    assert not [name for name in report.missing if name.startswith("encoder.")]
    assert torch.equal(
        target.encoder.stages[1].blocks[1].conv2.conv.weight,
        source.network.encoder.stages[1].blocks[1].conv2.conv.weight,
    )


def test_other_shapes_are_skipped_with_both_shapes(pretrained):
    report = load_pretrained(network(features=(4, 8, 12)), pretrained[1])
    reason = report.skipped["encoder.stages.2.blocks.0.conv1.conv.weight"]
    assert reason == "shape (8, 8, 3, 3, 3) against (12, 8, 3, 3, 3)"
    assert report.missing["encoder.stages.2.blocks.0.conv1.conv.weight"] == reason


def test_matching_nothing_is_an_error_that_names_reasons(pretrained):
    with pytest.raises(CheckpointError, match=r"no tensor to the model's encoder.*shape"):
        load_pretrained(network(features=(5, 7, 9)), pretrained[1])


@pytest.mark.parametrize("parts", [(), ("encodr",), ("decodr", "stem")])
def test_loading_nothing_at_all_is_an_error(pretrained, parts):
    with pytest.raises(CheckpointError, match=r"last\.pt gave no tensor.*part not asked for"):
        load_pretrained(network(), pretrained[1], parts)


def test_averaged_weights_are_the_ones_that_are_used_where_a_run_had_them(tmp_path):
    last, average = network(), network()
    content = {
        "metadata": {"network": CONFIG.to_dict()},
        "model": last.state_dict(),
        "average": average.state_dict(),
    }
    save_checkpoint(tmp_path / "last.pt", content)
    started, exported = network(), trained_network(content)
    load_pretrained(started, tmp_path / "last.pt")
    name = "encoder.stages.1.blocks.0.conv1.conv.weight"
    assert not torch.equal(last.get_parameter(name), average.get_parameter(name))
    for used in (started, exported):
        assert torch.equal(used.get_parameter(name), average.get_parameter(name))


def test_summary_counts_tensors_and_parameters(pretrained):
    target = network(in_channels=2, out_channels=3)
    report = load_pretrained(target, pretrained[1])
    total = sum(p.numel() for p in target.parameters())
    fresh = sum(p.numel() for p in target.decoder.seg_layers.parameters())
    assert report.parameters == (total - fresh, total)
    text = report.summary()
    assert f"loaded   {len(report.loaded):4d} tensors" in text
    assert "1 to 2 input channels" in text and "output layer of another task" in text


def test_checkpoint_holds_each_weight_once_on_disk(pretrained):
    source, path = pretrained
    numbers = sum(p.numel() for p in source.parameters())
    assert path.stat().st_size < 4 * numbers + 200_000
    assert len(load_checkpoint(path)["model"]) > 3 * len(list(source.parameters()))


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.99])
def test_damaged_checkpoint_is_refused_by_name(pretrained, keep):
    path = pretrained[1]
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else keep])
    with pytest.raises(CheckpointError, match=r"last\.pt"):
        load_checkpoint(path)


def test_missing_and_foreign_files_are_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint .*gone\.pt"):
        load_checkpoint(tmp_path / "gone.pt")
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt is no checkpoint of this program"):
        load_checkpoint(tmp_path / "other.pt")


def test_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"format": 1, "model": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(CheckpointError, match=r"trap\.pt"):
        load_checkpoint(tmp_path / "trap.pt")
    assert not (tmp_path / "ran").exists()
