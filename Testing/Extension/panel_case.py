"""A panel with stand-ins around it, and what tests do with it."""

import slicer_standins
from MIMSegment.Logic.scene import new_scene
from waiting import wait_until

PATIENCE = 300.0  # seconds for a run on a busy computer


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


def open_sample(panel):
    """The prostate sample, with its package chosen."""
    choose(panel, "prostate")
    panel.ui.sampleButton.click()


def segment_sample(panel):
    """The prostate sample, by its package, in a worker."""
    open_sample(panel)
    panel.ui.runButton.click()
    until_free(panel)
    assert not panel.ui.errorLabel.text(), panel.ui.errorLabel.text()


def until_free(panel):
    """Until nothing runs any more."""

    def is_free():
        panel.on_timer()
        return panel.workflow.state.progress is None

    wait_until(is_free, PATIENCE)


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
