import logging
import os
import shutil
import sys
import tempfile
import unittest
from dataclasses import replace

import qt
import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

# Makes MIMSegment.Logic importable as a part of this module, so that no top-level name "Logic"
# is offered to every other extension; `from MIMSegment.Logic import x` survives a reload.
__path__ = [os.path.dirname(__file__)]


class MIMSegment(ScriptedLoadableModule):
    """The module as Slicer lists it."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("MIM Segment")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["The MIM Segment contributors"]
        self.parent.helpText = _(
            "Segments organs, brain tumors and prostate lesions on CT and MRI, and leads through "
            "the result structure by structure: accept, edit or reject, jump to the doubtful "
            "places, and export. <b>Research use only. Not a medical device.</b>"
            ' See the <a href="https://github.com/MIMSegment/SlicerMIMSegment">documentation</a>.'
        )
        self.parent.acknowledgementText = _(
            "The networks are pre-trained by masked image modelling, after MIM-Med3D, SelfMedMAE, "
            "masked modelling for prostate lesions and Revisiting MAE pre-training for 3D medical "
            "image segmentation."
        )
        slicer.app.connect("startupCompleted()", on_startup)


def on_startup():
    """Offer the sample studies; imported late, as every module delays the start of Slicer."""
    from MIMSegment.Widgets.application import register_samples

    register_samples()


class MIMSegmentWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Shows the state of a `Workflow` and sends it what the user does; decides nothing.

    Between the closing of a scene and the next one there is no workflow, and nothing is done.
    """

    def __init__(self, parent=None):
        self.workflow = None
        self.problem = None  # what went wrong outside the workflow, until the next step
        self.chosen = ()  # segments in the review table, the one that is looked at first
        self.entered = self.runtime_missing = False
        self.filters = {"text": "", "modality": "", "region": ""}
        VTKObservationMixin.__init__(self)
        ScriptedLoadableModuleWidget.__init__(self, parent)

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        from MIMSegment.Logic import panel, panel_cards, panel_review
        from MIMSegment.Logic.samples import sample_studies
        from MIMSegment.Widgets import application, connections, dialogs, editor, items, view

        self.panel, self.panel_cards, self.panel_review = panel, panel_cards, panel_review
        self.items = items
        self.application, self.dialogs = application, dialogs
        self.samples = {study.package: study for study in sample_studies()}
        widget = slicer.util.loadUI(os.path.join(application.RESOURCES, "UI", "MIMSegment.ui"))
        self.layout.addWidget(widget)
        self.ui = ui = slicer.util.childWidgetVariables(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        ui.targetBox.setMRMLScene(slicer.mrmlScene)
        ui.noticeLabel.setText(_("Research use only. Not a medical device."))
        items.set_up_table(ui.reviewTable, panel_review.review_header(_))
        items.fill_box(ui.deviceBox, panel.device_choices(_), "auto")
        self.view = view.PanelView(ui, self.on_input, _("Choose an image"), _("Nothing"))
        self.editor = editor.EmbeddedEditor(ui.editorFrame)
        connections.connect(self)
        self.timer = qt.QTimer()
        self.timer.setInterval(100)
        self.timer.timeout.connect(self.on_timer)
        self.observe(slicer.mrmlScene)
        self.begin()

    def observe(self, scene):
        for event, action in (
            (scene.StartCloseEvent, self.end),
            (scene.EndCloseEvent, self.begin),
            (scene.EndImportEvent, self.on_scene_imported),
        ):
            self.addObserver(scene, event, action)

    def begin(self, caller=None, event=None):
        """Start on the scene as it is now; what was running has been ended."""
        self.end()
        self.workflow = self.application.new_workflow()
        self.do(self.workflow.restore)
        self.workflow.listeners.append(self.render)
        self.runtime_missing = self.application.runtime_is_missing()
        facets = self.workflow.offers.facets()
        for name, everything in (("modality", _("Any modality")), ("region", _("Any region"))):
            choices = [("", everything), *((value, value) for value in facets[name])]
            self.items.fill_box(getattr(self.ui, f"{name}Filter"), choices, self.filters[name])
        self.on_search()
        self.do(self.workflow.use_scene)

    def end(self, caller=None, event=None):
        """Stop everything that runs and forget the nodes of the scene."""
        self.timer.stop()
        self.editor.close()
        self.ui.show3DButton.setSegmentationNode(None)
        if self.workflow is not None:
            self.workflow.listeners.clear()
            self.workflow.close()
        self.view.forget()
        self.workflow = self.problem = None
        self.chosen = ()

    def enter(self):
        self.entered = True
        self.editor.enter()

    def exit(self):
        self.entered = False
        self.editor.exit()

    def cleanup(self):
        self.end()
        self.removeObservers()

    def onReload(self):
        """Slicer reloads this file only; what it imports must be read again too."""
        self.end()
        for name in [name for name in sys.modules if name.startswith("MIMSegment.")]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def do(self, action, *arguments):
        """Do what the user asked for; nothing that goes wrong passes without a sentence."""
        if self.workflow is None:
            return
        had, self.problem = self.problem, None
        self.timer.start()
        self.attempt(action, *arguments)
        if had and not self.problem:
            self.render()

    def attempt(self, action, *arguments):
        from MIMSegment.Logic.workflow_failure import explain

        try:
            action(*arguments)
        except Exception as error:
            logging.exception("MIM Segment")
            self.problem = explain(error)
            self.render()

    def on_timer(self):
        if slicer.mrmlScene.IsBatchProcessing():  # it is being loaded or closed
            return
        self.attempt(self.workflow.poll)
        if self.entered:
            self.attempt(self.workflow.follow_scene)
        if self.problem:  # said once, not ten times a second
            self.timer.stop()

    def on_scene_imported(self, caller=None, event=None):
        """Settings may have come with the scene; what is going on is not disturbed."""
        if self.workflow is not None and self.workflow.state.is_free:
            self.begin()
        else:
            self.render()

    def on_search(self, **changes):
        self.filters.update(changes)
        if self.workflow is None:
            return
        text, modality, region = self.filters.values()
        self.cards = self.workflow.offers.search(text, modality or None, region or None)
        package = self.workflow.state.package
        nothing = _("Nothing matches; change the words or the filters.")
        lines = self.panel_cards.card_lines(self.cards, _)
        self.items.fill_list(self.ui.cardList, lines, package.key if package else "", nothing)
        self.render()

    def on_card(self):
        row = self.items.current_row(self.ui.cardList)
        if 0 <= row < len(self.cards):
            self.workflow.choose(self.cards[row].key)

    def on_import(self):
        path = self.dialogs.ask_package()
        if path:
            self.workflow.offers.store.import_file(path)
            self.on_search()

    def on_install(self):
        self.dialogs.download(self.workflow)
        self.on_search()

    def on_remove(self):
        self.workflow.remove()
        self.on_search()

    def on_sample(self):
        self.application.load_sample(self.samples[self.workflow.state.package.entry.id])
        self.workflow.use_scene()

    def on_open(self):
        path = self.dialogs.ask_study()
        if path:
            self.workflow.open_study([path])

    def on_input(self, name, source_id):
        self.do(lambda: self.workflow.assign(name, source_id))

    def on_device(self):
        self.workflow.change(device=self.items.chosen_data(self.ui.deviceBox))

    def on_target(self, node_id):
        self.workflow.change(target=node_id or "")

    def on_structures(self):
        rows = self.items.checked_rows(self.ui.structureList)
        self.workflow.change(structures=self.view.wanted_structures(rows))

    def on_run(self):
        self.application.ensure_runtime()  # asks, the first time
        self.runtime_missing = self.application.runtime_is_missing()
        self.workflow.run(anyway=self.panel.only_alerts(self.workflow.state))

    def on_select(self):
        before, self.chosen = self.chosen, self.view.chosen_structures() or self.chosen
        if self.chosen[:1] != before[:1]:
            from MIMSegment.Logic.scene_navigation import show_segment

            show_segment(self.workflow.result.store.node, self.chosen[0])
        self.render()

    def on_verdict(self, verdict):
        several = verdict in self.panel.SEVERAL
        getattr(self.workflow.review, verdict)(*self.chosen[: None if several else 1])

    def on_comment(self):
        if self.chosen:
            self.workflow.review.comment(self.chosen[0], self.ui.commentEdit.property("text"))

    def on_place(self, place):
        if place is not None:
            from MIMSegment.Logic.scene_navigation import show_position

            self.chosen = (place.segment_id,) if place.segment_id else self.chosen
            show_position(slicer.mrmlScene, place.position)
            self.render()

    def on_export(self, kind):
        path = self.dialogs.ask_export(kind)
        if path:
            prior, psa = self.items.chosen_data(self.ui.priorBox), self.ui.psaBox.property("value")
            self.workflow.export(kind, path, prior=prior, psa=psa or None)

    def on_review_again(self):
        self.workflow.open_result(self.items.chosen_data(self.ui.resultBox))

    def on_copy_report(self):
        slicer.app.clipboard().setText(self.shown_state().error.report)

    def on_copy_table(self):
        slicer.app.clipboard().setText(self.panel_review.rows_text(self.view.shown.rows, _))

    def shown_state(self):
        """The workflow's state with what went wrong outside it."""
        state = self.workflow.state
        return replace(state, error=self.problem) if self.problem else state

    def render(self):
        """Show the workflow's state."""
        if self.workflow is None:
            return
        state, workflow = self.shown_state(), self.workflow
        sample = self.samples.get(state.package.entry.id) if state.package else None
        title = sample.title if sample else ""
        view = self.panel.panel_of(
            state, workflow.settings, workflow.results, self.chosen, title, _,
            self.runtime_missing,
        )  # fmt: skip
        self.view.show(view)
        node = workflow.result.store.node if workflow.result else None
        self.ui.show3DButton.setSegmentationNode(node)
        self.editor.edit(node, view.editing)


class MIMSegmentTest(ScriptedLoadableModuleTest):
    """Runs in a real Slicer, always: what cannot be done fails."""

    def setUp(self):
        from MIMSegment.Logic.samples import sample_study
        from MIMSegment.Logic.store import PackageStore
        from MIMSegment.Widgets import application, self_test

        slicer.mrmlScene.Clear()
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.application, self.steps = application, self_test
        self.store = PackageStore(os.path.join(self.folder, "packages"))
        self.study = sample_study("phantom-prostate")

    def runTest(self, **options):
        for name in unittest.TestLoader().getTestCaseNames(type(self)):
            self.delayDisplay(name)
            self.setUp()
            try:
                getattr(self, name)()
            finally:
                self.doCleanups()

    def test_the_sample_studies_are_in_sample_data(self):
        import SampleData

        self.application.register_samples()
        nodes = SampleData.SampleDataLogic().downloadSamples(self.study.title)
        found = [node.GetName() for node in nodes]
        self.assertEqual(found, [path.stem for path in self.study.files.values()])

    def test_a_sample_is_segmented_reviewed_exported_and_loaded_again(self):
        workflow = self.application.new_workflow(self.store)
        self.addCleanup(workflow.close)
        self.steps.segment_sample(self, workflow, self.study)
        items = workflow.state.review.items
        volumes = {item.name: item.volume_ml for item in items}
        self.assertAlmostEqual(volumes["transition zone"], 39.5, delta=4)
        workflow.review.accept(items[0].id)
        workflow.review.reject(items[1].id)
        self.check_exports(workflow)
        workflow.close()
        self.check_verdicts(slicer.util.loadSegmentation(self.path("segmentation")), items)
        slicer.mrmlScene.Clear()
        slicer.util.loadScene(self.path("scene"))
        again = self.application.new_workflow(self.store)
        self.addCleanup(again.close)
        ((node_id, _name),) = again.results
        again.open_result(node_id)
        self.assertIsNone(again.state.error)
        self.check_verdicts(slicer.mrmlScene.GetNodeByID(node_id), items)

    def test_the_panel_leads_from_the_sample_to_a_verdict(self):
        panel = MIMSegmentWidget()
        self.addCleanup(self.steps.end_panel, panel)
        panel.enter()
        panel.ui.searchBox.setText("prostate")
        panel.ui.cardList.setCurrentRow(0)
        panel.ui.sampleButton.click()
        self.application.install_runtime()
        panel.ui.runButton.click()
        self.steps.wait_until(self, lambda: panel.shown_state().error or panel.view.shown.rows)
        self.assertIsNone(panel.shown_state().error)
        table = panel.ui.reviewTable
        self.assertEqual(table.property("rowCount"), 4)  # two zones, two lesions
        table.selectRow(0)
        panel.ui.acceptButton.click()
        table.selectRow(1)
        panel.ui.editButton.click()
        self.assertIsNotNone(panel.editor.widget)
        panel.ui.finishEditButton.click()
        panel.ui.nextPlaceButton.click()
        self.assertIsNone(panel.shown_state().error)
        self.assertIn("✔", table.item(0, 3).data(qt.Qt.DisplayRole))
        panel.exit()
        slicer.mrmlScene.Clear()
        self.assertEqual(table.property("rowCount"), 0)

    def path(self, kind):
        endings = {"segmentation": ".seg.nrrd", "labels": ".nii.gz", "table": ".csv"}
        endings.update({"report": ".html", "scene": ".mrb"})
        return os.path.join(self.folder, kind + endings[kind])

    def check_exports(self, workflow):
        from MIMSegment.Logic.workflow import Export

        for kind in ("segmentation", "labels", "table", "report", "scene"):
            workflow.export(Export(kind), self.path(kind))
            self.assertIsNone(workflow.state.error)
            self.assertTrue(os.path.getsize(self.path(kind)))

    def check_verdicts(self, segmentation, items):
        found = self.steps.verdicts(segmentation, [item.id for item in items[:2]])
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        self.assertEqual(found, [logic.Completed, logic.Flagged])
