"""Two processes that train together do what one does with their batches, however it is padded."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import finetune
from mim.checkpoint import load_checkpoint
from mim.loop import LoopSettings
from mim.parallel import shard
from mim.recipe import RecipeError
from mim.run_log import TrainingError
from mim.schedule import TransferSettings
from parallel_job import network, run_job

HERE = Path(__file__).resolve().parent


def launch(*arguments, processes=2):
    """Start what torchrun would start; returns exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join([str(HERE), str(HERE.parents[1]), str(HERE.parents[1] / "training")])
    shared = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2",
              "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    command = [sys.executable, str(HERE / "parallel_job.py"), *map(str, arguments)]
    started = [
        subprocess.Popen(
            command, env={**shared, "RANK": str(i), "LOCAL_RANK": str(i)}, stderr=subprocess.PIPE
        )
        for i in range(processes)
    ]
    errors = [process.communicate(timeout=120)[1].decode() for process in started]
    codes = [process.returncode for process in started]
    assert set(codes) <= {0, 3}, errors[0] + errors[1]
    return codes


def curve(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(line["loss"], line["grad_norm"]) for line in lines if "loss" in line]


def assert_same(one: Path, other: Path):
    for a, b in zip(curve(one), curve(other), strict=True):
        assert a == pytest.approx(b, rel=1e-6)
    first, second = (load_checkpoint(run / "last.pt")["model"] for run in (one, other))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.allclose(tensor, second[name], atol=1e-6), name


def test_two_processes_and_accumulated_parts_equal_one_with_the_whole_batch(tmp_path):
    # The residual encoder has an output layer that no loss sees; the schedule freezes and frees.
    run_job("unet", tmp_path / "one", TransferSettings("sawtooth", 0.3, 0.3))
    launch("unet", tmp_path / "two", "accumulate=2", "schedule=sawtooth")
    assert_same(tmp_path / "one", tmp_path / "two")


def test_two_processes_resume_where_they_stopped(tmp_path):
    run_job("unet", tmp_path / "one")
    assert launch("unet", tmp_path / "two", "stop=5") == [3, 3]
    with pytest.raises(TrainingError, match=r"2 process\(es\), this is 1"):
        run_job("unet", tmp_path / "x", resume=load_checkpoint(tmp_path / "two" / "last.pt"))
    launch("unet", tmp_path / "two", "resume=1")
    assert_same(tmp_path / "one", tmp_path / "two")


def test_the_first_process_decides_for_all_which_weights_are_the_best(tmp_path):
    launch("unet", tmp_path / "two")
    assert load_checkpoint(tmp_path / "two" / "best.pt")["step"] == 4


def test_a_sharded_masked_autoencoder_with_accumulated_parts_learns_the_same_and_resumes(tmp_path):
    run_job("mae", tmp_path / "one", accumulate=2)
    assert launch("mae", tmp_path / "two", "shard=1", "accumulate=2", "stop=5") == [3, 3]
    launch("mae", tmp_path / "two", "shard=1", "accumulate=2", "resume=1")
    assert_same(tmp_path / "one", tmp_path / "two")


def test_fine_tuning_by_several_processes_is_refused_before_anything_is_written(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    recipe = HERE.parents[1] / "training/recipes/finetune_cpu.toml"
    assert finetune.main([str(recipe), f"run={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert "2 were started" in error and "without torchrun" in error and "--jobs" in error
    assert not (tmp_path / "run").exists()


def test_sharding_without_processes_or_averaging_a_sharded_model_is_refused():
    with pytest.raises(RecipeError, match="torchrun"):
        shard(network("mae"))
    with pytest.raises(RecipeError, match=r"loop\.ema"):
        LoopSettings(ema=0.9, shard=True)
