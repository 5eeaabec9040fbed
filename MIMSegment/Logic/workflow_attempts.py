"""Doing things that may take a while or fail, so that both end in what a front-end shows."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from MIMSegment.Logic.workflow_failure import explain
from MIMSegment.Logic.workflow_state import Problem


class Attempts:
    """Keeps the last error or message, and what is being waited for.

    ``listeners`` are called without arguments after each change. ``executor`` runs what takes a
    while; without it that is done at once.
    """

    def __init__(self, executor: Executor | None = None):
        self.listeners: list[Callable[[], None]] = []
        self._executor = executor
        self._waiting: tuple[Future, str, Callable[[Any], None]] | None = None
        self._error: Problem | None = None
        self._message = ""

    def dismiss(self) -> None:
        """The user has read the error or message."""
        self._error, self._message = None, ""
        self._tell()

    def _wait(self, what: str, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Do ``work`` in the background, if there is one, and ``then`` go on with its result."""
        self._error, self._message = None, ""
        if self._executor is None:
            self._try(lambda: then(work()))
        else:
            self._waiting = (self._executor.submit(work), what, then)
            self._tell()

    def _go_on(self) -> None:
        """Go on with what was waited for, if it is done."""
        if self._waiting and self._waiting[0].done():
            future, _, then = self._waiting
            self._waiting = None
            self._try(lambda: then(future.result()))

    def _try(self, do: Callable, *arguments) -> None:
        """Do it; what goes wrong becomes the error."""
        self._error, self._message = None, ""
        try:
            do(*arguments)
        except Exception as error:
            self._error = explain(error)
        self._tell()

    def _tell(self) -> None:
        for listener in list(self.listeners):
            listener()
