"""What a review shows, as plain data, and what it asks of whoever keeps the segments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from MIMSegment.Logic.actions import ENABLED, Action, enabled_if
from MIMSegment.Logic.finding import Finding, Severity
from MIMSegment.Logic.phrases import counted, joined


class Verdict(StrEnum):
    """What the reviewer thinks of a structure; kept as Slicer's own segment status."""

    OPEN = "open"
    """Not looked at: Slicer's "not started"."""
    EDITING = "editing"
    """Being corrected, or corrected and not accepted yet: "in progress"."""
    ACCEPTED = "accepted"
    """Right; locked: "completed"."""
    REJECTED = "rejected"
    """Wrong; hidden, kept, not exported: "flagged"."""

    @property
    def resolved(self) -> bool:
        """Whether the reviewer has decided."""
        return self in (Verdict.ACCEPTED, Verdict.REJECTED)


@dataclass(frozen=True)
class SegmentRecord:
    """A segment without its voxels, as a `SegmentStore` keeps it.

    ``label`` is its label value, ``color`` RGB in 0..255. ``edited``: a person has changed the
    model's voxels (DICOM's SEMIAUTOMATIC); ``by_hand``: no model has drawn it (MANUAL).
    """

    id: str
    label: int
    name: str
    color: tuple[int, int, int]
    verdict: Verdict = Verdict.OPEN
    comment: str = ""
    edited: bool = False
    visible: bool = True
    by_hand: bool = False


@dataclass(frozen=True)
class ReviewItem:
    """A row of the review: one structure, or one lesion.

    ``confidence`` is the model's mean certainty (0..1), a measure of how soft its decision was and
    no probability of being right; None where unknown. ``findings`` are the checks' sentences about
    this structure, the gravest first; ``doubtful_places`` says how many unresolved places lie in
    it. ``actions`` has the state of each button: accept, edit, finish_edit, reject, reopen, undo,
    comment.
    """

    id: str
    label: int
    name: str
    color: tuple[int, int, int]
    volume_ml: float
    confidence: float | None
    verdict: Verdict
    comment: str
    findings: tuple[Finding, ...]
    edited: bool
    visible: bool = True
    editing: bool = False
    doubtful_places: int = 0
    actions: Mapping[str, Action] = field(default_factory=dict, compare=False)
    by_hand: bool = False

    @property
    def severity(self) -> Severity | None:
        """The gravest finding's severity; None without findings."""
        return max((f.severity for f in self.findings), key=lambda s: s.rank, default=None)

    @property
    def locked(self) -> bool:
        """Whether its voxels may not be changed."""
        return self.verdict is Verdict.ACCEPTED


@dataclass(frozen=True)
class ReviewPlace:
    """A place to look at: LPS ``position`` in mm, the segment in question (None: the whole result)
    and why it is worth a look. ``rank`` counts from 1, the worst."""

    position: tuple[float, float, float]
    segment_id: str | None
    reason: str
    rank: int


@dataclass(frozen=True)
class ReviewState:
    """A review at one moment. ``place`` is the one last gone to; ``notice`` a sentence about what
    was just done in the user's stead (an edit of a locked structure taken back). ``actions`` has
    next_place, previous_place, finish_edit, accept_rest and reject_rest. ``begun``: there is
    a step to undo, or a structure is not as it was when this review began."""

    items: tuple[ReviewItem, ...]
    places: tuple[ReviewPlace, ...]
    place: ReviewPlace | None = None
    editing: str | None = None
    notice: str = ""
    actions: Mapping[str, Action] = field(default_factory=dict, compare=False)
    begun: bool = False

    @property
    def open_items(self) -> tuple[ReviewItem, ...]:
        """The structures that still need a verdict."""
        return tuple(item for item in self.items if not item.verdict.resolved)

    def __getitem__(self, segment_id: str) -> ReviewItem:
        return next(item for item in self.items if item.id == segment_id)


Snapshot = Any
"""The voxels of all segments at one moment; only the store that made it can read it."""


def differ(now: Mapping[str, SegmentRecord], before: Mapping[str, SegmentRecord]) -> bool:
    """Whether a segment is new, or has another verdict, comment or origin than before."""

    def said(record: SegmentRecord) -> tuple:
        return record.verdict, record.comment, record.edited

    return any(i not in before or said(before[i]) != said(now[i]) for i in now)


def item_actions(record: SegmentRecord, editing: bool, undoable: bool) -> dict[str, Action]:
    """The buttons of a row: whether they work, and why not. ``editing``: the structure is being
    edited; ``undoable``: there is a step to undo."""
    accepted = record.verdict is Verdict.ACCEPTED
    rejected = record.verdict is Verdict.REJECTED
    return {
        "accept": enabled_if(not accepted, f"{record.name} is accepted already."),
        "edit": enabled_if(
            not accepted and not editing,
            f"{record.name} is being edited."
            if editing
            else f"{record.name} is accepted and locked; reopen it first.",
        ),
        "finish_edit": enabled_if(editing, f"{record.name} is not being edited."),
        "reject": enabled_if(not rejected, f"{record.name} is rejected already."),
        "reopen": enabled_if(accepted or rejected, f"{record.name} has no verdict yet."),
        "comment": ENABLED,
        "undo": enabled_if(undoable, "There is nothing to undo."),
    }


def rest_action(items: Sequence[ReviewItem]) -> Action:
    """Whether a verdict can be given on all that have none, and on how many that would be."""
    rest = [item for item in items if not item.verdict.resolved]
    if not rest:
        return Action(False, "Every structure has a verdict.")
    places = sum(item.doubtful_places for item in rest)
    doubt = f" with {counted(places, 'doubtful place')} in them" if places else ""
    return Action(True, f"{counted(len(rest), 'structure')} without a verdict{doubt}.")


def said_of_several(event: str, count: int) -> str:
    """What was done to ``count`` structures by the step ``event`` of a review."""
    done = {"accept": "were accepted", "reject": "were rejected", "reopen": "are open again"}[event]
    return f"{count} structures {done}; Undo on one of them takes it back from all."


def said_of_locked(names: Sequence[str]) -> str:
    """That changes to these accepted structures were taken back."""
    if len(names) == 1:
        return (
            f"{names[0]} is accepted and locked, so the change to it was taken back; reopen it to "
            "edit it."
        )
    return (
        f"{joined(names)} are accepted and locked, so the changes to them were taken back; reopen "
        "them to edit them."
    )


class SegmentStore(Protocol):
    """Where the segments are: a Slicer segmentation node, or a list in a test."""

    def records(self) -> list[SegmentRecord]:
        """All segments, in the store's order."""

    def write(self, record: SegmentRecord) -> None:
        """Set a segment's verdict, comment, visibility and whether it was edited."""

    def volumes_ml(self, ids: Sequence[str] | None = None) -> dict[str, float]:
        """Milliliters of these segments (default: all)."""

    def snapshot(self) -> Snapshot:
        """The voxels as they are now; cheap when nothing has changed since the last one."""

    def changed_voxels(self, snapshot: Snapshot) -> dict[str, int]:
        """For each segment that differs from the snapshot, the number of voxels that do."""

    def restore(self, snapshot: Snapshot, ids: Sequence[str]) -> None:
        """Give these segments the voxels that they had, and take those from the others."""

    def watch(self, callback: Callable[[], None] | None) -> None:
        """Call ``callback`` whenever a segment may have changed in any way; None ends that."""

    def log(self, entry: Mapping[str, Any]) -> None:
        """Append one line to the audit log that is kept with the segments."""

    def logged(self) -> list[dict[str, Any]]:
        """The lines of that log, oldest first."""
