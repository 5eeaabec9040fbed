"""Before a run: inputs that fit say nothing, each that does not gets one sentence with numbers."""

from dataclasses import replace

import numpy as np
import pytest

from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.expectations import GrayValueRange
from MIMSegment.Logic.finding import Severity
from MIMSegment.Logic.gray_values import describe
from MIMSegment.Logic.plausibility import check_inputs
from MIMSegment.Logic.volume import Geometry, Volume
from plausibility_cases import GEOMETRY, codes, hounsfield, image, only, package

TWO_INPUTS = package(("T2w", "ADC"))
BLANK_ADC = np.stack([image().array[0], np.zeros(GEOMETRY.shape, np.float32)])


def with_gray_values(model, ranges):
    return replace(model, expectations=replace(model.expectations, inputs=ranges))


def test_an_image_like_the_training_data_gives_no_finding():
    assert check_inputs([image()], package()) == ()


def test_an_image_of_another_modality_is_an_alert():
    finding = only(check_inputs([image(Modality="MR")], package()))
    assert (finding.code, finding.severity) == ("wrong-modality", Severity.ALERT)
    assert "is of modality MR, the model needs CT" in finding.message


def test_gray_values_of_a_ct_in_a_file_without_header_are_seen():
    array = np.random.default_rng(0).normal(0, 400, GEOMETRY.shape).clip(-1024, 2000)
    finding = only(check_inputs([image(array)], package(("T2w",))))
    assert finding.code == "gray-values-of-ct" and "-1024" in finding.message


def test_an_empty_image_is_refused():
    with pytest.raises(InputError, match=r"CT is empty: every voxel of scan\.nii\.gz is 7; choose"):
        check_inputs([image(np.full(GEOMETRY.shape, 7.0))], package())


def test_one_image_for_two_inputs_is_an_alert():
    findings = check_inputs([image(), image()], package(("T1", "T1c")))
    assert "T1 and T1c are the same image" in only(findings).message


def test_images_of_different_studies_are_an_alert():
    t2w = image(Modality="MR", StudyInstanceUID="1.2.3")
    adc = image(-image().array[0], Modality="MR", StudyInstanceUID="1.2.4")
    finding = only(check_inputs([t2w, adc], package(("T2w", "ADC"))))
    assert (finding.code, finding.severity) == ("different-studies", Severity.ALERT)
    assert "T2w and ADC are of different studies, perhaps of different people" in finding.message
    same = image(-image().array[0], Modality="MR", StudyInstanceUID="1.2.3")
    assert check_inputs([t2w, same], package(("T2w", "ADC"))) == ()


def test_an_adc_map_as_t2w_is_told_by_its_tags():
    adc = image(Modality="MR", ImageType=("DERIVED", "PRIMARY", "DIFFUSION", "ADC"))
    finding = only(check_inputs([adc], package(("T2w",))))
    assert (finding.code, finding.severity) == ("wrong-sequence", Severity.ALERT)
    assert "taken for T2w is ADC (its ImageType is ADC)" in finding.message


def test_swapped_sequences_are_told_by_their_descriptions():
    t2w = image(Modality="MR", SeriesDescription="t2_tse_tra")
    adc = image(-image().array[0], Modality="MR", SeriesDescription="ep2d_diff_ADC")
    findings = check_inputs([adc, t2w], package(("T2w", "ADC")))
    assert codes(findings) == ["wrong-sequence"]
    assert "images taken for T2w and ADC are swapped" in findings[0].message
    assert check_inputs([t2w, adc], package(("T2w", "ADC"))) == ()


def test_swapped_sequences_are_told_by_their_file_names_where_there_are_no_tags():
    findings = check_inputs([image(source="a/case_adc.nii.gz")], package(("T2w",)))
    assert "its name" in only(findings).message


def test_a_name_that_says_nothing_gives_no_finding():
    assert check_inputs([image(source="scan 7.nrrd")], package(("T2w",))) == ()


def test_a_swap_without_tags_or_names_is_told_by_the_gray_values():
    rng = np.random.default_rng(1)
    dark, bright = rng.exponential(1, GEOMETRY.shape), 9 - rng.exponential(1, GEOMETRY.shape)
    ranges = tuple(
        GrayValueRange((0, 1), (0, 9), (5, 9), profile=describe(a).profile) for a in (dark, bright)
    )
    model = with_gray_values(package(("T2w", "ADC")), ranges)
    assert check_inputs([image(dark), image(bright)], model) == ()
    findings = check_inputs([image(bright), image(dark)], model)
    assert codes(findings) == ["gray-values-of-another-input"] * 2
    assert "T2w are distributed like those of ADC" in findings[0].message


def test_a_ct_that_is_not_in_hounsfield_units_is_seen():
    model = with_gray_values(package(), (hounsfield(),))
    ct = np.random.default_rng(0).normal(0, 300, GEOMETRY.shape).clip(-1010, 600)
    ct[:, :6] = -1010
    assert check_inputs([image(ct)], model) == ()
    finding = only(check_inputs([image(ct + 1024)], model))
    assert finding.code == "gray-values-outside-range" and "Hounsfield" in finding.message


@pytest.mark.parametrize(
    ("thickness", "severity"), [(4.0, None), (5.0, Severity.WARNING), (12.0, Severity.ALERT)]
)
def test_slices_thicker_than_the_training_data_are_told_with_both_numbers(thickness, severity):
    geometry = Geometry.from_parts((20, 40, 40), (thickness, 1.0, 1.0))
    findings = [
        f for f in check_inputs([image(geometry=geometry)], package()) if "coarse" in f.code
    ]
    assert [f.severity for f in findings] == ([severity] if severity else [])
    if severity:
        assert f"{thickness:g} mm long from foot to head" in findings[0].message
        assert "1.5 to 3 mm" in findings[0].message


def test_axes_are_compared_as_they_lie_in_the_patient():
    sagittal = np.array([[0, 0, 1.0], [1, 0, 0], [0, 1, 0]])  # i front to back, j up, k to the left
    geometry = Geometry.from_parts((40, 20, 40), (1.0, 2.0, 1.0), direction=sagittal)
    assert check_inputs([image(geometry=geometry)], package()) == ()


def test_without_ranges_the_working_voxel_size_of_the_model_is_the_measure():
    model = package(spacing=None, extent=None)
    plan = replace(model.spec.preprocessing, spacing=(2.0, 1.0, 1.0))
    model = replace(model, spec=replace(model.spec, preprocessing=plan))
    assert check_inputs([image()], model) == ()
    coarse = Geometry.from_parts((20, 40, 40), (9.0, 1.0, 1.0))
    finding = only(check_inputs([image(geometry=coarse)], model))
    assert finding.severity is Severity.ALERT and "the model works at 2 mm" in finding.message


def test_a_cut_field_of_view_is_told_with_both_numbers():
    geometry = Geometry.from_parts((20, 40, 40), (1.0, 1.0, 1.0))
    model = package(spacing=None)
    finding = only(check_inputs([image(geometry=geometry)], model))
    assert (finding.code, finding.severity) == ("field-of-view-cut", Severity.WARNING)
    assert "covers 20 mm from foot to head, the training images 35 to 60 mm" in finding.message


def test_a_wide_field_of_view_is_a_note():
    geometry = Geometry.from_parts((60, 40, 40), (2.0, 1.0, 1.0))
    finding = only(check_inputs([image(geometry=geometry)], package()))
    assert (finding.code, finding.severity) == ("field-of-view-wide", Severity.NOTE)


def test_an_input_that_covers_a_part_of_the_first_one_is_told():
    part = Geometry.from_parts((12, 40, 40), (2.0, 1.0, 1.0))
    images = [image(), image(-image(geometry=part).array[0], part)]
    finding = only(check_inputs(images, package(("T2w", "ADC"))))
    assert finding.severity is Severity.WARNING
    assert "ADC covers only 60 % of T2w" in finding.message


def test_few_slices_are_told():
    geometry = Geometry.from_parts((3, 40, 40), (2.0, 1.0, 1.0))
    assert "few-slices" in codes(check_inputs([image(geometry=geometry)], package()))


def test_a_phantom_model_is_an_alert_on_a_scan_and_a_warning_on_a_file():
    on_scan = only(check_inputs([image(Modality="CT")], package(phantom=True)))
    on_file = only(check_inputs([image()], package(phantom=True)))
    assert (on_scan.severity, on_file.severity) == (Severity.ALERT, Severity.WARNING)
    assert "digital phantoms, not on people" in on_scan.message


def test_one_volume_with_all_inputs_as_channels_is_checked_too():
    finding = only(check_inputs(Volume(BLANK_ADC, GEOMETRY, "study.nii.gz"), TWO_INPUTS))
    assert finding.message.startswith("ADC is empty: every voxel of study.nii.gz is 0")


def test_a_blank_image_beside_others_is_an_alert_and_all_blank_ones_are_refused():
    gray = describe(image().array[0])
    seen = GrayValueRange(*[(0.0, 1.0)] * 3, quantitative=True, profile=gray.profile)
    model = with_gray_values(TWO_INPUTS, (replace(seen, quantitative=False), seen))
    (finding,) = check_inputs(Volume(BLANK_ADC, GEOMETRY), model)
    assert (finding.code, finding.severity) == ("empty-input", Severity.ALERT)
    with pytest.raises(InputError, match="T2w is empty"):
        check_inputs(Volume(BLANK_ADC * 0, GEOMETRY), model)
