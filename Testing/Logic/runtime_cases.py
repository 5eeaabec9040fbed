"""What the tests of runtimes share: networks of one operation, and a fresh interpreter."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from onnx_writer import node, write_onnx

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 60
OPENVINO = pytest.mark.skipif(not find_spec("openvino"), reason="OpenVINO is not installed")
TORCH = pytest.mark.skipif(not find_spec("torch"), reason="PyTorch is not installed")
LIBRARIES = ["cpu", pytest.param("openvino", marks=OPENVINO)]


def above_threshold(tile: np.ndarray) -> np.ndarray:
    return np.concatenate([0.5 - tile, tile - 0.5], axis=1)


def relu_onnx(path: Path, shape: list, dtype: type = np.float32) -> Path:
    """A network that sets negative values to 0."""
    return write_onnx(path, [node("Relu", ["image"], "logits")], shape, shape, dtype=dtype)


def unpooling_onnx(path: Path, inputs: int, outputs: int) -> Path:
    """A network that ONNX Runtime runs, with an operation (MaxUnpool) that OpenVINO lacks."""
    from onnx import helper

    weight = np.linspace(-1, 1, inputs * outputs, dtype=np.float32)
    halves = {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]}
    nodes = [
        node("Conv", ["image", "weight"], "convolved"),
        helper.make_node("MaxPool", ["convolved"], ["pooled", "places"], **halves),
        node("MaxUnpool", ["pooled", "places"], "logits", **halves),
    ]
    shapes = (["batch", channels, "2*z", "2*y", "2*x"] for channels in (inputs, outputs))
    return write_onnx(path, nodes, *shapes, {"weight": weight.reshape(outputs, inputs, 1, 1, 1)})


def write_torchscript(path: Path) -> Path:
    import torch

    class Threshold(torch.nn.Module):
        def forward(self, image):
            return torch.cat([0.5 - image, image - 0.5], 1)

    torch.jit.script(Threshold()).save(str(path))
    return path


def run_python(code: str, *arguments: str, **env: str) -> str:
    """Run ``code`` with ``arguments`` in a fresh interpreter; what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT, text=True, capture_output=True, timeout=TIMEOUT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
