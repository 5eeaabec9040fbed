"""Run pretrain.py or finetune.py as a job of a SLURM cluster, on one or several nodes.

    python training/submit.py pretrain RECIPE [key=value ...] --nodes 2 --gpus 8 --hours 24
    python training/submit.py finetune RECIPE [key=value ...] --gpus 1 --partition gpu

The recipe is checked before the job is queued. A job that reaches its time limit or is preempted is
queued again and goes on from its last checkpoint. Needs submitit (pip install "mimsegment[slurm]").
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune import FinetuneRecipe
from mim import cluster_job
from mim.recipe import RecipeError, load_recipe
from MIMSegment.Logic.errors import MIMSegmentError
from pretrain import PretrainRecipe

COMMANDS = {"pretrain": PretrainRecipe, "finetune": FinetuneRecipe}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0, or 2 after one line about what went wrong."""
    arguments = _parser().parse_intermixed_args(argv)
    try:
        job, paths = submit(arguments)
    except MIMSegmentError as error:
        print(f"submit: error: {error}", file=sys.stderr)
        return 2
    print(f"Job {job.job_id} is queued; it writes {paths.stdout} and {paths.stderr}.")
    return _wait(job) if arguments.here else 0


def _wait(job: Any) -> int:
    """Wait for the processes of a job; 0, or 1 after the end of what one that failed has said."""
    from submitit.core.utils import UncompletedJobError

    try:
        job.results()
    except UncompletedJobError:
        said = job.paths.stderr
        lines = said.read_text(errors="replace").splitlines() if said.is_file() else []
        reasons = [line for line in lines if "error:" in line] or lines[-1:]
        print(f"submit: the job failed, see {said}", *reasons[:1], sep="\n", file=sys.stderr)
        return 1
    return 0


def submit(arguments: argparse.Namespace):
    """Check the recipe and queue the job; returns submitit's job and the paths of its output.

    Raises RecipeError for a recipe that could not run so, or when submitit or SLURM is missing.
    """
    recipe = load_recipe(COMMANDS[arguments.command], arguments.recipe, arguments.overrides)
    _check(recipe, arguments)
    executor = _executor(arguments)
    import cloudpickle  # comes with submitit

    # The job's Python does not look for modules where this one does.
    cloudpickle.register_pickle_by_value(cluster_job)
    executor.update_parameters(**_resources(recipe, arguments))
    job = executor.submit(
        cluster_job.TrainingJob(
            arguments.command,
            (str(Path(arguments.recipe).resolve()), *arguments.overrides),
            os.getcwd(),
            str(Path(__file__).resolve().parent),
        )
    )
    return job, job.paths


def _check(recipe: Any, arguments: argparse.Namespace) -> None:
    processes = arguments.nodes * max(1, arguments.gpus)
    parts = processes * recipe.loop.accumulate
    if processes > 1 and arguments.command != "pretrain":
        raise RecipeError("finetune.py trains in one process; write --nodes 1 --gpus 1.")
    if recipe.loop.batch % parts:
        raise RecipeError(
            f"loop.batch={recipe.loop.batch} cannot be shared by {processes} processes with "
            f"loop.accumulate={recipe.loop.accumulate}; choose a multiple of {parts}."
        )


def _executor(arguments: argparse.Namespace):
    try:
        import submitit
    except ImportError as error:
        raise RecipeError(
            'submitit is not installed; run `pip install "mimsegment[slurm]"`.'
        ) from error
    cluster = "local" if arguments.here else "slurm"
    try:
        return submitit.AutoExecutor(
            arguments.logs, cluster=cluster, slurm_max_num_timeout=arguments.requeue
        )
    except (RuntimeError, ValueError) as error:
        raise RecipeError(
            f"There is no SLURM here ({error}); submit from a login node of the cluster, or write "
            f"--here to run on this computer."
        ) from error


def _resources(recipe: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """In submitit's words: a process for each GPU."""
    wanted = {
        "name": Path(recipe.run).name,
        "nodes": arguments.nodes,
        "tasks_per_node": max(1, arguments.gpus),
        "gpus_per_node": arguments.gpus or None,
        "cpus_per_task": arguments.cpus,
        "mem_gb": arguments.memory,
        "timeout_min": int(60 * arguments.hours),
        "slurm_partition": arguments.partition,
        "slurm_account": arguments.account,
        "slurm_additional_parameters": dict(arguments.slurm) or None,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not key=value")
    return key.lstrip("-"), value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=COMMANDS, help="what to run")
    parser.add_argument("recipe", help="a .toml file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the recipe")
    parser.add_argument("--nodes", type=int, default=1, help="computers (default: 1)")
    parser.add_argument(
        "--gpus", type=int, default=1, help="GPUs, and processes, of each node (default: 1)"
    )
    parser.add_argument("--cpus", type=int, default=4, help="cores of a process (default: 4)")
    parser.add_argument("--memory", type=int, metavar="GB", help="of a node")
    parser.add_argument("--hours", type=float, default=24.0, help="time limit (default: 24)")
    parser.add_argument(
        "--requeue", type=int, default=10, help="how often a job at its limit goes on (default: 10)"
    )
    parser.add_argument("--partition", help="of the cluster")
    parser.add_argument("--account", help="to charge")
    parser.add_argument(
        "--slurm", nargs="+", type=_pair, default=[], metavar="key=value", help="more for sbatch"
    )
    parser.add_argument(
        "--logs", default="runs/slurm/%j", help="folder for output (default: %(default)r)"
    )
    parser.add_argument(
        "--here", action="store_true", help="run on this computer and wait, without a cluster"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
