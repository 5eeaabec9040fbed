"""Where the slice views look: at a doubtful place, or at the middle of a structure."""

from __future__ import annotations

from collections.abc import Sequence

import slicer


def show_position(scene, position: Sequence[float]) -> None:
    """Center every slice view of ``scene`` on a point in LPS mm."""
    left, posterior, superior = position
    mode = slicer.vtkMRMLSliceNode.CenteredJumpSlice
    slicer.vtkMRMLSliceNode.JumpAllSlices(scene, -left, -posterior, superior, mode)


def show_segment(node, segment_id: str) -> None:
    """Center the slice views on a segment of a segmentation node; an empty one moves nothing."""
    center = node.GetSegmentCenterRAS(segment_id)
    if center is not None:
        show_position(node.GetScene(), (-center[0], -center[1], center[2]))
