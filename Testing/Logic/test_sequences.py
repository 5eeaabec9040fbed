"""Sequences known by their names, by what the scanner states, and by their timing."""

import pytest

from MIMSegment.Logic.sequences import (
    evidence,
    sequence_by_timing,
    sequence_in_text,
    sequence_of,
)


@pytest.mark.parametrize(
    ("text", "sequence"),
    [
        ("t2_tse_tra", "T2"), ("T2w", "T2"), ("Ax T2 FSE", "T2"), ("sub-01_T2w", "T2"),
        ("t2_tse_sag_320", "T2"), ("BraTS-GLI-00001-000-t2w", "T2"), ("T2SPIR", "T2"),
        ("t2_flair_tra", "FLAIR"), ("BraTS-GLI-00001-000-t2f", "FLAIR"), ("Ax FLAIR", "FLAIR"),
        ("t2_tirm_tra_dark-fluid", "FLAIR"),
        ("T1post", "T1c"), ("t1ce", "T1c"), ("BRATS_001_t1Gd", "T1c"), ("t1_mprage_tra_KM", "T1c"),
        ("Ax T1 POST", "T1c"), ("MPRAGE +C", "T1c"), ("sub-01_ce-gadolinium_T1w", "T1c"),
        ("3D T1 post contrast", "T1c"), ("BraTS-GLI-00001-000-t1c", "T1c"),
        ("t1_mprage_sag", "T1"), ("BraTS-GLI-00001-000-t1n", "T1"), ("FSPGR BRAVO", "T1"),
        ("ep2d_diff_tra_DYNDIST_ADC", "ADC"), ("Apparent Diffusion Coefficient", "ADC"),
        ("ep2d_diff_tra_DYNDISTCALC_BVAL", "DWI"), ("DWI b1000", "DWI"), ("case1_hbv", "DWI"),
        ("ep2d-advdiff-3Scan-4bval_spair_511bCALC_BVAL", "DWI"), ("resolve_TRACEW", "DWI"),
        ("Thorax CT 1.0", "CT"), ("t2star_gre", None), ("T2* map", None), ("localizer", None),
        ("cat1", None), ("contract", None), ("0012", None), ("T1 map", None), ("T1rho", None),
        ("Ax T1 pre contrast", "T1"), ("AX T1 WITHOUT CONTRAST", "T1"), ("T1 W/O", "T1"),
        ("T1 non-contrast", "T1"), ("T1 FS PRE GAD", "T1"), ("t1 ohne KM", "T1"),
        ("T1 C+", "T1c"), ("T1 PRE/POST", "T1c"), ("pre-op T1 Gd", "T1c"), ("case_no_5_t1c", "T1c"),
        ("T1 Gd without fat sat", "T1c"), ("presat T1 Gd", "T1c"),
        ("Ax T1 FLAIR", "T1"), ("Sag T1 FLAIR +C", "T1c"), ("t1_tirm_tra_dark-fluid", "T1"),
        ("Ax T2 FLAIR", "FLAIR"), ("FLAIR_in_T1_space", "FLAIR"), ("t1_to_flair", "T1"),
        ("eADC", "exponential ADC"),
        ("Exponential Apparent Diffusion Coefficient", "exponential ADC"),
    ],
)  # fmt: skip
def test_sequences_are_known_by_their_names(text, sequence):
    assert sequence_in_text(text) == sequence


@pytest.mark.parametrize(
    ("name", "standard"),
    [("T2w", "T2"), ("t1ce", "T1c"), ("T1Gd", "T1c"), ("HBV", "DWI"), ("t2-flair", "FLAIR"),
     ("adc", "ADC"), ("PD", "PD")],
)  # fmt: skip
def test_input_names_are_brought_to_standard_ones(name, standard):
    assert sequence_of(name) == standard


@pytest.mark.parametrize(
    ("header", "sequence"),
    [
        ({"EchoTime": 104, "RepetitionTime": 5660}, "T2"),
        ({"EchoTime": 90, "RepetitionTime": 9000, "InversionTime": 2500}, "FLAIR"),
        ({"EchoTime": 10, "RepetitionTime": 650}, "T1"),
        ({"EchoTime": 3, "RepetitionTime": 2300, "InversionTime": 900}, "T1"),
        ({"EchoTime": 10, "RepetitionTime": 650, "ContrastBolusAgent": "9 ml"}, "T1c"),
        ({"EchoTime": 10, "RepetitionTime": 650, "ContrastBolusAgent": "NONE"}, "T1"),
        ({"EchoTime": 10, "RepetitionTime": 650, "ContrastBolusAgent": "No contrast"}, "T1"),
        ({"EchoTime": 10, "RepetitionTime": 650, "ContrastBolusAgent": "N/A"}, "T1"),
        ({"EchoTime": 63, "RepetitionTime": 2700, "DiffusionBValue": 800}, "DWI"),
        ({"EchoTime": 30, "RepetitionTime": 3000}, None),
        ({}, None),
    ],
)
def test_sequences_are_known_by_their_timing(header, sequence):
    assert sequence_by_timing(header) == sequence


def test_a_t1_before_contrast_is_none_after_it_whatever_the_agent_of_the_examination():
    before, after = "AX T1 PRE CONTRAST", "AX T1 POST CONTRAST"
    for agent in ({}, {"ContrastBolusAgent": "Gadovist"}):
        for text, fits, other in ((before, "T1", "T1c"), (after, "T1c", "T1")):
            header = {"Modality": "MR", "SeriesDescription": text, **agent,
                      "EchoTime": 10.0, "RepetitionTime": 650.0}  # fmt: skip
            assert evidence(fits, "MR", header, "").score >= 10
            assert evidence(other, "MR", header, "").score < 0
