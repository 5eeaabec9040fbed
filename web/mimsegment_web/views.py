"""Axial, coronal, sagittal and 3D view of the scene: what they show and where they stand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import slicer
from trame_slicer.core import SlicerApp
from trame_slicer.views import (
    AbstractView,
    SliceView,
    ThreeDView,
    ViewDirection,
    ViewLayoutDefinition,
    ViewType,
)
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonMath import vtkMatrix4x4

from MIMSegment.Logic.scene_core import LPS_TO_RAS
from MIMSegment.Logic.scene_layers import CLOSED_SURFACE, segments_of
from MIMSegment.Logic.scene_navigation import show_sides
from mimsegment_web.drawing import Drawing, view_factory

SLICES = ("Axial", "Sagittal", "Coronal")
THREE_D = "ThreeD"
_SAMPLED, _IN_SIGHT = 5, (0.5, 99.5)  # every fifth point of the surfaces; percentiles
_BORDER = 0.1  # of a view, where a point counts as out of sight
_COLORS = {"Axial": "#F34A33", "Sagittal": "#EFD64D", "Coronal": "#6DAD4A"}


class Views:
    """The four views of one page; they share a crosshair, and all points are LPS millimeters.

    ``moved`` is called without arguments after a slice or the crosshair has moved.
    """

    def __init__(self, server, app: SlicerApp):
        self.moved: Callable[[], None] = lambda: None
        self._scene = app.scene
        for kind, view_type in (
            (SliceView, ViewType.SLICE_VIEW),
            (ThreeDView, ViewType.THREE_D_VIEW),
        ):
            app.view_manager.register_factory(view_factory(server, kind, view_type))
        definitions = [
            ViewLayoutDefinition.slice_view(name, color=_COLORS[name]) for name in SLICES
        ]
        definitions.append(
            ViewLayoutDefinition.threed_view(name=THREE_D, background_color="#101418")
        )
        self.all: dict[str, AbstractView] = {
            d.singleton_tag: app.view_manager.create_view(d) for d in definitions
        }
        app.view_manager.set_current_view_ids(list(self.all))
        for view in self.all.values():
            # Multisampling costs two thirds of the frames where the processor draws.
            view.render_window().SetMultiSamples(0)
        show_sides(self.all[THREE_D].get_view_node())
        self._drawings = {name: Drawing(view, name == "Axial") for name, view in self.all.items()}
        self.show_3d(False)
        self.slices: dict[str, SliceView] = {name: self.all[name] for name in SLICES}
        self._crosshair = app.scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        self._crosshair.SetCrosshairMode(slicer.vtkMRMLCrosshairNode.ShowBasic)
        self._following = True
        for name, view in self.slices.items():
            view.get_view_node().AddObserver(
                "ModifiedEvent", lambda *_, name=name: self._slice_moved(name)
            )
            _keep_extent(view)

    @property
    def image(self):
        """The volume node in the background of the slices; None before one is shown."""
        return self._scene.GetNodeByID(self.slices["Axial"].get_background_volume_id() or "")

    def show_image(self, node, reset: bool = False) -> None:
        """Show this volume in all slices; with ``reset`` fit them to it and go to its middle."""
        for view in self.slices.values():
            view.set_background_volume_id(node.GetID() if node is not None else None)
        if reset and node is not None:
            self.reset()

    def reset(self) -> None:
        """Fit all views and go to the middle of the image."""
        self._following = False
        for view in self.all.values():
            view.reset_view()
        self._following = True
        if self.image is not None:
            bounds = [0.0] * 6
            self.image.GetRASBounds(bounds)
            center = [(bounds[i] + bounds[i + 1]) / 2 for i in (0, 2, 4)]
            self.go_to(LPS_TO_RAS[:3, :3] @ center)

    def show_3d(self, shown: bool) -> None:
        """Draw the 3D view or leave it; every move of a slice would draw it anew."""
        self._drawings[THREE_D].on = shown
        self.all[THREE_D].schedule_render()

    def share_frames(self, shared: bool) -> None:
        """Draw the views that follow the pointer's one more often, at its cost."""
        for drawing in self._drawings.values():
            drawing.share(shared)

    def fit_3d(self, node) -> None:
        """Look at the surfaces of the segmentation ``node`` from the front.

        Specks far away may be out of sight, so that the structures fill the view.
        """
        view = self.all[THREE_D]
        view.rotate_to_view_direction(ViewDirection.ANTERIOR)
        surfaces = [s.GetRepresentation(CLOSED_SURFACE) for s in segments_of(node).values()]
        points = [vtk_to_numpy(s.GetPoints().GetData()) for s in surfaces if s and s.GetPoints()]
        if points:
            low, high = np.percentile(np.concatenate(points)[::_SAMPLED], _IN_SIGHT, axis=0)
            view.renderer().ResetCamera([v for pair in zip(low, high, strict=True) for v in pair])
        view.schedule_render()

    def value(self) -> float | None:
        """The image's value at the crosshair; None outside it."""
        if self.image is None or self.image.GetImageData() is None:
            return None
        matrix = vtkMatrix4x4()
        self.image.GetRASToIJKMatrix(matrix)
        point = [*self._crosshair.GetCrosshairRAS(), 1.0]
        voxel = [round(v) for v in matrix.MultiplyPoint(point)[:3]]
        data = self.image.GetImageData()
        if not all(0 <= v < n for v, n in zip(voxel, data.GetDimensions(), strict=True)):
            return None
        return data.GetScalarComponentAsDouble(*voxel, 0)

    @property
    def position(self) -> np.ndarray:
        """The crosshair, LPS in mm."""
        return LPS_TO_RAS[:3, :3] @ np.array(self._crosshair.GetCrosshairRAS())

    def go_to(self, position, center: bool = False) -> None:
        """Move crosshair and slices to this LPS point, or to the nearest one of the image.

        With ``center`` it comes to the middle of a view in which it would be out of sight.
        """
        ras = self._inside(LPS_TO_RAS[:3, :3] @ np.asarray(position, float))
        self._following = False
        for view in self.slices.values():
            node = view.get_view_node()
            node.JumpSliceByOffsetting(*ras)
            if center and not _in_sight(node, ras):
                node.JumpSliceByCentering(*ras)
            view._logic.SnapSliceOffsetToIJK()  # or the picture would mix two slices
        self._following = True
        self._crosshair.SetCrosshairRAS(*ras)
        self.moved()

    def _inside(self, ras: np.ndarray) -> np.ndarray:
        """The center of a voxel of the image's border for a point outside, which shows nothing."""
        if self.image is None or self.image.GetImageData() is None:
            return ras
        to_ras, to_ijk = vtkMatrix4x4(), vtkMatrix4x4()
        self.image.GetIJKToRASMatrix(to_ras)
        self.image.GetRASToIJKMatrix(to_ijk)
        ijk = np.array(to_ijk.MultiplyPoint([*ras, 1.0])[:3])
        last = np.array(self.image.GetImageData().GetDimensions()) - 1
        if ((ijk >= -0.5) & (ijk <= last + 0.5)).all():
            return ras
        return np.array(to_ras.MultiplyPoint([*np.clip(ijk, 0, last), 1.0])[:3])

    def slice_state(self, name: str) -> dict:
        """Where one slice stands: index from 1, number of slices, position and the view's width
        in mm."""
        view = self.slices[name]
        low, high = view.get_slice_range()  # centers of the first and the last slice
        step = abs(view.get_slice_step()) or 1.0
        count = max(1, 1 + round((high - low) / step))
        value = view.get_slice_value()
        index = min(count, max(1, 1 + round((value - low) / step)))
        across = round(view.get_view_node().GetFieldOfView()[0], 2)
        return {"index": index, "count": count, "mm": round(value, 1), "across": across}

    def set_slice(self, name: str, index: int) -> None:
        """Show the slice with this index, counted from 1."""
        view = self.slices[name]
        low, _ = view.get_slice_range()
        view.set_slice_value(low + (index - 1) * abs(view.get_slice_step()))
        view._logic.SnapSliceOffsetToIJK()

    def render(self) -> None:
        """Ask all views for a new picture."""
        for view in self.all.values():
            view.schedule_render()

    def _slice_moved(self, name: str) -> None:
        """Bring the crosshair along with a slice that was scrolled."""
        if not self._following:
            return
        matrix = self.slices[name].get_view_node().GetSliceToRAS()
        normal = np.array([matrix.GetElement(i, 2) for i in range(3)])
        origin = np.array([matrix.GetElement(i, 3) for i in range(3)])
        at = np.array(self._crosshair.GetCrosshairRAS())
        away = float((origin - at) @ normal)
        if abs(away) > 1e-3:
            self._crosshair.SetCrosshairRAS(*(at + away * normal))
        self.moved()


def _keep_extent(view: SliceView) -> None:
    """Let a view show the same part of the image whatever its size, enlarged or not.

    The slice logic keeps the millimeters of a pixel instead, which leaves an enlarged view with a
    small picture.
    """
    node = view.get_view_node()

    def resize(*_) -> None:
        width, height = view.render_window().GetSize()
        shown = node.GetFieldOfView()
        before = node.GetDimensions()[:2]
        if min(width, height, *before) <= 1 or (width, height) == before:
            return
        extent = min(before) * shown[0] / before[0]  # mm along the shorter side
        view._logic.ResizeSliceNode(width, height)
        pixel = extent / min(width, height)
        node.SetFieldOfView(width * pixel, height * pixel, shown[2])

    view.interactor().AddObserver("WindowResizeEvent", resize, 1.0)  # before the view's own


def _in_sight(node, ras) -> bool:
    """Whether the slice node's view shows the point, and not at its very border."""
    to_xy = vtkMatrix4x4()
    vtkMatrix4x4.Invert(node.GetXYToRAS(), to_xy)
    xy = to_xy.MultiplyPoint([*ras, 1.0])[:2]
    sizes = node.GetDimensions()[:2]
    return all(_BORDER * n < at < (1 - _BORDER) * n for at, n in zip(xy, sizes, strict=True))
