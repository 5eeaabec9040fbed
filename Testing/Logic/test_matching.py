"""Which image of a study is taken for which input of a model."""

import nibabel as nib
import numpy as np
import pytest

from dicom_writer import noise, write_enhanced, write_series
from MIMSegment.Logic.alignment import combine
from MIMSegment.Logic.candidates import find_candidates
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.matching import Answer, InputSpec, match_inputs

PROSTATE = tuple(InputSpec(name, "MR") for name in ("T2w", "ADC", "DWI"))
BRAIN = tuple(InputSpec(name, "MR") for name in ("T1", "T1c", "T2", "FLAIR"))
CT = (InputSpec("CT", "CT"),)


def nifti(folder, *names):
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(noise((4, 4, 4)), np.eye(4)), path)
    return paths


def chosen(matching) -> dict[str, str]:
    return {match.input.name: match.candidate.name for match in matching.matches}


def described(matching) -> dict[str, str]:
    return {m.input.name: m.candidate.series.description for m in matching.matches}


# DICOM


def prostate_study(folder):
    """T2w in two planes, three b-values in one series, ADC, a T1w: as scanners send them."""
    t2 = {"EchoTime": 104.0, "RepetitionTime": 5660.0, "SeriesDescription": "t2_tse_tra"}
    write_series(folder / "1", noise((6, 8, 8), seed=1), tags=t2)
    sagittal = np.array([[0.0, 1, 0], [0, 0, -1]])
    write_series(folder / "2", noise((6, 8, 8), seed=2), orientation=sagittal,
                 tags={**t2, "SeriesDescription": "t2_tse_sag"})  # fmt: skip
    diffusion = {"EchoTime": 63.0, "RepetitionTime": 2700.0, "SeriesDescription": "ep2d_diff_tra"}
    for b in (50, 400, 800):
        write_series(
            folder / "3", noise((6, 8, 8), seed=b), names=[f"{b}-{k}" for k in range(6)],
            series_uid="1.2.3.77", tags={**diffusion, "DiffusionBValue": float(b)},
        )  # fmt: skip
    kind = ["DERIVED", "PRIMARY", "DIFFUSION", "ADC", "ND"]
    write_series(folder / "4", noise((6, 8, 8), seed=4), tags={**diffusion, "ImageType": kind})
    t1 = {"EchoTime": 9.0, "RepetitionTime": 600.0, "SeriesDescription": "t1_tse_tra"}
    write_series(folder / "5", noise((6, 8, 8), seed=5), tags=t1)


def test_a_prostate_study_is_matched_by_its_tags(tmp_path):
    prostate_study(tmp_path)
    matching = match_inputs(PROSTATE, find_candidates([tmp_path])).require()
    t2, adc, dwi = (matching[name].series for name in ("T2w", "ADC", "DWI"))
    assert (t2.description, t2.orientation) == ("t2_tse_tra", "axial")
    assert "ADC" in adc.header["ImageType"]
    assert dwi.b_value == 800
    assert len(matching.unused) == 4
    volume = combine([match.candidate.read() for match in matching.matches])
    expected = [noise((6, 8, 8), seed=seed) for seed in (1, 4, 800)]
    assert np.array_equal(volume.array, expected)
    assert volume.geometry.spacing == pytest.approx((2.0, 0.5, 0.75))


def test_every_choice_says_why(tmp_path):
    prostate_study(tmp_path)
    reasons = {m.input.name: m.reason for m in
               match_inputs(PROSTATE, find_candidates([tmp_path])).matches}  # fmt: skip
    assert "ImageType is ADC" in reasons["ADC"]
    assert "b-value is 800" in reasons["DWI"]
    assert "t2_tse_tra" in reasons["T2w"] and "TE 104 ms" in reasons["T2w"]


def test_the_user_can_override_any_choice(tmp_path):
    prostate_study(tmp_path)
    candidates = find_candidates([tmp_path])
    one_b = next((tmp_path / "3").glob("400-*"))
    matching = match_inputs(PROSTATE, candidates, {"T2w": tmp_path / "2", "DWI": one_b}).require()
    assert matching["T2w"].series.orientation == "sagittal"
    assert matching["DWI"].series.b_value == 400
    assert "ADC" in matching["ADC"].header["ImageType"]
    assert [m.explicit for m in matching.matches] == [True, False, True]
    assert matching.matches[0].reason == "chosen by the user"


def test_an_override_by_a_folder_of_several_volumes_takes_the_fitting_one(tmp_path):
    prostate_study(tmp_path)
    matching = match_inputs(PROSTATE, find_candidates([tmp_path]), {"DWI": tmp_path / "3"})
    assert matching["DWI"].series.b_value == 800


def test_an_unknown_input_name_is_refused(tmp_path):
    (path,) = nifti(tmp_path, "a.nii")
    with pytest.raises(InputError, match=r'no input "T3"; its inputs are T2w, ADC, DWI'):
        match_inputs(PROSTATE, [], {"T3": path})
    with pytest.raises(InputError, match="does not exist"):
        match_inputs(PROSTATE, [], {"ADC": tmp_path / "absent.nii"})


def test_a_missing_sequence_is_named_with_what_was_found(tmp_path):
    prostate_study(tmp_path)
    for file in (tmp_path / "4").iterdir():
        file.unlink()
    matching = match_inputs(PROSTATE, find_candidates([tmp_path]))
    assert set(chosen(matching)) == {"T2w", "DWI"}
    with pytest.raises(InputError, match=r"input ADC: found .*ep2d_diff_tra.*ADC=PATH"):
        matching.require()


def test_two_images_that_fit_alike_are_not_chosen_between(tmp_path):
    prostate_study(tmp_path)
    write_series(tmp_path / "6", noise((6, 8, 8)), tags={"SeriesDescription": "t2_tse_tra_2nd",
                 "EchoTime": 104.0, "RepetitionTime": 5660.0})  # fmt: skip
    matching = match_inputs(PROSTATE, find_candidates([tmp_path]))
    with pytest.raises(InputError, match=r"T2w could be .*t2_tse_tra.* or .*t2_tse_tra"):
        matching.require()
    assert set(chosen(matching)) == {"ADC", "DWI"}


def test_images_of_different_studies_are_not_mixed(tmp_path):
    tags = {"SeriesDescription": "t2_tse_tra", "StudyInstanceUID": "1.2.3.900"}
    write_series(tmp_path / "a", noise(), tags=tags)
    kind = ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]
    write_series(tmp_path / "b", noise(), tags={"ImageType": kind, "StudyInstanceUID": "1.2.3.901"})
    inputs = PROSTATE[:2]
    matching = match_inputs(inputs, find_candidates([tmp_path]))
    with pytest.raises(InputError, match="different studies"):
        matching.require()
    explicit = {"T2w": tmp_path / "a", "ADC": tmp_path / "b"}
    assert match_inputs(inputs, [], explicit).require()


def two_patients(folder):
    """The same two sequences of each, in folders that say nothing."""
    for number in (1, 2):
        study = {"StudyInstanceUID": f"1.2.3.{number}", "StudyDate": f"2026010{number}"}
        tags = {"SeriesDescription": "t2_tse_tra", **study}
        write_series(folder / f"{number}a", noise(), series_uid=f"1.4.{number}", tags=tags)
        kind = ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]
        write_series(folder / f"{number}b", noise(), series_uid=f"1.5.{number}",
                     tags={"ImageType": kind, **study})  # fmt: skip


def test_images_of_two_patients_are_told_apart_and_one_choice_decides_for_its_study(tmp_path):
    two_patients(tmp_path)
    found = find_candidates([tmp_path])
    inputs = PROSTATE[:2]
    with pytest.raises(InputError, match=r"T2w could be .*, study of 2026-01-01 or .*, study of"):
        match_inputs(inputs, found).require()
    of_second = [c for c in found if c.header["StudyInstanceUID"] == "1.2.3.2"]
    t2w = next(c for c in of_second if c.header["SeriesInstanceUID"] == "1.4.2")
    matching = match_inputs(inputs, found, {"T2w": t2w}).require()
    assert matching["ADC"] in of_second
    (other,) = (c for c in found if c.header["SeriesInstanceUID"] == "1.5.1")
    mixed = match_inputs(inputs, found, {"T2w": t2w, "ADC": other})
    assert mixed["ADC"] is other, "whoever says so may"


def test_another_position_of_the_patient_is_told(tmp_path):
    write_series(tmp_path / "a", noise(), tags={"SeriesDescription": "t2_tra"})
    kind = ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]
    write_series(tmp_path / "b", noise(), tags={"ImageType": kind, "FrameOfReferenceUID": "1.9"})
    matching = match_inputs(PROSTATE[:2], find_candidates([tmp_path])).require()
    volume = combine([match.candidate.read() for match in matching.matches])
    assert any("frames of reference" in warning for warning in volume.warnings)


def test_contrast_tells_t1_from_t1c_under_one_description(tmp_path):
    timing = {"EchoTime": 4.0, "RepetitionTime": 8.0, "SeriesDescription": "t1_vibe_tra"}
    write_series(tmp_path / "a", noise(seed=1), tags=timing)
    write_series(tmp_path / "b", noise(seed=2), tags={**timing, "ContrastBolusAgent": "7 ml"})
    matching = match_inputs(BRAIN[:2], find_candidates([tmp_path])).require()
    assert matching["T1c"].header["ContrastBolusAgent"] == "7 ml"
    assert "ContrastBolusAgent" not in matching["T1"].header


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_the_modality_must_fit(tmp_path, modality):
    write_series(tmp_path, noise(), modality=modality, tags={"SeriesDescription": "CT abdomen"})
    matching = match_inputs(CT, find_candidates([tmp_path]))
    assert bool(matching.problems) == (modality == "MR")
    if modality == "MR":
        with pytest.raises(InputError, match="No image fits the input CT"):
            matching.require()


# Files by name


@pytest.mark.parametrize(
    "names",
    [
        ("BraTS-GLI-1-000-t1n.nii.gz", "BraTS-GLI-1-000-t1c.nii.gz", "BraTS-GLI-1-000-t2w.nii.gz",
         "BraTS-GLI-1-000-t2f.nii.gz"),
        ("B_t1.nii", "B_t1ce.nii", "B_t2.nii", "B_flair.nii"),
        ("sub-1_T1w.nii", "sub-1_ce-gd_T1w.nii", "sub-1_T2w.nii", "sub-1_FLAIR.nii"),
        ("x_0000.nii.gz", "x_0001.nii.gz", "x_0002.nii.gz", "x_0003.nii.gz"),
    ],
)  # fmt: skip
def test_files_are_matched_by_name_in_any_order(tmp_path, names):
    paths = nifti(tmp_path, *names)
    for given in (paths[::-1], [tmp_path]):
        matching = match_inputs(BRAIN, find_candidates(given)).require()
        assert tuple(chosen(matching).values()) == names


def test_a_lone_image_goes_to_a_lone_input(tmp_path):
    (path,) = nifti(tmp_path, "case_17.nii.gz")
    matching = match_inputs(CT, find_candidates([path])).require()
    assert matching.matches[0].reason == "the only image given"


def test_a_lone_image_that_says_it_is_something_else_is_refused(tmp_path):
    (path,) = nifti(tmp_path, "case_17_adc.nii.gz")
    matching = match_inputs([InputSpec("T2w", "MR")], find_candidates([path]))
    with pytest.raises(InputError, match=r"input T2w: found case_17_adc.nii.gz"):
        matching.require()
    explicit = match_inputs([InputSpec("T2w", "MR")], [], {"T2w": path})
    assert explicit.require()["T2w"].path == path


def test_nameless_files_are_not_guessed(tmp_path):
    paths = nifti(tmp_path, "a.nii", "b.nii")
    matching = match_inputs(PROSTATE[:2], find_candidates(paths))
    assert matching.matches == ()
    assert set(matching.missing) == {"T2w", "ADC"} and len(matching.problems) == 1


@pytest.mark.parametrize(
    ("answer", "several", "one"),
    [
        (Answer.ARGUMENT, "name each with NAME=PATH", "T2w=PATH or --series NUMBER"),
        (Answer.TABLE, "give the cohort as a CSV table with a column for each input",
         "name it with --series NUMBER, or give the cohort as a CSV table with"),
        (Answer.LIST, "choose them in the list", "choose it in the list"),
    ],
)  # fmt: skip
def test_what_is_missing_is_told_with_the_way_out_that_there_is(tmp_path, answer, several, one):
    candidates = find_candidates(nifti(tmp_path, "a.nii", "b.nii"))
    (problem,) = match_inputs(PROSTATE[:2], candidates, answer=answer).problems
    assert problem.endswith(f"Add them, or {several}.")
    (problem,) = match_inputs(PROSTATE[:1], candidates, answer=answer).problems
    assert one in problem


def test_an_input_of_an_unknown_kind_is_matched_by_its_own_name(tmp_path):
    paths = nifti(tmp_path, "case_ktrans.nii", "case_t2w.nii")
    inputs = [InputSpec("T2w", "MR"), InputSpec("Ktrans", "MR")]
    matching = match_inputs(inputs, find_candidates(paths)).require()
    assert chosen(matching) == {"T2w": "case_t2w.nii", "Ktrans": "case_ktrans.nii"}


def test_dicom_and_files_mix(tmp_path):
    write_series(tmp_path / "t2", noise(), tags={"SeriesDescription": "t2_tra"})
    (adc,) = nifti(tmp_path, "adc.nii.gz")
    matching = match_inputs(PROSTATE[:2], find_candidates([tmp_path / "t2", adc])).require()
    assert matching["T2w"].series is not None
    assert matching["ADC"].path == adc


def test_a_path_without_a_volume_says_what_is_there_instead(tmp_path):
    report = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.33", "Modality": "SR"}
    write_series(tmp_path / "report", noise(), tags=report)
    write_series(tmp_path / "single", noise((1, 4, 4)))
    (tmp_path / "empty").mkdir()
    for name, what in (("report", "a report"), ("single", "single slices"), ("empty", "no image")):
        with pytest.raises(InputError, match=what):
            find_candidates([tmp_path / name])


def test_volumes_of_one_multiframe_file_can_be_told_apart(tmp_path):
    frames = [
        {
            "PlanePositionSequence": {"ImagePositionPatient": [0.0, 0.0, 3.0 * k]},
            "MRImageFrameTypeSequence": {"FrameType": ["DERIVED", "PRIMARY", "DIFFUSION", kind]},
            "MRDiffusionSequence": {"DiffusionBValue": 1000.0},
        }
        for kind in ("ADC", "TRACE")
        for k in range(4)
    ]
    shared = {
        "PlaneOrientationSequence": {"ImageOrientationPatient": [1.0, 0, 0, 0, 1, 0]},
        "PixelMeasuresSequence": {"PixelSpacing": [1.0, 1.0]},
    }
    write_enhanced(tmp_path / "dwi.dcm", noise((8, 5, 5), np.uint16), frames, shared)
    candidates = find_candidates([tmp_path])
    adc = next(c for c in candidates if "ADC" in c.name)
    for explicit in ({}, {"ADC": adc}):
        matching = match_inputs(PROSTATE[1:], candidates, explicit).require()
        assert matching["ADC"] is adc
        assert matching["DWI"].series.b_value == 1000


# Real studies


@pytest.mark.real_data
@pytest.mark.parametrize("case", ["ProstateX-0000", "ProstateX-0218"])
def test_prostatex_is_matched_right(data_dir, case):
    folder = data_dir / "prostate_mpmri_prostatex" / "dicom" / case
    matching = match_inputs(PROSTATE, find_candidates([folder])).require()
    assert [m.candidate.path.name for m in matching.matches] == ["t2w", "adc", "hbv"]


@pytest.mark.real_data
def test_prostatex_is_matched_right_with_distracting_series_beside(data_dir):
    awkward = data_dir / "dicom_awkward"
    paths = [
        data_dir / "prostate_mpmri_prostatex" / "dicom" / "ProstateX-0000",
        awkward / "sagittal_t2_prostatex0000",
        awkward / "multi_b_value_one_series_prostatex0000_dwi",
    ]
    matching = match_inputs(PROSTATE, find_candidates(paths)).require()
    assert [m.candidate.path.name for m in matching.matches] == ["t2w", "adc", "hbv"]


@pytest.mark.real_data
def test_two_patients_in_one_folder_are_not_mixed(data_dir):
    folder = data_dir / "prostate_mpmri_prostatex" / "dicom"
    with pytest.raises(InputError, match="could be"):
        match_inputs(PROSTATE, find_candidates([folder])).require()


@pytest.mark.real_data
def test_brats_files_and_a_contrast_series_are_matched_right(data_dir):
    folder = next((data_dir / "brain_brats23_4seq_unlabelled").glob("BraTS*"))
    matching = match_inputs(BRAIN, find_candidates([folder])).require()
    endings = [m.candidate.name[-10:-7] for m in matching.matches]
    assert endings == ["t1n", "t1c", "t2w", "t2f"]
    tumor = data_dir / "brain_tumor_dicom_tcia" / "Study1"
    matching = match_inputs(BRAIN[1:2], find_candidates([tumor])).require()
    assert described(matching) == {"T1c": "T1post"}


@pytest.mark.real_data
def test_an_abdominal_ct_named_like_an_mr_sequence_is_still_a_ct(data_dir):
    folder = data_dir / "liver_ct_chaos_dicom" / "dicom"
    assert match_inputs(CT, find_candidates([folder])).require()["CT"].series.modality == "CT"
    assert match_inputs(PROSTATE[:1], find_candidates([folder])).problems


def test_an_input_with_a_name_of_its_own_takes_the_only_image_of_its_modality(tmp_path):
    write_series(tmp_path, noise((6, 8, 8)), tags={"SeriesDescription": "t2_tse_tra"})
    (image,) = find_candidates([tmp_path])
    assert match_inputs([InputSpec("MRI", "MR")], [image]).require()["MRI"] is image
    assert match_inputs(CT, [image]).problems
