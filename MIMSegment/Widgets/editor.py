"""Slicer's Segment Editor inside the panel."""

import slicer

_TAG = "MIMSegment"
# The panel says what is edited, and a review neither adds nor deletes structures.
_HIDDEN = (
    "segmentationNodeSelector",
    "sourceVolumeNodeSelector",
    "addRemoveSegmentButtons",
    "switchToSegmentationsButton",
    "specifyGeometryButton",
)


class EmbeddedEditor:
    """Made when it is first needed, in ``frame``; edits one segment of one result."""

    def __init__(self, frame):
        self.widget = None
        self._frame = frame
        self._edited = None

    def edit(self, node, segment_id):
        """Edit a segment of a segmentation node; None ends that."""
        if self._edited == segment_id:
            return
        self._edited = segment_id
        if segment_id is None:
            self.close()
            return
        if self.widget is None:
            self.widget = self._new_widget()
        else:
            self.widget.setMRMLSegmentEditorNode(_parameter_node())
        self.widget.setSegmentationNode(node)
        role = node.GetReferenceImageGeometryReferenceRole()
        self.widget.setSourceVolumeNode(node.GetNodeReference(role))
        self.widget.setCurrentSegmentID(segment_id)

    def close(self):
        """Let go of the nodes of the scene."""
        self._edited = None
        if self.widget is not None:
            self.widget.setActiveEffect(None)
            self.widget.setMRMLSegmentEditorNode(None)

    def enter(self):
        """The module is shown (again)."""
        if self.widget is not None:
            self.widget.setupViewObservations()

    def exit(self):
        """Nothing is painted in the views while another module is shown."""
        if self.widget is not None:
            self.widget.setActiveEffect(None)
            self.widget.removeViewObservations()

    def _new_widget(self):
        widget = slicer.qMRMLSegmentEditorWidget()
        widget.setMaximumNumberOfUndoStates(10)
        # Before the scene: what the widget chooses when it gets that is then kept in the node.
        widget.setMRMLSegmentEditorNode(_parameter_node())
        widget.setMRMLScene(slicer.mrmlScene)
        for part in _HIDDEN:
            widget.setProperty(f"{part}Visible", False)
        self._frame.layout().addWidget(widget)
        widget.setupViewObservations()
        return widget


def _parameter_node():
    node = slicer.mrmlScene.GetSingletonNode(_TAG, "vtkMRMLSegmentEditorNode")
    if node is None:
        node = slicer.vtkMRMLSegmentEditorNode()
        node.SetSingletonTag(_TAG)
        node = slicer.mrmlScene.AddNode(node)
    return node
