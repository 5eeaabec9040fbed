"""Which study a result is about: enough to find it again, and nothing about the patient."""

from dataclasses import asdict

import pytest

from dicom_writer import SECRETS, noise, write_series
from MIMSegment.Logic.candidates import Candidate, find_candidates
from MIMSegment.Logic.image_record import ImageRecord

TAGS = {
    "PatientName": "DOE^JANE", "PatientID": "ID-4711-X", "AccessionNumber": "ACC-0815",
    "StudyInstanceUID": "1.2.826.1", "StudyDate": "20110218", "SeriesNumber": 4,
    "SeriesDescription": "t2_tse_tra Doe",
}  # fmt: skip


def record(folder, **tags) -> ImageRecord:
    write_series(folder, noise(), tags=TAGS | tags)
    (candidate,) = find_candidates([folder])
    return ImageRecord.of("T2w", candidate)


def test_a_series_is_known_by_description_number_date_and_study(tmp_path):
    found = record(tmp_path, SeriesDescription="t2_tse_tra")
    assert found == ImageRecord("T2w", "t2_tse_tra", "4", "2011-02-18", "1.2.826.1")


def test_nothing_of_the_patient_is_in_it(tmp_path):
    found = record(tmp_path)
    said = " ".join(asdict(found).values())
    assert found.image == "t2_tse_tra …"
    assert not any(secret.lower() in said.lower() for secret in (*SECRETS, "doe", "jane"))


@pytest.mark.parametrize(("removed", "shown"), [("YES", "ID-4711-X"), ("NO", "")])
def test_an_id_is_shown_only_where_the_identity_was_removed(tmp_path, removed, shown):
    assert record(tmp_path, PatientIdentityRemoved=removed).pseudonym == shown


@pytest.mark.filterwarnings("ignore:Invalid value for VR DA")
@pytest.mark.parametrize("date", ["", "2011", "summer"])
def test_what_is_no_date_is_unknown(tmp_path, date):
    assert record(tmp_path, StudyDate=date).date == ""


def test_diffusion_series_differ_by_their_b_value(tmp_path):
    assert record(tmp_path, DiffusionBValue=800.0).image == "t2_tse_tra …, b = 800"


def test_a_file_is_known_by_its_name(tmp_path):
    file = Candidate("case_07_t2.nii.gz", tmp_path / "case_07_t2.nii.gz")
    assert ImageRecord.of("T2w", file) == ImageRecord("T2w", "case_07_t2.nii.gz")
