"""The files of a fine-tuned network in a package, each compared with the network, and the package
checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from mim import architectures
from mim.agreement import Agreement, noise_tiles, verify_export
from mim.bundle import ExportOptions, verify_metadata
from mim.checkpoint import trained_weights
from mim.classifier_package import ClassifierPackage
from mim.onnx_export import export_onnx
from mim.onnx_half import round_to_half, store_half
from mim.torchscript_export import export_torchscript
from MIMSegment.Logic.package import ModelPackage

_FORMATS = {".onnx": "ONNX", ".ts": "TorchScript"}


def trained_network(content: dict) -> nn.Module:
    """The network of a fine-tuning checkpoint as it is used, with its finest output alone."""
    config = content["metadata"]["network"]
    if "deep_supervision" in config:
        config = {**config, "deep_supervision": False}
    network = architectures.build(config)
    network.load_state_dict(trained_weights(content))
    return network.eval()


def write_networks(
    network: nn.Module,
    channels: int,
    patch: Sequence[int],
    folder: Path,
    options: ExportOptions,
    *,
    several: bool = False,
    name: str = "models/model",
) -> tuple[dict[str, Path], dict[str, Agreement]]:
    """Write ``network`` for inputs (batch, channels, *patch) into ``folder``.

    Returns the files by their names in a package, ``name`` with an ending, and how well each agrees
    with the network; ``several`` as in `verify_export`. Raises ExportError when one does not.
    """
    stem = Path(name).name
    files = {f"{name}.onnx": folder / f"{stem}.onnx"}
    onnx = files[f"{name}.onnx"]
    if options.half_weights:
        round_to_half(network)
    export_onnx(network, channels, patch, network.divisor, onnx)
    if options.half_weights:
        store_half(onnx)
    if options.torchscript:
        files[f"{name}.ts"] = folder / f"{stem}.ts"
        export_torchscript(network, channels, patch, files[f"{name}.ts"])
    tiles = noise_tiles((channels, *patch))
    found = {name: verify_export(network, file, tiles, several) for name, file in files.items()}
    return files, found


def verified_lines(
    package: ModelPackage | ClassifierPackage, agreements: Mapping[str, Agreement], what: str
) -> list[str]:
    """Let MONAI check the metadata of ``package``, and say what is known of it and where it is.

    ``what`` are the labels of: voxels, images.
    """
    verify_metadata(package.path)
    size = sum((package.path / name).stat().st_size for name in package.spec.models) / 1e6
    return [
        *_agreement_lines(agreements, what),
        "MONAI's verify_metadata: no error.",
        f"Wrote {package.path} ({package.id} {package.version}, {size:.1f} MB)",
    ]


def _agreement_lines(agreements: Mapping[str, Agreement], what: str) -> list[str]:
    """A line for each format."""
    lines = []
    for ending, title in _FORMATS.items():
        found = [value for name, value in agreements.items() if name.endswith(ending)]
        if found:
            lines.append(
                f"{title} against PyTorch: largest difference "
                f"{max(value.max_difference for value in found):.1e}, same label in "
                f"{min(value.label_agreement for value in found):.4%} of {what}."
            )
    return lines
