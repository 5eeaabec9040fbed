"""Images in the scene: `Volume` to volume node and back."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import slicer
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkImageData
from vtkmodules.vtkCommonMath import vtkMatrix4x4

from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.scene_core import (
    LPS_TO_RAS,
    numpy_matrix,
    subject_item,
    unique_name,
    vtk_matrix,
    world_geometry,
)
from MIMSegment.Logic.volume import Volume

CT_WINDOW = (-160.0, 240.0)  # HU, soft tissue: window 400, level 40
_SHOWN_PERCENTILES = (0.5, 99.5)  # of any other image, from black to white
_SAMPLES = 1_000_000  # voxels looked at for them; Slicer's own automatic window reads all, 0.5 s


def add_volume(scene, volume: Volume, name: str, modality: str | None = None):
    """Add a one-channel ``volume`` as a new vtkMRMLScalarVolumeNode with a unique name.

    ``modality`` (default: the volume's DICOM header) chooses the gray window: soft tissue for
    "CT", otherwise the range of the values without their extremes. Raises ValueError for several
    channels.
    """
    if volume.array.shape[0] != 1:
        raise ValueError(f"{volume.array.shape[0]} channels; use add_channels")
    return add_channels(scene, volume, [name], modality)[0]


def add_channels(scene, volume: Volume, names: list[str], modality: str | None = None) -> list:
    """Add each channel of ``volume`` as a new vtkMRMLScalarVolumeNode, named by ``names``."""
    modality = modality or volume.header.get("Modality")
    nodes = []
    for channel, name in zip(_storable(volume.array), names, strict=True):
        node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", unique_name(scene, name))
        node.SetIJKToRASMatrix(vtk_matrix(LPS_TO_RAS @ volume.geometry.ijk_to_lps))
        node.SetAndObserveImageData(_image(channel))
        node.AddDefaultStorageNode()
        # Or the axes of left-handed grids come back flipped from a saved scene.
        node.GetStorageNode().SetForceRightHandedIJKCoordinateSystem(False)
        _add_display(scene, node, CT_WINDOW if modality == "CT" else _percentiles(channel))
        hierarchy, item = subject_item(scene, node, "Volumes")
        if modality:
            hierarchy.SetItemAttribute(item, "DICOM.Modality", modality)
        nodes.append(node)
    return nodes


def volume_from_node(node) -> Volume:
    """A copy of the node's voxels (c, z, y, x) in world LPS, linear parent transforms applied.

    ``source`` is the node's name; ``header`` holds Modality and SeriesInstanceUID where Slicer's
    subject hierarchy knows them. Raises InputError for a node without voxels and GeometryError for
    a parent transform that bends or shears the grid.
    """
    matrix, shape = volume_grid(node)
    scalars = node.GetImageData().GetPointData().GetScalars()
    array = vtk_to_numpy(scalars).reshape(*shape, -1)
    geometry = world_geometry(matrix, shape, node)
    channels = np.ascontiguousarray(np.moveaxis(array, -1, 0))
    channels = channels.copy() if np.shares_memory(channels, array) else channels
    return Volume(channels, geometry, node.GetName(), header=dicom_header(node))


def volume_grid(node) -> tuple[np.ndarray, tuple[int, int, int]]:
    """The node's own index-to-RAS matrix, parent transforms left out, and its shape (z, y, x).

    Raises InputError for a node without voxels.
    """
    image = node.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None:
        raise InputError(f"The volume {node.GetName()} holds no image; load its file first.")
    ijk_to_ras = vtkMatrix4x4()
    node.GetIJKToRASMatrix(ijk_to_ras)
    matrix = numpy_matrix(ijk_to_ras)
    matrix[:3, 3] += matrix[:3, :3] @ image.GetExtent()[::2]
    return matrix, image.GetDimensions()[::-1]


def volume_version(node) -> Hashable:
    """Equal as long as the node's voxels, its grid and its transforms stay as they are."""
    if node.GetImageData() is None:
        return ()
    matrix, shape = volume_grid(node)
    parent, to_world = node.GetParentTransformNode(), vtkMatrix4x4()
    linear = parent is None or parent.GetMatrixTransformToWorld(to_world)
    where = numpy_matrix(to_world).tobytes() if linear else parent.GetID()
    return node.GetImageData().GetMTime(), shape, matrix.tobytes(), where


def _image(channel: np.ndarray) -> vtkImageData:
    image = vtkImageData()
    image.SetDimensions(*reversed(channel.shape))
    values = np.ascontiguousarray(channel).ravel()
    image.GetPointData().SetScalars(numpy_to_vtk(values, deep=True))
    return image


def _add_display(scene, node, window: tuple[float, float]) -> None:
    display = slicer.vtkMRMLScalarVolumeDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(*window)
    display.SetDefaultColorMap()
    scene.AddNode(display)
    node.SetAndObserveDisplayNodeID(display.GetID())


def _percentiles(channel: np.ndarray) -> tuple[float, float]:
    values = channel.ravel()[:: max(1, channel.size // _SAMPLES)]
    values = values[np.isfinite(values)] if np.isfinite(values).any() else np.zeros(1)
    low, high = (float(v) for v in np.percentile(values, _SHOWN_PERCENTILES))
    return (low, high) if low < high else (low - 0.5, low + 0.5)


def _storable(array: np.ndarray) -> np.ndarray:
    """The same values in a type that Slicer's files can hold (no bool, float16, 64-bit integer)."""
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        int32 = np.iinfo(np.int32)
        fits = array.size == 0 or (array.min() >= int32.min and array.max() <= int32.max)
        return array.astype(np.int32 if fits else np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def dicom_header(node) -> dict[str, str]:
    """Modality and SeriesInstanceUID, where the subject hierarchy knows them."""
    scene = node.GetScene()
    hierarchy = scene and slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy and hierarchy.GetItemByDataNode(node)
    if not item:
        return {}
    header = {
        "Modality": hierarchy.GetItemAttribute(item, "DICOM.Modality"),
        "SeriesInstanceUID": hierarchy.GetItemUID(item, "DICOM"),
    }
    return {key: value for key, value in header.items() if value}
