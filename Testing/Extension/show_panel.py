"""Pictures of the panel in each state, to look at: python Testing/Extension/show_panel.py FOLDER

Drawn with the stand-ins of slicer_standins.py, so colors and some widgets differ from Slicer's.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]


def main(folder: Path) -> None:
    """Write empty.png, inputs.png, running.png, review.png and error.png."""
    import pytest
    import slicer_standins
    from PySide6 import QtWidgets

    from MIMSegment.Logic.scene import new_scene

    folder.mkdir(parents=True, exist_ok=True)
    application = QtWidgets.QApplication([])
    application.setStyle("Fusion")
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as home:
        patch.setenv("MIMSEGMENT_HOME", home)
        slicer_standins.install(patch, new_scene())
        panel = slicer_standins.load_module(patch).MIMSegmentWidget()
        panel.setup()
        panel.timer.stop()

        def save(name):
            panel.parent.resize(372, 1250)
            panel.parent.show()
            application.processEvents()
            panel.parent.grab().save(str(folder / f"{name}.png"))

        save("empty")
        panel.ui.searchBox.setText("prostate")
        panel.ui.cardList.setCurrentRow(0)
        panel.ui.sampleButton.click()
        save("inputs")
        panel.ui.runButton.click()
        while panel.workflow.state.review is None:
            panel.on_timer()
            progress = panel.workflow.state.progress
            if progress and progress.done == 5:
                save("running")
            time.sleep(0.01)
        panel.ui.reviewTable.selectRow(0)
        panel.ui.acceptButton.click()
        panel.ui.reviewTable.selectRow(1)
        panel.ui.nextPlaceButton.click()
        save("review")
        panel.do(lambda: 1 / 0)
        save("error")
        panel.cleanup()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
