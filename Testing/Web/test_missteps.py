"""What a hand that slips may do during a review, and what stays as it was."""

import numpy as np
import pytest

pytest.importorskip("trame_slicer", reason="needs mimsegment[web]")

from MIMSegment.Logic.errors import InputError, OutputError
from mimsegment_web.settings import Settings
from mimsegment_web.views import THREE_D
from page_case import SAMPLE, in_page, segment


def test_pointing_beside_the_image_stays_at_its_border(tmp_path):
    async def act(app):
        app.actions.open_sample(SAMPLE)
        await app.settle()
        middle = app.view.views.position
        app.actions.go_to(middle + np.array([500.0, 0, 0]))
        assert app.view.views.value() is not None
        app.view.tell_position()
        assert app.server.state.slices["Sagittal"]["index"] in (1, 152)

    in_page(Settings(output=tmp_path), act)


def test_a_wrong_file_does_not_end_the_review(tmp_path):
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear colleague")

    async def act(app):
        await segment(app)
        review, study = app.workflow.review, app.workflow.state.study
        with pytest.raises(InputError, match=r"letter\.txt holds no image"):
            await app._uploaded(letter, "letter.txt")
        assert app.workflow.review is review and app.workflow.state.study == study

    in_page(Settings(output=tmp_path), act)


def test_a_disk_that_was_full_for_a_moment_is_not_the_last_word(tmp_path):
    async def act(app):
        await segment(app)
        saved = app.study.folder / "review.npz"
        app.study.save_now()
        saved.unlink()
        saved.mkdir()  # so that nothing can be written there
        items = app.workflow.review.state.items
        app.actions.accept(items[0].id)
        app.study.save_now()
        assert app.study.problem.startswith("The review is not saved")
        saved.rmdir()
        app.study.save_now()  # nothing has changed since, but that is not on the disk
        assert saved.is_file() and app.study.problem == ""

    in_page(Settings(output=tmp_path), act)


def test_a_review_that_cannot_be_saved_is_not_left_for_another_study(tmp_path):
    async def act(app):
        await segment(app)
        saved, review = app.study.folder / "review.npz", app.workflow.review
        app.study.save_now()
        saved.unlink()
        saved.mkdir()
        app.actions.accept(review.state.items[0].id)
        with pytest.raises(OutputError, match=r"not saved.*stays open"):
            app.actions.open_sample("phantom-brain")
        assert app.workflow.review is review
        saved.rmdir()
        app.actions.open_sample("phantom-brain")
        assert saved.is_file() and app.workflow.review is not review

    in_page(Settings(output=tmp_path), act)


def test_editing_and_doubtful_places_show_the_slices_when_3d_was_enlarged(tmp_path):
    async def act(app):
        await segment(app)
        state, row = app.server.state, app.workflow.review.state.items[0].id
        for step in (app.actions.next_place, lambda: app.actions.edit(row)):
            app.actions.maximize(THREE_D)
            step()
            assert state.maximized == ""
        app.actions.finish_edit()
        app.actions.maximize("Axial")
        app.actions.next_place()
        assert state.maximized == "Axial"

    in_page(Settings(output=tmp_path), act)
