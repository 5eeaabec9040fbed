"""nnU-Net's label "ignore": voxels that annotators left open teach nothing and count nowhere."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import evaluate
import export
import finetune
from mim.caching import PrepareOptions, prepare_dataset
from mim.case_table import read_cases
from mim.data import IGNORED, LabeledVolumes, draw_labeled_crops, read_cache
from mim.evaluation import evaluate_cases
from mim.segmentation import Segmentation, segmentation_loss
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.volume import Volume, write_volume
from small_sets import nnunet, read, scan

LABELS = {"background": 0, "left": 1, "right": 4, "ignore": 5}
NESTED = {"background": 0, "both": [1, 4], "right": 4, "ignore": 5}
OPTIONS = PrepareOptions(patch_voxels=4000, stages=3, jobs=1)
PLAN = {"labels": [{"value": 1, "name": "a"}, {"value": 4, "name": "b"}], "ignore": 5}
REGIONS = [
    {"name": "both", "labels": [1, 4], "value": 1}, {"name": "b", "labels": [4], "value": 4}
]  # fmt: skip


def sparse(folder, labels, order=(), count=3):
    """Raw data of nnU-Net of which only three slices are annotated."""
    data = nnunet(folder, labels, order, count)
    for index in range(count):
        image, label = scan(index)
        array = np.full_like(label.array, 5)
        array[:, 4:7] = label.array[:, 4:7]
        write_volume(Volume(array, image.geometry), data / f"labelsTr/case_{index}.nii.gz")
    return data


def plan_of(name):
    return PLAN if name == "labels" else {**PLAN, "regions": REGIONS}


def loss_of(outputs, labels, plan):
    return segmentation_loss(lambda _: outputs, plan)(SimpleNamespace(images=0, labels=labels))


@pytest.mark.parametrize("name", ["labels", "regions"])
def test_the_loss_is_that_of_the_known_voxels_alone(name):
    plan, channels = plan_of(name), 3 if name == "labels" else 2
    logits, labels = torch.randn(2, channels, 4, 4, 4), torch.randint(0, 3, (2, 1, 4, 4, 4))
    half = labels.clone()
    half[:, :, 2:] = IGNORED
    logits.requires_grad_()
    found = loss_of(logits, half, plan)
    expected = loss_of(logits[:, :, :2], labels[:, :, :2], {**plan, "ignore": None})
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    found.backward()
    assert logits.grad[:, :, 2:].abs().max() == 0 < logits.grad[:, :, :2].abs().min()


@pytest.mark.parametrize("name", ["labels", "regions"])
def test_the_outputs_at_every_resolution_learn_from_known_voxels_alone(name):
    channels = 3 if name == "labels" else 2
    outputs = [torch.randn(1, channels, size, 8, 8, requires_grad=True) for size in (8, 4)]
    labels = torch.randint(0, 3, (1, 1, 8, 8, 8))
    labels[:, :, 4:] = IGNORED
    loss_of([outputs[0], torch.nn.functional.avg_pool3d(outputs[1], (1, 2, 2))], labels,
            plan_of(name)).backward()  # fmt: skip
    for output in outputs:
        known = output.shape[2] // 2
        assert output.grad[:, :, known:].abs().max() == 0 < output.grad[:, :, :known].abs().min()


@pytest.mark.parametrize("name", ["labels", "regions"])
def test_a_batch_without_a_known_voxel_changes_nothing(name):
    logits = torch.randn(1, 3 if name == "labels" else 2, 4, 4, 4, requires_grad=True)
    loss = loss_of(logits, torch.full((1, 1, 4, 4, 4), IGNORED), plan_of(name))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6) and logits.grad.abs().max() == 0


@pytest.mark.parametrize(("labels", "order"), [(LABELS, ()), (NESTED, (1, 4))])
def test_the_ignored_label_is_no_structure_of_a_cache(tmp_path, labels, order):
    prepare_dataset(sparse(tmp_path / "raw", labels, order), tmp_path / "cache", OPTIONS)
    plan, fingerprint = (read(tmp_path / "cache", f"{n}.json") for n in ("plan", "fingerprint"))
    assert [item["value"] for item in plan["labels"]] == [1, 4] and plan["ignore"] == 5
    assert "ignore" not in (tmp_path / "cache/labels.csv").read_text()
    assert set(fingerprint["class_voxels"]) == {"0", "1", "4"}
    assert fingerprint["plausibility"]["structures"] == []  # how large they are is not known
    case = read(tmp_path / "cache", "cases.json")["cases"][0]
    assert case["structures"] == [1, 2]
    label = np.load(tmp_path / "cache" / case["label"])
    assert set(np.unique(label)) == {0, 1, 2, IGNORED}
    assert (label[:4] == IGNORED).all() and not (label[4:7] == IGNORED).any()
    assert Segmentation(read_cache(tmp_path / "cache"), 0.5).outputs == (2 if order else 3)


def test_the_intensities_are_those_of_known_structures(tmp_path):
    prepare_dataset(sparse(tmp_path / "raw", LABELS), tmp_path / "cache", OPTIONS)
    low = read(tmp_path / "cache", "fingerprint.json")["intensities"][0]["percentile_00_5"]
    assert low > 140  # the boxes are at 180 and 260, what surrounds them at 100


@pytest.mark.parametrize("foreground", [0.0, 1.0])
def test_crops_of_sparse_labels_hold_something_known(tmp_path, foreground):
    prepare_dataset(sparse(tmp_path / "raw", LABELS), tmp_path / "cache", OPTIONS)
    cache = read_cache(tmp_path / "cache")
    volumes = LabeledVolumes(cache, cache.train)
    generator = torch.Generator().manual_seed(0)
    crops = draw_labeled_crops(volumes, (1, 8, 8), 32, generator, foreground)
    assert (crops.labels != IGNORED).all()
    if foreground:
        middle = crops.labels[:, 0, 0, 4, 4]
        assert set(middle.tolist()) == {1, 2}


def test_the_score_of_a_run_counts_known_voxels_alone(tmp_path):
    prepare_dataset(sparse(tmp_path / "raw", NESTED, (1, 4)), tmp_path / "cache", OPTIONS)
    cache = read_cache(tmp_path / "cache")
    watched = Segmentation(cache, 0.5).watch(1)
    network = torch.nn.Conv3d(2, 2, 1)  # its output is not looked at, but what the hook makes of it
    right_where_known = watched.truth[0] | ~watched.known[0]
    network.register_forward_hook(lambda *_: right_where_known.float().mul(2).sub(1))
    assert watched(network) == 1


def test_dice_counts_known_voxels_alone(tmp_path):
    prepare_dataset(sparse(tmp_path / "raw", LABELS), tmp_path / "cache", OPTIONS)
    plan = read(tmp_path / "cache", "plan.json")
    entry = read(tmp_path / "cache", "cases.json")["cases"][0]

    def left_everywhere(tile):
        return np.eye(3, dtype=np.float32)[1][:, None, None, None] * np.ones_like(tile[:, :1])

    (row,) = evaluate_cases([entry], plan, left_everywhere)
    label = scan(0)[1].array[:, 4:7]
    left = (label == 1).sum()
    expected = {"left": 2 * left / (label.size + left), "right": 0}
    assert row["dice"] == pytest.approx(expected)


def test_a_network_learns_from_sparse_labels_and_is_measured_where_they_are(tmp_path):
    data = sparse(tmp_path / "raw", NESTED, (1, 4), count=4)
    prepare_dataset(data, tmp_path / "cache", OPTIONS)
    (tmp_path / "recipe.toml").write_text("")
    command = [
        str(tmp_path / "recipe.toml"), f"cache={tmp_path / 'cache'}", f"run={tmp_path / 'run'}",
        "device=cpu", "precision=fp32", "loop.tensorboard=false", "spatial.affine=0.3",
        "network.name=resenc_unet", "network.features=4,8,8", "network.blocks=1,1,1", "watch=1",
        "loop.steps=50", "loop.batch=2", "optimizer.warmup=5", "optimizer.lr=0.01",
        "deep_supervision=true",
    ]  # fmt: skip
    assert finetune.main(command) == 0
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert set(results["dice_per_class"]) == {"both", "right"}
    assert all(item["dice"] > 0.7 for item in results["dice_per_class"].values())
    assert export.main([str(tmp_path / "run/last.pt"), str(tmp_path / "package")]) == 0
    out = tmp_path / "out"
    measured = ["segment", str(tmp_path / "package"), str(tmp_path / "raw"), "-o", str(out)]
    case = results["rows"][0]
    assert evaluate.main([*measured, "--cases", case["id"], "--device", "cpu"]) == 0
    dice = {row["structure"]: row["dice"] for row in read_cases(out / "cases.csv")}
    assert dice == pytest.approx(case["dice"], abs=0.01)


def test_an_ignored_value_that_is_a_structure_too_is_refused(tmp_path):
    data = sparse(tmp_path / "raw", {**LABELS, "rest": 5})
    with pytest.raises(InputError, match="label 5 is ignored and a structure"):
        prepare_dataset(data, tmp_path / "cache", OPTIONS)
