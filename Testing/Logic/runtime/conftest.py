"""Fixtures of the tests of runtimes: a network and what to give it."""

import numpy as np
import pytest

from tiny_package import threshold_onnx


@pytest.fixture
def network(tmp_path):
    return threshold_onnx(tmp_path / "model.onnx")


@pytest.fixture
def tile():
    return np.random.default_rng(0).random((2, 1, 6, 7, 8), np.float32)
