"""What the tests of runtimes share: networks of one operation, and a fresh interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 60


def installed(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


OPENVINO = pytest.mark.skipif(not installed("openvino"), reason="OpenVINO is not installed")
TORCH = pytest.mark.skipif(not installed("torch"), reason="PyTorch is not installed")
LIBRARIES = ["cpu", pytest.param("openvino", marks=OPENVINO)]


def above_threshold(tile: np.ndarray) -> np.ndarray:
    return np.concatenate([0.5 - tile, tile - 0.5], axis=1)


def write_onnx(path: Path, shape: list, dtype=None, operator: str = "Relu") -> Path:
    """A network of one operation."""
    from onnx import TensorProto, helper, save

    dtype = dtype or TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(operator, ["image"], ["logits"])],
        "one",
        [helper.make_tensor_value_info("image", dtype, shape)],
        [helper.make_tensor_value_info("logits", dtype, shape)],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def write_torchscript(path: Path) -> Path:
    import torch

    class Threshold(torch.nn.Module):
        def forward(self, image):
            return torch.cat([0.5 - image, image - 0.5], 1)

    torch.jit.script(Threshold()).save(str(path))
    return path


def run_python(code: str, **env: str) -> str:
    """Run ``code`` in a fresh interpreter; what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, timeout=TIMEOUT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
