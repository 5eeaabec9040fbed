"""Every pre-training method through `pretrain.py`: it learns, resumes, and hands its encoder on."""

import json
import re

import pytest
import torch

import pretrain
from cache_fixture import write_cache
from mim import architectures
from mim.checkpoint import load_checkpoint
from mim.data import UnlabeledVolumes, draw_crops, read_cache
from mim.device import Generators, seed_everything
from mim.loop import TrainState
from mim.methods import build_method
from mim.recipe import load_recipe
from mim.reconstruction import draw_rows
from mim.transfer import load_pretrained

METHODS = (
    "masked_unet", "s3d", "simclr", "masked_contrastive", "models_genesis", "volume_fusion", "mae",
    "simmim",
)  # fmt: skip
TRANSFORMERS = ("mae", "simmim")
UNET = ("network.features=4,8,8", "network.blocks=1,1,1")
VIT = ("network.name=vit", "network.patch=4,4,4", "network.width=24", "network.depth=1",
       "network.heads=2")  # fmt: skip
MAE = ("method.decoder_width=16", "method.decoder_depth=1", "method.decoder_heads=2")
SETTINGS = (
    "validation_crops=2",
    "optimizer.warmup=0",
    "optimizer.lr=5e-3",
    "loop.batch=2",
    "loop.steps=6",
    "loop.save_every=3",
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return write_cache(tmp_path_factory.mktemp("methods") / "cache")


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "empty.toml"
    path.write_text("")
    return path


def overrides(cache, run, method, *more):
    network = VIT if method in TRANSFORMERS else UNET
    more = (*more, *MAE) if method == "mae" else more
    return [f"cache={cache}", f"run={run}", f"method.name={method}", *SETTINGS, *network, *more]


def losses(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


@pytest.mark.parametrize("method", METHODS)
def test_method_runs_resumes_to_the_same_curve_and_hands_its_encoder_on(
    cache, recipe_file, tmp_path, method, capsys, monkeypatch
):
    arguments = [str(recipe_file), *overrides(cache, tmp_path / "whole", method)]
    assert pretrain.main(arguments) == 0, capsys.readouterr().err
    whole = tmp_path / "whole"
    assert (whole / "reconstruction.png").stat().st_size > 5000
    assert len(losses(whole)) == 6

    arguments = [str(recipe_file), *overrides(cache, tmp_path / "cut", method)]
    stop_after_three_steps(monkeypatch, *arguments)
    assert pretrain.main([*arguments, "--resume"]) == 0
    assert losses(tmp_path / "cut") == losses(whole)

    content = load_checkpoint(whole / "last.pt")
    assert content["metadata"]["kind"] == method
    target = architectures.build(content["metadata"]["network"])
    alone = method == "simclr" or method in TRANSFORMERS
    parts = ("encoder",) if alone else ("encoder", "decoder")
    report = load_pretrained(target, whole / "last.pt", parts)
    assert all(report.shares[part] == 1 for part in parts)


def stop_after_three_steps(monkeypatch, *arguments):
    """Leave the state of a run that was killed after its checkpoint of step 3."""
    save = TrainState.save

    def killed(state, path, metadata):
        save(state, path, metadata)
        if state.step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(TrainState, "save", killed)
        assert pretrain.main([*arguments]) == 130


@pytest.mark.parametrize("name", ["mae", "s3d"])
def test_a_compiled_method_learns_the_same(cache, recipe_file, name):
    arguments = overrides(cache, "unused", name, "precision=fp32")
    recipe = load_recipe(pretrain.PretrainRecipe, recipe_file, arguments)
    opened = read_cache(cache)
    method = build_method(recipe, opened, (16, 16, 16))
    crops = draw_crops(
        UnlabeledVolumes(opened, opened.train), (16, 16, 16), 2, torch.Generator().manual_seed(0)
    )

    def step():
        method.model.zero_grad()
        loss = method.loss(crops, Generators.seeded(0)).mean
        loss.backward()
        return loss.item(), [
            p.grad.clone() for p in method.model.parameters() if p.grad is not None
        ]

    loss, gradients = step()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    method.model.compile(backend="aot_eager", dynamic=False)
    compiled_loss, compiled_gradients = step()
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0
    assert compiled_loss == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(compiled_gradients, gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_loss_falls_on_one_batch(cache, recipe_file, method):
    recipe = load_recipe(
        pretrain.PretrainRecipe,
        recipe_file,
        overrides(cache, "unused", method, "mask.block=4,4,4", "method.temperature=0.2")
        if "contrast" in method or method == "simclr"
        else overrides(cache, "unused", method, "mask.block=4,4,4"),
    )
    opened = read_cache(cache)
    seed_everything(0)
    method = build_method(recipe, opened, (16, 16, 16))
    volumes = UnlabeledVolumes(opened, opened.train)
    crops = draw_crops(volumes, (16, 16, 16), 4, torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(method.model.parameters(), 5e-3)
    curve = []
    for _ in range(40):
        loss = method.loss(crops, Generators.seeded(0)).mean
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    assert curve[-1] < 0.8 * curve[0], curve[::10]


@pytest.mark.parametrize("method", ["simclr", "masked_contrastive", "volume_fusion"])
def test_methods_that_need_two_crops_say_so(cache, recipe_file, tmp_path, method, capsys):
    arguments = overrides(cache, tmp_path / "run", method, "loop.batch=1")
    assert pretrain.main([str(recipe_file), *arguments]) == 2
    assert re.search(r"loop\.batch", capsys.readouterr().err)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_cache(tmp_path_factory.mktemp("pictures") / "cache", pictures=True)


@pytest.mark.parametrize("method", METHODS)
def test_method_learns_from_pictures(pictures, recipe_file, tmp_path, method, capsys):
    token = ("network.patch=4,4",) if method in TRANSFORMERS else ()
    arguments = overrides(pictures, tmp_path / "run", method, "loop.steps=2", "spatial.affine=1")
    assert pretrain.main([str(recipe_file), *arguments, *token]) == 0, capsys.readouterr().err
    assert (tmp_path / "run/reconstruction.png").stat().st_size > 5000
    content = load_checkpoint(tmp_path / "run/last.pt")
    report = load_pretrained(
        architectures.build(content["metadata"]["network"]), tmp_path / "run/last.pt", ("encoder",)
    )
    assert report.shares["encoder"] == 1


@pytest.mark.parametrize(
    ("method", "setting"),
    [
        ("masked_unet", "mask.block=4,4,4"),
        ("masked_contrastive", "mask.block=4,4,4"),
        ("mae", "network.patch=4,4,4"),
        ("simmim", "network.name=swin"),
        ("simclr", "network.name=swin"),
    ],
)
def test_settings_for_volumes_are_refused_for_pictures(
    pictures, recipe_file, tmp_path, method, setting, capsys
):
    arguments = [*overrides(pictures, tmp_path / "run", method), setting]
    if setting.endswith("swin"):
        arguments = [a for a in arguments if not a.startswith("network.") or a == setting]
    assert pretrain.main([str(recipe_file), *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and len(said) > 40, said


def test_a_long_name_beside_a_picture_is_cut_to_its_end(tmp_path):
    columns = {"original": torch.rand(1, 1, 4, 6, 6)}
    long = "hospital_study_" * 3 + "patient_0001_T1w"
    for name, case in (("long", long), ("cut", "..." + long[-33:])):
        draw_rows(columns, [case], (1, 1, 1), tmp_path / f"{name}.png")
    assert (tmp_path / "long.png").read_bytes() == (tmp_path / "cut.png").read_bytes()
