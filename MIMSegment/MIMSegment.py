import logging
import os
import shutil
import sys

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
            "places, export with provenance. <b>Research use only. Not a medical device.</b>"
            ' See the <a href="https://github.com/MIMSegment/SlicerMIMSegment">documentation</a>.'
        )
        self.parent.acknowledgementText = _(
            "The networks are pre-trained by masked image modelling, after MIM-Med3D, SelfMedMAE, "
            "masked modelling for prostate lesions and Revisiting MAE pre-training for 3D medical "
            "image segmentation."
        )
        slicer.app.connect("startupCompleted()", register_sample_data)


def register_sample_data():
    """Offer the phantoms that come with the module in Slicer's Sample Data."""
    import SampleData

    from MIMSegment.Logic.samples import sample_studies

    for study in sample_studies():
        names = list(study.files)
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category="MIM Segment",
            sampleName=study.title,
            thumbnailFileName=os.path.join(
                os.path.dirname(__file__), "Resources", "Icons", "MIMSegment.png"
            ),
            uris=[study.files[name].as_uri() for name in names],
            fileNames=[study.files[name].name for name in names],
            nodeNames=[study.files[name].stem for name in names],
            checksums=[f"SHA256:{study.checksums[name]}" for name in names],
            loadFiles=[True] * len(names),
            loadFileType=["VolumeFile"] * len(names),
        )


def new_workflow():
    """The workflow on Slicer's scene, DICOM database, interpreter and user."""
    from MIMSegment.Logic.jobs import JobQueue
    from MIMSegment.Logic.offers import Offers
    from MIMSegment.Logic.scene_gateway import MrmlGateway
    from MIMSegment.Logic.store import PackageStore
    from MIMSegment.Logic.workflow import Workflow

    def find_file(uid):
        return slicer.app.dicomDatabase().fileForInstance(uid)

    queue = JobQueue(python=shutil.which("PythonSlicer") or sys.executable)
    reviewer = slicer.app.applicationLogic().GetUserInformation().GetName()
    gateway = MrmlGateway(slicer.mrmlScene, find_file)
    return Workflow(gateway, queue, Offers(PackageStore()), reviewer or "")


class MIMSegmentWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Shows the state of a `Workflow` and sends it what the user does; decides nothing."""

    def __init__(self, parent=None):
        self.workflow = None
        self.selected = ""  # the segment chosen in the review table
        self.filters = {"text": "", "modality": "", "region": ""}
        VTKObservationMixin.__init__(self)
        ScriptedLoadableModuleWidget.__init__(self, parent)

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        from MIMSegment.Logic import panel
        from MIMSegment.Logic.samples import sample_studies
        from MIMSegment.Widgets import editor, items, view

        self.panel, self.items = panel, items
        self.samples = {study.package: study for study in sample_studies()}
        widget = slicer.util.loadUI(self.resourcePath("UI/MIMSegment.ui"))
        self.layout.addWidget(widget)
        self.ui = ui = slicer.util.childWidgetVariables(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        ui.targetBox.setMRMLScene(slicer.mrmlScene)
        ui.noticeLabel.setText(_("Research use only. Not a medical device."))
        items.set_up_table(ui.reviewTable, panel.review_header(_))
        items.fill_box(ui.deviceBox, panel.device_choices(_), "auto")
        self.view = view.PanelView(ui, self.on_input, _("Choose an image"))
        self.editor = editor.EmbeddedEditor(ui.editorFrame)
        self.connect_buttons()
        self.connect_choices()
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

    def connect_buttons(self):
        ui, result = self.ui, self.ui.resultBox
        clicks = {
            "acknowledgeButton": lambda: self.workflow.acknowledge(),
            "installButton": lambda: self.workflow.install(),
            "importButton": self.on_import,
            "sampleButton": self.on_sample,
            "openButton": self.on_open,
            "runButton": self.on_run,
            "cancelButton": lambda: self.workflow.cancel(),
            "copyReportButton": lambda: self.copy(self.workflow.state.error.report),
            "reviewAgainButton": lambda: self.workflow.open_result(self.items.chosen_data(result)),
            "undoResultButton": lambda: self.workflow.undo_result(),
            "previousPlaceButton": lambda: self.on_place(self.workflow.review.previous_place()),
            "nextPlaceButton": lambda: self.on_place(self.workflow.review.next_place()),
            "finishEditButton": lambda: self.workflow.review.finish_edit(),
            "copyTableButton": lambda: self.copy(self.panel.rows_text(self.view.shown.rows, _)),
        }
        for verdict in ("accept", "edit", "reject", "reopen", "undo"):
            clicks[f"{verdict}Button"] = lambda verdict=verdict: self.on_verdict(verdict)
        for name, kind in self.panel.EXPORTS.items():
            clicks[name] = lambda kind=kind: self.on_export(kind)
        for name, action in clicks.items():
            getattr(ui, name).clicked.connect(lambda *ignored, action=action: self.do(action))
        for key, name in self.panel.SHORTCUTS.items():  # of the list while it has the focus, only
            shortcut = qt.QShortcut(qt.QKeySequence(key), ui.reviewTable)
            shortcut.setContext(qt.Qt.WidgetShortcut)
            shortcut.activated.connect(lambda name=name: getattr(ui, name).click())

    def connect_choices(self):
        ui, chosen = self.ui, self.items.chosen_data
        ui.searchBox.textChanged.connect(lambda text: self.on_search(text=text))
        ui.modalityFilter.currentTextChanged.connect(
            lambda text: self.on_search(modality=chosen(ui.modalityFilter))
        )
        ui.regionFilter.currentTextChanged.connect(
            lambda text: self.on_search(region=chosen(ui.regionFilter))
        )
        ui.cardList.itemSelectionChanged.connect(lambda: self.do(self.on_card))
        ui.deviceBox.currentTextChanged.connect(
            lambda text: self.do(self.workflow.change, device=chosen(ui.deviceBox))
        )
        ui.targetBox.currentNodeIDChanged.connect(
            lambda node: self.do(self.workflow.change, target=node or "")
        )
        ui.structureList.itemChanged.connect(lambda item: self.do(self.on_structures))
        ui.reviewTable.itemSelectionChanged.connect(lambda: self.do(self.on_select))
        ui.commentEdit.editingFinished.connect(lambda: self.do(self.on_comment))

    def begin(self, caller=None, event=None):
        """Start on the scene as it is now; what was running has been ended."""
        self.end()
        self.workflow = new_workflow()
        self.workflow.listeners.append(self.render)
        facets = self.workflow.offers.facets()
        for name, everything in (("modality", _("Any modality")), ("region", _("Any region"))):
            choices = [("", everything), *((value, value) for value in facets[name])]
            self.items.fill_box(getattr(self.ui, f"{name}Filter"), choices, self.filters[name])
        self.on_search()
        self.do(self.workflow.use_scene)
        self.timer.start()

    def end(self, caller=None, event=None):
        """Stop everything that runs and forget the nodes of the scene."""
        self.timer.stop()
        self.editor.close()
        self.ui.show3DButton.setSegmentationNode(None)
        if self.workflow is not None:
            self.workflow.listeners.clear()
            self.workflow.close()
        self.workflow, self.view.shown, self.selected = None, None, ""

    def enter(self):
        self.editor.enter()

    def exit(self):
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

    def do(self, action, *arguments, **options):
        """Do it; nothing that goes wrong may pass without a sentence in the panel."""
        try:
            action(*arguments, **options)
        except Exception as error:
            logging.exception("MIM Segment")
            self.ui.errorLabel.setText(_("This did not work: {error}").format(error=error))
            self.ui.errorLabel.setVisible(True)

    def on_timer(self):
        self.do(self.workflow.poll)
        self.do(self.workflow.follow_scene)

    def on_scene_imported(self, caller=None, event=None):
        """Settings may have come with the scene; what is going on is not disturbed."""
        if self.workflow is not None and self.workflow.state.is_free:
            self.begin()

    def on_search(self, **changes):
        self.filters.update(changes)
        text, modality, region = self.filters.values()
        self.cards = self.workflow.offers.search(text, modality or None, region or None)
        package = self.workflow.state.package
        lines = self.panel.card_lines(self.cards, _)
        self.items.fill_list(self.ui.cardList, lines, package.key if package else "")
        self.render()

    def on_card(self):
        row = self.items.current_row(self.ui.cardList)
        if row >= 0:
            self.workflow.choose(self.cards[row].key)

    def on_import(self):
        caption = _("Model package (zip file)")
        path = self.items.ask_file(qt.QFileDialog.getOpenFileName, caption, "*.zip")
        if path:
            self.workflow.offers.store.import_file(path)
            self.on_search()

    def on_sample(self):
        for name, path in self.samples[self.workflow.state.package.entry.id].files.items():
            slicer.util.loadVolume(str(path), {"name": f"{name} ({path.stem})"})
        self.workflow.use_scene()

    def on_open(self):
        path = qt.QFileDialog.getExistingDirectory(None, _("Folder of images or DICOM files"))
        if path:
            self.workflow.open_study([path])

    def on_input(self, name, source_id):
        self.do(self.workflow.assign, name, source_id)

    def on_structures(self):
        rows = self.items.checked_rows(self.ui.structureList)
        self.workflow.change(structures=self.view.wanted_structures(rows))

    def on_run(self):
        requirements = slicer.packaging.load_requirements(self.resourcePath("requirements.txt"))
        slicer.packaging.pip_ensure(requirements, requester=_("MIM Segment"))  # asks, once
        self.workflow.run(anyway=bool(self.workflow.state.alerts))

    def on_select(self):
        segment_id = self.view.row_id(self.items.current_row(self.ui.reviewTable))
        if segment_id and segment_id != self.selected:
            from MIMSegment.Logic.scene_navigation import show_segment

            self.selected = segment_id
            show_segment(self.workflow.result.store.node, segment_id)
            self.render()

    def on_verdict(self, verdict):
        getattr(self.workflow.review, verdict)(self.selected)

    def on_comment(self):
        if self.selected:
            self.workflow.review.comment(self.selected, self.ui.commentEdit.property("text"))

    def on_place(self, place):
        if place is not None:
            from MIMSegment.Logic.scene_navigation import show_position

            self.selected = place.segment_id or self.selected
            show_position(slicer.mrmlScene, place.position)
            self.render()

    def on_export(self, kind):
        caption, pattern, is_folder = self.panel.export_dialog(kind, _)
        if is_folder:
            path = qt.QFileDialog.getExistingDirectory(None, caption)
        else:
            path = self.items.ask_file(qt.QFileDialog.getSaveFileName, caption, pattern)
        if path:
            self.workflow.export(kind, path)

    def copy(self, text):
        qt.QApplication.clipboard().setText(text)

    def render(self):
        """Show the workflow's state."""
        if self.workflow is None:
            return
        state, workflow = self.workflow.state, self.workflow
        sample = self.samples.get(state.package.entry.id) if state.package else None
        title = sample.title if sample else ""
        view = self.panel.panel_of(
            state, workflow.settings, workflow.results, self.selected, title, _
        )
        self.view.show(view)
        node = workflow.result.store.node if workflow.result else None
        self.ui.show3DButton.setSegmentationNode(node)
        self.editor.edit(node, view.editing)


class MIMSegmentTest(ScriptedLoadableModuleTest):
    """Runs in a real Slicer: sample, segment, review, export, reload."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        self.setUp()
        self.test_a_sample_is_segmented_reviewed_exported_and_loaded_again()

    def test_a_sample_is_segmented_reviewed_exported_and_loaded_again(self):
        import tempfile

        from MIMSegment.Logic.jobs import JobQueue
        from MIMSegment.Logic.offers import Offers
        from MIMSegment.Logic.samples import sample_study
        from MIMSegment.Logic.scene_gateway import MrmlGateway
        from MIMSegment.Logic.store import PackageStore
        from MIMSegment.Logic.workflow import Export, Step, Workflow

        requirements = os.path.join(os.path.dirname(__file__), "Resources", "requirements.txt")
        missing = slicer.packaging.load_requirements(requirements)
        if not slicer.packaging.pip_check(missing):
            slicer.packaging.pip_install(missing)
        queue = JobQueue(python=shutil.which("PythonSlicer") or sys.executable)
        with tempfile.TemporaryDirectory() as folder:
            gateway = MrmlGateway(slicer.mrmlScene)
            store = PackageStore(os.path.join(folder, "packages"))
            workflow = Workflow(gateway, queue, Offers(store))
            for name, path in sample_study("phantom-prostate").files.items():
                slicer.util.loadVolume(str(path), {"name": name})
            workflow.choose("phantom-prostate")
            workflow.use_scene()
            self.assertTrue(workflow.state.actions["run"], workflow.state.actions["run"].reason)
            workflow.run(anyway=bool(workflow.state.alerts))
            while workflow.state.step is Step.RUN:
                slicer.app.processEvents()
                workflow.poll()
            self.assertIsNone(workflow.state.error)
            items = workflow.state.review.items
            volumes = {item.name: item.volume_ml for item in items}
            self.assertAlmostEqual(volumes["transition zone"], 39.5, delta=4)
            workflow.review.accept(items[0].id)
            workflow.review.reject(items[1].id)
            path = os.path.join(folder, "result.seg.nrrd")
            workflow.export(Export.SEGMENTATION, path)
            self.assertIsNone(workflow.state.error)
            workflow.close()
            again = slicer.util.loadSegmentation(path)
            logic = slicer.vtkSlicerSegmentationsModuleLogic
            segment = again.GetSegmentation().GetSegment(items[0].id)
            self.assertEqual(logic.GetSegmentStatus(segment), logic.Completed)
