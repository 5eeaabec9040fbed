"""The audit log as a table in the scene, so that it is saved with it and can be looked at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from MIMSegment.Logic.audit import COLUMNS, Entry
from MIMSegment.Logic.scene_core import unique_name

LOG_ROLE = "MIMSegment.AuditLog"
_PACKED = ("weights", "series")  # JSON in a cell
_NUMBERS = ("label", "volume_before_ml", "volume_after_ml", "voxels_changed")


def log_table(segmentation_node):
    """The vtkMRMLTableNode with the node's audit log; None when there is none."""
    return segmentation_node.GetNodeReference(LOG_ROLE)


def append_row(scene, segmentation_node, entry: Mapping[str, Any]) -> None:
    """Append an entry to the node's table, which is made when there is none."""
    table = log_table(segmentation_node) or _new_table(scene, segmentation_node)
    row = table.AddEmptyRow()
    for column, key in enumerate(COLUMNS):
        if key in entry:
            value = entry[key]
            text = json.dumps(value) if key in _PACKED or key in _NUMBERS else str(value)
            table.SetCellText(row, column, text)


def read_rows(segmentation_node) -> list[Entry]:
    """The entries of the node's table, oldest first, as they were appended."""
    table = log_table(segmentation_node)
    if table is None:
        return []
    entries = []
    for row in range(table.GetNumberOfRows()):
        cells = {key: table.GetCellText(row, i) for i, key in enumerate(COLUMNS)}
        entries.append(
            {
                key: json.loads(text) if key in _PACKED or key in _NUMBERS else text
                for key, text in cells.items()
                if text
            }
        )
    return entries


def _new_table(scene, segmentation_node):
    name = unique_name(scene, f"{segmentation_node.GetName()} audit log")
    table = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
    table.SetUseColumnTitleAsColumnHeader(True)
    for key in COLUMNS:
        table.AddColumn().SetName(key)
    table.SetLocked(True)  # a log is read, not edited
    segmentation_node.SetNodeReferenceID(LOG_ROLE, table.GetID())
    return table
