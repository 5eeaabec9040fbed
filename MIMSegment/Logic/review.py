"""Going through a result structure by structure: verdicts, edits, undo, places to look at.

No Qt and no MRML: the segments are behind `SegmentStore`. The order of the rows is fixed when the
review begins, the most suspicious first, so that no row jumps away under the reviewer's hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from MIMSegment.Logic.actions import ENABLED, Action, enabled_if
from MIMSegment.Logic.doubt import DoubtfulPlace
from MIMSegment.Logic.finding import Finding
from MIMSegment.Logic.review_items import (
    ReviewItem,
    ReviewPlace,
    ReviewState,
    SegmentRecord,
    SegmentStore,
    Snapshot,
    Verdict,
)
from MIMSegment.Logic.review_order import MOST_PLACES, most_suspicious_first, ranked_places

__all__ = [
    "MOST_PLACES",
    "Review",
    "ReviewItem",
    "ReviewPlace",
    "ReviewState",
    "SegmentRecord",
    "SegmentStore",
    "Verdict",
]

Record = Callable[..., object]
"""Called as ``record(event, structure=..., ...)`` for each line of the audit log."""


@dataclass
class _Step:
    """What undo goes back to: all records and volumes, for an edit the voxels as well.

    ``touched`` are the segments whose voxels the edit changed, each with its count of edits then:
    one that was edited again since keeps its voxels.
    """

    records: dict[str, SegmentRecord]
    volumes: dict[str, float]
    snapshot: Snapshot | None = None
    touched: dict[str, int] = field(default_factory=dict)


class Review:
    """The verdicts on the segments of one result.

    ``confidence`` (by label value), ``doubtful`` and ``findings`` decide the order and the places.
    ``record`` writes the audit log. Listeners are called without arguments after each change.
    Call `poll` from a timer: it notices what was painted and takes back what was painted over a
    locked structure. A step whose `Action` is disabled does nothing.
    """

    def __init__(
        self,
        store: SegmentStore,
        confidence: Mapping[int, float] | None = None,
        doubtful: Sequence[DoubtfulPlace] = (),
        findings: Sequence[Finding] = (),
        record: Record = lambda event, **values: None,
    ):
        self.listeners: list[Callable[[], None]] = []
        self._store, self._record = store, record
        self._confidence = dict(confidence or {})
        self._findings = tuple(findings)
        self._records = {item.id: item for item in store.records()}
        self._volumes = store.volumes_ml()
        records = list(self._records.values())
        self._places = ranked_places(records, doubtful, findings)
        self._order = most_suspicious_first(records, self._volumes, doubtful, findings)
        self._steps: dict[str, list[_Step]] = {segment_id: [] for segment_id in self._order}
        self._edits = dict.fromkeys(self._order, 0)
        self._place: ReviewPlace | None = None
        self._editing: str | None = None
        self._baseline: Snapshot | None = None
        self._painted = False
        self._notice = ""
        store.watch(self._on_painted)

    def close(self) -> None:
        """End a running edit and stop watching the segments."""
        self._settle()
        self._store.watch(None)

    @property
    def state(self) -> ReviewState:
        """All that a front-end shows."""
        places = self.open_places()
        items = tuple(self._item(segment_id, places) for segment_id in self._order)
        step = enabled_if(places, "No doubtful place is left.")
        actions = {
            "next_place": step,
            "previous_place": step,
            "finish_edit": enabled_if(self._editing, "No structure is being edited."),
        }
        return ReviewState(items, places, self._place, self._editing, self._notice, actions)

    def accept(self, segment_id: str) -> None:
        """The structure is right: locked from now on."""
        self._decide("accept", segment_id, verdict=Verdict.ACCEPTED, visible=True)

    def reject(self, segment_id: str) -> None:
        """The structure is wrong: hidden, never deleted."""
        self._decide("reject", segment_id, verdict=Verdict.REJECTED, visible=False)

    def reopen(self, segment_id: str) -> None:
        """Take a verdict back: the structure is shown and can be edited again."""
        edited = self._records[segment_id].edited
        verdict = Verdict.EDITING if edited else Verdict.OPEN
        self._decide("reopen", segment_id, verdict=verdict, visible=True)

    def comment(self, segment_id: str, text: str) -> None:
        """Set the comment, which stays with the segment and is not copied to the audit log."""
        text = " ".join(text.split())
        if text != self._records[segment_id].comment:
            self._decide("comment", segment_id, comment=text)

    def edit(self, segment_id: str) -> None:
        """Begin to correct a structure; the front-end opens its editor on ``state.editing``.

        An edit of another structure is finished first.
        """
        if self._editing == segment_id or not self._actions(self._records[segment_id])["edit"]:
            return
        self._settle()
        self._push(segment_id, self._snapshot())
        self._editing = segment_id
        self._write(segment_id, verdict=Verdict.EDITING, visible=True)
        self._tell()

    def finish_edit(self) -> None:
        """End the edit; when no voxel was changed, the structure is as it was before."""
        self._settle()
        self._tell()

    def undo(self, segment_id: str) -> None:
        """Take the last step on this structure back: verdict, comment, visibility, tags, voxels.

        An edit gives back as well what it took from other structures, unless those have been
        edited or decided on since.
        """
        if self._editing not in (None, segment_id):
            self._settle()
        self._notice = ""
        self._look()
        if not self._steps[segment_id]:
            return
        self._editing = None if self._editing == segment_id else self._editing
        step, before = self._steps[segment_id].pop(), self._volumes[segment_id]
        changed = self._restore(segment_id, step) if step.snapshot is not None else 0
        self._write_record(step.records[segment_id])
        self._log("undo", segment_id, before, changed)
        self._tell()

    def next_place(self) -> ReviewPlace | None:
        """Go to the worst unresolved place, then to the next worse, and round; None if there is
        none. Places in accepted and rejected structures are resolved."""
        return self._go(1)

    def previous_place(self) -> ReviewPlace | None:
        """The same the other way round."""
        return self._go(-1)

    def open_places(self) -> tuple[ReviewPlace, ...]:
        """The unresolved places, worst first."""
        resolved = {i for i, record in self._records.items() if record.verdict.resolved}
        if len(resolved) == len(self._records):
            return ()
        return tuple(place for place in self._places if place.segment_id not in resolved)

    def poll(self) -> None:
        """Take note of painted voxels; costs nothing when there are none. For a timer."""
        self._snapshot()
        if self._look():
            self._tell()

    def _decide(self, event: str, segment_id: str, **changes) -> None:
        if not self._actions(self._records[segment_id])[event]:
            return
        self._settle()
        self._snapshot()  # a structure that is locked now is compared with it later
        self._push(segment_id)
        self._write(segment_id, **changes)
        self._log(event, segment_id, self._volumes[segment_id], 0)
        self._tell()

    def _settle(self) -> None:
        """Bring everything up to date and end the running edit, if any."""
        self._notice = ""
        self._look()
        segment_id, self._editing = self._editing, None
        if segment_id is None:
            return
        step = self._steps[segment_id][-1]
        changed = self._store.changed_voxels(step.snapshot)
        for touched, voxels in changed.items():
            self._edits[touched] += 1
            step.touched[touched] = self._edits[touched]
            event = "edit" if touched == segment_id else "changed by the edit of another structure"
            self._log(event, touched, step.volumes[touched], voxels)
        if segment_id not in changed:
            self._steps[segment_id].pop()
            self._write_record(step.records[segment_id])
        self._baseline = self._store.snapshot()

    def _look(self) -> bool:
        """Act on what was painted since the last look; whether anything was."""
        if not self._painted or self._baseline is None:
            return False
        self._painted = False
        changed = self._store.changed_voxels(self._baseline)
        self._take_back([i for i in changed if self._records[i].verdict is Verdict.ACCEPTED])
        free = [i for i in changed if self._records[i].verdict is not Verdict.ACCEPTED]
        before = dict(self._volumes)
        self._volumes.update(self._store.volumes_ml(free))
        if self._editing is None and free:
            self._note_edits_elsewhere({i: changed[i] for i in free}, before)
        for segment_id in free:
            if not self._records[segment_id].edited:
                self._write(segment_id, edited=True)
        return bool(changed)

    def _take_back(self, locked: list[str]) -> None:
        if not locked:
            return
        self._store.restore(self._baseline, locked)
        self._painted = False  # by the restoring itself
        names = ", ".join(self._records[i].name for i in locked)
        self._notice = (
            f"{names} is accepted and locked, so the change to it was taken back; reopen it to "
            "edit it."
        )

    def _note_edits_elsewhere(self, changed: dict[str, int], before: dict[str, float]) -> None:
        """Edits in Slicer's own editor, outside a step of the review, count like any other."""
        step = _Step(dict(self._records), before, self._baseline)
        for segment_id, voxels in changed.items():
            self._edits[segment_id] += 1
            step.touched[segment_id] = self._edits[segment_id]
            self._steps[segment_id].append(step)
            if self._records[segment_id].verdict is Verdict.OPEN:
                self._write(segment_id, verdict=Verdict.EDITING)
            self._log("edit", segment_id, before[segment_id], voxels)
        self._baseline = self._store.snapshot()

    def _restore(self, segment_id: str, step: _Step) -> int:
        """Give the voxels of a step back; how many of the segment itself that were."""
        changed = self._store.changed_voxels(step.snapshot)
        mine = [segment_id]
        for touched in {**step.touched, **changed}:
            untouched_since = self._edits[touched] == step.touched.get(
                touched, self._edits[touched]
            )
            resolved = self._records[touched].verdict.resolved
            if touched != segment_id and untouched_since and not resolved:
                mine.append(touched)
        self._store.restore(step.snapshot, mine)
        self._painted = False
        for touched in mine:
            self._edits[touched] += 1
            self._write(touched, edited=step.records[touched].edited)
        self._volumes.update(self._store.volumes_ml(mine))
        self._baseline = self._store.snapshot()
        return changed.get(segment_id, 0)

    def _snapshot(self) -> Snapshot:
        if self._baseline is None:
            self._baseline = self._store.snapshot()
            self._painted = False
        return self._baseline

    def _push(self, segment_id: str, snapshot: Snapshot | None = None) -> None:
        step = _Step(dict(self._records), dict(self._volumes), snapshot)
        self._steps[segment_id].append(step)

    def _write(self, segment_id: str, **changes) -> None:
        self._write_record(replace(self._records[segment_id], **changes))

    def _write_record(self, record: SegmentRecord) -> None:
        self._store.write(record)
        self._records[record.id] = record

    def _go(self, direction: int) -> ReviewPlace | None:
        places = self.open_places()
        if not places:
            self._place = None
        elif self._place is None:
            self._place = places[0 if direction > 0 else -1]
        else:
            here = self._place.rank * direction
            further = [p for p in places[::direction] if p.rank * direction > here]
            self._place = (further or places[::direction])[0]
        self._tell()
        return self._place

    def _item(self, segment_id: str, places: Sequence[ReviewPlace]) -> ReviewItem:
        record = self._records[segment_id]
        findings = [f for f in self._findings if f.label == record.label]
        findings.sort(key=lambda finding: -finding.severity.rank)
        return ReviewItem(
            id=record.id,
            label=record.label,
            name=record.name,
            color=record.color,
            volume_ml=self._volumes[segment_id],
            confidence=self._confidence.get(record.label),
            verdict=record.verdict,
            comment=record.comment,
            findings=tuple(findings),
            edited=record.edited,
            visible=record.visible,
            editing=segment_id == self._editing,
            doubtful_places=sum(place.segment_id == segment_id for place in places),
            actions=self._actions(record),
        )

    def _actions(self, record: SegmentRecord) -> dict[str, Action]:
        accepted = record.verdict is Verdict.ACCEPTED
        rejected = record.verdict is Verdict.REJECTED
        editing = record.id == self._editing
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
            "undo": enabled_if(self._steps[record.id], "There is nothing to undo."),
        }

    def _log(self, event: str, segment_id: str, before: float, voxels: int) -> None:
        record = self._records[segment_id]
        self._record(
            event,
            structure=record.name,
            label=record.label,
            verdict=str(record.verdict),
            volume_before_ml=round(before, 4),
            volume_after_ml=round(self._volumes[segment_id], 4),
            voxels_changed=voxels,
        )

    def _on_painted(self) -> None:
        self._painted = True

    def _tell(self) -> None:
        for listener in list(self.listeners):
            listener()
