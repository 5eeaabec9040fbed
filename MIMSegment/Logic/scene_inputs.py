"""Volumes of the scene as images that may be inputs of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import slicer

from MIMSegment.Logic.errors import MIMSegmentError
from MIMSegment.Logic.image_source import ImageSource
from MIMSegment.Logic.scene_core import world_geometry
from MIMSegment.Logic.scene_volumes import dicom_header, volume_from_node, volume_grid
from MIMSegment.Logic.volume import Volume, check_values

INSTANCES = "DICOM.instanceUIDs"  # Slicer's own attribute of volumes from its DICOM database
_PLANES = ("sagittal", "coronal", "axial")  # by the patient axis nearest to the slices' normal

FindFile = Callable[[str], str | Path | None]
"""The file of a SOPInstanceUID; in Slicer ``slicer.dicomDatabase.fileForInstance``."""


class VolumeSource:
    """A volume node as an `ImageSource`: read in world LPS, with its parent transforms.

    Where ``find_file`` knows the node's DICOM files, their headers are evidence for the matcher
    just as those of files opened from a folder.
    """

    def __init__(self, node, find_file: FindFile = lambda uid: None):
        self.node = node
        self._find_file = find_file
        self._header: Mapping | None = None

    @property
    def name(self) -> str:
        return self.node.GetName()

    @property
    def id(self) -> str:
        return self.node.GetID()

    @property
    def key(self) -> str:
        return self.node.GetID()

    @property
    def label(self) -> str:
        return self.node.GetName()

    @property
    def folder(self) -> str:
        return ""

    @property
    def plane(self) -> str:
        try:
            matrix, shape = volume_grid(self.node)
            direction = world_geometry(matrix, shape, self.node).direction
        except MIMSegmentError:
            return ""
        return _PLANES[int(np.abs(direction[:, 2]).argmax())]

    @property
    def instances(self) -> dict[str, Path]:
        uids = (self.node.GetAttribute(INSTANCES) or "").split()
        files = {uid: self._find_file(uid) for uid in uids}
        return {uid: Path(file) for uid, file in files.items()} if all(files.values()) else {}

    @property
    def header(self) -> Mapping:
        if self._header is None:
            self._header = {**self._header_of_file(), **dicom_header(self.node)}
        return self._header

    def read(self) -> Volume:
        volume = volume_from_node(self.node)
        header = {**self.header, **volume.header}
        volume = Volume(volume.array, volume.geometry, volume.source, volume.warnings, header)
        check_values(volume)
        return volume

    def _header_of_file(self) -> Mapping:
        from MIMSegment.Logic.dicom_headers import read_frames

        uid = next(iter((self.node.GetAttribute(INSTANCES) or "").split()), None)
        file = self._find_file(uid) if uid else None
        try:
            frames = read_frames(Path(file)) if file else None
        except OSError:
            return {}
        if not isinstance(frames, list):
            return {}
        header = dict(frames[0].header)
        if frames[0].b_value is not None:
            header["DiffusionBValue"] = frames[0].b_value
        return header


def volume_sources(scene, find_file: FindFile = lambda uid: None) -> list[VolumeSource]:
    """The gray-value volumes of the scene that hold an image; label maps are none."""
    count = scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    nodes = [scene.GetNthNodeByClass(i, "vtkMRMLScalarVolumeNode") for i in range(count)]
    return [
        VolumeSource(node, find_file)
        for node in nodes
        if not node.IsA("vtkMRMLLabelMapVolumeNode")
        and node.GetImageData() is not None
        and not node.GetHideFromEditors()
    ]


def remember_dicom(scene, node, source: ImageSource) -> None:
    """Keep with a volume node which series and files it is, as Slicer does for its own."""
    if source.instances:
        node.SetAttribute(INSTANCES, " ".join(source.instances))
    series = str(source.header.get("SeriesInstanceUID", ""))
    if series:
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        hierarchy.SetItemUID(hierarchy.GetItemByDataNode(node), "DICOM", series)
