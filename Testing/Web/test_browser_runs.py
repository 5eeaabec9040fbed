"""What happens around a run in a real browser: cancel, reload, a wrong file, the next study."""

import sys

import pytest

pytest.importorskip("trame_slicer", reason="needs mimsegment[web]")
pytest.importorskip("playwright.sync_api", reason="needs mimsegment[tests]")

from playwright.sync_api import expect

from browser_page import BrowserPage
from page_server import PageServer
from process_tree import descendants, until_all_end

SAMPLE, OTHER = "phantom-prostate", "phantom-brain"


def test_a_wrong_file_is_named_in_place_and_the_next_study_opens(page, tmp_path):
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear colleague")
    page.open_files(letter)
    expect(page("error")).to_contain_text("letter.txt")
    expect(page("empty")).to_be_visible()
    page.open_sample(SAMPLE)
    expect(page("error")).to_have_count(0)


def test_cancel_ends_the_run_and_changes_nothing(page):
    page.open_sample(SAMPLE)
    page.segment()
    page("cancel").click()
    expect(page("message")).to_contain_text("cancelled")
    expect(page("no-review")).to_be_visible()
    expect(page("segment")).to_be_enabled()


def test_a_reload_during_a_run_and_a_second_tab_see_the_same(page, chromium, server):
    page.open_sample(SAMPLE)
    page.segment()
    page.page.reload()
    expect(page("progress")).to_be_visible()
    page.until_reviewing()
    page.press(page.select("lesion 1"), "accept")
    expect(page("decided")).to_have_text("1 of 4 decided")
    second = BrowserPage(chromium, server)
    expect(second("decided")).to_have_text("1 of 4 decided")
    second.press(second.select("lesion 1"), "reopen")
    expect(page("decided")).to_have_text("0 of 4 decided")
    second.close()


def test_the_next_study_begins_afresh_and_the_first_can_be_gone_on_with(page):
    page.open_sample(SAMPLE)
    page.segment()
    page.until_reviewing()
    page.press(page.select("lesion 1"), "reject")
    expect(page("decided")).to_have_text("1 of 4 decided")
    page.open_sample(OTHER)
    expect(page("no-review")).to_be_visible()
    expect(page("image").locator("option")).to_have_count(4)
    page.open_sample(SAMPLE)
    page("resume").click()
    expect(page("decided")).to_have_text("1 of 4 decided")


def test_a_stopped_server_has_saved_the_review_and_the_page_says_what_to_do(chromium, tmp_path):
    with PageServer(tmp_path) as server:
        page = BrowserPage(chromium, server)
        page.open_sample(SAMPLE)
        page.segment()
        page.until_reviewing()
        assert server.stop() == 0
        assert "Stopped; the review is saved." in server.process.stdout.read()
        expect(page("gone")).to_contain_text("Start mimsegment web again")
        page.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_demo_opens_ready_to_segment_and_ctrl_c_during_a_run_leaves_no_process(
    chromium, tmp_path, monkeypatch
):
    monkeypatch.delenv("DISPLAY", raising=False)  # or it would open a browser of its own
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with PageServer(tmp_path, command=["mimsegment_web.demo"]) as server:
        page = BrowserPage(chromium, server)
        page.until_ready()
        page.segment()
        worker = descendants(server.process.pid)
        assert worker
        assert server.stop() == 0
        until_all_end(worker)
        assert "Traceback" not in server.process.stdout.read()
        page.close()
