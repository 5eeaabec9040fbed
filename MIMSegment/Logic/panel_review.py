"""A review as the Slicer panel shows it: rows, findings, doubtful places. ``_`` translates."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from MIMSegment.Logic.finding import Finding, Severity
from MIMSegment.Logic.review_items import ReviewItem, ReviewState, Verdict

Translate = Callable[[str], str]

_MARKS = {Severity.ALERT: "‼", Severity.WARNING: "⚠", Severity.NOTE: "•"}  # in every font
_SYMBOLS = {
    Verdict.OPEN: "○",
    Verdict.EDITING: "✎",
    Verdict.ACCEPTED: "✔",
    Verdict.REJECTED: "✘",
}


@dataclass(frozen=True)
class Row:
    """A structure in the review table; ``cells`` in the order of `review_header`."""

    id: str
    color: tuple[int, int, int]
    cells: tuple[str, ...]
    tooltip: str


def review_header(_: Translate = str) -> tuple[tuple[str, str], ...]:
    """Caption and tooltip of each column of the review table."""
    certainty = _("How decided the model was, 1 at most; no probability of being right")
    return (
        (_("Structure"), _("Color and name")),
        (_("mL"), _("Volume in milliliters")),
        (_("Certainty"), certainty),
        (_("Verdict"), _("What you decided")),
        (_("Notes"), _("Findings of the checks, edits and your comment")),
    )


def review_row(item: ReviewItem, _: Translate = str) -> Row:
    """The row of a structure."""
    verdicts = {
        Verdict.OPEN: _("none yet"),
        Verdict.EDITING: _("editing"),
        Verdict.ACCEPTED: _("accepted"),
        Verdict.REJECTED: _("rejected"),
    }
    certainty = "" if item.confidence is None else f"{item.confidence:.2f}"
    marks = "".join(dict.fromkeys(_MARKS[finding.severity] for finding in item.findings))
    notes = " ".join(filter(None, (marks, _("edited") if item.edited else "", item.comment)))
    verdict = f"{_SYMBOLS[item.verdict]} {verdicts[item.verdict]}"
    cells = (item.name, _milliliters(item.volume_ml), certainty, verdict, notes)
    lines = [item.name, *(finding.message for finding in item.findings), item.comment]
    tooltip = "\n".join(filter(None, lines))
    return Row(item.id, item.color, cells, tooltip)


def rows_text(rows: Sequence[Row], _: Translate = str) -> str:
    """The table as tab-separated text, for the clipboard."""
    lines = [[caption for caption, _tip in review_header(_)], *(row.cells for row in rows)]
    return "".join("\t".join(line) + "\n" for line in lines)


def findings_html(findings: Sequence[Finding]) -> str:
    """A line for each finding, the gravest first and bold."""
    ordered = sorted(findings, key=lambda finding: -finding.severity.rank)
    return "<br>".join(map(_finding_html, ordered))


def findings_title(findings: Sequence[Finding], _: Translate = str) -> str:
    """What the checks found, in numbers."""
    words = {
        Severity.ALERT: (_("Checks: 1 alert"), _("Checks: {count} alerts")),
        Severity.WARNING: (_("Checks: 1 warning"), _("Checks: {count} warnings")),
    }
    gravest = max((f.severity for f in findings), key=lambda s: s.rank, default=Severity.NOTE)
    if gravest is Severity.NOTE:
        return _("Checks: nothing serious")
    count = sum(finding.severity is gravest for finding in findings)
    one, many = words[gravest]
    return one if count == 1 else many.format(count=count)


def place_text(review: ReviewState, _: Translate = str) -> str:
    """Which doubtful place is shown, or how many there are."""
    if review.place is not None and review.place in review.places:
        number = review.places.index(review.place) + 1
        count = len(review.places)
        return _("Place {number} of {count}: {reason}").format(
            number=number, count=count, reason=review.place.reason
        )
    if not review.places:
        return _("No doubtful place is left.")
    return _("Doubtful places to look at: {count}").format(count=len(review.places))


def _finding_html(finding: Finding) -> str:
    text = f"{_MARKS[finding.severity]} {html.escape(finding.message)}"
    return f"<b>{text}</b>" if finding.severity is Severity.ALERT else text


def _milliliters(volume: float) -> str:
    return f"{volume:.2f}" if volume < 10 else f"{volume:.1f}" if volume < 100 else f"{volume:.0f}"
