"""A training command as a job that a cluster starts, stops and starts again."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingJob:
    """What submitit pickles and calls in every process of a job.

    ``command`` is the module to run, with ``arguments``, in ``folder``; ``code`` is the folder that
    holds it.
    """

    command: str
    arguments: tuple[str, ...]
    folder: str
    code: str

    def __call__(self) -> None:
        """Run the command, or go on with it; raises RuntimeError when it fails."""
        os.chdir(self.folder)
        sys.path[:0] = [self.code, os.path.dirname(self.code)]
        _join_processes()
        main = importlib.import_module(self.command).main
        # Without a checkpoint --resume begins anew, so that the first start and all others are one.
        if code := main([*self.arguments, "--resume"]):
            raise RuntimeError(f"{self.command} ended with code {code}; the log above says why.")

    def checkpoint(self):
        """Called by submitit before the time is up: the same job goes on where this one was."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _join_processes() -> None:
    """Give torch.distributed what torchrun would, where a job has several processes."""
    from submitit import JobEnvironment
    from submitit.helpers import TorchDistributedEnvironment

    if JobEnvironment().num_tasks > 1:
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
