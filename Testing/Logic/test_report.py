"""The report of a reviewed result: its numbers, its page, its table."""

import csv
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from MIMSegment.Logic.audit import Provenance
from MIMSegment.Logic.comparison import Prior, volume_rows
from MIMSegment.Logic.errors import InputError, OutputError
from MIMSegment.Logic.finding import Finding, Severity
from MIMSegment.Logic.image_record import ImageRecord
from MIMSegment.Logic.key_pictures import key_pictures
from MIMSegment.Logic.lesions import lesion_rows, prostate_volume
from MIMSegment.Logic.report import report_html, write_report, write_table
from MIMSegment.Logic.report_tables import gland_table, volume_table
from MIMSegment.Logic.review_items import Verdict
from MIMSegment.Logic.volume import Geometry, Volume
from reviewed_cases import GEOMETRY, ZONES, prostate_case, prostate_labels

_VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Checks that tags are balanced; keeps tags, attributes and text."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += f" {data}"


def prior_of(case, array=None, **changes):
    array = case.labels.array if array is None else array[None]
    labels = Volume(array, case.labels.geometry)
    return replace(Prior(labels, case.table, case.provenance.algorithm, "2024-05-01"), **changes)


def read_csv(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_volumes_are_voxels_times_their_size():
    labels = prostate_labels()
    rows = {row.label: row for row in volume_rows(prostate_case())}
    for value, row in rows.items():
        assert row.volume_ml == pytest.approx((labels == value).sum() * 0.003)


def test_change_against_a_prior_in_milliliters_and_percent():
    then = prostate_labels()
    then[8:10, 36:40, 26:32] = 1  # half of the lesion of the peripheral zone, 96 voxels more now
    case = prostate_case()
    lesion = volume_rows(case, prior_of(case, then))[2]
    assert lesion.change_ml == pytest.approx(lesion.volume_ml - lesion.prior_ml)
    assert lesion.change_ml == pytest.approx(48 * 0.003)
    assert lesion.change_percent == pytest.approx(100 * lesion.change_ml / lesion.prior_ml)


def test_new_lesion_has_a_change_and_no_percentage():
    then = np.where(prostate_labels() == 3, 1, prostate_labels()).astype(np.uint8)
    case = prostate_case()
    lesion = volume_rows(case, prior_of(case, then))[2]
    assert lesion.change_ml == lesion.volume_ml and lesion.change_percent is None


def test_what_cannot_be_compared_says_why():
    case = prostate_case()
    coarse = Geometry.from_parts(GEOMETRY.shape, (6.0, 1.0, 1.0))
    cases = {
        "made by other 2.0, now by prostate 1.0.0": {"algorithm": "other 2.0"},
        "made by an unknown model": {"algorithm": ""},
        "voxels of 1 × 1 × 6 mm then, 1 × 1 × 3 mm now": {
            "labels": Volume(case.labels.array, coarse)
        },
        "no such structure then": {"table": ()},
        "of another patient": {"other_patient": True},
    }
    for reason, changes in cases.items():
        rows = volume_rows(case, prior_of(case, **changes))
        assert all(reason in row.not_comparable and row.change_ml is None for row in rows), reason


def test_only_the_structure_that_is_cut_off_cannot_be_compared():
    then = prostate_labels()
    then[0:4, 15:45, 10:50] = 1
    case = prostate_case()
    rows = volume_rows(case, prior_of(case, then))
    assert [bool(row.not_comparable) for row in rows] == [True, False, False]
    assert rows[0].not_comparable == "cut off by the border of the image then"


def test_prostate_is_its_zones_and_the_lesions_in_them():
    gland = prostate_volume(prostate_case(psa=6.3))
    assert gland.volume_ml == pytest.approx(np.count_nonzero(prostate_labels()) * 0.003)
    assert gland.psa_density == pytest.approx(6.3 / gland.volume_ml)
    assert gland_table(prostate_case()) == [["Volume (mL)"], ["43.2"]]


def test_a_rejected_lesion_leaves_the_gland_as_large_as_it_is():
    rejected = prostate_case(verdicts={3: Verdict.REJECTED}, psa=6.3)
    assert prostate_volume(rejected) == prostate_volume(prostate_case(psa=6.3))
    assert "tissue in rejected lesions is counted" in Page(report_html(rejected)).text
    outside = prostate_labels()
    outside[0:3, 50:55, 20:25] = 3
    case = prostate_case(outside, {3: Verdict.REJECTED})
    assert prostate_volume(case) == prostate_volume(prostate_case()), "not what lies outside"


def test_prostate_without_a_zone_has_no_volume():
    case = prostate_case(verdicts={1: Verdict.REJECTED})
    assert prostate_volume(case) is None and gland_table(case) == []


@pytest.mark.parametrize("psa", [0, -1, float("nan"), 1e9, "six"])
def test_impossible_psa_is_refused(psa):
    with pytest.raises(InputError, match="PSA of"):
        prostate_volume(prostate_case(psa=psa))


def test_lesions_one_by_one_with_zone_and_axes():
    first, second = lesion_rows(prostate_case())
    assert (first.zone, second.zone) == ("peripheral zone", "transition zone")
    assert [row.name for row in (first, second)] == ["lesion, part 1 of 2", "lesion, part 2 of 2"]
    assert first.axes_mm == pytest.approx((12, 6, 4)) and second.axes_mm == pytest.approx((6, 4, 3))
    x, y, z = first.position
    assert 20 <= x < 32 and 36 <= y < 40 and 24 <= z < 30


def test_a_lesion_keeps_its_name_of_the_review_when_another_is_rejected():
    labels = prostate_labels()
    labels[10:12, 20:23, 20:24] = 4
    own = (replace(ZONES[2], value=v, name=f"lesion {v - 2}", model_value=3) for v in (3, 4))
    table = (*ZONES[:2], *own)
    case = prostate_case(labels, {3: Verdict.REJECTED, 4: Verdict.ACCEPTED}, table=table)
    (row,) = lesion_rows(case)
    assert row.name == "lesion 2"
    text = Page(report_html(case)).text
    assert "rejected ones are not listed" in text and "No." not in text


def test_axes_of_an_oblique_lesion_are_its_own():
    z, y, x = np.indices(GEOMETRY.shape)
    along, across = (x - y) / np.sqrt(2), (x + y - 60) / np.sqrt(2)
    labels = np.where((abs(along) < 14) & (abs(across) < 4) & (abs(z - 9) < 2), 3, 0)
    (lesion,) = lesion_rows(prostate_case(labels.astype(np.uint8)))
    assert lesion.axes_mm == pytest.approx((28, 9, 8), abs=1.5)


def test_page_has_everything_in_it_and_nothing_from_outside():
    case = prostate_case(inputs=3, psa=6.3)
    page = Page(report_html(case))
    for text in (
        "peripheral zone",
        "accepted",
        "model, edited",
        "PSA density",
        "12 × 6 × 4",
        "Research use only",
        "prostate 1.0.0",
        "abababababab",
        "1.2.3",
        "A <b>bold</b>",
    ):
        assert text in page.text, text  # fmt: skip
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert images and all(src.startswith("data:image/png;base64,") for src in images)
    assert {"script", "link", "a", "b"}.isdisjoint(tag for tag, _ in page.tags)


def test_names_comments_and_titles_are_escaped_everywhere():
    evil = '<img src=x onerror="alert(1)">&\'"'
    case = prostate_case(inputs=1)
    table = tuple(replace(label, name=evil) for label in case.table)
    items = tuple(replace(item, name=evil, comment=evil) for item in case.items)
    made = replace(case.provenance, package=evil, version=evil, series_uids=(evil,))
    prior = prior_of(case, name=evil, algorithm=evil, table=table)
    case = replace(
        case, title=evil, table=table, items=items, provenance=made, options={"prior": prior}
    )
    page = Page(report_html(case))
    assert page.text.count(evil) > 5
    assert not any("onerror" in attributes for _, attributes in page.tags)


def test_page_says_which_images_it_is_about():
    images = (
        ImageRecord("T2w", "t2_tse_tra", "4", "2011-02-18", "1.2.826.1", "ProstateX-0218"),
        ImageRecord("ADC", "ep2d_diff_ADC", "7", "2011-02-18", "1.2.826.1", "ProstateX-0218"),
    )
    case = prostate_case(inputs=2)
    page = Page(report_html(replace(case, provenance=replace(case.provenance, images=images))))
    for text in (
        "Study of 2011-02-18, pseudonym ProstateX-0218",
        "T2w: series 4, t2_tse_tra",
        "ADC: series 7, ep2d_diff_ADC",
        "Study 1.2.826.1",
    ):
        assert page.text.count(text) == 1, text


def test_page_says_that_a_study_has_no_date():
    made = replace(prostate_case().provenance, images=(ImageRecord("CT", "case_07.nii.gz"),))
    text = Page(report_html(replace(prostate_case(), provenance=made))).text
    assert "Study without a date" in text and "CT: case_07.nii.gz" in text
    assert "pseudonym" not in text


def test_images_of_several_days_have_a_date_each():
    images = (ImageRecord("T1", "a", date="2011-02-18"), ImageRecord("T2", "b", date="2011-02-20"))
    text = Page(
        report_html(replace(prostate_case(), provenance=Provenance("x", "1", images=images)))
    ).text
    assert "Study of 2011-02-18 and 2011-02-20" in text and "T2: b of 2011-02-20" in text


def test_rejected_structures_are_named_and_not_measured():
    case = prostate_case(verdicts={3: Verdict.REJECTED})
    page = Page(report_html(case))
    assert "Rejected and left out: lesion." in page.text and "Axes (mm)" not in page.text


def test_findings_are_of_what_is_written_and_say_when_it_was_edited():
    said = [Finding("volume", Severity.WARNING, f"It is {n} large.", n) for n in (1, 2, 3)]
    case = replace(prostate_case(verdicts={3: Verdict.REJECTED}), findings=tuple(said))
    text = Page(report_html(case)).text
    assert "It is 1 large. " in text and "It is 3 large." not in text
    assert "It is 2 large. (Before it was edited.)" in text, "its volume above is another one"
    assert "(Before" not in text.partition("It is 2")[0]


def test_phantom_models_are_named_as_such():
    html = report_html(replace(prostate_case(), phantom=True))
    assert "trained on digital phantoms" in html


def test_many_lesions_and_findings_are_shortened_with_a_word():
    labels = np.zeros(GEOMETRY.shape, np.uint8)
    for number in range(12):
        labels[4:8, 4 * number + 2 : 4 * number + 4, 5 : 8 + number] = 3
    case = prostate_case(labels)
    text = Page(report_html(replace(case, findings=case.findings * 9))).text
    assert "4 smaller lesions are left out" in text and "3 more findings are left out" in text


def test_pictures_show_lesions_first_and_no_slice_twice():
    captions = [caption for caption, _ in key_pictures(prostate_case(inputs=1))]
    assert captions[0].startswith("lesion, slice 9 of 20")
    assert len(captions) == len(set(captions)) == 3


def test_picture_has_the_patients_right_on_its_left():
    labels = np.zeros(GEOMETRY.shape, np.uint8)
    labels[5:9, 20:40, 10:14] = 1  # LPS: small x is the patient's right
    labels[5:9, 20:40, 40:54] = 2
    case = prostate_case(labels, inputs=1)
    flipped = replace(
        case,
        labels=case.labels.reoriented("RAS"),
        inputs=tuple(replace(i, volume=i.volume.reoriented("RAS")) for i in case.inputs),
    )
    for shown in (case, flipped):
        picture = np.asarray(Image.open(BytesIO(key_pictures(shown)[0][1]))).astype(int)
        matches = (abs(picture - ZONES[0].color).sum(axis=2) == 0).nonzero()
        assert len(matches[0]) and matches[1].mean() < picture.shape[1] / 2
    assert np.array_equal(*(key_pictures(c)[0][1] for c in (case, flipped)))


def test_pictures_are_cropped_to_the_structures_and_not_to_specks():
    labels = np.zeros(GEOMETRY.shape, np.uint8)
    labels[5:9, 22:38, 24:40] = 1
    alone = key_pictures(prostate_case(labels, inputs=1))[0][1]
    labels[6, 59, 59] = labels[12, 0, 0] = 1
    assert _size(key_pictures(prostate_case(labels, inputs=1))[0][1]) == _size(alone)


def _size(png: bytes) -> tuple[int, int]:
    return Image.open(BytesIO(png)).size


def test_names_that_end_in_a_number_stand_on_the_left():
    case = prostate_case()
    table = tuple(replace(label, name=f"{label.name} 1") for label in case.table)
    page = report_html(replace(case, table=table))
    assert "<td>lesion 1, part 1 of 2</td>" in page and '<td class="number">12 × 6 × 4</td>' in page


def test_result_without_its_image_has_no_pictures_and_still_a_page():
    assert key_pictures(prostate_case(inputs=0)) == []
    Page(report_html(prostate_case(inputs=0)))


def test_empty_result_has_a_page():
    Page(report_html(prostate_case(np.zeros(GEOMETRY.shape, np.uint8), inputs=1)))


def test_csv_has_exact_numbers_and_no_formulas(tmp_path):
    case = prostate_case()
    table = tuple(replace(label, name="=HYPERLINK(1)") for label in case.table)
    write_table(replace(case, table=table), tmp_path / "t.csv")
    rows = read_csv(tmp_path / "t.csv")
    assert rows[2]["Structure"] == "'=HYPERLINK(1)"
    assert float(rows[2]["Volume (mL)"]) == pytest.approx((96 + 24) * 0.003)


def test_csv_with_a_prior_keeps_signs(tmp_path):
    case = prostate_case()
    then = np.where(prostate_labels() == 3, 1, prostate_labels()).astype(np.uint8)
    case = replace(case, options={"prior": prior_of(case, then)})
    write_table(case, tmp_path / "t.csv")
    rows = read_csv(tmp_path / "t.csv")
    assert float(rows[0]["Change (mL)"]) < 0 < float(rows[2]["Change (mL)"])
    assert rows[2]["Change (%)"] == "" and rows[2]["2024-05-01 (mL)"] == "0.0000"


def test_comments_have_a_column_only_when_there_are_some():
    case = prostate_case()
    assert "Comment" not in volume_table(case)[0]
    items = tuple(replace(item, comment="see ADC") for item in case.items)
    assert volume_table(replace(case, items=items))[1][-1] == "see ADC"


def test_existing_report_survives_a_failure(tmp_path):
    path = tmp_path / "report.html"
    write_report(prostate_case(), path)
    before = path.read_bytes()
    with pytest.raises(InputError):
        write_report(prostate_case(psa=-2), path)
    assert path.read_bytes() == before
    with pytest.raises(OutputError, match="could not be written"):
        write_report(prostate_case(), tmp_path / "missing" / "report.html")
