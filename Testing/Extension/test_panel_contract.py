"""Widget contract tests: the panel with real Qt and real MRML, and stand-ins for the rest."""

import shutil
import sys
import types

import pytest

pytest.importorskip("PySide6", reason="needs PySide6 (the extra tests)")
pytest.importorskip("slicer", reason="needs slicer-core (the extra web)")

import slicer
from PySide6 import QtWidgets

from MIMSegment.Logic.catalog import BUNDLED_CATALOG
from MIMSegment.Logic.run_times import RunTime, RunTimes
from panel_case import choose, names, new_panel, open_sample, segment_sample, until_free, verdict


@pytest.fixture
def panel(application, monkeypatch, tmp_path):
    panel = new_panel(monkeypatch, tmp_path / "home")
    yield panel
    panel.cleanup()


def test_the_module_says_what_it_is(panel):
    """Slicer's generic test of modules fails where help or acknowledgment is empty."""
    import MIMSegment

    parent = types.SimpleNamespace()
    MIMSegment.MIMSegment(parent)
    assert parent.title == "MIM Segment" and parent.categories == ["Segmentation"]
    assert "Not a medical device" in parent.helpText
    assert len(parent.acknowledgementText) > 40 and parent.contributors


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


def test_a_damaged_catalog_is_said_and_the_other_models_are_there(panel, tmp_path):
    everything, ui = panel.ui.cardList.count(), panel.ui
    assert ui.catalogLabel.isHidden()
    (tmp_path / "home" / "catalogs").mkdir(parents=True)
    (tmp_path / "home" / "catalogs" / "hospital.json").write_text('{"packages": [],}')
    panel.begin()
    assert "hospital.json is not valid JSON" in ui.catalogLabel.text()
    assert not ui.catalogLabel.isHidden()
    assert ui.cardList.count() == everything


def test_a_choice_shows_license_and_training_data_and_asks_for_inputs(panel):
    choose(panel, "prostate")
    assert "Apache-2.0" in panel.ui.cardDetails.text()
    assert "phantom" in panel.ui.cardDetails.text()
    assert list(panel.view.input_boxes) == ["T2w", "ADC", "DWI"]
    assert not panel.ui.runButton.isEnabled()
    assert "No image is loaded" in panel.ui.runButton.toolTip()


def test_the_sample_fills_the_inputs_with_reasons(panel):
    open_sample(panel)
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
    assert "none yet" in verdict(panel, 0)
    panel.ui.reviewTable.selectRow(1)
    panel.ui.editButton.click()
    assert "editing" in verdict(panel, 1)
    assert panel.editor.widget.segment_id == panel.chosen[0]
    assert panel.editor.widget.segmentation_node is panel.workflow.result.store.node
    panel.ui.finishEditButton.click()
    assert "none yet" in verdict(panel, 1), "nothing was painted"
    panel.ui.rejectButton.click()
    assert "rejected" in verdict(panel, 1)


def test_what_speaks_against_a_run_is_asked_about_beside_an_open_review_too(panel):
    segment_sample(panel)
    image = panel.workflow.input_images[1][1].node.GetImageData()
    image.GetPointData().GetScalars().Fill(0)
    image.Modified()
    panel.on_timer()
    assert panel.ui.runButton.text() == "Segment"
    panel.ui.runButton.click()
    assert panel.workflow.state.progress is None and panel.workflow.review is not None
    assert "Nothing was segmented. ADC is empty" in panel.ui.statusLabel.text()
    assert panel.ui.runButton.text() == "Segment anyway" and panel.ui.runButton.isEnabled()
    panel.ui.runButton.click()
    assert panel.workflow.state.progress is not None


def test_cancel_leaves_everything_ready_for_another_run(panel):
    open_sample(panel)
    panel.ui.runButton.click()
    assert panel.ui.cancelButton.isEnabled()
    panel.ui.cancelButton.click()
    until_free(panel)
    assert "cancelled" in panel.ui.statusLabel.text()
    assert panel.ui.runButton.isEnabled()


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
    open_sample(panel)
    panel.ui.runButton.click()
    assert "Nothing was segmented" in panel.ui.errorLabel.text()
    assert panel.workflow.state.progress is None
    panel.asked.declines = False
    panel.ui.runButton.click()
    assert not panel.ui.errorLabel.text() and panel.workflow.state.progress is not None


def test_a_missing_runtime_is_announced_until_it_is_there(panel):
    panel.asked.missing = True
    panel.begin()
    open_sample(panel)
    assert "ONNX Runtime" in panel.ui.statusLabel.text()
    panel.ui.runButton.click()
    assert not panel.runtime_missing


def test_an_imported_model_can_be_removed(panel, tmp_path):
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
    store = panel.workflow.offers.store
    times = RunTimes(store.location() / ".run_times.json")
    times.note("phantom-prostate@1.0.0", "auto", RunTime(7.2, 10**6, "a processor"))
    open_sample(panel)
    assert "About 7 s (a processor), as the last run" in panel.ui.statusLabel.text()


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


def test_cleanup_leaves_no_observer_on_the_scene(panel):
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
