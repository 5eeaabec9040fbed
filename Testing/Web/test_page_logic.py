"""The page's own logic without a browser: real scene, real worker process, real package."""

import json

import numpy as np
import pytest

pytest.importorskip("trame_slicer", reason="needs mimsegment[web]")

from MIMSegment.Logic.audit import read_log
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.samples import sample_study
from MIMSegment.Logic.scene_labels import labels_from_segmentation
from MIMSegment.Logic.workflow_state import Export
from mimsegment_web.settings import Settings
from mimsegment_web.views import THREE_D
from page_case import SAMPLE, in_page, segment


def test_the_whole_way_from_a_sample_to_written_results(tmp_path):
    async def act(app):
        await segment(app)
        state, actions = app.server.state, app.actions
        assert [row["name"] for row in state.wf["inputs"]] == ["T2w", "ADC", "DWI"]
        rows = {row["name"]: row["id"] for row in state.review["rows"]}
        assert len(rows) == 4 and state.images[0]["name"] == "T2w"
        actions.next_place()
        place = app.workflow.review.state.place
        assert np.allclose(app.view.views.position, place.position, atol=1.6)

        actions.accept(rows["transition zone"])
        before = labels_from_segmentation(app.view.segmentation)[0]
        actions.edit(rows["lesion 1"])
        tool, at, up = app.actions._pointer.tool, app.view.views.position, np.array([0, 0, 1.0])
        tool.press("Axial", at, up, (0, 0))
        assert actions.painting
        tool.drag("Axial", at + np.array([6.0, 0, 0]), up, (6, 0))
        tool.release("Axial")
        actions.finish_edit()
        after = labels_from_segmentation(app.view.segmentation)[0]
        assert (after != before).any() and ((after == 2) == (before == 2)).all()
        actions.comment(rows["lesion 1"], "Looked at")
        actions.reject(rows["peripheral zone"])
        verdicts = {r["name"]: r["verdict"] for r in _rows(app)}
        assert verdicts == {
            "transition zone": "accepted",
            "lesion 1": "editing",
            "lesion 2": "open",
            "peripheral zone": "rejected",
        }

        actions.export(str(Export.LABELS))
        actions.export(str(Export.LABELS))
        await app.settle()
        names = [f["name"] for f in state.written]
        assert len(set(names)) == 2 and all((app.study.folder / n).is_file() for n in names)
        events = [e["event"] for e in read_log(app.study.folder / "review.audit.jsonl")]
        assert events[0] == "segmented" and {"accept", "edit", "reject"} <= set(events)

    in_page(Settings(output=tmp_path), act)


def _rows(app):
    app.refresh()
    return app.server.state.review["rows"]


def test_slices_are_counted_and_chosen_as_in_the_file(tmp_path):
    async def act(app):
        app.actions.open_sample(SAMPLE)
        await app.settle()
        app.view.tell_position()  # the page is told a few times a second only
        counts = {name: s["count"] for name, s in app.server.state.slices.items()}
        assert counts == {"Axial": 20, "Sagittal": 152, "Coronal": 136}
        for index in (1, 2, 19, 20):
            app.actions.set_slice("Axial", index)
            app.view.tell_position()
            assert app.server.state.slices["Axial"]["index"] == index

    in_page(Settings(output=tmp_path), act)


def test_a_review_goes_on_after_the_server_has_ended(tmp_path):
    async def first(app):
        await segment(app)
        row = _rows(app)[0]["id"]
        app.actions.accept(row)
        app.actions.comment(row, "As expected")
        return _rows(app), labels_from_segmentation(app.view.segmentation)[0]

    async def second(app):
        app.actions.open_sample(SAMPLE)
        await app.settle()
        assert app.study.resumable
        app.actions.resume()
        return _rows(app), labels_from_segmentation(app.view.segmentation)[0]

    rows, labels = in_page(Settings(output=tmp_path), first)
    again, restored = in_page(Settings(output=tmp_path), second)
    assert (labels == restored).all()
    kept = ("name", "verdict", "comment", "volume", "confidence", "edited")
    assert [[r[k] for k in kept] for r in rows] == [[r[k] for k in kept] for r in again]


def test_cancel_changes_nothing_and_the_next_study_begins_afresh(tmp_path):
    async def act(app):
        app.actions.open_sample(SAMPLE)
        await app.settle()
        app.actions.run()
        await app.settle(lambda: app.workflow.state.progress is not None)
        app.actions.cancel()
        await app.settle()
        assert app.workflow.review is None
        assert "cancelled" in app.server.state.wf["message"]
        await segment(app)
        first = app.study.folder
        app.actions.open_paths([sample_study("phantom-brain").folder])
        await app.settle()
        state = app.server.state
        assert state.review is None and state.written == []
        assert app.study.folder != first and (first / "review.npz").is_file()
        assert app.view.segmentation is None

    in_page(Settings(output=tmp_path), act)


def test_segmenting_what_is_still_being_read_is_answered(tmp_path):
    async def act(app):
        app.actions.open_sample(SAMPLE)
        await app.settle()
        app.actions.open_sample(SAMPLE)  # the page may show the study before for a moment
        with pytest.raises(InputError, match="Looking for images: wait a moment"):
            app.actions.run_or_ask()
        assert app.workflow.state.progress is None

    in_page(Settings(output=tmp_path), act)


def test_a_wrong_file_is_one_sentence_and_the_next_study_opens(tmp_path):
    wrong = tmp_path / "letter.txt"
    wrong.write_text("Dear colleague")

    async def act(app):
        app.actions.choose(SAMPLE)
        app.actions.open_paths([wrong])
        await app.settle()
        error = app.server.state.wf["error"]
        assert "letter.txt" in error["message"] and not error["report"]
        app.actions.open_sample(SAMPLE)
        await app.settle()
        assert app.server.state.wf["error"] is None and app.server.state.wf["can"]["run"]["on"]

    in_page(Settings(output=tmp_path), act)


def test_what_the_page_is_told_can_be_sent(tmp_path):
    async def act(app):
        await segment(app)
        json.dumps({key: app.server.state[key] for key in ("wf", "review", "cards", "slices")})

    in_page(Settings(output=tmp_path), act)


def test_a_damaged_catalog_is_said_on_the_page(tmp_path, monkeypatch):
    monkeypatch.setenv("MIMSEGMENT_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "catalogs").mkdir(parents=True)
    (tmp_path / "home" / "catalogs" / "hospital.json").write_text('{"packages": [],}')

    async def act(app):
        (warning,) = app.server.state.wf["catalog_warnings"]
        assert "hospital.json is not valid JSON" in warning
        assert app.server.state.cards

    in_page(Settings(output=tmp_path / "out"), act)


def test_psa_becomes_a_density_in_the_report(tmp_path):
    async def act(app):
        await segment(app)
        state = app.server.state
        assert state.review["psa"]
        state.psa = "six"
        app.actions.export(str(Export.REPORT))
        await app.settle()
        assert "PSA of six" in state.wf["error"]["message"]
        state.psa = "6,3"
        app.actions.export(str(Export.REPORT))
        await app.settle()
        report = (app.study.folder / state.written[0]["name"]).read_text(encoding="utf-8")
        assert state.wf["error"] is None and "PSA density" in report
        app.actions.open_paths([sample_study("phantom-brain").folder])
        assert state.psa == ""

    in_page(Settings(output=tmp_path), act)


def test_the_3d_view_shows_the_patients_sides(tmp_path):
    async def act(app):
        node = app.view.views.all[THREE_D].get_view_node()
        assert node.GetOrientationMarkerType() == node.OrientationMarkerTypeAxes

    in_page(Settings(output=tmp_path), act)
