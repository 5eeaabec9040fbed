"""Does nnU-Net load what `export.py --to-nnssl` writes? Prints one JSON line.

    .venv-bench/bin/python benchmarks/nnunet_pretrained.py

The environment is that of `make bench-setup`. A network of random weights is exported; then
nnU-Net's own code builds the network of the adaptation plan and loads the file, in two ways:
``-pretrained_weights`` of nnUNetv2_train, which wants every name, and PretrainedTrainer
(nnUNetv2_train_pretrained), where the installed nnU-Net has it: it is in the repository since July
2026, the wheel 2.8.1 on PyPI came without it. ``equal`` keys compare the features of both networks
on the same image, bit by bit.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "training")]
for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(variable, tempfile.gettempdir())

import torch  # noqa: E402
from torch import nn  # noqa: E402

from mim.checkpoint import save_checkpoint  # noqa: E402
from mim.networks import NetworkConfig, build_network  # noqa: E402
from mim.nnssl_export import CHECKPOINT, export_nnssl  # noqa: E402

CONFIG = NetworkConfig(
    1, 1, (16, 32, 64), ((1, 1, 1), (1, 2, 2), (2, 2, 2)), ((1, 3, 3), *((3, 3, 3),) * 2), (1, 2, 2)
)
PLAN = {"name": "probe", "patch": [16, 32, 32], "preprocessing": {"spacing": [3.0, 1.0, 1.0]}}
TRAINER = "nnunetv2.training.nnUNetTrainer.pretraining.pretrainedTrainer"


def main() -> int:
    torch.manual_seed(0)
    ours = build_network(CONFIG)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_(0, 0.1)
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(io.StringIO()):
        path = _export(ours, Path(scratch))
        plan = torch.load(path, weights_only=True)["nnssl_adaptation_plan"]
        result = {
            "nnunetv2": importlib.metadata.version("nnunetv2"),
            "pretrained_weights_equal": _equal(ours, _with_pretrained_weights(plan, path)),
            "pretrained_trainer_equal": _trainer_result(ours, plan, path),
        }
    print(json.dumps(result))
    return 0


def _export(network: nn.Module, folder: Path) -> Path:
    metadata = {"kind": "s3d", "network": CONFIG.to_dict(), "plan": PLAN, "recipe": {}}
    save_checkpoint(folder / "last.pt", {"metadata": metadata, "model": network.state_dict()})
    export_nnssl(folder / "last.pt", folder / "out")
    return folder / "out" / CHECKPOINT


def _fresh(plan: dict, channels: int) -> nn.Module:
    """The network as nnU-Net builds it from the plan, with three classes."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    architecture = plan["architecture_plans"]
    return get_network_from_plans(
        # nnU-Net finds it without its module too, after importing every other architecture.
        f"dynamic_network_architectures.architectures.unet.{architecture['arch_class_name']}",
        architecture["arch_kwargs"],
        architecture["arch_kwargs_requiring_import"],
        channels,
        3,
        deep_supervision=False,
    )


def _with_pretrained_weights(plan: dict, path: Path) -> nn.Module:
    from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

    network = _fresh(plan, 1)
    load_pretrained_weights(network, str(path))
    return network


def _trainer_result(ours: nn.Module, plan: dict, path: Path) -> bool | str:
    try:
        trainer = importlib.import_module(TRAINER).PretrainedTrainer
    except ModuleNotFoundError:
        return "this nnunetv2 has no PretrainedTrainer"
    patch = plan["recommended_downstream_patchsize"]
    network, _ = trainer.load_pretrained_weights(
        _fresh(plan, 1), str(path), 1, 1, patch, patch, plan["key_to_encoder"],
        plan["key_to_stem"], tuple(plan["keys_to_in_proj"]), plan["key_to_lpe"],
    )  # fmt: skip
    return _equal(ours, network)


def _equal(ours: nn.Module, theirs: nn.Module) -> bool:
    images = torch.randn(1, 1, 16, 32, 32)
    with torch.no_grad():
        pairs = zip(ours.encoder(images), theirs.encoder(images), strict=True)
        return all(torch.equal(mine, other) for mine, other in pairs)


if __name__ == "__main__":
    sys.exit(main())
