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
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
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
        )


class MIMSegmentWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Shows the state of a `Workflow` and sends it what the user does; decides nothing."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.workflow = None
        self.editor = None
        self.selected = ""
        self.search = {"text": "", "modality": "", "region": ""}
        self.inputBoxes = {}

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        from MIMSegment.Logic import panel

        self.panel, self.shown = panel, None
        widget = slicer.util.loadUI(self.resourcePath("UI/MIMSegment.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.ui.noticeLabel.setText(_("Research use only. Not a medical device."))
        self.ui.reviewTable.setColumnCount(len(panel.review_header(_)))
        self.ui.reviewTable.setHorizontalHeaderLabels(list(panel.review_header(_)))
        self.ui.reviewTable.verticalHeader().setVisible(False)
        self.ui.reviewTable.horizontalHeader().setStretchLastSection(True)
        self.connectWidgets()
        self.timer = qt.QTimer()
        self.timer.setInterval(100)
        self.timer.timeout.connect(self.onTimer)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.end)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.begin)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.begin)
        self.begin()

    def connectWidgets(self):
        ui = self.ui
        clicks = {
            "acknowledgeButton": lambda: self.workflow.acknowledge(),
            "installButton": lambda: self.workflow.install(),
            "importButton": self.onImport,
            "sampleButton": self.onSample,
            "openButton": self.onOpen,
            "runButton": self.onRun,
            "cancelButton": lambda: self.workflow.cancel(),
            "copyReportButton": lambda: self.copy(self.workflow.state.error.report),
            "previousPlaceButton": lambda: self.onPlace(self.workflow.review.previous_place()),
            "nextPlaceButton": lambda: self.onPlace(self.workflow.review.next_place()),
            "finishEditButton": lambda: self.workflow.review.finish_edit(),
            "copyTableButton": lambda: self.copy(self.panel.rows_text(self.shown.rows, _)),
        }
        for verdict in ("accept", "edit", "reject", "reopen", "undo"):
            clicks[f"{verdict}Button"] = lambda verdict=verdict: self.onVerdict(verdict)
        for name, kind in self.panel.EXPORTS.items():
            clicks[name] = lambda kind=kind: self.onExport(kind)
        for name, action in clicks.items():
            getattr(ui, name).clicked.connect(lambda *ignored, action=action: self.do(action))
        ui.searchBox.textChanged.connect(lambda text: self.onSearch(text=text))
        ui.modalityFilter.currentTextChanged.connect(lambda text: self.onSearch(modality=text))
        ui.regionFilter.currentTextChanged.connect(lambda text: self.onSearch(region=text))
        ui.cardList.itemSelectionChanged.connect(lambda: self.do(self.onCard))
        ui.deviceBox.currentTextChanged.connect(lambda text: self.do(self.onDevice, text))
        ui.targetBox.currentNodeIDChanged.connect(lambda node: self.do(self.onTarget, node))
        ui.structureList.itemChanged.connect(lambda item: self.do(self.onStructures))
        ui.reviewTable.itemSelectionChanged.connect(lambda: self.do(self.onSelect))
        ui.commentEdit.textEdited.connect(lambda text: setattr(self, "comment", text))
        ui.commentEdit.editingFinished.connect(lambda: self.do(self.onComment))
        for key, name in self.panel.SHORTCUTS.items():  # of the list while it has the focus, only
            shortcut = qt.QShortcut(qt.QKeySequence(key), ui.reviewTable)
            shortcut.setContext(qt.Qt.WidgetShortcut)
            shortcut.activated.connect(lambda name=name: getattr(ui, name).click())

    def begin(self, caller=None, event=None):
        """Start on the scene as it is now; what was running has been ended."""
        from MIMSegment.Logic.jobs import JobQueue
        from MIMSegment.Logic.offers import Offers
        from MIMSegment.Logic.samples import sample_studies
        from MIMSegment.Logic.scene_gateway import MrmlGateway
        from MIMSegment.Logic.store import PackageStore
        from MIMSegment.Logic.workflow import Workflow

        self.end()
        self.samples = {study.package: study for study in sample_studies()}
        gateway = MrmlGateway(slicer.mrmlScene, slicer.dicomDatabase.fileForInstance)
        queue = JobQueue(python=shutil.which("PythonSlicer") or sys.executable)
        person = slicer.app.applicationLogic().GetUserInformation()
        self.workflow = Workflow(gateway, queue, Offers(PackageStore()), person.GetName() or "")
        self.workflow.listeners.append(self.render)
        self.fillFilters()
        self.onSearch()
        self.do(self.workflow.use_scene)
        self.timer.start()

    def end(self, caller=None, event=None):
        """Stop everything that runs and forget the nodes of the scene."""
        self.timer.stop()
        if self.editor is not None:
            self.editor.setMRMLSegmentEditorNode(None)
        if self.workflow is not None:
            self.workflow.listeners.clear()
            self.workflow.close()
        self.workflow, self.shown, self.selected = None, None, ""

    def enter(self):
        if self.workflow is not None and self.workflow.state.review is None:
            self.do(self.workflow.use_scene)

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
        """Do it; nothing that goes wrong may pass without a sentence in the panel."""
        try:
            action(*arguments)
        except Exception as error:
            logging.exception("MIM Segment")
            self.ui.errorLabel.setText(_("This did not work: {error}").format(error=error))
            self.ui.errorLabel.setVisible(True)

    def onTimer(self):
        self.do(self.workflow.poll)

    def onSearch(self, **changes):
        self.search.update(changes)
        text, modality, region = (self.search[k] for k in ("text", "modality", "region"))
        known = self.workflow.offers.facets()
        self.cards = self.workflow.offers.search(
            text,
            modality if modality in known["modality"] else None,
            region if region in known["region"] else None,
        )
        fill(self.ui.cardList, self.panel.card_lines(self.cards, _))
        self.render()

    def fillFilters(self):
        facets = self.workflow.offers.facets()
        for box, name, everything in (
            (self.ui.modalityFilter, "modality", _("Any modality")),
            (self.ui.regionFilter, "region", _("Any region")),
        ):
            fillBox(box, [(value, value) for value in ["", *facets[name]]], "", everything)
        fillBox(self.ui.deviceBox, [(name, name) for name in self.panel.DEVICES], "auto")

    def onCard(self):
        rows = [index.row() for index in self.ui.cardList.selectedIndexes()]
        if rows:
            self.workflow.choose(self.cards[rows[0]].key)

    def onImport(self):
        path = openPath(_("Model package (zip file)"), "*.zip")
        if path:
            self.workflow.offers.store.import_file(path)
            self.onSearch()

    def onSample(self):
        for name, path in self.samples[self.workflow.state.package.entry.id].files.items():
            slicer.util.loadVolume(str(path), {"name": f"{name} ({path.stem})"})
        self.workflow.use_scene()

    def onOpen(self):
        path = qt.QFileDialog.getExistingDirectory(None, _("Folder of images or DICOM files"))
        if path:
            self.workflow.open_study([path])

    def onInput(self, name, text):
        box = self.inputBoxes[name][0]
        self.workflow.assign(name, box.itemData(box.findText(text)) or "")

    def onDevice(self, text):
        self.workflow.change(device=text)

    def onTarget(self, nodeID):
        self.workflow.change(target=nodeID or "")

    def onStructures(self):
        values, items = [], self.ui.structureList
        for row, (value, _name) in enumerate(self.shown.structures):
            if items.item(row).checkState() == qt.Qt.Checked:
                values.append(value)
        everything = len(values) == len(self.shown.structures)
        self.workflow.change(structures=() if everything else tuple(values))

    def onRun(self):
        requirements = slicer.packaging.load_requirements(self.resourcePath("requirements.txt"))
        slicer.packaging.pip_ensure(requirements, requester=_("MIM Segment"))  # asks, once
        self.workflow.run(anyway=bool(self.workflow.state.alerts))

    def onSelect(self):
        rows = [index.row() for index in self.ui.reviewTable.selectedIndexes()]
        if rows and self.shown.rows[rows[0]].id != self.selected:
            from MIMSegment.Logic.scene_navigation import show_segment

            self.selected = self.shown.rows[rows[0]].id
            show_segment(self.workflow.result.store.node, self.selected)
            self.render()

    def onVerdict(self, verdict):
        getattr(self.workflow.review, verdict)(self.selected)

    def onComment(self):
        text, self.comment = getattr(self, "comment", None), None
        if text is not None and self.selected:
            self.workflow.review.comment(self.selected, text)

    def onPlace(self, place):
        if place is not None:
            from MIMSegment.Logic.scene_navigation import show_position

            self.selected = place.segment_id or self.selected
            show_position(slicer.mrmlScene, place.position)
            self.render()

    def onExport(self, kind):
        caption, pattern, isFolder = self.panel.export_dialog(kind, _)
        if isFolder:
            path = qt.QFileDialog.getExistingDirectory(None, caption)
        else:
            path = savePath(caption, pattern)
        if path:
            self.workflow.export(kind, path)

    def copy(self, text):
        qt.QApplication.clipboard().setText(text)

    def render(self):
        """Show the workflow's state."""
        if self.workflow is None:
            return
        state = self.workflow.state
        card = state.package
        sample = self.samples.get(card.entry.id) if card else None
        title = sample.title if sample else ""
        view = self.panel.panel_of(state, self.selected, title, _)
        before, self.shown = self.shown, view
        for name, button in view.buttons.items():
            widget = getattr(self.ui, name)
            widget.setEnabled(button.enabled)
            widget.setVisible(button.visible)
            widget.setToolTip(button.tooltip)
            if button.text:
                widget.setText(button.text)
        for label, text in (
            (self.ui.cardDetails, view.details_html),
            (self.ui.findingsLabel, view.findings_html),
            (self.ui.statusLabel, view.status),
            (self.ui.errorLabel, view.error),
            (self.ui.placeLabel, view.place),
            (self.ui.reviewDetails, view.selected_html),
        ):
            label.setText(text)
            label.setVisible(bool(text))
        self.ui.progressBar.setMaximum(0 if view.progress is None else 1000)
        self.ui.progressBar.setValue(int(1000 * (view.progress or 0)))
        if before is None or before.reviewing != view.reviewing:
            self.ui.reviewSection.setCollapsed(not view.reviewing)
            self.ui.exportSection.setCollapsed(not view.reviewing)
            self.ui.chooseSection.setCollapsed(view.reviewing)
            if view.reviewing:
                self.ui.show3DButton.setSegmentationNode(self.workflow.result.store.node)
        if before is None or before.inputs != view.inputs:
            self.renderInputs(view.inputs)
        if before is None or before.structures != view.structures:
            self.renderStructures(view.structures)
        self.renderRows(view.rows, before.rows if before else None)
        self.renderEditor(view, state)

    def renderInputs(self, rows):
        form = self.ui.inputFrame.layout()
        if list(self.inputBoxes) != [name for name, *rest in rows]:
            while form.rowCount():
                form.removeRow(0)
            self.inputBoxes = {}
            for name, *_rest in rows:
                box, reason = qt.QComboBox(), qt.QLabel()
                reason.setWordWrap(True)
                form.addRow(name, box)
                form.addRow("", reason)
                box.currentTextChanged.connect(
                    lambda text, name=name: self.do(self.onInput, name, text)
                )
                self.inputBoxes[name] = box, reason
        for name, source, reason, choices in rows:
            box, label = self.inputBoxes[name]
            fillBox(box, [("", ""), *choices], source, _("Choose an image"))
            label.setText(reason)

    def renderStructures(self, structures):
        quietly(self.ui.structureList.clear, self.ui.structureList)
        for _value, name in structures:
            item = qt.QListWidgetItem(name)
            item.setCheckState(qt.Qt.Checked)
            quietly(lambda item=item: self.ui.structureList.addItem(item), self.ui.structureList)

    def renderRows(self, rows, before):
        table = self.ui.reviewTable
        if rows != before:
            quietly(lambda: self.fillTable(table, rows), table)
        ids = [row.id for row in rows]
        if self.selected in ids:
            quietly(lambda: table.selectRow(ids.index(self.selected)), table)

    def fillTable(self, table, rows):
        table.setRowCount(len(rows))
        for number, row in enumerate(rows):
            for column, text in enumerate(row.cells):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(row.tooltip)
                if column == 0:
                    item.setBackground(qt.QBrush(qt.QColor(*row.color)))
                table.setItem(number, column, item)
        table.resizeColumnsToContents()

    def renderEditor(self, view, state):
        self.ui.editorFrame.setVisible(view.editing)
        if not view.editing:
            return
        if self.editor is None:
            self.editor = slicer.qMRMLSegmentEditorWidget()
            self.editor.setMRMLScene(slicer.mrmlScene)
            self.ui.editorFrame.layout().addWidget(self.editor)
        node = slicer.mrmlScene.GetSingletonNode("MIMSegment", "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
            node.UnRegister(None)
            node.SetSingletonTag("MIMSegment")
            node = slicer.mrmlScene.AddNode(node)
        result = self.workflow.result.store.node
        self.editor.setMRMLSegmentEditorNode(node)
        self.editor.setSegmentationNode(result)
        role = result.GetReferenceImageGeometryReferenceRole()
        self.editor.setSourceVolumeNode(result.GetNodeReference(role))
        self.editor.setCurrentSegmentID(state.review.editing)


def fill(listWidget, lines):
    """Show ``lines`` in a QListWidget."""
    quietly(listWidget.clear, listWidget)
    for line in lines:
        item = qt.QListWidgetItem(line.text)
        item.setToolTip(line.tooltip)
        listWidget.addItem(item)


def fillBox(box, choices, chosen, empty=""):
    """Show ``choices`` (data, text) in a QComboBox; ``empty`` names the one without data."""

    def refill():
        box.clear()
        for data, text in choices:
            box.addItem(text or empty, data)
        box.setCurrentIndex(max(0, [data for data, _text in choices].index(chosen)))

    quietly(refill, box)


def quietly(action, widget):
    """Do it without the widget's signals, which are for what the user does."""
    widget.blockSignals(True)
    try:
        action()
    finally:
        widget.blockSignals(False)


def openPath(caption, pattern):
    return firstOf(qt.QFileDialog.getOpenFileName(None, caption, "", pattern))


def savePath(caption, pattern):
    return firstOf(qt.QFileDialog.getSaveFileName(None, caption, "", pattern))


def firstOf(answer):
    """A dialog's path; some Qt bindings return it with the pattern that was chosen."""
    return answer[0] if isinstance(answer, tuple) else answer


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
