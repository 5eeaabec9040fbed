"""The network of a masked pre-training as a part of a package: does a scan look familiar?

`MIMSegment.Logic.reconstruction` says what it is asked. Here it is exported, and its errors are
measured on the held-back subjects of the cache, which neither pre-training nor fine-tuning saw.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from mim import architectures
from mim.agreement import verify_export
from mim.checkpoint import CheckpointError, load_checkpoint, trained_weights
from mim.data import Cache
from mim.masked_unet import MaskedAutoencoderUNet, MethodSettings
from mim.networks import NetworkConfig
from mim.onnx_export import export_onnx
from mim.onnx_half import round_to_half, store_half
from mim.seen import check_unseen
from mim.sparse_unet import SparseMaskedUNet, SparseSettings
from MIMSegment.Logic.expectations import ReconstructionRange
from MIMSegment.Logic.reconstruction import hidden_blocks, measure
from MIMSegment.Logic.runtime import OnnxSession

MODEL = "models/reconstruction.onnx"
QUANTILES = (0.05, 0.5, 0.95)
FEWEST = 3  # held-back images; fewer say nothing about a distribution


class Restorer(nn.Module):
    """(b, c + 1, z, y, x), the last channel 1 where visible, to the restored (b, c, z, y, x)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, stacked: Tensor) -> Tensor:
        return self.model.restore(stacked[:, :-1], stacked[:, -1:] > 0.5)


def export_reconstruction(
    checkpoint: str | Path, cache: Cache, preprocessing: dict, path: Path, half_weights: bool
) -> ReconstructionRange:
    """Write the network of ``checkpoint`` (of pretrain.py) to ``path`` as ONNX and measure it.

    ``preprocessing`` is that of the package. Raises CheckpointError for another method, another
    preprocessing, or too few held-back subjects, RecipeError when it has learnt from some of them;
    ExportError when the file computes otherwise.
    """
    content = load_checkpoint(checkpoint)
    metadata = content["metadata"]
    if metadata["plan"]["preprocessing"] != preprocessing:
        raise CheckpointError(
            f"{checkpoint} was pre-trained on images of another voxel size or normalization than "
            "the package's; pre-train on the same cache."
        )
    images = _held_back_images(cache, checkpoint)
    check_unseen(cache, metadata.get("seen", ()), checkpoint)
    model, patch, block, ratio = _masked_model(content, checkpoint)
    if half_weights:
        round_to_half(model)
    restorer = Restorer(model).eval()
    export_onnx(restorer, cache.channels + 1, patch, model.network.divisor, path)
    if half_weights:
        store_half(path)
    verify_export(restorer, path, [_tile(images[0], patch, block, ratio)])
    session = OnnxSession(path)
    errors = [measure(image, patch, block, ratio, session) for image in images]
    return ReconstructionRange(
        MODEL,
        patch,
        block,
        ratio,
        _quantiles([error.total for error in errors]),
        tuple(_quantiles(inputs) for inputs in zip(*(e.inputs for e in errors), strict=True)),
        len(errors),
        _quantiles([error.tissue for error in errors]),
    )


def _held_back_images(cache: Cache, checkpoint: str | Path) -> list[np.ndarray]:
    entries = cache.cases_of(cache.held_back) if cache.held_back else []
    if len(entries) < FEWEST:
        raise CheckpointError(
            f"{cache.folder} holds {len(entries)} images back, too few to know how well "
            f"{checkpoint} restores a new scan ({FEWEST} are needed); prepare with a larger "
            "--held-back."
        )
    return [np.load(cache.folder / entry["image"]).astype(np.float32) for entry in entries]


def _masked_model(content: dict, source: str | Path):
    """The model of a checkpoint with its patch, block and ratio of masking."""
    metadata = content["metadata"]
    recipe, kind = metadata["recipe"], metadata["kind"]
    if kind not in _MODELS:
        raise CheckpointError(
            f"{source} is a {kind} checkpoint; only those of {', '.join(_MODELS)} restore what a "
            "mask hides."
        )
    settings = {k: v for k, v in recipe["method"].items() if k != "name"}
    model = _MODELS[kind](metadata["network"], settings)
    model.load_state_dict(trained_weights(content))
    patch = tuple(recipe["patch"] or metadata["plan"]["patch"])
    block = tuple(recipe["mask"]["block"] or model.network.divisor)
    return model, patch, block, float(np.mean(recipe["mask"]["ratio"]))


def _masked_unet(config: dict, settings: dict) -> nn.Module:
    network = architectures.build(config)
    return MaskedAutoencoderUNet(network, config["in_channels"], MethodSettings(**settings))


def _s3d(config: dict, settings: dict) -> nn.Module:
    network = architectures.build(config)
    return SparseMaskedUNet(network, NetworkConfig.from_dict(config), SparseSettings(**settings))


_MODELS: dict[str, Callable[[dict, dict], nn.Module]] = {
    "masked_unet": _masked_unet,
    "s3d": _s3d,
}


def _tile(image: np.ndarray, patch, block, ratio: float) -> np.ndarray:
    """A corner of a real image, padded to the patch, as the check sends it."""
    corner = image[(slice(None), *(slice(n) for n in patch))]
    missing = [(0, n - have) for n, have in zip(patch, corner.shape[1:], strict=True)]
    corner, visible = np.pad(corner, [(0, 0), *missing]), hidden_blocks(patch, block, ratio, 0)
    return np.concatenate([corner * visible, visible[None]])[None].astype(np.float32)


def _quantiles(values) -> tuple[float, float, float]:
    return tuple(round(float(q), 5) for q in np.quantile(values, QUANTILES))
