"""Widget contract tests: the panel with real Qt and real MRML, and stand-ins for the rest."""

import os
import sys
import time
import types
from pathlib import Path

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("PySide6", reason="needs PySide6 (the extra tests)")
pytest.importorskip("slicer", reason="needs slicer-core (the extra web)")
sys.path.insert(0, str(Path(__file__).parent))

import slicer_standins
from PySide6 import QtWidgets

from MIMSegment.Logic.catalog import BUNDLED_CATALOG
from MIMSegment.Logic.scene import new_scene
from MIMSegment.Logic.workflow_state import Export


@pytest.fixture(scope="module")
def application():
    return QtWidgets.QApplication.instance() or QtWidgets.QApplication([])


@pytest.fixture
def panel(application, monkeypatch, tmp_path):
    monkeypatch.setenv("MIMSEGMENT_HOME", str(tmp_path / "home"))
    asked = slicer_standins.install(monkeypatch, new_scene())
    module = slicer_standins.load_module(monkeypatch)
    widget = module.MIMSegmentWidget()
    widget.timer.setInterval(10**6)  # the tests poll
    widget.enter()
    widget.asked = asked
    yield widget
    widget.cleanup()


def test_the_module_says_what_it_is(panel):
    """Slicer's generic test of modules fails where help or acknowledgment is empty."""
    import MIMSegment

    parent = types.SimpleNamespace()
    MIMSegment.MIMSegment(parent)
    assert parent.title == "MIM Segment" and parent.categories == ["Segmentation"]
    assert "Not a medical device" in parent.helpText
    assert len(parent.acknowledgementText) > 40 and parent.contributors


def choose(panel, words):
    panel.ui.searchBox.setText(words)
    panel.ui.cardList.setCurrentRow(0)


def segment_sample(panel):
    choose(panel, "prostate")
    panel.ui.sampleButton.click()
    panel.ui.runButton.click()
    wait_for_result(panel)


def wait_for_result(panel):
    deadline = time.monotonic() + 300
    while panel.workflow.state.progress is not None and time.monotonic() < deadline:
        panel.on_timer()
        assert not panel.ui.errorLabel.text(), panel.ui.errorLabel.text()
        time.sleep(0.02)


def names(panel):
    table = panel.ui.reviewTable
    return [table.item(row, 0).text() for row in range(table.rowCount())]


def verdict(panel, row):
    return panel.ui.reviewTable.item(row, 3).text()


def test_before_a_choice_the_segment_button_says_what_to_do(panel):
    assert not panel.ui.runButton.isEnabled()
    assert "Choose what to segment" in panel.ui.runButton.toolTip()
    assert "Not a medical device" in panel.ui.noticeLabel.text()
    assert panel.ui.cardList.count() == len(panel.workflow.offers.search())


def test_search_and_filters_narrow_the_list(panel):
    everything = panel.ui.cardList.count()
    panel.ui.searchBox.setText("no such organ")
    assert "Nothing matches" in panel.ui.cardList.item(0).text()
    panel.ui.cardList.setCurrentRow(0)
    assert panel.workflow.state.package is None
    panel.ui.searchBox.setText("")
    assert panel.ui.cardList.count() == everything
    panel.ui.regionFilter.setCurrentText("prostate")
    assert panel.ui.cardList.count() == 1


def test_a_choice_shows_license_and_training_data_and_asks_for_inputs(panel):
    choose(panel, "prostate")
    assert "Apache-2.0" in panel.ui.cardDetails.text()
    assert "phantom" in panel.ui.cardDetails.text()
    assert list(panel.view.input_boxes) == ["T2w", "ADC", "DWI"]
    assert not panel.ui.runButton.isEnabled()
    assert "no image" in panel.ui.runButton.toolTip()


def test_the_sample_fills_the_inputs_with_reasons(panel):
    choose(panel, "prostate")
    panel.ui.sampleButton.click()
    for name, (box, reason) in panel.view.input_boxes.items():
        assert name in box.currentText()
        assert reason.text()
    assert panel.ui.runButton.isEnabled()


def test_segment_review_and_edit(panel):
    segment_sample(panel)
    assert panel.asked.requirements, "the runtime is asked for before the first run"
    assert sorted(names(panel))[-2:] == ["peripheral zone", "transition zone"]
    panel.ui.reviewTable.selectRow(0)
    panel.ui.acceptButton.click()
    assert "accepted" in verdict(panel, 0)
    assert not panel.ui.editButton.isEnabled() and panel.ui.editButton.toolTip()
    panel.ui.undoButton.click()
    assert "open" in verdict(panel, 0)
    panel.ui.reviewTable.selectRow(1)
    panel.ui.editButton.click()
    assert "editing" in verdict(panel, 1)
    assert panel.editor.widget.segment_id == panel.selected
    assert panel.editor.widget.segmentation_node is panel.workflow.result.store.node
    panel.ui.finishEditButton.click()
    assert "open" in verdict(panel, 1), "nothing was painted"
    panel.ui.rejectButton.click()
    assert "rejected" in verdict(panel, 1)


def test_the_next_doubtful_place_selects_its_structure(panel):
    segment_sample(panel)
    assert panel.ui.nextPlaceButton.isEnabled()
    panel.ui.nextPlaceButton.click()
    assert panel.ui.placeLabel.text().startswith("Place 1 of")


def test_cancel_leaves_everything_ready_for_another_run(panel):
    choose(panel, "prostate")
    panel.ui.sampleButton.click()
    panel.ui.runButton.click()
    assert panel.ui.cancelButton.isEnabled()
    panel.ui.cancelButton.click()
    deadline = time.monotonic() + 20
    while panel.workflow.state.progress is not None and time.monotonic() < deadline:
        panel.on_timer()
        time.sleep(0.02)
    assert "cancelled" in panel.ui.statusLabel.text()
    assert panel.ui.runButton.isEnabled()


def test_a_comment_is_kept_with_the_structure(panel):
    segment_sample(panel)
    panel.ui.reviewTable.selectRow(0)
    panel.ui.commentEdit.setText("apex is cut off")
    panel.ui.commentEdit.editingFinished.emit()
    assert "apex is cut off" in panel.ui.reviewTable.item(0, 4).text()


def test_an_exception_becomes_a_sentence_until_the_next_step(panel):
    def fail():
        raise RuntimeError("the disk is on fire")

    panel.do(fail)
    assert "unforeseen" in panel.ui.errorLabel.text()
    panel.ui.copyReportButton.click()
    assert "the disk is on fire" in QtWidgets.QApplication.clipboard().text()
    choose(panel, "brain")
    assert not panel.ui.errorLabel.text()


def test_a_failure_of_the_timer_is_said_once(panel, monkeypatch):
    calls = []
    monkeypatch.setattr(panel.workflow, "poll", lambda: calls.append(1) or 1 / 0)
    panel.timer.start()
    panel.on_timer()
    assert not panel.timer.isActive() and "unforeseen" in panel.ui.errorLabel.text()
    choose(panel, "brain")
    assert panel.timer.isActive()


def test_who_declines_the_runtime_is_told_what_that_means(panel):
    panel.asked.missing = panel.asked.declines = True
    choose(panel, "prostate")
    panel.ui.sampleButton.click()
    panel.ui.runButton.click()
    assert "Nothing was segmented" in panel.ui.errorLabel.text()
    assert panel.workflow.state.progress is None
    panel.asked.declines = False
    panel.ui.runButton.click()
    assert not panel.ui.errorLabel.text() and panel.workflow.state.progress is not None


def test_a_missing_runtime_is_announced_until_it_is_there(panel):
    panel.asked.missing = True
    panel.begin()
    choose(panel, "prostate")
    panel.ui.sampleButton.click()
    assert "ONNX Runtime" in panel.ui.statusLabel.text()
    panel.ui.runButton.click()
    assert not panel.runtime_missing


def test_an_imported_model_can_be_removed(panel, tmp_path):
    import shutil

    shutil.copytree(BUNDLED_CATALOG.parent / "phantom-brain", tmp_path / "own")
    metadata = tmp_path / "own" / "configs" / "metadata.json"
    text = metadata.read_text(encoding="utf-8")
    metadata.write_text(text.replace('"phantom-brain"', '"own-brain"'), encoding="utf-8")
    panel.workflow.offers.store.import_file(tmp_path / "own")
    panel.on_search(text="own-brain")
    panel.ui.cardList.setCurrentRow(0)
    assert "Stored in:" in panel.ui.cardDetails.text()
    panel.ui.removeButton.click()
    assert "was removed" in panel.ui.statusLabel.text()
    assert not panel.workflow.offers.store.installed()
    panel.on_search(text="")
    choose(panel, "brain")
    assert panel.ui.removeButton.isHidden(), "it came with the program"


def test_a_second_run_is_announced_with_the_time_of_the_first(panel):
    segment_sample(panel)
    import slicer

    slicer.mrmlScene.Clear(0)
    choose(panel, "prostate")
    panel.ui.sampleButton.click()
    assert "as the last run on this computer" in panel.ui.statusLabel.text()


def test_what_an_export_came_to_is_said_beside_its_buttons(panel, tmp_path):
    segment_sample(panel)
    assert "no verdict yet" in panel.ui.exportHint.text()
    panel.dialogs.ask_export = lambda kind: str(tmp_path / "volumes.csv")
    panel.ui.exportTableButton.click()
    assert panel.ui.exportHint.text().startswith("Wrote")
    panel.dialogs.ask_export = lambda kind: str(tmp_path / "nowhere" / "volumes.csv")
    panel.ui.exportTableButton.click()
    assert "could not be written" in panel.ui.exportHint.text()


def test_a_report_compares_with_an_earlier_result_and_has_the_psa_density(panel, tmp_path):
    segment_sample(panel)
    assert panel.ui.priorBox.isHidden(), "there is none yet"
    panel.ui.runButton.click()
    wait_for_result(panel)
    panel.ui.priorBox.setCurrentIndex(1)
    panel.ui.psaBox.setValue(6.2)
    panel.dialogs.ask_export = lambda kind: str(tmp_path / "report.html")
    panel.ui.exportReportButton.click()
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Change (mL)" in report and "PSA density" in report
    panel.ui.resultBox.setCurrentIndex(0)
    panel.ui.reviewAgainButton.click()
    assert panel.ui.psaBox.value() == 0, "another result may be of another patient"


def test_nothing_happens_while_there_is_no_scene(panel):
    """Boxes of Slicer change when a scene is closed, before there is a new one."""
    panel.end()
    for button in panel.panel.EXPORTS:
        getattr(panel.ui, button).setEnabled(True)
        getattr(panel.ui, button).click()
    panel.ui.targetBox.currentNodeIDChanged.emit("")
    panel.ui.deviceBox.setCurrentIndex(1)
    panel.ui.searchBox.setText("brain")
    panel.begin()
    assert panel.ui.cardList.count() == 1


def test_a_closed_scene_leaves_nothing_behind(panel):
    import slicer

    segment_sample(panel)
    slicer.mrmlScene.Clear(0)
    slicer.mrmlScene.InvokeEvent(slicer.mrmlScene.StartCloseEvent)
    slicer.mrmlScene.InvokeEvent(slicer.mrmlScene.EndCloseEvent)
    panel.timer.stop()
    assert panel.workflow.state.review is None
    assert panel.ui.reviewTable.rowCount() == 0


def test_the_panel_lives_through_the_removal_of_what_is_reviewed(panel):
    import slicer

    segment_sample(panel)
    panel.ui.reviewTable.selectRow(0)
    panel.ui.editButton.click()
    slicer.mrmlScene.RemoveNode(panel.workflow.result.store.node)
    panel.on_timer()
    panel.ui.finishEditButton.click()
    panel.ui.nextPlaceButton.click()
    panel.ui.acceptButton.click()
    panel.on_timer()
    assert panel.workflow is not None


def test_a_scene_that_is_loaded_is_followed_and_a_review_is_not_disturbed(panel, tmp_path):
    import slicer

    segment_sample(panel)
    review = panel.workflow.review
    slicer.mrmlScene.InvokeEvent(slicer.mrmlScene.EndImportEvent)
    assert panel.workflow.review is review
    panel.ui.reviewTable.selectRow(0)
    panel.ui.acceptButton.click()
    panel.workflow.export(Export.SCENE, tmp_path / "scene.mrb")
    slicer.mrmlScene.Clear(0)
    assert panel.ui.reviewTable.rowCount() == 0
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.InvokeEvent(slicer.mrmlScene.EndImportEvent)
    assert panel.ui.resultBox.count() == 1 and not panel.ui.resultBox.isHidden()
    panel.ui.reviewAgainButton.click()
    assert "accepted" in verdict(panel, 0)


def test_nothing_is_painted_or_followed_while_another_module_is_shown(panel):
    segment_sample(panel)
    panel.ui.reviewTable.selectRow(1)
    panel.ui.editButton.click()
    panel.exit()
    assert panel.editor.widget.effect is None and not panel.editor.widget.observes_views
    panel.ui.sampleButton.setEnabled(True)
    import slicer

    slicer.util.loadVolume(panel.asked.volumes[0], {"name": "another"})
    panel.on_timer()
    assert "another" not in panel_images(panel)
    panel.enter()
    panel.on_timer()
    assert "another" in panel_images(panel)


def panel_images(panel):
    return [image.name for image in panel.workflow.images]


def test_cleanup_leaves_no_observer_on_the_scene(panel):
    import slicer

    assert slicer.mrmlScene.HasObserver(slicer.mrmlScene.StartCloseEvent)
    panel.cleanup()
    for event in ("StartCloseEvent", "EndCloseEvent", "EndImportEvent"):
        assert not any(
            observed == getattr(slicer.mrmlScene, event) for _, observed, *_ in panel.Observations
        )
    slicer.mrmlScene.Clear(0)
    assert panel.workflow is None and not panel.timer.isActive()


def test_reload_drops_everything_that_was_imported(panel):
    assert any(name.startswith("MIMSegment.") for name in sys.modules)
    before = {n: m for n, m in sys.modules.items() if n.startswith("MIMSegment.")}
    panel.onReload()
    assert panel.reloaded
    assert not any(name.startswith("MIMSegment.") for name in sys.modules)
    sys.modules.update(before)
    panel.begin()
