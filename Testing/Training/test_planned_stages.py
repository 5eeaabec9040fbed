"""How many stages a network gets, and that nobody is left to find out when they are fewer."""

import json

import pytest

import finetune
import prepare
import pretrain
from cache_fixture import with_targets, write_cache
from mim.architectures import cut_stages
from mim.classifier import ClassifierSettings, configure_classifier
from mim.data import read_cache
from mim.networks import NetworkSettings, network_config
from mim.planning import kernel_sizes, patch_and_strides
from small_sets import decathlon, read

COMMANDS = {"pretrain": pretrain, "finetune": finetune}


@pytest.fixture
def work(tmp_path):
    """An empty recipe, and a cache whose plan has three stages."""
    (tmp_path / "recipe.toml").write_text("")
    write_cache(tmp_path / "cache")
    plan = with_targets(read_cache(tmp_path / "cache"), "labels").plan
    (tmp_path / "cache/plan.json").write_text(json.dumps(plan))
    return tmp_path


class Begun(Exception):
    """Raised in place of the training."""


def printed(work, command, features, monkeypatch, capsys):
    """What the command says before it trains."""

    def train(*arguments, **options):
        raise Begun

    monkeypatch.setattr(COMMANDS[command], "train", train)
    blocks = ",".join("1" for _ in features.split(","))
    with pytest.raises(Begun):
        COMMANDS[command].main(
            [str(work / "recipe.toml"), f"cache={work / 'cache'}", f"run={work / 'run'}",
             f"network.features={features}", f"network.blocks={blocks}", "device=cpu"]
        )  # fmt: skip
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_stages_that_the_plan_does_not_have_are_named_before_training(
    work, command, monkeypatch, capsys
):
    out = printed(work, command, "4,8,8,16,24", monkeypatch, capsys)
    (line,) = [line for line in out.splitlines() if line.startswith("WARNING")]
    assert "network.features has 5 stages, the cache's plan has 3" in line
    assert "(16, 24 channels)" in line and "prepare.py --stages 5" in line


@pytest.mark.parametrize("command", COMMANDS)
def test_as_many_stages_as_the_plan_or_fewer_are_what_was_asked_for(
    work, command, monkeypatch, capsys
):
    for features in ("4,8,8", "4,8"):
        assert "WARNING" not in printed(work, command, features, monkeypatch, capsys)


def test_strides_of_the_recipe_are_named_where_they_are_the_fewer():
    settings = NetworkSettings((4, 8, 8), (1, 1, 1), strides=((1, 1, 1), (2, 2, 2)))
    line = cut_stages(settings, network_config(settings, {}, 1, 1).to_dict())
    assert "network.strides or kernel_sizes have 2" in line


def test_a_classifiers_stages_are_counted_too():
    plan = {"strides": [[1, 1], [2, 2]], "kernel_sizes": [[3, 3]] * 2}
    settings = ClassifierSettings((4, 8, 8), (1, 1, 1))
    assert "has 3 stages" in cut_stages(settings, configure_classifier(settings, plan, (), 1, 2))


def test_stages_that_make_nothing_smaller_are_counted_for_the_user(tmp_path, capsys):
    decathlon(tmp_path / "scans", count=3)
    command = [str(tmp_path / "scans"), str(tmp_path / "cache"), "--jobs", "1"]
    for stages, told in ((5, True), (3, False)):
        assert prepare.main([*command, "--stages", str(stages)]) == 0
        out = capsys.readouterr().out
        strides = read(tmp_path / "cache", "plan.json")["strides"]
        assert ([1, 1, 1] in strides[1:]) == told == ("make nothing smaller" in out)
        if told:
            enough = stages - strides[1:].count([1, 1, 1])
            assert f"--stages {enough} is enough" in out


@pytest.mark.parametrize(("side", "halvings"), [(224, 3), (64, 3), (28, 2)])
def test_pictures_are_halved_at_every_stage_that_is_long_enough(side, halvings):
    _, strides = patch_and_strides((1, side, side), (1, 1, 1), side * side, 4)
    assert strides == ((1, 1, 1), *[(1, 2, 2)] * halvings, *[(1, 1, 1)] * (3 - halvings))


def test_a_short_fine_axis_does_not_stop_the_others():
    patch, strides = patch_and_strides((10, 160, 160), (1, 1, 1), 256_000, 5)
    assert patch == (10, 160, 160)
    assert strides[1:] == ((2, 2, 2), (1, 2, 2), (1, 2, 2), (1, 2, 2))
    assert kernel_sizes(strides, (1, 1, 1)) == ((3, 3, 3),) * 5  # wide as long as it was once
