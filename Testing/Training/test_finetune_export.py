"""From a cache to a package: real commands on tiny volumes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import export
import finetune
import pretrain
from mim.agreement import ExportError, verify_export
from mim.caching import PrepareOptions, prepare_dataset
from mim.checkpoint import load_checkpoint
from mim.evaluation import dice_per_class, evaluate_cases, model_spec, summarize, torch_predictor
from mim.networks import NetworkConfig, build_network
from MIMSegment.Logic.engine import segment
from MIMSegment.Logic.package import load_package
from MIMSegment.Logic.runtime import OnnxSession
from MIMSegment.Logic.volume import read_volume
from small_sets import decathlon

RECIPES = Path(__file__).resolve().parents[2] / "training" / "recipes"
SMALL = ["network.features=4,8,8", "network.blocks=1,1,1", "device=cpu", "precision=fp32"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A cache, a pre-training, a fine-tuning of it and the exported package."""
    root = tmp_path_factory.mktemp("work")
    decathlon(root / "data", count=6)
    options = PrepareOptions(patch_voxels=4000, stages=3, jobs=1)
    prepare_dataset(root / "data", root / "cache", options)
    assert pretrain.main([str(RECIPES / "pretrain_cpu.toml"), f"cache={root / 'cache'}",
                          f"run={root / 'pre'}", "loop.steps=4", *SMALL]) == 0  # fmt: skip
    assert finetune.main(arguments(root, "fine", f"pretrained={root / 'pre' / 'last.pt'}")) == 0
    assert export.main([str(root / "fine" / "last.pt"), str(root / "package"), "--phantom"]) == 0
    return root


def arguments(root, run, *more) -> list[str]:
    return [
        str(RECIPES / "finetune_cpu.toml"), f"cache={root / 'cache'}", f"run={root / run}",
        "loop.steps=200", "optimizer.warmup=10", "optimizer.lr=0.01", "spatial.affine=0",
        *SMALL, *more,
    ]  # fmt: skip


def test_boxes_are_learnt_and_results_name_every_class(work):
    results = json.loads((work / "fine" / "results.json").read_text())
    assert results["dice_mean"] > 0.6
    assert set(results["dice_per_class"]) == {"left box", "right box"}
    split = json.loads((work / "cache" / "split.json").read_text())
    assert {row["subject"] for row in results["rows"]} == set(split["held_back"])


def test_the_report_says_what_came_from_the_pretraining(work, capsys):
    finetune.main(arguments(work, "told", f"pretrained={work / 'pre' / 'last.pt'}", "loop.steps=1"))
    printed = capsys.readouterr().out
    assert "loaded" in printed and "output layer of another task" in printed
    start = load_checkpoint(work / "pre" / "last.pt")["model"]
    assert any(k.endswith("encoder.stem.convs.0.conv.weight") for k in start)


def test_scratch_and_pretrained_use_the_same_crops_and_subjects(work):
    runs = {"a": [], "b": [f"pretrained={work / 'pre' / 'last.pt'}"]}
    subjects = {}
    for run, more in runs.items():
        finetune.main(arguments(work, run, "subjects=2", "loop.steps=2", *more))
        (process,) = load_checkpoint(work / run / "last.pt")["processes"]
        subjects[run] = process["generators"]
    assert torch.equal(subjects["a"]["host"], subjects["b"]["host"])


def test_package_computes_what_the_network_computes(work):
    package = load_package(work / "package")
    content = load_checkpoint(work / "fine" / "last.pt")
    network = build_network(NetworkConfig.from_dict(content["metadata"]["network"]))
    network.load_state_dict(content["model"])
    image = read_volume(work / "data" / "imagesTr" / "case_0.nii.gz")
    by_torch = segment(image, package.spec, torch_predictor(network))
    by_onnx = segment(image, package.spec, OnnxSession(package.model_paths[0]))
    assert package.spec.preprocessing == model_spec(content["metadata"]["plan"]).preprocessing
    assert (by_torch.labels == by_onnx.labels).mean() > 0.9999
    assert set(np.unique(by_onnx.labels)) <= {0, 1, 4}
    assert package.spec.mirror_axes == ()


def test_the_command_line_segments_an_image_with_the_package(work, tmp_path):
    image, label = (work / "data" / part / "case_1.nii.gz" for part in ("imagesTr", "labelsTr"))
    out = tmp_path / "result.nii.gz"
    done = subprocess.run(
        [sys.executable, "-m", "MIMSegment.Logic.cli", "segment", image, "-m", work / "package",
         "-o", out, "-q"], capture_output=True, text=True, cwd=RECIPES.parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "digital phantoms" in done.stderr
    assert "left box" in done.stdout
    found, truth = read_volume(out), read_volume(label)
    assert found.geometry.is_close(truth.geometry)
    assert np.mean(dice_per_class(found.array[0], truth.array[0], [1, 4])) > 0.5


def test_monai_accepts_the_bundle_and_refuses_a_spoiled_one(work, tmp_path):
    from monai.bundle import ConfigParser

    from mim.bundle import verify_metadata

    package = load_package(work / "package")
    verify_metadata(package.path)
    assert ConfigParser.load_config_file(str(package.path / "configs/metadata.json"))["version"]
    import shutil

    shutil.copytree(package.path, tmp_path / "spoiled")
    path = tmp_path / "spoiled" / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    del metadata["network_data_format"]
    path.write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(tmp_path / "spoiled")


def test_an_export_that_computes_something_else_is_refused(work):
    content = load_checkpoint(work / "fine" / "last.pt")
    network = build_network(NetworkConfig.from_dict(content["metadata"]["network"]))
    network.load_state_dict(content["model"])
    with torch.no_grad():
        network.decoder.seg_layers[-1].bias += 0.5
    tile = np.random.default_rng(0).normal(size=(1, 1, 12, 20, 20)).astype(np.float32)
    with pytest.raises(ExportError, match="differs"):
        verify_export(network, work / "package" / "models" / "model.onnx", [tile])


def test_a_pretraining_checkpoint_is_not_exported(work, capsys):
    assert export.main([str(work / "pre" / "last.pt"), str(work / "nothing")]) == 2
    assert "finetune.py" in capsys.readouterr().err
    assert not (work / "nothing").exists()


def test_unknown_key_suggests_the_nearest(work, capsys):
    assert finetune.main(arguments(work, "x", "loop.step=3")) == 2
    assert "loop.steps" in capsys.readouterr().err


def test_a_run_that_is_stopped_by_hand_says_how_it_goes_on(work, tmp_path, monkeypatch, capsys):
    def pressed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(finetune, "draw", pressed)
    assert finetune.main(arguments(tmp_path, "run", f"cache={work / 'cache'}")) == 130
    error = capsys.readouterr().err
    assert "stopped; --resume goes on" in error and "Traceback" not in error


def test_asking_for_more_subjects_than_there_are_is_an_error(work, capsys):
    assert finetune.main(arguments(work, "y", "subjects=99")) == 2
    assert "99" in capsys.readouterr().err


def test_dice_is_one_for_equal_zero_for_invented_and_absent_for_absent_structures():
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[:2] = 1
    truth = labels.copy()
    assert dice_per_class(labels, truth, [1]) == [1.0]
    labels[3, 3, 3] = 2
    equal, invented, absent = dice_per_class(labels, truth, [1, 2, 3])
    assert equal == 1.0 and invented == 0.0 and np.isnan(absent)


def test_evaluation_measures_on_the_images_own_grid(work):
    entries = json.loads((work / "cache" / "cases.json").read_text())["cases"][:2]
    plan = json.loads((work / "cache" / "plan.json").read_text())

    def oracle(tile):  # thresholds of the normalized boxes cannot be wrong by more than an edge
        return np.stack([0.5 - tile[:, 0], tile[:, 0] - 0.5, tile[:, 0] * 0 - 9], axis=1)

    rows = evaluate_cases(entries, plan, oracle)
    summary = summarize(rows)
    assert summary["cases"] == 2 and summary["dice_per_class"]["right box"]["dice"] == 0.0


def test_the_package_takes_smaller_windows_too(work):
    from MIMSegment.Logic.inference import _with_smaller_windows

    package = load_package(work / "package")
    session = OnnxSession(package.model_paths[0])
    patches = [spec.patch for spec in _with_smaller_windows(package.spec, session)]
    content = load_checkpoint(work / "fine" / "last.pt")
    network = build_network(NetworkConfig.from_dict(content["metadata"]["network"]))
    network.load_state_dict(content["model"])
    network.eval()
    assert patches[0] == package.spec.patch
    for size in [*patches, tuple(2 * d for d in network.divisor)]:
        tile = np.random.default_rng(0).normal(size=(1, 1, *size)).astype(np.float32)
        with torch.inference_mode():
            expected = network(torch.from_numpy(tile)).numpy()
        assert np.abs(session(tile) - expected).max() < 1e-3
