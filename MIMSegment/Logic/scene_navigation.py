"""Where the views look: at a doubtful place, at the middle of a structure, and from which side."""

from __future__ import annotations

from collections.abc import Sequence

import slicer


def show_position(scene, position: Sequence[float]) -> None:
    """Center every slice view of ``scene`` on a point in LPS mm."""
    left, posterior, superior = position
    mode = slicer.vtkMRMLSliceNode.CenteredJumpSlice
    slicer.vtkMRMLSliceNode.JumpAllSlices(scene, -left, -posterior, superior, mode)


def show_sides(view_node) -> None:
    """Show Slicer's arrows R, A and S in a 3D view's corner.

    They say more than its cube, of which the view from the front shows one side. Another marker
    that the user has chosen stays.
    """
    if view_node.GetOrientationMarkerType() == view_node.OrientationMarkerTypeNone:
        view_node.SetOrientationMarkerType(view_node.OrientationMarkerTypeAxes)


def show_sides_everywhere(scene) -> None:
    """`show_sides` in every 3D view of ``scene``."""
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLViewNode")):
        show_sides(scene.GetNthNodeByClass(index, "vtkMRMLViewNode"))


def show_segment(node, segment_id: str) -> None:
    """Center the slice views on a segment of a segmentation node; an empty one moves nothing."""
    center = node.GetSegmentCenterRAS(segment_id)
    if center is not None:
        show_position(node.GetScene(), (-center[0], -center[1], center[2]))
