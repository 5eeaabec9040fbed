"""A study and its result as a Slicer scene on disk, with pictures of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from MIMSegment.Logic.files import make_folder
from MIMSegment.Logic.package import ModelPackage
from MIMSegment.Logic.volume import Volume

_VIEWS = ("Axial", "Sagittal", "Coronal")


def write_scene(
    volume: Volume,
    segmentation: Volume,
    package: ModelPackage,
    path: Path,
    pictures: Path | None = None,
) -> list[Path]:
    """Write the scene to ``path`` (.mrb) and slices.png and surfaces.png into ``pictures``, which
    is made if need be.

    ``volume`` has a channel for each input of ``package``; ``segmentation`` is a label image of
    the package's values. Returns what was written. Raises OutputError.
    """
    from MIMSegment.Logic import scene as mrml

    scene = mrml.new_scene()
    names = [item.name for item in package.spec.inputs]
    nodes = mrml.add_channels(scene, volume, names, package.spec.inputs[0].modality)
    node = mrml.add_segmentation(
        scene,
        segmentation.array[0],
        segmentation.geometry,
        list(package.labels),
        package.title,
        reference_node=nodes[0],
        provenance={"Model": f"{package.id} {package.version}"},
        algorithm=f"{package.id} {package.version}",
    )
    written = [path]
    if pictures is not None:
        make_folder(pictures)
        written += [pictures / "slices.png", pictures / "surfaces.png"]
        views = [mrml.render_slice(scene, nodes[0], node, v, size=(460, 460)) for v in _VIEWS]
        mrml.save_png(np.concatenate(views, axis=1), written[1])
        mrml.save_png(mrml.render_3d(scene, node, size=(900, 560)), written[2])
    mrml.save_scene(scene, path)
    return written
