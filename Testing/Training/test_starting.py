"""Runs that start from the weights of others: what arrives, what is left, what is said of it."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import finetune
import pretrain
from cache_fixture import with_targets, write_cache
from mim import architectures
from mim.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from mim.data import read_cache
from mim.device import Generators, seed_everything
from mim.loop import TrainState
from mim.methods import build_method
from mim.optim import OptimizerSettings
from mim.outputs import outputs_of
from mim.recipe import load_recipe
from mim.run_log import TrainingError
from mim.starting import start_from

UNET = ("network.features=4,8,8", "network.blocks=1,1,1")
VIT = ("network.name=vit", "network.patch=4,4,4", "network.width=24", "network.depth=1",
       "network.heads=2")  # fmt: skip
MAE = (*VIT, "method.decoder_width=16", "method.decoder_depth=1", "method.decoder_heads=2")
SWIN = ("network.name=swin", "network.width=12", "patch=32,32,32")
SMALL = ("device=cpu", "precision=fp32", "loop.tensorboard=false", "loop.batch=2")
METHODS = [
    ("masked_unet", (*UNET, "method.fill=token")),
    ("s3d", UNET),
    ("mae", MAE),
    ("simmim", VIT),
    ("simmim", SWIN),
    ("simclr", UNET),
    ("simclr", VIT),
    ("masked_contrastive", UNET),
    ("models_genesis", UNET),
    ("volume_fusion", UNET),
]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """An empty recipe and a cache."""
    root = tmp_path_factory.mktemp("starting")
    (root / "recipe.toml").write_text("")
    write_cache(root / "cache")
    return root


def recipe_of(work, command, *changes):
    kind = pretrain.PretrainRecipe if command is pretrain else finetune.FinetuneRecipe
    return load_recipe(kind, work / "recipe.toml", [f"cache={work / 'cache'}", *SMALL, *changes])


def method_of(work, name, changes, seed=0):
    """A method with weights that no other seed has."""
    cache = read_cache(work / "cache")
    recipe = recipe_of(work, pretrain, f"method.name={name}", *changes)
    seed_everything(seed)
    method = build_method(recipe, cache, recipe.patch or cache.patch)
    with torch.no_grad():
        for parameter in method.model.parameters():
            parameter.normal_()
    return method


def saved(path, method, kind, plan=None, **metadata):
    content = {"kind": kind, "plan": plan or {}, "network": method.network, **metadata}
    save_checkpoint(path, {"metadata": content, "model": method.model.state_dict()})
    return path


def started(work, path, method, name):
    """What is printed when ``method`` starts from ``path``, and the run's metadata."""
    cache, metadata = read_cache(work / "cache"), {"seen": ["own"]}
    outputs = outputs_of(name, cache.plan)
    said = start_from(path, method.model, (cache,), metadata, outputs, required=["encoder"])
    return said, metadata


def same(first, second, only=""):
    """Names of the parameters that are equal in both, and of those that are not."""
    theirs = dict(second.named_parameters())
    names = [n for n, _ in first.named_parameters() if n in theirs and only in n]
    equal = {n for n in names if torch.equal(first.get_parameter(n), theirs[n])}
    return equal, set(names) - equal


@pytest.mark.parametrize(("name", "changes"), METHODS)
def test_a_pre_training_goes_on_with_all_that_the_same_method_had(work, tmp_path, name, changes):
    before, after = (method_of(work, name, changes, seed) for seed in (1, 2))
    path = saved(tmp_path / "last.pt", before, name)
    assert not same(after.model, before.model)[0]
    said, _ = started(work, path, after, name)
    assert not same(after.model, before.model)[1]
    assert "missing" not in said and "fresh" not in said


def test_another_method_takes_the_network_and_leaves_what_it_does_not_know(work, tmp_path):
    before, after = (method_of(work, name, UNET, i) for i, name in enumerate(("s3d", "simclr")))
    fresh = method_of(work, "masked_unet", UNET, 3)
    path = saved(tmp_path / "last.pt", before, "s3d")
    said, _ = started(work, path, fresh, "masked_unet")
    assert not same(fresh.model, before.model)[1]
    assert "both are for restored images" in said
    assert "not in the model" in said  # mask tokens and densifying layers
    said, _ = started(work, path, after, "simclr")
    assert not same(after.model.network, before.model.network)[1]
    assert "not in the checkpoint" in said  # the projection head


def test_an_output_layer_for_something_else_starts_fresh_and_that_is_said(work, tmp_path):
    before, after = (
        method_of(work, name, UNET, i) for i, name in enumerate(("volume_fusion", "masked_unet"))
    )
    path = saved(tmp_path / "last.pt", before, "volume_fusion")
    said, _ = started(work, path, after, "masked_unet")
    assert same(after.model, before.model, "seg_layers")[0] == set()
    assert "is for the method volume_fusion, this one for restored images: it starts" in said


def test_another_decoder_starts_fresh_under_the_same_transformer(work, tmp_path):
    wider = (*MAE, "method.decoder_width=32")
    before, after = method_of(work, "mae", MAE, 1), method_of(work, "mae", wider, 2)
    said, _ = started(work, saved(tmp_path / "last.pt", before, "mae"), after, "mae")
    assert not same(after.model.network, before.model.network)[1]
    assert "decoder.embed.weight" not in same(after.model, before.model)[0]
    assert "encoder 100.0%" in said and "shape (16, 24) against (32, 24)" in said


def test_the_transformer_of_a_contrast_fills_that_of_a_masked_auto_encoder(work, tmp_path):
    before, after = method_of(work, "simclr", VIT, 1), method_of(work, "mae", MAE, 2)
    said, _ = started(work, saved(tmp_path / "last.pt", before, "simclr"), after, "mae")
    assert not same(after.model.network, before.model.network.vit)[1]
    assert "decoder that fits this model: it starts fresh" in said


def test_a_file_of_openmind_is_pre_trained_on_with_its_decoder_and_output(work, tmp_path):
    before, after = (method_of(work, name, UNET, i) for i, name in enumerate(("s3d", "s3d")))
    content = {
        "network_weights": before.model.network.state_dict(),
        "trainer_name": "BaseMAETrainer",
        "nnssl_adaptation_plan": {"key_to_encoder": "encoder.stages"},
    }
    torch.save(content, tmp_path / "checkpoint_final.pth")
    said, metadata = started(work, tmp_path / "checkpoint_final.pth", after, "s3d")
    assert not same(after.model.network, before.model.network)[1]
    assert "written as nnssl by BaseMAETrainer" in said and metadata == {"seen": ["own"]}


def test_a_file_that_fits_nothing_stops_the_command_before_it_writes(work, tmp_path, capsys):
    other = method_of(work, "mae", MAE)
    path = saved(tmp_path / "last.pt", other, "mae")
    run = tmp_path / "run"
    command = [str(work / "recipe.toml"), f"cache={work / 'cache'}", *SMALL, *UNET, f"run={run}"]
    assert pretrain.main([*command, f"pretrained={path}"]) == 2
    assert "gave no tensor to the model's encoder" in capsys.readouterr().err
    assert not run.exists()


def curve(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "second" not in key} for line in lines]


def test_a_resumed_pre_training_goes_on_from_its_state_not_from_the_start(
    work, tmp_path, monkeypatch, capsys
):
    start = saved(tmp_path / "start.pt", method_of(work, "s3d", UNET), "s3d", seen=["theirs"])
    common = [f"cache={work / 'cache'}", *SMALL, *UNET, "method.name=s3d", "loop.save_every=2",
              "validation_crops=1"]  # fmt: skip

    def command(run, *more):
        own = [f"run={run}", f"pretrained={start}", "loop.steps=4", *more]
        return pretrain.main([str(work / "recipe.toml"), *common, *own])

    assert command(tmp_path / "whole") == 0
    assert "Weights from" in capsys.readouterr().out
    scratch = [*common, f"run={tmp_path / 'scratch'}", "loop.steps=1"]
    pretrain.pretrain(recipe_of(work, pretrain, *scratch))
    assert curve(tmp_path / "scratch")[0]["loss"] != curve(tmp_path / "whole")[0]["loss"]

    draw, left = pretrain.draw_crops, iter(range(3))

    def stops(*arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return draw(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(pretrain, "draw_crops", stops)
        assert command(tmp_path / "killed") == 130
    start.unlink()
    capsys.readouterr()
    assert command(tmp_path / "killed", "--resume") == 0
    assert "Weights from" not in capsys.readouterr().out
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")
    whole, killed = (load_checkpoint(tmp_path / n / "last.pt") for n in ("whole", "killed"))
    assert all(torch.equal(w, killed["model"][n]) for n, w in whole["model"].items())
    assert whole["metadata"]["seen"] == killed["metadata"]["seen"] == ["theirs"]


def test_a_copy_that_a_run_kept_starts_others(work, tmp_path, capsys):
    run = tmp_path / "run"
    command = [str(work / "recipe.toml"), f"cache={work / 'cache'}", *SMALL, *UNET]
    steps = ("loop.steps=4", "loop.keep_every=2", "validation_crops=2")
    assert pretrain.main([*command, f"run={run}", *steps]) == 0
    said = capsys.readouterr().out
    assert "step_000002.pt" in said and "step_000004.pt" in said
    assert (run / "step_000002.pt").stat().st_size < 0.6 * (run / "last.pt").stat().st_size
    after = method_of(work, "masked_unet", UNET, 3)
    said, _ = started(work, run / "step_000004.pt", after, "masked_unet")
    last = load_checkpoint(run / "last.pt")["model"]
    assert all(torch.equal(w, last[n]) for n, w in after.model.state_dict().items())
    assert "written as MIM Segment" in said


def test_a_run_of_other_processes_names_the_command_that_starts_from_its_weights():
    model = torch.nn.Linear(1, 1)
    state = TrainState.fresh(model, OptimizerSettings(), Generators.seeded(0))
    with pytest.raises(TrainingError, match=r"run=OTHER pretrained=RUN/last\.pt, without --resume"):
        state.restore({"processes": [{}, {}]})


class Handed(Exception):
    """The state that a command hands to the loop."""


NETWORKS = {"one class": "resenc_classifier", "several findings": "resenc_classifier"}
TARGETS = ["labels", "regions", "one class", "several findings"]


def fine_tuning(work, tmp_path, monkeypatch, cache, *changes):
    """The network as it would begin to learn on ``cache``."""

    def train(state, *arguments, **options):
        raise Handed(state)

    monkeypatch.setattr(finetune, "train", train)
    monkeypatch.setattr(finetune, "cache_of", lambda *arguments: cache)
    recipe = recipe_of(work, finetune, *UNET, f"run={tmp_path / 'run'}", *changes)
    with pytest.raises(Handed) as found:
        finetune.finetune(recipe)
    return found.value.args[0].model


def fine_tuned(path, work, cache, network):
    """A checkpoint of a fine-tuning on ``cache``, and its network."""
    recipe = recipe_of(work, finetune, *UNET, f"network.name={network}")
    task = finetune.task_of(cache, recipe)
    config = finetune.network_for(task, cache, recipe)
    model = architectures.build(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    saved(path, SimpleNamespace(model=model, network=config), task.kind, cache.plan)
    return model


def renamed(plan):
    """The plan with its first structure, region or class under another name."""
    key = next(k for k in ("regions", "classes", "labels") if plan.get(k))
    first, *rest = plan[key]
    return {**plan, key: [{**first, "name": "new"} if isinstance(first, dict) else "new", *rest]}


def reordered(plan):
    key = next(k for k in ("regions", "classes", "labels") if plan.get(k))
    return {**plan, key: plan[key][::-1]}


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("change", [None, renamed, reordered])
def test_a_fine_tuning_of_the_same_task_goes_on_with_its_output_layer(
    work, tmp_path, monkeypatch, capsys, targets, change
):
    cache = with_targets(read_cache(work / "cache"), targets)
    network = NETWORKS.get(targets, "resenc_unet")
    before = fine_tuned(tmp_path / "fine.pt", work, cache, network)
    now = cache if change is None else replace(cache, plan=change(cache.plan))
    after = fine_tuning(
        work, tmp_path, monkeypatch, now, f"network.name={network}",
        f"pretrained={tmp_path / 'fine.pt'}",
    )  # fmt: skip
    equal, other = same(after, before)
    heads = {name for name in equal | other if name.startswith(("decoder.seg_layers", "head."))}
    said = capsys.readouterr().out
    if change is None:
        assert heads and not other and "the output layer is kept: both are for the " in said
    else:
        assert other == heads and "output layer of another task" in said
        assert "the file's output layer is for the " in said


def test_the_encoder_alone_comes_without_the_output_layer(work, tmp_path, monkeypatch):
    cache = with_targets(read_cache(work / "cache"), "labels")
    before = fine_tuned(tmp_path / "fine.pt", work, cache, "resenc_unet")
    start = (f"pretrained={tmp_path / 'fine.pt'}", "parts=encoder")
    after = fine_tuning(work, tmp_path, monkeypatch, cache, *start)
    assert all(name.startswith("encoder.") for name in same(after, before)[0])


def test_pre_training_takes_a_fine_tuned_network_without_its_output_layer(work, tmp_path):
    cache = with_targets(read_cache(work / "cache"), "labels")
    before = fine_tuned(tmp_path / "fine.pt", work, cache, "resenc_unet")
    after = method_of(work, "masked_unet", UNET)
    said, _ = started(work, tmp_path / "fine.pt", after, "masked_unet")
    equal, other = same(after.model.network, before)
    assert equal and all(name.startswith("decoder.seg_layers.") for name in other)
    assert "is for the structures shell, core, this one for restored images" in said


def test_a_file_that_is_not_there_is_refused_by_name(work):
    with pytest.raises(CheckpointError, match=r"no checkpoint .*gone\.pt"):
        started(work, "gone.pt", method_of(work, "s3d", UNET), "s3d")
