"""Labels that nnU-Net's own predictor gives, kept beside this file for the tests.

    make bench-setup
    .venv-bench/bin/python Testing/Training/nnunet_golden.py

makes them anew with the nnU-Net of the benchmarks' environment. Models and images are drawn from
seeds, so that a test finds the same ones.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
GOLDEN = HERE / "nnunet_golden.npz"
if __name__ == "__main__":
    ROOT = HERE.parents[1]
    sys.path[:0] = [str(HERE), str(ROOT), str(ROOT / "training"), str(ROOT / "benchmarks")]

import numpy as np  # noqa: E402
import torch  # noqa: E402

from MIMSegment.Logic.volume import Geometry, Volume  # noqa: E402
from nnunet_fixture import configuration, dataset, network, plans, write_model  # noqa: E402


@dataclass(frozen=True)
class Golden:
    """A model, and the image that it is asked about; shape and spacing are (z, y, x)."""

    name: str
    configuration: str = "3d_fullres"
    network: str = "PlainConvUNet"
    scheme: str = "ZScoreNormalization"
    channels: tuple[str, ...] = ("T2",)
    labels: dict = field(default_factory=lambda: {"background": 0, "gland": 1, "lesion": 2})
    regions: tuple[int, ...] = ()
    folds: int = 1
    transpose: tuple[int, int, int] = (0, 1, 2)
    shape: tuple[int, int, int] = (9, 40, 36)
    spacing: tuple[float, float, float] = (3.0, 1.2, 0.9)

    @property
    def dims(self) -> int:
        return 2 if self.configuration == "2d" else 3

    def write(self, folder: Path) -> Path:
        """The model in nnU-Net's format."""
        options = configuration(self.dims, len(self.channels), self.network)
        options["normalization_schemes"] = [self.scheme] * len(self.channels)
        table = plans(**{self.configuration: options})
        table["transpose_forward"] = list(self.transpose)
        table["transpose_backward"] = [int(axis) for axis in np.argsort(self.transpose)]
        intensities = table["foreground_intensity_properties_per_channel"]["0"]
        for index in range(len(self.channels)):
            table["foreground_intensity_properties_per_channel"][str(index)] = intensities
        more = {"regions_class_order": list(self.regions)} if self.regions else {}
        outputs = len(self.regions) or len(self.labels)
        networks = {}
        for fold in range(self.folds):
            drawn = network(self.dims, len(self.channels), outputs, self.network, fold)
            networks[str(fold)] = balanced(drawn, len(self.channels), options["patch_size"])
        described = dataset(self.channels, self.labels, **more)
        axes = tuple(range(self.dims))
        return write_model(folder, table, described, networks, self.configuration, axes)

    def image(self) -> Volume:
        """Noise with a bright block, and nothing in the first rows."""
        random = np.random.default_rng(len(self.name))
        array = random.normal(60, 20, (len(self.channels), *self.shape)).astype(np.float32)
        inside = tuple(slice(n // 4, 3 * n // 4) for n in self.shape)
        array[(slice(None), *inside)] += 60
        array[:, :, :4] = 0
        return Volume(array, Geometry.from_parts(self.shape, self.spacing))


CASES = (
    Golden("anisotropic MR, transposed", transpose=(2, 0, 1), shape=(40, 36, 9),
           spacing=(0.9, 1.2, 3.3)),
    Golden("2D", "2d", "ResidualEncoderUNet"),
    Golden("CT", network="ResidualEncoderUNet", scheme="CTNormalization", channels=("CT",)),
    Golden("low resolution", "3d_lowres", spacing=(2.2, 0.7, 0.7), shape=(14, 50, 46)),
    Golden(
        "regions, two folds",
        channels=("T1", "T1c", "T2", "FLAIR"),
        labels={"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]},
        regions=(1, 2, 3),
        folds=2,
    ),
)  # fmt: skip


def balanced(net: torch.nn.Module, channels: int, patch: list[int]) -> torch.nn.Module:
    """``net`` with outputs that differ from place to place more than from each other, as random
    ones do not: every label occurs."""
    noise = torch.randn(1, channels, *patch, generator=torch.Generator().manual_seed(0))
    last = net.decoder.seg_layers[-1]
    with torch.inference_mode():
        logits = net(noise)[0].flatten(1)
    mean, deviation = logits.mean(1), logits.std(1)
    with torch.no_grad():
        last.weight /= deviation.view(-1, *[1] * (last.weight.ndim - 1))
        last.bias.copy_((last.bias - mean) / deviation)
    return net


def predictions() -> Iterator[tuple[str, np.ndarray]]:
    """Name and labels (z, y, x) of each case by nnU-Net, made to add in float32: the noise of its
    sums in half precision would hide differences of one voxel in 300."""
    from nnunet_agreement import full_precision
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            case.write(Path(folder))
            predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
            predictor.initialize_from_trained_model_folder(folder, None)
            properties = {"spacing": list(case.spacing)}
            with full_precision():
                found = predictor.predict_single_npy_array(case.image().array, properties)
        yield case.name, found.astype(np.uint8)


if __name__ == "__main__":
    np.savez_compressed(GOLDEN, **dict(predictions()))
    print(f"Wrote {GOLDEN}")
