"""Steps that cross each other: notes while painting, a new result during the review of the last."""

import json

import numpy as np
import pytest

pytest.importorskip("trame_slicer", reason="needs mimsegment[web]")

from MIMSegment.Logic.review_items import Verdict
from MIMSegment.Logic.samples import sample_study
from MIMSegment.Logic.volume import Geometry, Volume, write_volume
from mimsegment_web.settings import Settings
from page_case import SAMPLE, in_page, segment


def rows(app):
    return [item.id for item in app.workflow.review.state.items]


def seen(app):
    """The names of the images that can be shown."""
    return [image["name"] for image in app.server.state.images]


async def another_run(app):
    before = app.workflow.review
    app.actions.run_anyway()
    await app.settle(lambda: app.workflow.review is not before)
    await app.settle()


def saved(folder, name="review.json"):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_whatever_ends_an_edit_puts_the_brush_away_and_a_comment_ends_none(tmp_path):
    async def act(app):
        await segment(app)
        first, second, *_ = rows(app)
        app.actions.accept(second)
        for step in (
            lambda: app.actions.reopen(second),
            lambda: app.actions.select(second),
            app.actions.run_again,
        ):
            app.actions.edit(first)
            app.actions.comment(first, "too small")
            assert app.workflow.review.state[first].comment == "too small"
            assert app.workflow.review.state.editing == first
            assert app.server.state.tool == "paint"
            step()
            assert app.server.state.tool == "crosshair"
            assert app.workflow.review.state.editing is None

    in_page(Settings(output=tmp_path), act)


def test_an_image_that_is_chosen_in_place_of_another_is_the_one_that_is_seen(tmp_path):
    rng, study = np.random.default_rng(0), tmp_path / "study"
    study.mkdir()
    for name, value in (("before_ct", 100), ("after_ct", 200)):
        array = rng.integers(value - 9, value + 9, (1, 12, 20, 20)).astype(np.int16)
        write_volume(
            Volume(array, Geometry.from_parts((12, 20, 20), (3, 2, 2))), study / f"{name}.nii"
        )

    async def act(app):
        app.actions.choose("phantom-abdomen")
        app.actions.open_paths([study])
        await app.settle()
        for name, value in (("before_ct", 100), ("after_ct", 200)):
            (source,) = (s.id for s in app.workflow.images if s.name.startswith(name))
            app.actions.assign("CT", source)
            await app.settle(lambda: app.workflow.state.busy)
            await app.settle()
            assert seen(app) == ["CT"] and abs(app.view.views.value() - value) < 10
        await another_run(app)
        (source,) = (s.id for s in app.workflow.images if s.name.startswith("before_ct"))
        app.actions.assign("CT", source)
        await app.settle(lambda: app.workflow.state.busy)
        await app.settle()
        assert len(seen(app)) == 2, "the one of the review and the one for the next run"
        await another_run(app)
        assert seen(app) == ["CT"] and abs(app.view.views.value() - 100) < 10

    in_page(Settings(output=tmp_path), act)


def test_what_is_decided_while_a_new_result_is_on_its_way_is_kept(tmp_path):
    async def act(app):
        await segment(app)
        first, second, third, *_ = rows(app)
        app.actions.accept(first)
        app.actions.run_again()
        await app.settle(lambda: app.workflow.state.progress is not None)
        before = app.workflow.review
        app.actions.reject(second)
        app.actions.edit(third)
        await app.settle(lambda: app.workflow.review is not before)
        app.refresh()
        assert app.server.state.tool == "crosshair"
        kept = saved(app.study.folder, "review-1.json")["records"]
        decided = {r["id"]: r["verdict"] for r in kept if Verdict(r["verdict"]).resolved}
        assert decided == {first: "accepted", second: "rejected"}

    in_page(Settings(output=tmp_path), act)


def test_exports_after_a_restart_have_the_whole_log_and_collect_training_cases(tmp_path):
    async def first(app):
        await segment(app)
        app.actions.accept(rows(app)[0])

    async def second(app):
        app.actions.open_paths([sample_study(SAMPLE).folder])
        await app.settle()
        app.actions.resume()
        await app.settle(lambda: app.workflow.review is not None)
        app.actions.accept(rows(app)[1])
        assert [e["event"] for e in app.workflow.log.entries] == ["segmented", "accept", "accept"]
        app.actions.export("scene")
        (log,) = app.study.folder.glob("Prostate*.audit.jsonl")
        events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
        assert events == ["segmented", "accept", "accept", "export"]
        log = (app.study.folder / "review.audit.jsonl").read_text().splitlines()
        assert len(log) == 4, "no line twice"
        app.actions.accept_rest()
        for _ in range(2):  # the same case replaces itself
            app.actions.export("training")
        assert app.workflow.state.error is None
        index = json.loads((tmp_path / "training-phantom-prostate-1.0.0/dataset.json").read_text())
        assert index["numTraining"] == 1

    in_page(Settings(output=tmp_path), first)
    in_page(Settings(output=tmp_path), second)
