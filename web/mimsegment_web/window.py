"""The gray window of the image that is shown."""

from __future__ import annotations

import slicer

from MIMSegment.Logic.scene_volumes import CT_WINDOW

CT_PRESETS = {
    "Soft tissue": (CT_WINDOW[1] - CT_WINDOW[0], sum(CT_WINDOW) / 2),
    "Liver": (150.0, 90.0),
    "Lung": (1500.0, -600.0),
    "Bone": (1800.0, 400.0),
    "Brain": (80.0, 40.0),
}
"""Width and level in HU."""


class GrayWindow:
    """Width and level of one volume node at a time; each node keeps its own."""

    def __init__(self):
        self.node = None

    @property
    def width(self) -> float:
        return self._display.GetWindow() if self.node is not None else 0.0

    @property
    def level(self) -> float:
        return self._display.GetLevel() if self.node is not None else 0.0

    @property
    def presets(self) -> dict[str, tuple[float, float]]:
        """The usual windows by name, for CT only."""
        return CT_PRESETS if self.node is not None and self._modality == "CT" else {}

    def set(self, width: float, level: float) -> None:
        """Show values within ``width`` around ``level``."""
        if self.node is not None:
            self._display.SetAutoWindowLevel(False)
            self._display.SetWindowLevel(width, level)

    @property
    def _display(self):
        return self.node.GetDisplayNode()

    @property
    def _modality(self) -> str:
        scene = self.node.GetScene()
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        item = hierarchy.GetItemByDataNode(self.node)
        return hierarchy.GetItemAttribute(item, "DICOM.Modality") if item else ""
