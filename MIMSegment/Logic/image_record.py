"""Which image an input was, so that a page on paper finds its study again, without the patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from MIMSegment.Logic.dicom_privacy import PSEUDONYM
from MIMSegment.Logic.image_source import ImageSource
from MIMSegment.Logic.phrases import iso_date


@dataclass(frozen=True)
class ImageRecord:
    """One input of a result: the series' description, for other images the name of the file or
    node; the series' number, the study's date (YYYY-MM-DD) and StudyInstanceUID, and the
    pseudonym of a patient whose identity was removed from the images. "" where unknown.

    Neither the patient's name nor ID is in it: a description comes without them, and of images
    that are not de-identified there is no pseudonym.
    """

    input: str
    image: str
    number: str = ""
    date: str = ""
    study_uid: str = ""
    pseudonym: str = ""

    @staticmethod
    def of(input: str, source: ImageSource) -> ImageRecord:
        """What is known about ``source``, the image of the model's input ``input``."""
        header = source.header
        return ImageRecord(
            input,
            _description(header) or source.name,
            _text(header, "SeriesNumber"),
            iso_date(_text(header, "StudyDate")),
            _text(header, "StudyInstanceUID"),
            _text(header, PSEUDONYM),
        )


def said_of_images(records: Sequence[ImageRecord]) -> list[str]:
    """A line on the study, with its date, and one on the image of each input."""
    dates, names = distinct(records, "date"), distinct(records, "pseudonym")
    study = f"Study of {' and '.join(dates)}" if dates else "Study without a date"
    study += f", pseudonym {', '.join(names)}" if names else ""
    return [study, *(_said(record, len(dates) > 1) for record in records)]


def _said(record: ImageRecord, with_date: bool) -> str:
    number = f"series {record.number}, " if record.number else ""
    date = f" of {record.date or 'an unknown date'}" if with_date else ""
    return f"{record.input}: {number}{record.image}{date}"


def distinct(records: Sequence[ImageRecord], what: str) -> list[str]:
    """The values of the field ``what`` that are known, each once."""
    return [v for v in dict.fromkeys(getattr(record, what) for record in records) if v]


def _description(header: Mapping) -> str:
    text = _text(header, "SeriesDescription") or _text(header, "ProtocolName")
    b_value = header.get("DiffusionBValue")
    return f"{text}, b = {b_value:g}" if text and b_value is not None else text


def _text(header: Mapping, keyword: str) -> str:
    value = header.get(keyword, "")
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
