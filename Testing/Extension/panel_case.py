"""A panel with stand-ins around it, and what tests do with it."""

import time

import slicer_standins

from MIMSegment.Logic.scene import new_scene


def new_panel(patch, home):
    """A panel on an empty scene that polls only when it is told to; ``home`` keeps packages."""
    patch.setenv("MIMSEGMENT_HOME", str(home))
    asked = slicer_standins.install(patch, new_scene())
    panel = slicer_standins.load_module(patch).MIMSegmentWidget()
    panel.timer.setInterval(10**6)
    panel.enter()
    panel.asked = asked
    return panel


def choose(panel, words):
    panel.ui.searchBox.setText(words)
    panel.ui.cardList.setCurrentRow(0)


def segment_sample(panel):
    """The prostate sample, by its package, in a worker."""
    choose(panel, "prostate")
    panel.ui.sampleButton.click()
    panel.ui.runButton.click()
    deadline = time.monotonic() + 300
    while panel.workflow.state.progress is not None and time.monotonic() < deadline:
        panel.on_timer()
        assert not panel.ui.errorLabel.text(), panel.ui.errorLabel.text()
        time.sleep(0.02)


def load_scene(path):
    """As Slicer does, which tells of it at the end."""
    import slicer

    slicer.util.loadScene(str(path))
    slicer.mrmlScene.InvokeEvent(slicer.mrmlScene.EndImportEvent)


def names(panel):
    table = panel.ui.reviewTable
    return [table.item(row, 0).text() for row in range(table.rowCount())]


def verdict(panel, row):
    return panel.ui.reviewTable.item(row, 3).text()
