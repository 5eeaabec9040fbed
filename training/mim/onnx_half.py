"""ONNX files of half the size: weights stored as float16, calculated with as float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

_LEAST_SIZE = 64  # elements; smaller tensors may be shapes or scales, and save nothing


def round_to_half(network: torch.nn.Module) -> None:
    """Round every weight of ``network`` to float16, keeping its type, so that storing is exact."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half())


def store_half(path: str | Path) -> None:
    """Store the float32 weights of the ONNX file ``path`` as float16, each behind a Cast node.

    Runtimes fold the casts when they load the file, so it runs as fast and computes in float32.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(str(path))
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _LEAST_SIZE:
            continue
        name, values = tensor.name, numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(values, f"{name}_half"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    known = {info.name for info in graph.value_info}
    stale = {cast.output[0] for cast in casts} & known
    for info in [info for info in graph.value_info if info.name in stale]:
        graph.value_info.remove(info)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
