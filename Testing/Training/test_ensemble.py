"""Several fine-tunings of one plan become one package, which segments with their mean."""

import json
import shutil

import numpy as np
import pytest

import export
from mim.checkpoint import load_checkpoint, save_checkpoint
from mim.ensemble import Member, results_together
from mim.evaluation import torch_predictor
from mim.network_files import trained_network
from MIMSegment.Logic.engine import segment
from MIMSegment.Logic.package import load_package
from MIMSegment.Logic.runtime import OnnxSession
from MIMSegment.Logic.volume import Geometry, Volume
from test_export_networks import write_checkpoint


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    """The checkpoints of two folds, with other weights and results, and their package."""
    root = tmp_path_factory.mktemp("ensemble")
    paths = [root / f"fold{index}/last.pt" for index in range(2)]
    for index, path in enumerate(paths):
        path.parent.mkdir()
        content = write_checkpoint(path, "resenc_unet")
        content["metadata"]["seen"] = ["both", f"fold {index}"]
        for tensor in content["model"].values():
            tensor *= 1 + index
        save_checkpoint(path, content)
        rows = [row(f"case_{2 * index + i}", 0.5 + 0.1 * (2 * index + i)) for i in range(2)]
        (path.parent / "results.json").write_text(json.dumps({"cases": 2, "rows": rows}))
    assert export.main([*map(str, paths), str(root / "package")]) == 0
    return root, paths


def row(case, dice):
    return {"id": case, "subject": case, "dice": {"tumor": dice}}


def test_the_package_says_the_mean_of_what_its_networks_say(folds):
    root, paths = folds
    package = load_package(root / "package")
    assert package.spec.models == ("models/model_0.onnx", "models/model_1.onnx")
    noise = np.random.default_rng(0).normal(size=(2, 12, 20, 14)).astype(np.float32)
    image = Volume(noise, Geometry.from_parts(noise.shape[1:], (1, 1, 1)))
    files = [OnnxSession(path) for path in package.model_paths]
    networks = [torch_predictor(trained_network(load_checkpoint(path))) for path in paths]

    def mean(tile):
        return np.mean([network(tile) for network in networks], axis=0)

    found, expected = (segment(image, package.spec, given).labels for given in (files, mean))
    single = [segment(image, package.spec, network).labels for network in networks]
    assert (found == expected).mean() > 0.999
    assert all((found != labels).mean() > 0.01 for labels in single)


def test_the_card_tells_what_was_measured_and_of_what(folds):
    text = (folds[0] / "package/docs/README.md").read_text()
    assert "Networks: 2, whose outputs are averaged" in text
    assert "Mean Dice on 4 held-back images of 4 subjects: 0.650" in text
    assert "of single networks, not of their average" in text


def test_a_kept_copy_is_not_given_the_figures_of_the_last_weights(folds, tmp_path):
    shutil.copytree(folds[1][0].parent, tmp_path / "run")
    (tmp_path / "run/last.pt").rename(tmp_path / "run/step_000100.pt")
    package = tmp_path / "package"
    assert export.main([str(tmp_path / "run/step_000100.pt"), str(package)]) == 0
    assert "Dice" not in (package / "docs/README.md").read_text()
    assert not json.loads((package / "configs/metadata.json").read_text())["eval_metrics"]


def test_images_that_any_network_has_learnt_from_are_known(folds):
    metadata = json.loads((folds[0] / "package/configs/metadata.json").read_text())["mimsegment"]
    assert metadata["training_images"] == ["both", "fold 0", "fold 1"]
    assert len(metadata["model"]["provenance"]["networks"]) == 2


def test_networks_of_other_plans_are_not_put_together(folds, tmp_path, capsys):
    other = tmp_path / "other.pt"
    content = load_checkpoint(folds[1][1])
    content["metadata"]["plan"]["preprocessing"]["spacing"] = [2.0, 2.0, 2.0]
    save_checkpoint(other, content)
    package = tmp_path / "package"
    assert export.main([str(folds[1][0]), str(other), str(package)]) == 2
    error = capsys.readouterr().err
    assert "other.pt was trained by another plan than" in error and not package.exists()


def test_several_classifiers_are_refused(tmp_path, capsys):
    write_checkpoint(tmp_path / "a.pt", "resenc_classifier")
    shutil.copy(tmp_path / "a.pt", tmp_path / "b.pt")
    paths = [str(tmp_path / name) for name in ("a.pt", "b.pt", "package")]
    assert export.main(paths) == 2
    assert "a package of a classifier holds one network" in capsys.readouterr().err


def test_a_case_that_several_measured_counts_once():
    def member(*rows):
        return Member(None, {}, {"cases": len(rows), "rows": rows})

    first, second = member(row("a", 0.4), row("b", 0.6)), member(row("a", 0.8))
    found = results_together((first, second))
    assert found["cases"] == 2 and found["dice_mean"] == pytest.approx(0.6)
    assert results_together((first, Member(None, {}, {}))) == {}
    one = member(row("a", float("nan"))), member(row("a", 0.8))
    assert results_together(one)["dice_mean"] == pytest.approx(0.8)
