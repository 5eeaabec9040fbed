"""A network as a TorchScript file, for programs that are made with PyTorch."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch


def export_torchscript(
    network: torch.nn.Module, channels: int, patch: Sequence[int], path: Path
) -> None:
    """Write ``network`` for float32 inputs (batch, channels, *patch) to ``path``.

    It is traced with that size, which is the only one that is promised; the batch stays free.
    """
    example = torch.zeros(2, channels, *patch)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # what a trace takes for constant is compared afterwards
        traced = torch.jit.trace(network.eval(), example, check_trace=False)
        traced.save(str(path))
    _forget_origin(path)


def _forget_origin(path: Path) -> None:
    """Remove the notes on where each operation was made: they hold paths of the user's computer."""
    with zipfile.ZipFile(path) as archive:
        parts = {
            info.filename: archive.read(info)
            for info in archive.infolist()
            if not info.filename.endswith(".debug_pkl")
        }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
