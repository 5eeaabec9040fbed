"""The segments of a segmentation node as a review works on them: `SegmentStore` on real MRML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import slicer

from MIMSegment.Logic.review_items import SegmentRecord, Verdict
from MIMSegment.Logic.scene_labels import label_table
from MIMSegment.Logic.scene_layers import segment_of, segments_of, tag
from MIMSegment.Logic.scene_log import append_row, read_rows
from MIMSegment.Logic.scene_segments import Status, get_status, set_status
from MIMSegment.Logic.scene_snapshot import (
    Snapshots,
    VoxelSnapshot,
    changed_voxels,
    restore_voxels,
)

COMMENT_TAG = "MIMSegment.Comment"
ALGORITHM_TYPE_TAG = "DICOM.SegmentAlgorithmType"
AUTOMATIC, SEMIAUTOMATIC, MANUAL = "AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"

STATUS_OF = {
    Verdict.OPEN: Status.NOT_STARTED,
    Verdict.EDITING: Status.IN_PROGRESS,
    Verdict.ACCEPTED: Status.COMPLETED,
    Verdict.REJECTED: Status.FLAGGED,
}
_VERDICT_OF = {status: verdict for verdict, status in STATUS_OF.items()}


class NodeSegments:
    """A vtkMRMLSegmentationNode as a `SegmentStore`.

    Verdicts are Slicer's own segment status, visibility that of the display node, comment and
    origin (DICOM's SegmentAlgorithmType) are tags of the segment; so all of them are in saved
    scenes, and changes that the user makes in Slicer's own tables count. A node that is not
    displayed gets a display node, without which nothing could be hidden.
    """

    def __init__(self, node):
        self.node = node
        self._snapshots = Snapshots(node)
        self._observers: list[tuple[object, int]] = []

    def records(self) -> list[SegmentRecord]:
        table = label_table(self.node)
        return [
            self._record(segment_id, segment, label)
            for (segment_id, segment), label in zip(
                segments_of(self.node).items(), table, strict=True
            )
        ]

    def write(self, record: SegmentRecord) -> None:
        segment = segment_of(self.node, record.id)
        status = STATUS_OF[record.verdict]
        if get_status(self.node, record.id) is not status:
            set_status(self.node, record.id, status)
        if tag(segment, COMMENT_TAG) != record.comment:
            segment.SetTag(COMMENT_TAG, record.comment.replace("|", "/"))  # | ends a tag in files
        origin = SEMIAUTOMATIC if record.edited else AUTOMATIC
        origin = MANUAL if record.by_hand else origin
        if (tag(segment, ALGORITHM_TYPE_TAG) or MANUAL) != origin:  # none: Slicer takes MANUAL
            segment.SetTag(ALGORITHM_TYPE_TAG, origin)
        display = self._display()
        if display.GetSegmentVisibility(record.id) != record.visible:
            display.SetSegmentVisibility(record.id, record.visible)

    def volumes_ml(self, ids: Sequence[str] | None = None) -> dict[str, float]:
        volumes = self.snapshot().volumes_ml()
        return volumes if ids is None else {segment_id: volumes[segment_id] for segment_id in ids}

    def snapshot(self) -> VoxelSnapshot:
        return self._snapshots.take()

    def changed_voxels(self, snapshot: VoxelSnapshot) -> dict[str, int]:
        return changed_voxels(snapshot, self.snapshot())

    def restore(self, snapshot: VoxelSnapshot, ids: Sequence[str]) -> None:
        restore_voxels(self.node, snapshot, ids)

    def watch(self, callback: Callable[[], None] | None) -> None:
        segmentation, events = self.node.GetSegmentation(), slicer.vtkSegmentation
        for subject, observer in self._observers:
            subject.RemoveObserver(observer)
        self._observers = []
        if callback is None:
            return
        watched = [
            (segmentation, events.SourceRepresentationModified),
            (segmentation, events.SegmentModified),
            (segmentation, events.SegmentAdded),
            (segmentation, events.SegmentRemoved),
            (self.node, self.node.TransformModifiedEvent),  # it may scale the volumes
        ]
        self._observers = [
            (subject, subject.AddObserver(event, lambda *ignored: callback()))
            for subject, event in watched
        ]

    def log(self, entry: Mapping[str, Any]) -> None:
        append_row(self.node.GetScene(), self.node, entry)

    def logged(self) -> list[dict[str, Any]]:
        return read_rows(self.node)

    def _display(self):
        if self.node.GetDisplayNode() is None:
            self.node.CreateDefaultDisplayNodes()
        return self.node.GetDisplayNode()

    def _record(self, segment_id: str, segment, label) -> SegmentRecord:
        display = self._display()
        origin = tag(segment, ALGORITHM_TYPE_TAG)
        return SegmentRecord(
            segment_id,
            label.value,
            label.name,
            label.color,
            _VERDICT_OF[get_status(self.node, segment_id)],
            tag(segment, COMMENT_TAG),
            origin == SEMIAUTOMATIC,
            bool(display.GetSegmentVisibility(segment_id)),
            origin in ("", MANUAL),
        )
