"""The report on a reviewed result: one page of HTML with key pictures, and the volumes as CSV.

The page stands alone: no script, nothing from a network, pictures inside. Printed by a browser it
is one sheet of A4. It has no scores (PI-RADS, RANO) and no probabilities.
"""

from __future__ import annotations

import base64
import datetime
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from MIMSegment.Logic.about import NOTICE
from MIMSegment.Logic.anatomy import is_lesion
from MIMSegment.Logic.comparison import volume_rows
from MIMSegment.Logic.files import write_csv, write_text
from MIMSegment.Logic.image_record import distinct, said_of_images
from MIMSegment.Logic.key_pictures import key_pictures
from MIMSegment.Logic.lesions import lesion_rows, parts_not_asked
from MIMSegment.Logic.phrases import counted
from MIMSegment.Logic.report_tables import Table, gland_table, lesion_table, volume_table
from MIMSegment.Logic.reviewed_case import ReviewedCase

_STYLE = Path(__file__).parents[1] / "Resources" / "report.css"
_MOST_FINDINGS = 6
_MOST_LESIONS = 8
_NUMERIC = re.compile(r"[-+]?\d(.*\d)?$")  # also 12 × 6 × 4
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_report(case: ReviewedCase, path: str | Path) -> None:
    """Write the HTML page. Raises OutputError, InputError for an impossible PSA."""
    write_text(path, report_html(case))


def write_table(case: ReviewedCase, path: str | Path) -> None:
    """Write the volumes as CSV: numbers with points, units in the header. Raises OutputError."""
    columns, *rows = [[_inert(cell) for cell in row] for row in volume_table(case, exact=True)]
    write_csv(path, columns, rows)


def report_html(case: ReviewedCase) -> str:
    """The page as text; everything in it that is not ours is escaped."""
    lesions = lesion_table(lesion_rows(case))
    parts = [
        f"<h1>{escape(case.title)}</h1>",
        f'<p class="notice">{escape(_warning(case))}</p>',
        _images(case),
        _pictures(case),
        _section("Volumes", volume_table(case), _swatches(case)),
        _left_out(case),
        _gland(case),
        _section("Lesions", lesions[: 1 + _MOST_LESIONS]),
        _more(len(lesions) - 1 - _MOST_LESIONS, "smaller lesion"),
        _missing_lesions(case) if lesions else "",
        _findings(case),
        _provenance(case),
    ]
    style = _STYLE.read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; img-src data:\">"
        f"<title>{escape(case.title)}</title><style>{style}</style></head><body>"
        + "\n".join(part for part in parts if part)
        + "</body></html>\n"
    )


def _warning(case: ReviewedCase) -> str:
    phantom = " Made by a model that was trained on digital phantoms." if case.phantom else ""
    return f"{NOTICE}{phantom}"


def _images(case: ReviewedCase) -> str:
    """Which study this is about."""
    images = case.provenance.images
    if not images:
        return ""
    study, *lines = map(escape, said_of_images(images))
    inputs = " ".join(f"<span>{line}</span>" for line in lines)
    return f'<p class="study"><b>{study}</b><br>{inputs}</p>'


def _pictures(case: ReviewedCase) -> str:
    figures = [
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,'
        f'{base64.b64encode(png).decode()}"><figcaption>{escape(caption)}</figcaption></figure>'
        for caption, png in key_pictures(case)
    ]
    if case.inputs and case.inputs[0].volume is None:
        return f"<p>No pictures: {escape(case.inputs[0].name)} is not loaded any more.</p>"
    return f'<div class="pictures">{"".join(figures)}</div>' if figures else ""


def _section(title: str, table: Table, marks: Sequence[str] = ()) -> str:
    """A heading and a table, whose first row is its header, numbers to the right; ``marks`` is
    HTML before the first cell of each row."""
    if not table:
        return ""
    header, *rows = table
    classes = [' class="number"' if _is_number(c) else "" for c in zip(*rows, strict=True)]
    lines = [_row("th", header, classes)]
    for row, mark in zip(rows, marks or [""] * len(rows), strict=True):
        lines.append(_row("td", row, classes, mark))
    return f"<h2>{title}</h2><table>{''.join(lines)}</table>"


def _row(tag: str, cells: Sequence[str], classes: Sequence[str], mark: str = "") -> str:
    texts = [mark + escape(cells[0]), *map(escape, cells[1:])]
    pairs = zip(texts, classes, strict=True)
    return "<tr>" + "".join(f"<{tag}{kind}>{text}</{tag}>" for text, kind in pairs) + "</tr>"


def _swatches(case: ReviewedCase) -> list[str]:
    """The color of each structure, in the order of `volume_table`."""
    colors = {label.value: label.color for label in case.table}
    shown = [colors.get(row.label) for row in volume_rows(case)]
    swatch = '<i style="background:rgb({},{},{})"></i>'
    return [swatch.format(*color) if color else "" for color in shown]


def _is_number(column: Sequence[str]) -> bool:
    texts = [text for text in column if text]
    return bool(texts) and all(_inert(text) == text and _NUMERIC.match(text) for text in texts)


def _left_out(case: ReviewedCase) -> str:
    kept = {item.id for item in case.kept}
    rejected = [item.name for item in case.items if item.id not in kept]
    not_asked = [label.name for label in case.not_asked]
    lines = [f"Rejected and left out: {', '.join(rejected)}."] if rejected else []
    lines += [f"Not asked for: {', '.join(not_asked)}."] if not_asked else []
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _gland(case: ReviewedCase) -> str:
    """The prostate as a whole, or why it has no volume."""
    table = _section("Prostate", gland_table(case))
    if table:
        rejected = any(is_lesion(label) for label in case.rejected)
        note = "<p>The gland's tissue in rejected lesions is counted.</p>" if rejected else ""
        return table + note
    parts = escape(", ".join(parts_not_asked(case)))
    return f"<p>The prostate has no volume here without: {parts}.</p>" if parts else ""


def _missing_lesions(case: ReviewedCase) -> str:
    """Why a number is missing among the lesions."""
    if not any(is_lesion(label) for label in case.rejected):
        return ""
    return "<p>Lesions keep their numbers of the review; rejected ones are not listed.</p>"


def _more(count: int, what: str) -> str:
    are = "is" if count == 1 else "are"
    return f"<p>{counted(count, what)} {are} left out.</p>" if count > 0 else ""


def _findings(case: ReviewedCase) -> str:
    edited = {item.label for item in case.items if item.edited}
    rejected = {label.value for label in case.rejected}  # nothing is written of them
    findings = [f.of_edited() if f.label in edited else f for f in case.findings]
    worst = [finding for finding in findings if finding.label not in rejected]
    worst.sort(key=lambda finding: -finding.severity.rank)
    if not worst:
        return ""
    lines = [
        f'<li class="{finding.severity}">{escape(str(finding))}</li>'
        for finding in worst[:_MOST_FINDINGS]
    ]
    more = _more(len(worst) - _MOST_FINDINGS, "more finding")
    return f"<h2>What the checks found</h2><ul>{''.join(lines)}</ul>{more}"


def _provenance(case: ReviewedCase) -> str:
    made = case.provenance
    weights = ", ".join(checksum[:12] for checksum in made.weights.values())
    today = datetime.date.today().isoformat()
    lines = [
        f"Segmented by {made.package} {made.version} with {made.software}. Written on {today}."
    ]
    lines += [f"Checksum of the model (SHA-256) {weights} …"] if weights else []
    lines += [f"Study {uid}" for uid in distinct(made.images, "study_uid")]
    lines += [
        f"{image.name}: series {uid}"
        for image, uid in zip(case.inputs, made.series_uids, strict=False)
        if uid
    ]
    lines += [] if any(made.series_uids) else ["The images did not come from DICOM."]
    text = "<br>".join(escape(line) for line in lines)
    return f"<footer>{text}</footer>"


def _inert(cell: str) -> str:
    """The cell with an apostrophe before what a spreadsheet would take for a formula."""
    try:
        float(cell)
    except ValueError:
        return f"'{cell}" if cell.startswith(_FORMULA) else cell
    return cell
