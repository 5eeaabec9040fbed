"""The share of the hardware's peak is of the device that it says it is."""

import pytest
import torch

from mim import throughput

MEASURED = 7.0


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA GH200 480GB", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40", MEASURED),
        ("NVIDIA RTX A4000", MEASURED),
    ],
)
def test_a_gpu_is_known_by_its_whole_name_and_measured_where_it_is_not(name, peak, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(throughput, "_measured_peak", lambda device, dtype: MEASURED)
    assert throughput.peak_flops(torch.device("cuda"), bf16=True) == peak
