"""Segmentations and scenes in files: ``.seg.nrrd`` and ``.mrb``.

Storage nodes are used and never Slicer's application, so that everything works without Qt too.
"""

from __future__ import annotations

import os
import re
import tempfile
import zipfile
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import slicer

from MIMSegment.Logic.errors import InputError, OutputError
from MIMSegment.Logic.files import not_written, replacing
from MIMSegment.Logic.itk_file import check_voxels
from MIMSegment.Logic.scene_core import new_scene, subject_item, unique_name, vtk_messages
from MIMSegment.Logic.scene_layers import REFERENCE_GEOMETRY, set_reference_geometry
from MIMSegment.Logic.volume import Geometry, from_itk, itk

_SEGMENTATION_SUFFIX = ".seg.nrrd"
_REASON = re.compile(r"^\w+ \(0x[0-9a-f]+\): (?:\w+::\w+: )?(.+)$", re.MULTILINE)  # VTK's form
_DATA_ELEMENTS = ("Volume", "LabelMapVolume", "VectorVolume", "Segmentation")


def save_segmentation(node, path: str | Path) -> None:
    """Write the node to ``path`` (.seg.nrrd), with label values, names, colors and all tags.

    Raises OutputError; an existing file stays as it was unless the new one is complete.
    """
    path = _with_suffix(path, _SEGMENTATION_SUFFIX)
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetUseCompression(True)
    with replacing(path) as temporary, vtk_messages() as messages:
        storage.SetFileName(str(temporary))
        if not storage.WriteData(node) or not temporary.is_file():
            raise not_written(path, RuntimeError(_reason(messages)))


def load_segmentation(scene, path: str | Path, name: str | None = None):
    """Read a ``.seg.nrrd`` into a new vtkMRMLSegmentationNode; InputError when that fails."""
    path = _existing(path)
    name = name or path.name.removesuffix(_SEGMENTATION_SUFFIX)
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(path))
    grid = _grid(path)
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", unique_name(scene, name))
    with vtk_messages() as messages:
        read = storage.ReadData(node)
    if not read:
        scene.RemoveNode(node)
        raise InputError(_failure(f"{path} cannot be read as a segmentation", messages))
    if not node.GetSegmentation().GetConversionParameter(REFERENCE_GEOMETRY):
        set_reference_geometry(node, grid)  # written by another program
    node.CreateDefaultDisplayNodes()
    subject_item(scene, node, "Segmentations")
    return node


def save_scene(scene, path: str | Path) -> None:
    """Write everything in ``scene`` to ``path`` (.mrb); OutputError when the file is incomplete."""
    path = _with_suffix(path, ".mrb")
    names = [node.GetName() or "" for node in _nodes(scene, "vtkMRMLStorableNode")]
    unwritable = [name for name in names if "&" in name]
    if unwritable:  # Slicer writes & unescaped, and cannot read the scene again
        raise OutputError(
            f"{path} could not be written: Slicer cannot store names with &; rename "
            f"{', '.join(unwritable)}."
        )
    with (
        replacing(path) as temporary,
        tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder,
        vtk_messages() as messages,
    ):
        bundle = Path(folder, path.name)  # Slicer names what is inside after the file
        written = scene.WriteToMRB(str(bundle))
        elements = _bundle_elements(bundle) if written else None
        nodes = _nodes(scene, "vtkMRMLVolumeNode") + _nodes(scene, "vtkMRMLSegmentationNode")
        saved = [node for node in nodes if node.GetSaveWithScene()]
        if elements is None or any(node.GetID() not in elements for node in saved):
            raise not_written(path, RuntimeError(_reason(messages)))
        os.replace(bundle, temporary)


def load_scene(path: str | Path):
    """Read a ``.mrb`` into a new bare scene.

    Raises InputError when it cannot be read, or when volumes or segmentations that it lists are
    missing afterwards: Slicer's reader also reports failure for scenes that it read completely.
    """
    path = _existing(path)
    elements = _bundle_elements(path)
    if elements is None:
        raise InputError(f"{path} cannot be read as a scene: it is not a complete .mrb file.")
    scene = new_scene()
    with tempfile.TemporaryDirectory() as cache, vtk_messages() as messages:
        remote = slicer.vtkMRMLRemoteIOLogic()  # gives the reader a place to unpack to
        remote.SetMRMLScene(scene)
        remote.GetCacheManager().SetRemoteCacheDirectory(cache)
        remote.AddDataIOToScene()
        read = scene.ReadFromMRB(str(path))
        remote.RemoveDataIOFromScene()
    data = {i: e for i, e in elements.items() if e.tag in _DATA_ELEMENTS}
    nodes = {i: scene.GetNodeByID(i) for i in data}
    lost = _without_file(path, data.values(), elements)
    missing = [
        data[i].get("name")
        for i, node in nodes.items()
        if node is None or i in lost or not (read or _holds_data(node))
    ]
    if missing:
        what = f"{path} cannot be read completely, without data: {', '.join(missing)}"
        raise InputError(_failure(what, messages))
    return scene


def _existing(path: str | Path) -> Path:
    path = Path(path).resolve()
    if not path.is_file():
        raise InputError(f"{path} does not exist.")
    return path


def _grid(path: Path) -> Geometry:
    """The file's grid; InputError for a damaged file: Slicer's own reader would end the process."""
    check_voxels(path)
    try:
        return from_itk(itk().ReadImage(str(path)), str(path)).geometry
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].removeprefix("sitk::ERROR: ")
        raise InputError(f"{path} cannot be read as a segmentation: {reason}") from None


def _with_suffix(path: str | Path, suffix: str) -> Path:
    path = Path(path).resolve()
    if not path.name.lower().endswith(suffix):
        raise OutputError(f"{path} must end in {suffix}.")
    if not path.parent.is_dir():
        raise OutputError(f"{path} could not be written: its folder does not exist.")
    return path


def _failure(what: str, messages) -> str:
    return f"{what}: {_reason(messages)}."


def _reason(messages) -> str:
    reasons = _REASON.findall(messages.GetOutput())
    return reasons[-1].strip().rstrip(".") if reasons else "Slicer does not say why"


def _nodes(scene, class_name: str) -> list:
    count = scene.GetNumberOfNodesByClass(class_name)
    return [scene.GetNthNodeByClass(i, class_name) for i in range(count)]


def _holds_data(node) -> bool:
    if node is None:
        return False
    if node.IsA("vtkMRMLSegmentationNode"):
        return node.GetSegmentation().GetNumberOfSegments() > 0
    return node.GetImageData() is not None


def _without_file(bundle: Path, data, elements) -> set[str]:
    """IDs of the nodes whose file the bundle lists and does not hold; Slicer does not always see
    that."""
    with zipfile.ZipFile(bundle) as archive:
        held = {name.partition("/")[2] for name in archive.namelist()}
    lost = set()
    for node in data:
        stored = re.search(r"storage:([^;]+);", node.get("references") or "")
        storages = [elements[i] for i in stored[1].split() if i in elements] if stored else []
        files = [unquote(storage.get("fileName") or "") for storage in storages]
        if any(file.startswith("Data/") and file not in held for file in files):
            lost.add(node.get("id"))
    return lost


def _bundle_elements(bundle: Path) -> dict[str, ElementTree.Element] | None:
    """The nodes in a bundle's scene file by ID; None when the bundle is damaged."""
    try:
        with zipfile.ZipFile(bundle) as archive:
            name = next(n for n in archive.namelist() if n.endswith(".mrml"))
            scene = ElementTree.fromstring(archive.read(name))
            damaged = archive.testzip()
    except (OSError, zipfile.BadZipFile, StopIteration, ElementTree.ParseError):
        return None
    return None if damaged else {element.get("id"): element for element in scene}
