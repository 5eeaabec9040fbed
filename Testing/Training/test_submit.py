"""Training as a job of a cluster: what is asked of SLURM, and that a stopped job goes on."""

import json
import os
import stat
from pathlib import Path

import pytest

import submit
from cache_fixture import write_cache
from mim.checkpoint import load_checkpoint
from mim.cluster_job import TrainingJob

pytest.importorskip("submitit")
TINY = ["network.features=4,8", "network.blocks=1,1", "validation_crops=2", "loop.steps=4",
        "loop.save_every=2", "device=cpu", "precision=fp32", "loop.tensorboard=false"]  # fmt: skip


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text("")
    return str(path)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A stand-in for the cluster: `sbatch` keeps the script and gives a number."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {"sbatch": 'cp "$1" "$(dirname "$0")/job.sh"; echo Submitted batch job 42',
                       "srun": "true", "scontrol": "true", "sacct": "true"}.items():  # fmt: skip
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder / "job.sh"


def test_a_job_of_two_nodes_is_asked_for_as_it_was_said(slurm, recipe, tmp_path, capsys):
    arguments = [
        "pretrain", recipe, "run=runs/big", "loop.batch=32", "--nodes", "2", "--gpus", "8",
        "--hours", "1.5", "--memory", "200", "--partition", "gpu", "--account", "lab",
        "--slurm", "qos=high", "constraint=h200", "--logs", str(tmp_path / "logs" / "%j"),
    ]  # fmt: skip
    assert submit.main(arguments) == 0, capsys.readouterr().err
    assert "Job 42 is queued" in capsys.readouterr().out
    asked = slurm.read_text()
    for line in ("nodes=2", "ntasks-per-node=8", "gpus-per-node=8", "time=90", "mem=200GB",
                 "partition=gpu", "account=lab", "qos=high", "constraint=h200", "job-name=big",
                 "signal=USR2@90"):  # fmt: skip
        assert f"#SBATCH --{line}\n" in asked, line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrain", "loop.stepps=1"], "did you mean loop.steps?"),
        (["pretrain", "loop.batch=6", "--gpus", "4"], "choose a multiple of 4"),
        (["finetune", "--gpus", "2", "loop.batch=2"], "one process"),
    ],
)
def test_what_could_not_run_is_refused_before_it_is_queued(
    slurm, recipe, tmp_path, capsys, arguments, message
):
    command, *rest = arguments
    assert submit.main([command, recipe, *rest, "--logs", str(tmp_path / "logs")]) == 2
    assert message in capsys.readouterr().err
    assert not slurm.exists()


def test_without_a_cluster_it_says_so(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert submit.main(["pretrain", recipe, "--logs", str(tmp_path / "logs")]) == 2
    assert "There is no SLURM here" in capsys.readouterr().err


def lines(run):
    found = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in found if "loss" in line]


def test_processes_of_a_job_train_together_and_a_failed_one_says_why(
    recipe, tmp_path, monkeypatch, capsys
):
    write_cache(tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments = ["pretrain", "tiny.toml", "cache=cache", "run=run", "loop.batch=2", *TINY,
                 "--here", "--gpus", "2", "--logs", "logs/%j"]  # fmt: skip
    assert submit.main(arguments) == 0, capsys.readouterr().err
    assert len(lines(Path("run"))) == 4
    assert len(load_checkpoint("run/last.pt")["processes"]) == 2
    outputs = [path.read_text() for path in Path("logs").rglob("*_log.out")]
    assert sum("Pre-trained to step 4" in text for text in outputs) == 1

    assert submit.main([*arguments, "seed=1"]) == 1
    assert "cannot be continued with another recipe" in capsys.readouterr().err


def test_a_requeued_job_is_the_same_job():
    job = TrainingJob("pretrain", ("recipe.toml",), "/somewhere", "/code")
    delayed = job.checkpoint()
    assert delayed.function == job and not delayed.args
