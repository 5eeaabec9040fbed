"""The tables of a report as rows of text, a header first: volumes, prostate, lesions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from MIMSegment.Logic.comparison import Prior, VolumeRow, volume_rows
from MIMSegment.Logic.lesions import LesionRow, prostate_volume
from MIMSegment.Logic.result_checks import ml
from MIMSegment.Logic.review_items import ReviewItem, Verdict
from MIMSegment.Logic.reviewed_case import ReviewedCase

Table = list[list[str]]

_VERDICTS = {
    Verdict.OPEN: "none yet",
    Verdict.EDITING: "edited, not accepted",
    Verdict.ACCEPTED: "accepted",
    Verdict.REJECTED: "rejected",
}


def volume_table(case: ReviewedCase, exact: bool = False) -> Table:
    """Header and a row for each structure; with a prior (``case.options["prior"]``, a
    `comparison.Prior`) its change as well. ``exact``: four decimals instead of rounded ones."""
    prior: Prior | None = case.options.get("prior")
    rows = volume_rows(case, prior)
    items = [case.item(row.label) if row.label is not None else None for row in rows]
    number = (lambda v: f"{v:.4f}") if exact else ml
    columns = {
        "Structure": [row.name for row in rows],
        "Volume (mL)": [number(row.volume_ml) for row in rows],
    }
    if prior is not None:
        columns |= _changes(rows, prior.name, number)
    columns["Verdict"] = [_VERDICTS[item.verdict] if item else "" for item in items]
    columns["Drawn by"] = [_drawn_by(item) if item else "" for item in items]
    columns["Comment"] = [item.comment if item else "" for item in items]
    if not any(columns["Comment"]):
        del columns["Comment"]
    return [list(columns), *(list(cells) for cells in zip(*columns.values(), strict=True))]


def _drawn_by(item: ReviewItem) -> str:
    return "hand" if item.by_hand else "model, edited" if item.edited else "model"


def gland_table(case: ReviewedCase) -> Table:
    """Header and a row with prostate volume and PSA density; empty for other results."""
    gland = prostate_volume(case)
    if gland is None:
        return []
    if gland.psa_density is None:
        return [["Volume (mL)"], [ml(gland.volume_ml)]]
    header = ["Volume (mL)", "PSA (ng/mL)", "PSA density (ng/mL²)"]
    return [header, [ml(gland.volume_ml), f"{gland.psa:g}", f"{gland.psa_density:.2f}"]]


def lesion_table(lesions: Sequence[LesionRow]) -> Table:
    """Header and a row for each lesion; empty without one."""
    rows = [
        [s.name, ml(s.volume_ml), s.zone or "–", " × ".join(f"{a:.0f}" for a in s.axes_mm)]
        for s in lesions
    ]
    return [["Lesion", "Volume (mL)", "Zone", "Axes (mm)"], *rows] if rows else []


def _changes(
    rows: Sequence[VolumeRow], prior: str, number: Callable[[float], str]
) -> dict[str, list[str]]:
    """The columns of a comparison, by header."""
    columns = {
        f"{prior} (mL)": [_if_known(row.prior_ml, number) for row in rows],
        "Change (mL)": [_if_known(row.change_ml, lambda v: _signed(v, number)) for row in rows],
        "Change (%)": [
            _if_known(row.change_percent, lambda v: _signed(v, "{:.0f}".format)) for row in rows
        ],
    }
    if any(row.not_comparable for row in rows):
        columns["Remark"] = [
            f"not comparable: {row.not_comparable}" if row.not_comparable else "" for row in rows
        ]
    return columns


def _if_known(value: float | None, write: Callable[[float], str]) -> str:
    return "" if value is None else write(value)


def _signed(value: float, write: Callable[[float], str]) -> str:
    """With its sign, but for what is rounded to nothing."""
    text = write(abs(value))
    return text if float(text) == 0 else f"{'+' if value > 0 else '-'}{text}"
