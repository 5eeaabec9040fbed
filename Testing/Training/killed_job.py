"""A training command that kills itself, as hard as there is, at a chosen moment.

python killed_job.py MOMENT NUMBER prepare|pretrain|finetune ARGUMENTS...

MOMENT: step (gradient computed, weights not yet changed), save (half of a checkpoint written),
rename (written, but without its name), log (half a line written), describe (a JSON file of a cache
is missing), move (a folder is not yet moved); NUMBER counts from 1.
"""

import importlib
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def end_of_memory(*arguments: Any, **keys: Any) -> None:
    """In place of a function of a worker: what the system does when memory runs out."""
    die()


def on_call(owner: Any, name: str, number: int, act: Callable[..., None]) -> None:
    """Replace ``owner.name``: call ``number`` does ``act`` instead, those before it the usual."""
    usual, calls = getattr(owner, name), []

    def replaced(*args, **keys):
        calls.append(1)
        return (act if len(calls) == number else usual)(*args, **keys)

    setattr(owner, name, replaced)


def save_half(content: dict, file: io.BufferedWriter) -> None:
    whole = io.BytesIO()
    usual_save(content, whole)
    file.write(whole.getvalue()[: whole.tell() // 2])
    file.flush()
    die()


def write_half(log, *lines) -> None:
    with open(log.path, "a") as file:
        file.write('{"step": 1, "lo')
    die()


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2] / "training"), str(Path(__file__).parents[2])]
    import torch

    from mim import caching
    from mim.run_log import RunLog

    moment, number, command, *arguments = sys.argv[1:]
    usual_save = torch.save
    places = {
        "step": (torch.optim.AdamW, "step", lambda *args, **keys: die()),
        "save": (torch, "save", save_half),
        "rename": (os, "replace", lambda *args: die()),
        "log": (RunLog, "write", write_half),
        "describe": (caching, "write_json", lambda *args: die()),
        "move": (Path, "rename", lambda *args: die()),
    }
    owner, name, act = places[moment]
    on_call(owner, name, int(number), act)
    sys.exit(importlib.import_module(command).main(arguments))
