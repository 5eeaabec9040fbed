"""What the Slicer panel says, as plain data: texts, tooltips, rows. No Qt, no decision.

`panel_of` turns a `WorkflowState` into texts. ``_`` translates; every text of the panel that is not
a model's or a finding's own goes through it.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from MIMSegment.Logic.actions import Action, enabled_if
from MIMSegment.Logic.finding import Finding, Severity
from MIMSegment.Logic.lesions import asks_for_psa
from MIMSegment.Logic.panel_cards import details_html
from MIMSegment.Logic.panel_exports import export_hint
from MIMSegment.Logic.panel_review import (
    Row,
    findings_html,
    findings_title,
    place_text,
    review_row,
)
from MIMSegment.Logic.review_items import ReviewItem, ReviewState
from MIMSegment.Logic.workflow_state import (
    Export,
    InputRow,
    Step,
    WorkflowSettings,
    WorkflowState,
)

Translate = Callable[[str], str]

# The export buttons of the panel.
EXPORTS = {
    "exportDicomSegButton": Export.DICOM_SEG,
    "exportReportButton": Export.REPORT,
    "exportSegmentationButton": Export.SEGMENTATION,
    "exportLabelsButton": Export.LABELS,
    "exportTableButton": Export.TABLE,
    "exportSceneButton": Export.SCENE,
    "exportTrainingButton": Export.TRAINING,
}
# Keys that work while the list of structures has the focus.
SHORTCUTS = {
    "A": "acceptButton",
    "E": "editButton",
    "R": "rejectButton",
    "O": "reopenButton",
    "U": "undoButton",
    "N": "nextPlaceButton",
    "P": "previousPlaceButton",
}
# What is done to all structures chosen in the list; the other steps are on one.
SEVERAL = ("accept", "reject", "reopen")


@dataclass(frozen=True)
class Button:
    """``tooltip`` says what a button does or, while it is disabled, why it is."""

    enabled: bool
    tooltip: str = ""
    visible: bool = True
    text: str | None = None


@dataclass(frozen=True)
class Input:
    """An input of the model: the ID of the image taken, why (or, bold, what is missing) as rich
    text, the choices as (ID, name), each name once."""

    name: str
    source: str
    reason: str
    choices: tuple[tuple[str, str], ...]
    tooltip: str = ""


@dataclass(frozen=True)
class Panel:
    """Everything that the panel shows and that the state decides.

    ``labels``, ``buttons``, ``titles`` (of sections) and ``collapsed`` are by the name of the
    widget; a label without text is hidden. ``progress`` is 0..1, None while unknown or nothing
    runs. ``structures`` are (label value, name, wanted), ``chosen`` the segments chosen in the
    review table, ``comment`` is of the first of them, ``results`` are the other segmentations in
    the scene that can be reviewed, or compared with, as (ID, name), ``result`` is the ID of the one
    in review.
    """

    labels: Mapping[str, str]
    buttons: Mapping[str, Button]
    titles: Mapping[str, str]
    collapsed: Mapping[str, bool]
    inputs: tuple[Input, ...]
    progress: float | None
    rows: tuple[Row, ...]
    chosen: tuple[str, ...]
    comment: str
    editing: str | None
    device: str
    target: str
    structures: tuple[tuple[int, str, bool], ...]
    results: tuple[tuple[str, str], ...]
    result: str


def device_choices(_: Translate = str) -> tuple[tuple[str, str], ...]:
    """The devices that can be asked for, as (name, text)."""
    return (
        ("auto", _("Automatic: a GPU if one works, else the processor")),
        ("cpu", _("Processor")),
        ("openvino", _("Processor, another way (OpenVINO)")),
        ("cuda", _("NVIDIA graphics card")),
        ("directml", _("Graphics card on Windows (DirectML)")),
        ("coreml", _("Apple chip (CoreML)")),
    )


def panel_of(
    state: WorkflowState,
    settings: WorkflowSettings,
    results: Sequence[tuple[str, str]] = (),
    chosen: Sequence[str] = (),
    sample: str = "",
    _: Translate = str,
    runtime_missing: bool = False,
) -> Panel:
    """All that is shown for ``state``; ``chosen`` are the segments chosen in the review table, the
    one that is looked at first, ``sample`` is the title of the sample study for the chosen model,
    "" if there is none, and ``runtime_missing`` whether the first run will have to install the
    inference library."""
    review = state.review
    items = _chosen(review, chosen)
    item = items[0] if items else None
    wanted = settings.structures
    structures = state.package.structures.items() if state.package else ()
    findings = _shown_findings(state)
    others = [result for result in results if result[0] != state.result]
    grave = any(finding.severity is Severity.ALERT for finding in findings)
    return Panel(
        labels=_labels(state, item, findings, runtime_missing, _),
        buttons={
            **_buttons(state, sample, bool(others), _),
            **_review_buttons(review, items, _),
            **_options(review, bool(others), _),
            "findingsSection": Button(True, visible=bool(findings)),
        },
        titles={"findingsSection": findings_title(findings, _)},
        collapsed={
            "chooseSection": review is not None,
            "inputsSection": review is not None,
            "findingsSection": review is not None and not grave,
            "reviewSection": review is None and not results,
            "exportSection": review is None,
        },
        inputs=tuple(_input(row) for row in state.inputs),
        progress=state.progress.fraction if state.progress else None,
        rows=tuple(review_row(item, _) for item in review.items) if review else (),
        chosen=tuple(item.id for item in items),
        comment=item.comment if item else "",
        editing=review.editing if review else None,
        device=settings.device,
        target=settings.target,
        structures=tuple((v, name, not wanted or v in wanted) for v, name in structures),
        results=unique_names(others),
        result=state.result,
    )


def _labels(
    state: WorkflowState,
    item: ReviewItem | None,
    findings: Sequence[Finding],
    runtime_missing: bool,
    _: Translate,
) -> dict[str, str]:
    review = state.review
    edited = next((i for i in review.items if i.id == review.editing), None) if review else None
    return {
        "catalogLabel": "\n".join(f"⚠ {warning}" for warning in state.catalog_warnings),
        "cardDetails": details_html(state.package, _),
        "inputsHint": "" if state.inputs else _("The images that the chosen model needs."),
        "findingsLabel": findings_html(findings),
        "statusLabel": _status(state, runtime_missing, _),
        "errorLabel": f"⚠ {state.error.message}" if state.error else "",
        "reviewHint": "" if review else _("A result is reviewed here, structure by structure."),
        "placeLabel": place_text(review, _) if review else "",
        "reviewDetails": findings_html(item.findings) if item else "",
        "editorLabel": _("Editing {name}").format(name=edited.name) if edited else "",
        "exportHint": _export_status(state),
    }


def _export_status(state: WorkflowState) -> str:
    """What the last export came to, beside its buttons, or what to do first."""
    if state.review and state.error:
        return f"⚠ {state.error.message}"
    if state.step is Step.EXPORT and state.message:
        return state.message
    return state.actions[f"export_{Export.SEGMENTATION}"].reason


def _input(row: InputRow) -> Input:
    text = html.escape(row.problem or row.reason)
    reason = f"<b>{text}</b>" if row.problem else f"<small>{text}</small>"
    return Input(row.name, row.source, reason, unique_names(row.choices), row.description)


def unique_names(choices: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """(ID, name) with a number after each name that has come before."""
    seen: dict[str, int] = {}
    named = []
    for key, name in choices:
        seen[name] = seen.get(name, 0) + 1
        named.append((key, name if seen[name] == 1 else f"{name} ({seen[name]})"))
    return tuple(named)


def _shown_findings(state: WorkflowState) -> Sequence[Finding]:
    """During a review those about a structure are shown with that structure."""
    return [f for f in state.findings if f.label is None or state.review is None]


def _status(state: WorkflowState, runtime_missing: bool, _: Translate) -> str:
    if state.progress:
        left = state.progress.eta
        rest = _(", {time} left").format(time=_time(left, _)) if left is not None else ""
        running = f" ({state.device.description})" if state.device.description else ""
        return f"{state.progress.message}{rest}{running}"
    if state.busy:
        return f"{state.busy} ..."
    message = "" if state.step is Step.EXPORT else state.message
    notice = message or (state.review.notice if state.review else "")
    if notice:
        return notice
    if only_alerts(state):
        return _("Read what the checks found before you segment anyway.")
    return state.actions["run"].reason or _prospect(state, runtime_missing, _)


def _prospect(state: WorkflowState, runtime_missing: bool, _: Translate) -> str:
    """What to expect of a run."""
    if runtime_missing:
        return _(
            "Before the first run you are asked to install ONNX Runtime, the program part that "
            "calculates (about 28 MB)."
        )
    device = state.device
    if device.seconds is None or state.review:
        return ""
    where = f" ({device.description})" if device.description else ""
    return _("About {time}{device}, {basis}.").format(
        time=_time(device.seconds, _), device=where, basis=device.basis
    )


def _time(seconds: float, _: Translate) -> str:
    if seconds < 90:
        return _("{seconds} s").format(seconds=max(1, round(seconds)))
    return _("{minutes} min").format(minutes=round(seconds / 60))


def only_alerts(state: WorkflowState) -> bool:
    """Whether only the checks speak against a run, so that the button is *Segment anyway*."""
    may_run, may_anyway = state.actions["run"], state.actions["run_anyway"]
    return bool(may_anyway) and not may_run


def _chosen(review: ReviewState | None, segment_ids: Sequence[str]) -> list[ReviewItem]:
    items = {item.id: item for item in review.items} if review else {}
    return [items[segment_id] for segment_id in segment_ids if segment_id in items]


def _buttons(state: WorkflowState, sample: str, again: bool, _: Translate) -> dict[str, Button]:
    actions = state.actions
    card = state.package
    anyway = only_alerts(state)
    run = actions["run_anyway"] if anyway else actions["run"]
    running = state.progress is not None
    buttons = {
        "acknowledgeButton": _button(
            actions["acknowledge"], visible=bool(card and card.needs_acknowledgment)
        ),
        "installButton": _button(actions["install"], visible=bool(card and card.path is None)),
        "removeButton": _button(actions["remove"], visible=bool(card and card.stored)),
        "importButton": _button(actions["choose"]),
        "openButton": _button(actions["open_study"]),
        "sampleButton": _button(actions["open_study"], visible=bool(sample), hint=sample),
        "runButton": _button(run, text=_("Segment anyway") if anyway else _("Segment")),
        "cancelButton": _button(actions["cancel"], visible=running),
        "progressBar": Button(True, visible=running or bool(state.busy)),
        "copyReportButton": Button(True, visible=bool(state.error and state.error.report)),
        "resultBox": Button(True, visible=again),
        "reviewAgainButton": _button(actions["open_result"], visible=again),
        "undoResultButton": _button(
            actions["undo_result"], hint=_("Remove what the last run has added to the scene")
        ),
    }
    for name, kind in EXPORTS.items():
        buttons[name] = _button(actions[f"export_{kind}"], hint=export_hint(kind, _))
    buttons["copyTableButton"] = _button(
        enabled_if(state.review, _("Segment something first.")),
        hint=_("To the clipboard, for a report or a spreadsheet"),
    )
    return buttons


def _review_buttons(
    review: ReviewState | None, items: Sequence[ReviewItem], _: Translate
) -> dict[str, Button]:
    nothing = Action(False, _("Choose a structure in the list first."))
    names = ("accept", "edit", "reject", "reopen", "undo")
    actions = {name: _of_chosen(name, items) or nothing for name in names}
    keys = {button: _("Key {key}").format(key=key) for key, button in SHORTCUTS.items()}
    buttons = {
        f"{name}Button": _button(action, hint=keys[f"{name}Button"])
        for name, action in actions.items()
    }
    editing = bool(items) and items[0].editing  # then it is the whole edit that is taken back
    buttons["undoButton"] = replace(
        buttons["undoButton"], text=_("Undo edit") if editing else _("Undo")
    )
    steps = review.actions if review else {}
    none = Action(False, _("Segment something first."))
    for name in ("next_place", "previous_place", "finish_edit", "accept_rest", "reject_rest"):
        first, second = name.split("_")
        button = f"{first}{second.capitalize()}Button"
        buttons[button] = _button(steps.get(name, none), hint=keys.get(button, ""))
    buttons["commentEdit"] = _button(_of_chosen("comment", items) or nothing)
    return buttons


def _of_chosen(name: str, items: Sequence[ReviewItem]) -> Action | None:
    """The action on the chosen structures: possible if it is on one of those that it is for."""
    actions = [item.actions[name] for item in items if name in item.actions]
    actions = actions if name in SEVERAL else actions[:1]
    return next(filter(None, actions), actions[0] if actions else None)


def _options(review: ReviewState | None, others: bool, _: Translate) -> dict[str, Button]:
    """What a report may have besides."""
    gland = asks_for_psa(item.name for item in review.items) if review else False
    compared = Button(
        True, _("An earlier result, for the change in volume"), bool(review) and others
    )
    psa = Button(True, _("For the PSA density in the report"), gland)
    return {"priorCaption": compared, "priorBox": compared, "psaCaption": psa, "psaBox": psa}


def _button(action: Action, visible: bool = True, text: str | None = None, hint: str = ""):
    """The tooltip is the action's reason, if it has one, or else the hint."""
    return Button(action.enabled, action.reason or hint, visible, text)
