"""The steps of a review that can be undone, for each segment on its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from MIMSegment.Logic.review_items import SegmentRecord, Snapshot


@dataclass(eq=False)
class ReviewStep:
    """What undo goes back to: all records and volumes, for an edit the voxels as well.

    ``edits`` has the segments whose voxels the step changed, each with the number of its edit: one
    that was edited again since keeps its voxels.
    """

    records: dict[str, SegmentRecord]
    volumes: dict[str, float]
    snapshot: Snapshot | None = None
    edits: dict[str, int] = field(default_factory=dict)


class History:
    """Steps by segment, newest last. An edit that changed several segments, or a verdict on
    several, is one step of each."""

    def __init__(self):
        self._steps: dict[str, list[ReviewStep]] = {}
        self._edits: dict[str, int] = {}

    def has(self, segment_id: str) -> bool:
        """Whether there is a step to undo."""
        return bool(self._steps.get(segment_id))

    def last(self, segment_id: str) -> ReviewStep:
        """The newest step."""
        return self._steps[segment_id][-1]

    def push(self, segment_ids: Iterable[str], step: ReviewStep) -> None:
        """Add a step of these segments."""
        for segment_id in segment_ids:
            self._steps.setdefault(segment_id, []).append(step)

    def together(self, segment_id: str) -> list[str]:
        """The segments whose newest step is the newest one of this segment, itself included."""
        step = self.last(segment_id)
        return [i for i, steps in self._steps.items() if steps and steps[-1] is step]

    def pop(self, segment_id: str) -> ReviewStep:
        """Take the newest step away: an edit from all segments that share it, verdicts from those
        that have had no step since."""
        step, newest = self.last(segment_id), self.together(segment_id)
        for other, steps in self._steps.items():
            if other in newest or (step.snapshot is not None and step in steps):
                steps.remove(step)
        return step

    def keep_comment(self, segment_id: str, text: str) -> None:
        """Let undo of every step of this segment leave it with this comment."""
        for step in self._steps.get(segment_id, []):
            step.records[segment_id] = replace(step.records[segment_id], comment=text)

    def note_edit(self, segment_id: str, step: ReviewStep | None = None) -> None:
        """The segment's voxels were changed, by ``step`` if it is one."""
        self._edits[segment_id] = self._edits.get(segment_id, 0) + 1
        if step is not None:
            step.edits[segment_id] = self._edits[segment_id]

    def not_edited_since(self, step: ReviewStep) -> list[str]:
        """The segments that the step changed and nothing has changed after it."""
        return [i for i, number in step.edits.items() if self._edits[i] == number]
