"""Pictures of the panel in each state, to look at: python Testing/Extension/show_panel.py FOLDER

Drawn with the stand-ins of slicer_standins.py, so some widgets look different in Slicer. With
--theme dark in the colors of Slicer's dark style, with --width as wide as Slicer's panel is.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Logic"))
sys.path.insert(0, str(Path(__file__).parent))

import slicer
from PySide6 import QtGui, QtWidgets

from MIMSegment.Logic.store import data_home
from MIMSegment.Logic.workflow_state import Export
from panel_case import choose, new_panel

DARK = {
    "Window": "#2d2d30", "WindowText": "#e6e6e6", "Base": "#1e1e1e", "Text": "#e6e6e6",
    "Button": "#3c3c40", "ButtonText": "#e6e6e6", "Highlight": "#2a82da",
    "HighlightedText": "#ffffff", "Link": "#6cb2ff", "AlternateBase": "#262629",
    "PlaceholderText": "#8a8a8a",
}  # fmt: skip
LONG = "left common iliac artery with its internal and external branches"
LICENSED = {
    "id": "organs", "version": "1.0.0", "title": "Abdominal organs on CT, 16 structures",
    "description": "An entry that shows how a model with a license of its own is offered.",
    "region": "abdomen", "inputs": [{"name": "CT", "modality": "CT"}],
    "structures": ["spleen", "liver", LONG], "license": "CC BY-NC-SA 4.0",
    "license_url": "https://creativecommons.org/licenses/by-nc-sa/4.0/",
    "license_acknowledgment": True, "training_data": "90 CT scans of two centers",
    "size_bytes": 118_000_000, "phantom": False, "urls": ["https://example.org/organs.zip"],
    "sha256": hashlib.sha256(b"").hexdigest(), "cpu_seconds": 95.0, "cpu_hardware": "8 cores",
}  # fmt: skip


class Album:
    """A panel, and pictures of it in ``folder``."""

    def __init__(self, panel, folder: Path, width: int):
        self.panel, self.ui, self._folder = panel, panel.ui, folder
        self._area = QtWidgets.QScrollArea()
        self._area.setWidgetResizable(True)
        self._area.setFrameStyle(QtWidgets.QFrame.NoFrame)
        self._area.setWidget(self.panel.parent)
        self._area.resize(width, 1500)
        self._area.show()

    def save(self, name: str) -> None:
        """The part of the panel that holds something, as in Slicer's scrolling module panel."""
        for _ in range(4):  # lists and labels that wrap find their height step by step
            QtWidgets.QApplication.processEvents()
        spacer = self.ui.exportSection.geometry().bottom() + 12
        picture = self._area.viewport().grab()
        picture.copy(0, 0, picture.width(), spacer).save(str(self._folder / f"{name}.png"))

    def wait(self, name: str = "", at: int = 5) -> None:
        """Until there is a result; a picture at the given window."""
        while self.panel.workflow.state.progress is not None:
            self.panel.on_timer()
            progress = self.panel.workflow.state.progress
            if name and progress and progress.done == at:
                self.save(name)
            time.sleep(0.01)


def choosing(album: Album) -> None:
    album.save("choose")
    catalog = data_home() / "catalogs" / "example.json"
    catalog.parent.mkdir()
    catalog.write_text(json.dumps({"schema_version": 1, "packages": [LICENSED]}))
    album.panel.begin()
    album.ui.searchBox.setText("knee")
    album.save("choose_nothing")
    choose(album.panel, "16 structures")
    album.save("choose_license")


def checking(album: Album) -> None:
    album.panel.runtime_missing = True
    choose(album.panel, "prostate")
    album.save("check_no_images")
    album.ui.sampleButton.click()
    album.save("check_no_runtime")
    album.panel.runtime_missing = False
    album.ui.advancedSection.setProperty("collapsed", False)
    box = album.panel.view.input_boxes["ADC"][0]
    box.setCurrentIndex(box.findText("PhantomProstate_DWI"))
    album.save("check_advanced")
    album.ui.advancedSection.setProperty("collapsed", True)
    box.setCurrentIndex(0)
    t2w, dwi = (album.panel.view.input_boxes[name][0] for name in ("T2w", "DWI"))
    t2w.setCurrentIndex(t2w.findText("PhantomProstate_DWI"))
    dwi.setCurrentIndex(dwi.findText("PhantomProstate_T2w"))
    album.ui.runButton.click()
    album.save("check_findings")
    for box in (t2w, dwi):
        box.setCurrentIndex(0)


def reviewing(album: Album) -> None:
    album.ui.runButton.click()
    album.wait("run")
    album.ui.reviewTable.selectRow(0)
    album.ui.acceptButton.click()
    album.ui.reviewTable.selectRow(1)
    album.ui.nextPlaceButton.click()
    album.save("review")
    album.ui.editButton.click()
    album.save("review_edit")
    album.ui.finishEditButton.click()
    album.panel.workflow.export(Export.TABLE, Path(tempfile.mkdtemp()) / "volumes.csv")
    album.save("export")
    album.panel.do(lambda: 1 / 0)
    album.save("error")


def many(album: Album) -> None:
    """Fifteen structures, some with long names."""
    slicer.mrmlScene.Clear(0)
    choose(album.panel, "abdominal organs phantom")
    album.ui.sampleButton.click()
    album.ui.runButton.click()
    album.wait()
    segmentation = album.panel.workflow.result.store.node.GetSegmentation()
    for number in range(5):
        segmentation.AddEmptySegment("", f"{LONG} {number + 1}" if number else LONG)
    for row, button in ((0, "accept"), (1, "reject"), (2, "accept")):
        album.ui.reviewTable.selectRow(row)
        getattr(album.ui, f"{button}Button").click()
    album.panel.on_timer()
    album.ui.reviewTable.selectRow(3)
    album.ui.commentEdit.setText("The lower pole is missing on the last two slices")
    album.ui.commentEdit.editingFinished.emit()
    album.save("review_many")


def dark_palette() -> QtGui.QPalette:
    palette = QtGui.QPalette()
    for role, color in DARK.items():
        palette.setColor(getattr(QtGui.QPalette, role), QtGui.QColor(color))
    for role in ("Text", "ButtonText", "WindowText"):
        gray = QtGui.QColor(DARK["PlaceholderText"])
        palette.setColor(QtGui.QPalette.Disabled, getattr(QtGui.QPalette, role), gray)
    return palette


def main(folder: Path, width: int, theme: str) -> None:
    import pytest

    folder.mkdir(parents=True, exist_ok=True)
    application = QtWidgets.QApplication([])
    application.setStyle("Fusion")
    if theme == "dark":
        application.setPalette(dark_palette())
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as home:
        album = Album(new_panel(patch, home), folder, width)
        for part in (choosing, checking, reviewing, many):
            part(album)
        album.panel.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--width", type=int, default=426, help="pixels")
    parser.add_argument("--theme", choices=("light", "dark"), default="light")
    arguments = parser.parse_args()
    main(arguments.folder, arguments.width, arguments.theme)
