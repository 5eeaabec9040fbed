"""A study that was killed goes on where it was, and ends in the same table."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import study
from mim.caching import PrepareOptions, prepare_dataset
from mim.checkpoint import load_checkpoint
from small_sets import decathlon
from waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
STEPS = 40
PRETRAINING = '''"pretrain_cpu.toml", "network.features=4,8,8", "network.blocks=1,1,1",
  "device=cpu", "precision=fp32", "loop.steps=2", "validation_crops=2", "loop.tensorboard=false"'''
RECIPE = f"""
seeds = [0]
finetune = "finetune_cpu.toml"
finetune_overrides = ["network.features=4,8,8", "network.blocks=1,1,1", "device=cpu",
  "precision=fp32", "loop.steps={STEPS}", "loop.validate_every=20", "watch=2", "loop.log_every=1",
  "loop.save_every=2", "loop.tensorboard=false"]
[arms]
scratch = []
masked = [{PRETRAINING}]
sawtooth = [{PRETRAINING}, "finetune.transfer.schedule=sawtooth"]
"""
FINISHED = ("scratch-seed0", "pretrain-masked-seed0")
HALF = "masked-seed0"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL here")


def kill_within(run, command):
    """Start a study as a process and kill it, and its workers, while it does the run."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )

    def is_half_done():
        assert process.poll() is None, "it ended before it could be killed"
        log = run / "log.jsonl"
        return log.exists() and log.read_text().count("\n") > 6

    try:
        wait_until(is_half_done)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.read()  # until the last of them has let go of it


def curve(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line if "second" not in key} for line in lines]


@pytest.mark.slow
def test_a_killed_study_goes_on_and_ends_in_the_same_table(tmp_path, capsys):
    decathlon(tmp_path / "data", count=6)
    options = PrepareOptions(patch_voxels=4000, stages=3, jobs=1, held_back=0.5)
    prepare_dataset(tmp_path / "data", tmp_path / "cache", options)
    recipe, whole, killed = (tmp_path / name for name in ("study.toml", "whole", "killed"))
    recipe.write_text(RECIPE)

    def arguments(run):
        return [str(recipe), f"cache={tmp_path / 'cache'}", f"run={run}"]

    assert study.main(arguments(whole)) == 0
    kill_within(
        killed / HALF, [sys.executable, str(ROOT / "training/study.py"), *arguments(killed)]
    )
    assert not (killed / HALF / "results.json").exists() and not (killed / "study.json").exists()
    state = load_checkpoint(killed / HALF / "last.pt")
    assert 0 < state["step"] < STEPS
    kept = (killed / HALF / "log.jsonl").read_bytes()[: state["log_bytes"]]
    files = [path for name in FINISHED for path in (killed / name).iterdir()]
    times = {path: path.stat().st_mtime_ns for path in files}

    capsys.readouterr()
    assert study.main(arguments(killed)) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split()[:2] == ["1/2", HALF]  # the two that were finished are not done again
    assert {path: path.stat().st_mtime_ns for path in files} == times
    # Steps that were saved keep even their seconds; those after them are done as in the other.
    assert (killed / HALF / "log.jsonl").read_bytes().startswith(kept)
    assert curve(killed / HALF) == curve(whole / HALF)
    for name in ("study.json", "study.md"):
        assert (killed / name).read_text() == (whole / name).read_text()
