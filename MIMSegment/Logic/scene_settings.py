"""Settings kept with the scene: a dataclass in a vtkMRMLScriptedModuleNode, one parameter a field.

The values are JSON, so a field may be anything that JSON has; a field that is missing or unreadable
has its default, so scenes of older and newer versions open.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from typing import TypeVar

import slicer

_MODULE = "MIMSegment"
T = TypeVar("T")


def save_settings(scene, settings) -> None:
    """Keep ``settings``, a dataclass, in the scene's node for this module."""
    node = _node(scene) or _new_node(scene)
    modifying = node.StartModify()
    for field in fields(settings):
        text = json.dumps(getattr(settings, field.name))
        if node.GetParameter(field.name) != text:
            node.SetParameter(field.name, text)
    node.EndModify(modifying)


def load_settings(scene, kind: type[T]) -> T:
    """The scene's settings as the dataclass ``kind``."""
    node, values = _node(scene), {}
    for field in fields(kind) if node is not None else ():
        try:
            value = json.loads(node.GetParameter(field.name))
        except ValueError:
            continue
        default = field.default if field.default is not MISSING else field.default_factory()
        if isinstance(default, tuple) and isinstance(value, list):
            value = tuple(value)
        if isinstance(value, type(default)):
            values[field.name] = value
    return kind(**values)


def _node(scene):
    return scene.GetSingletonNode(_MODULE, "vtkMRMLScriptedModuleNode")


def _new_node(scene):
    node = slicer.vtkMRMLScriptedModuleNode()
    node.SetSingletonTag(_MODULE)  # one for the scene, also when another scene is added to it
    node.SetModuleName(_MODULE)
    node.SetName(_MODULE)
    return scene.AddNode(node)
