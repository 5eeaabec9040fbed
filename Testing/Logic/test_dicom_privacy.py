"""Names that people type into DICOM text: taken out of what is kept, without harm to matching."""

import pytest

from dicom_writer import everything_said, noise, write_series
from MIMSegment.Logic.candidates import find_candidates
from MIMSegment.Logic.dicom import scan
from MIMSegment.Logic.matching import InputSpec, match_inputs
from MIMSegment.Logic.sequences import evidence

FREE_TEXT = (
    "SeriesDescription", "ProtocolName", "ContrastBolusAgent", "BodyPartExamined", "SequenceName",
    "ConvolutionKernel", "ManufacturerModelName",
)  # fmt: skip


def write(folder, name, **tags):
    write_series(folder, noise(), tags={"PatientName": name, "PatientID": "", **tags})
    (series,) = scan(folder)
    return series.header


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize("text", ["T2 Li Wei", "t2_tra_Li_Wei", "WEI, LI t2", "T2 LiWei", "Li^Wei"])
@pytest.mark.parametrize("keyword", FREE_TEXT)
def test_names_of_two_letters_are_taken_out_of_all_text(tmp_path, keyword, text):
    header = write(tmp_path, "Li^Wei", **{keyword: text})
    kept = str(header[keyword]).lower()
    assert "li" not in kept and "wei" not in kept
    assert ("t2" in kept) == ("t2" in text.lower())
    assert text not in everything_said(tmp_path)


def test_a_name_in_another_script_is_taken_out(tmp_path):
    header = write(tmp_path, "Li^Wei=李^薇", SpecificCharacterSet="ISO_IR 192",
                   SeriesDescription="T2 李薇")  # fmt: skip
    assert header["SeriesDescription"] == "T2 …"


def test_a_text_of_several_values_is_cleaned_and_read(tmp_path):
    header = write(tmp_path, "Li^Wei", SeriesDescription=["T2 Li", "axial"])
    assert header["SeriesDescription"] == ("T2 …", "axial")


def test_words_that_only_begin_like_a_name_stay(tmp_path):
    header = write(tmp_path, "Li^An^T", SeriesDescription="T1 Liver Angio")
    assert header["SeriesDescription"] == "T1 Liver Angio"


def test_coded_values_stay_whatever_the_patients_name(tmp_path):
    kind = ["ORIGINAL", "PRIMARY", "ADC"]
    header = write(tmp_path, "Mr^ADC", ImageType=kind, ScanningSequence="MR")
    assert header["Modality"] == header["ScanningSequence"] == "MR"
    assert header["ImageType"] == tuple(kind)


def test_inputs_are_matched_when_the_patient_is_called_like_a_sequence(tmp_path):
    texts = {"T2w": "T2 Ax", "ADC": "ADC Ax", "T1": "T1 Ax"}
    for text in texts.values():
        write_series(
            tmp_path / text, noise(),
            tags={"PatientName": "T2^ADC^T1", "PatientID": "", "SeriesDescription": text},
        )  # fmt: skip
    renamed = [tmp_path / str(n) for n in range(3)]  # folders that say nothing
    for folder, new in zip(sorted(tmp_path.iterdir()), renamed, strict=True):
        folder.rename(new)
    candidates = find_candidates(renamed)
    assert all(c.header["SeriesDescription"] == "… Ax" for c in candidates)
    matching = match_inputs([InputSpec(name, "MR") for name in texts], candidates).require()
    spoken = [m.candidate.header["SpokenSequences"] for m in matching.matches]
    assert [s["SeriesDescription"] for s in spoken] == ["T2", "ADC", "T1"]


def test_a_contrast_agent_is_known_whatever_the_patients_name(tmp_path):
    after = write(tmp_path / "a", "Gd^Anna", SeriesDescription="T1 Gd")
    assert evidence("T1c", "MR", after, "").score > 0 > evidence("T1", "MR", after, "").score
    before = write(tmp_path / "b", "No^Anna", SeriesDescription="T1", ContrastBolusAgent="No")
    assert evidence("T1", "MR", before, "").score > 0 > evidence("T1c", "MR", before, "").score
