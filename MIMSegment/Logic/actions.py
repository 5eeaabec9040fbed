"""Whether a button works at the moment, and if not, why not."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Action:
    """A button's state: ``reason`` is the sentence for its tooltip while it is disabled.

    An enabled action may have a reason too, as a hint ("2 structures have no verdict yet.").
    """

    enabled: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.enabled


ENABLED = Action(True)


def enabled_if(condition: object, reason: str) -> Action:
    """Enabled when ``condition`` holds, else disabled because of ``reason``."""
    return ENABLED if condition else Action(False, reason)
