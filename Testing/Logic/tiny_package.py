"""A real model package whose network is a threshold, so that every result is known beforehand."""

import itertools
from pathlib import Path

import numpy as np

from MIMSegment.Logic.labels import Code, Label
from MIMSegment.Logic.matching import InputSpec
from MIMSegment.Logic.package import ModelPackage, write_package
from MIMSegment.Logic.spec import ModelSpec, Normalization, Preprocessing
from onnx_writer import node, write_onnx

BRIGHT = Label(
    3,
    "Bright thing",
    category=Code("SCT", "123037004", "Anatomical Structure"),
    type=Code("SCT", "10200004", "Liver"),
    color=(221, 130, 101),
)
MONAI = {
    "schema": "https://example.org/schema.json",
    "version": "1.2.0",
    "monai_version": "1.6.1",
    "pytorch_version": "2.13.0",
    "numpy_version": "2.4.6",
    "required_packages_version": {},
    "optional_packages_version": {},
    "task": "test",
    "description": "A threshold.",
    "authors": "test",
    "copyright": "test",
    "network_data_format": {"inputs": {}, "outputs": {}},
}


def threshold_onnx(
    path: Path, threshold: float = 0.5, channels: int = 1, delay: int = 0, use_all: bool = False
) -> Path:
    """Write an ONNX network (b, c, z, y, x) → (b, 2, z, y, x) for "first channel > threshold".

    ``use_all`` takes the mean of all channels instead. ``delay`` adds that many idle 3×3×3
    convolutions, to make a window take its time.
    """
    weight = np.zeros((2, channels, 1, 1, 1), np.float32)
    used = channels if use_all else 1
    weight[:, :used] = np.array([-1, 1], np.float32).reshape(2, 1, 1, 1, 1) / used
    constants = {"weight": weight, "bias": np.array([threshold, -threshold], np.float32)}
    if delay:
        kernel = np.zeros((channels, channels, 3, 3, 3), np.float32)
        kernel[range(channels), range(channels), 1, 1, 1] = 1
        constants["kernel"] = kernel
    names = ["image", *(f"idle{index}" for index in range(delay))]
    nodes = [
        node("Conv", [before, "kernel"], after, pads=[1] * 6)
        for before, after in itertools.pairwise(names)
    ]
    nodes.append(node("Conv", [names[-1], "weight", "bias"], "logits"))
    space = ["z", "y", "x"]
    return write_onnx(path, nodes, ["batch", channels, *space], ["batch", 2, *space], constants)


def threshold_spec(inputs: int = 1, spacing=(None, None, None), patch=(8, 16, 16)) -> ModelSpec:
    """The specification of that network: images scaled to 0..1, label 3 above the threshold."""
    names = ["T2w", "ADC", "DWI", "T1"][:inputs] if inputs > 1 else ["CT"]
    return ModelSpec(
        inputs=tuple(InputSpec(n, "CT" if n == "CT" else "MR") for n in names),
        preprocessing=Preprocessing(
            spacing, tuple(Normalization("rescale_to_01") for _ in names), image_order=1
        ),
        patch=patch,
        channel_labels=(0, BRIGHT.value),
    )


def write_threshold_package(
    folder: Path,
    spec: ModelSpec | None = None,
    delay: int = 0,
    phantom: bool = False,
    use_all: bool = False,
) -> ModelPackage:
    """Write a package with that network to ``folder``."""
    spec = spec or threshold_spec()
    scratch = folder.parent / f"{folder.name}-network"
    model = threshold_onnx(scratch / "model.onnx", 0.5, len(spec.inputs), delay, use_all)
    return write_package(
        folder,
        "bright-thing",
        "Bright thing",
        spec,
        [BRIGHT],
        {"models/model.onnx": model},
        "# A threshold\n",
        "Apache-2.0\n",
        MONAI,
        phantom,
    )
