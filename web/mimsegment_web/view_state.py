"""What the views show, and their state on the page: images, window, overlay, slices, 3D."""

from __future__ import annotations

import contextlib
import time

import numpy as np
from trame_slicer.core import SlicerApp

from MIMSegment.Logic.anatomy import is_lesion
from MIMSegment.Logic.errors import MIMSegmentError
from MIMSegment.Logic.scene_labels import label_table, segment_array
from MIMSegment.Logic.scene_layers import segments_of
from MIMSegment.Logic.scene_surfaces import add_surfaces
from mimsegment_web.views import SLICES, THREE_D, Views
from mimsegment_web.window import GrayWindow

_OPACITY = 40  # percent, of the filled structures
_REST = 0.6  # seconds without a stroke before the surfaces are built anew
_TELL_EVERY = 0.15  # seconds between two numbers of a slice that is being scrolled
_AROUND_LESIONS = 0.3  # opacity of the other surfaces in 3D
_NO_SLICE = {"index": 1, "count": 1, "mm": 0.0, "across": 1.0}


class ViewState:
    """Keeps the page's view controls and the views the same."""

    def __init__(self, state, server, app: SlicerApp):
        self._state, self._scene, self._app = state, app.scene, app
        self.views = Views(server, app)
        self.window = GrayWindow()
        self._modalities: dict[str, str] = {}  # of the model's inputs, by name
        self._followed = None  # the segmentation that is shown
        self._stale_since: float | None = None
        self._told_at = 0.0
        state.update(
            {
                "view_names": [*SLICES, THREE_D],
                "images": [],
                "image_id": "",
                "presets": [],
                "window_width": 0,
                "window_level": 0,
                "probe": "",
                "overlay": True,
                "opacity": _OPACITY,
                "show_3d": False,
                "slices": dict.fromkeys(SLICES, _NO_SLICE),
                "maximized": "",
                "tool": "crosshair",
            }
        )
        state.change("image_id")(lambda image_id, **_: self.show_image(image_id))
        state.change("opacity")(lambda opacity, **_: self.set_opacity(opacity))

    @property
    def segmentation(self):
        """The segmentation node that is being reviewed, the newest; None before there is one."""
        count = self._scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")
        if not count:
            return None
        return self._scene.GetNthNodeByClass(count - 1, "vtkMRMLSegmentationNode")

    def update(self, workflow) -> None:
        """Follow the scene: new images, new results, moved slices."""
        self._modalities = {row.name: row.modality for row in workflow.state.inputs}
        images = self._images(workflow.state.inputs)
        if images != self._state.images:
            self._state.images = images
        ids = [image["id"] for image in images]
        if self._state.image_id not in ids:
            self._state.image_id = ids[0] if ids else ""
            self.show_image(self._state.image_id, reset=True)
        self._follow_window()
        self._follow_segmentation()
        if self._stale_since is not None and time.monotonic() - self._stale_since >= _REST:
            self.update_surfaces()
        if time.monotonic() - self._told_at >= _TELL_EVERY:
            self._told_at = time.monotonic()
            self.tell_position()

    def tell_position(self) -> None:
        """Slices and value at the crosshair; each change makes the browser go through the page."""
        if self._state.images:
            slices = {name: self.views.slice_state(name) for name in SLICES}
            if slices != self._state.slices:
                self._state.slices = slices
        value, unit = self.views.value(), " HU" if self.window.is_ct else ""
        probe = "" if value is None else f"{value:.5g}{unit}"
        if probe != self._state.probe:
            self._state.probe = probe

    def middle(self, segment_id: str) -> np.ndarray | None:
        """A voxel in the middle of the structure, LPS in mm; None when it is empty.

        Of the slice that halves the volume, the structure's voxel nearest to the center.
        """
        if self.segmentation is None:
            return None
        mask, geometry = segment_array(self.segmentation, segment_id)
        volumes = np.cumsum([np.count_nonzero(plane) for plane in mask])  # faster than by axis
        if not volumes[-1]:
            return None
        z = int(np.searchsorted(volumes, volumes[-1] / 2))
        where = np.argwhere(mask[z])
        y, x = where[np.abs(where - where.mean(0)).sum(1).argmin()]
        return (geometry.ijk_to_lps @ [x, y, z, 1.0])[:3]

    def show_image(self, image_id: str, reset: bool = False) -> None:
        """Show the volume node with this ID, "" for none."""
        node = self._scene.GetNodeByID(image_id) if image_id else None
        if node is self.views.image and not reset:
            return
        name = node.GetName() if node is not None else ""
        self.window.show(node, self._modalities.get(name, ""))
        self.views.show_image(node, reset)
        self._state.presets = list(self.window.presets)

    def next_image(self) -> None:
        """Go round through the images of the study."""
        ids = [image["id"] for image in self._state.images]
        if ids:
            self._state.image_id = ids[(ids.index(self._state.image_id) + 1) % len(ids)]

    def use_preset(self, name: str) -> None:
        """One of the usual windows for CT, by name."""
        if name in self.window.presets:
            self.window.set(*self.window.presets[name])

    def set_opacity(self, percent: float) -> None:
        """Opacity of the filled structures; outlines stay."""
        if self.segmentation is not None:
            self.segmentation.GetDisplayNode().SetOpacity2DFill(float(percent) / 100)

    def set_overlay(self, shown: bool) -> None:
        """Show or hide all structures in the slices."""
        self._state.overlay = shown
        if self.segmentation is not None:
            display = self.segmentation.GetDisplayNode()
            display.SetVisibility2D(shown)

    def set_3d(self, shown: bool) -> None:
        """Show or hide the surfaces, which are only built for this."""
        self._state.show_3d = shown
        self.views.show_3d(shown)
        if self.segmentation is None:
            return
        self.segmentation.GetDisplayNode().SetVisibility3D(shown)
        if shown:
            self.update_surfaces()
            self.views.fit_3d(self.segmentation)

    def surfaces_are_stale(self) -> None:
        """Build the surfaces anew once the strokes have paused."""
        self._stale_since = time.monotonic()

    def update_surfaces(self) -> None:
        """Build the surfaces anew after an edit, if they are shown."""
        self._stale_since = None
        if self._state.show_3d and self.segmentation is not None:
            with contextlib.suppress(MIMSegmentError):
                add_surfaces(self.segmentation)
                _see_lesions(self.segmentation)
            self.views.all[THREE_D].schedule_render()

    def clear(self) -> None:
        """Forget the study; its nodes are gone from the scene."""
        self._modalities = {}
        self._followed = None
        self.set_3d(False)
        self.show_image("", reset=True)

    def _images(self, inputs) -> list[dict]:
        """The volumes in the order of the model's ``inputs``, whose names they have."""
        count = self._scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
        nodes = [self._scene.GetNthNodeByClass(i, "vtkMRMLScalarVolumeNode") for i in range(count)]
        order = {row.name: number for number, row in enumerate(inputs)}
        nodes.sort(key=lambda node: order.get(node.GetName(), len(order)))
        return [{"id": node.GetID(), "name": node.GetName()} for node in nodes]

    def _follow_window(self) -> None:
        width, level = self.window.width, self.window.level
        digits = 0 if width >= 20 else 2
        for key, value in (("window_width", width), ("window_level", level)):
            value = round(value, digits) if digits else round(value)
            if self._state[key] != value:
                self._state[key] = value

    def _follow_segmentation(self) -> None:
        node = self.segmentation
        if node is self._followed:
            return
        self._followed = node
        if node is not None:
            for other in self._scene.GetNodesByClass("vtkMRMLSegmentationNode"):
                other.SetDisplayVisibility(other is node)
            self.set_opacity(self._state.opacity)
            self.set_overlay(True)
            node.GetDisplayNode().SetVisibility3D(False)
            if self._state.show_3d:
                self.set_3d(True)


def _see_lesions(node) -> None:
    """Make the surfaces around lesions translucent, or nothing would be seen of what is inside."""
    lesions = [is_lesion(label) for label in label_table(node)]
    display = node.GetDisplayNode()
    for segment_id, lesion in zip(segments_of(node), lesions, strict=True):
        opacity = _AROUND_LESIONS if any(lesions) and not lesion else 1.0
        display.SetSegmentOpacity3D(segment_id, opacity)
