"""A picture of a segmentation in 3D."""

from __future__ import annotations

import numpy as np
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkRenderingCore import vtkActor, vtkLightKit, vtkPolyDataMapper, vtkRenderer

from MIMSegment.Logic.scene_core import numpy_matrix, parent_matrix, require_in, vtk_matrix
from MIMSegment.Logic.scene_surfaces import segment_surfaces
from MIMSegment.Logic.scene_window import add_side_letters, offscreen_window, take_picture

_BACKGROUND = ((1.0, 1.0, 1.0), (0.80, 0.84, 0.90))  # bottom, top
_VIEW_FROM = (0.35, 1.0, 0.25)  # RAS: in front of the patient, somewhat to the right and above
_KEY_LIGHT = 0.95
_LETTERS = (0.35, 0.35, 0.4)
_FILLED = 0.86  # of the picture's width or height, by the segments
_SUPERSAMPLING = 2  # smooth edges also where the driver has no multisampling


def render_3d(scene, segmentation_node, size: tuple[int, int] = (512, 512)) -> np.ndarray:
    """The visible segments as shaded surfaces, seen from the front: RGB uint8 (height, width, 3).

    All of them fit in the picture of ``size`` (width, height) pixels. Colors, visibility and
    opacity are those of the node's display. Raises GeometryError for a non-linear transform.
    """
    require_in(scene, segmentation_node)
    window_size = tuple(_SUPERSAMPLING * n for n in size)
    renderer = vtkRenderer()
    renderer.SetBackground(_BACKGROUND[0])
    renderer.SetBackground2(_BACKGROUND[1])
    renderer.GradientBackgroundOn()
    renderer.SetUseDepthPeeling(True)
    lights = vtkLightKit()
    lights.SetKeyLightIntensity(_KEY_LIGHT)
    lights.AddLightsToRenderer(renderer)
    actors = _actors(segmentation_node)
    for actor in actors:
        renderer.AddActor(actor)
    window = offscreen_window(renderer, window_size)
    right, up = _aim(renderer, actors, size)
    add_side_letters(renderer, right, up, window_size, _LETTERS)
    picture = take_picture(window).astype(np.uint16)
    window.Finalize()
    width, height = size
    blocks = picture.reshape(height, _SUPERSAMPLING, width, _SUPERSAMPLING, 3)
    return blocks.mean(axis=(1, 3)).round().astype(np.uint8)


def _aim(renderer: vtkRenderer, actors: list, size: tuple[int, int]):
    """Fit all of ``actors`` into the picture; returns the picture's right and up in RAS."""
    away = -np.array(_VIEW_FROM) / np.linalg.norm(_VIEW_FROM)
    right = np.cross(away, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    up = np.cross(right, away)
    corners = [_world_points(actor) @ np.stack([right, up, away], 1) for actor in actors]
    corners = np.concatenate(corners) if corners else np.zeros((1, 3))
    low, high = corners.min(axis=0), corners.max(axis=0)
    width, height, depth = np.maximum(high - low, 1.0)
    center = np.stack([right, up, away], 1) @ ((low + high) / 2)
    camera = renderer.GetActiveCamera()
    camera.ParallelProjectionOn()  # sizes can be compared, and the fit is exact
    camera.SetFocalPoint(*center)
    camera.SetPosition(*(center - away * (depth + 1.0)))
    camera.SetViewUp(*up)
    camera.SetParallelScale(max(height, width * size[1] / size[0]) / 2 / _FILLED)
    renderer.ResetCameraClippingRange()
    return right, up


def _world_points(actor: vtkActor) -> np.ndarray:
    points = vtk_to_numpy(actor.GetMapper().GetInput().GetPoints().GetData())
    matrix = numpy_matrix(actor.GetUserMatrix())
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def _actors(node) -> list[vtkActor]:
    display = node.GetDisplayNode()
    to_world = vtk_matrix(parent_matrix(node))
    actors = []
    for segment_id, surface in segment_surfaces(node).items():
        shown = display.GetSegmentVisibility(segment_id) and display.GetSegmentVisibility3D(
            segment_id
        )
        if not (display.GetVisibility() and display.GetVisibility3D() and shown):
            continue
        mapper = vtkPolyDataMapper()
        mapper.SetInputData(surface)
        mapper.ScalarVisibilityOff()
        actor = vtkActor()
        actor.SetMapper(mapper)
        actor.SetUserMatrix(to_world)
        style = actor.GetProperty()
        style.SetColor(display.GetSegmentColor(segment_id))
        style.SetOpacity(display.GetOpacity3D() * display.GetSegmentOpacity3D(segment_id))
        style.SetSpecular(0.25)
        style.SetSpecularPower(30)
        actors.append(actor)
    return actors
