"""The command that pre-trains, from the outside: what it writes, refuses and survives."""

import json
import re
from pathlib import Path

import pytest
import torch

import pretrain
from cache_fixture import write_cache
from mim.checkpoint import load_checkpoint
from mim.data import read_cache
from mim.networks import NetworkConfig, build_network
from mim.reconstruction import FixedCrops
from mim.transfer import load_pretrained

ROOT = Path(__file__).resolve().parents[2]
RECIPE = str(ROOT / "training" / "recipes" / "pretrain_cpu.toml")
SMALL = (
    "network.features=4,8,8",
    "network.blocks=1,1,1",
    "validation_crops=2",
    "optimizer.warmup=3",
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return write_cache(tmp_path_factory.mktemp("data") / "cache", subjects=8)


def arguments(cache, run, *overrides):
    return [RECIPE, f"cache={cache}", f"run={run}", *SMALL, "loop.steps=12", *overrides]


@pytest.fixture(scope="module")
def finished(cache, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "first"
    assert pretrain.main(arguments(cache, run, "loop.validate_every=6")) == 0
    return run


def curve(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "second" not in key} for line in lines]


def test_run_folder_holds_what_was_promised(finished):
    assert {path.name for path in finished.iterdir()} - {"tensorboard"} == {
        "best.pt", "last.pt", "log.jsonl", "recipe.json", "reconstruction.png"
    }  # fmt: skip
    assert (finished / "reconstruction.png").read_bytes().startswith(b"\x89PNG")
    lines = curve(finished)
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 13))
    assert [line["step"] for line in lines if "validation_loss" in line] == [6, 12]


def test_checkpoint_says_all_that_later_steps_need(finished, cache):
    metadata = load_checkpoint(finished / "last.pt")["metadata"]
    opened = read_cache(cache)
    assert metadata["kind"] == "masked_unet" and metadata["step"] == 12
    assert metadata["plan"] == opened.plan and metadata["fingerprint"] == opened.fingerprint
    assert metadata["recipe"] == json.loads((finished / "recipe.json").read_text())
    network = build_network(NetworkConfig.from_dict(metadata["network"]))
    report = load_pretrained(network, finished / "last.pt")
    heads = [name for name in report.missing if not name.startswith("decoder.seg_layers.")]
    assert not heads


def test_speed_and_size_are_told(cache, tmp_path, capsys):
    larger = ("network.features=16,32,64", "loop.steps=3")
    assert pretrain.main(arguments(cache, tmp_path, *larger)) == 0
    said = capsys.readouterr()
    weights = load_checkpoint(tmp_path / "last.pt")["model"].values()
    millions = sum({w.data_ptr(): w.numel() for w in weights}.values()) / 1e6  # some have two names
    assert millions > 0.1 and f" {millions:.1f} M parameters." in said.out
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    validated = f"{lines[-1]['validation_loss']:.4f}"
    assert f"Validation loss {validated}, the lowest was {validated}." in said.out
    shown = rf"loss \d+\.\d{{4}}, validation {validated}, \d+\.\d samples/s, (\d+% of peak, )?\d+%"
    assert "3/3" in said.err and re.search(shown, said.err)


def test_saved_recipe_repeats_the_run(finished, tmp_path):
    again = [str(finished / "recipe.json"), f"run={tmp_path / 'again'}"]
    assert pretrain.main(again) == 0
    assert curve(tmp_path / "again") == curve(finished)


def test_other_seeds_are_other_runs_on_the_same_validation_crops(
    cache, finished, tmp_path, monkeypatch
):
    methods, watches = [], []
    build, draw = pretrain.build_method, FixedCrops.draw

    def kept(made, into):
        into.append(made)
        return made

    monkeypatch.setattr(pretrain, "build_method", lambda *a: kept(build(*a), methods))
    monkeypatch.setattr(FixedCrops, "draw", staticmethod(lambda *a: kept(draw(*a), watches)))
    for seed in (1, 2):
        run = tmp_path / str(seed)
        assert pretrain.main(arguments(cache, run, f"seed={seed}", "loop.steps=1")) == 0
        assert curve(run)[0]["loss"] != curve(finished)[0]["loss"]
    first, second = watches
    assert first.crops.cases == second.crops.cases
    assert torch.equal(first.crops.images, second.crops.images)
    assert torch.equal(first.mask, second.mask)
    model = methods[0].model
    with torch.no_grad():
        assert first.loss(model) == first.loss(model) == second.loss(model)


def test_held_back_subjects_and_labels_are_never_read(cache, tmp_path, monkeypatch):
    opened = []
    original = pretrain.UnlabeledVolumes

    def spy(*args, **kwargs):
        volumes = original(*args, **kwargs)
        opened.append(volumes.ids)
        return volumes

    monkeypatch.setattr(pretrain, "UnlabeledVolumes", spy)
    copy = write_cache(tmp_path / "cache", subjects=8)
    for path in [*copy.glob("labels/*.npy"), *(copy / f"images/case_{i}.npy" for i in (0, 1))]:
        path.unlink()  # subjects 0 and 1 are held back
    assert pretrain.main(arguments(copy, tmp_path / "run", "loop.steps=2")) == 0
    learnt, watched = (set(ids) for ids in opened)
    assert learnt | watched == {f"case_{i}" for i in range(2, 8)}
    assert not learnt & watched and len(watched) == 1


def test_few_subjects_are_all_learnt_from():
    assert pretrain.split_off_validation(["a", "b"], 4) == (["a", "b"], ["a", "b"])
    learn, watch = pretrain.split_off_validation([str(i) for i in range(20)], 3)
    assert len(watch) == 3 and sorted(learn + watch) == sorted(map(str, range(20)))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loop.step=5", "did you mean loop.steps?"),
        ("cache=nowhere", "nowhere"),
        ("patch=10,16,16", "must be a multiple of (4, 4, 4)"),
        ("device=gpu", "write auto, cpu, cuda"),
        ("network.name = unetr", "network.name must be one of resenc_unet, vit, swin, not 'unetr'"),
        ("patch=16", "a size for each axis, or none"),
    ],
)
def test_mistakes_are_one_line_and_code_2_and_write_nothing(
    cache, tmp_path, capsys, override, message
):
    assert pretrain.main(arguments(cache, tmp_path / "run", override)) == 2
    error = capsys.readouterr().err
    assert error.startswith("pretrain: error: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_help_lists_the_keys(capsys):
    with pytest.raises(SystemExit) as stop:
        pretrain.main(["--help"])
    assert stop.value.code == 0
    assert "loop.steps = 1000" in capsys.readouterr().out
