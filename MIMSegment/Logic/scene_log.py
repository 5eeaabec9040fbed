"""The audit log as a table in the scene, so that it is saved with it and can be looked at.

Slicer saves tables as tab-separated text and reads quotation marks wrongly, so no cell has any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from MIMSegment.Logic.audit import COLUMNS, Entry, plain_text
from MIMSegment.Logic.scene_core import unique_name

LOG_ROLE = "MIMSegment.AuditLog"
_UNKNOWN = "-"  # a series without UID


def log_table(segmentation_node):
    """The vtkMRMLTableNode with the node's audit log; None when there is none."""
    return segmentation_node.GetNodeReference(LOG_ROLE)


def append_row(scene, segmentation_node, entry: Mapping[str, Any]) -> None:
    """Append an entry to the node's table, which is made when there is none."""
    table = log_table(segmentation_node) or _new_table(scene, segmentation_node)
    row = table.AddEmptyRow()
    for column, key in enumerate(COLUMNS):
        if key in entry:
            write, _ = _FORMS.get(key, (_text, str))
            table.SetCellText(row, column, write(entry[key]))


def read_rows(segmentation_node) -> list[Entry]:
    """The entries of the node's table, oldest first, as they were appended."""
    table = log_table(segmentation_node)
    entries = []
    for row in range(table.GetNumberOfRows() if table else 0):
        cells = {key: table.GetCellText(row, i) for i, key in enumerate(COLUMNS)}
        entries.append({k: _FORMS.get(k, (_text, str))[1](t) for k, t in cells.items() if t})
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


def _text(value: object) -> str:
    return plain_text(str(value))


def _weights_to_text(weights: Mapping[str, str]) -> str:
    return "; ".join(f"{name}={checksum}" for name, checksum in weights.items())


def _weights_from_text(text: str) -> dict[str, str]:
    return dict(item.rsplit("=", 1) for item in text.split("; "))


def _series_to_text(uids: list[str]) -> str:
    return " ".join(uid or _UNKNOWN for uid in uids)


def _series_from_text(text: str) -> list[str]:
    return ["" if uid == _UNKNOWN else uid for uid in text.split()]


_FORMS: dict[str, tuple[Callable[[Any], str], Callable[[str], Any]]] = {
    "weights": (_weights_to_text, _weights_from_text),
    "series": (_series_to_text, _series_from_text),
    "label": (str, int),
    "voxels_changed": (str, int),
    "volume_before_ml": (str, float),
    "volume_after_ml": (str, float),
}
"""How values that are no text stand in a cell: writing and reading."""
