"""Half-precision storage of weights: half the bytes, the same numbers."""

import numpy as np
import pytest
import torch

from mim.agreement import verify_export
from mim.networks import NetworkConfig, build_network
from mim.onnx_export import export_onnx
from mim.onnx_half import round_to_half, store_half

PATCH = (8, 8, 8)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    config = NetworkConfig(1, 2, (16, 32), ((1, 1, 1), (2, 2, 2)), ((3, 3, 3),) * 2, (1, 1))
    return build_network(config).eval()


def test_a_half_size_file_computes_what_the_rounded_network_computes(network, tmp_path):
    round_to_half(network)
    path = tmp_path / "model.onnx"
    export_onnx(network, 1, PATCH, network.divisor, path)
    size = path.stat().st_size
    store_half(path)
    assert path.stat().st_size < 0.7 * size
    tile = np.random.default_rng(0).normal(size=(1, 1, *PATCH)).astype(np.float32)
    agreement = verify_export(network, path, [tile])
    assert agreement.max_difference < 1e-4
    assert agreement.label_agreement == 1


def test_an_exported_file_says_nothing_about_the_computer_it_was_made_on(network, tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(network, 1, PATCH, network.divisor, path)
    content = path.read_bytes()
    assert b'File "' not in content
    assert b".py" not in content


def test_rounding_changes_no_type_and_is_idempotent(network):
    round_to_half(network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    round_to_half(network)
    for name, tensor in network.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, before[name])
        assert torch.equal(tensor, tensor.half().float())
