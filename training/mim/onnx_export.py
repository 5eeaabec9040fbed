"""A network as an ONNX file that ONNX Runtime 1.23 loads."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

OPSET = 18


def export_onnx(
    network: torch.nn.Module,
    channels: int,
    patch: Sequence[int],
    divisor: Sequence[int] | None,
    path: Path,
) -> None:
    """Write ``network`` for float32 inputs (batch, channels, *sizes) to ``path``.

    Batch and sizes stay free, the latter in multiples of ``divisor``, which the file says in the
    names of its axes ("8*z"); so an engine that runs out of memory can take smaller windows.
    ``patch`` is only the size that it is traced with, or the only one without a ``divisor``.
    """
    example = torch.zeros(2, channels, *patch)  # an extent of 1 would be taken for a constant
    free = {0: torch.export.Dim.DYNAMIC}
    axes = zip("zyx"[-len(patch) :], divisor, strict=True) if divisor else ()
    for axis, (name, factor) in enumerate(axes, 2):
        free[axis] = factor * torch.export.Dim(f"_{name}", min=1, max=4096 // factor)
    quiet = contextlib.redirect_stdout(io.StringIO())
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), quiet, torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (example,),
            str(path),
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=(free,),
            optimize=True,
            verbose=False,
        )
    _forget_origin(path)


def _forget_origin(path: Path) -> None:
    """Remove the notes on where each node was made: they hold paths of the user's computer."""
    import onnx

    model = onnx.load(str(path))
    for graph in (model.graph, *model.functions):
        del graph.metadata_props[:]
        for item in (*graph.node, *graph.value_info):
            del item.metadata_props[:]
            item.doc_string = ""
    onnx.save(model, str(path))
