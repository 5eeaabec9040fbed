"""The whole job in a real browser: open, choose, segment, review, correct, export."""

import re
from urllib.parse import urlsplit

import numpy as np
import pytest

pytest.importorskip("trame_slicer", reason="needs mimsegment[web]")
pytest.importorskip("playwright.sync_api", reason="needs mimsegment[tests]")

from playwright.sync_api import expect

from phantom_dicom import write_phantom_dicom

ACCEPTED, EDITED, REJECTED = "peripheral zone", "lesion 1", "transition zone"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_phantom_dicom("phantom-prostate", tmp_path_factory.mktemp("dicom") / "Phantom")


def test_a_study_is_segmented_reviewed_corrected_and_exported(page, server, study, tmp_path):
    segment_study(page, study)
    look_at_doubtful_places(page)
    decide_several_and_undo(page)
    decide(page)
    labels = paint(page)
    check_dicom_seg(page.export("dicom_seg", tmp_path), labels, study)
    check_report(page, tmp_path)
    assert {urlsplit(url).netloc for url in page.requests if url.startswith("http")} == {
        urlsplit(server.url).netloc
    }


def segment_study(page, study):
    page.open_folder(study)
    expect(page("step-study")).to_contain_text("3 images")
    page("card-phantom-prostate").click()
    # The bundled models are for phantoms, and this looks like a scan of a person.
    expect(page("run-anyway")).to_be_visible()
    expect(page("segment")).to_be_disabled()
    for name in ("T2w", "ADC", "DWI"):
        chosen = page(f"input-{name}").locator("option:checked")
        expect(chosen).to_contain_text(name)
    page.watch_progress()
    page.segment("run-anyway")
    page.until_reviewing()
    assert len(page.percents) > 5 and page.percents == sorted(page.percents)
    expect(page("decided")).to_have_text("0 of 4 decided")


def look_at_doubtful_places(page):
    shown = {tuple(page.slices())}
    for number in (1, 2):
        page("next-place").click()
        expect(page("place")).to_contain_text(f"Place {number} of")
        page.until_heard()
        shown.add(tuple(page.slices()))
    assert len(shown) > 1, "the views go there"


def decide_several_and_undo(page):
    """Chosen rows, then all the rest: each one step, taken back by one undo."""
    page.select(ACCEPTED)
    page.row(EDITED).locator(".line").click(modifiers=["Control"])
    expect(page("marked")).to_have_text("2 chosen")
    page("reject-marked").click()
    expect(page("decided")).to_have_text("2 of 4 decided")
    expect(page("marked")).to_be_hidden()
    page("accept-rest").click()
    expect(page("decided")).to_have_text("4 of 4 decided")
    expect(page("accept-rest")).to_be_hidden()
    for left, name in ((2, REJECTED), (0, EDITED)):
        page.press(page.select(name), "undo")
        expect(page("decided")).to_have_text(f"{left} of 4 decided")


def decide(page):
    page.press(page.select(ACCEPTED), "accept")
    expect(page.row(ACCEPTED)).to_have_class(_with("accepted"))
    page.press(page.select(REJECTED), "reject")
    expect(page.row(REJECTED)).to_have_class(_with("rejected"))
    expect(page("decided")).to_have_text("2 of 4 decided")


def paint(page):
    """A stroke in the lesion, taken back and drawn again; the labels on the server's disk then."""
    before, _ = page.when_saved(lambda labels, found: found[REJECTED]["verdict"] == "rejected")
    row = page.select(EDITED)
    page.press(row, "edit")
    expect(page("editor")).to_be_visible()
    volume = row.locator(".volume").inner_text()
    page.drag("Axial", across=0.15, down=0.1)
    expect(page.page.locator("#mim-brush")).to_be_visible()
    expect(row.locator(".volume")).not_to_have_text(volume)
    page("undo-stroke").click()
    expect(row.locator(".volume")).to_have_text(volume)
    page.drag("Axial", across=0.15, down=0.1)
    expect(row.locator(".volume")).not_to_have_text(volume)
    page("finish-edit").click()
    expect(page.page.locator("#mim-brush")).to_be_hidden()
    comment = page.select(EDITED).locator('[data-test="comment"]')
    comment.fill("Larger than drawn")
    comment.press("Enter")
    after, records = page.when_saved(lambda labels, found: found[EDITED]["comment"] != "")
    label = {name: record["label"] for name, record in records.items()}
    assert (after == label[EDITED]).sum() > (before == label[EDITED]).sum()
    assert np.array_equal(after == label[ACCEPTED], before == label[ACCEPTED])
    assert records[EDITED]["edited"] and not records[ACCEPTED]["edited"]
    return after


def check_dicom_seg(path, labels, study):
    import highdicom
    import pydicom

    seg = highdicom.seg.segread(path)
    source = pydicom.dcmread(next((study / "T2w").iterdir()))
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    parts = [seg.get_segment_description(number) for number in seg.segment_numbers]
    kinds = {part.segment_label: part.SegmentAlgorithmType for part in parts}
    assert kinds == {ACCEPTED: "AUTOMATIC", EDITED: "SEMIAUTOMATIC", "lesion 2": "AUTOMATIC"}
    assert seg.pixel_array.sum() == np.isin(labels, [1, 3, 4]).sum()


def check_report(page, tmp_path):
    path = page.export("report", tmp_path)
    text = path.read_text(encoding="utf-8")
    assert "Larger than drawn" in text and ACCEPTED in text and "data:image/" in text
    with page.context.expect_page() as opened:
        page("open-report").first.click()
    report = opened.value
    expect(report.locator("h1")).to_be_visible()
    broken = "[...document.images].filter(i => !i.naturalWidth).length"
    assert report.evaluate(broken) == 0 and report.evaluate("document.images.length") > 0
    pages = re.findall(rb"/Type\s*/Page\b", report.pdf(prefer_css_page_size=True))
    assert len(pages) == 1, "one sheet of A4"
    report.close()


def _with(name):
    """Among the classes of an element."""
    return re.compile(rf"\b{name}\b")
