"""Going through a result structure by structure: verdicts, edits, undo, places to look at.

No Qt and no MRML: the segments are behind `SegmentStore`. The order of the rows is fixed when the
review begins, the most suspicious first, so that no row jumps away under the reviewer's hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from MIMSegment.Logic.actions import Action, enabled_if
from MIMSegment.Logic.doubt import DoubtfulPlace
from MIMSegment.Logic.finding import Finding
from MIMSegment.Logic.review_history import History, ReviewStep
from MIMSegment.Logic.review_items import (
    ReviewItem,
    ReviewPlace,
    ReviewState,
    SegmentRecord,
    SegmentStore,
    Snapshot,
    Verdict,
    differ,
    item_actions,
    rest_action,
    said_of_locked,
    said_of_several,
)
from MIMSegment.Logic.review_order import (
    MOST_PLACES,
    Tour,
    most_suspicious_first,
    ranked_places,
)

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
        self._first = dict(self._records)
        self._volumes = store.volumes_ml()
        records = list(self._records.values())
        self._tour = Tour(ranked_places(records, doubtful, findings))
        self._order = most_suspicious_first(records, self._volumes, doubtful, findings)
        self._history = History()
        self._editing: str | None = None
        self._baseline: Snapshot = store.snapshot()
        self._stirred = False
        self._notice = ""
        store.watch(self._on_change)

    def close(self) -> None:
        """End a running edit and stop watching the segments."""
        self._settle()
        self._store.watch(None)

    def resume(self) -> None:
        """Go on after `close`, with all that can be undone."""
        self._store.watch(self._on_change)

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
            "accept_rest": rest_action(items),
            "reject_rest": rest_action(items),
        }
        begun = any(map(self._history.has, self._order)) or differ(self._records, self._first)
        at = self._tour.at
        return ReviewState(items, places, at, self._editing, self._notice, actions, begun)

    def accept(self, *segment_ids: str) -> None:
        """The structures are right: locked from now on.

        A verdict on several is one step, which `undo` on any of them takes back from all; those
        that have this verdict already stay out of it.
        """
        self._decide("accept", segment_ids, verdict=Verdict.ACCEPTED, visible=True)

    def reject(self, *segment_ids: str) -> None:
        """The structures are wrong: hidden, never deleted. Several are one step."""
        self._decide("reject", segment_ids, verdict=Verdict.REJECTED, visible=False)

    def accept_rest(self) -> None:
        """Accept all that have no verdict yet, in one step."""
        self.accept(*self._undecided())

    def reject_rest(self) -> None:
        """Reject all that have no verdict yet, in one step."""
        self.reject(*self._undecided())

    def reopen(self, *segment_ids: str) -> None:
        """Take a verdict back: the structures are shown and can be edited again."""
        self._decide("reopen", segment_ids, verdict=Verdict.OPEN, visible=True)

    def comment(self, segment_id: str, text: str) -> None:
        """Set the comment, which stays with the segment and is not copied to the audit log."""
        text = " ".join(text.split())
        if text == self._records[segment_id].comment:
            return
        if segment_id == self._editing:  # it ends no edit, and undo of the edit keeps it
            self._write(segment_id, comment=text)
            self._history.keep_comment(segment_id, text)
            self._log("comment", segment_id, self._volumes[segment_id], 0)
            self._tell()
        else:
            self._decide("comment", [segment_id], comment=text)

    def edit(self, segment_id: str) -> None:
        """Begin to correct a structure; the front-end opens its editor on ``state.editing``.

        An edit of another structure is finished first.
        """
        if self._editing == segment_id or not self._actions(self._records[segment_id])["edit"]:
            return
        self._settle()
        self._push([segment_id], self._baseline)
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
        edited or decided on since. A verdict on several is taken back from all that have had no
        step of their own since.
        """
        if self._editing not in (None, segment_id):
            self._settle()
        self._notice = ""
        self._look()
        if not self._history.has(segment_id):
            return
        running = self._editing == segment_id
        self._editing = None if running else self._editing
        before, together = self._volumes[segment_id], self._history.together(segment_id)
        step = self._history.pop(segment_id)
        if step.snapshot is None:
            self._take_verdicts_back(step, together)
        else:
            changed = self._restore(segment_id, step, running)
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
        return self._tour.open(self._records)

    def poll(self) -> None:
        """Take note of what was changed from outside; costs nothing otherwise. For a timer."""
        if self._look():
            self._tell()

    def _decide(self, event: str, segment_ids: Sequence[str], **changes) -> None:
        ids = [i for i in segment_ids if self._actions(self._records[i])[event]]
        if not ids:
            return
        if event != "comment" or self._editing is None:
            self._settle()
        ids = [i for i in ids if i in self._records]
        self._push(ids)
        for segment_id in ids:
            self._write(segment_id, **changes)
            if event == "reopen" and self._records[segment_id].edited:
                self._write(segment_id, verdict=Verdict.EDITING)
            self._log(event, segment_id, self._volumes[segment_id], 0)
        if len(ids) > 1:
            self._notice = said_of_several(event, len(ids))
        self._tell()

    def _undecided(self) -> list[str]:
        return [i for i in self._order if not self._records[i].verdict.resolved]

    def _take_verdicts_back(self, step: ReviewStep, segment_ids: Sequence[str]) -> None:
        """Verdict, visibility and comment as before; voxels and whose they are have not changed."""
        for segment_id in filter(segment_ids.__contains__, self._order):
            edited = self._records[segment_id].edited
            self._write_record(replace(step.records[segment_id], edited=edited))
            self._log("undo", segment_id, self._volumes[segment_id], 0)

    def _settle(self) -> None:
        """Bring everything up to date and end the running edit, if any."""
        self._notice = ""
        self._look()
        segment_id, self._editing = self._editing, None
        if segment_id is None:
            return
        step = self._history.last(segment_id)
        changed = self._store.changed_voxels(step.snapshot)
        for other in sorted(changed.keys() & step.records, key=lambda i: i != segment_id):
            self._history.note_edit(other, step)
            event = "edit" if other == segment_id else "changed by the edit of another structure"
            self._log(event, other, step.volumes[other], changed[other])
        for other in step.records.keys() & self._records.keys() - changed.keys():
            if self._records[other].edited != step.records[other].edited:
                self._write(other, edited=step.records[other].edited)
        if segment_id not in changed:
            self._history.pop(segment_id)
            self._write_record(step.records[segment_id])
        self._log_additions(step, changed)
        self._baseline = self._store.snapshot()

    def _look(self) -> bool:
        """Act on what was changed from outside since the last look; whether anything was."""
        if not self._stirred:
            return False
        self._stirred = False
        step = ReviewStep(dict(self._records), dict(self._volumes), self._baseline)
        self._adopt()
        different = self._store.changed_voxels(self._baseline)
        changed = {i: n for i, n in different.items() if i in step.records}
        self._take_back([i for i in changed if self._records[i].verdict is Verdict.ACCEPTED])
        free = {i: n for i, n in changed.items() if self._records[i].verdict != Verdict.ACCEPTED}
        self._volumes |= self._store.volumes_ml()  # also of what is as it was before the edit
        if self._editing is None:
            self._note_edits_elsewhere(step, free)
            self._log_additions(step, different)
            self._baseline = self._store.snapshot()
        for segment_id in free:
            if not (self._records[segment_id].edited or self._records[segment_id].by_hand):
                self._write(segment_id, edited=True)
        self._log_verdicts_elsewhere(step, free)
        return bool(changed) or self._records != step.records or self._volumes != step.volumes

    def _adopt(self) -> None:
        """Take over what Slicer's own tables have changed: verdicts, names, segments."""
        found = {record.id: record for record in self._store.records()}
        added = [i for i in found if i not in self._records]
        self._records = found
        self._order = [i for i in self._order if i in found] + added
        self._volumes.update(self._store.volumes_ml(added))
        if self._editing not in found:
            self._editing = None

    def _take_back(self, locked: list[str]) -> None:
        if not locked:
            return
        self._store.restore(self._baseline, locked)
        self._notice = said_of_locked([self._records[i].name for i in locked])

    def _note_edits_elsewhere(self, step: ReviewStep, changed: Mapping[str, int]) -> None:
        """Edits in Slicer's own editor, outside a step of the review, count like any other."""
        if not changed:
            return
        self._history.push(changed, step)
        for segment_id, voxels in changed.items():
            self._history.note_edit(segment_id, step)
            if self._records[segment_id].verdict is Verdict.OPEN:
                self._write(segment_id, verdict=Verdict.EDITING)
            self._log("edit", segment_id, step.volumes[segment_id], voxels)

    def _log_additions(self, step: ReviewStep, voxels: Mapping[str, int]) -> None:
        """Segments that were not there before the step; those drawn during an edit once it ends."""
        for segment_id in self._order:
            if segment_id not in step.records:
                self._log("added", segment_id, 0.0, voxels.get(segment_id, 0))

    def _log_verdicts_elsewhere(self, step: ReviewStep, edited: Mapping[str, int]) -> None:
        for segment_id, record in self._records.items():
            before = step.records.get(segment_id)
            if before and before.verdict is not record.verdict and segment_id not in edited:
                self._log("status", segment_id, self._volumes[segment_id], 0)

    def _restore(self, segment_id: str, step: ReviewStep, running: bool) -> int:
        """Give the voxels of an edit back; how many of the segment itself that were."""
        changed = self._store.changed_voxels(step.snapshot)
        candidates = changed if running else self._history.not_edited_since(step)
        others = [
            i
            for i in candidates
            if i in self._records.keys() & step.records
            and i != segment_id
            and not self._records[i].verdict.resolved
        ]
        self._store.restore(step.snapshot, [segment_id, *others])
        for restored in (segment_id, *others):
            self._history.note_edit(restored)
            self._write(restored, edited=step.records[restored].edited)
        self._volumes |= self._store.volumes_ml()
        if running:
            self._log_additions(step, self._store.changed_voxels(step.snapshot))
        self._baseline = self._store.snapshot()
        return changed.get(segment_id, 0)

    def _push(self, segment_ids: Sequence[str], snapshot: Snapshot | None = None) -> None:
        step = ReviewStep(dict(self._records), dict(self._volumes), snapshot)
        self._history.push(segment_ids, step)

    def _write(self, segment_id: str, **changes) -> None:
        self._write_record(replace(self._records[segment_id], **changes))

    def _write_record(self, record: SegmentRecord) -> None:
        self._store.write(record)
        self._records[record.id] = record

    def _go(self, direction: int) -> ReviewPlace | None:
        place = self._tour.go(direction, self.open_places())
        self._tell()
        return place

    def _item(self, segment_id: str, places: Sequence[ReviewPlace]) -> ReviewItem:
        record = self._records[segment_id]
        findings = [f for f in self._findings if f.label == record.label]
        findings.sort(key=lambda finding: -finding.severity.rank)
        findings = [f.of_edited() if record.edited else f for f in findings]
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
            by_hand=record.by_hand,
        )

    def _actions(self, record: SegmentRecord) -> dict[str, Action]:
        return item_actions(record, record.id == self._editing, self._history.has(record.id))

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

    def _on_change(self) -> None:
        self._stirred = True

    def _tell(self) -> None:
        for listener in list(self.listeners):
            listener()
