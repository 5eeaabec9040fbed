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
        self.is_ct = False
        self._seen: set[str] = set()  # IDs of nodes that have their window

    def show(self, node, modality: str) -> None:
        """Turn to ``node``, None for no image.

        ``modality`` is what the model takes it for, where its file does not say (NIfTI, NRRD): a
        CT is first shown in the window of soft tissue.
        """
        self.node = node
        known = node is not None and _is_ct(node)
        self.is_ct = known or (node is not None and modality == "CT")
        if self.is_ct and not known and node.GetID() not in self._seen:
            self._seen.add(node.GetID())
            self.set(*CT_PRESETS["Soft tissue"])

    @property
    def width(self) -> float:
        return self._display.GetWindow() if self.node is not None else 0.0

    @property
    def level(self) -> float:
        return self._display.GetLevel() if self.node is not None else 0.0

    @property
    def presets(self) -> dict[str, tuple[float, float]]:
        """The usual windows by name, for CT only."""
        return CT_PRESETS if self.is_ct else {}

    def set(self, width: float, level: float) -> None:
        """Show values within ``width`` around ``level``."""
        if self.node is not None:
            self._display.SetAutoWindowLevel(False)
            self._display.SetWindowLevel(width, level)

    @property
    def _display(self):
        return self.node.GetDisplayNode()


def _is_ct(node) -> bool:
    """Whether the volume ``node`` is said to be a CT."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
    item = hierarchy.GetItemByDataNode(node)
    return bool(item) and hierarchy.GetItemAttribute(item, "DICOM.Modality") == "CT"
