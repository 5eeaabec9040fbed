"""The workflow's state as plain dictionaries for the page; words and numbers are final here."""

from __future__ import annotations

from collections.abc import Mapping

from MIMSegment.Logic.actions import Action
from MIMSegment.Logic.finding import Finding
from MIMSegment.Logic.lesions import asks_for_psa
from MIMSegment.Logic.review_items import ReviewItem, ReviewState
from MIMSegment.Logic.workflow_state import InputRow, PackageCard, Progress, WorkflowState

_MEGABYTE = 1_000_000


def present_state(state: WorkflowState) -> dict:
    """All of ``state`` but the review, which changes far more often."""
    return {
        "step": str(state.step),
        "study": state.study,
        "package": present_card(state.package) if state.package else None,
        "inputs": [_input(row) for row in state.inputs],
        "findings": [_finding(f) for f in _gravest_first(_of_no_structure(state))],
        "alerts": bool(state.alerts),
        "device": {
            "requested": state.device.requested,
            "description": state.device.description,
            "seconds": _duration(state.device.seconds),
            "basis": state.device.basis,
        },
        "progress": _progress(state.progress) if state.progress else None,
        "busy": state.busy,
        "error": {"message": state.error.message, "report": state.error.report}
        if state.error
        else None,
        "message": state.message,
        "can": _actions(state.actions),
        "notice": state.notice,
        "catalog_warnings": list(state.catalog_warnings),
    }


def present_card(card: PackageCard) -> dict:
    """A package as a card to click."""
    entry = card.entry
    return {
        "key": card.key,
        "title": entry.title,
        "description": entry.description,
        "modality": entry.modality,
        "region": entry.region,
        "inputs": _other_than(entry.modality, [i.name for i in entry.inputs]),
        "structures": list(entry.structures),
        "license": entry.license,
        "license_url": entry.license_url if entry.license_url.startswith("http") else "",
        "training_data": entry.training_data,
        "size": f"{entry.size_bytes / _MEGABYTE:.0f} MB",
        "phantom": entry.phantom,
        "says_phantom": "phantom" in entry.title.lower(),
        "installed": card.path is not None,
        "acknowledge": card.needs_acknowledgment,
        "cpu": _duration(entry.cpu_seconds),
        "gpu": _duration(entry.gpu_seconds),
    }


def _other_than(modality: str, inputs: list[str]) -> str:
    """The names of the inputs, "" for a single one that is named as its modality."""
    return "" if inputs == [modality] else ", ".join(inputs)


def present_review(review: ReviewState | None) -> dict | None:
    """The list of structures and the place that is being looked at."""
    if review is None:
        return None
    decided = sum(item.verdict.resolved for item in review.items)
    return {
        "rows": [_row(item) for item in review.items],
        "decided": decided,
        "total": len(review.items),
        "places": len(review.places),
        "place": _place(review),
        "editing": review.editing or "",
        "notice": review.notice,
        "rest": len(review.open_items),
        "psa": asks_for_psa(item.name for item in review.items),
        "can": _actions(review.actions),
    }


def _place(review: ReviewState) -> dict | None:
    if review.place not in review.places:  # none yet, or its structure has been decided
        return None
    return {"rank": review.places.index(review.place) + 1, "reason": review.place.reason}


def _row(item: ReviewItem) -> dict:
    return {
        "id": item.id,
        "name": item.name,
        "color": "#{:02x}{:02x}{:02x}".format(*item.color),
        "volume": volume_text(item.volume_ml),
        "confidence": "" if item.confidence is None else f"{item.confidence:.2f}",
        "verdict": str(item.verdict),
        "comment": item.comment,
        "edited": item.edited,
        "editing": item.editing,
        "visible": item.visible,
        "places": item.doubtful_places,
        "severity": str(item.severity) if item.severity else "",
        "findings": [_finding(f) for f in item.findings],
        "can": _actions(item.actions),
    }


def volume_text(milliliters: float) -> str:
    """ "12.3 mL", with as many digits as a reader can use; "none" for an empty structure."""
    if milliliters <= 0:
        return "none"
    digits = 0 if milliliters >= 100 else 1 if milliliters >= 10 else 2
    return f"{max(milliliters, 0.01):.{digits}f} mL"


def _input(row: InputRow) -> dict:
    return {
        "name": row.name,
        "modality": row.modality,
        "description": row.description,
        "source": row.source,
        "reason": row.reason[:1].upper() + row.reason[1:],
        "problem": row.problem,
        "chosen": row.chosen,
        "choices": [{"value": id, "title": name} for id, name in row.choices],
    }


def _finding(finding: Finding) -> dict:
    place = [float(c) for c in finding.position] if finding.position is not None else None
    return {"severity": str(finding.severity), "text": finding.message, "place": place}


def _gravest_first(findings: tuple[Finding, ...]) -> list[Finding]:
    return sorted(findings, key=lambda f: -f.severity.rank)


def _of_no_structure(state: WorkflowState) -> tuple[Finding, ...]:
    """During a review those about a structure are shown with that structure."""
    return tuple(f for f in state.findings if f.label is None or state.review is None)


def _progress(progress: Progress) -> dict:
    fraction = progress.fraction
    return {
        "message": progress.message,
        "percent": None if fraction is None else round(100 * fraction, 1),
        "left": "" if progress.eta is None else f"{_duration(progress.eta)} left",
        "cancelling": progress.cancelling,
    }


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min"


def _actions(actions: Mapping[str, Action]) -> dict:
    return {name: {"on": bool(a), "why": a.reason} for name, a in actions.items()}
