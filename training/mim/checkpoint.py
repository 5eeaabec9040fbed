"""Checkpoints: written whole or not at all, read without running any code from the file.

A checkpoint is a dictionary of plain containers and tensors::

    format, metadata   kind, network, plan, fingerprint, seen, more, recipe, recipe_hash; start:
                       the recipe of the checkpoint that it began with
    model, average     the trained module's state dict; the one of its averaged weights, if any
    step, optimizer, processes, log_bytes, best, flops    what `loop.train` needs to go on
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import torch

from MIMSegment.Logic.errors import MIMSegmentError, OutputError
from MIMSegment.Logic.files import replacing

FORMAT = 1


class CheckpointError(MIMSegmentError):
    """A checkpoint that is missing, damaged or of another kind."""


def save_checkpoint(path: str | Path, content: dict) -> None:
    """Write ``content`` to ``path``; when that fails the checkpoint that was there is intact.

    Raises OutputError (disk full, no permission).
    """
    try:
        save_plain(path, {"format": FORMAT, **content})
    except OutputError as error:
        existed = Path(path).exists()
        before = "The checkpoint before it is intact: make room" if existed else "Make room"
        raise OutputError(f"{error} {before} and go on with --resume.") from error


def save_plain(path: str | Path, content: dict) -> None:
    """Write ``content`` as it is, whole or not at all. Raises OutputError."""
    path = Path(path)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())  # the name must not move to data still on its way to the disk
    if os.name == "posix":  # elsewhere folders cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


def read_metadata(path: str | Path) -> dict:
    """What a checkpoint says about itself, without reading its tensors; as `load_checkpoint`."""
    return load_checkpoint(path, mmap=True)["metadata"]


def load_checkpoint(
    path: str | Path, device: torch.device | str = "cpu", mmap: bool = False
) -> dict:
    """Read a checkpoint of `save_checkpoint`; raises CheckpointError naming the file.

    With ``mmap`` a tensor is read when it is looked at, from a file that must stay as it is.
    """
    path = Path(path)
    require_file(path)
    try:
        content = torch.load(path, map_location=device, weights_only=True, mmap=mmap)
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path} is damaged or no PyTorch checkpoint ({first_line(error)}); use an older copy "
            "of it."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no checkpoint of this program (format {FORMAT}).")
    return content


def require_file(path: Path) -> None:
    """Raise CheckpointError where ``path`` is no file, with the one in it where it is a run."""
    if path.is_file():
        return
    files = sorted(path.glob("*.pt"), key=lambda file: file.name != "last.pt")
    if files:
        raise CheckpointError(f"{path} is a folder; name a checkpoint in it: {files[0]}.")
    raise CheckpointError(f"There is no checkpoint {path}.")


def first_line(error: Exception) -> str:
    """What torch says of a file or a state dict that it cannot read, without the long rest."""
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else "cut short"


def trained_weights(content: dict) -> dict[str, torch.Tensor]:
    """The state dict to use of a checkpoint: the averaged weights where the run had them."""
    return content.get("average", content["model"])
