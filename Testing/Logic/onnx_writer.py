"""Small ONNX networks whose results are known beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import NodeProto


def node(operator: str, inputs: Sequence[str], output: str, **attributes) -> NodeProto:
    """One operation of a network."""
    from onnx import helper

    return helper.make_node(operator, inputs, [output], **attributes)


def write_onnx(
    path: Path,
    nodes: Sequence[NodeProto],
    image: Sequence[int | str | None],
    logits: Sequence[int | str | None],
    constants: Mapping[str, np.ndarray] | None = None,
    dtype: type = np.float32,
) -> Path:
    """Write a network whose input "image" and output "logits" have these shapes."""
    from onnx import helper, numpy_helper, save

    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("image", kind, image)],
        [helper.make_tensor_value_info("logits", kind, logits)],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    opset = [helper.make_opsetid("", 18)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=10), str(path))
    return path
