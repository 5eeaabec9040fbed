"""The text of a DICOM header without the patient, whose name and ID people type into it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from MIMSegment.Logic.sequences import CONTRAST_AGENT, SPOKEN, contrast_agent, sequence_in_text

# The program, not a person, writes these and depends on them: "MR" may be a name, too.
_CODED = frozenset(
    ("Modality", "ImageType", "ScanningSequence", "SeriesInstanceUID", "StudyInstanceUID",
     "FrameOfReferenceUID")
)  # fmt: skip
PSEUDONYM = "Pseudonym"
"""The ID of a patient whose identity was removed: only the de-identified files know it."""
_LEAST = 2  # letters of a part of a name that is taken out; one letter is no more than an initial


def without_identity(header: Mapping, name: str, patient_id: str) -> dict:
    """``header`` (attributes by keyword) without the patient's name, its parts, and ID.

    A part of the name may be a word of sequences as well ("Ax", "Gd", "Post"). Which sequence a
    shortened text spoke of is kept under `SPOKEN`, for matching, as a standard name that says
    nothing else.
    """
    words = _words(name, patient_id)
    cleaned = {
        keyword: value if keyword in _CODED else _without(words, value)
        for keyword, value in header.items()
    }
    if not contrast_agent(header) and CONTRAST_AGENT in header:
        cleaned[CONTRAST_AGENT] = header[CONTRAST_AGENT]  # a plain "no"
    spoken = {
        keyword: sequence_in_text(str(header[keyword]))
        for keyword in ("SeriesDescription", "ProtocolName")
        if cleaned.get(keyword) != header.get(keyword)
    }
    spoken = {keyword: sequence for keyword, sequence in spoken.items() if sequence}
    return {**cleaned, SPOKEN: spoken} if spoken else cleaned


def pseudonym(removed: object, patient_id: str) -> dict:
    """The patient's ID as `PSEUDONYM`, where DICOM's PatientIdentityRemoved says YES (PS3.3
    C.7.1.1); empty otherwise, as the ID is then the hospital's own."""
    known = str(removed or "").strip().upper() == "YES" and patient_id
    return {PSEUDONYM: patient_id} if known else {}


def _words(name: str, patient_id: str) -> list[str]:
    """What is taken out, the longest first. A name may come in several scripts, parted by =."""
    groups = [re.split(r"[\^\s,_-]+", group) for group in name.split("=")]
    parts = [part for group in groups for part in (*group, "".join(group))]
    words = {word for word in (name, patient_id, *parts) if len(word) >= _LEAST}
    return sorted(words, key=len, reverse=True)


def _without(words: list[str], value):
    if isinstance(value, tuple):
        return tuple(_without(words, item) for item in value)
    if isinstance(value, str):
        for word in words:  # whole: no letter or digit before and after it
            pattern = rf"(?<![^\W_]){re.escape(word)}(?![^\W_])"
            value = re.sub(pattern, "…", value, flags=re.IGNORECASE)
    return value
