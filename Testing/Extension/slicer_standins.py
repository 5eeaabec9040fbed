"""Stand-ins for what only a full Slicer has, so that the panel can be built and clicked here.

The scene is real MRML from slicer-core, the Qt widgets are real Qt through PySide6; ctk and qMRML
widgets, Slicer's application and its Python modules are the small things below. They show that the
panel's wiring and flow work, and nothing about a real Slicer.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import tempfile
import types
import unittest
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlparse
from urllib.request import url2pathname

import slicer
from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets
from PySide6.QtCore import Signal

ROOT = Path(__file__).resolve().parents[2]
MODULE_FILE = ROOT / "MIMSegment" / "MIMSegment.py"


class qMRMLWidget(QtWidgets.QWidget):
    def setMRMLScene(self, scene):
        self.scene = scene


class ctkCollapsibleButton(QtWidgets.QWidget):
    """A heading that hides what is below it; ``setCollapsed`` cannot be called from Python."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._collapsed, self._text = False, ""
        self.setContentsMargins(0, 26, 0, 0)

    def _write_text(self, text):
        self._text = text
        self.update()

    def _write_collapsed(self, collapsed):
        self._collapsed = collapsed
        self.setMaximumHeight(26 if collapsed else 16777215)
        self.updateGeometry()
        self.update()

    def minimumSizeHint(self):
        size = super().minimumSizeHint()
        return QtCore.QSize(size.width(), 26) if self._collapsed else size

    sizeHint = minimumSizeHint

    def mousePressEvent(self, event):
        self._write_collapsed(not self._collapsed)

    def paintEvent(self, event):
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QtCore.QRect(0, 0, self.width(), 24)
        painter.drawControl(QtWidgets.QStyle.CE_PushButtonBevel, option)
        arrow = "▸" if self._collapsed else "▾"
        text = option.rect.adjusted(8, 0, 0, 0)
        painter.drawText(text, QtCore.Qt.AlignVCenter, f"{arrow}  {self._text}")

    text = QtCore.Property(str, lambda self: self._text, _write_text)
    collapsed = QtCore.Property(bool, lambda self: self._collapsed, _write_collapsed)


class ctkSearchBox(QtWidgets.QLineEdit):
    """A line to type into."""


class qMRMLNodeComboBox(QtWidgets.QComboBox):
    """Lists the nodes of its type when it is told the scene, and is disabled before."""

    currentNodeIDChanged = Signal(str)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._none, self._types, self.scene = "", [], None
        self.setEnabled(False)
        self.currentIndexChanged.connect(
            lambda index: self.currentNodeIDChanged.emit(self.itemData(index) or "")
        )

    def setMRMLScene(self, scene):
        self.scene = scene
        self.setEnabled(True)
        self.showPopup(popup=False)

    def showPopup(self, popup=True):
        """The real one follows the scene; this one looks when it is opened."""
        chosen = self.currentData()
        self.blockSignals(True)
        self.clear()
        self.addItem(self._none, "")
        for name in self._types:
            for i in range(self.scene.GetNumberOfNodesByClass(name)):
                node = self.scene.GetNthNodeByClass(i, name)
                self.addItem(node.GetName(), node.GetID())
        self.setCurrentIndex(max(0, self.findData(chosen)))
        self.blockSignals(False)
        if popup:
            super().showPopup()

    def setCurrentNodeID(self, node_id):
        self.showPopup(popup=False)
        self.setCurrentIndex(max(0, self.findData(node_id)))

    def _property(name):
        return (lambda self: getattr(self, name)), (lambda self, value: setattr(self, name, value))

    nodeTypes = QtCore.Property("QStringList", *_property("_types"))
    noneDisplay = QtCore.Property(str, *_property("_none"))
    noneEnabled = QtCore.Property(bool, *_property("_noneEnabled"))
    addEnabled = QtCore.Property(bool, *_property("_addEnabled"))
    removeEnabled = QtCore.Property(bool, *_property("_removeEnabled"))


class qMRMLSegmentationShow3DButton(QtWidgets.QPushButton):
    def setSegmentationNode(self, node):
        self.node = node


class qMRMLSegmentEditorWidget(QtWidgets.QWidget):
    """Remembers what it was told to edit."""

    def __init__(self, parent=None):
        super().__init__(parent)
        place = QtWidgets.QLabel("(here is Slicer's Segment Editor)")
        place.setAlignment(QtCore.Qt.AlignCenter)
        place.setFrameStyle(QtWidgets.QFrame.Panel)
        place.setMinimumHeight(120)
        QtWidgets.QVBoxLayout(self).addWidget(place)

    def setMaximumNumberOfUndoStates(self, number):
        self.undo_states = number

    def setMRMLScene(self, scene):
        self.scene = scene

    def setMRMLSegmentEditorNode(self, node):
        self.editor_node = node

    def setSegmentationNode(self, node):
        self.segmentation_node = node

    def setSourceVolumeNode(self, node):
        self.volume_node = node

    def setCurrentSegmentID(self, segment_id):
        self.segment_id = segment_id

    def setActiveEffect(self, effect):
        self.effect = effect

    def setupViewObservations(self):
        self.observes_views = True

    def removeViewObservations(self):
        self.observes_views = False


CUSTOM_WIDGETS = (
    qMRMLWidget,
    ctkCollapsibleButton,
    ctkSearchBox,
    qMRMLNodeComboBox,
    qMRMLSegmentationShow3DButton,
)


class _ScriptedLoadableModule:
    def __init__(self, parent):
        self.parent = parent


class _ScriptedLoadableModuleWidget:
    """As Slicer's: without a parent it sets itself up and is shown."""

    def __init__(self, parent=None):
        super().__init__()
        self.parent = parent or qMRMLWidget()
        self.layout = self.parent.layout() or QtWidgets.QVBoxLayout(self.parent)
        self.reloaded = False
        if parent is None:
            self.setup()

    def setup(self):
        """The panel has its own."""

    def onReload(self):
        self.reloaded = True

    def _onModuleAboutToBeUnloaded(self, name):
        """No module is unloaded here."""


class _ScriptedLoadableModuleTest(unittest.TestCase):
    def delayDisplay(self, message):
        """Nobody is looking."""


class _SampleDataLogic:
    """Keeps what is registered, checks the arguments, and loads by name."""

    registered: ClassVar[dict] = {}

    @classmethod
    def registerCustomSampleDataSource(
        cls, category, sampleName, thumbnailFileName, uris, fileNames, nodeNames, checksums,
        loadFiles, loadFileType,
    ):  # fmt: skip
        counts = {len(part) for part in (uris, fileNames, nodeNames, checksums, loadFiles)}
        assert counts == {len(loadFileType)} and Path(thumbnailFileName).is_file()
        cls.registered[sampleName] = list(zip(uris, nodeNames, checksums, strict=True))

    def downloadSamples(self, name):
        return [self._load(*file) for file in self.registered[name]]

    def _load(self, uri, node_name, checksum):
        path = url2pathname(urlparse(uri).path)
        assert checksum == f"SHA256:{hashlib.sha256(Path(path).read_bytes()).hexdigest()}"
        return slicer.util.loadVolume(path, {"name": node_name})


class _FlatQt(types.ModuleType):
    """All of Qt in one module, as PythonQt offers it."""

    def __getattr__(self, name):
        for module in (QtCore, QtGui, QtWidgets):
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(name)


def load_ui(path):
    loader = QtUiTools.QUiLoader()
    for widget in CUSTOM_WIDGETS:
        loader.registerCustomWidget(widget)
    return loader.load(path)


def child_widgets(widget):
    children = widget.findChildren(QtWidgets.QWidget)
    return types.SimpleNamespace(**{c.objectName(): c for c in children if c.objectName()})


def install(monkeypatch, scene, reviewer: str = "") -> types.SimpleNamespace:
    """Make the stand-ins importable; returns what the panel asked of Slicer's application.

    Its ``missing`` says whether the inference library is missing, ``declines`` whether the user
    does not want it installed.
    """
    asked = types.SimpleNamespace(requirements=[], volumes=[], missing=False, declines=False)
    base = types.ModuleType("slicer.ScriptedLoadableModule")
    base.ScriptedLoadableModule = _ScriptedLoadableModule
    base.ScriptedLoadableModuleWidget = _ScriptedLoadableModuleWidget
    base.ScriptedLoadableModuleTest = _ScriptedLoadableModuleTest
    i18n = types.ModuleType("slicer.i18n")
    i18n.tr = lambda text: text
    i18n.translate = lambda context, text: text
    samples = types.ModuleType("SampleData")
    samples.SampleDataLogic = _SampleDataLogic
    for name, module in (
        ("qt", _FlatQt("qt")),
        ("slicer.ScriptedLoadableModule", base),
        ("slicer.i18n", i18n),
        ("SampleData", samples),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    for name, value in {
        "app": _application(reviewer),
        "packaging": _packaging(asked),
        "mrmlScene": scene,
        "qMRMLSegmentEditorWidget": qMRMLSegmentEditorWidget,
    }.items():
        monkeypatch.setattr(slicer, name, value, raising=False)
    for name, value in _util(asked, scene).items():
        monkeypatch.setattr(slicer.util, name, value, raising=False)
    return asked


def _application(reviewer):
    person = types.SimpleNamespace(GetName=lambda: reviewer)
    logic = types.SimpleNamespace(GetUserInformation=lambda: person)
    manager = types.SimpleNamespace(disconnect=lambda signal, slot: None)
    return types.SimpleNamespace(
        applicationLogic=lambda: logic,
        clipboard=QtWidgets.QApplication.clipboard,
        connect=lambda signal, slot: None,
        moduleManager=lambda: manager,
        processEvents=QtWidgets.QApplication.processEvents,
    )


def _packaging(asked):
    """As Slicer's: requirements are objects, and who declines gets a RuntimeError."""

    def pip_ensure(requirements, requester=""):
        asked.requirements.append([str(requirement) for requirement in requirements])
        if asked.missing and asked.declines:
            raise RuntimeError("User declined package installation")
        asked.missing = False

    return types.SimpleNamespace(
        load_requirements=lambda path: [
            types.SimpleNamespace(text=line) for line in Path(path).read_text().splitlines()
        ],
        pip_check=lambda requirements: not asked.missing,
        pip_ensure=pip_ensure,
    )


def _util(asked, scene):
    def load_volume(path, properties):
        from MIMSegment.Logic.scene import add_volume
        from MIMSegment.Logic.volume import read_volume

        asked.volumes.append(path)
        return add_volume(scene, read_volume(path), properties["name"])

    def load_segmentation(path):
        from MIMSegment.Logic.scene_storage import load_segmentation

        return load_segmentation(scene, path)

    def load_scene(path):
        with tempfile.TemporaryDirectory() as cache:
            remote = slicer.vtkMRMLRemoteIOLogic()  # gives the reader a place to unpack to
            remote.SetMRMLScene(scene)
            remote.GetCacheManager().SetRemoteCacheDirectory(cache)
            remote.AddDataIOToScene()
            scene.ReadFromMRB(str(path))
            remote.RemoveDataIOFromScene()

    return {
        "loadUI": load_ui,
        "childWidgetVariables": child_widgets,
        "loadVolume": load_volume,
        "loadSegmentation": load_segmentation,
        "loadScene": load_scene,
        "mainWindow": lambda: None,
    }


def load_module(monkeypatch):
    """Load MIMSegment.py in the order in which Slicer's factory does."""
    for name in [n for n in sys.modules if n == "MIMSegment"]:
        monkeypatch.delitem(sys.modules, name)
    spec = importlib.util.spec_from_file_location("MIMSegment", MODULE_FILE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "MIMSegment", module)
    spec.loader.exec_module(module)
    return module
