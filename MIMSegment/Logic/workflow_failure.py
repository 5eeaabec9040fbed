"""A failure in words for the person in front of the screen, and in full for a report."""

from __future__ import annotations

import traceback

from MIMSegment.Logic.errors import MIMSegmentError
from MIMSegment.Logic.workflow_state import Problem


def explain(error: BaseException) -> Problem:
    """Our own errors as they are; anything else as a defect of ours, with its traceback."""
    if isinstance(error, MIMSegmentError):
        return Problem(str(error), type(error).__name__)
    if isinstance(error, MemoryError):
        return Problem(
            "The computer ran out of memory; close other programs or open a smaller image.",
            "MemoryError",
        )
    report = "".join(traceback.format_exception(error))
    return Problem(
        f"This step failed for an unforeseen reason ({type(error).__name__}); please send the "
        "report to the developers.",
        type(error).__name__,
        report,
    )
