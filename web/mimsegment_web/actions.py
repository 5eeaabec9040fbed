"""What the page can ask for, by name; each public method is one button, key or control."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.panel import device_choices
from MIMSegment.Logic.phrases import counted
from MIMSegment.Logic.review_items import Verdict
from MIMSegment.Logic.samples import sample_study
from MIMSegment.Logic.workflow_state import Export
from mimsegment_web import study_files
from mimsegment_web.editing import BrushTool, SegmentEditor
from mimsegment_web.pointer import CrosshairTool, Pointer, WindowTool
from mimsegment_web.views import THREE_D
from mimsegment_web.workflow_view import NO_UPLOAD

if TYPE_CHECKING:
    from mimsegment_web.app import App

_SPECK_ML = 0.1  # smaller pieces are dropped by "Drop specks"
_SMOOTH_MM = 3.0
_BRUSH = (1, 60)  # smallest and largest diameter in mm


class Actions:
    """Leads the page's wishes to workflow, review, editor and views."""

    def __init__(self, app: App):
        self._app, self._state = app, app.server.state
        self._workflow, self._view, self._study = app.workflow, app.view, app.study
        self._crosshair = CrosshairTool(app.view.views)
        self._pointer = Pointer(app.view.views, self._crosshair)
        self._editor: SegmentEditor | None = None
        self._anyway = False  # what was asked about: whether to segment with the alerts
        self._entries = study_files.studies_in(app.settings.data)
        self._state.folder_entries = [
            {"number": n, "name": path.name} for n, path in enumerate(self._entries)
        ]
        self._state.change("brush", "sphere")(lambda **_: self._set_brush())

    @property
    def painting(self) -> bool:
        """Whether a stroke is being drawn at this moment."""
        return self._editor is not None and self._editor.in_stroke

    def register(self, server) -> None:
        """Make every public method callable from the page under its name."""
        for name in dir(type(self)):
            method = getattr(type(self), name)
            if not name.startswith("_") and callable(method) and name != "register":
                server.controller.trigger(name)(self._shown(getattr(self, name)))

    # Study and task

    def open_sample(self, sample_id: str) -> None:
        sample = sample_study(sample_id)
        sample.check()
        self._study.check_saved()
        self.choose(sample.package)
        self.open_paths([sample.folder])

    def open_entry(self, number: int) -> None:
        self.open_paths([self._entries[int(number)]])

    def open_paths(self, paths: Sequence[Path], title: str = "") -> None:
        if self._workflow.state.actions["open_study"]:
            self.finish_edit()
            self._study.check_saved()
            self._view.clear()
            self._state.written, self._state.selected, self._state.again = [], "", False
            self._state.marked = []
            self._state.upload, self._state.psa = NO_UPLOAD, ""
            self._study.open(paths, title)

    def choose(self, key: str) -> None:
        self._state.choosing = False
        self._workflow.choose(key)

    def acknowledge(self) -> None:
        self._workflow.acknowledge()

    def install(self) -> None:
        self._workflow.install()

    def assign(self, name: str, source: str) -> None:
        self._workflow.assign(name, source)

    def set_device(self, device: str) -> None:
        self._workflow.change(device=device)

    def run(self) -> None:
        self._run(anyway=False)

    def run_anyway(self) -> None:
        self._run(anyway=True)

    def run_or_ask(self) -> None:
        """Segment, but ask first when that ends a review in which something was decided."""
        self._ask_or_run(anyway=False)

    def run_anyway_or_ask(self) -> None:
        """As `run_or_ask`, with the alerts, which the user has read."""
        self._ask_or_run(anyway=True)

    def run_again(self) -> None:
        """Segment as was asked about."""
        self._run(self._anyway)

    def cancel(self) -> None:
        self._workflow.cancel()

    def dismiss(self) -> None:
        self._workflow.dismiss()

    # Review

    def resume(self) -> None:
        self._study.resume()

    def select(self, segment_id: str) -> None:
        self._look_at(segment_id)
        center = self._view.middle(segment_id)
        if center is not None:
            self._view.views.go_to(center, center=True)

    def begin_review(self) -> None:
        """Put the brush of the last review away, and begin with what needs a look most."""
        self._end_edit()
        self._state.marked = []
        items = self._workflow.review.state.items
        if items:
            self.select(items[0].id)

    def accept(self, *segment_ids: str) -> None:
        self._decide(self._workflow.review.accept, segment_ids)

    def reject(self, *segment_ids: str) -> None:
        self._decide(self._workflow.review.reject, segment_ids)

    def accept_rest(self) -> None:
        self._decide(self._workflow.review.accept_rest)

    def reject_rest(self) -> None:
        self._decide(self._workflow.review.reject_rest)

    def reopen(self, segment_id: str) -> None:
        self._end_edit()
        self._workflow.review.reopen(segment_id)

    def comment(self, segment_id: str, text: str) -> None:
        self._workflow.review.comment(segment_id, text)

    def undo(self, segment_id: str) -> None:
        self._end_edit()
        self._workflow.review.undo(segment_id)
        self._view.update_surfaces()

    def next_place(self) -> None:
        self._show_place(self._workflow.review and self._workflow.review.next_place())

    def previous_place(self) -> None:
        self._show_place(self._workflow.review and self._workflow.review.previous_place())

    def export(self, kind: str) -> None:
        self.finish_edit()
        path = self._study.export(Export(kind), self._state.psa or "")
        if path is None:
            return
        href = "" if path.is_dir() else self._app.downloads.offer(path)
        written = {"kind": kind, "name": path.name, "path": str(path), "href": href}
        others = [file for file in self._state.written if file["path"] != written["path"]]
        self._state.written = [written, *others]
        self._workflow.dismiss()  # the list of what was written says it

    # Editing

    def edit(self, segment_id: str) -> None:
        review = self._workflow.review
        if not review.state[segment_id].actions["edit"]:
            return
        self._end_edit()
        self._state.selected = segment_id
        review.edit(segment_id)
        if review.state.editing != segment_id:
            return
        locked = [i.id for i in review.state.items if i.verdict is Verdict.ACCEPTED]
        self._editor = SegmentEditor(
            self._view.segmentation, segment_id, locked, self._view.views.render
        )
        self._note_step("")
        self.use_tool("paint")
        self._show_slices()

    def finish_edit(self) -> None:
        if self._editor is not None:
            self._end_edit()
            self._workflow.review.finish_edit()
            self._view.update_surfaces()

    def use_tool(self, tool: str) -> None:
        if tool in ("paint", "erase"):
            if self._editor is None:
                return
            self._pointer.tool = BrushTool(self._editor, tool == "erase", self._after_stroke)
            self._set_brush()
        elif tool == "window":
            self._pointer.tool = WindowTool(self._view.window)
        else:
            tool, self._pointer.tool = "crosshair", self._crosshair
        self._state.tool = tool

    def undo_stroke(self) -> None:
        if self._editor is not None and self._editor.undo():
            self._note_step("")

    def redo_stroke(self) -> None:
        if self._editor is not None and self._editor.redo():
            self._note_step("")

    def keep_largest(self) -> None:
        if self._editor is not None:
            gone = self._editor.keep_largest_island()
            removed = f"{counted(gone, 'smaller piece')} removed."
            self._note_step(removed if gone else "It is one piece.")

    def remove_small(self) -> None:
        if self._editor is not None:
            gone = self._editor.remove_small_islands(_SPECK_ML)
            text = f"{counted(gone, 'piece')} below {_SPECK_ML} mL removed."
            self._note_step(text if gone else f"No piece is below {_SPECK_ML} mL.")

    def smooth(self) -> None:
        if self._editor is not None:
            changed = self._editor.smooth(_SMOOTH_MM)
            self._note_step("Smoothed." if changed else "It is smooth already.")

    def change_brush(self, step: int) -> None:
        low, high = _BRUSH
        self._state.brush = min(high, max(low, round(float(self._state.brush)) + int(step)))

    # Views

    def go_to(self, position: Sequence[float]) -> None:
        self._show_slices()
        self._view.views.go_to(position, center=True)

    def set_slice(self, view: str, index: int) -> None:
        self._view.views.set_slice(view, int(index))

    def reset_views(self) -> None:
        self._view.views.reset()

    def next_image(self) -> None:
        self._view.next_image()

    def use_preset(self, name: str) -> None:
        self._view.use_preset(name)

    def toggle_overlay(self) -> None:
        self._view.set_overlay(not self._state.overlay)

    def toggle_3d(self) -> None:
        if self._workflow.review is not None:
            self._view.set_3d(not self._state.show_3d)

    def maximize(self, view: str) -> None:
        self._state.maximized = "" if self._state.maximized else view

    async def test_devices(self) -> None:
        """Try all devices in child processes and offer those that work."""
        from MIMSegment.Logic.devices import probe

        self._state.testing_devices = True
        self._state.flush()
        reports = await asyncio.to_thread(probe)
        works = [r for r in reports if r.works]
        names = dict(device_choices())
        self._state.devices = [
            self._state.devices[0],
            *(
                {"value": r.device, "title": f"{names[r.device]}: {r.seconds:.2f} s in the test"}
                for r in works
            ),
        ]
        self._state.testing_devices = False

    def _ask_or_run(self, anyway: bool) -> None:
        self._state.again, self._anyway = self._study.has_decisions, anyway
        if not self._state.again:
            self._run(anyway)

    def _run(self, anyway: bool) -> None:
        self._state.again = False
        action = self._workflow.state.actions["run_anyway" if anyway else "run"]
        if not action:  # the page has not heard yet that it cannot be pressed
            raise InputError(action.reason)
        self.finish_edit()
        self._study.save_now()  # a new result ends the review of the last one
        self._workflow.run(anyway)

    def _decide(self, decide, segment_ids: Sequence[str] = ()) -> None:
        """Give a verdict and go on to the next structure without one."""
        self._end_edit()
        decide(*segment_ids)
        self._state.marked = []
        self._view.update_surfaces()
        items = self._workflow.review.state.items
        at = max((n for n, item in enumerate(items) if item.id in segment_ids), default=-1)
        following = [*items[at + 1 :], *items[:at]]
        left = next((item.id for item in following if not item.verdict.resolved), "")
        if left:
            self.select(left)

    def _show_place(self, place) -> None:
        if place is None:
            return
        if place.segment_id:
            self._look_at(place.segment_id)
        self.go_to(place.position)

    def _look_at(self, segment_id: str) -> None:
        """Choose it in the list; the brush stays with what is looked at, or it would paint one
        structure while the list shows another."""
        if segment_id != self._workflow.review.state.editing:
            self.finish_edit()
        self._state.selected = segment_id

    def _show_slices(self) -> None:
        """All views again where the 3D view alone is shown, which has no slice to look at."""
        if self._state.maximized == THREE_D:
            self._state.maximized = ""

    def _after_stroke(self) -> None:
        self._note_step("")

    def _note_step(self, text: str) -> None:
        self._view.surfaces_are_stale()
        self._state.edit_note = text
        self._state.can_undo_stroke = self._editor is not None and self._editor.can_undo
        self._state.can_redo_stroke = self._editor is not None and self._editor.can_redo
        self._state.flush()

    def _set_brush(self) -> None:
        tool = self._pointer.tool
        if isinstance(tool, BrushTool):
            tool.diameter, tool.sphere = float(self._state.brush), bool(self._state.sphere)

    def _end_edit(self) -> None:
        """Put the brush away; the review ends its own edit with the next step."""
        if self._editor is not None:
            self._editor = None
            self.use_tool("crosshair")
            self._state.can_undo_stroke = self._state.can_redo_stroke = False
            self._state.edit_note = ""

    def _shown(self, method):
        """What goes wrong is a sentence on the page; afterwards the page is up to date."""

        @functools.wraps(method)
        async def call(*arguments) -> None:
            self._state.problem = None
            try:
                result = method(*arguments)
                if asyncio.iscoroutine(result):
                    await result
                self._app.refresh()
            except Exception as error:
                self._app.show_problem(error)

        return call
