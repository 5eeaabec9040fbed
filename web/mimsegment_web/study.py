"""One study at a time on the server: its folder, its audit log, autosave, and what is exported."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

from MIMSegment.Logic.errors import MIMSegmentError, OutputError
from MIMSegment.Logic.review_items import Verdict
from MIMSegment.Logic.scene_gateway import MrmlGateway
from MIMSegment.Logic.workflow import Workflow
from MIMSegment.Logic.workflow_state import Export
from mimsegment_web import autosave, study_files

_LOG = "review.audit.jsonl"
_REST = 1.5  # seconds without a change before the review is saved
_RETRY = 10.0  # seconds after which a save that failed is tried again
_DATA_NODES = ("vtkMRMLSegmentationNode", "vtkMRMLScalarVolumeNode", "vtkMRMLTableNode")


class Study:
    """Keeps the opened study's review on the disk.

    ``began`` is called when a review has begun.
    """

    def __init__(
        self, workflow: Workflow, gateway: MrmlGateway, root: Path, saver: autosave.Autosave
    ):
        self.folder: Path | None = None
        self.saved = ""
        self._begin_problem = self._save_problem = ""
        self.began: Callable[[], None] = lambda: None
        self._workflow, self._gateway, self._root, self._saver = workflow, gateway, root, saver
        self._review = self._restored = None
        self._changed_at: float | None = None
        self._failed_at: float | None = None  # the last save failed, and none has since succeeded
        self._written: Future | None = None
        self._checked: tuple = ()
        self._stirred = True  # the workflow has moved since the last look
        workflow.listeners.append(self._note_move)
        self._resuming = False  # a saved review is wanted, as soon as its images are read

    @property
    def problem(self) -> str:
        """What of the review is not on the disk, and why, in sentences; empty when all of it is."""
        return " ".join(filter(None, (self._begin_problem, self._save_problem)))

    @property
    def resumable(self) -> bool:
        """Whether the disk holds a review of this study and none is going on."""
        if self.folder is None or self._workflow.review is not None:
            return False
        return autosave.has_review(self.folder)

    @property
    def has_decisions(self) -> bool:
        """Whether the review holds work: a verdict, a correction or a comment."""
        items = self._workflow.review.state.items if self._workflow.review else ()
        return any(i.verdict is not Verdict.OPEN or i.edited or i.comment for i in items)

    @property
    def saving(self) -> bool:
        """Whether a change is not on the disk yet."""
        return self._changed_at is not None or self._saver.busy

    def open(self, paths: Sequence[Path], title: str = "") -> None:
        """Leave the study that was open, saved, and look for the images of this one."""
        self.save_now()
        self._workflow.close_study()
        self._review, self._checked = None, ()
        self._changed_at = self._failed_at = None
        self._resuming = False
        self.saved = self._begin_problem = self._save_problem = ""
        for kind in _DATA_NODES:
            for node in list(self._gateway.scene.GetNodesByClass(kind)):
                self._gateway.scene.RemoveNode(node)
        self.folder = study_files.study_folder(self._root, paths, title)
        self._workflow.open_study(paths, title)

    def follow(self) -> None:
        """Notice new reviews, changed verdicts and complete inputs; for a timer."""
        if self._stirred:
            self._stirred = False
            self._check_inputs()
            self._resume_if_read()
        review = self._workflow.review
        if review is not self._review:
            self._save_left()
            self._review = review
            if review is not None:
                self._begin(review)
        if self._written is not None and self._written.done():
            self._finish_save()
        if self._saver.busy:
            return
        waits = ((self._changed_at, _REST), (self._failed_at, _RETRY))
        now = time.monotonic()
        if any(since is not None and now - since >= wait for since, wait in waits):
            self._save()

    def save_now(self) -> None:
        """Write the review, if it is not on the disk as it is now, and wait for it."""
        if self._written is not None:
            self._finish_save()
        unsaved = self._changed_at is not None or self._failed_at is not None
        if self._review is not None and unsaved:
            self._save()
        if self._written is not None:
            self._finish_save()

    def check_saved(self) -> None:
        """Raise OutputError when decisions of the review would be lost by leaving it now."""
        self.save_now()
        if self._save_problem and self.has_decisions:
            raise OutputError(
                f"{self._save_problem} It stays open, so that nothing is lost; mend that first, or "
                "end the program."
            )

    def resume(self) -> None:
        """Go on with the saved review, with its own model, as soon as the images are read."""
        saved = autosave.summary(self.folder)
        card = self._workflow.state.package
        if saved is not None and (card is None or card.key != saved.package):
            self._workflow.choose(saved.package)
        self._resuming = self._stirred = True

    def _resume_if_read(self) -> None:
        if not self._resuming:
            return
        state = self._workflow.state
        if state.package is None or not state.actions["check"]:
            return
        inputs = [(n, self._gateway.volume_node(i)) for n, i in self._workflow.input_images]
        if any(node is None for _, node in inputs):
            return
        self._resuming = False
        node = autosave.restore(self._gateway.scene, self.folder, inputs)
        self._workflow.open_result(node.GetID())
        self._restored = self._workflow.review

    def export(self, kind: Export, psa: str = "") -> Path | None:
        """Write the result; its path, or None when that failed (`WorkflowState.error`).

        ``psa`` in ng/mL is for the report, as the user wrote it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if kind is Export.TRAINING:  # of all studies, as one data set
            path = study_files.training_folder(self._root, self._workflow.result.provenance)
        else:
            path = study_files.export_path(self.folder, self._result_name(), kind)
        self._workflow.export(kind, path, psa=psa.strip() or None)
        return path if path.exists() else None

    def _begin(self, review) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._drop_older_results()
        self._drop_unused_images()
        try:
            if review is not self._restored:
                autosave.set_aside(self.folder)
            self._workflow.log.move_to(self.folder / _LOG)
        except MIMSegmentError as error:
            self._begin_problem = str(error)
        review.listeners.append(self._note_change)
        self._note_change()
        self.began()

    def _save_left(self) -> None:
        """Write what was decided on the last result while the new one was on its way."""
        if self._written is not None:
            self._finish_save()
        left = self._gateway.results()[:-1]
        if self._review is not None and self._changed_at is not None and left:
            self._save(self._gateway.scene.GetNodeByID(left[-1][0]))
            self._finish_save()

    def _drop_older_results(self) -> None:
        """Only the newest is shown and exported; reviewed ones are kept on the disk."""
        for id, _ in self._gateway.results()[:-1]:
            self._gateway.scene.RemoveNode(self._gateway.scene.GetNodeByID(id))

    def _note_move(self) -> None:
        self._stirred = True

    def _note_change(self) -> None:
        self._changed_at = time.monotonic()

    def _save(self, node=None) -> None:
        node = node or self._node()
        if node is not None:
            self._written = self._saver.save(node, self.folder)
        self._changed_at = None

    def _finish_save(self) -> None:
        written, self._written = self._written, None
        try:
            written.result()
            self.saved = f"Saved at {time.strftime('%H:%M:%S')}"
            self._save_problem, self._failed_at = "", None
        except (MIMSegmentError, OSError) as error:
            self._save_problem = f"The review is not saved: {error}"
            self._failed_at = time.monotonic()

    def _check_inputs(self) -> None:
        """Read the images as soon as each input has one, so that they are seen at once."""
        state = self._workflow.state
        if state.package is None or not state.inputs or not state.actions["check"]:
            return
        wanted = (state.package.key, state.study, *(row.source for row in state.inputs))
        if wanted != self._checked:
            self._checked = wanted
            self._drop_unused_images()
            self._workflow.check()

    def _drop_unused_images(self) -> None:
        """Images that are no input any more, or they would be shown in place of those that are."""
        result = self._workflow.result
        inputs = [(n, self._gateway.volume_node(s)) for n, s in self._workflow.input_images]
        used = [node for _, node in inputs]
        if result is not None:
            used += [self._gateway.volume_node(s) for _, s in result.inputs if s is not None]
        for node in list(self._gateway.scene.GetNodesByClass("vtkMRMLScalarVolumeNode")):
            if node not in used:
                self._gateway.scene.RemoveNode(node)
        for name, node in inputs:
            if node is not None and self._gateway.scene.GetFirstNodeByName(name) is None:
                node.SetName(name)  # it came beside another one of this name, that is gone now

    def _node(self):
        results = self._gateway.results()
        return self._gateway.scene.GetNodeByID(results[-1][0]) if results else None

    def _result_name(self) -> str:
        node = self._node()
        return node.GetName() if node is not None else "result"
