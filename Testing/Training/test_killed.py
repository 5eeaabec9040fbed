"""Runs killed by the operating system go on as if nothing had happened, to the last bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import finetune
import pretrain
from mim.caching import PrepareOptions, prepare_dataset
from mim.checkpoint import load_checkpoint
from mim.loop import TrainState
from small_sets import decathlon
from waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {"pretrain": pretrain.main, "finetune": finetune.main}
MOMENTS = ("step", "save", "rename", "log")
SMALL = [
    "network.features=4,8,8", "network.blocks=1,1,1", "device=cpu", "precision=fp32",
    "loop.tensorboard=false", "loop.log_every=3", "loop.save_every=4", "loop.validate_every=9",
    "loop.ema=0.9", "optimizer.warmup=5",
]  # fmt: skip
OWN = {"pretrain": ["validation_crops=2"], "finetune": ["transfer.schedule=sawtooth", "watch=2"]}

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL here")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    root = tmp_path_factory.mktemp("killed")
    decathlon(root / "data", count=6)
    options = PrepareOptions(patch_voxels=4000, stages=3, jobs=1)
    prepare_dataset(root / "data", root / "cache", options)
    return root / "cache"


def arguments(command, cache, run, steps):
    recipe = ROOT / "training" / "recipes" / f"{command}_cpu.toml"
    places = [f"cache={cache}", f"run={run}", f"loop.steps={steps}"]
    return [str(recipe), *places, *SMALL, *OWN[command], "--resume"]


def killed_at(moment, number, command, command_line):
    """Run the command in a process of its own, which dies at the moment."""
    job = [sys.executable, str(ROOT / "Testing/Training/killed_job.py"), moment, str(number)]
    done = subprocess.run([*job, command, *command_line], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]


def killed_after(lines, seconds, command, command_line):
    """The same, killed from outside ``seconds`` after its log got so many lines more."""
    log = Path(next(a for a in command_line if a.startswith("run="))[4:]) / "log.jsonl"
    have = log.read_text().count("\n") if log.exists() else 0
    job = [sys.executable, str(ROOT / "training" / f"{command}.py"), *command_line]
    process = subprocess.Popen(job, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def has_grown():
        assert process.poll() is None, "it ended before it could be killed"
        return log.exists() and log.read_text().count("\n") >= have + lines

    wait_until(has_grown)
    time.sleep(seconds)
    process.kill()
    process.wait()


def outcome(run):
    """Curve without times, weights, and what was measured at the end."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    curve = [{key: line[key] for key in line if "second" not in key} for line in lines]
    results = run / "results.json"
    return curve, load_checkpoint(run / "last.pt"), results.exists() and results.read_text()


def assert_same(run, whole):
    (curve, state, results), (expected, other, wanted) = outcome(run), outcome(whole)
    assert curve == expected
    assert results == wanted
    for part in ("model", "average"):
        assert all(tensor.equal(other[part][name]) for name, tensor in state[part].items())
    assert not list(run.glob(".*"))  # nothing half-written is left


@pytest.mark.parametrize(
    ("command", "moments"),
    [("pretrain", [("step", 6), ("save", 2)]), ("finetune", [("log", 3), ("rename", 4)])],
)
def test_run_killed_twice_continues_the_same_curve_bit_by_bit(command, moments, cache, tmp_path):
    whole, killed = (arguments(command, cache, tmp_path / n, 16) for n in ("whole", "killed"))
    assert COMMANDS[command](whole) == 0
    for moment, number in moments:
        killed_at(moment, number, command, killed)
    assert COMMANDS[command](killed) == 0
    assert_same(tmp_path / "killed", tmp_path / "whole")


def test_a_disk_that_fills_up_is_a_sentence_and_the_last_checkpoint_goes_on(
    cache, tmp_path, mounted, monkeypatch, capsys
):
    disk = mounted("size=2m")
    whole, filled = (arguments("pretrain", cache, n / "run", 12) for n in (tmp_path, disk))
    assert pretrain.main(whole) == 0
    save = TrainState.save

    def fill_after_step_8(state, path, metadata):
        save(state, path, metadata)
        if state.step == 8 and path.name == "last.pt":
            free = os.statvfs(disk)
            (disk / "filling").write_bytes(bytes(free.f_bavail * free.f_frsize - 8192))

    with monkeypatch.context() as patched:
        patched.setattr(TrainState, "save", fill_after_step_8)
        assert pretrain.main(filled) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    for part in ("could not be written", "No space left", "go on with --resume"):
        assert part in error
    assert load_checkpoint(disk / "run/last.pt")["step"] == 8
    (disk / "filling").unlink()
    assert pretrain.main(filled) == 0
    assert_same(disk / "run", tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_run_killed_at_ten_random_moments_continues_the_same_curve(command, cache, tmp_path):
    whole, killed = (arguments(command, cache, tmp_path / n, 150) for n in ("whole", "killed"))
    assert COMMANDS[command](whole) == 0
    chance = random.Random(command)
    for number in range(10):
        if number % 2:
            killed_at(chance.choice(MOMENTS), chance.randint(2, 4), command, killed)
        else:
            killed_after(chance.randint(3, 9), chance.uniform(0, 0.2), command, killed)
    assert 0 < load_checkpoint(tmp_path / "killed/last.pt")["step"] < 150
    assert COMMANDS[command](killed) == 0
    assert_same(tmp_path / "killed", tmp_path / "whole")
