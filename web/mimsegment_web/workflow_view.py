"""The workflow on the page: what is pushed to it, and only when it has changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from MIMSegment.Logic.errors import MIMSegmentError
from MIMSegment.Logic.matching import Answer, InputSpec, match_inputs
from MIMSegment.Logic.panel import device_choices
from MIMSegment.Logic.phrases import counted
from MIMSegment.Logic.samples import sample_studies
from MIMSegment.Logic.workflow import Workflow
from MIMSegment.Logic.workflow_state import Export, PackageCard, WorkflowState
from mimsegment_web.autosave import summary
from mimsegment_web.present import present_card, present_review, present_state
from mimsegment_web.study import Study

EXPORTS = {
    Export.REPORT: ("Report", "One page with key pictures and verdicts (HTML; print it as PDF)"),
    Export.DICOM_SEG: ("DICOM SEG", "For the archive; names, codes, algorithm"),
    Export.TABLE: ("Volumes", "CSV: a row for each structure"),
    Export.SEGMENTATION: ("Segmentation", "For Slicer: .seg.nrrd with names, colors and verdicts"),
    Export.LABELS: ("Label image", "NIfTI: a number for each structure, as the model has it"),
    Export.SCENE: ("Scene", "For Slicer: images, structures and audit log (.mrb)"),
    Export.TRAINING: ("Training case", "Added to a folder that the training programs read"),
}
# Until they are tried: the automatic choice, and the processor, which every computer has.
_AT_FIRST = device_choices()[:2]
DEVICES = [{"value": name, "title": title.partition(":")[0]} for name, title in _AT_FIRST]

NO_UPLOAD = {"active": False, "percent": 0, "error": "", "passing": False}
_MOST_NAMES = 12  # of a study's images that are listed before a model is chosen


class WorkflowView:
    """Writes the workflow's state into the page's state.

    ``plain`` gives the user's own names for files in a message.
    """

    def __init__(self, state, workflow: Workflow, study: Study, plain: Callable[[str], str] = str):
        self._state, self._workflow, self._study = state, workflow, study
        self._plain = plain
        self._changed = True
        self._sources: Sequence = ()
        workflow.listeners.append(self._note)
        state.update(
            {
                "cards": [],
                "card_search": "",
                "card_modality": "",
                "modalities": list(workflow.offers.facets()["modality"]),
                "choosing": False,
                "samples": [
                    {"id": s.id, "title": s.title, "description": s.description}
                    for s in sample_studies()
                ],
                "folder_entries": [],
                "devices": DEVICES,
                "testing_devices": False,
                "exports": [
                    {"kind": str(kind), "title": title, "about": about}
                    for kind, (title, about) in EXPORTS.items()
                ],
                "written": [],
                "psa": "",
                "output_folder": "",
                "saved": "",
                "save_problem": "",
                "images_found": "",
                "found": [],
                "now": 1,
                "again": False,
                "selected": "",
                "marked": [],
                "brush": 8,
                "sphere": False,
                "can_undo_stroke": False,
                "can_redo_stroke": False,
                "edit_note": "",
                "problem": None,
                "help": False,
                "upload": NO_UPLOAD,
                "resumable": False,
                "saved_review": "",
            }
        )
        state.change("card_search", "card_modality")(lambda **_: self.search())
        self.search()
        self.update()

    def search(self) -> None:
        """List the packages that fit the words; those for which the study has all images first."""
        text, modality = self._state.card_search, self._state.card_modality or None
        cards = self._workflow.offers.search(text, modality)
        sources = self._workflow.images
        shown = [{**present_card(card), "fits": _fits(card, sources)} for card in cards]
        self._state.cards = sorted(shown, key=lambda card: not card["fits"])

    def update(self) -> None:
        """Push what has changed since the last time."""
        self._set("saved", self._study.saved)
        self._set("save_problem", self._study.problem)
        if not self._changed:
            return
        self._changed = False
        state = self._workflow.state
        self._set("wf", present_state(self._with_plain_error(state)))
        self._set("review", present_review(state.review))
        self._set("output_folder", str(self._study.folder or ""))
        self._show_saved_review()
        self._set("now", _current_step(state))
        if self._sources is not self._workflow.images:
            self._sources = self._workflow.images
            self._set("images_found", counted(len(self._sources), "image"))
            self._set("found", [source.name for source in self._sources[:_MOST_NAMES]])
            self.search()

    def _show_saved_review(self) -> None:
        """Offer to go on with what lies on the disk; read once for each study."""
        resumable = self._study.resumable
        if resumable and not self._state.resumable:
            saved = summary(self._study.folder)
            text = saved and f"{saved.name}, {saved.decided} of {saved.total} decided"
            self._state.saved_review = text or ""
        self._set("resumable", resumable)

    def _with_plain_error(self, state: WorkflowState) -> WorkflowState:
        if state.error is None:
            return state
        error = replace(state.error, message=self._plain(state.error.message))
        return replace(state, error=error)

    def _note(self) -> None:
        self._changed = True

    def _set(self, key: str, value) -> None:
        if not self._state.has(key) or self._state[key] != value:
            self._state[key] = value


def _current_step(state: WorkflowState) -> int:
    """The number of the step that the user has to do next, as numbered on the page."""
    if not state.study:
        return 1
    if state.package is None or state.package.path is None:
        return 2
    if state.review is None:
        ready = state.progress is not None or bool(state.actions["run"])
        return 4 if ready or state.busy else 3
    return 5 if state.review.open_items else 6


def _fits(card: PackageCard, sources: Sequence) -> bool:
    """Whether the opened study has an image for each input of the package."""
    if not sources:
        return False
    inputs = [InputSpec(item.name, item.modality) for item in card.entry.inputs]
    try:
        return not match_inputs(inputs, sources, answer=Answer.LIST).problems
    except MIMSegmentError:
        return False
