"""Volumes, segmentations and pictures in a MRML scene: all that knows Slicer, by one name.

Works in a full Slicer, with ``slicer.mrmlScene``, and on the slicer-core wheel, with `new_scene`.
The parts are in ``scene_*.py``; only these files import ``slicer`` and ``vtk``. World points are
LPS millimeters on this side and RAS inside.
"""

from __future__ import annotations

from MIMSegment.Logic.scene_3d import render_3d
from MIMSegment.Logic.scene_core import new_scene
from MIMSegment.Logic.scene_labels import label_table, labels_from_segmentation, segment_array
from MIMSegment.Logic.scene_segments import (
    Status,
    add_segmentation,
    get_status,
    provenance,
    set_status,
)
from MIMSegment.Logic.scene_slices import render_slice
from MIMSegment.Logic.scene_storage import (
    load_scene,
    load_segmentation,
    save_scene,
    save_segmentation,
)
from MIMSegment.Logic.scene_surfaces import add_surfaces, segment_surfaces
from MIMSegment.Logic.scene_volumes import add_channels, add_volume, volume_from_node
from MIMSegment.Logic.scene_window import save_png

__all__ = [
    "Status",
    "add_channels",
    "add_segmentation",
    "add_surfaces",
    "add_volume",
    "get_status",
    "label_table",
    "labels_from_segmentation",
    "load_scene",
    "load_segmentation",
    "new_scene",
    "provenance",
    "render_3d",
    "render_slice",
    "save_png",
    "save_scene",
    "save_segmentation",
    "segment_array",
    "segment_surfaces",
    "set_status",
    "volume_from_node",
]
