"""What every part of the scene needs: a bare scene, LPS/RAS, parent transforms, names, places.

Slicer classes are looked up when they are used, because in Slicer a module may be loaded before
the modules that bring them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import slicer
from vtkmodules.vtkCommonCore import vtkLogger, vtkOutputWindow, vtkStringOutputWindow
from vtkmodules.vtkCommonMath import vtkMatrix4x4

from MIMSegment.Logic.errors import GeometryError
from MIMSegment.Logic.volume import Geometry

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # its own inverse
_ORTHOGONAL = 1e-4  # largest cosine between two axes of a grid that is not sheared


def new_scene():
    """An empty scene for volumes, segmentations, transforms and subject hierarchy, without Qt.

    In Slicer use ``slicer.mrmlScene`` instead. No logic stays with the scene: the two that are
    needed have done their work when they have registered their nodes, and a logic that lives on
    holds its scene, which then is never freed.
    """
    scene = slicer.vtkMRMLScene()
    slicer.vtkSlicerSubjectHierarchyModuleLogic().SetMRMLScene(scene)
    slicer.vtkSlicerSegmentationsModuleLogic().SetMRMLScene(scene)
    gray = slicer.vtkMRMLColorTableNode()  # the table that every volume's display asks for
    gray.SetTypeToGrey()
    gray.SetName(gray.GetTypeAsString())
    gray.SetSingletonTag(gray.GetTypeAsString())
    gray.SetSaveWithScene(False)
    scene.AddNode(gray)
    return scene


def vtk_matrix(matrix: np.ndarray) -> vtkMatrix4x4:
    """A 4×4 array as VTK has it."""
    result = vtkMatrix4x4()
    result.DeepCopy(np.asarray(matrix, float).ravel().tolist())
    return result


def numpy_matrix(matrix: vtkMatrix4x4) -> np.ndarray:
    """VTK's 4×4 matrix as an array."""
    return np.array([[matrix.GetElement(i, j) for j in range(4)] for i in range(4)])


def parent_matrix(node) -> np.ndarray:
    """The 4×4 matrix that takes the node's own RAS millimeters to world RAS millimeters.

    Raises GeometryError when a parent transform is not linear.
    """
    matrix = vtkMatrix4x4()
    parent = node.GetParentTransformNode()
    if parent is not None and not parent.GetMatrixTransformToWorld(matrix):
        raise GeometryError(
            f"{node.GetName()} is under the non-linear transform {parent.GetName()}; "
            "harden the transform on it first."
        )
    return numpy_matrix(matrix)


def world_geometry(ijk_to_ras: np.ndarray, shape, node) -> Geometry:
    """The grid, in world LPS, of ``shape`` (z, y, x) voxels that ``node`` holds.

    Raises GeometryError when its parent transform bends or shears it.
    """
    geometry = Geometry(tuple(shape), LPS_TO_RAS @ parent_matrix(node) @ ijk_to_ras)
    axes = geometry.direction
    if np.abs(axes.T @ axes - np.eye(3)).max() > _ORTHOGONAL:
        raise GeometryError(
            f"The voxels of {node.GetName()} are sheared by its parent transform; harden the "
            "transform on it, or resample it to a rectangular grid, first."
        )
    return geometry


def require_in(scene, *nodes) -> None:
    """Raise ValueError for a node of another scene, or of one that is gone."""
    for node in nodes:
        if node is not None and node.GetScene() is not scene:
            raise ValueError(f"{node.GetName()} is not a node of this scene")


def unique_name(scene, name: str) -> str:
    """``name``, or ``name_1`` and so on when a node of the scene has it.

    ``&`` becomes ``+``: Slicer writes it into scene files without escaping, which makes them
    unreadable.
    """
    name = name.replace("&", "+") or "Unnamed"
    candidate, number = name, 0
    while scene.GetFirstNodeByName(candidate) is not None:
        number += 1
        candidate = f"{name}_{number}"
    return candidate


def subject_item(scene, node, owner: str) -> tuple:
    """The subject hierarchy node and the node's item in it, created where no Qt plugin does.

    ``owner`` is the name of Slicer's plugin for the kind of node: "Volumes", "Segmentations".
    """
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(node)
    if not item:
        item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), node, owner)
    return hierarchy, item


@contextlib.contextmanager
def vtk_messages() -> Iterator[vtkStringOutputWindow]:
    """Catch what VTK prints in the block: Slicer's readers and writers say why only there."""
    window, messages = vtkOutputWindow.GetInstance(), vtkStringOutputWindow()
    verbosity = vtkLogger.GetCurrentVerbosityCutoff()
    vtkOutputWindow.SetInstance(messages)
    vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_OFF)
    try:
        yield messages
    finally:
        vtkOutputWindow.SetInstance(window)
        vtkLogger.SetStderrVerbosity(verbosity)
