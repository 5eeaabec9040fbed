"""The CT of the inference benchmark: a digital phantom on a full-size grid, in air to a square.

    python benchmarks/inference_case.py FOLDER [--slices 150]

Writes ``case_0000.nii.gz`` (slices × 512 × 512, int16; 0.73 mm in plane, 242 mm in z) and
``labels.nii.gz``: the ten organs of the phantom and, between them, four tissues by their intensity.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "training")]

ROWS, COLUMNS = 400, 512  # of the phantom's field of view
TISSUES = ((-800, -200), (-200, -30), (-30, 200), (200, 4000))  # lung, fat, soft tissue, bone; HU
AIR = -1024


def main() -> None:
    from mim.phantom import make_phantom
    from MIMSegment.Logic.volume import Geometry, Volume, write_volume

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--slices", type=int, default=150)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    phantom = make_phantom("abdomen", 1, (arguments.slices, ROWS, COLUMNS))
    image, labels = phantom.images["CT"].array[0], phantom.label.array[0]
    values = int(labels.max())
    for value, (low, high) in enumerate(TISSUES, start=values + 1):
        labels = np.where((labels == 0) & (image >= low) & (image < high), value, labels)
    above = (COLUMNS - ROWS) // 2
    pad = ((0, 0), (above, COLUMNS - ROWS - above), (0, 0))
    image, labels = np.pad(image, pad, constant_values=AIR), np.pad(labels, pad)
    geometry = Geometry.from_parts(image.shape, phantom.label.geometry.spacing)
    write_volume(Volume(image[None], geometry), arguments.folder / "case_0000.nii.gz")
    labels = labels.astype(np.uint8)
    write_volume(Volume(labels[None], geometry), arguments.folder / "labels.nii.gz")


if __name__ == "__main__":
    main()
