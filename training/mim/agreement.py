"""The proof that an exported network computes what the network does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from MIMSegment.Logic.errors import MIMSegmentError
from MIMSegment.Logic.runtime import open_session

TOLERANCE = 1e-4  # of logits up to ±10; of larger ones in proportion
# ONNX Runtime adds up instance normalization in float32, one voxel after the other: its rounding
# grows with the tile, to 1.4e-4 of a layer's output at two million voxels.
_SUMMED_EXACTLY = 64**3
_LEAST_AGREEMENT = 0.9999  # of labels: rounding may turn a voxel where two logits are equal


class ExportError(MIMSegmentError):
    """A network that could not be exported, or whose export computes something else."""


@dataclass(frozen=True)
class Agreement:
    """A file against torch on the same input: largest difference of logits, share of equal labels.

    Of classifiers "labels" are the classes that are decided for.
    """

    max_difference: float
    label_agreement: float


def verify_export(
    network: torch.nn.Module, path: Path, tiles: Sequence[np.ndarray], several: bool = False
) -> Agreement:
    """Run ``tiles`` (b, c, [z,] y, x) through ``network`` and its ONNX or TorchScript file.

    ``several``: each channel decides for itself (regions, findings), else the largest wins. Raises
    ExportError when they disagree.
    """
    decide = _above_half if several else _largest
    session, largest, excess, equal, decisions = _session(path), 0.0, 0.0, 0, 0
    for tile in tiles:
        with torch.inference_mode():
            expected = network.eval()(torch.from_numpy(tile)).float().numpy()
        found = session(tile)
        difference = float(np.abs(found - expected).max())
        largest = max(largest, difference)
        excess = max(excess, difference / _rounding(path, tile, expected))
        same = decide(found) == decide(expected)
        equal, decisions = equal + int(same.sum()), decisions + same.size
    agreement = Agreement(largest, equal / decisions)
    if not excess <= TOLERANCE or agreement.label_agreement < _LEAST_AGREEMENT:  # NaN too
        raise ExportError(
            f"{path} differs from the network by {largest:.2g} and agrees on "
            f"{agreement.label_agreement:.4%} of labels; the package was not written."
        )
    return agreement


def _rounding(path: Path, tile: np.ndarray, logits: np.ndarray) -> float:
    """How many times as much as `TOLERANCE` rounding alone may change ``logits``."""
    size = max(1.0, float(np.abs(logits).max()) / 10)
    return size * max(1.0, tile[0, 0].size / _SUMMED_EXACTLY) if path.suffix == ".onnx" else size


def noise_tiles(shape: Sequence[int]) -> list[np.ndarray]:
    """Smooth and rough noise (b, *shape) of the size of normalized intensities, b one and two."""
    rng = np.random.default_rng(0)
    rough = rng.normal(size=(1, *shape)).astype(np.float32)
    smooth = np.cumsum(rng.normal(size=(2, *shape)), axis=-1)
    return [rough, (smooth / smooth.std()).astype(np.float32)]


def _session(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    # The file was written a moment ago by this process.
    return open_session(path, "cpu", trusted=True)


def _largest(logits: np.ndarray) -> np.ndarray:
    return logits.argmax(1)


def _above_half(logits: np.ndarray) -> np.ndarray:
    return logits > 0
