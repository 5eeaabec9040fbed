"""The MRML scene as the workflow needs it: `SceneGateway` on real MRML, for both front-ends."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path

from MIMSegment.Logic.audit import Provenance
from MIMSegment.Logic.errors import GeometryError, InputError
from MIMSegment.Logic.image_source import ImageSource
from MIMSegment.Logic.labels import Label
from MIMSegment.Logic.scene_core import world_geometry
from MIMSegment.Logic.scene_inputs import FindFile, VolumeSource, remember_dicom, volume_sources
from MIMSegment.Logic.scene_labels import label_table, labels_from_segmentation
from MIMSegment.Logic.scene_merge import add_to_segmentation, check_addition, undo_addition
from MIMSegment.Logic.scene_results import (
    is_result,
    keep_result,
    kept_result,
    kept_state,
    restore_state,
    with_earlier,
)
from MIMSegment.Logic.scene_review import NodeSegments
from MIMSegment.Logic.scene_segments import add_segmentation
from MIMSegment.Logic.scene_settings import load_settings, save_settings
from MIMSegment.Logic.scene_storage import save_scene, save_segmentation
from MIMSegment.Logic.scene_volumes import (
    add_volume,
    volume_from_node,
    volume_grid,
    volume_version,
)
from MIMSegment.Logic.volume import Geometry, Volume, check_values
from MIMSegment.Logic.workflow_ports import OpenResult, Result
from MIMSegment.Logic.workflow_state import WorkflowSettings


class MrmlGateway:
    """A `SceneGateway` on a vtkMRMLScene: in Slicer ``slicer.mrmlScene``, else `scene.new_scene`.

    ``find_file`` gives the file of a DICOM instance, in Slicer
    ``slicer.dicomDatabase.fileForInstance``.
    """

    def __init__(self, scene, find_file: FindFile = lambda uid: None):
        self.scene = scene
        self._find_elsewhere = find_file
        self._files: dict[str, Path] = {}  # of the series that were opened from folders
        # By the key of a source that is not of the scene: its node's ID, and version when added.
        self._shown: dict[Hashable, tuple[str, Hashable]] = {}
        self._undo: Callable[[], None] | None = None

    def volumes(self) -> list[ImageSource]:
        return list(volume_sources(self.scene, self._find_file))

    def show_inputs(
        self, names: Sequence[str], sources: Sequence[ImageSource], volumes: Sequence[Volume]
    ) -> None:
        for name, source, volume in zip(names, sources, volumes, strict=True):
            if self.volume_node(source) is None:
                node = add_volume(self.scene, volume, name)
                remember_dicom(self.scene, node, source)
                self._files.update(source.instances)
                self._shown[source.key] = node.GetID(), volume_version(node)

    def volume_node(self, source: ImageSource):
        """The scene's volume node of an image; None when it is not in the scene (any more)."""
        if isinstance(source, VolumeSource):
            node = source.node
            return node if node.GetScene() is self.scene else None
        return self.scene.GetNodeByID(self._shown.get(source.key, ("", None))[0])

    def version(self, source: ImageSource) -> Hashable:
        node = self.volume_node(source)
        now = volume_version(node) if node is not None else None
        return None if now == self._shown.get(source.key, ("", None))[1] else now

    def read(self, source: ImageSource, original: Callable[[ImageSource], Volume]) -> Volume:
        if isinstance(source, VolumeSource):
            return source.read()
        volume = original(source)
        if self.version(source) is None:
            return volume
        now = volume_from_node(self.volume_node(source))
        volume = replace(volume, array=now.array, geometry=now.geometry)
        check_values(volume)
        return volume

    def check_target(
        self, target: str, geometry: Geometry, labels: Sequence[Label], made: Provenance
    ) -> None:
        """Raise InputError or GeometryError if a result could not be added to that segmentation."""
        node = self._segmentation(target)
        _refuse_other_model(node, made)
        check_addition(node, geometry, labels)

    def show_result(self, result: Result, target: str = "") -> OpenResult:
        found, algorithm = result.segmentation, result.provenance.algorithm
        volumes = [(name, self.volume_node(source)) for name, source in result.inputs]
        reference = volumes[0][1]
        geometry = _where(reference, found.geometry)
        if target:
            node = self._segmentation(target)
            _refuse_other_model(node, result.provenance)
            before, result = kept_state(node), with_earlier(node, result)
            addition = add_to_segmentation(node, found.labels, geometry, result.labels, algorithm)

            def take_back() -> None:
                undo_addition(node, addition)
                restore_state(node, before)

            self._undo = take_back
        else:
            node = add_segmentation(
                self.scene, found.labels, geometry, list(result.labels), result.title, reference,
                algorithm=algorithm,
            )  # fmt: skip
            self._undo = lambda: self.scene.RemoveNode(node)
        keep_result(node, result, volumes)
        return replace(self.open_result(node.GetID()), fresh=True)

    def undo_result(self) -> None:
        """Take the last `show_result` back: remove it, or restore what it was added to."""
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()

    def results(self) -> list[tuple[str, str]]:
        count = self.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")
        nodes = [self.scene.GetNthNodeByClass(i, "vtkMRMLSegmentationNode") for i in range(count)]
        return [(node.GetID(), node.GetName()) for node in nodes if is_result(node)]

    def open_result(self, id: str) -> OpenResult:
        node = self._segmentation(id)
        if not is_result(node):
            raise InputError(
                f"{node.GetName()} was not made by this program, so nothing is known about where "
                "to look; choose another segmentation."
            )
        return kept_result(node, self._find_file)

    def load_settings(self) -> WorkflowSettings:
        return load_settings(self.scene, WorkflowSettings)

    def save_settings(self, settings: WorkflowSettings) -> None:
        save_settings(self.scene, settings)

    def save(self, path: Path) -> None:
        save_scene(self.scene, path)

    def save_segmentation(self, store: NodeSegments, path: Path) -> None:
        save_segmentation(store.node, path)

    def labels(self, store: NodeSegments) -> tuple[Volume, list[Label]]:
        array, geometry = labels_from_segmentation(store.node)
        return Volume(array[None], geometry, store.node.GetName()), label_table(store.node)

    def _find_file(self, uid: str) -> str | Path | None:
        return self._files.get(uid) or self._find_elsewhere(uid)

    def _segmentation(self, id: str):
        node = self.scene.GetNodeByID(id)
        if node is None or not node.IsA("vtkMRMLSegmentationNode"):
            raise InputError(
                "The chosen segmentation is not in the scene any more; choose another."
            )
        return node


def _refuse_other_model(node, made: Provenance) -> None:
    """One segmentation has one audit log and one model in it."""
    earlier = kept_result(node, lambda uid: None).provenance if is_result(node) else made
    if earlier.algorithm != made.algorithm:
        raise InputError(
            f"{node.GetName()} is a result of {earlier.algorithm}, not of {made.algorithm}; choose "
            "a new segmentation for the result."
        )


def _where(volume, geometry: Geometry) -> Geometry:
    """The result's grid: where its volume is now, also if that was moved during the run."""
    if volume is None:
        return geometry
    matrix, shape = volume_grid(volume)
    if tuple(shape) != tuple(geometry.shape):
        raise GeometryError(
            f"{volume.GetName()} was changed while it was being segmented; segment it again."
        )
    return world_geometry(matrix, shape, volume)
