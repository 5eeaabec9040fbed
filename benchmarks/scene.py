"""How long 104 structures on 512 × 512 × 300 take in the scene? Prints one JSON line.

    python benchmarks/scene.py [--runs 5]

Real MRML on slicer-core, rendered off screen. ``add_seconds``: from the model's array to a
segmentation node with names, codes and colors; ``redraw_seconds``: the slice in a view that showed
the image before, by Slicer's own displayable managers; ``visible_seconds``: both.
``picture_seconds``: the same slice for a report, window and view made for it.
``surfaces_seconds``: 3D, when it is asked for. ``stroke_seconds``: a brush stroke of
20 × 20 × 2 voxels by Slicer's own segment editor logic; ``noticed_seconds``: until the review has
noticed, counted and logged it, and taken back what it did to an accepted neighbor. Medians of
elapsed seconds; ``cpu`` has those of the processor, which say more than the elapsed ones where
others calculate as well (``load``).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import slicer

from MIMSegment.Logic.labels import Label, default_color
from MIMSegment.Logic.review import Review
from MIMSegment.Logic.runtime import available_cores
from MIMSegment.Logic.scene import (
    add_segmentation,
    add_surfaces,
    add_volume,
    new_scene,
    render_slice,
)
from MIMSegment.Logic.scene_layers import voxels
from MIMSegment.Logic.scene_review import NodeSegments
from MIMSegment.Logic.scene_slices import SliceWindow
from MIMSegment.Logic.volume import Geometry, Volume

SHAPE, SPACING = (300, 512, 512), (1.0, 0.8, 0.8)
STRUCTURES = 104
STROKE = (2, 20, 20)


def main() -> None:
    """Measure ``--runs`` times and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    labels, geometry = organs(), Geometry.from_parts(SHAPE, SPACING)
    table = [Label(v, f"structure {v}", color=default_color(v)) for v in range(1, STRUCTURES + 1)]
    times: dict[str, list[tuple[float, float]]] = {}
    for _ in range(runs):
        scene = new_scene()
        image = np.where(labels > 0, 50, -100).astype(np.int16)
        volume = add_volume(scene, Volume(image[None], geometry), "CT", "CT")
        view = open_view(scene, volume)
        node, seconds = timed(add_segmentation, scene, labels, geometry, table, "Organs", volume)
        times.setdefault("add", []).append(seconds)
        shown, seconds = timed(view.picture)
        assert has_colors(shown)
        times.setdefault("redraw", []).append(seconds)
        view.close()
        picture, seconds = timed(render_slice, scene, volume, node)
        assert has_colors(picture)
        times.setdefault("picture", []).append(seconds)
        for name, seconds in measure_strokes(scene, volume, node).items():
            times.setdefault(name, []).extend(seconds)
        times.setdefault("surfaces", []).append(timed(add_surfaces, node)[1])
    times["visible"] = [
        tuple(np.add(add, redraw))
        for add, redraw in zip(times["add"], times["redraw"], strict=True)
    ]
    medians = {name: np.median(t, axis=0).round(4).tolist() for name, t in times.items()}
    elapsed = {f"{name}_seconds": seconds for name, (seconds, _) in medians.items()}
    about = {
        "cpu": {name: seconds for name, (_, seconds) in medians.items()},
        "labeled": round(float((labels > 0).mean()), 3),
        "runs": runs,
        "cores": available_cores(),
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(elapsed | about))


def organs() -> np.ndarray:
    """104 ellipsoids of very different sizes, as organs and bones are: (z, y, x), uint8."""
    rng = np.random.default_rng(0)
    labels = np.zeros(SHAPE, np.uint8)
    cells = [(z, y, x) for z in range(5) for y in range(5) for x in range(5)][:STRUCTURES]
    step = np.array(SHAPE) / 5
    for value, cell in enumerate(cells, 1):
        center = (np.array(cell) + 0.5) * step
        radius = step * rng.uniform(0.15, 0.49, 3)
        box = [slice(int(c - r), int(c + r) + 1) for c, r in zip(center, radius, strict=True)]
        z, y, x = np.ogrid[box[0], box[1], box[2]]
        inside = sum(((a - c) / r) ** 2 for a, c, r in zip((z, y, x), center, radius, strict=True))
        labels[tuple(box)][inside <= 1] = value
    return labels


def open_view(scene, volume) -> SliceWindow:
    """An axial view of the image alone, drawn once, as it is before a result comes."""
    scene.AddNewNodeByClass("vtkMRMLInteractionNode")
    logic = slicer.vtkMRMLSliceLogic()
    logic.SetMRMLScene(scene)
    slice_node = logic.AddSliceNode("Red")
    logic.GetSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
    logic.ResizeSliceNode(512, 512)
    logic.FitSliceToBackground()
    bounds = [0.0] * 6
    volume.GetRASBounds(bounds)
    slice_node.JumpSliceByOffsetting(*np.add(bounds[::2], bounds[1::2]) / 2)
    view = SliceWindow(logic, slice_node, (512, 512))
    assert not has_colors(view.picture())
    return view


def has_colors(picture: np.ndarray) -> bool:
    """Whether many structures are seen in it; the image itself is gray."""
    pixels = picture.reshape(-1, 3).astype(int)
    return len(np.unique(pixels[np.ptp(pixels, axis=1) > 25], axis=0)) > STRUCTURES // 10


def measure_strokes(scene, volume, node, count: int = 5) -> dict[str, list]:
    """Seconds of each stroke, and of the review noticing it."""
    review = Review(NodeSegments(node))
    first, second = (item.id for item in review.state.items[:2])
    review.accept(second)
    review.edit(first)
    parameters = scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    parameters.SetAndObserveSegmentationNode(node)
    parameters.SetAndObserveSourceVolumeNode(volume)
    editor = slicer.vtkSlicerSegmentEditorLogic()
    editor.SetMRMLScene(scene)
    editor.SetSegmentEditorNode(parameters)
    editor.SetCurrentSegmentID(first)
    found: dict[str, list] = {"stroke": [], "noticed": []}
    for number in range(count):
        box = tuple(slice(20 + 25 * number, 20 + 25 * number + n) for n in STROKE)
        editor.UpdateReferenceGeometryImage()
        editor.ResetModifierLabelmapToDefault()
        modifier = editor.GetModifierLabelmap()
        voxels(modifier)[box] = 1
        extent = [bound for s in reversed(box) for bound in (s.start, s.stop - 1)]
        found["stroke"].append(
            timed(
                editor.ModifySegmentByLabelmap,
                node, first, modifier, editor.ModificationModeAdd, extent, False, False,
            )[1]
        )  # fmt: skip
        found["noticed"].append(timed(review.poll)[1])
    assert review.state[first].edited
    review.close()
    return found


def timed(function, *arguments):
    """What it returns, and how many seconds it took: elapsed, and of the processor."""
    began, worked = time.perf_counter(), time.process_time()
    result = function(*arguments)
    return result, (time.perf_counter() - began, time.process_time() - worked)


if __name__ == "__main__":
    main()
