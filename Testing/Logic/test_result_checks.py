"""After a run: what is not anatomy gets one sentence with its numbers and a place to look at."""

import numpy as np
import pytest

from MIMSegment.Logic.finding import Finding, Severity
from MIMSegment.Logic.plausibility import check_result
from MIMSegment.Logic.volume import Geometry
from plausibility_cases import GEOMETRY, codes, only, package, result, structure

# x grows to the patient's left, so the right kidney has the small indices.
RIGHT = (1, (5, 15), (10, 20), (5, 12))
LEFT = (2, (5, 15), (10, 20), (28, 35))
PROSTATE = (4, (5, 15), (22, 38), (14, 26))
LESION = (7, (8, 10), (25, 28), (16, 19))
WHOLE = (RIGHT, LEFT, PROSTATE, LESION)


def label_at(segmentation, position) -> int:
    index = np.linalg.inv(segmentation.geometry.ijk_to_lps) @ [*position, 1.0]
    x, y, z = np.round(index[:3]).astype(int)
    return int(segmentation.labels[z, y, x])


def test_a_plausible_result_gives_no_finding():
    assert check_result(result(*WHOLE), package()) == ()


def test_nothing_at_all_is_an_alert_that_names_what_is_missing():
    finding = only(check_result(result(), package()))
    assert (finding.code, finding.severity) == ("nothing-found", Severity.ALERT)
    assert "right kidney, left kidney, prostate" in finding.message


def test_a_missing_organ_is_a_warning_and_a_missing_lesion_a_note():
    findings = check_result(result(LEFT, PROSTATE), package())
    assert codes(findings) == ["structure-missing"] * 2
    assert [(f.label, f.severity) for f in findings] == [(1, Severity.WARNING), (7, Severity.NOTE)]


def test_how_often_the_training_images_have_a_structure_decides_whether_it_is_missed():
    rare = package(structures=(structure(1, 1, 9, present=0.3),))
    findings = check_result(result(LEFT, PROSTATE, LESION), rare)
    assert only(findings).severity is Severity.NOTE


def test_structures_that_were_not_asked_for_are_not_missed():
    assert check_result(result(LEFT), package(), wanted=[2]) == ()


@pytest.mark.parametrize(
    ("low", "high", "severity"),
    [
        (1.2, 2, None),
        (1.0, 1.2, None),
        (2, 3, Severity.WARNING),
        (0.5, 0.9, Severity.WARNING),
        (9, 12, Severity.ALERT),
        (0.1, 0.2, Severity.ALERT),
    ],
)
def test_a_volume_outside_the_training_data_is_told_the_graver_the_farther(low, high, severity):
    segmentation = result(*WHOLE)  # the kidneys have 10 * 10 * 7 voxels of 2 mm³: 1.4 mL
    findings = check_result(segmentation, package(structures=(structure(2, low, high),)))
    assert [f.severity for f in findings] == ([severity] if severity else [])
    if severity:
        assert "1.4 mL" in findings[0].message
        assert label_at(segmentation, findings[0].position) == 2


def test_a_fragmented_organ_is_told_with_a_place_in_a_loose_piece():
    piece = (4, (5, 15), (2, 8), (14, 20))
    segmentation = result(*WHOLE, piece)
    finding = only(check_result(segmentation, package()))
    assert (finding.code, finding.severity) == ("structure-fragmented", Severity.WARNING)
    assert "in 2 pieces, of which the largest holds 84 %" in finding.message
    y = (np.linalg.inv(GEOMETRY.ijk_to_lps) @ [*finding.position, 1])[1]
    assert y < 8


def test_specks_and_several_lesions_are_no_fragments():
    speck, other = (4, (5, 6), (2, 4), (14, 16)), (7, (8, 10), (30, 33), (16, 19))
    assert check_result(result(*WHOLE, speck, other), package()) == ()


def test_as_many_pieces_as_in_the_training_data_are_not_told():
    piece = (4, (5, 15), (2, 8), (14, 20))
    known = package(structures=(structure(4, 1, 9, pieces=2),))
    assert check_result(result(*WHOLE, piece), known) == ()


def test_swapped_sides_are_an_alert():
    swapped = [(3 - value, *box) for value, *box in (RIGHT, LEFT)]
    finding = only(check_result(result(*swapped, PROSTATE, LESION), package()))
    assert (finding.code, finding.severity) == ("sides-swapped", Severity.ALERT)
    assert "Left kidney lies 23 mm to the right of right kidney" in finding.message


def test_sides_are_the_patients_also_in_an_image_that_is_stored_mirrored():
    mirrored = Geometry.from_parts((20, 40, 40), (2, 1, 1), direction=np.diag([-1.0, 1, 1]))
    swapped = [(3 - value, *box) for value, *box in (RIGHT, LEFT)]
    assert check_result(result(*swapped, PROSTATE, LESION, geometry=mirrored), package()) == ()


def test_a_part_on_the_other_side_is_told():
    stray = (2, (5, 15), (10, 20), (13, 16))
    findings = check_result(result(*WHOLE, stray), package())
    finding = next(f for f in findings if f.code == "part-on-other-side")
    assert "0.60 of the 2.0 mL of left kidney lie on the side of right kidney" in finding.message


def test_an_organ_cut_by_the_border_is_told_with_the_side():
    cut = (4, (0, 15), (22, 38), (14, 26))
    segmentation = result(RIGHT, LEFT, cut, LESION)
    finding = only(check_result(segmentation, package()))
    assert (finding.code, finding.label) == ("structure-cut-off", 4)
    assert "reaches the inferior border of the image with a section of 1.9 cm²" in finding.message
    assert finding.position[2] == 0 and label_at(segmentation, finding.position) == 4
    usual = package(structures=(structure(4, 1, 9, at_border=0.9),))
    assert check_result(segmentation, usual) == ()
    through = result(RIGHT, LEFT, (4, (0, 20), (22, 40), (14, 26)), LESION)
    messages = " ".join(f.message for f in check_result(through, package()))
    assert "reaches the inferior, superior and posterior border" in messages


def test_a_lesion_away_from_its_organ_is_told_with_the_distance():
    stray = (7, (8, 10), (2, 5), (18, 21))
    segmentation = result(*WHOLE, stray)
    finding = only(check_result(segmentation, package()))
    assert (finding.code, finding.severity) == ("lesion-outside-organ", Severity.WARNING)
    assert "lesion of 0.04 mL" in finding.message and "outside prostate, 18 mm" in finding.message
    assert label_at(segmentation, finding.position) == 7


def test_a_lesion_without_any_organ_is_told():
    findings = check_result(result(RIGHT, LEFT, LESION), package())
    assert {"structure-missing", "lesion-outside-organ"} == set(codes(findings))


def test_a_lesion_at_the_edge_of_its_organ_is_inside():
    edge = (7, (8, 10), (25, 28), (26, 29))
    assert check_result(result(*WHOLE, edge), package()) == ()


def test_findings_survive_the_way_through_json():
    import json
    from dataclasses import asdict

    finding = only(check_result(result(), package()))
    placed = Finding("a", Severity.NOTE, "b", 3, (1.0, 2.0, 3.0))
    for item in (finding, placed):
        assert Finding.from_dict(json.loads(json.dumps(asdict(item)))) == item
