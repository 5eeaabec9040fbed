"""What the Slicer panel says, as plain data: texts, tooltips, rows. No Qt, no decision.

`panel_of` turns a `WorkflowState` into texts. ``_`` translates; every text of the panel that is not
a model's or a finding's own goes through it.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from MIMSegment.Logic.actions import Action, enabled_if
from MIMSegment.Logic.finding import Finding, Severity
from MIMSegment.Logic.review_items import ReviewItem, ReviewState, Verdict
from MIMSegment.Logic.workflow_state import (
    Export,
    PackageCard,
    WorkflowSettings,
    WorkflowState,
)

Translate = Callable[[str], str]

_MARKS = {Severity.ALERT: "‼", Severity.WARNING: "⚠", Severity.NOTE: "•"}  # in every font
_SYMBOLS = {
    Verdict.OPEN: "○",
    Verdict.EDITING: "✎",
    Verdict.ACCEPTED: "✔",
    Verdict.REJECTED: "✘",
}
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


@dataclass(frozen=True)
class Button:
    """``tooltip`` says what a button does or, while it is disabled, why it is."""

    enabled: bool
    tooltip: str = ""
    visible: bool = True
    text: str | None = None


@dataclass(frozen=True)
class Line:
    """An entry of a list: ``key`` for the program, the rest for the user."""

    key: str
    text: str
    tooltip: str = ""


@dataclass(frozen=True)
class Row:
    """A structure in the review table; ``cells`` in the order of `review_header`."""

    id: str
    color: tuple[int, int, int]
    cells: tuple[str, ...]
    tooltip: str


@dataclass(frozen=True)
class Input:
    """An input of the model: the ID of the image taken, why (or what is missing), the choices as
    (ID, name), each name once."""

    name: str
    source: str
    reason: str
    choices: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Panel:
    """Everything that the panel shows and that the state decides.

    ``labels``, ``buttons`` and ``collapsed`` are by the name of the widget; a label without text is
    hidden. ``progress`` is 0..1, None while unknown or nothing runs. ``structures`` are (label
    value, name, wanted), ``comment`` is of the ``selected`` structure, ``results`` are the
    segmentations in the scene that can be reviewed again, as (ID, name).
    """

    labels: Mapping[str, str]
    buttons: Mapping[str, Button]
    collapsed: Mapping[str, bool]
    inputs: tuple[Input, ...]
    progress: float | None
    rows: tuple[Row, ...]
    selected: str
    comment: str
    editing: str | None
    device: str
    target: str
    structures: tuple[tuple[int, str, bool], ...]
    results: tuple[tuple[str, str], ...]


def device_choices(_: Translate = str) -> tuple[tuple[str, str], ...]:
    """The devices that can be asked for, as (name, text)."""
    return (
        ("auto", _("Automatic: the fastest that works")),
        ("cpu", _("Processor")),
        ("openvino", _("Processor, by OpenVINO")),
        ("cuda", _("NVIDIA GPU")),
        ("directml", _("GPU on Windows, by DirectML")),
        ("coreml", _("Apple, by CoreML")),
    )


def card_lines(cards: Sequence[PackageCard], _: Translate = str) -> tuple[Line, ...]:
    """A line for each model: title, then what it needs."""
    return tuple(Line(card.key, _card_text(card, _), card.entry.description) for card in cards)


def _card_text(card: PackageCard, _: Translate) -> str:
    entry = card.entry
    needs = f"{entry.modality}: {', '.join(image.name for image in entry.inputs)}"
    where = _("ready") if card.path else _("download {size}").format(size=_size(entry.size_bytes))
    return f"{entry.title}\n{needs} · {where}"


def details_html(card: PackageCard | None, _: Translate = str) -> str:
    """License, training data, structures and times of a model, as rich text."""
    if card is None:
        return _("Choose a model; its license and what it was trained on are shown here.")
    entry, escape = card.entry, html.escape
    lines = [escape(entry.description)] if entry.description else []
    if entry.phantom:
        lines.append(f"<b>{escape(_('Trained on digital phantoms: never for patients.'))}</b>")
    address = escape(entry.license_url, quote=True)
    name = escape(entry.license)
    link = f'<a href="{address}">{name}</a>' if address.startswith("http") else name
    lines.append(f"<b>{escape(_('License of the weights:'))}</b> {link}")
    lines.append(f"<b>{escape(_('Trained on:'))}</b> {escape(entry.training_data)}")
    lines.append(f"<b>{escape(_('Structures:'))}</b> {escape(', '.join(entry.structures))}")
    times = [(entry.cpu_seconds, entry.cpu_hardware), (entry.gpu_seconds, entry.gpu_hardware)]
    known = [f"{seconds:.0f} s ({hardware})" for seconds, hardware in times if seconds]
    if known:
        lines.append(f"<b>{escape(_('Time for a case:'))}</b> {escape(', '.join(known))}")
    return "<br>".join(lines)


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


def panel_of(
    state: WorkflowState,
    settings: WorkflowSettings,
    results: Sequence[tuple[str, str]] = (),
    selected: str = "",
    sample: str = "",
    _: Translate = str,
) -> Panel:
    """All that is shown for ``state``; ``selected`` is the segment chosen in the review table,
    ``sample`` the title of the sample study for the chosen model, "" if there is none."""
    review = state.review
    item = _selected(review, selected)
    wanted = settings.structures
    structures = state.package.structures.items() if state.package else ()
    return Panel(
        labels={
            "cardDetails": details_html(state.package, _),
            "findingsLabel": findings_html(_shown_findings(state)),
            "statusLabel": _status(state, _),
            "errorLabel": f"⚠ {state.error.message}" if state.error else "",
            "placeLabel": _place(review, _),
            "reviewDetails": findings_html(item.findings) if item else "",
        },
        buttons={**_buttons(state, sample, bool(results), _), **_review_buttons(review, item, _)},
        collapsed={
            "chooseSection": review is not None,
            "inputsSection": review is not None,
            "reviewSection": review is None and not results,
            "exportSection": review is None,
        },
        inputs=tuple(
            Input(row.name, row.source, row.problem or row.reason, unique_names(row.choices))
            for row in state.inputs
        ),
        progress=state.progress.fraction if state.progress else None,
        rows=tuple(_row(item, _) for item in review.items) if review else (),
        selected=item.id if item else "",
        comment=item.comment if item else "",
        editing=review.editing if review else None,
        device=settings.device,
        target=settings.target,
        structures=tuple((v, name, not wanted or v in wanted) for v, name in structures),
        results=unique_names(results),
    )


def unique_names(choices: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """(ID, name) with a number after each name that has come before."""
    seen: dict[str, int] = {}
    named = []
    for key, name in choices:
        seen[name] = seen.get(name, 0) + 1
        named.append((key, name if seen[name] == 1 else f"{name} ({seen[name]})"))
    return tuple(named)


def export_hint(kind: Export, _: Translate = str) -> str:
    """What an export is good for."""
    return {
        Export.DICOM_SEG: _("For the archive: with codes, algorithm and source images"),
        Export.REPORT: _("One page with pictures, volumes and verdicts"),
        Export.SEGMENTATION: _("With names, colors, codes and verdicts"),
        Export.LABELS: _("With the label values of the model"),
        Export.TABLE: _("A row for each structure"),
        Export.SCENE: _("Everything, with the audit log beside it"),
        Export.TRAINING: _("Add the reviewed case to a folder that finetune.py reads"),
    }[kind]


def export_dialog(kind: Export, _: Translate = str) -> tuple[str, str, bool]:
    """Caption and file pattern of the dialog, and whether a folder is asked for."""
    patterns = {
        Export.DICOM_SEG: "DICOM (*.dcm)",
        Export.REPORT: "HTML (*.html)",
        Export.SEGMENTATION: "Segmentation (*.seg.nrrd)",
        Export.LABELS: "NIfTI (*.nii.gz)",
        Export.TABLE: "CSV (*.csv)",
        Export.SCENE: "Slicer scene (*.mrb)",
        Export.TRAINING: "",
    }
    return export_hint(kind, _), patterns[kind], kind is Export.TRAINING


def rows_text(rows: Sequence[Row], _: Translate = str) -> str:
    """The table as tab-separated text, for the clipboard."""
    lines = [[caption for caption, _tip in review_header(_)], *(row.cells for row in rows)]
    return "".join("\t".join(line) + "\n" for line in lines)


def findings_html(findings: Sequence[Finding]) -> str:
    """A line for each finding, the gravest first and bold."""
    ordered = sorted(findings, key=lambda finding: -finding.severity.rank)
    return "<br>".join(map(_finding_html, ordered))


def _shown_findings(state: WorkflowState) -> Sequence[Finding]:
    """During a review those about a structure are shown with that structure."""
    return [f for f in state.findings if f.label is None or state.review is None]


def _finding_html(finding: Finding) -> str:
    text = f"{_MARKS[finding.severity]} {html.escape(finding.message)}"
    return f"<b>{text}</b>" if finding.severity is Severity.ALERT else text


def _status(state: WorkflowState, _: Translate) -> str:
    if state.progress:
        left = state.progress.eta
        rest = _(", {seconds:.0f} s left").format(seconds=left) if left is not None else ""
        running = f" ({state.device.description})" if state.device.description else ""
        return f"{state.progress.message}{rest}{running}"
    if state.busy:
        return f"{state.busy} ..."
    if state.message:
        return state.message
    notice = state.review.notice if state.review else ""
    return notice or state.actions["run"].reason


def _row(item: ReviewItem, _: Translate) -> Row:
    verdicts = {
        Verdict.OPEN: _("open"),
        Verdict.EDITING: _("editing"),
        Verdict.ACCEPTED: _("accepted"),
        Verdict.REJECTED: _("rejected"),
    }
    certainty = "" if item.confidence is None else f"{item.confidence:.2f}"
    marks = "".join(dict.fromkeys(_MARKS[finding.severity] for finding in item.findings))
    notes = " ".join(filter(None, (marks, _("edited") if item.edited else "", item.comment)))
    verdict = f"{_SYMBOLS[item.verdict]} {verdicts[item.verdict]}"
    cells = (item.name, _milliliters(item.volume_ml), certainty, verdict, notes)
    tooltip = "\n".join([item.name, *(finding.message for finding in item.findings)])
    return Row(item.id, item.color, cells, tooltip)


def _place(review: ReviewState | None, _: Translate) -> str:
    if review is None:
        return ""
    if review.place is not None and review.place in review.places:
        number = review.places.index(review.place) + 1
        count = len(review.places)
        return _("Place {number} of {count}: {reason}").format(
            number=number, count=count, reason=review.place.reason
        )
    return _("{count} doubtful places to look at.").format(count=len(review.places))


def _selected(review: ReviewState | None, segment_id: str) -> ReviewItem | None:
    items = review.items if review else ()
    return next((item for item in items if item.id == segment_id), None)


def _buttons(state: WorkflowState, sample: str, again: bool, _: Translate) -> dict[str, Button]:
    actions = state.actions
    card = state.package
    anyway = bool(state.alerts) and bool(actions["run_anyway"]) and not actions["run"]
    run = actions["run_anyway"] if anyway else actions["run"]
    running = state.progress is not None
    buttons = {
        "acknowledgeButton": _button(
            actions["acknowledge"], visible=bool(card and card.needs_acknowledgment)
        ),
        "installButton": _button(actions["install"], visible=bool(card and card.path is None)),
        "importButton": _button(actions["choose"]),
        "openButton": _button(actions["open_study"]),
        "sampleButton": _button(actions["open_study"], visible=bool(sample), hint=sample),
        "runButton": _button(run, text=_("Segment anyway") if anyway else _("Segment")),
        "cancelButton": _button(actions["cancel"]),
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
    review: ReviewState | None, item: ReviewItem | None, _: Translate
) -> dict[str, Button]:
    nothing = Action(False, _("Choose a structure in the list first."))
    names = ("accept", "edit", "reject", "reopen", "undo")
    actions = {name: item.actions.get(name, nothing) if item else nothing for name in names}
    keys = {button: _("Key {key}").format(key=key) for key, button in SHORTCUTS.items()}
    buttons = {
        f"{name}Button": _button(action, hint=keys[f"{name}Button"])
        for name, action in actions.items()
    }
    steps = review.actions if review else {}
    none = Action(False, _("Segment something first."))
    for name in ("next_place", "previous_place", "finish_edit"):
        first, second = name.split("_")
        button = f"{first}{second.capitalize()}Button"
        buttons[button] = _button(steps.get(name, none), hint=keys.get(button, ""))
    comment = item.actions.get("comment", nothing) if item else nothing
    buttons["commentEdit"] = _button(comment)
    return buttons


def _button(action: Action, visible: bool = True, text: str | None = None, hint: str = ""):
    """The tooltip is the action's reason, if it has one, or else the hint."""
    return Button(action.enabled, action.reason or hint, visible, text)


def _milliliters(volume: float) -> str:
    return f"{volume:.2f}" if volume < 10 else f"{volume:.1f}" if volume < 100 else f"{volume:.0f}"


def _size(size: float) -> str:
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
