"""The MRML scene as the workflow needs it: `SceneGateway` on real MRML, for both front-ends."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from MIMSegment.Logic.audit import Provenance
from MIMSegment.Logic.doubt import DoubtfulPlace
from MIMSegment.Logic.errors import GeometryError, InputError
from MIMSegment.Logic.finding import Finding, Severity
from MIMSegment.Logic.image_source import ImageSource
from MIMSegment.Logic.labels import Label
from MIMSegment.Logic.scene_core import world_geometry
from MIMSegment.Logic.scene_inputs import FindFile, VolumeSource, remember_dicom, volume_sources
from MIMSegment.Logic.scene_labels import label_table, labels_from_segmentation
from MIMSegment.Logic.scene_merge import add_to_segmentation, undo_addition
from MIMSegment.Logic.scene_review import NodeSegments
from MIMSegment.Logic.scene_segments import add_segmentation, provenance, set_provenance
from MIMSegment.Logic.scene_settings import load_settings, save_settings
from MIMSegment.Logic.scene_storage import save_scene, save_segmentation
from MIMSegment.Logic.scene_volumes import add_volume, volume_grid
from MIMSegment.Logic.volume import Geometry, Volume
from MIMSegment.Logic.workflow_ports import Result, ReviewFacts
from MIMSegment.Logic.workflow_state import WorkflowSettings

_FACTS = "Review"  # name of the attribute, after the prefix that add_segmentation gives


class MrmlGateway:
    """A `SceneGateway` on a vtkMRMLScene: in Slicer ``slicer.mrmlScene``, else `scene.new_scene`.

    ``find_file`` gives the file of a DICOM instance, in Slicer
    ``slicer.dicomDatabase.fileForInstance``.
    """

    def __init__(self, scene, find_file: FindFile = lambda uid: None):
        self.scene = scene
        self._find_file = find_file
        self._nodes: dict[object, str] = {}  # ID of the volume node by the key of its source
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
                self._nodes[source.key] = node.GetID()

    def volume_node(self, source: ImageSource):
        """The scene's volume node of an image; None when it is not in the scene (any more)."""
        if isinstance(source, VolumeSource):
            node = source.node
            return node if node.GetScene() is self.scene else None
        return self.scene.GetNodeByID(self._nodes.get(source.key, ""))

    def show_result(self, result: Result, reference: ImageSource, target: str = "") -> NodeSegments:
        found, made = result.segmentation, result.provenance
        volume = self.volume_node(reference)
        geometry = _where(volume, found.geometry)
        if target:
            node = self._segmentation(target)
            addition = add_to_segmentation(
                node, found.labels, geometry, result.labels, made.algorithm
            )
            self._undo = lambda: undo_addition(node, addition)
        else:
            node = add_segmentation(
                self.scene, found.labels, geometry, list(result.labels), result.title,
                volume, algorithm=made.algorithm,
            )  # fmt: skip
            self._undo = lambda: self.scene.RemoveNode(node)
        _keep_facts(node, result)
        return NodeSegments(node)

    def undo_result(self) -> None:
        """Take the last `show_result` back: remove it, or restore what it was added to."""
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()

    def results(self) -> list[tuple[str, str]]:
        count = self.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")
        nodes = [self.scene.GetNthNodeByClass(i, "vtkMRMLSegmentationNode") for i in range(count)]
        return [(node.GetID(), node.GetName()) for node in nodes if _FACTS in provenance(node)]

    def open_result(self, id: str) -> tuple[NodeSegments, ReviewFacts]:
        node = self._segmentation(id)
        if _FACTS not in provenance(node):
            raise InputError(
                f"{node.GetName()} was not made by this program, so nothing is known about where "
                "to look; choose another segmentation."
            )
        return NodeSegments(node), _facts(node)

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

    def _segmentation(self, id: str):
        node = self.scene.GetNodeByID(id)
        if node is None or not node.IsA("vtkMRMLSegmentationNode"):
            raise InputError(
                "The chosen segmentation is not in the scene any more; choose another."
            )
        return node


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


def _keep_facts(node, result: Result) -> None:
    """Attributes of the node for a review that goes on after a reload, and for other programs."""
    made, found = result.provenance, result.segmentation
    facts = {
        "confidence": {str(k): v for k, v in found.confidence.items()},
        "doubtful": [asdict(place) for place in found.doubtful],
        "findings": [asdict(finding) for finding in result.findings],
    }
    set_provenance(
        node,
        {
            "Package": made.package,
            "Version": made.version,
            "Weights": dict(made.weights),
            "Series": list(made.series_uids),
            "Software": made.software,
            _FACTS: facts,
        },
    )


def _facts(node) -> ReviewFacts:
    kept = provenance(node)
    made = Provenance(
        kept["Package"],
        kept["Version"],
        json.loads(kept["Weights"]),
        tuple(json.loads(kept["Series"])),
        kept["Software"],
    )
    facts = json.loads(kept[_FACTS])
    return ReviewFacts(
        made,
        {int(label): value for label, value in facts["confidence"].items()},
        tuple(
            DoubtfulPlace(tuple(p["position"]), p["label"], p["doubtful_ml"])
            for p in facts["doubtful"]
        ),
        tuple(_finding(item) for item in facts["findings"]),
    )


def _finding(item: dict) -> Finding:
    position = item["position"]
    return Finding(
        item["code"],
        Severity(item["severity"]),
        item["message"],
        item["label"],
        tuple(position) if position else None,
    )
