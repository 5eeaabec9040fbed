"""A CT with 41 structures and a real package that finds them: long lists and full-size images.

Each structure is a ball with a gray value of its own; the network picks the structure whose gray
value is nearest, so the result is known and costs next to nothing.
"""

from pathlib import Path

import numpy as np

from MIMSegment.Logic.labels import Label, default_color
from MIMSegment.Logic.matching import InputSpec
from MIMSegment.Logic.package import ModelPackage, write_package
from MIMSegment.Logic.spec import ModelSpec, Normalization, Preprocessing
from MIMSegment.Logic.volume import Geometry, Volume, write_volume
from onnx_writer import node, write_onnx
from tiny_package import MONAI

LONG = "anterior superior segment of the right lobe of the liver, without the inferior vena cava"
SIDED = (
    "lung upper lobe", "lung lower lobe", "kidney", "adrenal gland", "hip bone", "femur", "scapula",
    "clavicle", "humerus", "iliopsoas muscle", "gluteus maximus muscle", "common iliac artery",
    "common iliac vein", "carotid artery",
)  # fmt: skip
SINGLE = (
    LONG, "spleen", "gallbladder", "stomach", "pancreas", "duodenum", "colon", "urinary bladder",
    "esophagus", "trachea", "heart", "aorta", "sternum",
)  # fmt: skip
NAMES = (*SINGLE, *(f"{side} {name}" for name in SIDED for side in ("left", "right")))
BACKGROUND, FIRST, STEP = -800.0, 40.0, 40.0  # HU
ID = "many-structures"


def write_many_structures_ct(path: Path, shape=(60, 512, 512), spacing=(3.0, 0.8, 0.8)) -> Path:
    """Write the CT: balls in a grid of 7 × 6 in each slice's plane; ``spacing`` is (z, y, x)."""
    image = np.full((1, *shape), BACKGROUND, np.int16)
    radius = 0.42 * min(shape[1] * spacing[1] / 6, shape[2] * spacing[2] / 7)
    for index in range(len(NAMES)):
        row, column = divmod(index, 7)
        center = (shape[0] / 2, (row + 0.5) * shape[1] / 6, (column + 0.5) * shape[2] / 7)
        reach = [int(radius / s) + 1 for s in spacing]
        box = tuple(
            slice(max(0, int(c) - r), min(n, int(c) + r + 1))
            for c, r, n in zip(center, reach, shape, strict=True)
        )
        grid = np.ogrid[box]
        far = sum(((g - c) * s) ** 2 for g, c, s in zip(grid, center, spacing, strict=True))
        image[0][box][far <= radius**2] = FIRST + STEP * index
    write_volume(Volume(image, Geometry.from_parts(shape, spacing)), path)
    return path


def write_many_structures_package(folder: Path) -> ModelPackage:
    """Write the package to ``folder``; it is a phantom package, found under `ID`."""
    count = len(NAMES)
    scratch = folder.parent / f"{folder.name}-network"
    spec = ModelSpec(
        inputs=(InputSpec("CT", "CT"),),
        preprocessing=Preprocessing(
            (None, 2.4, 2.4),
            (Normalization("ct", mean=0, std=STEP, lower=-1000, upper=2000),),
            image_order=0,
            output_order=0,
        ),
        patch=(16, 128, 128),
        channel_labels=tuple(range(count + 1)),
    )
    return write_package(
        folder,
        ID,
        "Many structures (test model)",
        spec,
        [Label(n + 1, name, color=default_color(n + 1)) for n, name in enumerate(NAMES)],
        {"models/model.onnx": _nearest_gray(scratch / "model.onnx", count)},
        "# The nearest gray value\n",
        "Apache-2.0\n",
        MONAI,
        phantom=True,
    )


def _nearest_gray(path: Path, count: int) -> Path:
    """Write the network: -|x - c| for each class; small whole numbers are exact in bfloat16."""
    grays = np.array([BACKGROUND, *(FIRST + STEP * n for n in range(count))], np.float32) / STEP
    constants = {"weight": np.ones((len(grays), 1, 1, 1, 1), np.float32), "bias": -grays}
    nodes = [
        node("Conv", ["image", "weight", "bias"], "difference"),
        node("Abs", ["difference"], "distance"),
        node("Neg", ["distance"], "logits"),
    ]
    space = ["z", "y", "x"]
    return write_onnx(path, nodes, ["batch", 1, *space], ["batch", len(grays), *space], constants)
