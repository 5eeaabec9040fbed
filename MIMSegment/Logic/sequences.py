"""Which sequence an image is, by its DICOM attributes and by its names.

Scores are sums of plain weights, high enough apart that a stronger kind of evidence outvotes a
weaker one: what the scanner states (ImageType, modality) over what someone typed (description,
file name) over what follows from timing. Timing limits are the usual ones of clinical MR at
1.5 and 3 T.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

CONTRAST_AGENT = "ContrastBolusAgent"
SPOKEN = "SpokenSequences"
"""Key in a header: by keyword, the sequences of texts from which words were taken out."""
_STATED, _DESCRIBED, _NAMED, _FOLDER, _TIMED = 100.0, 40.0, 30.0, 15.0, 20.0
_BEST_B_VALUE = 2000.0  # s/mm²; beyond it a higher b-value is no better
_CONTRAST = (
    r"\bgd\b|\bpost\b|\bce\b|\bkm\b|\bcontrast|\bgad|\+c\b|\+ c\b|\bc ?\+|\bt1(ce|c|gd|post)\b"
)
_AGENT = r"(contrast|enhanced|gd|gad|km|ce|iv|agent|mdc|inj)"
_BEFORE_CONTRAST = (
    rf"\bpre\b(?! ?(op|rt|th|tr|surg))|\bpre ?{_AGENT}|\bnon? ?{_AGENT}|\b(sans|senza|sin) {_AGENT}"
    r"|\b(without|w ?o|ohne)\b(?! (fs|fat|sat))|\bnativ|\bunenhanced\b"
)
_NO_AGENT = r"(no|non|none|nil|without|ohne|unenhanced)\b"
_AFTER_CONTRAST = r"\bpost\b|\bt1(ce|c|gd|post)\b"
_WORDS = (  # the first that fits counts
    ("exponential ADC", r"\be ?adc\b|\bexp\w* (adc|apparent)"),
    ("ADC", r"\badc\b|apparent diffusion"),
    ("T1", r"\bt1w?( \w+){0,2} ?(flair|dark ?fluid)"),  # T1-weighted with suppressed fluid
    ("FLAIR", r"flair|\bt2f\b|dark ?fluid"),
    ("DWI", r"\bdwi\b|\bdiff\b|diffusion|\bhbv\b|bval\b|\btracew?\b|\bb ?\d{3,4}\b|high ?b\b"),
    ("T1", r"\bt1(?!\d| ?rho| ?map)|mp ?rage|\bf?spgr\b|\bbravo\b|\bvibe\b"),
    ("T2", r"\bt2(?!\d|\*|s\b| ?star| ?map)"),
    ("CT", r"\bct\b"),
    ("PET", r"\bpet\b"),
)
_NAMES = {
    "T1": ("t1", "t1w", "t1n"),
    "T1c": ("t1c", "t1ce", "t1gd", "t1post"),
    "T2": ("t2", "t2w"),
    "FLAIR": ("flair", "t2f", "t2flair"),
    "ADC": ("adc",),
    "DWI": ("dwi", "hbv", "highb"),
    "CT": ("ct",),
    "PET": ("pet", "pt"),
}


@dataclass(frozen=True)
class Evidence:
    """How well an image fits an input: a score (negative speaks against) and why."""

    score: float
    reasons: tuple[str, ...] = ()


def sequence_of(name: str) -> str:
    """The standard name of a sequence ("t1ce" is "T1c"); an unknown name stays as it is."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return next((standard for standard, names in _NAMES.items() if plain in names), name)


def sequence_in_text(text: str) -> str | None:
    """The sequence that a description or file name speaks of, None if it names none."""
    words = _words(text)
    sequence = next((name for name, pattern in _WORDS if re.search(pattern, words)), None)
    enhanced = re.search(_CONTRAST, words) and not before_contrast(text)
    return "T1c" if sequence == "T1" and enhanced else sequence


def before_contrast(text: str) -> bool:
    """Whether a description says that no contrast agent was given, or not yet."""
    words = _words(text)
    return bool(re.search(_BEFORE_CONTRAST, words)) and not re.search(_AFTER_CONTRAST, words)


def spoken_sequence(header: Mapping, keyword: str) -> str | None:
    """The sequence that a text in a DICOM header speaks of, None if it names none."""
    kept = header.get(SPOKEN, {}).get(keyword)
    return kept or sequence_in_text(str(header.get(keyword, "")))


def sequence_by_timing(header: Mapping) -> str | None:
    """The sequence that echo, repetition and inversion time (ms) and b-value speak for."""
    kind = header.get("ImageType", ())
    if header.get("DiffusionBValue") is not None or {"DIFFUSION", "TRACEW"} & set(kind):
        return "DWI"
    echo, repetition = header.get("EchoTime"), header.get("RepetitionTime")
    inversion = header.get("InversionTime") or 0
    if echo is None or repetition is None:
        return None
    if echo >= 60 and inversion >= 1500:
        return "FLAIR"
    if echo >= 60 and repetition >= 2000 and not inversion:
        return "T2"
    if echo <= 30 and (repetition <= 1200 or 600 <= inversion <= 1300):
        return "T1c" if contrast_agent(header) else "T1"
    return None


def contrast_agent(header: Mapping) -> bool:
    """Whether the DICOM header names a contrast agent; some say "no" there."""
    agent = _words(str(header.get(CONTRAST_AGENT, ""))).strip()
    return agent not in ("", "0", "n", "na", "n a") and not re.match(_NO_AGENT, agent)


def evidence(name: str, modality: str, header: Mapping, label: str, folder: str = "") -> Evidence:
    """How an image fits the input ``name`` of ``modality``.

    ``header`` holds DICOM attributes by keyword (empty for other files), ``label`` is the file's
    name ("" for a series), ``folder`` the name of the folder around it.
    """
    wanted = sequence_of(name)
    found = str(header.get("Modality", "")).replace("PT", "PET")
    if found and found != modality.replace("PT", "PET"):
        return Evidence(-10 * _STATED, (f"its modality is {found}",))
    if found and wanted == found:
        return Evidence(_STATED, (f"its modality is {found}",))
    evidences = [
        _stated(wanted, header),
        _described(wanted, header),
        _spoken(wanted, label, _NAMED, "name"),
        _spoken(wanted, folder, _FOLDER, "folder name"),
        _timed(wanted, header),
    ]
    return Evidence(sum(e.score for e in evidences), tuple(r for e in evidences for r in e.reasons))


def _stated(wanted: str, header: Mapping) -> Evidence:
    if "ADC" not in header.get("ImageType", ()):
        return Evidence(0.0)
    return _verdict(wanted, wanted == "ADC", _STATED, "its ImageType is ADC")


def _described(wanted: str, header: Mapping) -> Evidence:
    for keyword in ("SeriesDescription", "ProtocolName"):
        text = str(header.get(keyword, ""))
        sequence = spoken_sequence(header, keyword)
        if sequence == "T1" and contrast_agent(header) and not before_contrast(text):
            sequence = "T1c"
        if sequence or _names(wanted, text):
            fits = sequence == wanted or _names(wanted, text)
            return _verdict(wanted, fits, _DESCRIBED, f'its {keyword} is "{text}"')
    return Evidence(0.0)


def _spoken(wanted: str, text: str, weight: float, what: str) -> Evidence:
    sequence = sequence_in_text(text)
    if sequence is None and not _names(wanted, text):
        return Evidence(0.0)
    fits = sequence == wanted or _names(wanted, text)
    return _verdict(wanted, fits, weight, f'its {what} is "{text}"')


def _verdict(wanted: str, fits: bool, weight: float, reason: str) -> Evidence:
    if fits:
        return Evidence(weight, (reason,))
    # An input by a name of its own ("MRI", "image") may be any sequence of its modality.
    return Evidence(-weight if wanted in _NAMES else 0.0)


def _timed(wanted: str, header: Mapping) -> Evidence:
    sequence = sequence_by_timing(header)
    if sequence is None or wanted not in _NAMES or "ADC" in header.get("ImageType", ()):
        return Evidence(0.0)
    if sequence != wanted:
        return Evidence(-_TIMED)
    b_value = header.get("DiffusionBValue")
    if sequence == "DWI" and b_value is not None:
        # A b-value near 0 shows T2 contrast; among the others the highest shows lesions best.
        weight = _TIMED + min(b_value, _BEST_B_VALUE) / 50 if b_value > 100 else -_TIMED
        return Evidence(weight, (f"its b-value is {b_value:g}",))
    times = [
        f"{short} {header[keyword]:g} ms"
        for short, keyword in (
            ("TE", "EchoTime"), ("TR", "RepetitionTime"), ("TI", "InversionTime"),
        )
        if header.get(keyword)
    ]  # fmt: skip
    agent = ["a contrast agent was given"] if sequence == "T1c" else []
    return Evidence(_TIMED, (", ".join(times + agent),) if times else ())


def _names(wanted: str, text: str) -> bool:
    """Whether the text holds the name of an input that is none of the known sequences."""
    return wanted not in _NAMES and bool(
        re.search(rf"\b{re.escape(_words(wanted))}\b", _words(text))
    )


def _words(text: str) -> str:
    return re.sub(r"[_\-./\\()\[\],:;^~]+", " ", text.lower())
