"""Data sets of a few small scans or pictures, in layouts that prepare.py reads."""

import json

import numpy as np
from PIL import Image

from MIMSegment.Logic.volume import Geometry, Volume, write_volume


def scan(seed: int, shape=(12, 20, 18), spacing=(3.0, 1.0, 1.0)) -> tuple[Volume, Volume]:
    """Noise with two bright boxes, and their labels 1 and 4."""
    rng = np.random.default_rng(seed)
    image = rng.normal(100, 10, (1, *shape)).astype(np.float32)
    label = np.zeros((1, *shape), np.uint8)
    label[0, 3:8, 5:12, 5:12], label[0, 3:8, 12:16, 5:12] = 1, 4
    image += 80 * (label == 1) + 160 * (label == 4)
    geometry = Geometry.from_parts(shape, spacing, (seed, 2, 3))
    return Volume(image, geometry), Volume(label, geometry)


def put(path, volume):
    """Write an image, and the folders for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(volume, path)


def decathlon(folder, count=8, subjects=None) -> None:
    """Write a set in the layout of the Medical Segmentation Decathlon."""
    description = {
        "name": "boxes",
        "modality": {"0": "T2w"},
        "labels": {"0": "background", "1": "left box", "4": "right box"},
        "training": [],
        "test": [],
        "subjects": subjects or {},
    }
    for index in range(count):
        name = f"case_{index}.nii.gz"
        image, label = scan(index)
        put(folder / "imagesTr" / name, image)
        put(folder / "labelsTr" / name, label)
        description["training"].append(
            {"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"}
        )
    (folder / "dataset.json").write_text(json.dumps(description))


def nnunet(folder, labels, order=(), count=3):
    """Write raw data for nnU-Net, of two channels."""
    for index in range(count):
        image, label = scan(index)
        for channel in range(2):
            put(folder / f"imagesTr/case_{index}_{channel:04d}.nii.gz", image)
        put(folder / f"labelsTr/case_{index}.nii.gz", label)
    description = {
        "channel_names": {"0": "T2", "1": "ADC"},
        "labels": labels,
        "numTraining": count,
        "file_ending": ".nii.gz",
        "regions_class_order": list(order),
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def picture(path, seed, shape=(40, 30), bright=False):
    """Write a picture of noise, with a bright square or without."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(20, 90, shape).astype(np.uint8)
    if bright:
        pixels[10:20, 10:20] += 100
    Image.fromarray(pixels).save(path)


def table(folder, text, pictures=6):
    """Write pictures, every other one with a bright square, and the table ``text``."""
    for index in range(pictures):
        picture(folder / f"img/p{index}.png", index, bright=index % 2 == 1)
    (folder / "labels.csv").write_text(text)
    return folder


def read(cache, name):
    """One of the JSON files of a cache."""
    return json.loads((cache / name).read_text())
