"""What was decided is kept: after a restart, for a new run, and under names that the user knows."""

import asyncio

import numpy as np
import pytest

pytest.importorskip("trame_slicer", reason="needs mimsegment[web]")

from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.samples import sample_study
from mimsegment_web.settings import Settings
from mimsegment_web.study_files import study_folder
from mimsegment_web.uploads import Uploads
from page_case import SAMPLE, in_page, segment


def decided(app):
    app.refresh()
    return app.server.state.review["decided"]


def test_a_saved_review_brings_its_model_and_is_kept_when_segmenting_again(tmp_path):
    async def first(app):
        await segment(app)
        app.actions.accept(app.workflow.review.state.items[0].id)

    async def second(app):
        app.actions.open_paths([sample_study(SAMPLE).folder])
        await app.settle()
        state = app.server.state
        assert state.resumable and state.wf["package"] is None and "1 of" in state.saved_review
        app.actions.resume()
        await app.settle(lambda: app.workflow.review is not None)
        assert state.wf["package"]["key"].startswith(SAMPLE) and decided(app) == 1

        for press in (app.actions.run_or_ask, app.actions.run_anyway_or_ask):
            state.again = False
            press()
            assert state.again and app.workflow.state.progress is None
        before = app.workflow.review
        app.actions.run_again()
        await app.settle(lambda: app.workflow.review is not before)
        await app.settle()
        assert decided(app) == 0 and not state.again and len(app.gateway.results()) == 1
        assert (app.study.folder / "review-1.npz").is_file()
        app.actions.run_or_ask()  # nothing is decided yet, so nothing is asked
        assert not state.again and app.workflow.state.progress is not None

    in_page(Settings(output=tmp_path), first)
    in_page(Settings(output=tmp_path), second)


def test_files_of_two_patients_with_equal_names_and_sizes_are_two_studies(tmp_path):
    folders = []
    for patient, bytes_of_file in (("a", b"1.2.3"), ("b", b"1.2.4"), ("c", b"1.2.3")):
        study = tmp_path / patient / "DICOM"
        study.mkdir(parents=True)
        (study / "IM0001").write_bytes(bytes_of_file)
        folders.append(study_folder(tmp_path, [study]))
    assert folders[0] != folders[1] and folders[0] == folders[2]


def test_a_view_shows_the_same_part_of_the_image_at_every_size(tmp_path):
    async def resized(app):
        app.actions.open_sample(SAMPLE)
        await app.settle(lambda: app.view.views.image is not None)
        view = app.view.views.slices["Axial"]
        node = view.get_view_node()
        shown = []
        for size in ((400, 380), (800, 790), (400, 380)):
            view.render_window().SetSize(*size)
            view.interactor().InvokeEvent("WindowResizeEvent")
            width, height, _ = node.GetFieldOfView()
            assert np.isclose(width / height, size[0] / size[1])
            shown.append(min(width, height))
        assert np.allclose(shown, shown[0])

    in_page(Settings(output=tmp_path), resized)


def sent(uploads, names):
    """Send empty files as the page does; what `opened` heard."""

    async def send():
        from aiohttp.test_utils import TestClient, TestServer
        from aiohttp.web import Application

        app = Application()
        uploads.install(app)
        async with TestClient(TestServer(app)) as client:
            answer = await client.post("/upload/begin", json={"files": len(names), "bytes": 0})
            identifier = (await answer.json())["id"]
            for name in names:
                await client.put(f"/upload/{identifier}", params={"name": name})
            return await client.post(f"/upload/{identifier}/done")

    return asyncio.run(send())


def test_files_that_were_sent_keep_the_names_that_the_user_knows():
    heard = []
    uploads = Uploads(10, _hear(heard))
    assert sent(uploads, ["b.nrrd", "a.nrrd", "c.nrrd"]).status == 200
    folder, title = heard.pop()
    assert title == "a.nrrd and 2 more"
    assert uploads.plain(f"{folder / 'a.nrrd'} is damaged.") == "a.nrrd is damaged."
    assert sent(uploads, ["Study/1.dcm", "Study/2.dcm"]).status == 200
    assert heard.pop()[1] == "Study" and not folder.exists()
    uploads.close()


def test_a_study_that_cannot_be_opened_now_leaves_the_open_one_alone():
    heard = []
    uploads = Uploads(10, _hear(heard))
    sent(uploads, ["a.nrrd"])
    uploads._opened = _refuse
    assert sent(uploads, ["b.nrrd"]).status == 422
    assert heard[0][0].is_file()
    uploads.close()


def _hear(heard):
    async def hear(*study):
        heard.append(study)

    return hear


async def _refuse(path, title):
    raise InputError("Wait until the segmentation has ended.")
