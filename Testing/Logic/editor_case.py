"""Strokes as Slicer's segment editor makes them: its own logic class, without the widget."""

import slicer

from MIMSegment.Logic.scene_layers import voxels


class Editor:
    """A segment editor on a segmentation and its volume."""

    def __init__(self, scene, segmentation_node, volume_node):
        self._node = segmentation_node
        self._parameters = scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
        self._parameters.SetAndObserveSegmentationNode(segmentation_node)
        self._parameters.SetAndObserveSourceVolumeNode(volume_node)
        self._logic = slicer.vtkSlicerSegmentEditorLogic()
        self._logic.SetMRMLScene(scene)
        self._logic.SetSegmentEditorNode(self._parameters)

    def allow_overlap(self) -> None:
        """Strokes take nothing from other segments."""
        self._parameters.SetOverwriteMode(self._parameters.OverwriteNone)

    def paint(self, segment_id: str, box) -> None:
        """Add the voxels of ``box``, slices (z, y, x) of the volume's array."""
        self._stroke(segment_id, box, self._logic.ModificationModeAdd)

    def erase(self, segment_id: str, box) -> None:
        """Remove the voxels of ``box`` from the segment."""
        self._stroke(segment_id, box, self._logic.ModificationModeRemove)

    def _stroke(self, segment_id, box, mode) -> None:
        self._logic.SetCurrentSegmentID(segment_id)
        self._logic.UpdateReferenceGeometryImage()
        self._logic.ResetModifierLabelmapToDefault()
        modifier = self._logic.GetModifierLabelmap()
        voxels(modifier)[box] = 1
        modifier.Modified()
        extent = [bound for s in reversed(box) for bound in (s.start, s.stop - 1)]
        self._logic.ModifySegmentByLabelmap(
            self._node, segment_id, modifier, mode, extent, False, False
        )
