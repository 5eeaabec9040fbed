"""The demo's last step: scan and result in a real Slicer scene, saved and photographed.

python training/mim/demo_scene.py IMAGE SEGMENTATION PACKAGE FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[n]) for n in (1, 2)]

import numpy as np

from MIMSegment.Logic import scene as mrml
from MIMSegment.Logic.package import load_package
from MIMSegment.Logic.volume import read_volume

VIEWS = ("Axial", "Sagittal", "Coronal")


def main(image: str, segmentation: str, package: str, folder: str) -> None:
    """Write scene.mrb, slices.png and surfaces.png into ``folder``."""
    model, volume, found = load_package(package), read_volume(image), read_volume(segmentation)
    scene = mrml.new_scene()
    names = [item.name for item in model.spec.inputs]
    nodes = mrml.add_channels(scene, volume, names, model.spec.inputs[0].modality)
    node = mrml.add_segmentation(
        scene,
        found.array[0],
        found.geometry,
        list(model.labels),
        model.title,
        reference_node=nodes[0],
        provenance={"Model": f"{model.id} {model.version}"},
    )
    out = Path(folder)
    views = [mrml.render_slice(scene, nodes[0], node, view, size=(460, 460)) for view in VIEWS]
    mrml.save_png(np.concatenate(views, axis=1), out / "slices.png")
    mrml.save_png(mrml.render_3d(scene, node, size=(900, 560)), out / "surfaces.png")
    mrml.save_scene(scene, out / "scene.mrb")
    print(f"Wrote {out / 'scene.mrb'}, {out / 'slices.png'}, {out / 'surfaces.png'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
