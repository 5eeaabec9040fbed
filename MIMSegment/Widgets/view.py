"""Draws a `panel.Panel` in the widgets of MIMSegment.ui; knows no workflow and no scene."""

from MIMSegment.Widgets.items import (
    choose_rows,
    chosen_data,
    chosen_rows,
    fill_box,
    fill_checks,
    fill_table,
    new_input_rows,
    quietly,
    select_data,
    show_button,
)


class PanelView:
    """What is shown at the moment is ``shown``; what has not changed is left alone.

    ``on_input(name, source_id)`` is called when the user takes an image for an input, ``empty`` is
    the text of a box without an image, ``no_prior`` of one without a result to compare with.
    """

    def __init__(self, ui, on_input, empty, no_prior):
        self.ui = ui
        self.shown = None
        self.input_boxes = {}
        self._on_input, self._empty, self._no_prior = on_input, empty, no_prior

    def show(self, view):
        """Show ``view``."""
        before, self.shown = self.shown, view
        for name, button in view.buttons.items():
            show_button(getattr(self.ui, name), button)
        for name, text in view.labels.items():
            getattr(self.ui, name).setText(text)
            getattr(self.ui, name).setVisible(bool(text))
        for name, text in view.titles.items():
            getattr(self.ui, name).setProperty("text", text)
        self.ui.progressBar.setMaximum(0 if view.progress is None else 1000)
        self.ui.progressBar.setValue(int(1000 * (view.progress or 0)))
        self.ui.editorFrame.setVisible(view.editing is not None)
        for part, draw in self._parts().items():
            if before is None or getattr(before, part) != getattr(view, part):
                draw(getattr(view, part))
        self._show_selection(view, before)

    def forget(self):
        """Nothing is shown any more: the next `show` draws everything."""
        self.shown = None

    def wanted_structures(self, rows):
        """The label values of these rows of the list of structures, () if they are all."""
        values = [value for value, _name, _wanted in self.shown.structures]
        return () if len(rows) == len(values) else tuple(values[row] for row in rows)

    def chosen_structures(self):
        """The segments chosen in the review table, the one that is looked at first."""
        return tuple(self.shown.rows[row].id for row in chosen_rows(self.ui.reviewTable))

    def _parts(self):
        """How each part of the panel is drawn that is drawn only when it has changed."""
        ui = self.ui
        return {
            "collapsed": self._show_sections,
            "inputs": self._show_inputs,
            "structures": lambda lines: fill_checks(ui.structureList, lines),
            "results": self._show_results,
            "result": lambda node_id: ui.psaBox.setValue(0),  # it was another patient's, perhaps
            "device": lambda device: select_data(ui.deviceBox, device),
            "target": lambda node_id: quietly(
                lambda: ui.targetBox.setCurrentNodeID(node_id), ui.targetBox
            ),
            "rows": lambda rows: fill_table(ui.reviewTable, rows),
        }

    def _show_sections(self, collapsed):
        for name, value in collapsed.items():
            getattr(self.ui, name).setProperty("collapsed", value)

    def _show_results(self, results):
        fill_box(self.ui.resultBox, results, "")
        fill_box(self.ui.priorBox, [("", self._no_prior), *results], chosen_data(self.ui.priorBox))

    def _show_inputs(self, inputs):
        names = [item.name for item in inputs]
        if list(self.input_boxes) != names:
            self.input_boxes = new_input_rows(self.ui.inputFrame, names, self._input_changed)
        for item in inputs:
            box, reason = self.input_boxes[item.name]
            box.setToolTip(item.tooltip)
            fill_box(box, [("", self._empty), *item.choices], item.source)
            reason.setText(item.reason)

    def _input_changed(self, name):
        self._on_input(name, chosen_data(self.input_boxes[name][0]))

    def _show_selection(self, view, before):
        ids, table = [row.id for row in view.rows], self.ui.reviewTable
        quietly(lambda: choose_rows(table, [ids.index(i) for i in view.chosen]), table)
        comment = (view.chosen[:1], view.comment)
        if before is None or comment != (before.chosen[:1], before.comment):
            self.ui.commentEdit.setText(view.comment)
