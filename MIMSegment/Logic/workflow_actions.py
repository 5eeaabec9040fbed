"""Which buttons of the workflow work at the moment, and why the others do not."""

from __future__ import annotations

from MIMSegment.Logic.actions import ENABLED, Action, enabled_if
from MIMSegment.Logic.finding import Severity
from MIMSegment.Logic.phrases import counted
from MIMSegment.Logic.workflow_checks import Checked
from MIMSegment.Logic.workflow_exports import is_available
from MIMSegment.Logic.workflow_ports import OpenResult
from MIMSegment.Logic.workflow_state import Export, Step, WorkflowState

_RUNNING = "Wait until the segmentation has ended, or cancel it."


def actions_of(
    state: WorkflowState, input_problem: str, checked: Checked | None, opened: OpenResult | None
) -> dict[str, Action]:
    """An `Action` for every button by name; see `WorkflowState.actions`.

    ``input_problem`` says why the inputs cannot be used, "" if they can; ``checked`` are the inputs
    if they have been read since they were last changed; ``opened`` is the result in review.
    """
    image = opened.inputs[0][1] if opened and opened.inputs else None
    dicom = bool(image and image.instances)
    idle = _idle(state)
    ready = _ready(state, idle, input_problem)
    result = _first(idle, enabled_if(state.review, "Segment something first."))
    return {
        "choose": idle,
        "acknowledge": _acknowledge(state, idle),
        "install": _install(state, idle),
        "remove": _remove(state, idle),
        "open_study": idle,
        "open_result": idle,
        "assign": idle,
        "check": ready,
        "run": _first(ready, no_alert(checked)),
        "run_anyway": ready,
        "cancel": _cancel(state),
        "undo_result": _undo_result(state, result, bool(opened and opened.fresh)),
        **{f"export_{kind}": _first(result, _export(kind, state, dicom)) for kind in Export},
        **_steps(state, idle),
    }


def _idle(state: WorkflowState) -> Action:
    if state.busy:
        return Action(False, f"{state.busy}: wait a moment.")
    return enabled_if(state.progress is None, _RUNNING)


def _acknowledge(state: WorkflowState, idle: Action) -> Action:
    needed = state.package is not None and state.package.needs_acknowledgment
    return _first(idle, enabled_if(needed, "There is no license to accept."))


def _install(state: WorkflowState, idle: Action) -> Action:
    if state.package is None:
        return Action(False, "Choose what to segment first.")
    if state.package.path is not None:
        return Action(False, f"{state.package.entry.title} is installed.")
    return _first(idle, _acknowledged(state))


def _remove(state: WorkflowState, idle: Action) -> Action:
    if state.package is None:
        return Action(False, "Choose what to segment first.")
    stored = f"{state.package.entry.title} came with the program and cannot be removed."
    return _first(idle, enabled_if(state.package.stored, stored))


def _acknowledged(state: WorkflowState) -> Action:
    if state.package is not None and state.package.needs_acknowledgment:
        entry = state.package.entry
        return Action(False, f"Read and accept the license {entry.license} first.")
    return ENABLED


def _ready(state: WorkflowState, idle: Action, input_problem: str) -> Action:
    if state.package is None:
        return Action(False, "Choose what to segment first.")
    installed = enabled_if(state.package.path, f"Download {state.package.entry.title} first.")
    inputs = enabled_if(not input_problem, input_problem)
    return _first(idle, _acknowledged(state), installed, inputs)


def no_alert(checked: Checked | None) -> Action:
    """Whether nothing grave was said about the inputs of the next run. What is shown may be about
    the result in review."""
    said = checked.findings if checked else ()
    alerts = [finding for finding in said if finding.severity is Severity.ALERT]
    if not alerts:
        return ENABLED
    others = len(alerts) - 1
    more = f" ({counted(others, 'more alert')}.)" if others else ""
    return Action(False, f"{alerts[0].message}{more}")


def _cancel(state: WorkflowState) -> Action:
    if state.progress is None:
        return Action(False, "Nothing is running.")
    return enabled_if(not state.progress.cancelling, "It is being stopped.")


def _undo_result(state: WorkflowState, result: Action, fresh: bool) -> Action:
    begun = state.review is not None and state.review.begun
    return _first(
        result,
        enabled_if(fresh, "Only the last run can be taken back, in its first review."),
        enabled_if(
            not begun,
            "The review has begun; undo its steps first, or remove the segments that you have "
            "added.",
        ),
    )


def _export(kind: Export, state: WorkflowState, dicom: bool) -> Action:
    if not is_available(kind):
        return Action(
            False, "A part of the program that writes this is missing; install MIM Segment again."
        )
    if kind is Export.DICOM_SEG and not dicom:
        return Action(
            False,
            "It refers to DICOM files, and this image was not read from any, or is not loaded any "
            "more; open the study as DICOM and segment it again.",
        )
    open_items = state.review.open_items if state.review else ()
    if not open_items:
        return ENABLED
    have = "has" if len(open_items) == 1 else "have"
    return Action(True, f"{counted(len(open_items), 'structure')} {have} no verdict yet.")


def _steps(state: WorkflowState, idle: Action) -> dict[str, Action]:
    reviewed = enabled_if(state.review, "Segment something first.")
    return {
        f"go_{Step.CHOOSE}": idle,
        f"go_{Step.CHECK}": _first(
            idle, enabled_if(state.package, "Choose what to segment first.")
        ),
        f"go_{Step.RUN}": enabled_if(state.progress, "Nothing is running."),
        f"go_{Step.REVIEW}": _first(idle, reviewed),
        f"go_{Step.EXPORT}": _first(idle, reviewed),
    }


def _first(*actions: Action) -> Action:
    """The first of them that is disabled, else the last one."""
    return next((action for action in actions if not action.enabled), actions[-1])
