"""Widget contract tests of the review: the panel on a scene with a finished segmentation."""

import pytest

pytest.importorskip("PySide6", reason="needs PySide6 (the extra tests)")
pytest.importorskip("slicer", reason="needs slicer-core (the extra web)")

import slicer
from PySide6 import QtTest, QtWidgets

from MIMSegment.Logic.finding import Finding, Severity
from MIMSegment.Logic.panel_exports import with_ending
from MIMSegment.Logic.panel_review import findings_title
from MIMSegment.Logic.samples import sample_study
from MIMSegment.Logic.workflow_state import Export
from panel_case import load_scene, new_panel, segment_sample, verdict


@pytest.fixture(scope="module")
def finished(application, tmp_path_factory):
    """A scene with the sample study and its segmentation, made in the panel."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        panel = new_panel(patch, folder / "home")
        segment_sample(panel)
        panel.workflow.export(Export.SCENE, folder / "scene.mrb")
        panel.cleanup()
    return folder / "scene.mrb"


@pytest.fixture
def panel(finished, monkeypatch, tmp_path):
    """Reviews the finished segmentation."""
    panel = new_panel(monkeypatch, tmp_path / "home")
    load_scene(finished)
    panel.ui.reviewAgainButton.click()
    yield panel
    panel.cleanup()


def test_the_next_doubtful_place_selects_its_structure(panel):
    panel.ui.nextPlaceButton.click()
    assert panel.ui.placeLabel.text().startswith("Place 1 of")
    assert panel.chosen == (panel.workflow.review.state.place.segment_id,)


def test_a_comment_is_kept_with_the_structure(panel):
    panel.ui.reviewTable.selectRow(0)
    panel.ui.commentEdit.setText("apex is cut off")
    panel.ui.commentEdit.editingFinished.emit()
    assert "apex is cut off" in panel.ui.reviewTable.item(0, 4).text()


def test_what_an_export_came_to_is_said_beside_its_buttons(panel, tmp_path):
    assert "no verdict yet" in panel.ui.exportHint.text()
    panel.dialogs.ask_export = lambda kind: str(tmp_path / "volumes.csv")
    panel.ui.exportTableButton.click()
    assert panel.ui.exportHint.text().startswith("Wrote")
    panel.dialogs.ask_export = lambda kind: str(tmp_path / "nowhere" / "volumes.csv")
    panel.ui.exportTableButton.click()
    assert "could not be written" in panel.ui.exportHint.text()


@pytest.mark.parametrize(
    ("kind", "chosen", "written"),
    [("report", "a", "a.html"), ("report", "a.htm", "a.htm"), ("labels", "a.nrrd", "a.nrrd"),
     ("segmentation", "a", "a.seg.nrrd"), ("table", "there", "there_2.csv"), ("scene", "", ""),
     ("training", "folder", "folder")],
)  # fmt: skip
def test_a_name_without_an_ending_gets_it_and_replaces_no_file(tmp_path, kind, chosen, written):
    (tmp_path / "there.csv").write_text("earlier")
    path = str(tmp_path / chosen) if chosen else ""
    assert with_ending(path, Export(kind)) == (str(tmp_path / written) if written else "")


def test_a_report_compares_with_another_result_and_has_the_psa_density(panel, finished, tmp_path):
    assert panel.ui.priorBox.isHidden(), "there is none yet"
    load_scene(finished)
    panel.ui.priorBox.setCurrentIndex(1)
    panel.ui.psaBox.setValue(6.2)
    panel.dialogs.ask_export = lambda kind: str(tmp_path / "report.html")
    panel.ui.exportReportButton.click()
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Change (mL)" in report and "PSA density" in report
    panel.ui.resultBox.setCurrentIndex(0)
    panel.ui.reviewAgainButton.click()
    assert panel.ui.psaBox.value() == 0, "another result may be of another patient"


def test_a_closed_scene_leaves_nothing_behind(panel):
    slicer.mrmlScene.Clear(0)
    slicer.mrmlScene.InvokeEvent(slicer.mrmlScene.StartCloseEvent)
    slicer.mrmlScene.InvokeEvent(slicer.mrmlScene.EndCloseEvent)
    panel.timer.stop()
    assert panel.workflow.state.review is None
    assert panel.ui.reviewTable.rowCount() == 0


def test_the_panel_lives_through_the_removal_of_what_is_reviewed(panel):
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
    review = panel.workflow.review
    slicer.mrmlScene.InvokeEvent(slicer.mrmlScene.EndImportEvent)
    assert panel.workflow.review is review
    panel.ui.reviewTable.selectRow(0)
    panel.ui.acceptButton.click()
    panel.workflow.export(Export.SCENE, tmp_path / "scene.mrb")
    slicer.mrmlScene.Clear(0)
    assert panel.ui.reviewTable.rowCount() == 0
    load_scene(tmp_path / "scene.mrb")
    assert panel.ui.resultBox.count() == 1 and not panel.ui.resultBox.isHidden()
    panel.ui.reviewAgainButton.click()
    assert "accepted" in verdict(panel, 0)


def test_nothing_is_painted_or_followed_while_another_module_is_shown(panel):
    panel.ui.reviewTable.selectRow(1)
    panel.ui.editButton.click()
    panel.exit()
    assert panel.editor.widget.effect is None and not panel.editor.widget.observes_views
    slicer.util.loadVolume(sample_study("phantom-prostate").files["T2w"], {"name": "another"})
    panel.on_timer()
    assert "another" not in panel_images(panel)
    panel.enter()
    panel.on_timer()
    assert "another" in panel_images(panel)


def panel_images(panel):
    return [image.name for image in panel.workflow.images]


def test_keys_decide_while_the_list_has_the_focus_and_nowhere_else(panel):
    window = panel.ui.reviewTable.window()
    window.show()
    window.activateWindow()
    panel.ui.reviewTable.selectRow(0)
    for widget, decides in ((panel.ui.commentEdit, False), (panel.ui.reviewTable, True)):
        widget.setFocus()
        QtWidgets.QApplication.processEvents()
        QtTest.QTest.keyClick(widget, "a")
        assert ("accepted" in verdict(panel, 0)) is decides, type(widget)
    QtTest.QTest.keyClick(panel.ui.reviewTable, "u")
    assert "none yet" in verdict(panel, 0)


def test_the_3d_button_finds_the_surfaces_made(panel):
    segmentation = panel.workflow.result.store.node.GetSegmentation()
    assert not segmentation.ContainsRepresentation("Closed surface"), "only when asked for"
    panel.ui.show3DButton.click()
    assert segmentation.ContainsRepresentation("Closed surface")


def test_chosen_rows_are_decided_together_and_undone_in_one_step(panel):
    table = panel.ui.reviewTable
    table.selectRow(1)
    for column in range(table.columnCount()):
        table.item(3, column).setSelected(True)
    assert len(panel.chosen) == 2
    panel.ui.rejectButton.click()
    marks = ["rejected" in verdict(panel, row) for row in range(4)]
    assert marks == [False, True, False, True]
    assert [table.item(row, 0).isSelected() for row in range(4)] == marks, "still chosen"
    panel.ui.undoButton.click()
    assert not any("rejected" in verdict(panel, row) for row in range(4))


def test_all_the_rest_is_decided_with_one_button(panel):
    panel.ui.reviewTable.selectRow(2)
    panel.ui.rejectButton.click()
    assert "3 structures" in panel.ui.acceptRestButton.toolTip()
    panel.ui.acceptRestButton.click()
    assert ["accepted" in verdict(panel, row) for row in range(4)] == [True, True, False, True]
    assert not panel.ui.acceptRestButton.isEnabled()
    panel.ui.reviewTable.selectRow(0)
    panel.ui.undoButton.click()
    undecided = ["none yet" in verdict(panel, row) for row in range(4)]
    assert undecided == [True, True, False, True]


def test_the_3d_view_shows_its_sides_and_leaves_the_users_marker(panel):
    first, second = (slicer.mrmlScene.AddNewNodeByClass("vtkMRMLViewNode") for _ in range(2))
    second.SetOrientationMarkerType(second.OrientationMarkerTypeHuman)
    panel.ui.show3DButton.click()
    assert first.GetOrientationMarkerType() == first.OrientationMarkerTypeAxes
    assert second.GetOrientationMarkerType() == second.OrientationMarkerTypeHuman


def test_the_title_of_the_checks_counts_the_gravest():
    note, warning, alert = (Finding("code", severity, "Text.") for severity in Severity)
    assert findings_title([note, alert, warning, warning]) == "Checks: 1 alert"
    assert findings_title([note, alert, alert]) == "Checks: 2 alerts"
    assert findings_title([note, warning]) == "Checks: 1 warning"
    assert findings_title([note]) == "Checks: nothing serious"
