"""Pictures of slices as Slicer shows them: image, colored segments, their outlines.

They are drawn in a scene of their own that shares the voxels: the caller's scene gains no view
nodes (for which Slicer would open views), and Slicer's displayable manager factories, one for the
whole process, are left alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import slicer
from vtkmodules.vtkCommonTransforms import vtkGeneralTransform
from vtkmodules.vtkRenderingCore import (
    vtkActor2D,
    vtkImageMapper,
    vtkRenderer,
    vtkRenderWindowInteractor,
)

from MIMSegment.Logic.scene_core import LPS_TO_RAS, numpy_matrix, parent_matrix, require_in
from MIMSegment.Logic.scene_layers import image_matrix, layers, voxels
from MIMSegment.Logic.scene_window import add_side_letters, offscreen_window, take_picture

_RIGHT_IS_LEFT = True  # the patient's right on the left of the picture
_LETTERS = (0.9, 0.9, 0.9)
_SEARCHED = 2_000_000  # voxels looked at to find the middle of a segmentation


def render_slice(
    scene,
    volume_node,
    segmentation_node=None,
    orientation: str = "Axial",
    position_mm: Sequence[float] | None = None,
    size: tuple[int, int] = (512, 512),
) -> np.ndarray:
    """The slice as Slicer shows it, visible segments included: RGB uint8 (height, width, 3).

    ``orientation`` ("Axial", "Coronal" or "Sagittal") is turned to the volume's nearest axes; the
    patient's right is on the left, letters say so. The slice goes through ``position_mm``, a world
    LPS point, by default through the labeled voxel nearest to the segmentation's center. ``size``
    is (width, height) in pixels; the whole slice fits. ``scene`` is left as it is.
    """
    require_in(scene, volume_node, segmentation_node)
    studio = slicer.vtkMRMLScene()
    scene.CopyRegisteredNodesToScene(studio)
    studio.AddNewNodeByClass("vtkMRMLInteractionNode")  # displayable managers ask for one
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(studio, _RIGHT_IS_LEFT)
    volume = _copy_volume(studio, volume_node)
    if segmentation_node is not None:
        _copy_segmentation(studio, segmentation_node)
    if position_mm is not None:
        point = LPS_TO_RAS[:3, :3] @ np.asarray(position_mm, float)
    else:
        point = _labeled_center(segmentation_node) if segmentation_node is not None else None
    logic = slicer.vtkMRMLSliceLogic()
    logic.SetMRMLScene(studio)
    slice_node = logic.AddSliceNode("Picture")
    logic.GetSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
    _aim(logic, slice_node, orientation, point, size)
    window = SliceWindow(logic, slice_node, size)
    picture = window.picture()
    window.close()
    return picture


def _aim(logic, slice_node, orientation: str, point, size: tuple[int, int]) -> None:
    if not slice_node.SetOrientation(orientation):
        raise ValueError(f"no orientation {orientation}")
    logic.RotateSliceToLowestVolumeAxes()
    logic.ResizeSliceNode(*size)
    logic.FitSliceToBackground()
    if point is not None:
        slice_node.JumpSliceByOffsetting(*point)
    logic.SnapSliceOffsetToIJK()  # or the image would be a mixture of two slices


class SliceWindow:
    """What Slicer shows of a slice, off screen: ``logic`` blends the images, the displayable
    manager for segmentations draws over them. ``size`` is (width, height) in pixels."""

    def __init__(self, logic, slice_node, size: tuple[int, int]):
        self._logic = logic  # without it nothing is blended any more
        renderer = vtkRenderer()
        renderer.GetActiveCamera().ParallelProjectionOn()
        self._window = offscreen_window(renderer, size)
        self._interactor = vtkRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._window)
        mapper = vtkImageMapper()
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        mapper.SetInputConnection(logic.GetImageDataConnection())
        image = vtkActor2D()
        image.SetMapper(mapper)
        image.GetProperty().SetDisplayLocationToBackground()
        renderer.AddViewProp(image)  # before the segments, or nothing shines through them
        self._managers = slicer.vtkMRMLDisplayableManagerGroup()
        self._managers.SetRenderer(renderer)
        self._managers.AddDisplayableManager(slicer.vtkMRMLSegmentationsDisplayableManager2D())
        self._managers.SetMRMLDisplayableNode(slice_node)
        right, up = numpy_matrix(slice_node.GetSliceToRAS())[:3, :2].T
        add_side_letters(renderer, right, up, size, _LETTERS)

    def picture(self) -> np.ndarray:
        """RGB uint8 (height, width, 3) of the scene as it is now."""
        return take_picture(self._window)

    def close(self) -> None:
        """End the window; nothing is drawn any more."""
        self._managers.SetMRMLDisplayableNode(None)
        self._window.Finalize()


def _copy_volume(scene, volume_node):
    copy = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    copy.CopyOrientation(volume_node)
    copy.SetAndObserveImageData(volume_node.GetImageData())
    display = slicer.vtkMRMLScalarVolumeDisplayNode()
    if volume_node.GetDisplayNode() is not None:
        display.CopyContent(volume_node.GetDisplayNode())
        display.SetAndObserveColorNodeID(_copy_colors(scene, volume_node.GetDisplayNode()))
    scene.AddNode(display)
    copy.SetAndObserveDisplayNodeID(display.GetID())
    _copy_transform(scene, volume_node, copy)
    return copy


def _copy_colors(scene, display) -> str | None:
    colors = display.GetColorNode()
    return scene.CopyNode(colors).GetID() if colors is not None else None


def _copy_segmentation(scene, segmentation_node) -> None:
    copy = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    copy.SetAndObserveSegmentation(segmentation_node.GetSegmentation())
    copy.CreateDefaultDisplayNodes()
    if segmentation_node.GetDisplayNode() is not None:
        copy.GetDisplayNode().CopyContent(segmentation_node.GetDisplayNode())
    _copy_transform(scene, segmentation_node, copy)


def _copy_transform(scene, node, copy) -> None:
    """Put ``copy`` under all that moves or bends ``node``."""
    if node.GetParentTransformNode() is None:
        return
    to_world = vtkGeneralTransform()
    node.GetParentTransformNode().GetTransformToWorld(to_world)
    transform = scene.AddNewNodeByClass("vtkMRMLTransformNode")
    transform.SetAndObserveTransformToParent(to_world)
    copy.SetAndObserveTransformNodeID(transform.GetID())


def _labeled_center(node) -> np.ndarray | None:
    """World RAS of the labeled voxel nearest to the center of all; None when there is none."""
    points = [_labeled_points(labelmap) for labelmap, _ in layers(node)]
    points = np.concatenate([np.empty((0, 3)), *points])
    if not len(points):
        return None
    nearest = np.linalg.norm(points - points.mean(axis=0), axis=1).argmin()
    return (parent_matrix(node) @ [*points[nearest], 1.0])[:3]


def _labeled_points(labelmap) -> np.ndarray:
    """RAS (n, 3) of labeled voxels, not all of them when there are many."""
    array = voxels(labelmap)
    step = max(1, round((array.size / _SEARCHED) ** (1 / 3)))
    indices = np.argwhere(array[::step, ::step, ::step]) * step
    if not len(indices):
        indices = np.argwhere(array)  # only structures smaller than the step
    ijk = indices[:, ::-1] + labelmap.GetExtent()[::2]
    matrix = image_matrix(labelmap)
    return ijk @ matrix[:3, :3].T + matrix[:3, 3]
