"""Fine-tuning to classify and to segment regions, from real commands on tiny data."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import evaluate
import export
import finetune
import pretrain
from mim import architectures
from mim.caching import PrepareOptions, prepare_dataset
from mim.checkpoint import load_checkpoint
from mim.class_results import class_table
from mim.classification import ClassifiedCrops, balanced_weights, classification_loss
from mim.device import seed_everything
from mim.evaluation import model_spec
from mim.regions import Region, region_targets
from mim.segmentation import segmentation_loss
from small_sets import nnunet, picture, table

RECIPES = Path(__file__).resolve().parents[2] / "training" / "recipes"
SIZE = ["network.features=4,8,8", "network.blocks=1,1,1"]
SMALL = ["device=cpu", "precision=fp32", "loop.tensorboard=false", "spatial.affine=0"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Pictures of two classes, one with a bright square, and a second, independent finding."""
    root = tmp_path_factory.mktemp("pictures")
    rows = []
    for index in range(24):
        picture(root / f"data/img/p{index}.png", index, bright=index % 2 == 1)
        rows.append(f"img/p{index}.png,{'sick' if index % 2 else 'well'},g{index // 2}")
    (root / "data/labels.csv").write_text("\n".join(["file,class,group", *rows]))
    options = PrepareOptions(stages=3, jobs=1, picture_size=32, held_back=0.3)
    prepare_dataset(root / "data", root / "cache", options)
    return root


def run(root, name, *more, network="resenc_classifier", size=SIZE):
    steps = [f"network.name={network}", "loop.steps=60", "loop.batch=8", "optimizer.warmup=5"]
    recipe = root / "recipe.toml"
    recipe.write_text("")
    code = finetune.main([str(recipe), f"cache={root / 'cache'}", f"run={root / name}", *SMALL,
                          *size, *steps, "optimizer.lr=0.01", *more])  # fmt: skip
    path = root / name / "results.json"
    return json.loads(path.read_text()) if code == 0 else code


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 4.0]])
def test_the_loss_of_classes_is_the_weighted_mean_of_their_log_probabilities(weights):
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.5, 0.0], [0.0, 0.0, 3.0], [1.0, 2.0, 0.0]])
    targets = torch.tensor([0, 1, 0, 2])
    log = logits - logits.exp().sum(1, keepdim=True).log()
    each = torch.tensor(weights or [1.0] * 3)[targets]
    expected = -(each * log[torch.arange(4), targets]).sum() / each.sum()
    scale = None if weights is None else torch.tensor(weights)
    found = classification_loss(lambda images: logits, scale)(classified(targets))
    assert found.mean.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("weights", [None, [3.0, 0.5]])
def test_the_loss_of_several_findings_is_binary_for_each_and_weighs_those_that_are_there(weights):
    logits = torch.tensor([[2.0, -1.0], [-0.5, 0.0], [1.0, 3.0]])
    targets = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    positive = torch.tensor(weights or [1.0, 1.0])
    p = 1 / (1 + (-logits).exp())
    expected = -(positive * targets * p.log() + (1 - targets) * (1 - p).log()).mean()
    scale = None if weights is None else torch.tensor(weights)
    found = classification_loss(lambda images: logits, scale)(classified(targets))
    assert found.mean.item() == pytest.approx(expected.item(), rel=1e-5)


def classified(targets):
    """A batch of empty images with these targets."""
    images = torch.zeros(len(targets), 1, 4, 4)
    return ClassifiedCrops(images, images > -1, ("case",) * len(targets), targets)


def test_balanced_weights_make_rare_classes_count_as_much_as_common_ones():
    targets = torch.tensor([0, 0, 0, 0, 0, 1, 2, 2])
    weights = balanced_weights(targets, 3)
    assert torch.allclose(weights, torch.tensor([8 / 15, 8 / 3, 8 / 6]))
    total = weights * torch.bincount(targets)
    assert torch.allclose(total, total[0].expand(3)) and total.sum() == 8
    assert torch.isfinite(balanced_weights(targets, 4)).all()  # one class without a sample


def test_balanced_weights_of_findings_are_the_images_without_one_over_those_with_it():
    targets = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert balanced_weights(targets, 3).tolist() == pytest.approx([1 / 3, 3, 4])


@pytest.fixture(scope="module")
def scratch(pictures):
    """The results of a classifier trained from scratch."""
    return run(pictures, "scratch", "class_weights=balanced")


def test_a_bright_square_is_learnt_and_reported_with_its_interval(pictures, scratch):
    results = scratch
    assert results["auc_mean"] > 0.9
    low, high = results["auc_per_class"]["sick"]["ci95"]
    assert low <= results["auc_per_class"]["sick"]["auc"] <= high
    held_back = json.loads((pictures / "cache/split.json").read_text())["held_back"]
    assert {row["subject"] for row in results["rows"]} == set(held_back)
    assert results["auc_per_class"]["sick"]["sensitivity"] > 0.6
    assert "95 % interval" in class_table(results)


def test_the_exported_classifier_says_of_the_images_what_fine_tuning_measured(
    pictures, scratch, tmp_path, capsys
):
    package = tmp_path / "package"
    assert export.main([str(pictures / "scratch/last.pt"), str(package), "--half-weights"]) == 0
    card = (package / "docs/README.md").read_text()
    assert "held-back images" in card and f"sick {scratch['auc_mean']:.3f}" in card
    held_back = {row["id"]: row for row in scratch["rows"]}
    arguments = ["classify", str(package), str(pictures / "data"), "-o", str(tmp_path / "out")]
    assert evaluate.main([*arguments, "--device", "cpu", "--cases", *held_back]) == 0
    assert "95 % interval" in capsys.readouterr().out
    with open(tmp_path / "out/cases.csv", newline="") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(held_back)
    for name, row in rows.items():
        expected = dict(zip(scratch["classes"], held_back[name]["probabilities"], strict=True))
        assert float(row["sick"]) == pytest.approx(expected["sick"], abs=2e-2)  # rounded weights
        assert (float(row["sick"]) > 0.5) == (expected["sick"] > 0.5)
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["auc_per_class"]["sick"]["auc"] == scratch["auc_per_class"]["sick"]["auc"]


def test_a_classifier_is_measured_only_on_what_it_has_not_learnt_from(
    pictures, scratch, tmp_path, capsys
):
    package = tmp_path / "package"
    assert export.main([str(pictures / "scratch/last.pt"), str(package)]) == 0
    command = ["classify", str(package), str(pictures / "data"), "--device", "cpu", "-o"]
    assert evaluate.main([*command, str(tmp_path / "new")]) == 0
    assert "left out" in capsys.readouterr().err
    assert evaluate.main([*command, str(tmp_path / "all"), "--with-training"]) == 0
    new, all_ = (json.loads((tmp_path / n / "summary.json").read_text()) for n in ("new", "all"))
    assert new["cases"] == len(scratch["rows"]) and all_["cases"] == 24
    assert len(new["left_out"]) == len(all_["learnt_from"]) == 24 - new["cases"]


def test_a_data_set_of_other_classes_is_refused_by_name(pictures, scratch, tmp_path, capsys):
    for name in ("one", "two"):
        picture(tmp_path / "data" / name / "p.png", 0)
    assert export.main([str(pictures / "scratch/last.pt"), str(tmp_path / "package")]) == 0
    arguments = [str(tmp_path / "package"), str(tmp_path / "data"), "-o", str(tmp_path / "out")]
    assert evaluate.main(["classify", *arguments]) == 2
    assert "tells apart" in capsys.readouterr().err


def test_pre_training_on_the_same_cache_starts_the_classifier(pictures, capsys):
    assert pretrain.main(
        [str(RECIPES / "pretrain_cpu.toml"), f"cache={pictures / 'cache'}",
         f"run={pictures / 'pre'}", "loop.steps=3", *SMALL, *SIZE]
    ) == 0  # fmt: skip
    run(pictures, "fine", f"pretrained={pictures / 'pre/last.pt'}", "loop.steps=2",
        "transfer.schedule=sawtooth")  # fmt: skip
    printed = capsys.readouterr().out
    assert "encoder 100.0%" in printed
    assert load_checkpoint(pictures / "fine/last.pt")["metadata"]["kind"] == "classification"


def test_a_classifier_cannot_take_the_decoder_alone(pictures, capsys):
    start = pictures / "scratch/last.pt"
    assert run(pictures, "decoder", f"pretrained={start}", "parts=decoder") == 2
    assert "For classification write parts=encoder." in capsys.readouterr().err


VIT = ["network.patch=8,8", "network.width=32", "network.depth=2", "network.heads=2"]


def test_pictures_become_a_masked_autoencoder_and_then_a_classifier(pictures, capsys):
    recipe = pictures / "mae.toml"
    recipe.write_text(
        "[method]\nname = 'mae'\ndecoder_width = 16\ndecoder_depth = 1\ndecoder_heads = 2\n"
    )
    common = [str(recipe), f"cache={pictures / 'cache'}", "device=cpu", "precision=fp32", *VIT]
    pre = [f"run={pictures / 'mae'}", "network.name=vit", "loop.steps=5", "loop.batch=8"]
    assert pretrain.main([*common, *pre, "loop.tensorboard=false"]) == 0
    assert (pictures / "mae/reconstruction.png").exists()
    results = run(pictures, "vit", f"pretrained={pictures / 'mae/last.pt'}", "optimizer.lr=0.003",
                  "transfer.layer_decay=0.75", network="vit_classifier", size=VIT)  # fmt: skip
    assert "encoder 100.0%" in capsys.readouterr().out
    assert results["auc_mean"] > 0.9


def test_a_network_of_the_other_task_is_refused_by_name(pictures, capsys):
    assert run(pictures, "x", network="resenc_unet") == 2
    assert "resenc_classifier" in capsys.readouterr().err


def test_several_findings_at_once_are_learnt_apart(tmp_path):
    rows = [f"img/p{i}.png,{i % 2},{i % 2},{int(i % 3 == 0)}" for i in range(24)]
    table(tmp_path / "data", "\n".join(["image,bright,same,other", *rows]), pictures=24)
    options = PrepareOptions(stages=3, jobs=1, picture_size=32, held_back=0.5)
    prepare_dataset(tmp_path / "data", tmp_path / "cache", options)
    results = run(tmp_path, "run", "class_weights=balanced", "loop.steps=40")
    found = {name: value["auc"] for name, value in results["auc_per_class"].items()}
    assert set(found) == {"bright", "same", "other"}
    assert found["bright"] > 0.9 and found["same"] > 0.9  # both of an image with a bright square
    probabilities = np.array([row["probabilities"] for row in results["rows"]])
    assert (probabilities > 0).all() and (probabilities < 1).all()
    assert probabilities[:, :2].sum(1).max() > 1.2  # one finding does not rule out another


def test_regions_are_learnt_as_sigmoids_and_measured_as_unions(tmp_path):
    labels = {"background": 0, "both": [1, 4], "right": 4}
    nnunet(tmp_path / "raw", labels, order=(1, 4), count=4)
    options = PrepareOptions(patch_voxels=4000, stages=3, jobs=1)
    prepare_dataset(tmp_path / "raw", tmp_path / "cache", options)
    results = run(tmp_path, "run", "deep_supervision=true", "loop.batch=2", network="resenc_unet")
    assert set(results["dice_per_class"]) == {"both", "right"}
    assert results["dice_per_class"]["both"]["dice"] > 0.5
    spec = model_spec(json.loads((tmp_path / "cache/plan.json").read_text()))
    assert spec.head == "regions" and spec.channel_labels == (1, 4)
    package, out = tmp_path / "package", tmp_path / "out"
    assert export.main([str(tmp_path / "run/last.pt"), str(package)]) == 0
    command = ["segment", str(package), str(tmp_path / "raw"), "-o", str(out)]
    assert evaluate.main([*command, "--device", "cpu", "--precision", "float32"]) == 0
    summary = json.loads((out / "summary.json").read_text())["structures"]
    expected = {name: found["dice"] for name, found in results["dice_per_class"].items()}
    dice = {name: found["dice"]["mean"] for name, found in summary.items()}
    assert dice == pytest.approx(expected, abs=1e-3)


def test_a_frozen_encoder_stays_as_pre_trained_and_the_rest_starts_fresh_and_learns(
    tmp_path, capsys
):
    nnunet(tmp_path / "raw", {"background": 0, "left": 1, "right": 4}, count=4)
    options = PrepareOptions(patch_voxels=4000, stages=3, jobs=1)
    prepare_dataset(tmp_path / "raw", tmp_path / "cache", options)
    assert pretrain.main(
        [str(RECIPES / "pretrain_cpu.toml"), f"cache={tmp_path / 'cache'}",
         f"run={tmp_path / 'pre'}", "loop.steps=2", "loop.batch=2", *SMALL, *SIZE]
    ) == 0  # fmt: skip
    before = load_checkpoint(tmp_path / "pre/last.pt")["model"]
    capsys.readouterr()
    run(tmp_path, "fine", f"pretrained={tmp_path / 'pre/last.pt'}", "parts=['encoder']",
        "deep_supervision=true", "transfer.schedule=frozen", "loop.steps=4", "loop.batch=2",
        "optimizer.warmup=2", "loop.ema=0.9", network="resenc_unet")  # fmt: skip
    assert "encoder 100.0%, decoder 0.0%" in capsys.readouterr().out
    checkpoint = load_checkpoint(tmp_path / "fine/last.pt")
    seed_everything(0)
    fresh = dict(architectures.build(checkpoint["metadata"]["network"]).named_parameters())
    after = {name: checkpoint["model"][name] for name in fresh}
    encoder = {name for name in after if name.startswith("encoder.")}
    for name in encoder:
        assert torch.equal(after[name], before[f"network.{name}"]), name
        assert torch.equal(checkpoint["average"][name], after[name]), name
    rest = after.keys() - encoder
    assert encoder and any(name.startswith("decoder.seg_layers.") for name in rest)
    assert not {name for name in rest if torch.equal(after[name], fresh[name])}
    log = [json.loads(line) for line in (tmp_path / "fine/log.jsonl").read_text().splitlines()]
    assert [line["lr"] for line in log] == pytest.approx([0.005, 0.01, 0.01, 0.005])


@pytest.mark.parametrize(("edema", "core", "enhancing"), [(2, 1, 4), (2, 1, 3), (1, 2, 3)])
def test_voxels_belong_to_the_regions_that_hold_their_label(edema, core, enhancing):
    values = [0, *sorted((edema, core, enhancing))]
    regions = [
        Region("WT", (edema, core, enhancing), edema),
        Region("TC", (core, enhancing), core),
        Region("ET", (enhancing,), enhancing),
    ]
    stored = torch.tensor([values.index(v) for v in (0, edema, core, enhancing)])
    targets = region_targets(stored.view(1, 1, 1, 1, 4), regions, values)
    assert targets.shape == (1, 3, 1, 1, 4)
    assert targets[0, :, 0, 0].tolist() == [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]]


def test_the_loss_of_labels_is_soft_dice_plus_cross_entropy():
    logits, labels = torch.randn(2, 3, 2, 2, 2), torch.randint(0, 3, (2, 1, 2, 2, 2))
    plan = {"labels": [{"value": 1, "name": "a"}, {"value": 4, "name": "b"}]}
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    truth = torch.cat([labels == k for k in range(3)], 1).float()
    entropy = -(truth * p.log()).sum(1).mean()
    expected = 1 - soft_dice(p[:, 1:], truth[:, 1:]).mean() + entropy
    found = segmentation_loss(lambda images: logits, plan)(SimpleNamespace(images=0, labels=labels))
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_loss_of_regions_is_soft_dice_plus_binary_cross_entropy():
    logits, labels = torch.randn(2, 2, 2, 2, 2), torch.randint(0, 3, (2, 1, 2, 2, 2))
    regions = [
        {"name": "whole", "labels": [1, 4], "value": 1}, {"name": "core", "labels": [4], "value": 4}
    ]  # fmt: skip
    plan = {"labels": [{"value": 1, "name": "a"}, {"value": 4, "name": "b"}], "regions": regions}
    p = 1 / (1 + (-logits).exp())
    truth = torch.cat([labels > 0, labels == 2], 1).float()
    entropy = -(truth * p.log() + (1 - truth) * (1 - p).log()).mean()
    expected = 1 - soft_dice(p, truth).mean() + entropy
    found = segmentation_loss(lambda images: logits, plan)(SimpleNamespace(images=0, labels=labels))
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)


def soft_dice(p, truth):
    """Of each channel, over the whole batch."""
    axes = (0, 2, 3, 4)
    return 2 * (p * truth).sum(axes) / (p.sum(axes) + truth.sum(axes))


def test_deep_supervision_weighs_coarser_outputs_half():
    plan = {"labels": [{"value": 1, "name": "a"}]}
    fine, coarse = torch.randn(2, 2, 8, 8, 8), torch.randn(2, 2, 4, 4, 4)

    class Crops:
        images = torch.zeros(2, 1, 8, 8, 8)
        labels = torch.randint(0, 2, (2, 1, 8, 8, 8))

    both = segmentation_loss(lambda images: [fine, coarse], plan)(Crops)
    small = Crops()
    small.labels = torch.nn.functional.interpolate(
        Crops.labels.float(), (4, 4, 4), mode="nearest-exact"
    ).long()
    losses = [
        segmentation_loss(lambda images: fine, plan)(Crops),
        segmentation_loss(lambda images: coarse, plan)(small),
    ]
    assert both == pytest.approx(float((losses[0] + 0.5 * losses[1]) / 1.5), rel=1e-5)
